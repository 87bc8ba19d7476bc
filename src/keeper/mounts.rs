//! Mount namespaces of services: making one, and switching what is seen in it.
//!
//! A switch puts the new publication beneath the one that is seen and then takes that away: no path lookup can fall between
//! the two. It needs Linux 6.5.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{PidfdFlags, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::beneath::{below, folder};
use crate::model::View;
use crate::sys::process::{OneThread, mount_read_only, unshare_mounts};

/// Gives the calling process its own mount namespace. What is mounted and unmounted on the host later is followed, so that
/// a service neither misses a disk nor keeps one busy; nothing goes the other way.
pub(super) fn own_namespace() -> io::Result<()> {
    unshare_mounts()?;
    Ok(mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?)
}

/// A read-only mount of a directory that is not attached anywhere yet.
pub(super) fn detached(source: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let mount = open_tree(CWD, source.as_ref(), flags)?;
    mount_read_only(mount.as_fd())?;
    Ok(mount)
}

/// The same of a publication: its group's folder is the supervisor's, who may have put a link there, and none is followed.
pub(super) fn published(view: &View) -> io::Result<OwnedFd> {
    let source = Path::new(&view.source);
    let names: Vec<_> = source.iter().rev().take(PUBLICATION_DEPTH).collect();
    let root = source.ancestors().nth(PUBLICATION_DEPTH).ok_or(io::ErrorKind::InvalidInput)?;
    let found = below(folder(root)?, names.into_iter().rev())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(&found, "", flags)?;
    mount_read_only(mount.as_fd())?;
    Ok(mount)
}

/// Names of a publication's path below the data folder: `publications`, the group's, its own.
const PUBLICATION_DEPTH: usize = 3;

/// Attaches a detached mount over a directory. A link there is not followed; above it, all is the keeper's.
pub(super) fn attach(mount: BorrowedFd<'_>, point: &str) -> io::Result<()> {
    Ok(move_mount(mount, c"", CWD, point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Does once, in the calling process, all that a service's start needs, with a directory mounted over itself.
pub(super) fn try_all(directory: &Path) -> io::Result<()> {
    let mount = detached(directory)?;
    own_namespace()?;
    move_mount(&mount, c"", CWD, directory, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    // A later switch goes into a service's namespace, which takes a right of its own.
    enter(pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?.as_fd())
}

/// Goes into the mount namespace of a process.
pub(super) fn enter(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_thread_name_spaces(pidfd, ThreadNameSpaceType::MOUNT)?)
}

fn switch(pidfd: BorrowedFd<'_>, mount: BorrowedFd<'_>, point: &str) -> Result<(), (u8, io::Error)> {
    enter(pidfd).map_err(|error| (0, error))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_BENEATH;
    move_mount(mount, c"", CWD, point, flags).map_err(|error| (1, error.into()))?;
    unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).map_err(|error| (2, error.into()))
}

/// Steps of [`switch`], for people.
const STEPS: [&str; 3] = [
    "the service's mount namespace cannot be entered",
    "the new publication cannot be put beneath the old one (Linux 6.5 or newer is needed)",
    "the old publication cannot be taken off",
];

/// How long a switch may take; it waits for no disk, so this bounds a kernel that hangs.
const SWITCH_TIMEOUT_MS: i64 = 2_000;

/// Switches what a service sees at the view's point. `Err` says what it still sees: the old publication.
pub(super) fn show(one_thread: &OneThread, pidfd: BorrowedFd<'_>, view: &View) -> Result<(), String> {
    let failed = |step: &str, error: io::Error| {
        format!("publication {} cannot be shown: {step}: {error}; the service still sees the one before", view.publication)
    };
    let mount = published(view).map_err(|error| failed("its directory cannot be mounted", error))?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| failed("no pipe could be made", error.into()))?;
    let attempt = || {
        let answer = match switch(pidfd, mount.as_fd(), &view.point) {
            Ok(()) => [u8::MAX, 0, 0, 0, 0],
            Err((step, error)) => {
                let [a, b, c, d] = error.raw_os_error().unwrap_or(0).to_le_bytes();
                [step, a, b, c, d]
            }
        };
        i32::from(rustix::io::write(&write, &answer).is_err())
    };
    let pid = one_thread.fork(attempt).map_err(|error| failed("no child could be made", error))?;
    drop(write);
    let answer = read_answer(&read);
    if answer.is_none() {
        end_child(pid);
    }
    match answer {
        Some([u8::MAX, ..]) => Ok(()),
        Some([step, errno @ ..]) => {
            let step = STEPS.get(usize::from(step)).copied().unwrap_or("an unknown step failed");
            Err(failed(step, io::Error::from_raw_os_error(i32::from_le_bytes(errno))))
        }
        None => Err(failed("the switch did not end", io::ErrorKind::TimedOut.into())),
    }
}

fn read_answer(pipe: &OwnedFd) -> Option<[u8; 5]> {
    let mut poll = [rustix::event::PollFd::new(pipe, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: SWITCH_TIMEOUT_MS / 1000, tv_nsec: 0 };
    rustix::event::poll(&mut poll, Some(&timeout)).ok().filter(|ready| *ready > 0)?;
    let mut answer = [0; 5];
    (rustix::io::read(pipe, &mut answer) == Ok(answer.len())).then_some(answer)
}

/// Kills a child that does not answer. Like one that has answered and ends, it is collected by the loop once it can be: its
/// answer is all that is waited for.
fn end_child(pid: u32) {
    // It is ours and not yet waited for, so its number is its own.
    if let Some(pid) = super::proc::pid_of(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
