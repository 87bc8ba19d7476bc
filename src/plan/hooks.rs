//! Which hook is called, about what, and what waits for it.
//!
//! A hook is asked for like any effect, on a lane of its own, and its answer is an observation. What must be called once, or
//! again after the death of whoever was calling, is owed: written down before that which makes it due. Health checks have a
//! question of their own (`health.rs`).
//!
//! To add a hook: a variant of `HookKind`, a function here that says when it is due, and what its answer leads to.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{
    DigestBuilder, Group, GroupName, HookAction, HookAnswer, HookFailed, HookInput, HookKind, HookModule, HookOrder, Occasion,
    OwedChange, OwedHooks, OwedPostStop, OwedReconfigure, PublicationId, Reason, ServiceReport, ServiceState, Signal, Timestamp,
    Topology,
};

use super::observed::Before;
use super::{Action, Core, Failure, GroupFacts, Key, Lane, Staged, Turn, Wanted};

/// Hooks that are modules.
pub(super) type Modules = BTreeMap<HookKind, Arc<HookModule>>;

/// A call that was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    /// What it was about.
    pub occasion: Occasion,
    /// What came of it.
    pub answer: HookAnswer,
    /// When.
    pub at: Timestamp,
}

/// What is known of a group's hooks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HookFacts {
    /// What must not be forgotten, as it is written down.
    pub owed: OwedHooks,
    /// The last answered call of each.
    pub calls: BTreeMap<HookKind, Called>,
}

impl HookFacts {
    /// What a hook said about an occasion, where it has been called about it.
    fn answer(&self, kind: HookKind, occasion: Occasion) -> Option<&HookAnswer> {
        self.calls.get(&kind).filter(|called| called.occasion == occasion).map(|called| &called.answer)
    }

    /// How well this member would lead, as its hook said last.
    pub fn rank(&self) -> Option<u64> {
        match self.calls.get(&HookKind::Suitability).map(|called| &called.answer) {
            Some(HookAnswer::Rank(rank)) => Some(*rank),
            Some(HookAnswer::Health { .. } | HookAnswer::Outcome { .. } | HookAnswer::Failed(_)) | None => None,
        }
    }

    /// Hooks whose last call failed, in words.
    pub(super) fn troubles(&self) -> impl Iterator<Item = String> {
        let failed = |(kind, called): (&HookKind, &Called)| {
            let trouble = called.answer.trouble()?;
            Some(format!("hook `{}` failed at {}: {}", kind.name(), called.at, trouble.message))
        };
        self.calls.iter().filter_map(failed)
    }
}

/// Whether hooks come before each start of a group's service, so that its keeper starts nothing by itself.
pub(super) fn come_first(group: &Group) -> bool {
    [HookKind::Init, HookKind::PostStop].iter().any(|kind| group.hooks.contains_key(kind))
}

/// What a group declares and this version does not call.
pub(super) fn not_called(group: &Group) -> Vec<String> {
    let mut out = Vec::new();
    if group.hooks.contains_key(&HookKind::FileUpdated) {
        out.push("hook `file-updated` is not called by this version: there are no uploads yet".to_owned());
    }
    if group.hooks.contains_key(&HookKind::Suitability) && group.topology != Topology::Leader {
        out.push("hook `suitability` is called only with `[topology] kind = \"leader\"`".to_owned());
    }
    if group.service.is_none() {
        let of_processes =
            |kind: &&HookKind| !matches!(kind, HookKind::Reconfigure | HookKind::HealthCheck | HookKind::FileUpdated);
        let idle = group.hooks.keys().filter(of_processes);
        out.extend(idle.map(|kind| format!("hook `{}` is never called: the group has no [service]", kind.name())));
    }
    out
}

fn key(name: &GroupName, kind: HookKind) -> Key {
    Key::Group(name.clone(), Lane::Hook(kind))
}

/// Those of what was prepared last; `None` before anything was.
fn modules(facts: &GroupFacts) -> Option<&Modules> {
    facts.staged.as_ref().map(|staged| &staged.prepared.hooks)
}

