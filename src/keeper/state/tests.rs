//! Every state and every short sequence of events, and the rules one by one.

use super::walk::{Cause, Step as Stride, walk};
use super::*;
use crate::model::{Backoff, Launch, Policy, ServiceState};

fn spec(kind: ServiceKind, program: &str, revision: u8) -> ServiceSpec {
    let backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(1), reset_after: Duration::from_secs(60) };
    ServiceSpec {
        group: "web".parse().unwrap(),
        revision: Digest::of(&[revision]),
        release: "v1.0.0".to_owned(),
        launch: Launch { argv: vec![program.to_owned()], ..Launch::default() },
        policy: Policy {
            kind,
            stop_signal: Signal::TERM,
            stop_timeout: Duration::from_secs(8),
            backoff,
            ready_when_started: true,
            ready: crate::model::Ready::Started,
            watchdog: None,
            logs: crate::model::LogPolicy::default(),
            starts_when_asked: false,
        },
        view: None,
    }
}

fn at(ms: u64) -> Context {
    Context { now: Now { moment: Moment(ms), wall: Timestamp(ms) }, roll: 0 }
}

/// The world beside the service's belief: what really lives.
#[derive(Clone)]
struct World {
    service: Service,
    now: u64,
    /// Copies of the main process, and whether something else of the service lives on.
    mains: u32,
    rest: bool,
    /// Told to end by a signal, or killed.
    told: bool,
    killed: bool,
}

/// What the world can do next.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    RunSame,
    RunOther,
    RunNext,
    Stop,
    Kill,
    Restart,
    MarkReady,
    Reload,
    Started,
    StartFails,
    ExitClean,
    ExitFails,
    ExitForGood,
    ExitLeavesRest,
    RestEnds,
    TimePasses,
}

const STEPS: [Step; 16] = [
    Step::RunSame,
    Step::RunOther,
    Step::RunNext,
    Step::Stop,
    Step::Kill,
    Step::Restart,
    Step::MarkReady,
    Step::Reload,
    Step::Started,
    Step::StartFails,
    Step::ExitClean,
    Step::ExitFails,
    Step::ExitForGood,
    Step::ExitLeavesRest,
    Step::RestEnds,
    Step::TimePasses,
];

impl World {
    fn new(kind: ServiceKind) -> Self {
        let service = Service::new(spec(kind, "a", 1), None, 0, at(0).now);
        Self { service, now: 0, mains: 0, rest: false, told: false, killed: false }
    }

    fn feed(&mut self, event: Event) {
        let actions = self.service.on(event, at(self.now));
        for action in actions {
            self.carry_out(action);
        }
        self.check();
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Spawn => {
                assert!(self.mains == 0 && !self.rest, "a second copy was started");
                (self.mains, self.told, self.killed) = (1, false, false);
                self.feed(Event::Spawned { pid: 77 });
            }
            Action::Signal(_) => {
                assert_eq!(self.mains, 1, "a signal went to nobody");
                self.told = true;
            }
            Action::Clear => {
                self.killed |= self.mains == 1;
                if self.mains == 0 && !self.rest {
                    self.feed(Event::Cleared);
                }
            }
            Action::Show(view, _) => {
                assert_eq!(self.mains, 1, "a publication was shown to nobody");
                self.feed(Event::Shown { publication: view.publication, failed: None });
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.service.pid().is_some(), self.mains == 1, "belief and world differ: {:?}", self.service);
        if self.service.at_rest() || matches!(self.service.phase, Phase::Backoff { .. }) {
            assert!(self.mains == 0 && !self.rest, "it is said to be at rest, and lives: {:?}", self.service);
        }
        let waits_for_nothing = self.mains == 0 && self.service.deadline().is_none();
        assert!(!waits_for_nothing || self.service.at_rest(), "nothing would ever wake it: {:?}", self.service);
    }

