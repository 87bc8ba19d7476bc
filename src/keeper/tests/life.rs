//! What services do once they are started: all that real ones do, and all that they should not.

use super::kernel::Kernel;
use super::world::{Happening, WATCHDOG_MS, World};
use crate::keeper::state::notify::Word;
use crate::model::{Exit, GroupName};

/// What a process does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Deed {
    Say(Vec<Word>),
    /// Says that it lives, and will again unless it falls silent.
    Ping {
        falls_silent: bool,
    },
    Fork {
        leaves_session: bool,
        forgets_mark: bool,
        drops_lock: bool,
        deaf: bool,
    },
    /// Makes a child, which calls itself the main process.
    Hand,
    Exit(Exit),
}

impl World {
    /// A copy of the keeper comes to the lock.
    pub(super) fn lock(&mut self, pid: u32, started: u64) {
        let Some(group) = self.proc(pid, started).and_then(|proc| Some(proc.of.clone()?.0)) else { return };
        if self.kernel.holders(&group).iter().any(|(holder, _)| *holder != pid) {
            self.fail_start(pid, started, "its lock is held");
            return;
        }
        if let Some(proc) = self.proc(pid, started) {
            proc.locks = true;
        }
        let bad = self.faulty();
        let ms = match self.random.below(100) {
            0..2 if bad => 29_000 + self.random.below(4_000),
            2..6 if bad => {
                self.fail_start(pid, started, "no such program");
                return;
            }
            6..8 if bad => {
                // Killed by somebody before it comes to anything.
                self.kernel.exit(pid, Exit::Signal(crate::model::Signal::KILL));
                return;
            }
            _ => 1 + self.random.below(5),
        };
        self.after(ms, Happening::Exec { pid, started });
    }

    fn fail_start(&mut self, pid: u32, started: u64, why: &str) {
        self.failures.insert(started, why.to_owned());
        self.kernel.exit(pid, Exit::Code(127));
    }

    /// It becomes the program, and its life begins.
    pub(super) fn exec(&mut self, pid: u32, started: u64) {
        let (now, bad) = (self.now(), self.faulty());
        let closes = bad && self.random.chance(5);
        let deaf = bad && self.random.chance(10);
        let sticks = bad && self.random.chance(5);
        let waits_until = if sticks { now + self.random.below(20_000) } else { 0 };
        let Some(proc) = self.proc(pid, started) else { return };
        if proc.killed {
            return;
        }
        (proc.program, proc.marked, proc.heard, proc.deaf, proc.waits_until) = (true, true, now, deaf, waits_until);
        proc.locks &= !closes;
        let Some((group, incarnation)) = proc.of.clone() else { return };
        self.check_alone(&group, incarnation, pid);
        let known = self.keeper.services.get(&group).is_some_and(|held| held.process == Some((pid, started)));
        if closes && !known && !self.kernel.cgroups {
            // It was started by a keeper that died before it could write that down, and gives up the lock that would tell.
            self.hurt.insert(group.clone());
            self.kernel.licences.insert(group.clone());
        }
        let policy = self.keeper.services.get(&group).map(|held| held.service.spec.policy.clone());
        let task = policy.as_ref().is_some_and(|policy| policy.kind == crate::model::ServiceKind::Task);
        let watched = policy.is_none_or(|policy| policy.watchdog.is_some());
        let deed = |world: &mut Self, span: u64, deed: Deed| {
            let ms = world.random.below(span.max(1));
            world.after(ms, Happening::Deed { pid, started, deed });
        };
        deed(self, 1_500, Deed::Say(vec![Word::Ready]));
        if watched {
            let falls_silent = bad && self.random.chance(20);
            deed(self, 1, Deed::Ping { falls_silent });
        }
        if bad {
            if self.random.chance(20) {
                deed(self, 5_000, Deed::Say(vec![Word::Ready, Word::Reloading]));
                deed(self, 9_000, Deed::Say(vec![Word::Ready, Word::Status("again".to_owned())]));
            }
            for _ in 0..self.random.below(3) {
                let mut flip = || self.random.chance(30);
                let fork = Deed::Fork { leaves_session: flip(), forgets_mark: flip(), drops_lock: flip(), deaf: flip() };
                deed(self, 4_000, fork);
            }
            if self.random.chance(10) {
                deed(self, 1_000, Deed::Hand);
            }
        }
        if task || bad && self.random.chance(60) {
            let exit = match self.random.below(20) {
                0 => Exit::Code(125),
                1..5 if bad => Exit::Code(1),
                5..8 if bad => Exit::Signal(crate::model::Signal(11)),
                _ => Exit::Code(0),
            };
            let exit = if task && !bad { Exit::Code(0) } else { exit };
            let span = if self.random.chance(30) { 10 } else { 20_000 };
            deed(self, span, Deed::Exit(exit));
        }
    }

    pub(super) fn do_deed(&mut self, pid: u32, started: u64, deed: Deed) {
        let (now, keeper_lives) = (self.now(), self.kernel.keeper_lives());
        let Some(proc) = self.proc(pid, started) else { return };
        let Some((group, incarnation)) = proc.of.clone() else { return };
        match deed {
            Deed::Say(words) => self.send(&group, incarnation, pid, words, keeper_lives),
            Deed::Ping { falls_silent } => {
                proc.heard = now;
                self.send(&group, incarnation, pid, vec![Word::Watchdog], keeper_lives);
                let falls = falls_silent && self.random.chance(10);
                if !falls {
                    self.after(WATCHDOG_MS / 3, Happening::Deed { pid, started, deed: Deed::Ping { falls_silent } });
                }
            }
            Deed::Fork { leaves_session, forgets_mark, drops_lock, deaf } => {
                if let Some((child, _)) = fork(&mut self.kernel, pid) {
                    let Some(child_proc) = self.kernel.procs.get_mut(&child) else { return };
                    child_proc.marked &= !forgets_mark;
                    child_proc.locks &= !drops_lock;
                    child_proc.deaf = deaf;
                    if leaves_session {
                        (child_proc.session, child_proc.group) = (child, child);
                    }
                }
            }
            Deed::Hand => {
                let Some((child, child_started)) = fork(&mut self.kernel, pid) else { return };
                self.totals.renamed += 1;
                self.send(&group, incarnation, child, vec![Word::MainPid(child), Word::Ready], keeper_lives);
                let ping = Deed::Ping { falls_silent: false };
                self.after(0, Happening::Deed { pid: child, started: child_started, deed: ping });
                self.after(50, Happening::Deed { pid, started, deed: Deed::Exit(Exit::Code(0)) });
            }
            Deed::Exit(exit) => {
                if proc.waits_until <= now {
                    self.kernel.exit(pid, exit);
                }
            }
        }
    }

    /// To the socket of this start, as long as somebody has it open.
    fn send(&mut self, group: &GroupName, incarnation: u64, sender: u32, words: Vec<Word>, keeper_lives: bool) {
        let Some(held) = self.keeper.services.get_mut(group).filter(|_| keeper_lives) else { return };
        if held.service.incarnation == incarnation && held.process.is_some() {
            held.letters.push_back((sender, words));
        }
    }
}

fn fork(kernel: &mut Kernel, parent: u32) -> Option<(u32, u64)> {
    let child = kernel.fork(parent, false)?;
    Some((child, kernel.stat(child)?.started))
}
