//! The heap of events around the simulated kernel: what services do, what happens to the keeper, what a supervisor asks for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt::Write as _;

use super::asks::{request_words, spec};
use super::kernel::{INIT, Kernel, Proc};
use super::life::Deed;
use super::random::Random;
use super::shell::{Disk, Keeper, Shell};
use crate::keeper::state::{Event, Phase};
use crate::model::{Exit, GroupName, ServiceSpec, ServiceState, Signal};

/// Faults happen until then.
pub(super) const HEAL_AT_MS: u64 = 40_000;

/// Progress is demanded until then.
const DEADLINE_MS: u64 = HEAL_AT_MS + 240_000;

/// How long a service may be silent that has a watchdog.
pub(super) const WATCHDOG_MS: u64 = 2_000;

/// More events than any healthy run has.
const EVENTS_MAX: u64 = 200_000;

/// What a run exercised.
#[derive(Debug, Default, Clone)]
pub(super) struct Totals {
    pub(super) deaths: u64,
    pub(super) exchanges: u64,
    pub(super) adopted: u64,
    pub(super) starts: u64,
    pub(super) stuck: u64,
    pub(super) unknown: u64,
    pub(super) damaged: u64,
    pub(super) silent: u64,
    pub(super) renamed: u64,
    pub(super) events: u64,
}

impl Totals {
    pub(super) fn add(&mut self, other: &Self) {
        self.deaths += other.deaths;
        self.exchanges += other.exchanges;
        self.adopted += other.adopted;
        self.starts += other.starts;
        self.stuck += other.stuck;
        self.unknown += other.unknown;
        self.damaged += other.damaged;
        self.silent += other.silent;
        self.renamed += other.renamed;
        self.events += other.events;
    }
}

/// What happens next.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    Turn,
    Boot,
    Death { fuse: Option<u64> },
    Exchange { tries: u32 },
    Stall,
    Jump,
    DiskFull,
    DiskFree,
    SupervisorGoes,
    SupervisorComes,
    Sync,
    Operator,
    Stranger,
    Lock { pid: u32, started: u64 },
    Exec { pid: u32, started: u64 },
    Deed { pid: u32, started: u64, deed: Deed },
    Dies { pid: u32, started: u64, exit: Exit },
}

/// Makes a fault.
type Fault = fn(&mut Random) -> Happening;

