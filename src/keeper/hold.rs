//! A lock that a service holds, and all that it starts: as long as any of them lives, no second copy is started, whatever a
//! keeper knows or has forgotten.
//!
//! The service's process takes it between fork and exec, on a file of its own, and the descriptor stays open over exec and is
//! inherited. A program that closes what it was not told of gives it up: then the journal alone tells that it runs.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::IntoRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use super::proc;
use crate::model::GroupName;

/// The descriptor's number in the service is this or above: out of the way of those that a program is told of.
const NUMBER_MIN: i32 = 100;

fn path(data_dir: &Path, group: &GroupName) -> PathBuf {
    data_dir.join("keeper").join("locks").join(group.to_string())
}

/// Makes the file for [`take`]; the keeper itself keeps it open nowhere.
pub(super) fn prepare(data_dir: &Path, group: &GroupName) -> io::Result<CString> {
    let path = path(data_dir, group);
    if let Some(dir) = path.parent() {
        super::log::private_dir(dir)?;
    }
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Takes the lock for this process and all that it will start. Runs in the child, before it gives up its rights.
pub(super) fn take(path: &CString) -> io::Result<()> {
    let file = open(path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(rustix::io::Errno::WOULDBLOCK.into()),
        // A file system without locks: then there is none.
        Err(_) => return Ok(()),
    }
    let kept = rustix::io::fcntl_dupfd_cloexec(&file, NUMBER_MIN).unwrap_or(file);
    rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty())?;
    // Open for as long as the process is there.
    let _ = kept.into_raw_fd();
    Ok(())
}

/// Whether anybody holds a service's lock.
pub(super) fn is_held(data_dir: &Path, group: &GroupName) -> bool {
    let Ok(file) = File::open(path(data_dir, group)) else { return false };
    flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Services whose lock somebody holds.
pub(super) fn held(data_dir: &Path) -> Vec<GroupName> {
    let files = fs::read_dir(data_dir.join("keeper").join("locks")).into_iter().flatten().flatten();
    let groups = files.filter_map(|file| file.file_name().to_str()?.parse::<GroupName>().ok());
    groups.filter(|group| is_held(data_dir, group)).collect()
}

/// Who holds a service's lock: process ids with their starts, the one first that leads them.
pub(super) fn holders(data_dir: &Path, group: &GroupName) -> Vec<(u32, u64)> {
    let Ok(wanted) = fs::metadata(path(data_dir, group)) else { return Vec::new() };
    let has_it = |pid: &u32| {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        // Of the descriptor itself, not of a path that may mean something else in another mount namespace.
        entries.flatten().filter_map(|entry| fs::metadata(entry.path()).ok()).any(|found| {
            let same = |of: &fs::Metadata| (of.dev(), of.ino());
            same(&found) == same(&wanted)
        })
    };
    let own = std::process::id();
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| *pid != own);
    // Who it is comes first: one that gets the number of a holder that has ended is not taken for it.
    let found = pids.filter_map(|pid| Some((pid, proc::stat(pid)?))).filter(|(pid, _)| has_it(pid));
    let mut found: Vec<(u32, proc::Stat)> = found.collect();
    found.sort_by_key(|(pid, stat)| (stat.session != *pid, stat.started, *pid));
    found.into_iter().map(|(pid, stat)| (pid, stat.started)).collect()
}

/// Takes the file away of a service that nothing is left of.
pub(super) fn forget(data_dir: &Path, group: &GroupName) {
    if !is_held(data_dir, group) {
        let _ = fs::remove_file(path(data_dir, group));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_held_once_and_its_holder_found() {
        let data = tempfile::tempdir().unwrap();
        let group: GroupName = "web".parse().unwrap();
        assert!(!is_held(data.path(), &group));
        let path = prepare(data.path(), &group).unwrap();
        assert!(!is_held(data.path(), &group));
        let lock = data.path().join("keeper/locks/web.default");
        let mut holder = std::process::Command::new("flock");
        holder.arg("-F").arg(&lock).args(["sh", "-c", "echo; exec sleep 1000"]).stdout(std::process::Stdio::piped());
        let mut holder = holder.spawn().unwrap();
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        assert!(is_held(data.path(), &group));
        assert_eq!(take(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let found = holders(data.path(), &group);
        assert!(found.iter().any(|(pid, _)| *pid == holder.id()), "{found:?}");
        for (pid, started) in found {
            proc::kill_verified(pid, started);
        }
        holder.wait().unwrap();
        forget(data.path(), &group);
        assert!(!lock.exists());
    }
}
