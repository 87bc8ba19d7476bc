//! What stands around the state table, in the simulated kernel: it makes processes, collects them, looks for leftovers, writes the
//! journal. It decides nothing itself: all decisions are the real ones, of `state.rs`, `leftovers.rs` and `journal.rs`.

use std::collections::{BTreeMap, VecDeque};

use super::kernel::{INIT, Kernel, Proc};
use super::random::Random;
use crate::keeper::journal::{self, Fault, Written};
use crate::keeper::leftovers::{self, Remains, Sight};
use crate::keeper::proc::{Fit, Marks, Stat};
use crate::keeper::services::{marks_without_process, variable};
use crate::keeper::state::notify::Word;
use crate::keeper::state::{Action, Context, Event, Service};
use crate::model::{Digest, Exit, GroupName, Moment, MountMode, Now, ServiceSpec, Signal, Timestamp};

/// Name of this boot.
pub(super) const BOOT: &str = "boot";

/// What outlives a keeper: its two files per service, and what services have sent.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) files: BTreeMap<GroupName, [Option<Vec<u8>>; 2]>,
    /// No space is left.
    pub(super) full: bool,
}

/// A service as this keeper holds it.
pub(super) struct Held {
    pub(super) service: Service,
    pub(super) process: Option<(u32, u64)>,
    /// It is watched, and not waited for as a child.
    foreign: bool,
    /// Its process has not told yet whether it has become the program.
    starting: bool,
    marks: Option<Marks>,
    was_foreign: Option<u64>,
    pub(super) unsaved: bool,
    /// What came to its socket.
    pub(super) letters: VecDeque<(u32, Vec<Word>)>,
}

impl Held {
    fn new(service: Service, marks: Option<Marks>) -> Self {
        let letters = VecDeque::new();
        Self { service, process: None, foreign: false, starting: false, marks, was_foreign: None, unsaved: true, letters }
    }
}

/// The keeper's memory, which is gone with it.
#[derive(Default)]
pub(super) struct Keeper {
    pub(super) services: BTreeMap<GroupName, Held>,
    children: BTreeMap<u32, GroupName>,
    written: BTreeMap<GroupName, Written>,
    done: BTreeMap<GroupName, Digest>,
}

/// The keeper at work.
pub(super) struct Shell<'a> {
    pub(super) keeper: &'a mut Keeper,
    pub(super) kernel: &'a mut Kernel,
    pub(super) disk: &'a mut Disk,
    pub(super) random: &'a mut Random,
    /// How a fresh process said that it did not become the program.
    pub(super) failures: &'a BTreeMap<u64, String>,
    /// Whether faults may still happen.
    pub(super) faulty: bool,
    /// Processes that were made.
    pub(super) born: Vec<(u32, u64)>,
}