fn incarnation(facts: &GroupFacts) -> u64 {
    facts.service.as_ref().map_or(0, |report| report.incarnation)
}

/// What a call is told beside what is the same for all.
struct Told {
    occasion: Occasion,
    input: HookInput,
    reason: &'static str,
    extra: Vec<(String, String)>,
    after: Option<OwedChange>,
}

impl Told {
    fn order(self, name: &GroupName, module: &Arc<HookModule>, begun: u32) -> HookOrder {
        let Self { occasion, input, reason, extra, after } = self;
        let attempt = begun.saturating_add(1);
        HookOrder { group: name.clone(), module: module.clone(), occasion, input, reason, attempt, extra, after }
    }

    /// Of `post-stop`, with how often it was begun before.
    fn after_end(facts: &GroupFacts) -> Option<(Self, u32)> {
        let owed = facts.hooks.owed.post_stop.as_ref().filter(|owed| owed.after != Some(incarnation(facts)))?;
        // Of a process of before the last boot nobody knows how it ended.
        let exit = facts.service.as_ref().and_then(|report| report.last_exit).filter(|_| owed.after.is_some());
        let input = exit.map_or_else(|| HookInput::empty(HookKind::PostStop), HookInput::post_stop);
        let after = Some(OwedChange::PostStop(None));
        Some((Self { occasion: Occasion::Stopped, input, reason: "stop", extra: Vec::new(), after }, owed.calls))
    }

    /// Of `pre-stop`.
    fn before_end(incarnation: u64, cause: &str) -> Self {
        let cause = DigestBuilder::new("cause").field(cause.as_bytes()).finish();
        let occasion = Occasion::Stop { incarnation, cause };
        Self { occasion, input: HookInput::PreStop, reason: "stop", extra: Vec::new(), after: None }
    }
}

fn call(turn: &mut Turn<'_>, name: &GroupName, module: &Arc<HookModule>, told: Told) {
    let key = key(name, module.kind);
    let order = told.order(name, module, turn.observed.failures(&key));
    turn.act(key, Action::Call(Box::new(order)));
}

/// Says what is waited for: a hook that runs, or why it failed and is called again.
fn wait(turn: &mut Turn<'_>, name: &GroupName, kind: HookKind, reason: Reason) {
    match turn.observed.failure(&key(name, kind)) {
        Some(Failure { reason, message, .. }) => {
            let (reason, message) = (*reason, format!("hook `{}`: {message}", kind.name()));
            turn.wait(name, reason, message);
        }
        None => turn.wait(name, reason, format!("hook `{}` is running", kind.name())),
    }
}

/// Has something written down, before that which makes it due.
fn owe(turn: &mut Turn<'_>, name: &GroupName, change: OwedChange) {
    let key = Key::Group(name.clone(), Lane::Hooks);
    if let Some(Failure { reason, message, .. }) = turn.observed.failure(&key) {
        let (reason, message) = (*reason, message.clone());
        turn.wait(name, reason, message);
    }
    turn.act(key, Action::Owe { group: name.clone(), change });
}

/// After the last process is gone, and before anything else is done about it. True where nothing is due.
pub(super) fn after_stop(turn: &mut Turn<'_>, name: &GroupName, facts: &GroupFacts) -> bool {
    let Some((told, begun)) = Told::after_end(facts) else { return true };
    let Some(modules) = modules(facts) else {
        turn.wait(name, Reason::Waiting, "hook `post-stop` is due, and is not read yet");
        return false;
    };
    let Some(module) = modules.get(&HookKind::PostStop) else {
        owe(turn, name, OwedChange::PostStop(None));
        return false;
    };
    wait(turn, name, HookKind::PostStop, Reason::Stopping);
    turn.act(key(name, HookKind::PostStop), Action::Call(Box::new(told.order(name, module, begun))));
    false
}

/// As [`after_stop`], for a group that is to go: what is owed to it is settled here or not at all.
pub(super) fn last_stop(turn: &mut Turn<'_>, name: &GroupName, facts: &GroupFacts) -> bool {
    // One that this supervisor never prepared cannot be called: its release is not the one that is read.
    if modules(facts).is_some() && !after_stop(turn, name, facts) {
        return false;
    }
    if facts.hooks.owed != OwedHooks::default() {
        owe(turn, name, OwedChange::Nothing);
        return false;
    }
    true
}

