//! What is tried in a child, since it cannot be undone in this process: whether rights that seem to be there hold.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::proc::pid_of;
use crate::sys::process::OneThread;

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
