//! What a service's state means to others: its name, its report, its next deadline.

use super::{JUST_CLEARING, Phase, STUCK_AFTER, Service};
use crate::model::{LogLosses, Moment, MountMode, Now, ServiceReport, ServiceState, Timestamp};

impl Service {
    /// When time itself is the next event.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        match self.phase {
            Phase::Stopped | Phase::Done | Phase::Failed | Phase::Waiting | Phase::Foreign => None,
            Phase::Up { ready, .. } => ready.and_then(|_| self.told.silence_ends()),
            Phase::Backoff { until } => Some(until),
            Phase::Spawning { by } => Some(by),
            Phase::Stopping { kill_at, .. } => Some(kill_at),
            Phase::Clearing { look_at, .. } => Some(look_at),
        }
    }

    /// The main process, while there is one.
    pub(in crate::keeper) fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Whether its process may be in a mount namespace of its own: it was started in one, or that is not known yet.
    pub(in crate::keeper) fn may_have_namespace(&self) -> bool {
        self.mode == MountMode::Namespace || self.spawning()
    }

    /// Whether nothing runs and nothing will by itself.
    pub(crate) fn at_rest(&self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::Done | Phase::Failed | Phase::Waiting)
    }

    /// Whether only leftovers are waited for.
    pub(crate) fn clearing(&self) -> bool {
        matches!(self.phase, Phase::Clearing { .. })
    }

    /// Whether the main process has ended a moment ago, and only leftovers are waited for.
    pub(crate) fn just_clearing(&self, now: Moment) -> bool {
        matches!(self.phase, Phase::Clearing { since, .. } if now.since(since) < JUST_CLEARING)
    }

    /// Whether it is there against our will, for so long that waiting makes no sense.
    pub(crate) fn stuck(&self) -> bool {
        self.state() == ServiceState::Stuck
    }

    pub(crate) fn state(&self) -> ServiceState {
        match self.phase {
            Phase::Stopped => ServiceState::Stopped,
            Phase::Done => ServiceState::Done,
            Phase::Failed => ServiceState::Failed,
            Phase::Backoff { .. } => ServiceState::Backoff,
            Phase::Waiting => ServiceState::Waiting,
            Phase::Spawning { .. } | Phase::Up { ready: None, .. } => ServiceState::Starting,
            Phase::Up { ready: Some(_), .. } if self.told.reloading => ServiceState::Reloading,
            Phase::Up { ready: Some(_), .. } => ServiceState::Running,
            Phase::Stopping { kill_at, killed: Some(killed) } if kill_at.since(killed) > STUCK_AFTER => ServiceState::Stuck,
            Phase::Clearing { stuck: true, .. } => ServiceState::Stuck,
            Phase::Stopping { .. } | Phase::Clearing { .. } => ServiceState::Stopping,
            Phase::Foreign => ServiceState::Unknown,
        }
    }

    /// What the supervisor is told.
    pub(crate) fn report(&self, now: Now) -> ServiceReport {
        let next_try = match self.phase {
            Phase::Backoff { until } => {
                let wait = u64::try_from(until.since(now.moment).as_millis()).unwrap_or(u64::MAX);
                Some(Timestamp(now.wall.0.saturating_add(wait)))
            }
            Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::Waiting
            | Phase::Spawning { .. }
            | Phase::Up { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. }
            | Phase::Foreign => None,
        };
        let said = if self.pid.is_some() { self.told.words() } else { String::new() };
        let words = [self.trouble.as_str(), said.as_str(), self.notes.as_str()];
        let words: Vec<&str> = words.into_iter().filter(|words| !words.is_empty()).collect();
        ServiceReport {
            group: self.spec.group.clone(),
            state: self.state(),
            pid: self.pid,
            incarnation: self.incarnation,
            restarts: self.restarts,
            since: self.since,
            next_try,
            launch: self.launch,
            policy: self.spec.policy.clone(),
            revision: self.spec.revision,
            publication: self.publication,
            mount_mode: self.mode,
            last_exit: self.last_exit,
            message: words.join("; "),
            start_extended: self.told.extended,
            logs: LogLosses::default(),
        }
    }
}