    /// Takes a step that is possible in this world; `false` where it is not.
    fn take(&mut self, step: Step, kind: ServiceKind) -> bool {
        let spawning = matches!(self.service.phase, Phase::Spawning { .. });
        let exit = |world: &mut Self, exit: Exit, rest: bool| {
            (world.mains, world.rest) = (0, rest);
            world.feed(Event::Exited(exit));
        };
        match step {
            Step::RunSame => self.feed(Event::Run(Box::new(spec(kind, "a", 1)))),
            Step::RunOther => self.feed(Event::Run(Box::new(spec(kind, "b", 2)))),
            Step::RunNext => self.feed(Event::Run(Box::new(spec(kind, "a", 2)))),
            Step::Stop => self.feed(Event::Stop),
            Step::Kill => self.feed(Event::Kill),
            Step::Restart => self.feed(Event::Restart),
            Step::MarkReady => self.feed(Event::MarkReady { incarnation: self.service.incarnation }),
            Step::Reload => {
                let publication = PublicationId { content: Digest::of(b"p"), copy: 0 };
                let view = View { publication, source: "s".to_owned(), point: "p".to_owned() };
                self.feed(Event::Reload { view, signal: Some(Signal::HUP) });
            }
            Step::Started if self.mains == 1 && spawning => {
                self.feed(Event::Started { mode: MountMode::Symlink, publication: None, notes: String::new() });
            }
            Step::StartFails if self.mains == 1 && spawning => {
                self.feed(Event::SpawnFailed { why: "no such file".to_owned() });
                exit(self, Exit::Code(127), false);
            }
            Step::ExitClean if self.mains == 1 => exit(self, Exit::Code(0), false),
            Step::ExitFails if self.mains == 1 => exit(self, Exit::Signal(Signal::KILL), false),
            Step::ExitForGood if self.mains == 1 => exit(self, Exit::Code(EXIT_FOR_GOOD), false),
            Step::ExitLeavesRest if self.mains == 1 => exit(self, Exit::Code(1), true),
            Step::RestEnds if self.rest && self.mains == 0 => {
                self.rest = false;
                self.feed(Event::Cleared);
            }
            Step::TimePasses => {
                let Some(deadline) = self.service.deadline() else { return false };
                self.now = self.now.max(deadline.0);
                self.feed(Event::Tick);
            }
            Step::Started
            | Step::StartFails
            | Step::ExitClean
            | Step::ExitFails
            | Step::ExitForGood
            | Step::ExitLeavesRest
            | Step::RestEnds => return false,
        }
        true
    }

    /// From here on the world does what it is told: a stop must end in rest.
    fn stop_must_succeed(mut self, path: &[Step]) {
        self.feed(Event::Stop);
        for _ in 0..8 {
            if self.service.phase == Phase::Stopped {
                return;
            }
            let exit = self.mains == 1 && (self.told || self.killed);
            let step = if exit {
                Step::ExitFails
            } else if self.rest {
                Step::RestEnds
            } else {
                Step::TimePasses
            };
            assert!(self.take(step, self.service.spec.policy.kind), "{step:?} was not possible after {path:?}");
        }
        panic!("it did not stop after {path:?}: {:?}", self.service);
    }
}

fn explore(world: &World, kind: ServiceKind, path: &mut Vec<Step>, depth: usize) -> u64 {
    if depth == 0 {
        world.clone().stop_must_succeed(path);
        return 1;
    }
    let mut seen = 0;
    for step in STEPS {
        let mut next = world.clone();
        path.push(step);
        if next.take(step, kind) {
            seen += explore(&next, kind, path, depth - 1);
        }
        path.pop();
    }
    seen
}

/// Long enough for: start, fail, back off, start, stop, and one event out of place.
const DEPTH: usize = 5;

#[test]
fn no_short_sequence_leads_to_two_copies_or_to_a_halt() {
    for kind in [ServiceKind::Daemon, ServiceKind::Task] {
        let seen = explore(&World::new(kind), kind, &mut Vec::new(), DEPTH);
        assert!(seen > 100_000, "only {seen} sequences were possible");
    }
}

fn up(kind: ServiceKind) -> World {
    let mut world = World::new(kind);
    world.take(Step::RunSame, kind);
    world.take(Step::Started, kind);
    world
}

#[test]
fn the_first_restart_is_immediate_and_the_next_ones_wait_ever_longer() {
    let mut world = up(ServiceKind::Daemon);
    world.take(Step::ExitFails, ServiceKind::Daemon);
    assert!(matches!(world.service.phase, Phase::Spawning { .. }));
    let mut waits = Vec::new();
    for _ in 0..6 {
        world.take(Step::Started, ServiceKind::Daemon);
        world.take(Step::ExitClean, ServiceKind::Daemon);
        let Phase::Backoff { until } = world.service.phase else { panic!("{:?}", world.service.phase) };
        waits.push(until.0 - world.now);
        world.take(Step::TimePasses, ServiceKind::Daemon);
    }
    assert_eq!(waits, [100, 150, 300, 600, 750, 750]);
    assert_eq!(world.service.report(at(world.now).now).restarts, 7);
}

#[test]
fn after_long_enough_in_readiness_the_count_begins_anew() {
    let mut world = up(ServiceKind::Daemon);
    world.take(Step::ExitFails, ServiceKind::Daemon);
    world.take(Step::Started, ServiceKind::Daemon);
    world.now += 60_000;
    world.take(Step::ExitFails, ServiceKind::Daemon);
    assert!(matches!(world.service.phase, Phase::Spawning { .. }));
}

