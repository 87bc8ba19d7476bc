//! Hooks of the virtual host: what was really called, held against what must be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tagfall::model::{
    Digest, Grants, GroupName, HealthStatus, HookAction, HookAnswer, HookFailed, HookFailure, HookKind, HookModule, HookOrder,
    OwedChange, OwedHooks, Reason,
};
use tagfall::plan::{Failure, Outcome, Wanted, settles};

use crate::world::World;

/// The truth about one group's hooks.
#[derive(Default, Clone)]
pub(crate) struct Truth {
    /// Those that each revision declares, and which was staged last.
    declared: BTreeMap<Digest, BTreeSet<HookKind>>,
    latest: Digest32,
    /// `init` has passed since the last start.
    prepared: bool,
    /// A process has ended, and `post-stop` was not called for it.
    due: bool,
    /// A process (or nobody) sees other files than it was told of.
    untold: bool,
    /// `reconfigure` has asked for a restart.
    pub(crate) restart: bool,
    /// The process for which `post-run` was called.
    ran: Option<u32>,
}

type Digest32 = Option<Digest>;

impl Truth {
    fn declares(&self, revision: Digest, kind: HookKind) -> bool {
        self.declared.get(&revision).is_some_and(|kinds| kinds.contains(&kind))
    }

    fn declares_now(&self, kind: HookKind) -> bool {
        self.latest.is_some_and(|revision| self.declares(revision, kind))
    }

    pub(crate) fn staged(&mut self, wanted: &Wanted) {
        let kinds = wanted.group.hooks.keys().copied().collect();
        self.declared.insert(wanted.group.revision, kinds);
        self.latest = Some(wanted.group.revision);
    }

    pub(crate) fn started(&mut self, group: &GroupName, revision: Digest, asked: bool) {
        if asked && self.declares(revision, HookKind::Init) {
            assert!(self.prepared, "{group}: started, and `init` had not passed since the last start");
        }
        if asked && self.declares(revision, HookKind::PostStop) {
            assert!(!self.due, "{group}: started, and `post-stop` had not been called for the process before");
        }
        (self.prepared, self.due, self.untold, self.restart) = (false, false, false, false);
    }

    /// `owed`: written down, though its keeper has not heard of the revision that declares it.
    pub(crate) fn ended(&mut self, revision: Digest, owed: bool) {
        self.due = owed || self.declares(revision, HookKind::PostStop);
        self.untold = false;
    }

    pub(crate) fn shown(&mut self, other: bool) {
        self.untold |= other && self.declares_now(HookKind::Reconfigure);
    }

    fn called(&mut self, order: &HookOrder, answer: &HookAnswer, alive: Option<u32>) {
        let (group, worked) = (&order.group, answer.trouble().is_none());
        match order.module.kind {
            HookKind::Init => {
                assert!(alive.is_none(), "{group}: `init` beside a live process");
                self.prepared |= worked;
            }
            HookKind::PostStop => {
                assert!(alive.is_none(), "{group}: `post-stop` beside a live process");
                assert!(self.due, "{group}: `post-stop` without an end, or twice for one");
                self.due = false;
            }
            HookKind::PostRun => {
                assert!(alive.is_none() || self.ran != alive, "{group}: `post-run` twice for one process");
                self.ran = alive;
            }
            // Where there is no process, there is nothing more to do, whatever it says.
            HookKind::Reconfigure => {
                self.restart = matches!(answer, HookAnswer::Outcome { action: HookAction::Restart, .. });
                self.untold &= alive.is_some() && !matches!(answer, HookAnswer::Outcome { action: HookAction::Done, .. })
            }
            HookKind::HealthCheck
            | HookKind::FileUpdated
            | HookKind::Suitability
            | HookKind::PreUpdate
            | HookKind::PostUpdate
            | HookKind::PreStop => {}
        }
    }

    /// What is forgotten without a call must have had no call to wait for.
    fn forgiven(&mut self, group: &GroupName, owed: &OwedHooks, wanted: bool) {
        if owed.post_stop.is_none() && self.due {
            assert!(!wanted || !self.declares_now(HookKind::PostStop), "{group}: `post-stop` was forgotten");
            self.due = false;
        }
        if owed.reconfigure.is_none() && !self.declares_now(HookKind::Reconfigure) {
            self.untold = false;
        }
    }

