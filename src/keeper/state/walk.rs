//! Every state that a service can be in, found by walking from the first one through all that can happen to it.
//!
//! Two places that differ only in what no decision depends on (numbers, words, how long ago something was, where it makes no
//! difference) count as one, so the walk ends, and no sequence of events is too long to be in it. The tests look at each step,
//! and the page of the site is made of them. To add an event: a [`Cause`], and when it is possible, in [`Place::can`].

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use super::notify::Word;
use super::{Action, Context, Event, JUST_CLEARING, Next, Phase, STUCK_AFTER, Service};
use crate::keeper::wire::{FieldError, Fields, Writer};
use crate::model::{
    Backoff, Digest, Exit, GroupName, Launch, LogPolicy, Moment, MountMode, Now, Policy, PublicationId, Ready, ServiceKind,
    ServiceSpec, Signal, Timestamp, View,
};

/// How long the services of the walk must be ready before their ends are forgotten.
pub(super) const RESET_AFTER: Duration = Duration::from_secs(60);

/// How long they may be silent.
const WATCHDOG: Duration = Duration::from_secs(600);

/// A service, and as much of the world as decides what can happen to it next.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) service: Service,
    pub(super) now: Moment,
    /// A main process lives.
    pub(super) main: bool,
    /// A process is to be made, at once.
    pub(super) forking: bool,
    /// There may be something that it has started.
    pub(super) left: bool,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    RunSame,
    RunRevised,
    RunOther,
    Amend,
    Stop,
    Kill,
    Restart,
    Reload,
    MarkReady,
    Forked,
    NotForked,
    InTheWay,
    Started,
    StartFails,
    SaysReady,
    SaysReloading,
    SaysTrigger,
    Lasts,
    EndsWell,
    EndsBadly,
    EndsForGood,
    Gone,
    Elapses,
    NextKeeper,
    NextKeeperTooLate,
}

impl Cause {
    pub(super) const ALL: [Self; 25] = [
        Self::RunSame,
        Self::RunRevised,
        Self::RunOther,
        Self::Amend,
        Self::Stop,
        Self::Kill,
        Self::Restart,
        Self::Reload,
        Self::MarkReady,
        Self::Forked,
        Self::NotForked,
        Self::InTheWay,
        Self::Started,
        Self::StartFails,
        Self::SaysReady,
        Self::SaysReloading,
        Self::SaysTrigger,
        Self::Lasts,
        Self::EndsWell,
        Self::EndsBadly,
        Self::EndsForGood,
        Self::Gone,
        Self::Elapses,
        Self::NextKeeper,
        Self::NextKeeperTooLate,
    ];

    /// For people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::RunSame => "told to run, as it is",
            Self::RunRevised => "told to run in another revision, started alike",
            Self::RunOther => "told to run, started otherwise",
            Self::Amend => "told another revision, as it is",
            Self::Stop => "told to stop",
            Self::Kill => "told to end at once",
            Self::Restart => "told to restart",
            Self::Reload => "told of a new publication",
            Self::MarkReady => "found ready by the supervisor",
            Self::Forked => "a process is made",
            Self::NotForked => "no process can be made",
            Self::InTheWay => "something of an earlier start is in the way",
            Self::Started => "its process has become the program",
            Self::StartFails => "its process cannot become the program",
            Self::SaysReady => "it says `READY=1`",
            Self::SaysReloading => "it says `RELOADING=1`",
            Self::SaysTrigger => "it says `WATCHDOG=trigger`",
            Self::Lasts => "ready for `reset_after`",
            Self::EndsWell => "its main process ends with 0",
            Self::EndsBadly => "its main process ends otherwise",
            Self::EndsForGood => "its main process ends with 125",
            Self::Gone => "nothing of it is left",
            Self::Elapses => "its time is up",
            Self::NextKeeper => "the keeper is killed, the next one takes over",
            Self::NextKeeperTooLate => "the keeper is killed, it ends, the next keeper takes over",
        }
    }
}

/// One step of the walk.
pub(super) struct Step {
    pub(super) from: Place,
    pub(super) cause: Cause,
    pub(super) to: Place,
    /// What was to be done, the last first step of a process excepted: it is what [`Place::forking`] tells.
    pub(super) actions: Vec<Action>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (&self.from.service, &self.to.service);
        let (was, next) = ((before.phase, before.next), (after.phase, after.next));
        write!(f, "{was:?} {:?} {next:?}, {:?}", self.cause, self.actions)
    }
}

/// Its kind, and whether its starts are asked for.
pub(super) type Treated = (ServiceKind, bool);

/// A spec that is started by `program`.
pub(super) fn spec(group: &GroupName, (kind, asked): Treated, program: &str, revision: u8) -> ServiceSpec {
    let backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(1), reset_after: RESET_AFTER };
    let policy = Policy {
        kind,
        stop_signal: Signal::TERM,
        stop_timeout: Duration::from_secs(8),
        backoff,
        ready_when_started: false,
        ready: Ready::Notify,
        watchdog: Some(WATCHDOG),
        logs: LogPolicy::default(),
        starts_when_asked: asked,
    };
    ServiceSpec {
        group: group.clone(),
        revision: Digest::of(&[revision]),
        release: String::new(),
        launch: Launch { argv: vec![program.to_owned()], ..Launch::default() },
        policy,
        view: None,
    }
}