impl Shell<'_> {
    fn context(&mut self) -> Context {
        let now = Now { moment: Moment(self.kernel.now), wall: Timestamp(self.kernel.now) };
        Context { now, roll: u32::try_from(self.random.below(1 << 32)).unwrap_or(0) }
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        self.faulty && self.random.below(1000) < per_mille
    }

    pub(super) fn feed(&mut self, group: &GroupName, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if !self.kernel.may_go_on() {
                return;
            }
            let context = self.context();
            let Some(held) = self.keeper.services.get_mut(group) else { return };
            if matches!(event, Event::SpawnFailed { .. }) || event == Event::Tick && held.service.spawning() {
                self.kernel.licences.insert(group.clone());
            }
            held.unsaved = true;
            for action in held.service.on(event, context) {
                events.extend(self.carry_out(group, action));
            }
        }
    }

    fn carry_out(&mut self, group: &GroupName, action: Action) -> Option<Event> {
        match action {
            Action::Spawn if self.kill_cgroup(group) => {
                Some(Event::InTheWay { why: "something of an earlier keeper's was still in its cgroup".to_owned() })
            }
            Action::Spawn => {
                self.save(group, true);
                self.kernel.may_go_on().then(|| match self.spawn(group) {
                    Ok(pid) => Event::Spawned { pid },
                    Err(why) => Event::SpawnFailed { why },
                })
            }
            Action::Signal(signal) => {
                let process = self.keeper.services.get(group).and_then(|held| held.process);
                if let Some((pid, started)) = process.filter(|_| self.kernel.may_go_on()) {
                    self.signal(pid, started, signal);
                }
                None
            }
            Action::Clear => (self.clear(group) && self.kernel.may_go_on()).then_some(Event::Cleared),
            Action::Show(view, _) => Some(Event::Shown { publication: view.publication, failed: None }),
        }
    }

    /// Through a descriptor of the very process.
    fn signal(&mut self, pid: u32, started: u64, signal: Signal) {
        let random = self.random.next();
        if self.kernel.stat(pid).is_some_and(|stat| stat.started == started) {
            self.kernel.signal(pid, signal, random);
        }
    }

    fn spawn(&mut self, group: &GroupName) -> Result<u32, String> {
        if self.chance(30) {
            return Err("no process can be made for it: EAGAIN".to_owned());
        }
        // The child may be faster than the keeper.
        let (reuse, locks) = (self.chance(500), self.chance(300) && self.kernel.holders(group).is_empty());
        let keeper = self.kernel.keeper;
        let pid = self.kernel.fork(keeper, reuse).ok_or("no number is free")?;
        let cgroups = self.kernel.cgroups;
        let Some(held) = self.keeper.services.get_mut(group) else { return Err("it is not known".to_owned()) };
        let Some(proc) = self.kernel.procs.get_mut(&pid) else { return Err("it is gone".to_owned()) };
        proc.of = Some((group.clone(), held.service.incarnation));
        (proc.main, proc.program, proc.grouped, proc.locks) = (true, false, cgroups, locks);
        proc.launch = Some(held.service.spec.launch.digest());
        self.kernel.licences.remove(group);
        self.born.push((pid, proc.started));
        let started = proc.started;
        if self.kernel.may_go_on() {
            self.keeper.children.insert(pid, group.clone());
            held.process = Some((pid, started));
            held.marks = Some(Marks { session: Some(pid), namespace: None, variable: variable(group) });
            (held.was_foreign, held.foreign, held.starting) = (None, false, true);
            held.letters.clear();
        }
        Ok(pid)
    }

    fn clear(&mut self, group: &GroupName) -> bool {
        let moment = Moment(self.kernel.now);
        let Some(held) = self.keeper.services.get(group) else { return true };
        let Some(marks) = held.marks.clone() else { return held.process.is_none() };
        let remains = Remains {
            group: group.clone(),
            marks,
            main: held.process.map(|(pid, _)| pid),
            was_foreign: held.was_foreign,
            patient: held.service.just_clearing(moment),
        };
        leftovers::clear(self, &remains)
    }

    /// A process has said whether it became the program, or has ended: then it had.
    fn read_status(&mut self, group: &GroupName) {
        let Some(held) = self.keeper.services.get_mut(group).filter(|held| held.starting) else { return };
        let Some((pid, started)) = held.process else { return };
        let proc = self.kernel.procs.get(&pid).filter(|proc| proc.started == started);
        let failed = self.failures.get(&started).cloned();
        if failed.is_none() && proc.is_some_and(|proc| !proc.program && proc.lives()) {
            return;
        }
        held.starting = false;
        let event = match failed {
            Some(why) => Event::SpawnFailed { why },
            None => Event::Started { mode: MountMode::Symlink, publication: None, notes: String::new() },
        };
        self.feed(group, event);
    }

    fn read_letters(&mut self, group: &GroupName) {
        self.read_status(group);
        while let Some((sender, words)) =
            self.keeper.services.get_mut(group).filter(|held| held.process.is_some()).and_then(|held| held.letters.pop_front())
        {
            if !self.kernel.may_go_on() {
                return;
            }
            let words = words.into_iter().filter(|word| word.main_pid().is_none_or(|pid| self.take_main(group, pid)));
            let words: Vec<Word> = words.collect();
            // Who belongs to it is tried with real processes; strangers are none of these here.
            if self.kernel.procs.get(&sender).is_none_or(|proc| proc.is_of(group)) {
                self.feed(group, Event::Told(words));
            }
        }
    }

    fn take_main(&mut self, group: &GroupName, pid: u32) -> bool {
        let Some(proc) = self.kernel.procs.get_mut(&pid).filter(|proc| proc.lives() && proc.is_of(group)) else { return false };
        let Some(held) = self.keeper.services.get_mut(group) else { return false };
        let Some((main, _)) = held.process.filter(|(main, _)| *main != pid) else { return false };
        proc.main = true;
        (held.process, held.foreign) = (Some((pid, proc.started)), true);
        if let Some(old) = self.kernel.procs.get_mut(&main) {
            old.main = false;
        }
        self.keeper.children.remove(&main);
        self.keeper.children.insert(pid, group.clone());
        self.kernel.renamed.insert(group.clone(), (pid, main));
        true
    }

    fn reap(&mut self) {
        loop {
            let keeper = self.kernel.keeper;
            let ended = self.kernel.procs.iter().find(|(_, proc)| proc.parent == keeper && !proc.lives());
            let Some((pid, exit)) = ended.and_then(|(pid, proc)| Some((*pid, proc.ended?))) else { break };
            if let Some(group) = self.keeper.children.get(&pid).cloned() {
                self.read_letters(&group);
            }
            let owner = self.keeper.children.remove(&pid);
            let random = self.random.next();
            if owner.is_some() && self.kernel.may_go_on() {
                self.kernel.kill_where(random, |proc| proc.group == pid && proc.lives());
            }
            if !self.kernel.may_go_on() {
                return;
            }
            self.kernel.reap(pid);
            if let Some(group) = owner {
                self.ended(&group, exit);
            }
        }
        let clearing = |(group, held): (&GroupName, &Held)| held.service.clearing().then(|| group.clone());
        let groups: Vec<GroupName> = self.keeper.services.iter().filter_map(clearing).collect();
        for group in groups {
            if self.clear(&group) {
                self.feed(&group, Event::Cleared);
            }
        }
    }

    fn ended(&mut self, group: &GroupName, exit: Exit) {
        self.read_status(group);
        if let Some(held) = self.keeper.services.get_mut(group) {
            (held.process, held.foreign, held.starting) = (None, false, false);
        }
        self.feed(group, Event::Exited(exit));
    }

    /// Main processes that are watched only have ended.
    fn foreign_ended(&mut self, group: &GroupName) {
        let process = |shell: &Self| shell.keeper.services.get(group).filter(|held| held.foreign).and_then(|held| held.process);
        let Some((pid, started)) = process(self) else { return };
        if self.kernel.stat(pid).is_some_and(|stat| stat.started == started && !stat.zombie) {
            return;
        }
        if self.keeper.children.get(&pid) == Some(group) {
            self.reap();
            if process(self) != Some((pid, started)) || !self.keeper.children.contains_key(&pid) {
                return;
            }
            self.keeper.children.remove(&pid);
        }
        let exit = self.kernel.exits.get(&(pid, started)).copied().filter(|_| !self.chance(300));
        self.ended(group, exit.unwrap_or(Exit::Unknown));
    }

    /// One turn of the loop.
    pub(super) fn turn(&mut self, requests: Vec<(GroupName, Event)>) {
        self.reap();
        let groups: Vec<GroupName> = self.keeper.services.keys().cloned().collect();
        for group in &groups {
            self.read_status(group);
            self.read_letters(group);
            self.foreign_ended(group);
        }
        for (group, event) in requests {
            self.request(&group, event);
        }
        let moment = Moment(self.kernel.now);
        let due = |held: &Held| held.service.deadline().is_some_and(|deadline| deadline <= moment);
        let due: Vec<GroupName> =
            self.keeper.services.iter().filter(|(_, held)| due(held)).map(|(group, _)| group.clone()).collect();
        for group in due {
            self.read_letters(&group);
            self.feed(&group, Event::Tick);
        }
        self.save_all();
    }

    pub(super) fn save_all(&mut self) {
        let groups: Vec<GroupName> =
            self.keeper.services.iter().filter(|(_, held)| held.unsaved).map(|(group, _)| group.clone()).collect();
        for group in groups {
            self.save(&group, false);
        }
    }

    /// Writes a service down; of an intent, no process is known.
    fn save(&mut self, group: &GroupName, intent: bool) {
        if !self.kernel.may_go_on() || self.disk.full {
            return;
        }
        let Some(held) = self.keeper.services.get_mut(group) else { return };
        let last = self.keeper.written.get(group).copied();
        let started = held.process.filter(|_| !intent).map(|(_, started)| started);
        if let Some((bytes, written)) = journal::compose(last, &held.service, started, BOOT) {
            self.disk.files.entry(group.clone()).or_default()[written.slot] = Some(bytes);
            self.keeper.written.insert(group.clone(), written);
        }
        self.kernel.renamed.remove(group);
        held.unsaved &= intent;
    }

    fn request(&mut self, group: &GroupName, event: Event) {
        let now = self.now();
        if let Event::Run(spec) = &event
            && !self.keeper.services.contains_key(group)
        {
            let held = self.find_by_lock(spec, 0);
            let held = held.unwrap_or_else(|| {
                let service = Service::new((**spec).clone(), self.keeper.done.remove(group), 0, now);
                Held::new(service, Some(marks_without_process(group)))
            });
            self.keeper.services.insert(group.clone(), held);
        }
        let Some(held) = self.keeper.services.get(group) else { return };
        let other = matches!(&event, Event::Run(spec) if spec.launch.digest() != held.service.report(self.now()).launch);
        if other || matches!(event, Event::Stop | Event::Kill | Event::Restart) {
            self.kernel.licences.insert(group.clone());
        }
        self.feed(group, event);
    }

    pub(super) fn now(&self) -> Now {
        Now { moment: Moment(self.kernel.now), wall: Timestamp(self.kernel.now) }
    }

    fn find_by_lock(&mut self, spec: &ServiceSpec, incarnation: u64) -> Option<Held> {
        let holders = self.kernel.holders(&spec.group);
        let (pid, started) = holders.iter().find_map(|(pid, started)| self.find(&spec.group, *pid, *started))?;
        let pids: Vec<u32> = holders.iter().map(|(pid, _)| *pid).collect();
        let service = Service::foreign(spec.clone(), &pids, spec.launch.digest(), incarnation, self.now());
        Some(self.adopted(service, pid, started))
    }

    fn adopted(&self, service: Service, pid: u32, started: u64) -> Held {
        let foreign = !self.keeper.children.contains_key(&pid);
        let marks = Marks { session: Some(pid), namespace: None, variable: variable(&service.spec.group) };
        let was_foreign = foreign.then_some(started);
        Held { process: Some((pid, started)), foreign, was_foreign, ..Held::new(service, Some(marks)) }
    }

    fn find(&mut self, group: &GroupName, pid: u32, started: u64) -> Option<(u32, u64)> {
        let stat = self.kernel.stat(pid).filter(|stat| stat.started == started)?;
        if stat.parent == self.kernel.keeper {
            self.keeper.children.insert(pid, group.clone());
        }
        Some((pid, started))
    }

    /// Takes over what an earlier keeper has left.
    pub(super) fn adopt_all(&mut self) {
        for (group, files) in self.disk.files.clone() {
            let slots = files.map(|file| file.as_deref().map_or(Err(Fault::Missing), journal::parse));
            let Ok(Some((saved, written))) = journal::newest(slots) else { continue };
            self.keeper.written.insert(group.clone(), written);
            if saved.goes_on(BOOT) {
                self.adopt(&group, saved);
                continue;
            }
            match saved.service.done {
                Some(revision) => drop(self.keeper.done.insert(group, revision)),
                None => self.forget(&group),
            }
        }
        self.reap();
    }

    fn adopt(&mut self, group: &GroupName, saved: journal::Saved) {
        let journal::Saved { started, mut service, .. } = saved;
        let context = self.context();
        let process = match service.pid().zip(started) {
            Some((pid, started)) => self.find(group, pid, started),
            None if service.may_have_forked() => {
                let knows = |proc: &Proc| proc.lives() && proc.is_of(group) && (proc.grouped || proc.locks);
                let known = self.kernel.procs.iter().filter(|(pid, proc)| knows(proc) && proc.session == **pid);
                known.map(|(pid, proc)| (*pid, proc.started)).min_by_key(|(_, started)| *started)
            }
            None => None,
        };
        if process.is_none()
            && service.expects_nobody()
            && let Some(held) = self.find_by_lock(&service.spec, service.incarnation)
        {
            self.keeper.services.insert(group.clone(), held);
            return;
        }
        let Some((pid, started)) = process else {
            let follows = service.take_up(None, context);
            self.keeper.services.insert(group.clone(), Held::new(service, Some(marks_without_process(group))));
            if let Some(event) = follows {
                self.feed(group, event);
            }
            return;
        };
        assert_eq!(service.take_up(Some((pid, MountMode::Symlink)), context), None);
        service.heard_again(context.now.moment);
        let held = self.adopted(service, pid, started);
        self.keeper.services.insert(group.clone(), held);
    }

    pub(super) fn forget(&mut self, group: &GroupName) {
        self.keeper.services.remove(group);
        self.keeper.written.remove(group);
        self.disk.files.remove(group);
    }
}

