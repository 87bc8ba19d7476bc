//! Who is left of a service whose main process has ended or is to, and their end.
//!
//! Decided here, and seen and carried out through a [`Sight`]: the kernel's own, or in the tests a simulated one's. The rule
//! above all: nobody is signalled by a number alone, since that may be a stranger's by now.

use std::os::fd::AsFd as _;

use super::engine::Engine;
use super::hold;
use super::proc::{self, Fit, Marks, Stat};
use crate::model::GroupName;
use crate::sys::process::pidfd_signal;

/// What can be seen of processes, and done to them.
pub(super) trait Sight {
    /// Kills all that is in a service's cgroup, and says whether there was anybody.
    fn kill_cgroup(&mut self, group: &GroupName) -> bool;
    /// Kills the main process that is held, and its process group where its number cannot be another's yet.
    fn kill_main(&mut self, group: &GroupName);
    /// Who a process is; `None` where it is gone.
    fn stat(&self, pid: u32) -> Option<Stat>;
    /// A process and all that descends from it, with their starts.
    fn family(&self, pid: u32) -> Vec<(u32, u64)>;
    /// Whether it is a child that somebody here has made and waits for.
    fn is_own(&self, pid: u32) -> bool;
    /// Children that have come to the keeper because they lost their parent.
    fn orphans(&mut self) -> Vec<u32>;
    /// Whether it bears a service's marks.
    fn fit(&self, pid: u32, marks: &Marks) -> Fit;
    /// Who lives in a session, with their starts; as it was once in this turn of the loop.
    fn session(&mut self, session: u32) -> Vec<(u32, u64)>;
    /// Kills a process, if it is still the one that began then.
    fn kill(&mut self, pid: u32, started: u64);
    /// Whether anybody holds a service's lock.
    fn is_locked(&self, group: &GroupName) -> bool;
    /// Who holds it, with their starts.
    fn holders(&self, group: &GroupName) -> Vec<(u32, u64)>;
}

/// What is known of a service's processes.
pub(super) struct Remains {
    pub(super) group: GroupName,
    pub(super) marks: Marks,
    /// The main process, where it has not been waited for.
    pub(super) main: Option<u32>,
    /// The start of the main process, where what is left does not descend from this keeper.
    pub(super) was_foreign: Option<u64>,
    /// Whether one that cannot be told yet is waited for.
    pub(super) patient: bool,
}

/// Kills all that is left of a service, and says whether that is nothing.
pub(super) fn clear(sight: &mut impl Sight, remains: &Remains) -> bool {
    let mut left = sight.kill_cgroup(&remains.group) || remains.main.is_some();
    let mut doomed = Vec::new();
    if let Some(pid) = remains.main {
        doomed.extend(sight.family(pid));
        sight.kill_main(&remains.group);
    }
    let session = remains.marks.session.filter(|session| !sight.is_own(*session));
    if let (Some(session), Some(started)) = (session, remains.was_foreign)
        && sight.stat(session).is_none_or(|stat| stat.started == started)
    {
        doomed.extend(sight.session(session));
        left |= !doomed.is_empty();
    }
    let marks = Marks { session, ..remains.marks.clone() };
    for orphan in sight.orphans() {
        match sight.fit(orphan, &marks) {
            Fit::Yes => {
                left = true;
                doomed.extend(sight.family(orphan));
            }
            // In a moment it is clear, unless it will never be.
            Fit::Unclear => left |= remains.patient,
            Fit::No => {}
        }
    }
    for (pid, started) in doomed {
        if !sight.is_own(pid) {
            sight.kill(pid, started);
        }
    }
    if !left && sight.is_locked(&remains.group) {
        left = true;
        for (pid, started) in sight.holders(&remains.group) {
            sight.kill(pid, started);
        }
    }
    !left
}

impl Sight for Engine {
    fn kill_cgroup(&mut self, group: &GroupName) -> bool {
        self.cgroups.kill(group)
    }

    fn kill_main(&mut self, group: &GroupName) {
        let Some(process) = self.services.get(group).and_then(|entry| entry.process.as_ref()) else { return };
        let killed = pidfd_signal(process.pidfd.as_fd(), libc::SIGKILL).is_ok();
        // Of one that others wait for, the number may be free the moment it has ended: its session is gone through instead.
        if killed
            && process.foreign.is_none()
            && let Some(id) = proc::pid_of(process.record.pid)
        {
            let _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }

    fn stat(&self, pid: u32) -> Option<Stat> {
        proc::stat(pid)
    }

    fn family(&self, pid: u32) -> Vec<(u32, u64)> {
        proc::family(pid)
    }

    fn is_own(&self, pid: u32) -> bool {
        self.children.contains_key(&pid)
    }

    fn orphans(&mut self) -> Vec<u32> {
        // Looked for once for all that have ended before this turn: there may be thousands of children. What one that is gone
        // has left behind came to us after that look.
        let known = self.orphans.take().filter(|known| known.iter().all(|pid| proc::stat(*pid).is_some()));
        let own = std::process::id();
        let children = if self.orphans_come_first { proc::children_of_first_thread } else { proc::children };
        let look = || children(own).into_iter().filter(|pid| !self.is_own(*pid)).collect();
        let orphans: Vec<u32> = known.unwrap_or_else(look);
        self.orphans.insert(orphans).clone()
    }

    fn fit(&self, pid: u32, marks: &Marks) -> Fit {
        marks.fit(pid)
    }

    fn session(&mut self, session: u32) -> Vec<(u32, u64)> {
        // Once for all that have ended before this turn: a session without a live member gets none any more.
        let sessions = self.sessions.get_or_insert_with(proc::sessions);
        // Their numbers may be strangers' by now, so each is looked at again.
        let members = sessions.get(&session).into_iter().flatten().filter_map(|pid| Some((*pid, proc::stat(*pid)?)));
        members.filter(|(_, stat)| stat.session == session && !stat.zombie).map(|(pid, stat)| (pid, stat.started)).collect()
    }

    fn kill(&mut self, pid: u32, started: u64) {
        proc::kill_verified(pid, started);
    }

    fn is_locked(&self, group: &GroupName) -> bool {
        hold::is_held(&self.config.data_dir, group)
    }

    fn holders(&self, group: &GroupName) -> Vec<(u32, u64)> {
        hold::holders(&self.config.data_dir, group)
    }
}
