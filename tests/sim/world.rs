//! The heap of events, the faults, and the checks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write;
use std::time::Duration;

use tagfall::model::{
    CheckResult, Digest, HealthStatus, HookKind, MemberId, Moment, Now, Reason, Refusal, RemoteTag, ServiceState, Timestamp,
};
use tagfall::plan::{Accepted, Action, Core, DiskFacts, Drift, Event, Failure, Host as PlanHost, Key, Outcome};
use tagfall::release::Selection;

use crate::git::{Draft, Tag};
use crate::host::{Host, Later};
use crate::random::Random;

/// Faults happen until then.
pub(crate) const HEAL_AT_MS: u64 = 120_000;
/// Progress is demanded until then.
const DEADLINE_MS: u64 = HEAL_AT_MS + 600_000;
/// `start_timeout` of the simulated services.
pub(crate) const START_TIMEOUT_MS: u64 = 60_000;
/// More events than any healthy run has: a planner that spins is a bug.
const EVENTS_MAX: u64 = 200_000;

/// What a run exercised.
#[derive(Debug, Default, Clone)]
pub(crate) struct Totals {
    pub(crate) crashes: u64,
    pub(crate) refused: u64,
    pub(crate) reloads: u64,
    pub(crate) restarts: u64,
    pub(crate) drifts: u64,
    pub(crate) steps: u64,
    /// Calls of each hook.
    pub(crate) calls: [u64; HookKind::ALL.len()],
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.refused += other.refused;
        self.reloads += other.reloads;
        self.restarts += other.restarts;
        self.drifts += other.drifts;
        self.steps += other.steps;
        self.calls.iter_mut().zip(other.calls).for_each(|(sum, calls)| *sum += calls);
    }
}

