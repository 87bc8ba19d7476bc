//! The simulated kernel: which processes there really are. It knows nothing of what the keeper believes, and complains where a
//! signal goes to somebody whom it must not reach.

use std::collections::{BTreeMap, BTreeSet};

use crate::keeper::proc::Stat;
use crate::model::{Digest, Exit, GroupName, Signal};

/// The parent of all who have lost theirs.
pub(super) const INIT: u32 = 1;

/// Numbers of processes: few, so that they are given away again soon.
const PIDS: std::ops::Range<u32> = 100..180;

/// Longest time that it takes to die of SIGKILL, in milliseconds.
const DYING_MAX_MS: u64 = 4;

/// A process as it really is.
#[derive(Debug, Clone)]
pub(super) struct Proc {
    pub(super) parent: u32,
    pub(super) session: u32,
    pub(super) group: u32,
    pub(super) started: u64,
    /// It has ended, and waits to be waited for.
    pub(super) ended: Option<Exit>,
    /// Of which service, and which start of it; a stranger is of none.
    pub(super) of: Option<(GroupName, u64)>,
    /// It is what was started, or what the service has named instead.
    pub(super) main: bool,
    /// It is the program, not a copy of the keeper any more.
    pub(super) program: bool,
    pub(super) launch: Option<Digest>,
    /// It bears the service's variable.
    pub(super) marked: bool,
    pub(super) grouped: bool,
    pub(super) locks: bool,
    /// It ends by no signal that can be ignored.
    pub(super) deaf: bool,
    /// It does not even die before then.
    pub(super) waits_until: u64,
    pub(super) killed: bool,
    /// When it last said that it lives.
    pub(super) heard: u64,
}

impl Proc {
    pub(super) fn lives(&self) -> bool {
        self.ended.is_none()
    }

