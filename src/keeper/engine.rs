//! The loop: waits until something happens or is due, hands it to whom it concerns, writes down and tells what came of it.
//!
//! One thread, no tick: with nothing to do it sleeps. It owns all waits of this process; nothing else may wait for a child.
//! What concerns services is in `services.rs`, requests in `requests.rs`, the supervisor in `link.rs`, commands in
//! `commands.rs`, the end in `ending.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::cgroup::Cgroups;
use super::commands::Running;
use super::config::KeeperConfig;
use super::confine::Confinement;
use super::ending::Ending;
use super::errands::Errand;
use super::error::KeeperError;
use super::exchange::Exchange;
use super::journal::Journal;
use super::link::{Link, Supervisor};
use super::log::{READ_BYTES, Scratch};
use super::mounts::Home;
use super::poller::{Poller, Source, Token};
use super::proc;
use super::rights::Rights;
use super::roster::{Mark, Roster};
use super::state::{Context, Event};
use super::trial::orphans_come_first;
use super::unit::Unit;
use super::wire::PACKET_MAX_BYTES;
use crate::model::{Digest, Exit, GroupName, LogStream, Moment, Now, Timestamp};
use crate::sys::fork::OneThread;
use crate::sys::process::{Caught, Child, read_signals, signal_fd, wait};
use crate::sys::turns::{Turns, take_turns};

/// How soon the journal is tried again where it cannot be written.
const JOURNAL_AGAIN: Duration = Duration::from_secs(1);

/// Most children that are collected in one turn: whoever makes them faster than that must not hold up all else.
const REAPED_PER_TURN: usize = 1024;

/// Woken so much later than it wanted to be, this process was stopped, or the machine was.
const HELD_UP: Duration = Duration::from_secs(1);

/// How long a child that is not yet a service wants a processor at once, in nanoseconds, and the keeper, where it may not be
/// let in first: the shortest there is. They do little each time.
const SLICE_NS: u64 = 100_000;

/// Where programs that compute take all processors, everything goes on without it, only later.
pub(super) fn take_short_turns() {
    let _ = take_turns(Turns::Short(SLICE_NS));
}

/// Whose process a child is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    Service(GroupName),
    Supervisor,
    Command(u64),
    Errand(u64),
}

/// All that the keeper has.
pub(super) struct Engine {
    pub(super) one_thread: OneThread,
    pub(super) config: KeeperConfig,
    pub(super) rights: Rights,
    /// Of the supervisor.
    pub(super) confinement: Confinement,
    pub(super) cgroups: Cgroups,
    pub(super) boot_id: String,
    pub(super) poller: Poller,
    signals: OwnedFd,
    _signals_token: Token,
    pub(super) services: Roster,
    /// Every child that is known, by its process id.
    pub(super) children: BTreeMap<u32, Owner>,
    pub(super) supervisor: Supervisor,
    pub(super) link: Option<Link>,
    /// Rises with every connection: an answer belongs to the one that its request came from.
    pub(super) link_generation: u64,
    pub(super) packet: Vec<u8>,
    pub(super) commands: BTreeMap<u64, Running>,
    pub(super) command_ids: u64,
    pub(super) errands: BTreeMap<u64, Errand>,
    pub(super) errand_ids: u64,
    pub(super) journal: Journal,
    /// Why it cannot be written, while that is so.
    pub(super) journal_failed: Option<String>,
    journal_again: Option<Moment>,
    /// Something has happened that the journal may have to tell.
    pub(super) journal_due: bool,
    /// Tasks that an earlier keeper saw done.
    pub(super) done: BTreeMap<GroupName, Digest>,
    pub(super) ending: Option<Ending>,
    pub(super) buffer: Vec<u8>,
    /// Outputs that have something for the next read.
    pub(super) unread: BTreeSet<(GroupName, LogStream)>,
    /// When they are looked after again.
    pub(super) outputs_due: Option<Moment>,
    /// Through which outputs are looked at.
    pub(super) scratch: Rc<Scratch>,
    /// Whether it is let onto a processor before whoever computes.
    first: bool,
    /// Nobody has refused that yet.
    may_be_first: bool,
    /// Where switches begin and end; `None` where there is no way back from another mount namespace.
    pub(super) home: Option<Home>,
    /// Mount namespaces where a switch has put the publication before aside.
    pub(super) asides: Vec<OwnedFd>,
    /// Descriptors that this process keeps when it becomes another program, beside outputs.
    pub(super) kept: Vec<(String, OwnedFd)>,
    /// Which file this program is, and under which name: where its successor will be.
    pub(super) program: PathBuf,
    pub(super) exchange: Option<Exchange>,
    /// The service manager that started this process and wants to hear of it.
    pub(super) unit: Option<Unit>,
    /// Children have ended that are not collected yet.
    reaping: bool,
    /// How long the machine has slept since it began.
    asleep: Duration,
    /// Who is in which session, as found in this turn of the loop.
    pub(super) sessions: Option<BTreeMap<u32, Vec<u32>>>,
    /// Children that came to us as orphans, as found in this turn of the loop and since children were collected last.
    pub(super) orphans: Option<Vec<u32>>,
    /// They are in the list of the first thread, which makes none itself.
    pub(super) orphans_come_first: bool,
}