#[test]
fn one_that_was_never_ready_is_not_restarted_at_once() {
    let mut world = World::new(ServiceKind::Daemon);
    let mut waits = spec(ServiceKind::Daemon, "a", 1);
    waits.policy.ready_when_started = false;
    world.feed(Event::Run(Box::new(waits)));
    world.take(Step::Started, ServiceKind::Daemon);
    assert_eq!(world.service.state(), ServiceState::Starting);
    let mut ready = world.clone();
    world.take(Step::ExitFails, ServiceKind::Daemon);
    assert_eq!(world.service.state(), ServiceState::Backoff);
    ready.feed(Event::MarkReady { incarnation: 99 });
    assert_eq!(ready.service.state(), ServiceState::Starting);
    ready.take(Step::MarkReady, ServiceKind::Daemon);
    assert_eq!(ready.service.state(), ServiceState::Running);
    ready.take(Step::ExitFails, ServiceKind::Daemon);
    assert_eq!(ready.service.state(), ServiceState::Starting);
}

#[test]
fn exit_code_125_is_for_good_until_the_spec_differs_or_somebody_asks() {
    let mut world = up(ServiceKind::Daemon);
    world.take(Step::ExitForGood, ServiceKind::Daemon);
    world.take(Step::RunSame, ServiceKind::Daemon);
    assert_eq!(world.service.state(), ServiceState::Failed);
    assert!(world.service.report(at(0).now).message.contains("125"));
    let mut other = world.clone();
    other.take(Step::RunNext, ServiceKind::Daemon);
    assert_eq!(other.service.state(), ServiceState::Starting);
    world.take(Step::Restart, ServiceKind::Daemon);
    assert_eq!(world.service.state(), ServiceState::Starting);
}

#[test]
fn a_task_runs_once_per_revision() {
    let mut world = up(ServiceKind::Task);
    world.take(Step::ExitFails, ServiceKind::Task);
    assert_eq!(world.service.state(), ServiceState::Backoff);
    world.take(Step::TimePasses, ServiceKind::Task);
    world.take(Step::Started, ServiceKind::Task);
    world.take(Step::ExitClean, ServiceKind::Task);
    assert_eq!(world.service.state(), ServiceState::Done);
    world.take(Step::RunSame, ServiceKind::Task);
    assert_eq!(world.service.state(), ServiceState::Done);
    world.take(Step::Stop, ServiceKind::Task);
    world.take(Step::RunSame, ServiceKind::Task);
    assert_eq!(world.service.state(), ServiceState::Done);
    world.take(Step::RunNext, ServiceKind::Task);
    assert_eq!(world.service.state(), ServiceState::Starting);
    // A revision that comes while it runs gets its own run.
    world.take(Step::Started, ServiceKind::Task);
    world.feed(Event::Run(Box::new(spec(ServiceKind::Task, "a", 3))));
    world.take(Step::ExitClean, ServiceKind::Task);
    assert_eq!(world.service.state(), ServiceState::Starting);
}

#[test]
fn the_same_launch_is_left_alone_and_another_one_follows_a_whole_stop() {
    let mut world = up(ServiceKind::Daemon);
    world.take(Step::RunNext, ServiceKind::Daemon);
    assert_eq!((world.service.state(), world.told), (ServiceState::Running, false));
    assert_eq!(world.service.report(at(0).now).revision, Digest::of(&[2]));
    world.take(Step::RunOther, ServiceKind::Daemon);
    assert_eq!((world.service.state(), world.told), (ServiceState::Stopping, true));
    world.take(Step::TimePasses, ServiceKind::Daemon);
    assert!(world.killed);
    world.take(Step::ExitLeavesRest, ServiceKind::Daemon);
    assert_eq!(world.service.state(), ServiceState::Stopping);
    world.take(Step::RestEnds, ServiceKind::Daemon);
    assert_eq!((world.service.state(), world.service.incarnation), (ServiceState::Starting, 2));
}

#[test]
fn what_cannot_be_killed_is_called_stuck_and_gets_no_second_copy() {
    let mut world = up(ServiceKind::Daemon);
    world.take(Step::Restart, ServiceKind::Daemon);
    for _ in 0..40 {
        world.take(Step::TimePasses, ServiceKind::Daemon);
    }
    assert_eq!((world.service.state(), world.service.incarnation), (ServiceState::Stuck, 1));
}

