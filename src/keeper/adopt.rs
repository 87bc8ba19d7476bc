//! Taking over what an earlier keeper has left: its services are gone on with, not begun anew.
//!
//! A process is only taken for a service's where number, start and boot are those of the record, and only through a pidfd. What
//! the records do not tell, the locks do: see `hold.rs`.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::process::{PidfdFlags, pidfd_open};

use super::engine::{Engine, Owner, now, say};
use super::journal::{Record, Saved};
use super::poller::{Source, Token};
use super::reserve::lasting;
use super::services::Entry;
use super::state::Service;
use super::{hold, proc};
use crate::model::{Exit, GroupName, MountMode, ServiceSpec};
use crate::sys::process::pidfd_exit;

/// A live process of an earlier keeper.
pub(super) struct Found {
    pub(super) record: Record,
    pub(super) pidfd: OwnedFd,
    /// Registration of a process that is not our child.
    pub(super) token: Option<Token>,
}

/// Holds a process, if it is still the one that began at `started`.
fn held(pid: u32, started: u64) -> Option<(OwnedFd, proc::Stat)> {
    let pidfd = pidfd_open(proc::pid_of(pid)?, PidfdFlags::empty()).ok()?;
    // Looked at after it was opened: now it is this process that the descriptor means, for ever.
    let stat = proc::stat(pid).filter(|stat| stat.started == started)?;
    Some((lasting(pidfd), stat))
}

impl Engine {
    /// Takes over all that the journal tells of.
    pub(super) fn adopt_all(&mut self, all: Vec<Saved>) {
        let (mut alive, mut ended) = (0, 0);
        for saved in all {
            if !saved.goes_on(&self.boot_id) {
                // What is kept is that a task is done.
                if let Some(revision) = saved.service.done {
                    self.done.insert(saved.service.spec.group, revision);
                } else {
                    self.journal.forget(&saved.service.spec.group);
                }
                continue;
            }
            let had_process = saved.service.pid().is_some();
            if self.adopt(saved) {
                alive += 1;
            } else if had_process {
                ended += 1;
            }
        }
        if alive + ended > 0 {
            say(&format!("of an earlier keeper's services, {alive} run on and {ended} have ended meanwhile"));
        }
    }

    /// Says what no record tells of. It is left alone until somebody asks for the service.
    pub(super) fn name_unrecorded(&self) {
        let mut grouped = self.cgroups.populated();
        for group in hold::held(&self.config.data_dir) {
            grouped.remove(&group);
            if !self.services.contains_key(&group) {
                say(&format!(
                    "something of an earlier keeper's `{group}` runs, of which no record is left; no second copy is started"
                ));
            }
        }
        for (group, members) in grouped.into_iter().filter(|(group, _)| !self.services.contains_key(group)) {
            say(&format!(
                "processes {members:?} of an earlier keeper are left in the cgroup of `{group}`; a start ends them first"
            ));
        }
    }

    /// Takes one service over, and says whether its process lives.
    fn adopt(&mut self, saved: Saved) -> bool {
        let Saved { started, mut service, .. } = saved;
        let group = service.spec.group.clone();
        let process = match service.pid().zip(started) {
            Some((pid, started)) => self.find(&group, pid, started),
            None if service.may_have_forked() => self.find_forked(&group),
            None => None,
        };
        if process.is_none()
            && service.expects_nobody()
            && let Some(entry) = self.find_by_lock(&service.spec, service.incarnation)
        {
            // The record is older than what runs: the one after it could not be written.
            self.services.insert(group.clone(), entry);
            self.open_adopted_output(&group);
            return true;
        }
        let Some(found) = process else {
            let follows = service.take_up(None, self.context());
            let marks = super::services::marks_without_process(&group);
            self.services.insert(group.clone(), Entry::left_behind(service, marks));
            if let Some(event) = follows {
                self.open_adopted_output(&group);
                self.drain_output(&group);
                self.feed(&group, event);
            }
            return false;
        };
        let pid = found.record.pid;
        self.cgroups.watch(&group, &service.spec.launch.limits);
        let namespace = proc::mount_namespace(pid);
        // That it is another one than ours says nothing: a keeper that was started anew may be in another one itself.
        let other = namespace.is_some() && namespace != proc::mount_namespace(std::process::id());
        let own = other && service.may_have_namespace();
        let mode = if own { MountMode::Namespace } else { MountMode::Symlink };
        // Of one that lives, nothing follows at once.
        let _ = service.take_up(Some((pid, mode)), self.context());
        self.services.insert(group.clone(), Entry::adopted(service, found, namespace.filter(|_| own)));
        self.open_adopted_output(&group);
        true
    }