/// Before a start. True where nothing stands in its way.
pub(super) fn before_start(turn: &mut Turn<'_>, name: &GroupName, staged: &Staged, facts: &GroupFacts) -> bool {
    let modules = &staged.prepared.hooks;
    let after = incarnation(facts);
    if let Some(module) = modules.get(&HookKind::Init) {
        let occasion = Occasion::Start { after, inputs: staged.inputs };
        if facts.hooks.answer(HookKind::Init, occasion).is_none() {
            wait(turn, name, HookKind::Init, Reason::Starting);
            let told = Told { occasion, input: HookInput::Init, reason: why_started(facts), extra: Vec::new(), after: None };
            call(turn, name, module, told);
            return false;
        }
    }
    if modules.contains_key(&HookKind::PostStop)
        && facts.hooks.owed.post_stop.as_ref().map(|owed| owed.after) != Some(Some(after))
    {
        turn.wait(name, Reason::Starting, "being started");
        owe(turn, name, OwedChange::PostStop(Some(OwedPostStop { after: Some(after), calls: 0 })));
        return false;
    }
    true
}

fn why_started(facts: &GroupFacts) -> &'static str {
    match (&facts.hooks.owed.post_update, incarnation(facts)) {
        (Some(_), _) => "update",
        (None, 0) => "boot",
        (None, _) if facts.restart_asked => "manual",
        (None, _) => "retry",
    }
}

/// Before a process is told to end. True where it may be. `cause` tells who wants its end and why.
pub(super) fn before_stop(turn: &mut Turn<'_>, name: &GroupName, facts: &GroupFacts, cause: &str) -> bool {
    let Some(report) = facts.service.as_ref().filter(|report| is_there(report)) else { return true };
    let Some(module) = modules(facts).and_then(|modules| modules.get(&HookKind::PreStop)) else { return true };
    let told = Told::before_end(report.incarnation, cause);
    if facts.hooks.answer(HookKind::PreStop, told.occasion).is_some() {
        return true;
    }
    wait(turn, name, HookKind::PreStop, Reason::Stopping);
    call(turn, name, module, told);
    false
}

/// Whether a main process is there that could be told something.
fn is_there(report: &ServiceReport) -> bool {
    matches!(report.state, ServiceState::Starting | ServiceState::Running | ServiceState::Reloading)
}

/// Before a member takes over another revision: it is asked of the one that runs. True where nothing stands in its way.
pub(super) fn before_update(turn: &mut Turn<'_>, name: &GroupName, wanted: &Wanted, staged: &Staged, facts: &GroupFacts) -> bool {
    let Some(report) = facts.service.as_ref().filter(|report| report.revision != wanted.group.revision) else { return true };
    if !turn.observed.keeper_ready || wanted.suspended.is_some() || wanted.group.service.is_none() {
        return true;
    }
    let before = facts.before.as_ref().filter(|before| before.revision == report.revision);
    if staged.prepared.hooks.contains_key(&HookKind::PostUpdate) && facts.hooks.owed.post_update.is_none() {
        let previous = before.map(|before| before.tag.to_string()).unwrap_or_default();
        turn.wait(name, Reason::Publishing, "being updated");
        owe(turn, name, OwedChange::PostUpdate(Some(previous)));
        return false;
    }
    let Some((Before { hooks, tag, .. }, true)) = before.map(|before| (before, is_there(report))) else { return true };
    let Some(module) = hooks.get(&HookKind::PreUpdate) else { return true };
    let occasion = Occasion::Revision(wanted.group.revision);
    if facts.hooks.answer(HookKind::PreUpdate, occasion).is_some() {
        return true;
    }
    wait(turn, name, HookKind::PreUpdate, Reason::Publishing);
    let next = wanted.first.tag.to_string();
    let (reason, extra) = direction(turn, tag.as_str(), &next);
    let told = Told { occasion, input: HookInput::PreUpdate { next }, reason, extra, after: None };
    call(turn, name, module, told);
    false
}

