//! Groups of processes as the kernel keeps them: nothing that a service starts leaves its own, and limits hold for the whole.
//!
//! What is possible is found out once: the unified hierarchy, for membership even where it has no controllers, and for
//! limits those of version 1 where the unified one has none. A service's group is `tagfall/HASH/GROUP` below the keeper's
//! own, with HASH of the data folder. It decides nothing: what cannot be done is a note for the status.
//!
//! | file | question |
//! | --- | --- |
//! | `find.rs` | where the keeper's own groups are |
//! | `limits.rs` | what is written into a group, and counted there |
//! | `sweep.rs` | who is in it, and their end |
//!
//! To add a limit: its controller here, its files in `limits.rs`.

mod find;
mod limits;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::trial::attempt_in;
use crate::model::{Digest, Exit, GroupName, Limits, Signal};
use crate::sys::fork::OneThread;

/// The directory below the keeper's own group.
const TOP: &str = "tagfall";

/// Where the keeper itself goes, should its group have to be free of processes to give controllers on. A unit with
/// `DelegateSubgroup=` of this name starts it there.
const KEEPER_LEAF: &str = "tagfall-keeper";

/// Digits of the data folder's hash.
const HASH_DIGITS: usize = 12;

/// Exit code by which a shell says that what it ran was killed.
const EXIT_KILLED: i32 = 128 + 9;

/// What of the kernel's is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Controller {
    Memory,
    Pids,
    Cpu,
    Freezer,
}

impl Controller {
    /// Those that limit.
    const LIMITING: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    fn named(name: &str) -> Option<Self> {
        [Self::Memory, Self::Pids, Self::Cpu, Self::Freezer].into_iter().find(|controller| controller.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::Freezer => "freezer",
        }
    }

    fn is_limited(self, limits: &Limits) -> bool {
        match self {
            Self::Memory => limits.memory.is_some(),
            Self::Pids => limits.pids.is_some(),
            Self::Cpu => limits.cpu.is_some(),
            Self::Freezer => false,
        }
    }
}

/// The groups of this keeper's services.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    /// Directory for groups in the unified hierarchy.
    unified: Option<PathBuf>,
    /// Controllers that it gives on.
    given: Vec<Controller>,
    v1: BTreeMap<Controller, PathBuf>,
    /// Why a controller is not to be had, and (`None`) why there is no group in the unified hierarchy.
    refused: BTreeMap<Option<Controller>, String>,
    /// Whether a process can be born in a group of the unified hierarchy.
    births: bool,
    /// Groups of the unified hierarchy that were made here and in which nothing was killed since. In others nobody is born:
    /// kernels take a child for one that was forked before the kill, and kill it.
    fresh: BTreeSet<GroupName>,
    watched: BTreeMap<GroupName, Watch>,
    /// By which other keepers see that these directories are in use.
    _held: Vec<OwnedFd>,
}

/// What the kernel had counted when a service was started.
#[derive(Debug)]
struct Watch {
    ooms: u64,
    limit: Option<u64>,
}

/// Where a new process is to be, before it does anything.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// A group of the unified hierarchy, in which it is born.
    pub(super) into: Option<OwnedFd>,
    /// Open lists of members into which it writes itself.
    pub(super) join: Vec<OwnedFd>,
}