fn at(now: Moment) -> Context {
    Context { now: Now { moment: now, wall: Timestamp(now.0) }, roll: 0 }
}

impl Place {
    fn new(service: Service) -> Self {
        let main = service.pid().is_some();
        Self { service, now: Moment(0), main, forking: false, left: main }
    }

    /// Whether this can happen here.
    fn can(&self, cause: Cause) -> bool {
        let spawning = matches!(self.service.phase, Phase::Spawning { .. });
        match cause {
            Cause::Forked | Cause::NotForked | Cause::InTheWay => self.forking,
            _ if self.forking => false,
            Cause::Started | Cause::StartFails => self.main && spawning && !self.service.start_failed,
            Cause::SaysReady | Cause::SaysReloading | Cause::SaysTrigger => self.main && !spawning,
            Cause::Lasts => self.lasting().is_some(),
            Cause::EndsWell | Cause::EndsBadly | Cause::EndsForGood => self.main,
            Cause::NextKeeperTooLate => self.main,
            Cause::Gone => !self.main && self.service.clearing(),
            Cause::Elapses => self.service.deadline().is_some(),
            Cause::RunSame
            | Cause::RunRevised
            | Cause::RunOther
            | Cause::Amend
            | Cause::Stop
            | Cause::Kill
            | Cause::Restart
            | Cause::Reload
            | Cause::MarkReady
            | Cause::NextKeeper => true,
        }
    }

    /// When it will have been ready for long.
    fn lasting(&self) -> Option<Moment> {
        let Phase::Up { ready: Some(since), .. } = self.service.phase else { return None };
        Some(since.after(RESET_AFTER)).filter(|until| *until > self.now)
    }

    /// When it next makes a difference how late it is.
    fn later(&self) -> Moment {
        let due = self.service.deadline().unwrap_or(self.now).max(self.now);
        match self.service.phase {
            Phase::Clearing { since, .. } if self.now.since(since) < JUST_CLEARING => due.max(since.after(JUST_CLEARING)),
            Phase::Clearing { since, .. } => due.max(since.after(STUCK_AFTER)),
            Phase::Stopping { killed: Some(killed), .. } => due.max(killed.after(STUCK_AFTER)),
            Phase::Stopped
            | Phase::Done
            | Phase::Failed
            | Phase::Backoff { .. }
            | Phase::Waiting
            | Phase::Spawning { .. }
            | Phase::Up { .. }
            | Phase::Stopping { .. }
            | Phase::Foreign => due,
        }
    }

    /// Lets it happen; the actions are what is to be done now.
    fn take(&mut self, cause: Cause, kind: Treated) -> Vec<Action> {
        let group = self.service.spec.group.clone();
        let publication = PublicationId { content: Digest::of(b"p"), copy: 0 };
        let view = View { publication, source: String::new(), point: String::new() };
        let program = if self.service.spec.launch.argv == ["b"] { "b" } else { "a" };
        let event = match cause {
            Cause::RunSame => Event::Run(Box::new(self.service.spec.clone())),
            Cause::RunRevised => Event::Run(Box::new(spec(&group, kind, program, 2))),
            Cause::RunOther => Event::Run(Box::new(spec(&group, kind, if program == "a" { "b" } else { "a" }, 2))),
            Cause::Amend => {
                let other = spec(&group, kind, program, 2);
                Event::Amend { revision: other.revision, release: other.release, policy: other.policy }
            }
            Cause::Stop => Event::Stop,
            Cause::Kill => Event::Kill,
            Cause::Restart => Event::Restart,
            Cause::Reload => Event::Reload { view, signal: None },
            Cause::MarkReady => Event::MarkReady { incarnation: self.service.incarnation },
            Cause::Forked => Event::Spawned { pid: 77 },
            Cause::NotForked => Event::SpawnFailed { why: "no process can be made".to_owned() },
            Cause::InTheWay => Event::InTheWay { why: "something of an earlier start is there".to_owned() },
            Cause::Started => Event::Started { mode: MountMode::Symlink, publication: None, notes: String::new() },
            Cause::StartFails => Event::SpawnFailed { why: "no such program".to_owned() },
            Cause::SaysReady => Event::Told(vec![Word::Ready]),
            Cause::SaysReloading => Event::Told(vec![Word::Reloading]),
            Cause::SaysTrigger => Event::Told(vec![Word::WatchdogTrigger]),
            Cause::Lasts => {
                self.now = self.lasting().unwrap_or(self.now);
                Event::Told(vec![Word::Watchdog])
            }
            Cause::EndsWell => Event::Exited(Exit::Code(0)),
            Cause::EndsBadly => Event::Exited(Exit::Code(1)),
            Cause::EndsForGood => Event::Exited(Exit::Code(super::EXIT_FOR_GOOD)),
            Cause::Gone => Event::Cleared,
            Cause::Elapses => {
                self.now = self.later();
                Event::Tick
            }
            Cause::NextKeeper => return self.next_keeper(true),
            Cause::NextKeeperTooLate => return self.next_keeper(false),
        };
        self.left = (self.left || matches!(cause, Cause::Forked | Cause::InTheWay)) && cause != Cause::Gone;
        self.main = cause == Cause::Forked || self.main && !matches!(event, Event::Exited(_));
        self.forking &= !matches!(cause, Cause::Forked | Cause::NotForked | Cause::InTheWay);
        self.feed(event)
    }

