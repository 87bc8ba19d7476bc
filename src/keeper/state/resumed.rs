//! Services that outlived whoever looked after them, for those who know all of them by other means than a process id: containers.

use super::{Next, Phase, Service};
use crate::model::{Digest, Exit, MountMode, Now, PublicationId, ServiceSpec};

/// What is found of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It runs.
    Up {
        /// Its main process.
        pid: Option<u32>,
        /// Whether a start is enough to call it ready.
        ready: bool,
    },
    /// It has ended.
    Ended(Exit),
    /// A task that ended well.
    Done(Exit),
    /// It asked not to be restarted.
    Failed(Exit),
}

/// What was written down of it when it was started.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resumed {
    pub(crate) spec: ServiceSpec,
    /// [`crate::model::Launch::digest`] of what was started; of the spec, the launch itself may be unknown.
    pub(crate) launch: Digest,
    pub(crate) publication: Option<PublicationId>,
    pub(crate) incarnation: u64,
    pub(crate) restarts: u64,
    pub(crate) found: Found,
}

impl Service {
    /// Takes one up as it was found; nothing is started or ended by it.
    pub(crate) fn resumed(resumed: Resumed, now: Now) -> Self {
        let Resumed { spec, launch, publication, incarnation, restarts, found } = resumed;
        let revision = spec.revision;
        let mut service = Self::new(spec, None, incarnation, now);
        (service.launch, service.restarts, service.mode) = (launch, restarts, MountMode::Namespace);
        match found {
            Found::Up { pid, ready } => {
                service.pid = pid;
                service.publication = publication;
                service.phase = Phase::Up { since: now.moment, ready: ready.then_some(now.moment) };
            }
            Found::Ended(exit) => service.last_exit = Some(exit),
            Found::Done(exit) => {
                service.last_exit = Some(exit);
                service.done = Some(revision);
                service.phase = Phase::Done;
            }
            Found::Failed(exit) => {
                service.last_exit = Some(exit);
                service.phase = Phase::Failed;
            }
        }
        service
    }

    /// Whether its end is under way and nothing follows from it: a task that is done, a service that must not be restarted.
    pub(crate) fn ends_for_good(&self) -> bool {
        matches!(self.phase, Phase::Clearing { .. }) && matches!(self.next, Next::Done | Next::Fail)
    }

    /// How often it was restarted without anybody's asking.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts
    }
}