#[derive(Debug)]
pub(crate) enum Happening {
    /// An action takes hold of the world.
    Effect {
        life: u64,
        key: Key,
        attempt: u64,
        action: Box<Action>,
    },
    /// Something reaches the supervisor.
    Deliver {
        life: u64,
        event: Box<Event>,
    },
    /// The planner asked to be woken.
    Wake {
        life: u64,
    },
    Crash,
    Boot,
    Push,
    Edit,
    Kill,
    Operator,
    Later(Later),
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) random: Random,
    pub(crate) now_ms: u64,
    pub(crate) order: u64,
    pub(crate) heap: BinaryHeap<Reverse<(u64, u64)>>,
    pub(crate) happenings: BTreeMap<u64, Happening>,
    pub(crate) draft: Draft,
    pub(crate) tags: Vec<Tag>,
    pub(crate) host: Host,
    pub(crate) core: Option<Core>,
    pub(crate) life: u64,
    pub(crate) trace: String,
    pub(crate) print: bool,
    pub(crate) totals: Totals,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let draft = Draft::new(&mut random);
        let mut world = Self {
            seed,
            random,
            now_ms: 0,
            order: 0,
            heap: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            draft,
            tags: Vec::new(),
            host: Host::default(),
            core: None,
            life: 0,
            trace: String::new(),
            print: false,
            totals: Totals::default(),
        };
        world.at(0, Happening::Boot);
        for _ in 0..2 + world.random.below(8) {
            world.sometime(Happening::Push);
        }
        for _ in 0..world.random.below(5) {
            world.sometime(Happening::Crash);
        }
        for _ in 0..world.random.below(4) {
            world.sometime(Happening::Edit);
        }
        for _ in 0..world.random.below(4) {
            world.sometime(Happening::Kill);
        }
        for _ in 0..world.random.below(3) {
            world.sometime(Happening::Operator);
        }
        world.at(HEAL_AT_MS - 1, Happening::Push);
        world
    }

    fn sometime(&mut self, happening: Happening) {
        let at = self.random.below(HEAL_AT_MS);
        self.at(at, happening);
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.order += 1;
        self.heap.push(Reverse((at.max(self.now_ms), self.order)));
        self.happenings.insert(self.order, happening);
    }

    fn soon(&mut self, happening: Happening) {
        let at = self.now_ms + 1 + self.random.below(40);
        self.at(at, happening);
    }

    pub(crate) fn faulty(&mut self, percent: u64) -> bool {
        self.now_ms < HEAL_AT_MS && self.random.chance(percent)
    }

    pub(crate) fn now(&self) -> Now {
        Now { moment: Moment(self.now_ms), wall: Timestamp(1_700_000_000_000 + self.now_ms) }
    }

    #[expect(clippy::print_stderr, reason = "the trace of one seed, when a person asked for it")]
    pub(crate) fn say(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.trace, "{:>7} {line}", self.now_ms);
        if self.print {
            eprintln!("{:>7} {line}", self.now_ms);
        }
    }

    pub(crate) fn run(&mut self) {
        while let Some(Reverse((at, order))) = self.heap.pop() {
            assert!(self.totals.steps < EVENTS_MAX, "seed {}: the planner spins", self.seed);
            let Some(happening) = self.happenings.remove(&order) else { continue };
            self.now_ms = at;
            self.host.now_ms = at;
            self.totals.steps += 1;
            self.happen(happening);
            if self.now_ms > HEAL_AT_MS && self.is_done() {
                return;
            }
            assert!(
                self.now_ms < DEADLINE_MS,
                "seed {}: not converged 10 minutes after all faults ended: {:#?}, busy {:?}, services {:?}",
                self.seed,
                self.plan(),
                self.core.as_ref().map(|core| core.observed().busy().cloned().collect::<Vec<_>>()),
                self.host.procs.values().map(|proc| (proc.spec.group.to_string(), proc.state)).collect::<Vec<_>>()
            );
        }
        panic!("seed {}: nothing more happens, and it has not converged: {:#?}", self.seed, self.plan());
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Boot => self.boot(),
            Happening::Crash => self.crash(),
            Happening::Push => self.push(),
            Happening::Edit => self.edit(),
            Happening::Kill => self.kill(),
            Happening::Operator => self.operator(),
            Happening::Later(later) => self.later(&later),
            Happening::Wake { life } if life == self.life => self.step(),
            Happening::Deliver { life, event } if life == self.life => {
                let now = self.now();
                if let Some(core) = &mut self.core {
                    core.observe(*event, now);
                    self.step();
                }
            }
            Happening::Effect { life, key, attempt, action } if life == self.life => self.effect(&key, attempt, &action),
            Happening::Wake { .. } | Happening::Deliver { .. } | Happening::Effect { .. } => {}
        }
    }

    fn boot(&mut self) {
        self.life += 1;
        let life = self.life;
        self.say(format_args!("boot {life}"));
        let mut remembered = self.host.record.clone();
        let facts = |disk: &crate::host::Disk| DiskFacts {
            shown: disk.shown,
            link: disk.link.clone(),
            copies: disk.written.iter().rev().copied().collect(),
            drift: Drift::Suspected,
            ..DiskFacts::default()
        };
        remembered.disk = self.host.disks.iter().map(|(name, disk)| (name.clone(), facts(disk))).collect();
        let host = PlanHost {
            member_id: MemberId::new("sim"),
            labels: BTreeMap::from([("role".to_owned(), "web".to_owned())]),
            data_dir: "/data".to_owned(),
            facts: Digest::of(b"facts"),
            selection: Selection { prefix: "v".to_owned(), range: None, prerelease: false },
            poll: Duration::from_secs(30),
            logs: tagfall::model::LogPolicy::default(),
        };
        self.core = Some(Core::new(host, remembered));
        let groups: Vec<_> = self.host.procs.keys().cloned().collect();
        for group in groups {
            self.tell(&group);
        }
        self.deliver(Event::KeeperSpeaks(tagfall::keeper::wire::PROTOCOL_MINOR));
        self.deliver(Event::KeeperReady);
        self.step();
    }

    fn crash(&mut self) {
        if self.core.take().is_some() {
            self.totals.crashes += 1;
            self.life += 1;
            self.say(format_args!("crash"));
            let at = self.now_ms + 5 + self.random.below(2000);
            self.at(at, Happening::Boot);
        }
    }

    pub(crate) fn later(&mut self, later: &Later) {
        let (group, next) = match later {
            Later::Exit { group, incarnation } => (group.clone(), self.host.exit(group, *incarnation)),
            Later::Settle { group, incarnation } => (group.clone(), self.host.settle(group, *incarnation)),
            Later::Start { group, incarnation } => (group.clone(), self.host.backoff_over(group, *incarnation)),
        };
        self.schedule(next);
        self.say(format_args!("{group}: {later:?}"));
        self.tell(&group);
    }

    fn schedule(&mut self, later: Option<Later>) {
        if let Some(later) = later {
            let longest = if matches!(later, Later::Settle { .. }) { 20 } else { 1500 };
            let at = self.now_ms + 1 + self.random.below(longest);
            self.at(at, Happening::Later(later));
        }
    }

    /// The keeper tells of one service, in order.
    fn tell(&mut self, group: &tagfall::model::GroupName) {
        let event = match self.host.report(group, self.now_ms) {
            Some(report) => Event::Service(Box::new(report)),
            None => Event::ServiceGone(group.clone()),
        };
        self.deliver(event);
    }

    /// News comes in the order in which it was sent: all of it takes the same time.
    pub(crate) fn deliver(&mut self, event: Event) {
        if self.core.is_some() {
            self.at(self.now_ms + 2, Happening::Deliver { life: self.life, event: Box::new(event) });
        }
    }

    fn plan(&self) -> Option<tagfall::plan::Plan> {
        self.core.as_ref().map(|core| core.plan(self.now()))
    }

    /// The loop of the daemon.
    fn step(&mut self) {
        let now = self.now();
        let Some(core) = &mut self.core else { return };
        let plan = core.plan(now);
        assert!(plan == core.plan(now), "plan is not a function");
        let mut begun = Vec::new();
        for (key, action) in plan.actions {
            let attempt = core.begin(&key, &action);
            begun.push((key, attempt, action));
        }
        for (key, attempt, action) in begun {
            let life = self.life;
            self.soon(Happening::Effect { life, key, attempt, action: Box::new(action) });
        }
        if let Some(wake) = plan.wake_at {
            assert!(wake > now.moment, "a wake-up in the past");
            self.at(wake.0, Happening::Wake { life: self.life });
        }
        self.check_truth();
    }

    fn effect(&mut self, key: &Key, attempt: u64, action: &Action) {
        self.say(format_args!("{key:?} {attempt}: {}", brief(action)));
        let outcome = self.carry_out(action);
        if let Outcome::Failed(_) = outcome {
            self.say(format_args!("{key:?} {attempt}: failed"));
        }
        let event = Event::Done { key: key.clone(), attempt, outcome };
        self.deliver(event);
    }

    fn carry_out(&mut self, action: &Action) -> Outcome {
        if !matches!(action, Action::List | Action::Examine { .. } | Action::Check { .. }) && self.faulty(10) {
            return Outcome::Failed(Failure::new(Reason::PublishFailed, "no space left on device"));
        }
        let now = self.now();
        match action {
            Action::List if self.faulty(20) => Outcome::Listed(Err(passing())),
            Action::List => Outcome::Listed(Ok(self.tags.iter().map(|tag| tag.tag.clone()).collect())),
            Action::Examine { tag } => self.examine(tag),
            Action::Accept { release, first_tags } => {
                let tag = RemoteTag { name: release.tag.clone(), object: release.tag_object };
                let good = self.tags.iter().any(|known| known.tag == tag && known.content.is_ok());
                assert!(good, "a release was accepted that no good tag asked for");
                self.host.record.pins.insert(tag.name.clone(), tag.object);
                self.host.record.accepted = Some(Accepted { tag, accepted_at: now.wall, applied_at: None });
                self.host.record.first_tags = first_tags.clone();
                Outcome::Accepted { release: release.clone(), first_tags: first_tags.clone() }
            }
            Action::MarkApplied { tag, .. } => {
                self.check_applied();
                let version = self.tags.iter().find(|known| known.tag == *tag).map_or(0, |tag| tag.version);
                self.host.record.floor = Some(semver::Version::new(1, version, 0));
                if let Some(accepted) = &mut self.host.record.accepted {
                    accepted.applied_at = Some(now.wall);
                }
                Outcome::Applied { tag: tag.clone() }
            }
            Action::Stage { wanted, fresh_copy } => {
                let (inputs, first) = (wanted.inputs, wanted.first.clone());
                Outcome::Staged { inputs, first, result: Ok(Box::new(self.host.stage(wanted, *fresh_copy))) }
            }
            Action::Switch { group, publication, mount_path, .. } => {
                self.host.switch(group, *publication, mount_path);
                Outcome::Switched { publication: *publication, mount_path: mount_path.clone() }
            }
            Action::Verify { group, publication } => {
                let drifted = self.host.disks.get(group).is_some_and(|disk| disk.drifted);
                let drifted = if drifted { vec!["app.conf".to_owned()] } else { Vec::new() };
                Outcome::Verified { publication: *publication, drifted }
            }
            Action::Prune { group, keep, in_use } => Outcome::Pruned(self.host.prune(group, *keep, in_use)),
            Action::Withdraw { group, .. } => {
                let sees = self.host.procs.get(group).filter(|proc| proc.pid.is_some()).and_then(|proc| proc.sees);
                assert!(sees.is_none(), "{group}: withdrawn under a live process");
                self.host.disks.remove(group);
                Outcome::Withdrawn
            }
            Action::Check { incarnation, .. } => {
                let status = if self.faulty(20) { HealthStatus::Critical } else { HealthStatus::Ok };
                Outcome::Checked { incarnation: *incarnation, result: CheckResult::new(status, "") }
            }
            Action::Call(order) => self.call(order),
            Action::Owe { group, change } => self.owe(group, change),
            Action::Signal { group, after, .. } => self.signal(group, after),
            Action::Run { .. }
            | Action::Amend { .. }
            | Action::Reload { .. }
            | Action::MarkReady { .. }
            | Action::Stop { .. }
            | Action::Restart { .. }
            | Action::Forget { .. } => self.ask_keeper(action),
        }
    }

    fn examine(&mut self, tag: &RemoteTag) -> Outcome {
        if self.faulty(15) {
            return Outcome::Examined { tag: tag.clone(), result: Err(passing()) };
        }
        let content = self.tags.iter().find(|known| known.tag == *tag).map(|known| known.content.clone());
        let result = content.unwrap_or_else(|| Err(passing()));
        self.totals.refused += u64::from(result.is_err());
        Outcome::Examined { tag: tag.clone(), result }
    }

    fn ask_keeper(&mut self, action: &Action) -> Outcome {
        let (group, later) = match action {
            Action::Run { spec, restart } => {
                self.check_restart(spec, *restart);
                (spec.group.clone(), self.host.run(spec, *restart))
            }
            Action::Amend { spec } => {
                if let Some(proc) = self.host.procs.get_mut(&spec.group) {
                    proc.spec.revision = spec.revision;
                    proc.spec.policy.clone_from(&spec.policy);
                }
                (spec.group.clone(), None)
            }
            Action::Reload { group, view, .. } => {
                self.totals.reloads += 1;
                self.host.reload(group, view);
                (group.clone(), None)
            }
            Action::MarkReady { group, incarnation } => {
                if let Some(proc) = self.host.procs.get_mut(group)
                    && proc.incarnation == *incarnation
                    && proc.state == ServiceState::Starting
                {
                    proc.state = ServiceState::Running;
                }
                (group.clone(), None)
            }
            Action::Stop { group } => (group.clone(), self.host.stop(group)),
            Action::Forget { group } => {
                if self.host.procs.get(group).is_some_and(|proc| proc.pid.is_none()) {
                    self.host.procs.remove(group);
                }
                (group.clone(), None)
            }
            Action::Restart { group } => (group.clone(), None),
            Action::List
            | Action::Examine { .. }
            | Action::Accept { .. }
            | Action::MarkApplied { .. }
            | Action::Stage { .. }
            | Action::Switch { .. }
            | Action::Verify { .. }
            | Action::Prune { .. }
            | Action::Withdraw { .. }
            | Action::Check { .. }
            | Action::Call(_)
            | Action::Owe { .. }
            | Action::Signal { .. } => return Outcome::Failed(Failure::new(Reason::StartFailed, "not for the keeper")),
        };
        self.schedule(later);
        self.tell(&group);
        Outcome::Asked
    }
}

fn passing() -> Refusal {
    Refusal { reason: Reason::GitOperationFailed, message: "the remote hangs".to_owned() }
}

/// The beginning of an action's debug text, without writing the rest.
fn brief(action: &Action) -> String {
    struct Head(String);
    impl Write for Head {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.push_str(text);
            if self.0.len() < 60 { Ok(()) } else { Err(std::fmt::Error) }
        }
    }
    let mut head = Head(String::new());
    let _ = write!(head, "{action:?}");
    head.0
}