    fn open_adopted_output(&mut self, group: &GroupName) {
        if let Err(why) = self.open_output(group) {
            say(&format!("`{group}` is taken over, but {why}"));
        }
    }

    fn find(&mut self, group: &GroupName, pid: u32, started: u64) -> Option<Found> {
        let (pidfd, stat) = held(pid, started)?;
        let record = Record { pid, started };
        if stat.parent == std::process::id() {
            // Ours already: this keeper has become another program, not another process.
            self.children.insert(pid, Owner::Service(group.clone()));
            return Some(Found { record, pidfd, token: None });
        }
        match self.poller.add(&pidfd, Source::Foreign(group.clone())) {
            Ok(token) => Some(Found { record, pidfd, token: Some(token) }),
            Err(error) => {
                say(&format!("process {pid} of `{group}` cannot be watched: {error}"));
                None
            }
        }
    }

    /// The process that an earlier keeper was about to make, and was killed before it could write down which. Nothing else of
    /// the service was there: whoever leads those in its cgroup, or those that hold its lock, is it.
    fn find_forked(&mut self, group: &GroupName) -> Option<Found> {
        let mut members = self.cgroups.members(group);
        if members.is_empty() && hold::is_held(&self.config.data_dir, group) {
            members = hold::holders(&self.config.data_dir, group).into_iter().map(|(pid, _)| pid).collect();
        }
        let known = members.into_iter().filter_map(|pid| Some((pid, proc::stat(pid)?)));
        let (pid, stat) = known.filter(|(pid, stat)| stat.session == *pid).min_by_key(|(_, stat)| stat.started)?;
        self.find(group, pid, stat.started)
    }

    /// A service that no record tells of, but whose lock somebody holds: who that is, is told; no second copy is started.
    pub(super) fn find_by_lock(&mut self, spec: &ServiceSpec, incarnation: u64) -> Option<Entry> {
        let group = &spec.group;
        if !hold::is_held(&self.config.data_dir, group) {
            return None;
        }
        let holders = hold::holders(&self.config.data_dir, group);
        let found = holders.iter().find_map(|(pid, started)| self.find(group, *pid, *started))?;
        self.cgroups.watch(group, &spec.launch.limits);
        let pids: Vec<u32> = holders.iter().map(|(pid, _)| *pid).collect();
        let service = Service::foreign(spec.clone(), &pids, spec.launch.digest(), incarnation, now());
        Some(Entry::adopted(service, found, None))
    }

    /// A process that is not our child has ended.
    pub(super) fn foreign_ended(&mut self, group: &GroupName) {
        if self.taken_main_ended(group) {
            return;
        }
        let Some((pidfd, record)) = self.services.get(group).and_then(Entry::held) else { return };
        // Waited for by its parent already, or not yet, or in between the two looks.
        let exit = pidfd_exit(pidfd.as_fd())
            .or_else(|| proc::exit_of_zombie(record.pid, record.started))
            .or_else(|| pidfd_exit(pidfd.as_fd()));
        self.service_ended(group, exit.unwrap_or(Exit::Unknown));
    }
}
