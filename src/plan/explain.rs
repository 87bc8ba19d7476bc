//! Plans and facts in words: conditions, refused tags, what is waited for.

use std::collections::BTreeMap;

use crate::model::{
    Condition, ConditionKind, GroupName, HealthStatus, HookKind, MountMode, Now, Reason, RemoteTag, ServiceReport, ServiceState,
    Timestamp, Truth, Wait,
};
use crate::release::{self, Candidate, Choice, choose};

use super::action::tag_key;
use super::{Core, Drift, GroupFacts, Plan, Wanted, health, not_carried_out};

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
pub fn explain(core: &Core, plan: &Plan, before: &Overview, now: Now) -> Overview {
    let mut overview = Overview { waits: plan.waits.clone(), refused: refused(core, before, now), ..Overview::default() };
    let nobody = GroupFacts::default();
    let desired = core.desired();
    let observed = core.observed();
    for (name, wanted) in &desired.groups {
        let facts = observed.groups.get(name).unwrap_or(&nobody);
        let status = group(plan, name, Some(wanted), facts, before.groups.get(name), now);
        overview.groups.insert(name.clone(), status);
    }
    for (name, facts) in observed.groups.iter().filter(|(name, _)| !desired.groups.contains_key(name)) {
        if plan.groups.contains_key(name) || facts.service.is_some() {
            overview.groups.insert(name.clone(), group(plan, name, None, facts, before.groups.get(name), now));
        }
    }
    overview.conditions = supervisor(core, &overview, before, now);
    overview
}

/// Every tag that stands above the choice and is not taken: judged, postponed, below the floor, or with a name that has no place.
fn refused(core: &Core, before: &Overview, now: Now) -> Vec<RefusedTag> {
    let source = &core.observed().source;
    // Before the remote has answered once, what was known is what is known.
    let Some(candidates) = source.candidates.as_deref() else { return before.refused.clone() };
    let passed_over = passed_over(core, candidates);
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

/// What is passed over on the way down to the accepted release, as if what is still to be looked at were passed over too: a newer tag
/// does not make what is known of the others news.
fn passed_over(core: &Core, candidates: &[Candidate]) -> Vec<release::RefusedTag> {
    let source = &core.observed().source;
    let accepted = source.accepted.as_ref().and_then(|accepted| core.desired().host.version_of(&accepted.tag.name));
    let mut told = Vec::new();
    let mut rest = candidates;
    loop {
        let (choice, passed_over) = choose(rest, &source.verdicts, source.rules());
        told.extend(passed_over);
        let Choice::Examine(tag) = choice else { return told };
        let next = rest.iter().position(|candidate| candidate.tag == tag).map_or(rest.len(), |at| at + 1);
        rest = &rest[next..];
        let above = rest.first().is_some_and(|candidate| accepted.as_ref().is_some_and(|version| candidate.version > *version));
        if source.pin.is_some() || !above {
            return told;
        }
    }
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
            | Reason::Pinned
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
    let Some(hook) = hook.filter(|hook| health::is_carried_out(hook)) else { return };
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

fn supervisor(core: &Core, overview: &Overview, before: &Overview, now: Now) -> Vec<Condition> {
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
    let source = &core.observed().source;
    if let Some(trouble) = &source.trouble {
        conditions.say(ConditionKind::Stalled, Truth::False, trouble.reason, trouble.message.clone());
    } else if let Some(accepted) = source.accepted.as_ref().filter(|_| source.listed_at.is_some() && !source.listed_accepted) {
        let message = format!(
            "tag `{}`, which runs here, is not at the remote any more; it runs on, and nothing below takes its place",
            accepted.tag.name
        );
        conditions.say(ConditionKind::Stalled, Truth::False, Reason::DowngradeRefused, message);
    }
    let moved = overview.refused.iter().find(|refused| refused.reason == Reason::TagMoved);
    if let Some(moved) = moved.filter(|_| !conditions.list.iter().any(|known| known.kind == ConditionKind::Stalled)) {
        conditions.say(ConditionKind::Stalled, Truth::True, Reason::TagMoved, moved.message.clone());
    }
    if let Some(pin) = &source.pin {
        let message = format!("`{}` is pinned by {}", pin.tag.name, pin.word);
        conditions.say(ConditionKind::Suspended, Truth::True, Reason::Pinned, message);
    }
    source_verified(&mut conditions, core);
    freshness(&mut conditions, core, now);
    conditions.list
}

fn source_verified(conditions: &mut Conditions<'_>, core: &Core) {
    let source = &core.observed().source;
    let mut say = |truth, reason, message: String| conditions.say(ConditionKind::SourceVerified, truth, reason, message);
    if !core.desired().host.verify {
        let message = "signatures are not verified: [source.verify] mode is `off`";
        return say(Truth::Unknown, Reason::Unverified, message.to_owned());
    }
    match (&source.accepted, &source.attested, &source.trust_error) {
        (Some(accepted), Some(Ok(signers)), _) => {
            say(Truth::True, Reason::Verified, format!("`{}` is signed by {}", accepted.tag.name, signers.join(", ")));
        }
        (Some(_), Some(Err(refusal)), _) => {
            let message = format!(
                "what runs does not verify any more; it runs on, and nothing newer is taken unless it does: {}",
                refusal.message
            );
            say(Truth::False, refusal.reason, message);
        }
        (_, _, Some(error)) => say(Truth::False, Reason::SignerNotTrusted, format!("nothing can be verified: {error}")),
        (Some(accepted), None, None) => {
            say(Truth::Unknown, Reason::Fetching, format!("the signatures of `{}` are being looked at", accepted.tag.name));
        }
        (None, _, None) => {}
    }
}

/// The newest signed statement: the accepted release where it verifies, or the heartbeat.
pub fn newest_statement(core: &Core) -> Option<(Timestamp, String)> {
    let source = &core.observed().source;
    let heartbeat = source.heartbeat.last.as_ref().map(|last| (last.made_at, format!("the heartbeat of {}", last.by)));
    let verified = matches!(source.attested, Some(Ok(_)));
    let accepted = source.accepted.as_ref().map(|accepted| accepted.tag.object);
    let release = core.desired().release.as_ref().filter(|release| verified && Some(release.tag_object) == accepted);
    let release = release.map(|release| (release.tagged_at, format!("tag `{}`", release.tag)));
    [heartbeat, release].into_iter().flatten().max()
}

/// A remote that shows old tags for ever looks like one where nothing happens, unless somebody signs that nothing does.
fn freshness(conditions: &mut Conditions<'_>, core: &Core, now: Now) {
    let source = &core.observed().source;
    let host = &core.desired().host;
    let (Some(max_age), true, Some(_)) = (host.max_age, host.verify, source.listed_at) else { return };
    let limit = humantime::format_duration(max_age);
    let trouble = source.heartbeat.trouble.as_ref().map(|trouble| format!("; {}", trouble.message)).unwrap_or_default();
    let (late, message) = match newest_statement(core) {
        Some((at, what)) => {
            let age = std::time::Duration::from_millis(now.wall.0.saturating_sub(at.0));
            (
                age > max_age,
                format!("the newest signed statement is {what}, made at {at}; {limit} is agreed (`max_age`){trouble}"),
            )
        }
        None => (true, format!("nobody has signed anything that counts; {limit} is agreed (`max_age`){trouble}")),
    };
    let truth = if late { Truth::True } else { Truth::False };
    conditions.say(ConditionKind::FreezeSuspected, truth, Reason::FreezeSuspected, message);
}
