//! The states of one service and what leads from each to the next: a function of event, state and time.
//!
//! Pure: it starts, signals and reads nothing; it says what is to be done, and is told what happened. The rule that it keeps
//! above all: `Spawn` is only ever said when nothing of an earlier process is left.
//! To add an event: a variant of [`Event`] and its row in [`Service::on`], and a cause in `walk.rs`, which goes through all
//! states: the tests look at each step of it, and `table.rs` prints it.

pub(super) mod notify;
mod report;
mod resumed;
mod saved;
pub(super) mod table;
#[cfg(test)]
mod tests;
mod walk;

use std::time::Duration;

use self::notify::{Told, Word};
pub(crate) use resumed::{Found, Resumed};

use crate::model::{Digest, Exit, Moment, MountMode, Now, PublicationId, ServiceKind, ServiceSpec, Signal, Timestamp, View};

/// By when a forked process must have become the program, else it is killed: a dead network disk must not hold a start up
/// for ever.
const SPAWN_TIMEOUT: Duration = Duration::from_secs(30);

/// After SIGKILL, how long until a process that is still there is called stuck.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(5);

/// How often what should be gone is looked for again; its end is an event anyway, this is for what cannot be seen to end.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// So long after the main process has ended, leftovers are looked for more often, and ones that cannot be told yet are
/// waited for.
const JUST_CLEARING: Duration = Duration::from_secs(1);

/// How often, in that time.
const LOOK_SOON: Duration = Duration::from_millis(10);

/// Shortest delay of any restart but the first, whatever the policy says: never a tight loop.
const DELAY_MIN: Duration = Duration::from_millis(10);

/// Shortest readiness after which the count of ends begins anew, whatever the policy says: never a tight loop.
const RESET_MIN: Duration = Duration::from_secs(1);

/// Exit code by which a service says that it must not be restarted.
const EXIT_FOR_GOOD: i32 = 125;

/// What can happen to a service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// This is the spec to run.
    Run(Box<ServiceSpec>),
    /// What touches no process has changed.
    Amend { revision: Digest, release: String, policy: crate::model::Policy },
    /// It shall not run.
    Stop,
    /// As `Stop`, at once and without asking.
    Kill,
    /// It shall run anew.
    Restart,
    /// It shall see this, and be told so.
    Reload { view: View, signal: Option<Signal> },
    /// It was found ready.
    MarkReady { incarnation: u64 },
    /// It has said something of itself.
    Told(Vec<Word>),
    /// A process was made for it.
    Spawned { pid: u32 },
    /// It could not be started; if there was a process, its end follows.
    SpawnFailed { why: String },
    /// No process was made: something of an earlier one that nobody knew of is there, and is killed first.
    InTheWay { why: String },
    /// Its process has become the program.
    Started { mode: MountMode, publication: Option<PublicationId>, notes: String },
    /// It sees this publication now, or why not.
    Shown { publication: PublicationId, failed: Option<String> },
    /// Its main process has ended.
    Exited(Exit),
    /// Nothing of it is left.
    Cleared,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Make a process for the spec; `Spawned`, `SpawnFailed` or `InTheWay` follows at once.
    Spawn,
    /// Send a signal to the main process.
    Signal(Signal),
    /// Kill the main process, its group and all that descends from it; `Cleared` follows once nothing is left.
    Clear,
    /// Show it a publication; `Shown` follows at once. Then the signal, if it went well.
    Show(View, Option<Signal>),
}

/// Where a service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not running, and not to.
    Stopped,
    /// A task that has done its work.
    Done,
    /// It must not be restarted.
    Failed,
    /// Started again then.
    Backoff { until: Moment },
    /// Its start is due, and waits for whoever is to ask for it.
    Waiting,
    /// A process is being made.
    Spawning { by: Moment },
    /// The main process runs.
    Up { since: Moment, ready: Option<Moment> },
    /// It has been told to end, and is killed then; once killed, it is looked after from time to time.
    Stopping { kill_at: Moment, killed: Option<Moment> },
    /// The main process has ended; the rest is being killed.
    Clearing { since: Moment, look_at: Moment, stuck: bool },
    /// A process that an earlier keeper started runs; nothing is known but who it is.
    Foreign,
}

