//! What happened between two overviews, as events. Pure: two values in, a list out.

use crate::api::wire::EventKind;
use crate::model::{Condition, ConditionKind, GroupName, Reason, ServiceReport, ServiceState, Truth};
use crate::plan::{GroupStatus, Overview};

/// An event before it has a number and a time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Happened {
    pub(super) kind: EventKind,
    pub(super) reason: Reason,
    pub(super) object: String,
    pub(super) message: String,
}

impl Happened {
    pub(super) fn new(kind: EventKind, reason: Reason, object: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, reason, object: object.into(), message: message.into() }
    }
}

/// Tells what `after` has that `before` had not.
pub(super) fn narrate(before: &Overview, after: &Overview) -> Vec<Happened> {
    let mut out = Vec::new();
    for refused in &after.refused {
        let known = before.refused.iter().any(|old| old.tag == refused.tag && old.reason == refused.reason);
        if !known {
            out.push(Happened::new(EventKind::Warning, refused.reason, refused.tag.name.to_string(), &refused.message));
        }
    }
    for condition in &after.conditions {
        let old = before.conditions.iter().find(|old| old.kind == condition.kind);
        out.extend(supervisor(condition, old));
    }
    for (name, status) in &after.groups {
        group(&mut out, name, before.groups.get(name), status);
    }
    for (name, old) in &before.groups {
        if !after.groups.contains_key(name) {
            let message = format!("gone from this supervisor; its last revision was {}", revision(old));
            out.push(Happened::new(EventKind::Normal, Reason::Stopping, name.to_string(), message));
        }
    }
    out
}

/// What is told of the supervisor's own conditions: trust that ceases to hold and comes back, and what the remote keeps back.
fn supervisor(condition: &Condition, old: Option<&Condition>) -> Option<Happened> {
    let was = old.map(|old| (old.status, old.reason));
    if was == Some((condition.status, condition.reason)) {
        return None;
    }
    let kind = match (condition.kind, condition.status) {
        (ConditionKind::SourceVerified, Truth::False) | (ConditionKind::FreezeSuspected, Truth::True) => EventKind::Warning,
        // What runs is told of where its tag is gone; other troubles of the remote come and go with each look.
        (ConditionKind::Stalled, Truth::False) if condition.reason == Reason::DowngradeRefused => EventKind::Warning,
        (ConditionKind::SourceVerified, Truth::True) if was.is_some_and(|(status, _)| status == Truth::False) => {
            EventKind::Normal
        }
        (ConditionKind::FreezeSuspected, Truth::False) if was.is_some() => EventKind::Normal,
        _ => return None,
    };
    Some(Happened::new(kind, condition.reason, "source", &condition.message))
}

fn revision(status: &GroupStatus) -> String {
    status.wanted.as_ref().map_or_else(|| "not wanted any more".to_owned(), |wanted| wanted.group.revision.short())
}

fn group(out: &mut Vec<Happened>, name: &GroupName, before: Option<&GroupStatus>, after: &GroupStatus) {
    publication(out, name, before, after);
    service(out, name, before, after);
    for condition in &after.conditions {
        let old = before.and_then(|before| before.conditions.iter().find(|old| old.kind == condition.kind));
        if old.is_none_or(|old| old.status != condition.status || (old.reason != condition.reason && is_lasting(condition))) {
            condition_event(out, name, condition, old.map(|old| old.status));
        }
    }
}

/// Passing reasons of one condition (starting, reloading) are told by the service's own events.
fn is_lasting(condition: &Condition) -> bool {
    matches!(condition.kind, ConditionKind::Stalled | ConditionKind::Healthy | ConditionKind::DriftDetected)
}

fn condition_event(out: &mut Vec<Happened>, name: &GroupName, condition: &Condition, was: Option<Truth>) {
    let kind = match (condition.kind, condition.status) {
        (ConditionKind::Stalled | ConditionKind::DriftDetected, Truth::True) | (ConditionKind::Healthy, Truth::False) => {
            EventKind::Warning
        }
        (ConditionKind::Ready, Truth::True) | (ConditionKind::Suspended, _) => EventKind::Normal,
        (ConditionKind::Healthy, Truth::True) if was == Some(Truth::False) => EventKind::Normal,
        (ConditionKind::DriftDetected, Truth::False) => EventKind::Normal,
        _ => return,
    };
    let words = match (condition.kind, condition.status) {
        (ConditionKind::Ready, _) => "ready".to_owned(),
        _ => condition.message.clone(),
    };
    out.push(Happened::new(kind, condition.reason, name.to_string(), words));
}