impl Place {
    /// Joins by writing, in the child. With `born`, it already is in the group of the unified hierarchy.
    pub(super) fn enter(&self, born: bool) -> io::Result<()> {
        if let Some(dir) = self.into.as_ref().filter(|_| !born) {
            let list = rustix::fs::openat(dir, c"cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(&list, b"0")?;
        }
        for list in &self.join {
            rustix::io::write(list, b"0")?;
        }
        Ok(())
    }
}

impl Cgroups {
    /// Finds out what is possible here, by trying.
    pub(super) fn find(one_thread: &OneThread, data_dir: &Path) -> Self {
        let own = match find::own_dirs() {
            Ok(own) => own,
            Err(error) => {
                let refused = BTreeMap::from([(None, format!("/proc cannot be read: {error}"))]);
                return Self { refused, ..Self::default() };
            }
        };
        let mut found = Self::default();
        let below = Path::new(TOP).join(hash(data_dir));
        if let Some(dir) = own.unified {
            let dir = if dir.ends_with(KEEPER_LEAF) { dir.parent().unwrap_or(&dir).to_owned() } else { dir };
            let base = dir.join(&below);
            match fs::create_dir_all(&base).and_then(|()| try_unified(one_thread, &base)) {
                Ok(births) => {
                    found.births = births;
                    found.give_controllers(&dir, &base);
                    found.unified = Some(base);
                }
                Err(error) => {
                    discard(&base);
                    found.refuse(None, &dir, &error);
                }
            }
        }
        for (controller, dir) in own.v1 {
            let base = dir.join(&below);
            match fs::create_dir_all(&base).and_then(|()| writable(&base.join("cgroup.procs"))) {
                Ok(()) => drop(found.v1.insert(controller, base)),
                Err(error) => {
                    discard(&base);
                    found.refuse(Some(controller), &dir, &error);
                }
            }
        }
        found.remove_empty();
        found._held = found.bases().filter_map(|base| sweep::hold(base).ok()).collect();
        found.bases().for_each(sweep::remove_deserted);
        found
    }

    fn refuse(&mut self, controller: Option<Controller>, dir: &Path, error: &io::Error) {
        self.refused.insert(controller, format!("`{}`: {error}", dir.display()));
    }

    fn why_not(&self, controller: Option<Controller>) -> &str {
        let known = self.refused.get(&controller).or_else(|| self.refused.get(&None));
        known.map_or("no hierarchy with it is mounted", String::as_str)
    }

    /// Lets the unified hierarchy's controllers work in groups below `base`.
    fn give_controllers(&mut self, own: &Path, base: &Path) {
        let available = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
        let wanted = Controller::LIMITING.into_iter().filter(|one| available.split_whitespace().any(|name| name == one.name()));
        for controller in wanted {
            for dir in [Some(own), base.parent(), Some(base)].into_iter().flatten() {
                let give = || limits::put(dir, "cgroup.subtree_control", &format!("+{}", controller.name()));
                let given = match give() {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => step_aside(dir).and_then(|()| give()),
                    given => given,
                };
                if let Err(error) = given {
                    self.refuse(Some(controller), dir, &error);
                }
            }
        }
        self.given = parse_controllers(&fs::read_to_string(base.join("cgroup.subtree_control")).unwrap_or_default());
    }

    /// Makes the group of a service with its limits. The notes say what cannot be promised here.
    pub(super) fn place(&mut self, group: &GroupName, limits: &Limits) -> Result<(Place, Vec<String>), String> {
        let failed = |error: io::Error| format!("its cgroup cannot be made: {error}");
        let mut notes = Vec::new();
        let mut place = Place::default();
        if let Some(base) = &self.unified {
            let dir = base.join(group.to_string());
            let known = self.fresh.contains(group);
            if !known {
                sweep::remove(&dir);
            }
            let born = self.births && (known || !dir.exists());
            if !known {
                made(base, group).map_err(failed)?;
            }
            if born {
                self.fresh.insert(group.clone());
                // One that somebody has taken away is made again.
                let opened = open_dir(&dir).or_else(|_| made(base, group).and_then(|dir| open_dir(&dir)));
                place.into = Some(opened.map_err(failed)?);
            } else {
                place.join.push(open_members(&dir).map_err(failed)?);
            }
        }
        let member_of = self.v1_member_of();
        for controller in Controller::LIMITING.into_iter().chain([Controller::Freezer]) {
            let limited = controller.is_limited(limits);
            let unified = self.given.contains(&controller);
            let base = if unified { &self.unified } else { &self.v1.get(&controller).cloned() };
            let Some(base) = base else {
                if limited {
                    notes.push(format!(
                        "limit `{}` cannot be enforced here ({})",
                        controller.name(),
                        self.why_not(Some(controller))
                    ));
                }
                continue;
            };
            // Each list of version 1 that is written to costs a start milliseconds: only where it is for something.
            if !unified && !limited && member_of != Some(controller) {
                continue;
            }
            let dir = made(base, group).map_err(failed)?;
            if let Err(error) = limits::set(controller, unified, &dir, limits)
                && limited
            {
                notes.push(format!("limit `{}` cannot be enforced here ({error})", controller.name()));
            }
            if !unified {
                place.join.push(open_members(&dir).map_err(failed)?);
            }
        }
        if self.unified.is_none() && member_of.is_none() {
            let words = "no cgroup can be made here, so a stop finds what it started by session, parent and environment only";
            notes.push(format!("{words} ({})", self.why_not(None)));
        }
        self.watch(group, limits);
        Ok((place, notes))
    }

