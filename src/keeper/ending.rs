//! The end: the supervisor orders the stops and takes links away, then all services are stopped, then the supervisor.

use std::os::fd::AsFd as _;
use std::time::Duration;

use super::engine::{Engine, now, say};
use super::proc;
use super::state::Event;
use super::wire::Message;
use crate::model::{GroupName, Moment};
use crate::sys::process::pidfd_signal;

/// How long the supervisor may take for stops in order; then all services are stopped at once.
const ORDERLY_STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the supervisor may take to end after SIGTERM; then it is killed.
const SUPERVISOR_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long orphans may take to vanish after SIGKILL; then they are left to the system.
const ORPHANS_TIMEOUT: Duration = Duration::from_secs(1);

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The supervisor orders the stops.
    Ordered { until: Moment },
    /// All services are being stopped.
    Services {
        /// The supervisor has said that it is done: it ends by itself, and has its door to take away before.
        supervisor_ends: bool,
    },
    /// The supervisor is told to end, and killed then.
    Supervisor { kill_at: Moment },
    /// What has lost its parent is killed.
    Orphans { until: Moment },
}

impl Ending {
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self {
            Self::Services { .. } => None,
            Self::Ordered { until } | Self::Supervisor { kill_at: until } | Self::Orphans { until } => Some(*until),
        }
    }
}

impl Engine {
    /// A signal asks for the end; a second one for an immediate one.
    pub(super) fn begin_ending(&mut self) {
        if self.ending.is_some() {
            say("told to end again: everything is killed now");
            self.stop_services(&Event::Kill);
            self.kill_supervisor();
            return;
        }
        say("told to end: services are stopped in order");
        match &mut self.link {
            Some(link) if self.supervisor.process.is_some() => {
                link.answer(Message::Shutdown);
                self.ending = Some(Ending::Ordered { until: now().moment.after(ORDERLY_STOP_TIMEOUT) });
            }
            Some(_) | None => self.stop_services(&Event::Stop),
        }
    }

    /// The supervisor has ordered all that it had to.
    pub(super) fn supervisor_finished(&mut self) {
        if let Some(Ending::Ordered { .. }) = self.ending {
            self.stop_services(&Event::Stop);
            self.ending = Some(Ending::Services { supervisor_ends: true });
        }
    }

    /// The supervisor has ended while the keeper is about to.
    pub(super) fn supervisor_is_away(&mut self) {
        self.supervisor_finished();
    }

    fn stop_services(&mut self, how: &Event) {
        if !matches!(self.ending, Some(Ending::Supervisor { .. } | Ending::Orphans { .. })) {
            self.ending = Some(Ending::Services { supervisor_ends: false });
        }
        let groups: Vec<GroupName> = self.services.keys().cloned().collect();
        for group in groups {
            self.feed(&group, how.clone());
        }
    }

    fn kill_supervisor(&mut self) {
        if let Some((_, pidfd)) = &self.supervisor.process {
            let _ = pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// Goes on with the end as far as it is possible now, and says whether it is reached.
    pub(super) fn advance_ending(&mut self) -> bool {
        loop {
            let Some(ending) = self.ending else { return false };
            let moment = now().moment;
            match ending {
                Ending::Ordered { until } if until <= moment => {
                    say("the supervisor has not ordered all stops in time: what still runs is stopped now");
                    self.stop_services(&Event::Stop);
                }
                Ending::Services { supervisor_ends }
                    if self.services.values().all(|entry| entry.service.at_rest() || entry.service.stuck()) =>
                {
                    if let Some((_, pidfd)) = self.supervisor.process.as_ref().filter(|_| !supervisor_ends) {
                        let _ = pidfd_signal(pidfd.as_fd(), libc::SIGTERM);
                    }
                    self.ending = Some(Ending::Supervisor { kill_at: moment.after(SUPERVISOR_STOP_TIMEOUT) });
                }
                Ending::Supervisor { .. } if self.supervisor.process.is_none() => {
                    self.kill_orphans();
                    self.ending = Some(Ending::Orphans { until: moment.after(ORPHANS_TIMEOUT) });
                }
                Ending::Supervisor { kill_at } if kill_at <= moment => {
                    self.kill_supervisor();
                    self.ending = Some(Ending::Supervisor { kill_at: moment.after(SUPERVISOR_STOP_TIMEOUT) });
                }
                Ending::Orphans { until } => {
                    self.reap();
                    let left = self.kill_orphans();
                    return !left || until <= moment;
                }
                Ending::Ordered { .. } | Ending::Services { .. } | Ending::Supervisor { .. } => return false,
            }
        }
    }

    /// Kills all children that are left: nothing of ours outlives an end that was asked for. Says whether there were any.
    fn kill_orphans(&mut self) -> bool {
        let own = proc::children(std::process::id());
        for child in &own {
            for (pid, started) in proc::family(*child) {
                proc::kill_verified(pid, started);
            }
        }
        !own.is_empty()
    }
}