    pub(super) fn is_of(&self, group: &GroupName) -> bool {
        self.of.as_ref().is_some_and(|(of, _)| of == group)
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Kernel {
    pub(super) procs: BTreeMap<u32, Proc>,
    pub(super) now: u64,
    /// Whether there are cgroups.
    pub(super) cgroups: bool,
    pub(super) keeper: u32,
    /// Operations of the keeper until it is killed.
    pub(super) fuse: Option<u64>,
    /// Services whose main process may be ended by the keeper.
    pub(super) licences: BTreeSet<GroupName>,
    /// Services that have named another main process, which and instead of which, of which nothing is written down yet: a
    /// keeper that dies now takes that with it.
    pub(super) renamed: BTreeMap<GroupName, (u32, u32)>,
    /// Who ends when, by a signal.
    pub(super) dying: Vec<(u64, u32, u64, Exit)>,
    /// How those ended who are gone altogether.
    pub(super) exits: BTreeMap<(u32, u64), Exit>,
    pub(super) wrongs: Vec<String>,
    pub(super) last_pid: u32,
    pub(super) freed: Option<u32>,
    pub(super) births: u64,
}

impl Kernel {
    /// Whether the keeper lives. It may be killed between any two things that it does.
    pub(super) fn keeper_lives(&self) -> bool {
        self.procs.get(&self.keeper).is_some_and(Proc::lives)
    }

    /// The keeper is about to do something; `false`: it does not come to it.
    pub(super) fn may_go_on(&mut self) -> bool {
        if let Some(left) = &mut self.fuse {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.fuse = None;
                self.exit(self.keeper, Exit::Signal(Signal::KILL));
            }
        }
        self.keeper_lives()
    }

    fn is_free(&self, pid: u32) -> bool {
        self.procs.iter().all(|(other, proc)| *other != pid && proc.session != pid && proc.group != pid)
    }

    /// A new process, as a copy of its parent. With `reuse`, it gets the number that was given back last, where it can.
    pub(super) fn fork(&mut self, parent: u32, reuse: bool) -> Option<u32> {
        let freed = self.freed.filter(|pid| reuse && self.is_free(*pid));
        let next = || (self.last_pid + 1..PIDS.end).chain(PIDS).find(|pid| PIDS.contains(pid) && self.is_free(*pid));
        let pid = freed.or_else(next)?;
        if freed.is_none() {
            self.last_pid = pid;
        }
        self.births += 1;
        let copy = self.procs.get(&parent).cloned();
        let fresh = Proc {
            parent,
            session: pid,
            group: pid,
            started: self.births,
            ended: None,
            of: None,
            main: false,
            program: true,
            launch: None,
            marked: false,
            grouped: false,
            locks: false,
            deaf: false,
            waits_until: 0,
            killed: false,
            heard: 0,
        };
        let proc = match copy {
            Some(copy) if copy.of.is_some() => Proc { parent, started: self.births, main: false, killed: false, ..copy },
            Some(_) | None => fresh,
        };
        self.procs.insert(pid, proc);
        Some(pid)
    }

    /// A process ends. Whoever it leaves behind goes to the keeper, where that is above it, else to init.
    pub(super) fn exit(&mut self, pid: u32, exit: Exit) {
        let Some(proc) = self.procs.get_mut(&pid).filter(|proc| proc.lives()) else { return };
        proc.ended = Some(exit);
        proc.locks = false;
        let (parent, started) = (proc.parent, proc.started);
        self.exits.insert((pid, started), exit);
        let mut above = parent;
        while above != self.keeper && above != INIT {
            above = self.procs.get(&above).map_or(INIT, |proc| proc.parent);
        }
        let heir = if above == self.keeper && pid != self.keeper && self.keeper_lives() { self.keeper } else { INIT };
        let orphans: Vec<u32> = self.procs.iter().filter(|(_, proc)| proc.parent == pid).map(|(pid, _)| *pid).collect();
        for orphan in orphans {
            if let Some(proc) = self.procs.get_mut(&orphan) {
                proc.parent = heir;
            }
            if heir == INIT && self.procs.get(&orphan).is_some_and(|proc| !proc.lives()) {
                self.reap(orphan);
            }
        }
        // Only the keeper is in no hurry.
        if parent != self.keeper || !self.keeper_lives() {
            self.reap(pid);
        }
    }

    /// Somebody has waited for it: its number is free.
    pub(super) fn reap(&mut self, pid: u32) {
        self.procs.remove(&pid);
        self.freed = Some(pid);
    }

    /// A signal of the keeper's. `random` decides how long it takes.
    pub(super) fn signal(&mut self, pid: u32, signal: Signal, random: u64) {
        let now = self.now;
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        let Some((group, _)) = proc.of.clone() else {
            self.wrongs.push(format!("{signal} went to process {pid}, a stranger"));
            return;
        };
        if !proc.lives() {
            return;
        }
        if proc.main && proc.program && !proc.killed && !self.licences.contains(&group) {
            self.wrongs.push(format!("{signal} went to the main process {pid} of `{group}` without a reason"));
        }
        if signal != Signal::KILL && (proc.deaf || !proc.program) {
            return;
        }
        if signal == Signal::KILL && std::mem::replace(&mut proc.killed, true) {
            return;
        }
        let at = (now + random % DYING_MAX_MS).max(proc.waits_until);
        self.dying.push((at, pid, proc.started, Exit::Signal(signal)));
    }

    pub(super) fn kill_where(&mut self, random: u64, wanted: impl Fn(&Proc) -> bool) -> bool {
        let pids: Vec<u32> = self.procs.iter().filter(|(_, proc)| wanted(proc)).map(|(pid, _)| *pid).collect();
        for pid in &pids {
            self.signal(*pid, Signal::KILL, random);
        }
        !pids.is_empty()
    }

    pub(super) fn stat(&self, pid: u32) -> Option<Stat> {
        let proc = self.procs.get(&pid)?;
        Some(Stat {
            parent: proc.parent,
            group: proc.group,
            session: proc.session,
            started: proc.started,
            in_between: false,
            zombie: !proc.lives(),
        })
    }

    pub(super) fn children(&self, pid: u32) -> Vec<u32> {
        self.procs.iter().filter(|(_, proc)| proc.parent == pid).map(|(pid, _)| *pid).collect()
    }

    /// Who holds a service's lock, the one first that leads them.
    pub(super) fn holders(&self, group: &GroupName) -> Vec<(u32, u64)> {
        let holds = |proc: &Proc| proc.lives() && proc.locks && proc.is_of(group);
        let mut found: Vec<_> = self.procs.iter().filter(|(_, proc)| holds(proc)).collect();
        found.sort_by_key(|(pid, proc)| (proc.session != **pid, proc.started));
        found.into_iter().map(|(pid, proc)| (*pid, proc.started)).collect()
    }

    /// The live main processes of a service that are its program.
    pub(super) fn mains(&self, group: &GroupName) -> Vec<u32> {
        let is_main = |proc: &Proc| proc.lives() && proc.main && proc.program && proc.is_of(group);
        self.procs.iter().filter(|(_, proc)| is_main(proc)).map(|(pid, _)| *pid).collect()
    }
}
