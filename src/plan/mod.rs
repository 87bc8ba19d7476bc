//! From what is wanted and what is observed to actions, and to the reasons for not acting.
//!
//! [`plan`] is a function: no clock, no randomness, no I/O; the same arguments give the same bytes on every host. It has
//! one file per question: which tag ([`source`](self)), what is published, what the service does, whether it is healthy,
//! what must go. To add a question: a file with one function that takes a `Turn`, adds actions and waits to it, and is
//! called from [`plan`] or from the group's turn. Only [`Observed::begin`] and [`Observed::observe`] write facts.

mod action;
mod container;
mod core;
mod desired;
mod explain;
mod health;
mod hooks;
mod observed;
mod publication;
mod removal;
mod service;
mod source;

use std::collections::BTreeMap;

use crate::model::{FirstTag, GroupName, Moment, Reason, Suspension, Wait};

pub use action::{Action, Event, Failure, Key, Lane, Outcome, Prepared};
pub use container::Engine;
pub use core::{Core, Remembered};
pub use desired::{Census, Desired, Host, Layers, Wanted, first_tags};
pub use explain::{GroupStatus, Overview, RefusedTag, explain};
pub use hooks::{Called, HookFacts, post_stops, pre_stops, settles};
pub use observed::{Accepted, Before, DiskFacts, Drift, GroupFacts, HealthFacts, Observed, SourceFacts, Staged};
pub use service::not_carried_out;

/// What to do now, what is waited for, and when to look again.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Each for a key that has nothing in flight; carried out in this order: removals first.
    pub actions: Vec<(Key, Action)>,
    /// What the supervisor as a whole waits for.
    pub waits: Vec<Wait>,
    /// What groups wait for; a group that waits for nothing is not in it.
    pub groups: BTreeMap<GroupName, Vec<Wait>>,
    /// The next moment at which the plan may be another without any event.
    pub wake_at: Option<Moment>,
}

impl Plan {
    /// Nothing to do and nothing waited for: converged.
    pub fn is_converged(&self) -> bool {
        self.waits.is_empty() && self.groups.is_empty() && self.actions.iter().all(|(_, action)| action.is_routine())
    }
}

/// More actions than one group ever asks for in one pass: how far back a second one for the same key can stand.
const ACTIONS_PER_GROUP_MAX: usize = 12;

/// One planning pass: the arguments, and the plan as it grows.
struct Turn<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    now: Moment,
    plan: Plan,
}

impl Turn<'_> {
    /// Asks for an action unless its key is busy or still backing off; then the wake-up for it is noted.
    fn act(&mut self, key: Key, action: Action) {
        let asked = self.plan.actions.iter().rev().take(ACTIONS_PER_GROUP_MAX).any(|(other, _)| *other == key);
        if asked || self.observed.is_busy(&key) {
            return;
        }
        match self.observed.not_before(&key) {
            Some(moment) if moment > self.now => self.wake(moment),
            Some(_) | None => self.plan.actions.push((key, action)),
        }
    }

    fn wait(&mut self, group: &GroupName, reason: Reason, message: impl Into<String>) {
        self.plan.groups.entry(group.clone()).or_default().push(Wait { reason, message: message.into() });
    }

    fn wake(&mut self, moment: Moment) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(moment, |at| at.min(moment)));
    }
}

/// Decides. `census` is what the ring knows of other members; a supervisor alone hands in an empty one.
pub fn plan(desired: &Desired, observed: &Observed, _census: &Census, now: Moment) -> Plan {
    let mut turn = Turn { desired, observed, now, plan: Plan::default() };
    removal::plan(&mut turn);
    let nobody = GroupFacts::default();
    for (name, wanted) in &desired.groups {
        let facts = observed.groups.get(name).unwrap_or(&nobody);
        let staged = publication::staged(&mut turn, name, wanted, facts);
        let staged = staged.filter(|staged| hooks::before_update(&mut turn, name, wanted, staged, facts));
        let staged = staged.and_then(|staged| publication::plan(&mut turn, name, wanted, facts, staged));
        let up = service::plan(&mut turn, name, wanted, facts, staged);
        health::plan(&mut turn, name, wanted, facts, staged, up);
    }
    source::plan(&mut turn);
    turn.plan
}