impl Engine {
    pub(super) fn new(config: KeeperConfig, one_thread: OneThread) -> Result<Self, KeeperError> {
        take_short_turns();
        let rights = Rights::find(&one_thread, &config.data_dir);
        let confinement = Confinement::find(&one_thread, &config.grants, &rights)?;
        for lack in &confinement.lacks {
            say(lack);
        }
        let cgroups = Cgroups::find(&one_thread, &config.data_dir);
        rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))
            .map_err(KeeperError::setup("become the parent of orphans"))?;
        let orphans_come_first = orphans_come_first(&one_thread);
        let signals = signal_fd(&super::SIGNALS).map_err(KeeperError::setup("take signals"))?;
        let mut poller = Poller::new().map_err(KeeperError::setup("make an epoll instance"))?;
        let signals_token = poller.add(&signals, Source::Signals).map_err(KeeperError::setup("wait for signals"))?;
        let boot_id = proc::boot_id().map_err(KeeperError::setup("read the boot id"))?;
        let (journal, saved, words) = Journal::open(&config.data_dir, &boot_id)?;
        for words in words {
            say(&words);
        }
        let scratch = Rc::new(Scratch::new(&config.data_dir).map_err(KeeperError::setup("make a pipe"))?);
        let home = rights.namespaces.is_ok().then(|| Home::find(&one_thread)).flatten();
        let mut engine = Self {
            one_thread,
            config,
            rights,
            confinement,
            cgroups,
            boot_id,
            poller,
            signals,
            _signals_token: signals_token,
            services: Roster::default(),
            children: BTreeMap::new(),
            supervisor: Supervisor::default(),
            link: None,
            link_generation: 0,
            packet: vec![0; PACKET_MAX_BYTES],
            command_ids: 0,
            commands: BTreeMap::new(),
            errands: BTreeMap::new(),
            errand_ids: 0,
            journal,
            journal_failed: None,
            journal_again: None,
            journal_due: true,
            done: BTreeMap::new(),
            ending: None,
            buffer: vec![0; READ_BYTES],
            unread: BTreeSet::new(),
            outputs_due: None,
            scratch,
            first: false,
            may_be_first: true,
            home,
            asides: Vec::new(),
            kept: Vec::new(),
            program: super::exchange::own_program(),
            exchange: None,
            unit: Unit::from_environment(now().moment),
            reaping: false,
            asleep: asleep(),
            sessions: None,
            orphans: None,
            orphans_come_first,
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
        self.come_first();
        // It lives as long as the host: what only starting up needed is not held for all that time.
        crate::sys::memory::give_back();
        loop {
            self.write_journal();
            self.flush_link();
            self.unmount_asides();
            self.advance_exchange();
            self.tell_unit();
            if self.advance_ending() {
                self.lay_down();
                self.cgroups.close();
                return Ok(());
            }
            let next = self.next_deadline();
            let wait = next.map(|next| next.since(now().moment));
            let sources = self.poller.wait(wait).map_err(KeeperError::setup("wait for what happens next"))?;
            (self.sessions, self.orphans) = (None, None);
            self.look_at_clocks(next);
            for source in sources {
                self.ready(source);
            }
            if std::mem::take(&mut self.reaping) {
                self.reap();
            }
            self.read_outputs_in_line();
            self.fire_deadlines();
        }
    }

    /// What services write is theirs: however much it is, copying it keeps nobody from a processor.
    fn read_outputs_in_line(&mut self) {
        if self.unread.is_empty() {
            return;
        }
        if std::mem::take(&mut self.first) {
            take_short_turns();
        }
        self.read_outputs();
        if self.unread.is_empty() && self.may_be_first {
            self.come_first();
        }
    }

    /// What it does each time is short, and a service that is down, or told to reload, waits for it.
    fn come_first(&mut self) {
        self.may_be_first &= take_turns(Turns::First).is_ok();
        self.first = self.may_be_first;
    }

    fn ready(&mut self, source: Source) {
        match source {
            Source::Signals => self.take_signals(),
            Source::Link => self.read_link(),
            Source::Status(group) => self.read_status(&group),
            Source::Output(group, stream) => self.output_written(group, stream),
            Source::Forward(group) => self.forward_ready(&group),
            Source::Command(id) => self.read_command(id),
            Source::Notify(group) => self.read_notify(&group),
            Source::ReadyPipe(group) => self.read_ready_pipe(&group),
            Source::Foreign(group) => self.foreign_ended(&group),
        }
    }

    fn take_signals(&mut self) {
        let Ok(signals) = read_signals(self.signals.as_fd()) else { return };
        for Caught { signal, sender } in signals {
            match signal {
                libc::SIGCHLD => self.reap_first(sender),
                libc::SIGHUP => self.begin_exchange(),
                _ => self.begin_ending(),
            }
        }
    }

    /// Sees to the one child that a signal names: to find it among all others, and out that there is no further one, takes the
    /// kernel longer the more there are, and so comes after it.
    fn reap_first(&mut self, pid: u32) {
        let ended = wait(Child::Peek(pid)).ok().flatten();
        let collected = ended.and_then(|(pid, exit)| self.collect(pid, exit).ok()?);
        self.ended(collected);
        self.reaping = true;
    }

    /// Collects children that have ended, known or orphaned, and then sees to what follows from each: all there are, or so many
    /// that others may wait no longer.
    pub(super) fn reap(&mut self) {
        let (mut ended, mut more) = (Vec::new(), true);
        for _ in 0..REAPED_PER_TURN {
            let collected = wait(Child::PeekAny).ok().flatten().map(|(pid, exit)| self.collect(pid, exit));
            let Some(Ok(one)) = collected else {
                more = false;
                break;
            };
            ended.extend(one);
        }
        self.ended(ended);
        self.reaping = more;
    }

    /// Takes a child that has ended from the kernel. It may be nobody's.
    fn collect(&mut self, pid: u32, exit: Exit) -> std::io::Result<Option<(Owner, Exit)>> {
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
        wait(Child::Reap(pid))?;
        Ok(owner.map(|owner| (owner, exit)))
    }

    fn ended(&mut self, ended: impl IntoIterator<Item = (Owner, Exit)>) {
        // Whoever has lost its parent by these ends has come to us: one look shows all of them.
        self.orphans = None;
        for (owner, exit) in ended {
            match owner {
                Owner::Service(group) => self.service_ended(&group, exit),
                Owner::Supervisor => self.supervisor_ended(exit),
                Owner::Command(id) => self.command_ended(id, exit),
                Owner::Errand(id) => self.errand_ended(id, exit == Exit::Code(0)),
            }
        }
        self.look_after_clearing();
    }

    fn next_deadline(&mut self) -> Option<Moment> {
        let services = self.services.next_moment();
        let commands = self.commands.values().filter_map(Running::deadline);
        let errands = self.errands.values().map(Errand::deadline);
        let others = [
            self.supervisor.restart_at(),
            self.ending.as_ref().and_then(Ending::deadline),
            self.exchange.map(Exchange::deadline),
            self.unit.as_ref().and_then(Unit::deadline),
            self.outputs_due,
            self.journal_again,
        ];
        let at_once = (self.reaping || !self.unread.is_empty()).then_some(Moment::default());
        services.into_iter().chain(commands).chain(errands).chain(others.into_iter().flatten()).chain(at_once).min()
    }

    /// After the machine has slept, or this process was stopped, nobody can have been heard: what is due is done once, but
    /// watchdogs count anew.
    fn look_at_clocks(&mut self, next: Option<Moment>) {
        let (moment, asleep) = (now().moment, asleep());
        let slept = asleep.saturating_sub(self.asleep) >= HELD_UP;
        self.asleep = asleep;
        if slept || next.is_some_and(|next| next > Moment::default() && moment.since(next) >= HELD_UP) {
            for entry in self.services.values_mut() {
                entry.service.unheard(moment);
            }
        }
    }

    fn fire_deadlines(&mut self) {
        let moment = now().moment;
        let due = |deadline: Option<Moment>| deadline.is_some_and(|deadline| deadline <= moment);
        for group in self.services.due_by(moment) {
            // What it has said counts first: a keeper that stood still must not take it for silence.
            self.read_notify(&group);
            self.feed(&group, Event::Tick);
        }
        let late: Vec<u64> = self.commands.iter().filter(|(_, command)| due(command.deadline())).map(|(id, _)| *id).collect();
        for id in late {
            self.command_timed_out(id);
        }
        let late: Vec<u64> = self.errands.iter().filter(|(_, errand)| due(Some(errand.deadline()))).map(|(id, _)| *id).collect();
        for id in late {
            self.errand_timed_out(id);
        }
        if due(self.supervisor.restart_at()) {
            self.start_supervisor();
        }
        self.look_after_outputs(moment);
        if due(self.journal_again) {
            (self.journal_again, self.journal_due) = (None, true);
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
        let mut failed = None;
        for group in self.services.marked(Mark::Unsaved) {
            let Some(entry) = self.services.get_mut(&group) else { continue };
            let started = entry.held().map(|(_, record)| record.started);
            match self.journal.write(&entry.service, started) {
                // Whoever was told that it was not written is told that it is.
                Ok(()) => (entry.unsaved, entry.dirty) = (false, entry.dirty || self.journal_failed.is_some()),
                Err(error) => {
                    entry.dirty |= self.journal_failed.is_none();
                    failed = Some(error.to_string());
                }
            }
        }
        match (&failed, &self.journal_failed) {
            (Some(error), None) => {
                say(&format!(
                    "who runs cannot be written down: {error}; if the keeper dies now, its successor does not know them"
                ));
            }
            (None, Some(_)) => say("who runs is written down again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.journal_again = failed.as_ref().map(|_| now().moment.after(JOURNAL_AGAIN));
        self.journal_failed = failed;
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

/// How long the machine has slept since it began: by so much, the clock of moments is ahead of that of work done.
fn asleep() -> Duration {
    let span = |id| {
        let time = clock_gettime(id);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    // In this order, what passes between the two looks never makes it longer.
    let with = span(ClockId::Boottime);
    with.saturating_sub(span(ClockId::Monotonic))
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
