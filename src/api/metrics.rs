//! `/metrics`: the status as OpenMetrics text. One function; nothing is counted here, so nothing can drift from the status.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::wire::{Group, Status};
use crate::model::{ConditionKind, HealthStatus, Truth};

/// What OpenMetrics calls this text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{open}{label}=\"{escaped}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn of_groups(&mut self, name: &str, help: &str, status: &Status, value: impl Fn(&Group) -> bool) {
        self.family(name, "gauge", help);
        for group in &status.groups {
            self.sample(name, &[("group", &group.name.to_string())], u64::from(value(group)));
        }
    }
}

fn is_healthy(group: &Group) -> bool {
    match group.condition(ConditionKind::Healthy) {
        Some(condition) => condition.status == Truth::True,
        None => matches!(group.health.status, HealthStatus::Ok | HealthStatus::Warning),
    }
}

/// Writes all of it down.
pub(super) fn text(status: &Status, events: u64) -> String {
    let mut text = Text(String::new());
    let supervisor = &status.supervisor;
    text.family("tagfall", "info", "The supervisor and its version.");
    text.sample("tagfall_info", &[("name", &supervisor.name), ("version", &supervisor.version)], 1);
    text.family("tagfall_ready", "gauge", "Whether this supervisor has converged.");
    let ready = status.condition(ConditionKind::Ready).is_some_and(|condition| condition.status == Truth::True);
    text.sample("tagfall_ready", &[], u64::from(ready));
    text.family("tagfall_release", "info", "The release that is driven towards.");
    if let Some(release) = &status.release {
        let labels = [("tag", release.tag.as_str()), ("commit", &release.commit.to_string())];
        text.sample("tagfall_release_info", &labels, 1);
    }
    text.family(
        "tagfall_source_verified",
        "gauge",
        "Whether the running release's signatures hold; absent where they are not looked at.",
    );
    if let Some(verified) = status.condition(ConditionKind::SourceVerified).filter(|found| found.status != Truth::Unknown) {
        text.sample("tagfall_source_verified", &[], u64::from(verified.status == Truth::True));
    }
    text.family(
        "tagfall_signed_statement_timestamp_seconds",
        "gauge",
        "When the newest statement was signed, by its signer's word.",
    );
    if let Some(freshness) = &status.freshness {
        text.sample("tagfall_signed_statement_timestamp_seconds", &[], freshness.signed_at.0 / 1000);
    }
    text.family("tagfall_freeze_suspected", "gauge", "Whether nobody has signed anything for longer than is agreed.");
    if let Some(freeze) = status.condition(ConditionKind::FreezeSuspected) {
        text.sample("tagfall_freeze_suspected", &[], u64::from(freeze.status == Truth::True));
    }
    text.of_groups("tagfall_group_ready", "Whether the group has converged.", status, Group::is_ready);
    text.of_groups("tagfall_group_healthy", "Whether the group's checks pass.", status, is_healthy);
    text.family("tagfall_group_state", "gauge", "The state of the group's service; 1 for the one that it is in.");
    for (group, service) in services(status) {
        let state = super::routes::word(&service.state);
        text.sample("tagfall_group_state", &[("group", &group), ("state", &state)], 1);
    }
    text.family("tagfall_group_restarts", "counter", "Restarts of the group's service that were not asked for.");
    for (group, service) in services(status) {
        text.sample("tagfall_group_restarts_total", &[("group", &group)], service.restarts);
    }
    text.family("tagfall_refused_tags", "gauge", "Tags that are not taken, by reason.");
    let mut refused = BTreeMap::<String, u64>::new();
    for tag in &status.refused {
        *refused.entry(super::routes::word(&tag.reason)).or_default() += 1;
    }
    for (reason, tags) in &refused {
        text.sample("tagfall_refused_tags", &[("reason", reason)], *tags);
    }
    text.family("tagfall_events", "counter", "Events so far.");
    text.sample("tagfall_events_total", &[], events);
    text.0.push_str("# EOF\n");
    text.0
}

fn services(status: &Status) -> impl Iterator<Item = (String, &super::wire::Service)> {
    status.groups.iter().filter_map(|group| Some((group.name.to_string(), group.service.as_ref()?)))
}