/// What follows once nothing is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Start,
    Retry { at: Moment },
    Stop,
    Done,
    Fail,
}

/// One service. It owns what must be known to decide, not what it takes to carry out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Service {
    pub(crate) spec: ServiceSpec,
    pub(crate) phase: Phase,
    next: Next,
    pid: Option<u32>,
    pub(crate) incarnation: u64,
    restarts: u64,
    /// Ends in a row that were not asked for.
    failures: u32,
    since: Timestamp,
    /// Launch and revision of what runs.
    launch: Digest,
    started_revision: Digest,
    publication: Option<PublicationId>,
    mode: MountMode,
    last_exit: Option<Exit>,
    /// A start that failed is waiting for its process to end.
    start_failed: bool,
    trouble: String,
    notes: String,
    /// Revision for which a task is done.
    pub(crate) done: Option<Digest>,
    /// A reload that came while the process was being made.
    pending: Option<(View, Option<Signal>)>,
    /// What the running process has said of itself.
    told: Told,
}

/// What a decision may depend on beside the state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub(crate) now: Now,
    /// Any number; spreads restarts that would fall together.
    pub(crate) roll: u32,
}

impl Service {
    /// A service that has never run. `done` is the revision for which an earlier keeper saw the task done.
    pub(crate) fn new(spec: ServiceSpec, done: Option<Digest>, incarnation: u64, now: Now) -> Self {
        let launch = spec.launch.digest();
        Self {
            phase: Phase::Stopped,
            next: Next::Stop,
            pid: None,
            incarnation,
            restarts: 0,
            failures: 0,
            since: now.wall,
            launch,
            started_revision: spec.revision,
            publication: None,
            mode: MountMode::Symlink,
            last_exit: None,
            start_failed: false,
            trouble: String::new(),
            notes: String::new(),
            done,
            pending: None,
            told: Told::default(),
            spec,
        }
    }

    /// A service whose processes run, as its lock tells, though nothing else is known of them; the first leads them.
    pub(super) fn foreign(spec: ServiceSpec, pids: &[u32], launch: Digest, incarnation: u64, now: Now) -> Self {
        let names: Vec<String> = pids.iter().map(u32::to_string).collect();
        let trouble = format!(
            "process {} of an earlier keeper still runs, so no second copy is started; `tagfall service restart {}` replaces it",
            names.join(", "),
            spec.group
        );
        let fresh = Self::new(spec, None, incarnation, now);
        Self { phase: Phase::Foreign, next: Next::Start, pid: pids.first().copied(), launch, trouble, ..fresh }
    }

    /// Takes one event.
    pub(crate) fn on(&mut self, event: Event, context: Context) -> Vec<Action> {
        let before = self.state();
        let actions = match event {
            Event::Run(spec) => self.run(*spec, context),
            Event::Amend { revision, release, policy } => {
                self.amend(revision, release, policy);
                Vec::new()
            }
            Event::Stop => self.stop(Next::Stop, context),
            Event::Kill => self.kill(context),
            Event::Restart => self.restart(context),
            Event::Reload { view, signal } => self.reload(view, signal),
            Event::MarkReady { incarnation } => self.mark_ready(incarnation, context),
            Event::Told(words) => self.hear(words, context),
            Event::Spawned { pid } => {
                self.pid = Some(pid);
                Vec::new()
            }
            Event::SpawnFailed { why } => self.spawn_failed(why, context),
            Event::InTheWay { why } => self.in_the_way(why, context),
            Event::Started { mode, publication, notes } => self.started((mode, publication, notes), context),
            Event::Shown { publication, failed } => self.shown(publication, failed),
            Event::Exited(exit) => self.exited(exit, context),
            Event::Cleared => self.cleared(context),
            Event::Tick => self.tick(context),
        };
        if self.state() != before {
            self.since = context.now.wall;
        }
        actions
    }