    /// Where a command is to be that runs for a service which is there: in its group, so that it counts as the service's and
    /// ends with it.
    pub(super) fn beside(&self, group: &GroupName, limits: &Limits) -> Place {
        let mut place = Place::default();
        if let Some(base) = &self.unified {
            let dir = base.join(group.to_string());
            if self.births && self.fresh.contains(group) {
                place.into = open_dir(&dir).ok();
            } else {
                place.join.extend(open_members(&dir));
            }
        }
        let member_of = self.v1_member_of();
        let wanted = |controller: &Controller| controller.is_limited(limits) || member_of == Some(*controller);
        let v1 = self.v1.iter().filter(|(controller, _)| !self.given.contains(controller) && wanted(controller));
        place.join.extend(v1.filter_map(|(_, base)| open_members(&base.join(group.to_string())).ok()));
        place
    }

    /// The hierarchy of version 1 by which membership is known, where the unified one is missing.
    fn v1_member_of(&self) -> Option<Controller> {
        let order = [Controller::Freezer, Controller::Pids, Controller::Memory, Controller::Cpu];
        order.into_iter().find(|controller| self.unified.is_none() && self.v1.contains_key(controller))
    }

    /// Notes what the kernel has counted so far, so that only what comes now is the running process's: at its start, or
    /// when one of an earlier keeper is taken over.
    pub(super) fn watch(&mut self, group: &GroupName, limits: &Limits) {
        match self.memory_of(group) {
            Some((unified, dir)) => {
                let watch = Watch { ooms: limits::ooms(unified, &dir), limit: limits.memory };
                self.watched.insert(group.clone(), watch);
            }
            None => drop(self.watched.remove(group)),
        }
    }

    fn memory_of(&self, group: &GroupName) -> Option<(bool, PathBuf)> {
        let unified = self.given.contains(&Controller::Memory);
        let base = if unified { self.unified.as_ref() } else { self.v1.get(&Controller::Memory) }?;
        Some((unified, base.join(group.to_string()))).filter(|(_, dir)| dir.is_dir())
    }

    /// How a main process ended, with what the kernel has done to the group.
    pub(super) fn explained(&self, group: &GroupName, exit: Exit) -> Exit {
        let killed = exit == Exit::Signal(Signal::KILL) || exit == Exit::Code(EXIT_KILLED) || exit == Exit::Unknown;
        let Some(watch) = self.watched.get(group).filter(|_| killed) else { return exit };
        let Some((unified, dir)) = self.memory_of(group) else { return exit };
        if limits::ooms(unified, &dir) > watch.ooms { Exit::OutOfMemory { limit: watch.limit } } else { exit }
    }

    /// Kills all that is in a service's group, and says whether there was anybody.
    pub(super) fn kill(&mut self, group: &GroupName) -> bool {
        // The others only hold who has left the first.
        let found = self.bases().map(|base| base.join(group.to_string())).find(|dir| sweep::populated(dir));
        let Some(dir) = found else { return false };
        self.fresh.remove(group);
        sweep::kill_all(&dir);
        true
    }

    /// Directories for groups, the one by which membership is known first.
    fn bases(&self) -> impl Iterator<Item = &Path> {
        let first = self.unified.as_ref().or_else(|| self.v1.get(&Controller::Freezer));
        let others = self.v1.values().filter(move |base| Some(*base) != first);
        first.into_iter().chain(others).map(PathBuf::as_path)
    }

    /// Who is in a service's group.
    pub(super) fn members(&self, group: &GroupName) -> Vec<u32> {
        self.bases().next().map(|base| sweep::members(&base.join(group.to_string()))).unwrap_or_default()
    }

    /// Whether a process is in a service's group.
    pub(super) fn holds(&self, group: &GroupName, pid: u32) -> bool {
        let Ok(memberships) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return false };
        self.bases().next().is_some_and(|base| sweep::is_within(&memberships, &base.join(group.to_string())))
    }