#[test]
fn a_process_of_an_earlier_keeper_keeps_a_second_copy_away() {
    let launch = spec(ServiceKind::Daemon, "a", 1).launch.digest();
    let service = Service::foreign(spec(ServiceKind::Daemon, "a", 1), &[77], launch, 4, at(0).now);
    let mut world = World { service, mains: 1, ..World::new(ServiceKind::Daemon) };
    world.take(Step::RunOther, ServiceKind::Daemon);
    let report = world.service.report(at(0).now);
    assert_eq!((report.state, report.pid), (ServiceState::Unknown, Some(77)));
    assert!(report.message.contains("77"));
    world.take(Step::ExitClean, ServiceKind::Daemon);
    assert_eq!((world.service.state(), world.service.incarnation), (ServiceState::Starting, 5));
}

#[test]
fn delays_stay_between_their_bounds() {
    for (exponent, roll) in [(0, 0), (0, u32::MAX), (3, u32::MAX / 2), (31, 0), (40, u32::MAX)] {
        let delay = delay(Duration::from_millis(100), Duration::from_secs(30), exponent, roll);
        assert!(delay >= Duration::from_millis(100) && delay <= Duration::from_secs(30), "{delay:?}");
    }
    assert_eq!(delay(Duration::ZERO, Duration::ZERO, 0, 0), DELAY_MIN);
}

fn check_stride(stride: &Stride) {
    let Stride { from, cause: _, to, actions } = stride;
    let (before, after) = (&from.service, &to.service);
    let spawns = actions.iter().filter(|action| **action == Action::Spawn).count();
    let signals = actions.iter().any(|action| matches!(action, Action::Signal(_)));
    // A process is only made where nothing of an earlier one can be there, and one at a time.
    assert!(spawns <= 1 && (spawns == 0 || !to.main && !to.left && !from.forking), "a second copy: {stride}");
    assert!(spawns == 0 || after.incarnation == before.incarnation + 1, "{stride}");
    assert!(!signals || from.main, "a signal to nobody: {stride}");
    if !to.forking {
        assert_eq!(after.pid().is_some(), to.main, "belief and world differ: {stride}");
        assert!(!to.left || !after.expects_nobody(), "it is said to be at rest, and may live: {stride}");
        let waits = to.main || after.deadline().is_some();
        assert!(waits || after.at_rest(), "nothing would ever wake it: {stride}");
    }
    assert!(after.at_rest() || after.deadline().is_some() || matches!(after.phase, Phase::Up { .. } | Phase::Foreign));
    // Whoever has to look must be told why.
    let silent = after.report(at(to.now.0).now).message.is_empty();
    let tells = matches!(after.phase, Phase::Backoff { .. } | Phase::Failed | Phase::Foreign) || after.stuck();
    assert!(!tells || !silent, "it says nothing: {stride}");
    check_ends(stride);
}

fn check_ends(Stride { from, cause, to, actions }: &Stride) {
    let (before, after) = (&from.service, &to.service);
    let asked = matches!(cause, Cause::RunSame | Cause::RunRevised | Cause::RunOther | Cause::Restart);
    if matches!(before.phase, Phase::Failed | Phase::Done | Phase::Stopped) {
        assert!(asked || !actions.contains(&Action::Spawn), "{cause:?} started it");
    }
    if before.spec.policy.starts_when_asked && !matches!(cause, Cause::InTheWay) {
        assert!(asked || !actions.contains(&Action::Spawn), "{cause:?} started it, and nobody asked");
    }
    if before.phase == Phase::Waiting && asked {
        assert!(matches!(after.phase, Phase::Spawning { .. } | Phase::Done), "{cause:?} left it waiting");
    }
    if before.phase == Phase::Failed && *cause == Cause::RunSame {
        assert_eq!(after.phase, Phase::Failed);
    }
    if matches!(cause, Cause::NextKeeper | Cause::NextKeeperTooLate) {
        assert!(!actions.contains(&Action::Spawn) && !actions.iter().any(|action| matches!(action, Action::Signal(_))));
        assert!(*cause == Cause::NextKeeperTooLate || (before.incarnation, before.launch) == (after.incarnation, after.launch));
        assert!(*cause == Cause::NextKeeperTooLate || after.pid() == before.pid());
        let known = before.state() == after.state() || matches!(before.phase, Phase::Spawning { .. });
        assert!(*cause == Cause::NextKeeperTooLate || known, "{:?} became {:?}", before.phase, after.phase);
    }
}

#[test]
fn in_every_state_that_there_is_the_rules_hold() {
    let kinds = [ServiceKind::Daemon, ServiceKind::Task];
    for treated in kinds.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let mut strides = 0;
        walk(&"web".parse().unwrap(), treated, |stride| {
            strides += 1;
            check_stride(stride);
        });
        assert!(strides > 10_000, "only {strides} steps were possible");
    }
}
