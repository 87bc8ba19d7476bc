//! What a supervisor asks for in the simulated kernel, and what somebody wants who changes it.

use std::time::Duration;

use super::random::Random;
use super::shell::Held;
use super::world::{Happening, WATCHDOG_MS, World};
use crate::keeper::state::Event;
use crate::model::{
    Backoff, Digest, GroupName, Launch, LogPolicy, Moment, Now, Policy, Ready, ServiceKind, ServiceSpec, ServiceState, Signal,
    Timestamp,
};

/// How long a service may take to be ready.
const START_TIMEOUT_MS: u64 = 20_000;

/// How long one that is unknown is left alone, until somebody asks for a restart.
const UNKNOWN_MS: u64 = 10_000;

/// Something to run.
pub(super) fn spec(random: &mut Random, group: &GroupName, program: u64, revision: u64) -> ServiceSpec {
    let backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(2), reset_after: Duration::from_secs(5) };
    let notify = random.chance(40);
    let watchdog = random.chance(30).then_some(Duration::from_millis(WATCHDOG_MS));
    ServiceSpec {
        group: group.clone(),
        revision: Digest::of(&revision.to_le_bytes()),
        release: String::new(),
        launch: Launch { argv: vec![format!("program-{program}")], ..Launch::default() },
        policy: Policy {
            kind: if program.is_multiple_of(5) { ServiceKind::Task } else { ServiceKind::Daemon },
            stop_signal: Signal::TERM,
            stop_timeout: Duration::from_secs(1),
            backoff,
            ready_when_started: !notify,
            ready: if notify { Ready::Notify } else { Ready::Started },
            watchdog,
            logs: LogPolicy::default(),
            starts_when_asked: false,
        },
        view: None,
    }
}

impl World {
    /// A supervisor that has just come tells what it wants, whether or not that is new.
    pub(super) fn say_all_again(&mut self) {
        if !self.supervisor || !self.random.chance(50) {
            return;
        }
        for (group, spec) in self.wanted.clone() {
            let Some(spec) = spec else { continue };
            // What failed for good is another matter: see `sync`.
            self.requests.push((group, Some(Event::Run(Box::new(spec)))));
        }
    }

    /// A supervisor compares what it wants with what it was told.
    pub(super) fn sync(&mut self) {
        let ms = 300 + self.random.below(900);
        self.after(ms, Happening::Sync);
        if !self.supervisor || !self.kernel.keeper_lives() || !self.requests.is_empty() {
            return;
        }
        for (group, spec) in self.wanted.clone() {
            let request = match (spec, self.keeper.services.get(&group)) {
                (None, None) => None,
                (None, Some(held)) if held.service.at_rest() => Some(None),
                (None, Some(held)) if held.service.state() == ServiceState::Stopping => None,
                (None, Some(_)) => Some(Some(Event::Stop)),
                (Some(spec), None) => Some(Some(Event::Run(Box::new(spec)))),
                (Some(spec), Some(held)) => self.compare(held, spec).map(Some),
            };
            self.requests.extend(request.map(|event| (group, event)));
        }
    }

    /// What is to be asked for so that a service comes to be as it is wanted.
    fn compare(&self, held: &Held, spec: ServiceSpec) -> Option<Event> {
        let state = held.service.state();
        let report = held.service.report(Now { moment: Moment(self.now()), wall: Timestamp(self.now()) });
        let age = self.now().saturating_sub(report.since.0);
        let late = state == ServiceState::Starting && age > START_TIMEOUT_MS;
        let asked = state == ServiceState::Unknown && age > UNKNOWN_MS;
        let again = state == ServiceState::Failed && !self.faulty();
        if late || asked || again {
            return Some(Event::Restart);
        }
        if report.launch != spec.launch.digest() || state == ServiceState::Stopped {
            return Some(Event::Run(Box::new(spec)));
        }
        if report.revision == spec.revision {
            return None;
        }
        if held.service.pid().is_none() {
            return Some(Event::Run(Box::new(spec)));
        }
        let ServiceSpec { revision, release, policy, .. } = spec;
        Some(Event::Amend { revision, release, policy })
    }

    /// Somebody changes what is wanted, or asks for a restart.
    pub(super) fn operate(&mut self) {
        let groups: Vec<GroupName> = self.wanted.keys().cloned().collect();
        let group = groups[self.random.below(groups.len() as u64) as usize].clone();
        let (program, revision) = (self.random.below(100), self.random.next());
        let fresh = spec(&mut self.random, &group, program, revision);
        match self.random.below(5) {
            0 => drop(self.wanted.insert(group, None)),
            1 if self.supervisor => self.requests.push((group, Some(Event::Restart))),
            2 => {
                if let Some(Some(spec)) = self.wanted.get_mut(&group) {
                    (spec.revision, spec.policy) = (fresh.revision, Policy { kind: spec.policy.kind, ..fresh.policy });
                }
            }
            _ => drop(self.wanted.insert(group, Some(fresh))),
        }
    }
}

/// For the trace.
pub(super) fn request_words(event: &Event) -> &'static str {
    match event {
        Event::Run(_) => "run",
        Event::Amend { .. } => "amend",
        Event::Stop => "stop",
        Event::Restart => "restart",
        Event::Kill
        | Event::Reload { .. }
        | Event::MarkReady { .. }
        | Event::Told(_)
        | Event::Spawned { .. }
        | Event::SpawnFailed { .. }
        | Event::InTheWay { .. }
        | Event::Started { .. }
        | Event::Shown { .. }
        | Event::Exited(_)
        | Event::Cleared
        | Event::Tick => "no request",
    }
}