    fn run(&mut self, spec: ServiceSpec, context: Context) -> Vec<Action> {
        let same = self.spec == spec;
        let launch = spec.launch.digest();
        let same_launch = self.launch == launch;
        let done = spec.policy.kind == ServiceKind::Task && self.done == Some(spec.revision);
        self.spec = spec;
        match self.phase {
            Phase::Stopped | Phase::Done if done => {
                self.launch = launch;
                self.rest(Phase::Done);
                Vec::new()
            }
            Phase::Failed | Phase::Backoff { .. } if same => Vec::new(),
            Phase::Waiting if same => self.spawn(context),
            Phase::Stopped | Phase::Done | Phase::Failed | Phase::Backoff { .. } | Phase::Waiting => self.start_afresh(context),
            Phase::Spawning { .. } | Phase::Up { .. } if same_launch => Vec::new(),
            Phase::Spawning { .. } | Phase::Up { .. } => self.stop(Next::Start, context),
            Phase::Stopping { .. } | Phase::Clearing { .. } | Phase::Foreign => {
                // Said again while the last one's end is under way, it changes nothing of what follows from that end.
                if !same || self.next == Next::Stop {
                    self.next = Next::Start;
                }
                Vec::new()
            }
        }
    }

    fn amend(&mut self, revision: Digest, release: String, policy: crate::model::Policy) {
        if self.done == Some(self.spec.revision) {
            self.done = Some(revision);
        }
        if self.started_revision == self.spec.revision {
            self.started_revision = revision;
        }
        (self.spec.revision, self.spec.release, self.spec.policy) = (revision, release, policy);
    }

    fn stop(&mut self, next: Next, context: Context) -> Vec<Action> {
        match self.phase {
            Phase::Stopped | Phase::Done | Phase::Failed | Phase::Backoff { .. } | Phase::Waiting => {
                self.rest(Phase::Stopped);
                Vec::new()
            }
            Phase::Spawning { .. } | Phase::Up { .. } | Phase::Foreign => {
                self.next = next;
                self.pending = None;
                let kill_at = context.now.moment.after(self.spec.policy.stop_timeout);
                self.phase = Phase::Stopping { kill_at, killed: None };
                vec![Action::Signal(self.spec.policy.stop_signal)]
            }
            Phase::Stopping { .. } | Phase::Clearing { .. } => {
                self.next = next;
                Vec::new()
            }
        }
    }

    fn kill(&mut self, context: Context) -> Vec<Action> {
        self.stop(Next::Stop, context);
        let now = context.now.moment;
        if let Phase::Stopping { killed: None, .. } = self.phase {
            self.phase = Phase::Stopping { kill_at: now.after(LOOK_AGAIN), killed: Some(now) };
            return vec![Action::Clear];
        }
        Vec::new()
    }

    fn restart(&mut self, context: Context) -> Vec<Action> {
        self.done = None;
        match self.phase {
            Phase::Stopped | Phase::Done | Phase::Failed | Phase::Backoff { .. } | Phase::Waiting => self.start_afresh(context),
            Phase::Spawning { .. } | Phase::Up { .. } | Phase::Stopping { .. } | Phase::Clearing { .. } | Phase::Foreign => {
                self.stop(Next::Start, context)
            }
        }
    }

    fn reload(&mut self, view: View, signal: Option<Signal>) -> Vec<Action> {
        self.spec.view = Some(view.clone());
        match self.phase {
            Phase::Up { .. } => vec![Action::Show(view, signal)],
            Phase::Spawning { .. } => {
                self.pending = Some((view, signal));
                Vec::new()
            }
            Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::Backoff { .. }
            | Phase::Waiting
            | Phase::Stopping { .. }
            | Phase::Clearing { .. }
            | Phase::Foreign => Vec::new(),
        }
    }

    fn mark_ready(&mut self, incarnation: u64, context: Context) -> Vec<Action> {
        if let Phase::Up { since, ready: None } = self.phase
            && incarnation == self.incarnation
        {
            self.phase = Phase::Up { since, ready: Some(context.now.moment) };
            self.told.watch_from(context.now.moment);
        }
        Vec::new()
    }