fn publication(out: &mut Vec<Happened>, name: &GroupName, before: Option<&GroupStatus>, after: &GroupStatus) {
    let Some((path, shown, _)) = &after.mount else { return };
    let old = before.and_then(|before| before.mount.as_ref()).map(|(_, shown, _)| shown);
    if old != Some(shown) {
        let message = format!("`{path}` shows publication {}", &shown[..shown.len().min(12)]);
        out.push(Happened::new(EventKind::Normal, Reason::Publishing, name.to_string(), message));
    }
}

fn service(out: &mut Vec<Happened>, name: &GroupName, before: Option<&GroupStatus>, after: &GroupStatus) {
    let Some(report) = &after.service else { return };
    let old = before.and_then(|before| before.service.as_ref());
    if old.is_some_and(|old| {
        // What a process sees is not known before it is in its program: learning it is not a change.
        let changed = report.pid.is_some() && old.publication.is_some() && old.publication != report.publication;
        changed && old.incarnation == report.incarnation && old.pid == report.pid
    }) {
        let message = format!("process {} was told of its new files", report.pid.unwrap_or_default());
        out.push(Happened::new(EventKind::Normal, Reason::Reloading, name.to_string(), message));
    }
    if old.is_some_and(|old| old.state == report.state && old.incarnation == report.incarnation) {
        return;
    }
    let ended = report.last_exit.map(|exit| format!(" ({exit})")).unwrap_or_default();
    let (kind, reason, message) = match report.state {
        // A container that is being made is not there yet.
        ServiceState::Starting if report.pid.is_none() => return,
        ServiceState::Starting | ServiceState::Running if old.is_none_or(|old| old.incarnation != report.incarnation) => {
            (EventKind::Normal, Reason::Starting, started(old, report))
        }
        ServiceState::Running => {
            (EventKind::Normal, Reason::Converged, format!("process {} is ready", report.pid.unwrap_or_default()))
        }
        ServiceState::Stopping => (EventKind::Normal, Reason::Stopping, "stopping".to_owned()),
        ServiceState::Stopped => (EventKind::Normal, Reason::Stopping, format!("stopped{ended}")),
        ServiceState::Done => (EventKind::Normal, Reason::Converged, "done".to_owned()),
        ServiceState::Backoff => {
            (EventKind::Warning, Reason::Backoff, format!("ended{ended}; started again after a while {}", report.message))
        }
        ServiceState::Failed => (EventKind::Warning, Reason::ServiceFailed, format!("failed{ended}; {}", report.message)),
        ServiceState::Stuck | ServiceState::Unknown => (EventKind::Warning, Reason::ServiceFailed, report.message.clone()),
        ServiceState::Waiting | ServiceState::Starting | ServiceState::Reloading => return,
    };
    out.push(Happened::new(kind, reason, name.to_string(), message.trim_end().to_owned()));
}

/// A start, with what it follows where nobody asked for it.
fn started(old: Option<&ServiceReport>, report: &ServiceReport) -> String {
    let pid = report.pid.unwrap_or_default();
    let before = old.filter(|old| report.restarts > old.restarts).and_then(|old| old.pid);
    match (before, report.last_exit) {
        (Some(before), Some(exit)) => format!("process {pid} started, after {before} ended with {exit}"),
        (_, _) => format!("process {pid} started"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ObjectId, RemoteTag, TagName, Timestamp};
    use crate::plan::RefusedTag;

    #[test]
    fn a_refused_tag_is_told_once() {
        let tag = RemoteTag { name: TagName::new("v9"), object: ObjectId::from_bytes([1; 20]) };
        let refused = RefusedTag { tag, reason: Reason::NotAnnotated, message: "lightweight".to_owned(), since: Timestamp(0) };
        let after = Overview { refused: vec![refused], ..Overview::default() };
        assert_eq!(narrate(&Overview::default(), &after).len(), 1);
        assert_eq!(narrate(&after, &after), []);
    }
}
