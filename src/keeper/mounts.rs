//! Mount namespaces of services: making one, and switching what is seen in it.
//!
//! A switch puts the new publication beneath the one that is seen and then moves that aside: no path lookup can fall between
//! the two. It needs Linux 6.5. The old one is unmounted after the switch was answered, since the kernel answers an unmount
//! late: it first waits until no processor looks at the mount any more.
//!
//! The keeper goes into the service's namespace itself and comes back at once. Where processors are taken, whoever sleeps on
//! the way stands in line for each step anew. Only where a namespace is not of the keeper's making, so that somebody without
//! rights may have mounted there what never answers, it sends a child, and gives that up after a while.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::fs::{Mode, OFlags, fstat, open, stat};
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{PidfdFlags, fchdir, pidfd_open};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces};

use super::beneath::{below, folder};
use super::trial::attempt;
use crate::model::View;
use crate::sys::fork::OneThread;
use crate::sys::mounts::{mount_apart, mount_read_only, owner_of_namespace, unshare_mounts};
use crate::sys::process::pidfd_signal;

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
    mount_apart(mount.as_fd())?;
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

/// Where this process is at home, to come back to from a service's mount namespace.
pub(super) struct Home {
    namespace: OwnedFd,
    directory: OwnedFd,
    /// The user namespace that it is in.
    user: (u64, u64),
}

