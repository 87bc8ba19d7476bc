//! What the loop waits on: descriptors and whose they are.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use crate::model::{GroupName, LogStream};

/// Most events taken in one turn of the loop; the rest waits for the next, in the kernel's fair order.
const EVENTS_PER_TURN: usize = 64;

/// Whose descriptor is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Signals to the keeper itself.
    Signals,
    /// The socket to the supervisor.
    Link,
    /// The pipe on which a new process reports a failed step.
    Status(GroupName),
    /// A service's output.
    Output(GroupName, LogStream),
    /// Whoever gets a service's lines takes more of them.
    Forward(GroupName),
    /// A command's output.
    Command(u64),
    /// What a service says by `sd_notify`.
    Notify(GroupName),
    /// What a service says on its descriptor for readiness.
    ReadyPipe(GroupName),
    /// A process that is not our child has ended.
    Foreign(GroupName),
}

/// A registration; never given out twice, so that late events of a descriptor that is closed mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Token(u64);

/// The loop's epoll instance.
pub(super) struct Poller {
    epoll: OwnedFd,
    sources: BTreeMap<Token, Source>,
    next: u64,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, sources: BTreeMap::new(), next: 1 })
    }

    /// The instance itself.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Begins to wait for a descriptor to become readable.
    pub(super) fn add(&mut self, fd: impl AsFd, source: Source) -> io::Result<Token> {
        self.register(fd, source, epoll::EventFlags::IN)
    }

    /// Begins to wait for everything new that a descriptor brings: what is left inside does not show again.
    pub(super) fn add_for_news(&mut self, fd: impl AsFd, source: Source) -> io::Result<Token> {
        self.register(fd, source, epoll::EventFlags::IN | epoll::EventFlags::ET)
    }

    fn register(&mut self, fd: impl AsFd, source: Source, flags: epoll::EventFlags) -> io::Result<Token> {
        let token = Token(self.next);
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.0), flags)?;
        self.next += 1;
        self.sources.insert(token, source);
        Ok(token)
    }

    /// Changes what is waited for.
    pub(super) fn want(&mut self, fd: impl AsFd, token: Token, read: bool, write: bool) -> io::Result<()> {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, read);
        flags.set(epoll::EventFlags::OUT, write);
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token.0), flags)?)
    }

    /// Ends waiting, before the descriptor is closed: a copy of it in a child would keep it registered.
    pub(super) fn remove(&mut self, fd: impl AsFd, token: Token) {
        self.sources.remove(&token);
        // It can only fail where it is not registered, which is what is wanted.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something is ready, or for `timeout`; `None` = for as long as it takes.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Source>> {
        let timeout = timeout.map(|timeout| Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }));
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let source = |event: epoll::Event| {
            let data = event.data;
            self.sources.get(&Token(data.u64())).cloned()
        };
        Ok(events.into_iter().filter_map(source).collect())
    }
}