    /// Removes the group of a service of which nothing is left.
    pub(super) fn remove(&mut self, group: &GroupName) {
        self.watched.remove(group);
        self.fresh.remove(group);
        for base in self.bases() {
            sweep::remove(&base.join(group.to_string()));
        }
    }

    /// Groups in which something lives, by name, with who lives in them. Asked before the first start, these are what an
    /// earlier keeper on this data folder has left.
    pub(super) fn populated(&self) -> BTreeMap<GroupName, Vec<u32>> {
        let mut found: BTreeMap<GroupName, Vec<u32>> = BTreeMap::new();
        for base in self.bases() {
            for (group, dir) in groups(base) {
                let members = sweep::members(&dir);
                if !members.is_empty() {
                    found.entry(group).or_insert(members);
                }
            }
        }
        found
    }

    fn remove_empty(&self) {
        for (_, dir) in self.bases().flat_map(groups).filter(|(_, dir)| !sweep::populated(dir)) {
            sweep::remove(&dir);
        }
    }

    /// Takes away all that is empty, at the end.
    pub(super) fn close(&self) {
        self.remove_empty();
        self.bases().for_each(discard);
    }
}

/// Removes a directory for groups and the one above it, where they are empty.
fn discard(base: &Path) {
    let _ = fs::remove_dir(base);
    if let Some(top) = base.parent() {
        let _ = fs::remove_dir(top);
    }
}

/// Groups in a directory for groups.
fn groups(base: &Path) -> Vec<(GroupName, PathBuf)> {
    let Ok(entries) = fs::read_dir(base) else { return Vec::new() };
    let dirs = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect()
}

/// A name for a data folder, the same by whatever path it is reached.
fn hash(data_dir: &Path) -> String {
    let path = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let mut text = Digest::of(path.as_os_str().as_bytes()).to_string();
    text.truncate(HASH_DIGITS);
    text
}

/// `/tagfall/HASH/GROUP` of a group's directory.
fn name_below(dir: &Path) -> Option<String> {
    let group = dir.file_name()?.to_str()?;
    let hash = dir.parent()?.file_name()?.to_str()?;
    Some(format!("/{TOP}/{hash}/{group}"))
}

fn made(base: &Path, group: &GroupName) -> io::Result<PathBuf> {
    let dir = base.join(group.to_string());
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn writable(file: &Path) -> io::Result<()> {
    Ok(rustix::fs::access(file, rustix::fs::Access::WRITE_OK)?)
}

fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn open_members(dir: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(dir.join("cgroup.procs"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Tries in a child whether a process can be put into a group made here, since a delegation that ends in between refuses
/// it; says whether one can be born in it.
fn try_unified(one_thread: &OneThread, base: &Path) -> io::Result<bool> {
    // No group is named like that.
    let dir = base.join(".try");
    fs::create_dir_all(&dir)?;
    let born = open_dir(&dir).map(|dir| Place { into: Some(dir), join: Vec::new() });
    let born = born.and_then(|place| try_place(one_thread, &place));
    let tried = match born {
        Ok(()) => Ok(true),
        Err(_) => {
            open_members(&dir).and_then(|list| try_place(one_thread, &Place { into: None, join: vec![list] })).map(|()| false)
        }
    };
    let _ = fs::remove_dir(&dir);
    tried
}

fn try_place(one_thread: &OneThread, place: &Place) -> io::Result<()> {
    attempt_in(one_thread, place.into.as_ref().map(|dir| dir.as_fd()), |born| place.enter(born))
}

fn parse_controllers(text: &str) -> Vec<Controller> {
    text.split_whitespace().filter_map(Controller::named).filter(|one| *one != Controller::Freezer).collect()
}

/// A group that gives controllers on may hold no processes itself: where the keeper is alone in it, it goes below.
fn step_aside(own: &Path) -> io::Result<()> {
    let list = fs::read_to_string(own.join("cgroup.procs"))?;
    if list.trim() != std::process::id().to_string() {
        return Err(io::Error::other("processes other than the keeper are in it, so it can give no controllers on"));
    }
    let leaf = own.join(KEEPER_LEAF);
    fs::create_dir_all(&leaf)?;
    limits::put(&leaf, "cgroup.procs", "0")
}