impl Sight for Shell<'_> {
    fn kill_cgroup(&mut self, group: &GroupName) -> bool {
        let random = self.random.next();
        self.kernel.cgroups
            && self.kernel.may_go_on()
            && self.kernel.kill_where(random, |proc| proc.grouped && proc.lives() && proc.is_of(group))
    }

    fn kill_main(&mut self, group: &GroupName) {
        let Some(held) = self.keeper.services.get(group) else { return };
        let (Some((pid, started)), foreign) = (held.process, held.foreign) else { return };
        if !self.kernel.may_go_on() {
            return;
        }
        self.signal(pid, started, Signal::KILL);
        if !foreign {
            let random = self.random.next();
            self.kernel.kill_where(random, |proc| proc.group == pid && proc.lives());
        }
    }

    fn stat(&self, pid: u32) -> Option<Stat> {
        self.kernel.stat(pid)
    }

    fn family(&self, pid: u32) -> Vec<(u32, u64)> {
        let mut found: Vec<u32> = vec![pid];
        let mut at = 0;
        while let Some(parent) = found.get(at).copied() {
            found.extend(self.kernel.children(parent));
            at += 1;
        }
        found.into_iter().filter_map(|pid| Some((pid, self.kernel.stat(pid)?.started))).collect()
    }

    fn is_own(&self, pid: u32) -> bool {
        self.keeper.children.contains_key(&pid)
    }

    fn orphans(&mut self) -> Vec<u32> {
        self.kernel.children(self.kernel.keeper).into_iter().filter(|pid| !self.is_own(*pid)).collect()
    }

    fn fit(&self, pid: u32, marks: &Marks) -> Fit {
        let Some(proc) = self.kernel.procs.get(&pid) else { return Fit::No };
        let in_session = marks.session.is_some_and(|session| proc.session == session || proc.group == session);
        let marked = |proc: &Proc| proc.of.as_ref().is_some_and(|(group, _)| proc.marked && variable(group) == marks.variable);
        if in_session || marked(proc) { Fit::Yes } else { Fit::No }
    }

    fn session(&mut self, session: u32) -> Vec<(u32, u64)> {
        let members = self.kernel.procs.iter().filter(|(_, proc)| proc.session == session && proc.lives());
        let found: Vec<_> = members.map(|(pid, proc)| (*pid, proc.started)).collect();
        // It takes a moment until the keeper makes use of what it has seen.
        if self.chance(100)
            && let Some((pid, _)) = found.first()
            && self.kernel.procs.get(pid).is_none_or(|proc| proc.waits_until <= self.kernel.now)
        {
            self.kernel.exit(*pid, Exit::Code(0));
            self.kernel.fork(INIT, true);
        }
        found
    }

    fn kill(&mut self, pid: u32, started: u64) {
        if self.kernel.may_go_on() {
            self.signal(pid, started, Signal::KILL);
        }
    }

    fn is_locked(&self, group: &GroupName) -> bool {
        !self.kernel.holders(group).is_empty()
    }

    fn holders(&self, group: &GroupName) -> Vec<(u32, u64)> {
        self.kernel.holders(group)
    }
}