    /// Starts as if it had never failed: somebody asked for it.
    fn start_afresh(&mut self, context: Context) -> Vec<Action> {
        self.failures = 0;
        self.trouble.clear();
        self.spawn(context)
    }

    /// A start that nobody has just asked for.
    fn due(&mut self, context: Context) -> Vec<Action> {
        if !self.spec.policy.starts_when_asked {
            return self.spawn(context);
        }
        self.phase = Phase::Waiting;
        self.next = Next::Start;
        Vec::new()
    }

    fn spawn(&mut self, context: Context) -> Vec<Action> {
        self.incarnation += 1;
        self.launch = self.spec.launch.digest();
        self.started_revision = self.spec.revision;
        self.start_failed = false;
        self.notes.clear();
        self.told = Told::new(&self.spec.policy);
        // Settled with the fork: a report in between must not look like a process on no files at all.
        self.publication = self.spec.view.as_ref().map(|view| view.publication);
        self.phase = Phase::Spawning { by: context.now.moment.after(SPAWN_TIMEOUT) };
        self.next = Next::Start;
        vec![Action::Spawn]
    }

    fn spawn_failed(&mut self, why: String, context: Context) -> Vec<Action> {
        self.trouble = why;
        self.start_failed = true;
        if self.pid.is_none() {
            // No process was made: nothing to wait for.
            self.next = self.retry(None, context);
            return self.cleared(context);
        }
        Vec::new()
    }

    fn in_the_way(&mut self, why: String, context: Context) -> Vec<Action> {
        let now = context.now.moment;
        self.trouble = why;
        self.phase = Phase::Clearing { since: now, look_at: now.after(LOOK_SOON), stuck: false };
        vec![Action::Clear]
    }

    fn started(&mut self, how: (MountMode, Option<PublicationId>, String), context: Context) -> Vec<Action> {
        (self.mode, self.publication, self.notes) = how;
        let Phase::Spawning { .. } = self.phase else { return Vec::new() };
        let now = context.now.moment;
        let ready = self.spec.policy.ready_when_started.then_some(now);
        self.phase = Phase::Up { since: now, ready };
        self.trouble.clear();
        self.told.watch_from(now);
        self.pending.take().map(|(view, signal)| Action::Show(view, signal)).into_iter().collect()
    }

    fn shown(&mut self, publication: PublicationId, failed: Option<String>) -> Vec<Action> {
        match failed {
            Some(why) => self.trouble = why,
            None => {
                self.publication = Some(publication);
                self.trouble.clear();
            }
        }
        Vec::new()
    }

    fn exited(&mut self, exit: Exit, context: Context) -> Vec<Action> {
        let now = context.now.moment;
        self.pid = None;
        if !self.start_failed {
            self.last_exit = Some(exit);
        }
        self.next = match self.phase {
            Phase::Spawning { .. } => {
                if !self.start_failed {
                    self.trouble = format!("it ended with {exit} before it had become the program");
                }
                self.retry(None, context)
            }
            Phase::Up { ready, .. } => self.after_exit(exit, ready, context),
            Phase::Foreign => self.next,
            Phase::Stopping { .. } => {
                if !self.told.silent {
                    self.trouble.clear();
                }
                self.next
            }
            // No main process: nothing can have ended.
            Phase::Stopped | Phase::Done | Phase::Failed | Phase::Backoff { .. } | Phase::Waiting | Phase::Clearing { .. } => {
                return Vec::new();
            }
        };
        self.phase = Phase::Clearing { since: now, look_at: now.after(LOOK_SOON), stuck: false };
        vec![Action::Clear]
    }

    fn after_exit(&mut self, exit: Exit, ready: Option<Moment>, context: Context) -> Next {
        if exit == Exit::Code(EXIT_FOR_GOOD) {
            self.trouble = format!("it ended with exit code {EXIT_FOR_GOOD}, by which it asks not to be restarted");
            return Next::Fail;
        }
        if self.spec.policy.kind == ServiceKind::Task && exit == Exit::Code(0) {
            self.trouble.clear();
            self.done = Some(self.started_revision);
            // A newer revision came while it ran: it runs once for that, too.
            return if self.started_revision == self.spec.revision { Next::Done } else { Next::Start };
        }
        self.trouble = format!("it ended with {exit}");
        if self.spec.policy.kind == ServiceKind::Task { self.retry(None, context) } else { self.retry(ready, context) }
    }