/// Everything.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) kernel: Kernel,
    pub(super) keeper: Keeper,
    pub(super) disk: Disk,
    pub(super) failures: BTreeMap<u64, String>,
    pub(super) wanted: BTreeMap<GroupName, Option<ServiceSpec>>,
    pub(super) totals: Totals,
    pub(super) trace: String,
    pub(super) print: bool,
    /// Services whose records were damaged or could not be written, ever.
    pub(super) hurt: BTreeSet<GroupName>,
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    order: u64,
    /// How far the keeper's clock is ahead of the heap's.
    skew: u64,
    stalled_until: u64,
    booting: bool,
    pub(super) supervisor: bool,
    /// Asked, and not yet heard; `None` asks to forget it.
    pub(super) requests: Vec<(GroupName, Option<Event>)>,
    turn_at: Option<u64>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let cgroups = random.chance(50);
        let groups: Vec<GroupName> = ["web", "db", "cron"].iter().filter_map(|name| name.parse().ok()).collect();
        let count = 1 + random.below(3) as usize;
        let mut world = Self {
            seed,
            kernel: Kernel { cgroups, ..Kernel::default() },
            keeper: Keeper::default(),
            disk: Disk::default(),
            failures: BTreeMap::new(),
            wanted: BTreeMap::new(),
            totals: Totals::default(),
            trace: String::new(),
            print: false,
            hurt: BTreeSet::new(),
            heap: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            order: 0,
            skew: 0,
            stalled_until: 0,
            booting: true,
            supervisor: true,
            requests: Vec::new(),
            turn_at: None,
            random,
        };
        for group in groups.into_iter().take(count) {
            let (program, revision) = (world.random.below(100), world.random.next());
            let spec = spec(&mut world.random, &group, program, revision);
            world.wanted.insert(group, Some(spec));
        }
        world.schedule_faults();
        world.at(0, Happening::Boot);
        world.at(1, Happening::Sync);
        world
    }

    fn schedule_faults(&mut self) {
        let kinds: [(u64, Fault); 10] = [
            (4, |_| Happening::Death { fuse: None }),
            (6, |random| Happening::Death { fuse: Some(1 + random.below(30)) }),
            (3, |_| Happening::Exchange { tries: 0 }),
            (2, |_| Happening::Stall),
            (1, |_| Happening::Jump),
            (1, |_| Happening::DiskFull),
            (2, |_| Happening::SupervisorGoes),
            (8, |_| Happening::Operator),
            (10, |_| Happening::Stranger),
            (1, |_| Happening::Sync),
        ];
        for (most, make) in kinds {
            for _ in 0..self.random.below(most + 1) {
                let happening = make(&mut self.random);
                let at = self.random.below(HEAL_AT_MS);
                self.at(at, happening);
            }
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.kernel.now
    }

    /// Whether faults may still happen.
    pub(super) fn faulty(&self) -> bool {
        self.now() < HEAL_AT_MS + self.skew
    }

    /// At this time of the heap's clock.
    fn at(&mut self, at: u64, happening: Happening) {
        self.order += 1;
        self.heap.push(Reverse((at, self.order)));
        self.happenings.insert(self.order, happening);
    }

    /// So many milliseconds from now.
    pub(super) fn after(&mut self, ms: u64, happening: Happening) {
        self.at(self.now() - self.skew + ms, happening);
    }

    pub(super) fn say(&mut self, line: std::fmt::Arguments<'_>) {
        let now = self.now();
        let _ = writeln!(self.trace, "{now:>7} {line}");
        if self.print {
            eprintln!("{now:>7} {line}");
        }
    }

    pub(super) fn run(&mut self) {
        while let Some(Reverse((at, order))) = self.heap.pop() {
            let Some(happening) = self.happenings.remove(&order) else { continue };
            self.kernel.now = at + self.skew;
            self.totals.events += 1;
            assert!(self.totals.events < EVENTS_MAX, "seed {}: it spins", self.seed);
            let idle = matches!(happening, Happening::Turn | Happening::Sync) && self.requests.is_empty();
            self.happen(happening);
            self.settle(!idle || !self.requests.is_empty());
            self.check();
            if at > HEAL_AT_MS && self.is_done() {
                return;
            }
            if at > DEADLINE_MS {
                self.complain();
            }
        }
        self.complain();
    }

    fn happen(&mut self, happening: Happening) {
        if !matches!(happening, Happening::Turn | Happening::Sync) {
            self.say(format_args!("{happening:?}"));
        }
        match happening {
            Happening::Turn => self.turn(),
            Happening::Boot => self.boot(),
            Happening::Death { fuse: None } => self.kernel.exit(self.kernel.keeper, Exit::Signal(Signal::KILL)),
            Happening::Death { fuse } => self.kernel.fuse = fuse,
            Happening::Exchange { tries } => self.exchange(tries),
            Happening::Stall => self.stalled_until = self.now() + 1 + self.random.below(20_000),
            Happening::Jump => self.jump(),
            Happening::DiskFull => {
                self.disk.full = true;
                let ms = self.random.below(3_000);
                self.after(ms, Happening::DiskFree);
            }
            Happening::DiskFree => self.disk.full = false,
            Happening::SupervisorGoes => {
                self.supervisor = false;
                self.requests.clear();
                let ms = self.random.below(5_000);
                self.after(ms, Happening::SupervisorComes);
            }
            Happening::SupervisorComes => {
                self.supervisor = true;
                self.say_all_again();
            }
            Happening::Sync => self.sync(),
            Happening::Operator => self.operate(),
            Happening::Stranger => self.stranger(),
            Happening::Lock { pid, started } => self.lock(pid, started),
            Happening::Exec { pid, started } => self.exec(pid, started),
            Happening::Deed { pid, started, deed } => self.do_deed(pid, started, deed),
            Happening::Dies { pid, started, exit } => {
                if self.proc(pid, started).is_some() {
                    self.kernel.exit(pid, exit);
                }
            }
        }
    }

    /// A live process, if it is still the same.
    pub(super) fn proc(&mut self, pid: u32, started: u64) -> Option<&mut Proc> {
        self.kernel.procs.get_mut(&pid).filter(|proc| proc.started == started && proc.lives())
    }

    /// What follows from anything: deaths that are due, a keeper that is gone, a keeper that wakes up.
    fn settle(&mut self, woken: bool) {
        for (at, pid, started, exit) in std::mem::take(&mut self.kernel.dying) {
            let ms = at.saturating_sub(self.now());
            self.after(ms, Happening::Dies { pid, started, exit });
        }
        if !self.kernel.keeper_lives() {
            if !self.booting {
                self.mourn();
            }
            return;
        }
        let soon = self.now() + self.random.below(4);
        let due = self.keeper.services.values().filter_map(|held| held.service.deadline()).map(|deadline| deadline.0);
        let Some(at) = due.chain(woken.then_some(soon)).min() else { return };
        let at = at.max(self.stalled_until).max(self.now());
        if self.turn_at.is_none_or(|known| at < known) {
            self.turn_at = Some(at);
            self.after(at - self.now(), Happening::Turn);
        }
    }

    /// The keeper is gone, with all that it had in memory.
    fn mourn(&mut self) {
        self.totals.deaths += 1;
        self.say(format_args!("the keeper is dead"));
        // What could not be written down is not known to the next one.
        let full = self.disk.full;
        let unknown = self.keeper.services.iter().filter(|(group, held)| held.unsaved && (full || self.hurt.contains(*group)));
        self.kernel.licences.extend(unknown.map(|(group, _)| group.clone()));
        self.keeper = Keeper::default();
        // Its number is anybody's now.
        self.kernel.keeper = 0;
        self.requests.clear();
        for (group, (new, old)) in std::mem::take(&mut self.kernel.renamed) {
            for (pid, main) in [(new, false), (old, true)] {
                if let Some(proc) = self.kernel.procs.get_mut(&pid).filter(|proc| proc.is_of(&group)) {
                    proc.main = main;
                }
            }
            self.kernel.licences.insert(group);
        }
        (self.booting, self.turn_at, self.kernel.fuse, self.stalled_until) = (true, None, None, 0);
        // A copy of the keeper that is not a service yet, and does not hold its lock, dies with it.
        let copies = self.kernel.procs.iter().filter(|(_, proc)| proc.main && !proc.program && !proc.locks);
        for pid in copies.map(|(pid, _)| *pid).collect::<Vec<_>>() {
            self.kernel.exit(pid, Exit::Signal(Signal::KILL));
        }
        if self.faulty() && self.random.chance(15) {
            self.damage();
        }
        let ms = self.random.below(400);
        self.after(ms, Happening::Boot);
    }

    /// One of a service's records is damaged, or both.
    fn damage(&mut self) {
        let groups: Vec<GroupName> = self.disk.files.keys().cloned().collect();
        if groups.is_empty() {
            return;
        }
        let group = groups[self.random.below(groups.len() as u64) as usize].clone();
        let both = self.random.chance(30);
        let only = self.random.below(2) as usize;
        let how = self.random.below(3);
        self.totals.damaged += 1;
        self.say(format_args!("records of {group}: both {both}, {only}, {how}"));
        let Some(files) = self.disk.files.get_mut(&group) else { return };
        for (slot, bytes) in files.iter_mut().enumerate().filter_map(|(slot, file)| Some((slot, file.as_mut()?))) {
            if both || slot == only {
                match how {
                    0 => bytes.truncate(bytes.len() / 2),
                    1 => bytes.fill(0),
                    _ => bytes[40] ^= 4,
                }
            }
        }
        self.hurt.insert(group.clone());
        self.kernel.licences.insert(group);
    }

    fn new_shell(&mut self) -> Shell<'_> {
        let faulty = self.faulty();
        Shell {
            keeper: &mut self.keeper,
            kernel: &mut self.kernel,
            disk: &mut self.disk,
            random: &mut self.random,
            failures: &self.failures,
            faulty,
            born: Vec::new(),
        }
    }

    /// Lets the keeper do something; what it has started goes its way.
    pub(super) fn keeper_does(&mut self, what: impl FnOnce(&mut Shell<'_>)) {
        let mut shell = self.new_shell();
        what(&mut shell);
        let born = std::mem::take(&mut shell.born);
        for (pid, started) in born {
            self.totals.starts += 1;
            let ms = 1 + self.random.below(3);
            self.after(ms, Happening::Lock { pid, started });
        }
    }

    fn boot(&mut self) {
        self.booting = false;
        if let Some(pid) = self.kernel.fork(INIT, false) {
            self.kernel.keeper = pid;
        }
        self.take_over();
        self.say_all_again();
    }

    fn take_over(&mut self) {
        self.keeper_does(|shell| {
            shell.adopt_all();
            shell.save_all();
        });
        let alive = self.keeper.services.values().filter(|held| held.service.pid().is_some()).count();
        self.totals.adopted += alive as u64;
    }

    fn exchange(&mut self, tries: u32) {
        if !self.kernel.keeper_lives() || self.disk.full || self.now() < self.stalled_until {
            return;
        }
        // For starts under way it waits, and not for ever.
        if tries < 50 && self.keeper.services.values().any(|held| held.service.spawning()) {
            self.after(100, Happening::Exchange { tries: tries + 1 });
            return;
        }
        self.totals.exchanges += 1;
        self.requests.clear();
        self.keeper_does(|shell| shell.save_all());
        if !self.kernel.keeper_lives() {
            return;
        }
        let before = std::mem::take(&mut self.keeper);
        self.take_over();
        for (group, old) in before.services {
            if let Some(new) = self.keeper.services.get_mut(&group) {
                new.letters = old.letters;
            }
        }
        self.say_all_again();
    }

    fn turn(&mut self) {
        self.turn_at = None;
        if !self.kernel.keeper_lives() || self.now() < self.stalled_until {
            return;
        }
        if self.disk.full {
            self.hurt.extend(self.wanted.keys().cloned());
            self.kernel.licences.extend(self.wanted.keys().cloned());
        }
        self.license_silence();
        let mut requests = Vec::new();
        for (group, event) in std::mem::take(&mut self.requests) {
            self.say(format_args!("{group}: {}", event.as_ref().map_or("forget", request_words)));
            match event {
                Some(event) => requests.push((group, event)),
                None if self.keeper.services.get(&group).is_some_and(|held| held.service.at_rest()) => {
                    self.keeper_does(|shell| shell.forget(&group));
                }
                None => {}
            }
        }
        let before = self.states();
        self.keeper_does(|shell| shell.turn(requests));
        for (group, state) in self.states() {
            if before.get(&group) != Some(&state) {
                self.totals.stuck += u64::from(state.0 == ServiceState::Stuck);
                self.totals.unknown += u64::from(state.0 == ServiceState::Unknown);
                self.say(format_args!("{group} {:?} {:?}", state.0, state.1));
            }
        }
    }

    fn states(&self) -> BTreeMap<GroupName, (ServiceState, Option<u32>)> {
        let state = |held: &super::shell::Held| (held.service.state(), held.service.pid());
        self.keeper.services.iter().map(|(group, held)| (group.clone(), state(held))).collect()
    }

    /// One that really has been silent may be ended for it.
    fn license_silence(&mut self) {
        let now = self.now();
        let silent = |proc: &Proc| proc.main && proc.program && now.saturating_sub(proc.heard) >= WATCHDOG_MS;
        let groups: Vec<GroupName> =
            self.kernel.procs.values().filter(|proc| silent(proc)).filter_map(|proc| Some(proc.of.clone()?.0)).collect();
        for group in groups {
            let held = self.keeper.services.get(&group);
            let due = held.and_then(|held| held.service.deadline()).is_some_and(|deadline| deadline.0 <= now);
            if due && held.is_some_and(|held| matches!(held.service.phase, Phase::Up { .. })) {
                self.totals.silent += 1;
                self.kernel.licences.insert(group);
            }
        }
    }

    /// All stand still for a while, but for the clock.
    fn jump(&mut self) {
        let ms = 3_000 + self.random.below(100_000);
        self.skew += ms;
        self.kernel.now += ms;
        for proc in self.kernel.procs.values_mut() {
            proc.heard += ms;
            proc.waits_until += if proc.waits_until > 0 { ms } else { 0 };
        }
        if self.stalled_until > 0 {
            self.stalled_until += ms;
        }
        self.turn_at = None;
    }

    fn stranger(&mut self) {
        if let Some(pid) = self.kernel.fork(INIT, true) {
            let started = self.kernel.stat(pid).map_or(0, |stat| stat.started);
            let ms = self.random.below(30_000);
            self.after(ms, Happening::Dies { pid, started, exit: Exit::Code(0) });
        }
    }
}
