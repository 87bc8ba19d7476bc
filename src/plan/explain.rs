//! Plans and facts in words: conditions, refused tags, what is waited for.

use std::collections::BTreeMap;

use crate::model::{
    Condition, ConditionKind, GroupName, HealthStatus, HookKind, MountMode, Now, Reason, RemoteTag, ServiceReport, ServiceState,
    Timestamp, Truth, Wait,
};
use crate::release::{self, choose};

use super::action::tag_key;
use super::{Core, Drift, GroupFacts, Plan, Wanted, health, not_carried_out, service};

/// A tag that is not taken.
#[derive(Debug, Clone, PartialEq)]
pub struct RefusedTag {
    /// Which.
    pub tag: RemoteTag,
    /// Why, as a name.
    pub reason: Reason,
    /// Why, in words.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// How one group stands.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupStatus {
    /// `Ready` always; others as they apply.
    pub conditions: Vec<Condition>,
    /// What is waited for.
    pub waits: Vec<Wait>,
    /// What it declares that this version does not carry out, and layers that were left out.
    pub notices: Vec<String>,
    /// The last answer of its check.
    pub health: HealthStatus,
    /// The answer's words.
    pub health_message: String,
    /// When it was given.
    pub checked_at: Option<Timestamp>,
    /// The process.
    pub service: Option<ServiceReport>,
    /// The revision that is wanted; `None` for one that is to go.
    pub wanted: Option<std::sync::Arc<Wanted>>,
    /// Mount path, publication, mode.
    pub mount: Option<(String, String, MountMode)>,
}

/// How everything stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overview {
    /// The supervisor's own conditions.
    pub conditions: Vec<Condition>,
    /// The supervisor's own waits.
    pub waits: Vec<Wait>,
    /// Tags that are not taken, highest first.
    pub refused: Vec<RefusedTag>,
    /// Groups.
    pub groups: BTreeMap<GroupName, GroupStatus>,
}

/// Tells how things stand. `before` is the last overview: a condition that has not changed keeps its time.
pub fn explain(core: &Core, plan: &Plan, before: &Overview, verified: bool, now: Now) -> Overview {
    let mut overview = Overview { waits: plan.waits.clone(), refused: refused(core, before, now), ..Overview::default() };
    let nobody = GroupFacts::default();
    let desired = core.desired();
    let observed = core.observed();
    for (name, wanted) in &desired.groups {
        let facts = observed.groups.get(name).unwrap_or(&nobody);
        let mut status = group(plan, name, Some(wanted), facts, before.groups.get(name), now);
        status.notices.extend(service::not_understood(core, wanted, facts));
        overview.groups.insert(name.clone(), status);
    }
    for (name, facts) in observed.groups.iter().filter(|(name, _)| !desired.groups.contains_key(name)) {
        if plan.groups.contains_key(name) || facts.service.is_some() {
            overview.groups.insert(name.clone(), group(plan, name, None, facts, before.groups.get(name), now));
        }
    }
    overview.conditions = supervisor(core, &overview, before, verified, now);
    overview
}

/// Every tag that stands above the choice and is not taken: judged, postponed, below the floor, or with a name that has no place.
fn refused(core: &Core, before: &Overview, now: Now) -> Vec<RefusedTag> {
    let source = &core.observed().source;
    // Before the remote has answered once, what was known is what is known.
    let Some(candidates) = source.candidates.as_deref() else { return before.refused.clone() };
    let (_, passed_over) = choose(candidates, &source.verdicts, source.floor.as_ref());
    let postponed = candidates.iter().filter_map(|candidate| {
        let (_, _, refusal) = source.postponed.get(&tag_key(&candidate.tag))?;
        Some(release::RefusedTag { tag: candidate.tag.clone(), refusal: refusal.clone() })
    });
    let told = |refused: release::RefusedTag| {
        let same = before.refused.iter().find(|old| old.tag == refused.tag && old.reason == refused.refusal.reason);
        let since = same.map_or(now.wall, |old| old.since);
        let release::RefusedTag { tag, refusal } = refused;
        RefusedTag { tag, reason: refusal.reason, message: refusal.message, since }
    };
    passed_over.into_iter().chain(postponed).chain(source.misnamed.iter().cloned()).map(told).collect()
}

/// Builds conditions that keep their time while their status and reason stay.
struct Conditions<'a> {
    before: &'a [Condition],
    now: Timestamp,
    list: Vec<Condition>,
}

impl Conditions<'_> {
    fn say(&mut self, kind: ConditionKind, status: Truth, reason: Reason, message: impl Into<String>) {
        let same = self.before.iter().find(|old| old.kind == kind && old.status == status);
        let since = same.map_or(self.now, |old| old.since);
        self.list.push(Condition { kind, status, reason, message: message.into(), since });
    }
}

/// Reasons that time does not mend.
fn is_stalled(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::MountOccupied
            | Reason::RenderFailed
            | Reason::ServiceFailed
            | Reason::NotCarriedOut
            | Reason::TagMoved
            | Reason::InvalidConfiguration
            | Reason::NoMatchingTag
    )
}

