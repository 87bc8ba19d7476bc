//! What is tried in a child, since it cannot be undone in this process: whether rights that seem to be there hold.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::proc::{children_of_first_thread, pid_of};
use crate::sys::fork::OneThread;

/// Tries something, which leaves this process as it was. An error of the kernel's comes back as such; any other kind says that
/// it could not be tried.
pub(super) fn attempt(one_thread: &OneThread, what: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    attempt_in(one_thread, None, |_| what())
}

/// The same by a child that is born in a cgroup, where one is given; it is told whether it was.
pub(super) fn attempt_in(
    one_thread: &OneThread,
    cgroup: Option<BorrowedFd<'_>>,
    what: impl FnOnce(bool) -> io::Result<()>,
) -> io::Result<()> {
    let child = |born| match what(born) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().filter(|errno| (1..=UNKNOWN).contains(errno)).unwrap_or(UNKNOWN),
    };
    let pid = one_thread.fork_into(cgroup, child);
    match code_of(pid.map_err(|error| io::Error::other(format!("no child could be made to try it: {error}")))?) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::Error::other("the process that tried it was killed")),
    }
}

/// Exit code of a child whose error has no number, or none that fits.
pub(super) const UNKNOWN: i32 = 255;

/// Waits for a child that tries something, and gives its exit code, if it has one.
pub(super) fn code_of(pid: u32) -> Option<i32> {
    // It is ours and not yet waited for, so its number is its own.
    let status = waitid(WaitId::Pid(pid_of(pid)?), WaitIdOptions::EXITED);
    status.ok().flatten().and_then(|status| status.exit_status())
}

/// Whether processes that lose their parent come to the first thread of this one, as kernels have it where that is alive: tried
/// with one. This process must be their reaper by now.
pub(super) fn orphans_come_first(one_thread: &OneThread) -> bool {
    let tried = || -> io::Result<bool> {
        let (told, tell) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let child = || match one_thread.fork(|| 0) {
            Ok(orphan) => i32::from(rustix::io::write(&tell, &orphan.to_ne_bytes()).is_err()),
            Err(_) => UNKNOWN,
        };
        let made = code_of(one_thread.fork(child)?);
        let mut orphan = [0; size_of::<u32>()];
        if made != Some(0) || rustix::io::read(&told, &mut orphan)? != orphan.len() {
            return Ok(false);
        }
        let orphan = u32::from_ne_bytes(orphan);
        // Also one that has ended, until it is waited for.
        let came = children_of_first_thread(std::process::id()).contains(&orphan);
        Ok(came && code_of(orphan) == Some(0))
    };
    tried().unwrap_or(false)
}