    pub(crate) fn is_told(&self) -> bool {
        !self.untold
    }
}

/// Hooks of a group, as staging makes them ready.
pub(crate) fn modules(wanted: &Wanted) -> BTreeMap<HookKind, Arc<HookModule>> {
    let module = |kind: HookKind| HookModule {
        kind,
        module: Digest::of(kind.name().as_bytes()),
        args_json: "{}".into(),
        config_json: "{}".into(),
        grants: Arc::new(Grants::default()),
        probes: Arc::default(),
        env: Arc::new([]),
        launch: None,
        timeout: std::time::Duration::from_secs(2),
        memory: 1 << 20,
        release: wanted.first.tag.clone(),
        commit: wanted.first.commit,
    };
    let kinds = wanted.group.hooks.keys().filter(|kind| **kind != HookKind::HealthCheck);
    kinds.map(|kind| (*kind, Arc::new(module(*kind)))).collect()
}

impl World {
    /// Carries out a call as the daemon does: what is written down, and when.
    pub(crate) fn call(&mut self, order: &HookOrder) -> Outcome {
        let (group, kind) = (order.group.clone(), order.module.kind);
        self.totals.calls[kind as usize] += 1;
        let owed = self.host.record.owed.entry(group.clone()).or_default();
        if let (HookKind::PostStop, Some(post_stop)) = (kind, &mut owed.post_stop) {
            post_stop.calls += 1;
        }
        if self.faulty(10) {
            // Cut off: nobody knows how far it got.
            let answer = HookAnswer::Failed(HookFailure::new(HookFailed::HostGone, "the hook host ended"));
            if !settles(kind, &answer) {
                return Outcome::Failed(Failure::new(Reason::HookHostAway, "the hook host ended"));
            }
        }
        let answer = self.answer(kind);
        let alive = self.host.live.get(&group).and_then(|live| live.first().copied());
        if !settles(kind, &answer) {
            return Outcome::Failed(Failure::new(Reason::HookFailed, "not yet"));
        }
        self.host.hooks.entry(group.clone()).or_default().called(order, &answer, alive);
        let acts = matches!(&answer, HookAnswer::Outcome { action: HookAction::Signal(_) | HookAction::Restart, .. });
        let change = order.after.clone().filter(|_| !(acts && kind == HookKind::Reconfigure));
        if let Some(change) = &change {
            self.host.record.owed.entry(group).or_default().apply(change.clone());
        }
        Outcome::Called { kind, occasion: order.occasion, answer, change }
    }

    fn answer(&mut self, kind: HookKind) -> HookAnswer {
        if self.faulty(20) {
            return HookAnswer::Failed(HookFailure::new(HookFailed::Trap, "unreachable"));
        }
        let action = match (kind, self.random.below(3)) {
            (HookKind::Reconfigure, 0) => HookAction::Signal("SIGHUP".to_owned()),
            (HookKind::Reconfigure, 1) => HookAction::Restart,
            _ => HookAction::Done,
        };
        match kind {
            HookKind::Suitability => HookAnswer::Rank(self.random.below(9)),
            HookKind::PostUpdate => HookAnswer::Health { status: HealthStatus::Ok, message: String::new() },
            HookKind::HealthCheck
            | HookKind::Init
            | HookKind::PostRun
            | HookKind::Reconfigure
            | HookKind::FileUpdated
            | HookKind::PreUpdate
            | HookKind::PreStop
            | HookKind::PostStop => HookAnswer::Outcome { action, message: String::new() },
        }
    }

    pub(crate) fn owe(&mut self, group: &GroupName, change: &OwedChange) -> Outcome {
        let wanted = self.core.as_ref().is_some_and(|core| core.desired().groups.contains_key(group));
        let owed = self.host.record.owed.entry(group.clone()).or_default();
        owed.apply(change.clone());
        self.host.hooks.entry(group.clone()).or_default().forgiven(group, owed, wanted);
        Outcome::Owed(change.clone())
    }

    pub(crate) fn signal(&mut self, group: &GroupName, after: &OwedChange) -> Outcome {
        self.host.hooks.entry(group.clone()).or_default().untold = false;
        self.host.record.owed.entry(group.clone()).or_default().apply(after.clone());
        Outcome::Owed(after.clone())
    }
}