fn group(
    plan: &Plan,
    name: &GroupName,
    wanted: Option<&std::sync::Arc<Wanted>>,
    facts: &GroupFacts,
    before: Option<&GroupStatus>,
    now: Now,
) -> GroupStatus {
    let waits = plan.groups.get(name).cloned().unwrap_or_default();
    let hook = wanted.and_then(|wanted| wanted.group.hooks.get(&HookKind::HealthCheck));
    let (status, message) = health::status(facts, hook);
    let mut conditions = Conditions { before: before.map_or(&[], |before| &before.conditions), now: now.wall, list: Vec::new() };
    ready(&mut conditions, &waits, wanted.is_some_and(|wanted| wanted.suspended.is_some()));
    healthy(&mut conditions, facts, hook, status, &message);
    match (&facts.disk.drift, &facts.disk.mended) {
        (Drift::Found(paths), _) => {
            conditions.say(
                ConditionKind::DriftDetected,
                Truth::True,
                Reason::DriftDetected,
                format!("changed by hand: {}", paths.join(", ")),
            );
        }
        (Drift::None | Drift::Suspected, Some((at, paths))) => {
            let message = format!("changed by hand and put back at {at}: {}", paths.join(", "));
            conditions.say(ConditionKind::DriftDetected, Truth::False, Reason::DriftDetected, message);
        }
        (Drift::None | Drift::Suspected, None) => {}
    }
    let mut notices = wanted.map(|wanted| not_carried_out(&wanted.group)).unwrap_or_default();
    notices.extend(wanted.iter().flat_map(|wanted| wanted.layer_errors.clone()));
    notices.extend(facts.staged.iter().flat_map(|staged| staged.prepared.notices.clone()));
    notices.extend(facts.hooks.troubles());
    notices.extend(facts.hooks.rank().map(|rank| format!("hook `suitability` says {rank}")));
    notices.extend(facts.service.iter().map(|report| report.logs.trouble.clone()).filter(|trouble| !trouble.is_empty()));
    let mode = facts.service.as_ref().map_or(MountMode::Symlink, |report| report.mount_mode);
    let mount = facts.disk.link.clone().zip(facts.disk.shown).map(|(path, shown)| (path, shown.to_string(), mode));
    GroupStatus {
        conditions: conditions.list,
        waits,
        notices,
        health: status,
        health_message: message,
        checked_at: facts.health.last.as_ref().map(|(_, at)| *at),
        service: facts.service.clone(),
        wanted: wanted.cloned(),
        mount,
    }
}

fn ready(conditions: &mut Conditions<'_>, waits: &[Wait], suspended: bool) {
    let Some(first) = waits.first() else {
        conditions.say(ConditionKind::Ready, Truth::True, Reason::Converged, "");
        return;
    };
    conditions.say(ConditionKind::Ready, Truth::False, first.reason, first.message.clone());
    if suspended {
        conditions.say(ConditionKind::Suspended, Truth::True, first.reason, first.message.clone());
        return;
    }
    match waits.iter().find(|wait| is_stalled(wait.reason)) {
        Some(wait) => conditions.say(ConditionKind::Stalled, Truth::True, wait.reason, wait.message.clone()),
        None => conditions.say(ConditionKind::Reconciling, Truth::True, first.reason, first.message.clone()),
    }
}

fn healthy(
    conditions: &mut Conditions<'_>,
    facts: &GroupFacts,
    hook: Option<&crate::model::Hook>,
    status: HealthStatus,
    message: &str,
) {
    let Some(hook) = hook else { return };
    let up = facts.service.as_ref().is_none_or(|report| {
        matches!(report.state, ServiceState::Running | ServiceState::Reloading | ServiceState::Starting | ServiceState::Done)
    });
    if !up {
        return;
    }
    let (truth, reason) = match status {
        HealthStatus::Ok | HealthStatus::Warning => (Truth::True, Reason::HealthOk),
        HealthStatus::Critical if facts.health.criticals >= hook.failures => (Truth::False, Reason::HealthCritical),
        HealthStatus::Critical if facts.health.passed => (Truth::True, Reason::HealthCritical),
        HealthStatus::Critical | HealthStatus::Unknown => (Truth::Unknown, Reason::HealthUnknown),
    };
    conditions.say(ConditionKind::Healthy, truth, reason, message);
}

fn supervisor(core: &Core, overview: &Overview, before: &Overview, verified: bool, now: Now) -> Vec<Condition> {
    let mut conditions = Conditions { before: &before.conditions, now: now.wall, list: Vec::new() };
    let release = core.desired().release.as_ref();
    let behind: Vec<String> =
        overview.groups.iter().filter(|(_, status)| !status.waits.is_empty()).map(|(name, _)| name.to_string()).collect();
    match (release, overview.waits.first(), behind.first()) {
        (Some(_), None, None) => conditions.say(ConditionKind::Ready, Truth::True, Reason::Converged, ""),
        (_, Some(wait), _) => {
            conditions.say(ConditionKind::Ready, Truth::False, wait.reason, wait.message.clone());
            let kind = if is_stalled(wait.reason) { ConditionKind::Stalled } else { ConditionKind::Reconciling };
            conditions.say(kind, Truth::True, wait.reason, wait.message.clone());
        }
        (_, None, Some(first)) => {
            let message = format!("{} of {} groups wait, first {first}", behind.len(), overview.groups.len());
            conditions.say(ConditionKind::Ready, Truth::False, Reason::Waiting, message);
        }
        (None, None, None) => conditions.say(ConditionKind::Ready, Truth::False, Reason::NoRelease, "no release yet"),
    }
    if let Some(trouble) = &core.observed().source.trouble {
        conditions.say(ConditionKind::Stalled, Truth::False, trouble.reason, trouble.message.clone());
    }
    if !verified {
        let message = "signatures are not verified: [source.verify] mode is `off`";
        conditions.say(ConditionKind::SourceVerified, Truth::Unknown, Reason::Unverified, message);
    }
    conditions.list
}