    fn feed(&mut self, event: Event) -> Vec<Action> {
        let actions = self.service.on(event, at(self.now));
        self.forking |= actions.contains(&Action::Spawn);
        for action in &actions {
            if let Action::Show(view, _) = action {
                self.service.on(Event::Shown { publication: view.publication, failed: None }, at(self.now));
            }
        }
        actions
    }

    /// What the journal holds is all that is left of it; its main process lives or not.
    fn next_keeper(&mut self, lives: bool) -> Vec<Action> {
        let mut writer = Writer::default();
        self.service.save(&mut writer);
        let bytes = writer.finish();
        let read = |bytes| Service::restore(Fields::parse(bytes)?, at(self.now).now);
        // The tests compare what is read with what was written; this is what has become of it.
        if let Ok(service) = read(&bytes).map_err(|_: FieldError| ()) {
            self.service = service;
        }
        self.main &= lives;
        let found = self.service.pid().filter(|_| self.main).map(|pid| (pid, MountMode::Symlink));
        let event = self.service.take_up(found, at(self.now));
        self.service.heard_again(self.now);
        event.map(|event| self.feed(event)).unwrap_or_default()
    }

    /// All that a decision depends on, and nothing else. It takes the service apart so that no new field is forgotten.
    fn key(&self) -> Vec<u8> {
        let Service {
            spec: ServiceSpec { group: _, revision, release: _, launch: wanted, policy: _, view },
            phase,
            next,
            pid,
            incarnation: _,
            restarts: _,
            failures,
            since: _,
            launch,
            started_revision,
            publication: _,
            mode: _,
            last_exit: _,
            start_failed,
            trouble,
            notes: _,
            done,
            pending,
            told,
        } = &self.service;
        let first = Digest::of(&[1]);
        let mut key = vec![u8::from(self.main), u8::from(self.forking), u8::from(self.left)];
        key.extend(self.phase_key(*phase));
        key.push(match next {
            Next::Start => 0,
            Next::Retry { .. } => 1,
            Next::Stop => 2,
            Next::Done => 3,
            Next::Fail => 4,
        });
        let flags = [
            wanted.argv == ["b"],
            *launch == wanted.digest(),
            *revision == first,
            *started_revision == first,
            view.is_some(),
            pid.is_some(),
            *failures > 0,
            *start_failed,
            trouble.is_empty(),
            *done == Some(first),
            done.is_some(),
            pending.is_some(),
        ];
        key.extend(flags.map(u8::from));
        key.extend(told.flags().map(u8::from));
        key
    }

    fn phase_key(&self, phase: Phase) -> [u8; 2] {
        let long = |since: Moment, span: Duration| u8::from(self.now.since(since) >= span);
        match phase {
            Phase::Stopped => [0, 0],
            Phase::Done => [1, 0],
            Phase::Failed => [2, 0],
            Phase::Backoff { .. } => [3, 0],
            Phase::Spawning { .. } => [4, 0],
            Phase::Up { ready: None, .. } => [5, 0],
            Phase::Up { ready: Some(ready), .. } => [5, 1 + long(ready, RESET_AFTER)],
            Phase::Stopping { killed: None, .. } => [6, 0],
            Phase::Stopping { killed: Some(killed), .. } => [6, 1 + long(killed, STUCK_AFTER) + u8::from(self.service.stuck())],
            Phase::Clearing { since, stuck, .. } => {
                [7, long(since, JUST_CLEARING) + long(since, STUCK_AFTER) + u8::from(stuck) * 4]
            }
            Phase::Foreign => [8, 0],
            Phase::Waiting => [9, 0],
        }
    }
}

/// Goes everywhere, and shows each step once.
pub(super) fn walk(group: &GroupName, kind: Treated, mut visit: impl FnMut(&Step)) {
    let now = at(Moment(0)).now;
    let first = spec(group, kind, "a", 1);
    let foreign = Service::foreign(first.clone(), &[77], first.launch.digest(), 1, now);
    let mut open = VecDeque::from([Place::new(Service::new(first, None, 0, now)), Place::new(foreign)]);
    let mut seen: BTreeSet<Vec<u8>> = open.iter().map(Place::key).collect();
    while let Some(from) = open.pop_front() {
        for cause in Cause::ALL.into_iter().filter(|cause| from.can(*cause)) {
            let mut to = from.clone();
            let actions = to.take(cause, kind);
            let step = Step { from: from.clone(), cause, to, actions };
            visit(&step);
            if seen.insert(step.to.key()) {
                open.push_back(step.to);
            }
        }
    }
}
