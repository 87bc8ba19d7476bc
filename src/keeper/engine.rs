//! The loop: waits until something happens or is due, hands it to whom it concerns, writes down and tells what came of it.
//!
//! One thread, no tick: with nothing to do it sleeps. It owns all waits of this process; nothing else may wait for a child.
//! What concerns services is in `services.rs`, requests in `requests.rs`, the supervisor in `link.rs`, commands in
//! `commands.rs`, the end in `ending.rs`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::cgroup::Cgroups;
use super::commands::Running;
use super::config::KeeperConfig;
use super::ending::Ending;
use super::error::KeeperError;
use super::exchange::Exchange;
use super::journal::Journal;
use super::link::{Link, Supervisor};
use super::log::Scratch;
use super::poller::{Poller, Source, Token};
use super::proc;
use super::rights::Rights;
use super::services::Entry;
use super::state::{Context, Event};
use super::wire::PACKET_MAX_BYTES;
use crate::model::{Digest, Exit, GroupName, Moment, Now, Timestamp};
use crate::sys::process::{Child, OneThread, read_signals, set_slice, signal_fd, wait};

/// How much of one service's output is read in one turn, so that a flood delays nobody else for long.
const READ_BYTES: usize = 64 * 1024;

/// How long the keeper, and a child of it that is not yet its program, wants a processor at once, in nanoseconds: the
/// shortest there is. It does little each time, and where all processors are taken it is let in before whoever computes.
const SLICE_NS: u64 = 100_000;

/// Whose process a child is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    Service(GroupName),
    Supervisor,
    Command(u64),
}

/// All that the keeper has.
pub(super) struct Engine {
    pub(super) one_thread: OneThread,
    pub(super) config: KeeperConfig,
    pub(super) rights: Rights,
    pub(super) cgroups: Cgroups,
    pub(super) boot_id: String,
    pub(super) poller: Poller,
    signals: OwnedFd,
    _signals_token: Token,
    pub(super) services: BTreeMap<GroupName, Entry>,
    /// Every child that is known, by its process id.
    pub(super) children: BTreeMap<u32, Owner>,
    pub(super) supervisor: Supervisor,
    pub(super) link: Option<Link>,
    /// Rises with every connection: an answer belongs to the one that its request came from.
    pub(super) link_generation: u64,
    pub(super) packet: Vec<u8>,
    pub(super) commands: BTreeMap<u64, Running>,
    pub(super) command_ids: u64,
    pub(super) journal: Journal,
    pub(super) journal_failed: bool,
    /// Something has happened that the journal may have to tell.
    pub(super) journal_due: bool,
    /// Tasks that an earlier keeper saw done.
    pub(super) done: BTreeMap<GroupName, Digest>,
    pub(super) ending: Option<Ending>,
    pub(super) buffer: Vec<u8>,
    /// Through which outputs are looked at.
    pub(super) scratch: Rc<Scratch>,
    /// Descriptors that this process keeps when it becomes another program, beside outputs.
    pub(super) kept: Vec<(String, OwnedFd)>,
    /// Which file this program is, and under which name: where its successor will be.
    pub(super) program: PathBuf,
    pub(super) exchange: Option<Exchange>,
    /// Who is in which session, as found in this turn of the loop.
    pub(super) sessions: Option<BTreeMap<u32, Vec<(u32, u64)>>>,
}

