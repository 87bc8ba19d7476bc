//! Who is in a group, and killing all of them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::limits::{field, put};
use crate::keeper::proc;

/// How deep a service's own groups below its group are followed.
const DEPTH_MAX: usize = 16;

/// How often members are read in one sweep: each time, ones that were forked meanwhile are found. What is left after that
/// is found by the next sweep, which the caller owes while the group is not empty.
const PASSES_MAX: usize = 4;

/// A directory and all below it, the deepest first.
fn below(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if depth > 0
        && let Ok(entries) = fs::read_dir(dir)
    {
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            found.extend(below(&entry.path(), depth - 1));
        }
    }
    found.push(dir.to_owned());
    found
}

/// Processes of a group and of all below it.
pub(super) fn members(dir: &Path) -> Vec<u32> {
    let texts = below(dir, DEPTH_MAX).into_iter().filter_map(|dir| proc::read_list(dir.join("cgroup.procs")).ok());
    texts.flat_map(|text| text.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Whether anything lives in a group.
pub(super) fn populated(dir: &Path) -> bool {
    match proc::read_short(dir.join("cgroup.events")) {
        Ok(events) => field(&events, "populated") == Some(1),
        // Hierarchies of version 1 do not tell.
        Err(_) => dir.exists() && !members(dir).is_empty(),
    }
}

/// Kills all of a group. Nobody is waited for.
pub(super) fn kill_all(dir: &Path) {
    if put(dir, "cgroup.kill", "1").is_ok() {
        return;
    }
    // Older kernels: nobody may fork while members are read. What is frozen forks nothing, and neither does who may have
    // no process; where there is neither, whoever forks faster than we read is met again by the next sweep.
    let frozen = put(dir, "freezer.state", "FROZEN").is_ok() || put(dir, "cgroup.freeze", "1").is_ok();
    let _ = put(dir, "pids.max", "0");
    let mut killed: Vec<(u32, u64)> = Vec::new();
    for _ in 0..PASSES_MAX {
        let before = killed.len();
        for pid in members(dir) {
            let Some(started) = proc::stat(pid).map(|stat| stat.started) else { continue };
            if !killed.contains(&(pid, started)) && kill_member(pid, dir) {
                killed.push((pid, started));
            }
        }
        if killed.len() == before {
            break;
        }
    }
    if frozen {
        // What has been killed ends as soon as it may run.
        let _ = put(dir, "freezer.state", "THAWED");
        let _ = put(dir, "cgroup.freeze", "0");
    }
}

/// Kills a process, if it is still in the group once it is held: its number may have been given away.
fn kill_member(pid: u32, dir: &Path) -> bool {
    let Some(id) = proc::pid_of(pid) else { return false };
    let Ok(pidfd) = pidfd_open(id, PidfdFlags::empty()) else { return false };
    let within = fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| is_within(&text, dir));
    within && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
}

/// Whether /proc/PID/cgroup names a group that this directory shows, or one below it. The name below `tagfall` is enough:
/// the directory of our data is in it, and nobody else makes one like it.
pub(super) fn is_within(memberships: &str, dir: &Path) -> bool {
    let Some(name) = super::name_below(dir) else { return false };
    let paths = memberships.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.filter_map(|path| path.split_once(&name)).any(|(_, rest)| rest.is_empty() || rest.starts_with('/'))
}

/// Removes an empty group and its empty subgroups; one that is not empty stays.
pub(super) fn remove(dir: &Path) {
    for dir in below(dir, DEPTH_MAX) {
        let _ = fs::remove_dir(dir);
    }
}

/// Marks a directory for groups as in use, as long as the descriptor is open. Fails where somebody else has done so.
pub(super) fn hold(base: &Path) -> io::Result<OwnedFd> {
    let dir = super::open_dir(base)?;
    rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
    Ok(dir)
}

/// Removes what killed keepers of other data folders have left beside ours, where it is neither in use nor holds anybody:
/// no one else would ever come to do it.
pub(super) fn remove_deserted(base: &Path) {
    let Some(entries) = base.parent().and_then(|top| fs::read_dir(top).ok()) else { return };
    for dir in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()) {
        if dir != base && !populated(&dir) && hold(&dir).is_ok() {
            remove(&dir);
        }
    }
}