/// Which way an update goes, as hooks are told.
fn direction(turn: &Turn<'_>, from: &str, to: &str) -> (&'static str, Vec<(String, String)>) {
    let version = |tag: &str| turn.desired.host.version_of(&crate::model::TagName::new(tag));
    let back = version(from).zip(version(to)).is_some_and(|(from, to)| to < from);
    let (reason, word) = if back { ("rollback", "back") } else { ("update", "forward") };
    (reason, vec![("direction".to_owned(), word.to_owned())])
}

/// Before a process that is there is treated by rules under which `post-stop` follows its end. True where nothing is to be
/// written down for that.
pub(super) fn before_amend(turn: &mut Turn<'_>, name: &GroupName, staged: &Staged, facts: &GroupFacts) -> bool {
    let Some(report) = facts.service.as_ref().filter(|report| is_there(report)) else { return true };
    if !staged.prepared.hooks.contains_key(&HookKind::PostStop) || facts.hooks.owed.post_stop.is_some() {
        return true;
    }
    let after = Some(report.incarnation.saturating_sub(1));
    turn.wait(name, Reason::Reloading, "taking over what touches no process");
    owe(turn, name, OwedChange::PostStop(Some(OwedPostStop { after, calls: 0 })));
    false
}

/// While a process is there and is what is wanted.
pub(super) fn while_up(turn: &mut Turn<'_>, name: &GroupName, wanted: &Wanted, staged: &Staged, facts: &GroupFacts) {
    let Some(report) = facts.service.as_ref().filter(|report| is_there(report)) else { return };
    let modules = &staged.prepared.hooks;
    let owed = &facts.hooks.owed;
    if let Some(module) = modules.get(&HookKind::PostRun).filter(|_| owed.post_run != Some(report.incarnation)) {
        let told = Told {
            occasion: Occasion::Process(report.incarnation),
            input: HookInput::PostRun { pid: report.pid.filter(|_| !facts.in_container) },
            reason: why_started(facts),
            extra: Vec::new(),
            after: Some(OwedChange::PostRun(report.incarnation)),
        };
        call(turn, name, module, told);
    }
    if facts.is_running() {
        // Updated is what has taken notice of its new files.
        if owed.reconfigure.is_none() {
            after_update(turn, name, wanted, modules, facts);
        }
        let occasion = Occasion::Process(report.incarnation);
        let asked = facts.hooks.answer(HookKind::Suitability, occasion).is_some();
        let leads = wanted.group.topology == Topology::Leader && !asked;
        if let Some(module) = modules.get(&HookKind::Suitability).filter(|_| leads) {
            let input = HookInput::Suitability;
            call(turn, name, module, Told { occasion, input, reason: "election", extra: Vec::new(), after: None });
        }
    }
}

/// A member counts as updated once its hook says so.
fn after_update(turn: &mut Turn<'_>, name: &GroupName, wanted: &Wanted, modules: &Modules, facts: &GroupFacts) {
    let Some(previous) = facts.hooks.owed.post_update.clone() else { return };
    let Some(module) = modules.get(&HookKind::PostUpdate) else {
        owe(turn, name, OwedChange::PostUpdate(None));
        return;
    };
    wait(turn, name, HookKind::PostUpdate, Reason::Publishing);
    let (reason, extra) = direction(turn, &previous, wanted.first.tag.as_str());
    let told = Told {
        occasion: Occasion::Revision(wanted.group.revision),
        input: HookInput::PostUpdate { previous },
        reason,
        extra,
        after: Some(OwedChange::PostUpdate(None)),
    };
    call(turn, name, module, told);
}

/// Whether another publication may be shown to a process that is then told of it by its hook; it is written down first.
pub(super) fn before_shown(turn: &mut Turn<'_>, name: &GroupName, facts: &GroupFacts, from: Option<PublicationId>) -> bool {
    let incarnation = incarnation(facts);
    if facts.hooks.owed.reconfigure.as_ref().is_some_and(|owed| owed.incarnation == incarnation) {
        return true;
    }
    turn.wait(name, Reason::Reloading, "being told of its new files");
    let from = from.map(|publication| publication.content);
    owe(turn, name, OwedChange::Reconfigure(Some(OwedReconfigure { incarnation, from })));
    false
}