    /// Restart after an end that nobody asked for: at once where it had been ready and this is the first, else later.
    fn retry(&mut self, ready: Option<Moment>, context: Context) -> Next {
        let now = context.now.moment;
        let backoff = self.spec.policy.backoff;
        if ready.is_some_and(|since| now.since(since) >= backoff.reset_after.max(RESET_MIN)) {
            self.failures = 0;
        }
        let first = self.failures == 0;
        self.failures = self.failures.saturating_add(1);
        self.restarts += 1;
        if first && ready.is_some() {
            return Next::Start;
        }
        let exponent = self.failures.saturating_sub(2);
        Next::Retry { at: now.after(delay(backoff.min, backoff.max, exponent, context.roll)) }
    }

    fn cleared(&mut self, context: Context) -> Vec<Action> {
        if self.pid.is_some() || self.at_rest() || matches!(self.phase, Phase::Backoff { .. }) {
            return Vec::new();
        }
        self.publication = None;
        self.pending = None;
        let done = self.spec.policy.kind == ServiceKind::Task && self.done == Some(self.spec.revision);
        match self.next {
            Next::Start if done => {
                self.rest(Phase::Done);
                Vec::new()
            }
            Next::Start => self.due(context),
            Next::Retry { at } => {
                self.phase = Phase::Backoff { until: at };
                Vec::new()
            }
            Next::Stop => {
                self.rest(Phase::Stopped);
                Vec::new()
            }
            Next::Done => {
                self.rest(Phase::Done);
                Vec::new()
            }
            Next::Fail => {
                self.phase = Phase::Failed;
                Vec::new()
            }
        }
    }

    fn rest(&mut self, phase: Phase) {
        self.phase = phase;
        self.next = Next::Stop;
        self.failures = 0;
        self.trouble.clear();
        self.notes.clear();
    }

    fn tick(&mut self, context: Context) -> Vec<Action> {
        let now = context.now.moment;
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        match self.phase {
            Phase::Backoff { .. } => self.due(context),
            Phase::Spawning { .. } => {
                self.phase = Phase::Spawning { by: now.after(LOOK_AGAIN) };
                self.start_failed = true;
                self.trouble = format!("its process did not become the program within {} s", SPAWN_TIMEOUT.as_secs());
                vec![Action::Clear]
            }
            Phase::Stopping { killed, .. } => {
                let killed = killed.unwrap_or(now);
                self.phase = Phase::Stopping { kill_at: now.after(LOOK_AGAIN), killed: Some(killed) };
                if self.stuck() {
                    self.trouble =
                        "its process cannot be killed, as if it waited for a disk; no second copy is started".to_owned();
                }
                vec![Action::Clear]
            }
            Phase::Clearing { since, .. } => {
                let stuck = now.since(since) >= STUCK_AFTER;
                if stuck {
                    self.trouble = "a process that it started cannot be killed; no second copy is started".to_owned();
                }
                let wait = if self.just_clearing(now) { LOOK_SOON } else { LOOK_AGAIN };
                self.phase = Phase::Clearing { since, look_at: now.after(wait), stuck };
                vec![Action::Clear]
            }
            Phase::Up { .. } => self.fell_silent(context),
            Phase::Stopped | Phase::Done | Phase::Failed | Phase::Waiting | Phase::Foreign => Vec::new(),
        }
    }
}

/// `min` doubled `exponent` times, at most `max`, spread by a quarter either way within both.
fn delay(min: Duration, max: Duration, exponent: u32, roll: u32) -> Duration {
    let min = min.max(DELAY_MIN);
    let max = max.max(min);
    let middle = min.saturating_mul(2u32.saturating_pow(exponent)).min(max);
    let low = (middle * 3 / 4).max(min);
    let high = (middle + middle / 4).min(max).max(low);
    low + (high - low).mul_f64(f64::from(roll) / f64::from(u32::MAX))
}