impl Home {
    /// `None` where there is no way back: in a changed root.
    pub(super) fn find(one_thread: &OneThread) -> Option<Self> {
        let there = || -> io::Result<Self> {
            let user = stat("/proc/self/ns/user")?;
            let directory = open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            Ok(Self { namespace: namespace_at("/proc/self/ns/mnt")?, directory, user: (user.st_dev, user.st_ino) })
        };
        let home = there().ok()?;
        let there_and_back = || -> io::Result<()> {
            let before = stat("/")?;
            own_namespace()?;
            home.back()?;
            let after = stat("/")?;
            let same = (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino);
            if same { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
        };
        attempt(one_thread, there_and_back).is_ok().then_some(home)
    }

    /// The mount namespace of a process, if whoever mounts there has rights where this process is, too.
    fn trusted(&self, pidfd: BorrowedFd<'_>, pid: u32) -> Option<OwnedFd> {
        let namespace = namespace_at(format!("/proc/{pid}/ns/mnt")).ok()?;
        // As long as it lives, its number is its own.
        pidfd_signal(pidfd, 0).ok()?;
        let owner = fstat(owner_of_namespace(namespace.as_fd()).ok()?).ok()?;
        ((owner.st_dev, owner.st_ino) == self.user).then_some(namespace)
    }

    fn back(&self) -> io::Result<()> {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
        Ok(fchdir(&self.directory)?)
    }

    /// Does something in another mount namespace.
    fn away<T>(&self, namespace: BorrowedFd<'_>, what: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount)).map_err(|error| (0, error.into()))?;
        let done = what();
        if let Err(error) = self.back() {
            // Whatever it did from now on would be done to one service's files. The next keeper takes its services up.
            super::engine::say(&format!("the way back from a service's mount namespace is closed ({error}): this keeper ends"));
            std::process::abort();
        }
        done
    }
}

fn namespace_at(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    Ok(open(path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Where the publication before lies, once it is seen no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Aside,
    Unmounted,
}

/// The step that failed, of [`STEPS`].
type Failed = (u8, io::Error);

/// Switches in the mount namespace that this process is in.
fn switch(mount: BorrowedFd<'_>, point: &str, aside: &Path) -> Result<Before, Failed> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_BENEATH;
    move_mount(mount, c"", CWD, point, flags).map_err(|error| (1, error.into()))?;
    // A mount that an older version made may be shared, and then it cannot be moved.
    if move_mount(CWD, point, CWD, aside, MoveMountFlags::empty()).is_ok() {
        return Ok(Before::Aside);
    }
    unmount_top(point).map_err(|error| (2, error))?;
    Ok(Before::Unmounted)
}

fn unmount_top(point: impl AsRef<Path>) -> io::Result<()> {
    Ok(unmount(point.as_ref(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

/// Steps of a switch, for people.
const STEPS: [&str; 4] = [
    "the service's mount namespace cannot be entered",
    "the new publication cannot be put beneath the old one (Linux 6.5 or newer is needed)",
    "the old publication cannot be taken off",
    "the switch did not end",
];

/// How long a switch may take; it waits for no disk, so this bounds a kernel that hangs.
const SWITCH_TIMEOUT_MS: i64 = 2_000;

/// Who sees a publication, and from where the keeper switches it.
pub(super) struct Viewer<'a> {
    pub(super) one_thread: &'a OneThread,
    pub(super) home: Option<&'a Home>,
    pub(super) pidfd: BorrowedFd<'a>,
    pub(super) pid: u32,
    /// A folder that no service needs to see into; until [`unmount_aside`], it has the old publication there.
    pub(super) aside: &'a Path,
}

impl Viewer<'_> {
    /// Switches what a service sees at the view's point. `Ok` has the namespace in which the old publication is to be
    /// unmounted; `Err` says what the service still sees: the old publication.
    pub(super) fn show(&self, view: &View) -> Result<Option<OwnedFd>, String> {
        let told = |step: &str, error: io::Error| {
            format!("publication {} cannot be shown: {step}: {error}; the service still sees the one before", view.publication)
        };
        let failed = |(step, error): Failed| told(STEPS.get(usize::from(step)).copied().unwrap_or("an unknown step"), error);
        let mount = published(view).map_err(|error| told("its directory cannot be mounted", error))?;
        let trusted = self.home.and_then(|home| Some((home, home.trusted(self.pidfd, self.pid)?)));
        if let Some((home, namespace)) = trusted {
            let switched = home.away(namespace.as_fd(), || switch(mount.as_fd(), &view.point, self.aside)).map_err(failed)?;
            return Ok((switched == Before::Aside).then_some(namespace));
        }
        self.send_child(mount.as_fd(), view).map_err(|error| told("no child could be sent there", error))?.map_err(failed)?;
        Ok(None)
    }

    /// The same by a child, which may not come back.
    fn send_child(&self, mount: BorrowedFd<'_>, view: &View) -> io::Result<Result<(), Failed>> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let go = || {
            enter(self.pidfd).map_err(|error| (0, error))?;
            switch(mount, &view.point, self.aside)
        };
        let attempt = || {
            let switched = go();
            let answer = match &switched {
                Ok(_) => [u8::MAX, 0, 0, 0, 0],
                Err((step, error)) => {
                    let [a, b, c, d] = error.raw_os_error().unwrap_or(0).to_le_bytes();
                    [*step, a, b, c, d]
                }
            };
            let told = rustix::io::write(&write, &answer).is_ok();
            let left = switched.is_ok_and(|before| before == Before::Aside);
            i32::from(!told || left && unmount_top(self.aside).is_err())
        };
        let pid = self.one_thread.fork(attempt)?;
        drop(write);
        Ok(match read_answer(&read) {
            Some([u8::MAX, ..]) => Ok(()),
            Some([step, errno @ ..]) => Err((step, io::Error::from_raw_os_error(i32::from_le_bytes(errno)))),
            None => {
                end_child(pid);
                Err((3, io::ErrorKind::TimedOut.into()))
            }
        })
    }
}

/// Unmounts old publications, by a child that nobody waits for. `Err` where none could be made.
pub(super) fn unmount_aside(one_thread: &OneThread, namespaces: &[OwnedFd], aside: &Path) -> io::Result<()> {
    let unmount = |namespace: &OwnedFd| -> io::Result<()> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
        unmount_top(aside)
    };
    // One that cannot be unmounted hides nothing that a service needs, and is moved along by the next switch.
    one_thread.fork(|| i32::from(namespaces.iter().any(|namespace| unmount(namespace).is_err()))).map(drop)
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