impl Engine {
    pub(super) fn new(config: KeeperConfig) -> Result<Self, KeeperError> {
        let one_thread = OneThread::prove().map_err(KeeperError::setup("begin: it must be alone in its process"))?;
        // Without it everything goes on, later where programs that compute take all processors.
        let _ = set_slice(SLICE_NS);
        let rights = Rights::find(&one_thread, &config.data_dir);
        let cgroups = Cgroups::find(&one_thread, &config.data_dir);
        rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))
            .map_err(KeeperError::setup("become the parent of orphans"))?;
        let signals =
            signal_fd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP]).map_err(KeeperError::setup("take signals"))?;
        let mut poller = Poller::new().map_err(KeeperError::setup("make an epoll instance"))?;
        let signals_token = poller.add(&signals, Source::Signals).map_err(KeeperError::setup("wait for signals"))?;
        let boot_id = proc::boot_id().map_err(KeeperError::setup("read the boot id"))?;
        let (journal, saved, words) = Journal::open(&config.data_dir, &boot_id)?;
        for words in words {
            say(&words);
        }
        let scratch = Rc::new(Scratch::new().map_err(KeeperError::setup("make a pipe"))?);
        let mut engine = Self {
            one_thread,
            config,
            rights,
            cgroups,
            boot_id,
            poller,
            signals,
            _signals_token: signals_token,
            services: BTreeMap::new(),
            children: BTreeMap::new(),
            supervisor: Supervisor::default(),
            link: None,
            link_generation: 0,
            packet: vec![0; PACKET_MAX_BYTES],
            command_ids: 0,
            commands: BTreeMap::new(),
            journal,
            journal_failed: false,
            journal_due: true,
            done: BTreeMap::new(),
            ending: None,
            buffer: vec![0; READ_BYTES],
            scratch,
            kept: Vec::new(),
            program: super::exchange::own_program(),
            exchange: None,
            sessions: None,
        };
        engine.adopt_all(saved);
        engine.name_unrecorded();
        Ok(engine)
    }

    /// Runs until the end that a signal asks for.
    pub(super) fn run(&mut self) -> Result<(), KeeperError> {
        self.regain_voices();
        // What has ended before this program was there to be told.
        self.reap();
        self.start_supervisor();
        // It lives as long as the host: what only starting up needed is not held for all that time.
        crate::sys::memory::give_back();
        loop {
            self.write_journal();
            self.flush_link();
            self.advance_exchange();
            if self.advance_ending() {
                self.lay_down();
                self.cgroups.close();
                return Ok(());
            }
            let sources = self.poller.wait(self.until_deadline()).map_err(KeeperError::setup("wait for what happens next"))?;
            self.sessions = None;
            for source in sources {
                self.ready(source);
            }
            self.fire_deadlines();
        }
    }

    fn ready(&mut self, source: Source) {
        match source {
            Source::Signals => self.take_signals(),
            Source::Link => self.read_link(),
            Source::Status(group) => self.read_status(&group),
            Source::Output(group, stream) => {
                let time = now().wall;
                if let Some(entry) = self.services.get_mut(&group) {
                    entry.take_output(stream, &mut self.buffer, time);
                }
            }
            Source::Command(id) => self.read_command(id),
            Source::Notify(group) => self.read_notify(&group),
            Source::ReadyPipe(group) => self.read_ready_pipe(&group),
            Source::Foreign(group) => self.foreign_ended(&group),
        }
    }

    fn take_signals(&mut self) {
        let Ok(signals) = read_signals(self.signals.as_fd()) else { return };
        for signal in signals {
            match signal {
                libc::SIGCHLD => self.reap(),
                libc::SIGHUP => self.begin_exchange(),
                _ => self.begin_ending(),
            }
        }
    }

    /// Collects every child that has ended, known or orphaned.
    pub(super) fn reap(&mut self) {
        while let Ok(Some((pid, exit))) = wait(Child::PeekAny) {
            if let Some(Owner::Service(group)) = self.children.get(&pid).cloned() {
                // What it said last comes first: it may have named another main process.
                self.read_ready_pipe(&group);
                self.read_notify(&group);
            }
            let owner = self.children.remove(&pid);
            if owner.is_some() {
                // As long as it is not waited for, its number is nobody else's, and with it its process group's.
                if let Some(group) = proc::pid_of(pid) {
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
            }
            if wait(Child::Reap(pid)).is_err() {
                return;
            }
            match owner {
                Some(Owner::Service(group)) => self.service_ended(&group, exit),
                Some(Owner::Supervisor) => self.supervisor_ended(exit),
                Some(Owner::Command(id)) => self.command_ended(id, exit),
                None => {}
            }
        }
        self.look_after_clearing();
    }

    fn until_deadline(&self) -> Option<Duration> {
        let services = self.services.values().filter_map(|entry| entry.service.deadline());
        let commands = self.commands.values().filter_map(Running::deadline);
        let others = [
            self.supervisor.restart_at(),
            self.ending.as_ref().and_then(Ending::deadline),
            self.exchange.map(Exchange::deadline),
        ];
        let next = services.chain(commands).chain(others.into_iter().flatten()).min()?;
        Some(next.since(now().moment))
    }

    fn fire_deadlines(&mut self) {
        let moment = now().moment;
        let due = |deadline: Option<Moment>| deadline.is_some_and(|deadline| deadline <= moment);
        let groups: Vec<GroupName> =
            self.services.iter().filter(|(_, entry)| due(entry.service.deadline())).map(|(group, _)| group.clone()).collect();
        for group in groups {
            // What it has said counts first: a keeper that stood still must not take it for silence.
            self.read_notify(&group);
            self.feed(&group, Event::Tick);
        }
        let late: Vec<u64> = self.commands.iter().filter(|(_, command)| due(command.deadline())).map(|(id, _)| *id).collect();
        for id in late {
            self.command_timed_out(id);
        }
        if due(self.supervisor.restart_at()) {
            self.start_supervisor();
        }
    }

    /// After an end that was asked for: what is at rest begins anew under the next keeper, but for tasks that are done.
    fn lay_down(&mut self) {
        for entry in self.services.values_mut() {
            entry.service.lay_down();
            entry.unsaved = true;
        }
        self.journal_due = true;
        self.write_journal();
    }

    /// What a decision may depend on.
    pub(super) fn context(&self) -> Context {
        let mut roll = [0; 4];
        // Without randomness, restarts fall together; that is all.
        let _ = rustix::rand::getrandom(&mut roll, rustix::rand::GetRandomFlags::NONBLOCK);
        Context { now: now(), roll: u32::from_ne_bytes(roll) }
    }

    pub(super) fn write_journal(&mut self) {
        if !std::mem::take(&mut self.journal_due) {
            return;
        }
        let mut result = Ok(());
        for entry in self.services.values_mut().filter(|entry| entry.unsaved) {
            let started = entry.held().map(|(_, record)| record.started);
            match self.journal.write(&entry.service, started) {
                Ok(()) => entry.unsaved = false,
                Err(error) => result = Err(error),
            }
        }
        if let Err(error) = &result
            && !self.journal_failed
        {
            say(&format!("who runs cannot be written down: {error}; if the keeper dies now, its successor does not know them"));
        }
        self.journal_failed = result.is_err();
        // Tried again when something happens next.
        self.journal_due = self.journal_failed;
    }
}

/// Both clocks. The one for waiting never jumps, and stands still while the machine sleeps: nobody could do anything then.
pub(super) fn now() -> Now {
    let ms = |id| {
        let time = clock_gettime(id);
        let ms = time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000);
        u64::try_from(ms).unwrap_or(0)
    };
    Now { moment: Moment(ms(ClockId::Monotonic)), wall: Timestamp(ms(ClockId::Realtime)) }
}

/// The keeper's own words, for whoever reads its standard error.
pub(super) fn say(words: &str) {
    // Nobody there to read them: nothing to do about it.
    let _ = writeln!(std::io::stderr(), "{} keeper: {words}", now().wall);
}

/// How a process ended, for people.
pub(super) fn end_words(exit: Exit) -> String {
    match exit {
        Exit::Code(_) | Exit::Unknown => format!("ended with {exit}"),
        Exit::Signal(_) | Exit::OutOfMemory { .. } => format!("was ended by {exit}"),
    }
}
