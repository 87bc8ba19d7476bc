//! What a service's state means to others: its name, its report, its next deadline.

use super::{JUST_CLEARING, Phase, STUCK_AFTER, Service};
use crate::model::{Moment, Now, ServiceReport, ServiceState, Timestamp};

impl Service {
    /// When time itself is the next event.
    pub(in crate::keeper) fn deadline(&self) -> Option<Moment> {
        match self.phase {
            Phase::Stopped | Phase::Done | Phase::Failed | Phase::Up { .. } | Phase::Foreign => None,
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

    /// Whether nothing runs and nothing will by itself.
    pub(in crate::keeper) fn at_rest(&self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::Done | Phase::Failed)
    }

    /// Whether only leftovers are waited for.
    pub(in crate::keeper) fn clearing(&self) -> bool {
        matches!(self.phase, Phase::Clearing { .. })
    }

    /// Whether the main process has ended a moment ago, and only leftovers are waited for.
    pub(in crate::keeper) fn just_clearing(&self, now: Moment) -> bool {
        matches!(self.phase, Phase::Clearing { since, .. } if now.since(since) < JUST_CLEARING)
    }

    /// Whether it is there against our will, for so long that waiting makes no sense.
    pub(in crate::keeper) fn stuck(&self) -> bool {
        self.state() == ServiceState::Stuck
    }

    pub(super) fn state(&self) -> ServiceState {
        match self.phase {
            Phase::Stopped => ServiceState::Stopped,
            Phase::Done => ServiceState::Done,
            Phase::Failed => ServiceState::Failed,
            Phase::Backoff { .. } => ServiceState::Backoff,
            Phase::Spawning { .. } | Phase::Up { ready: None, .. } => ServiceState::Starting,
            Phase::Up { ready: Some(_), .. } => ServiceState::Running,
            Phase::Stopping { kill_at, killed: Some(killed) } if kill_at.since(killed) > STUCK_AFTER => ServiceState::Stuck,
            Phase::Clearing { stuck: true, .. } => ServiceState::Stuck,
            Phase::Stopping { .. } | Phase::Clearing { .. } => ServiceState::Stopping,
            Phase::Foreign => ServiceState::Unknown,
        }
    }

    /// What the supervisor is told.
    pub(in crate::keeper) fn report(&self, now: Now) -> ServiceReport {
        let next_try = match self.phase {
            Phase::Backoff { until } => {
                let wait = u64::try_from(until.since(now.moment).as_millis()).unwrap_or(u64::MAX);
                Some(Timestamp(now.wall.0.saturating_add(wait)))
            }
            Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::Spawning { .. }
            | Phase::Up { .. }
            | Phase::Stopping { .. }
            | Phase::Clearing { .. }
            | Phase::Foreign => None,
        };
        let words = [self.trouble.as_str(), self.notes.as_str()];
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
            policy: self.spec.policy,
            revision: self.spec.revision,
            publication: self.publication,
            mount_mode: self.mode,
            last_exit: self.last_exit,
            message: words.join("; "),
        }
    }
}