/// What a hook wants done about another publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reconfigured {
    /// Nothing, or nothing yet.
    Settled,
    /// A restart.
    Restart,
}

/// After another publication is shown: its hook is asked what is to be done, and a signal is sent where it says so.
pub(super) fn reconfigure(
    turn: &mut Turn<'_>,
    name: &GroupName,
    staged: &Staged,
    facts: &GroupFacts,
    shown: Option<PublicationId>,
) -> Reconfigured {
    let (Some(owed), Some(publication)) = (&facts.hooks.owed.reconfigure, shown) else { return Reconfigured::Settled };
    let incarnation = incarnation(facts);
    let module = staged.prepared.hooks.get(&HookKind::Reconfigure).filter(|_| owed.incarnation == incarnation);
    let Some(module) = module else {
        // Another process was started with what is shown, or nobody is to be asked any more.
        owe(turn, name, OwedChange::Reconfigure(None));
        return Reconfigured::Settled;
    };
    let occasion = Occasion::Publication { incarnation, publication };
    let done = OwedChange::Reconfigure(None);
    match facts.hooks.answer(HookKind::Reconfigure, occasion) {
        Some(HookAnswer::Outcome { action: HookAction::Signal(signal), .. }) if facts.service.is_some() => {
            turn.wait(name, Reason::Reloading, format!("being sent {signal}, as hook `reconfigure` says"));
            match signal.parse::<Signal>() {
                Ok(signal) => {
                    let action = Action::Signal { group: name.clone(), signal, after: done };
                    turn.act(Key::Group(name.clone(), Lane::Service), action);
                }
                Err(()) => owe(turn, name, OwedChange::Reconfigure(None)),
            }
        }
        Some(HookAnswer::Outcome { action: HookAction::Restart, .. }) if facts.service.is_some() => return Reconfigured::Restart,
        Some(_) => owe(turn, name, OwedChange::Reconfigure(None)),
        None => {
            wait(turn, name, HookKind::Reconfigure, Reason::Reloading);
            let input = HookInput::Reconfigure { changed: Vec::new() };
            call(turn, name, module, Told { occasion, input, reason: "reload", extra: Vec::new(), after: Some(done) });
        }
    }
    Reconfigured::Settled
}

/// Calls of `pre-stop` for everything that is up: this host is going down.
pub fn pre_stops(core: &Core) -> Vec<HookOrder> {
    let due = |(name, facts): (&GroupName, &GroupFacts)| {
        let report = facts.service.as_ref().filter(|report| is_there(report))?;
        let module = modules(facts)?.get(&HookKind::PreStop)?;
        Some(Told::before_end(report.incarnation, "shutdown").order(name, module, 0))
    };
    core.observed().groups.iter().filter_map(due).collect()
}

/// Calls of `post-stop` that are due: nothing is up any more.
pub fn post_stops(core: &Core) -> Vec<HookOrder> {
    let due = |(name, facts): (&GroupName, &GroupFacts)| {
        let (told, begun) = Told::after_end(facts).filter(|_| !facts.service.as_ref().is_some_and(is_there))?;
        let module = modules(facts)?.get(&HookKind::PostStop)?;
        Some(told.order(name, module, begun))
    };
    core.observed().groups.iter().filter_map(due).collect()
}

/// Whether an answer settles what its call was about; else it is called again after a while.
pub fn settles(kind: HookKind, answer: &HookAnswer) -> bool {
    let Some(trouble) = answer.trouble() else { return true };
    match kind {
        // Nothing waits for longer than one call of these.
        HookKind::PreStop | HookKind::PreUpdate => true,
        HookKind::PostRun | HookKind::PostStop | HookKind::Suitability => trouble.reason != HookFailed::HostGone,
        HookKind::HealthCheck | HookKind::Init | HookKind::Reconfigure | HookKind::FileUpdated | HookKind::PostUpdate => false,
    }
}
