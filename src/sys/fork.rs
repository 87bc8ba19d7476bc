//! Making child processes that go on in Rust: as a copy, born in a cgroup, or with few of the parent's descriptors.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::check;
use super::process::{Child, pidfd_signal, wait};

/// Proof that this process has one thread, or one that works and one that only waits for it, so that a forked child may go on
/// in Rust: no lock can be held by another.
pub struct OneThread {
    /// Whether the kernel lets a child take only some of the parent's descriptors; so until it has refused.
    parts: Cell<bool>,
    _not_sent: PhantomData<*const ()>,
}

/// By when a child that shares the parent's descriptors must have its own: two system calls after its birth. Then it is
/// ended, since the parent waits for it.
const PART_MAX: Duration = Duration::from_secs(5);

/// How a child went about taking descriptors of its own, as it counts them up on an eventfd.
const PARTED: u64 = 1;
const NOT_PARTED: u64 = 2;

/// Flags of clone3(2): the child begins in the cgroup that is named, shares the table of descriptors, is held by a pidfd.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CLONE_FILES: u64 = 0x400;
const CLONE_PIDFD: u64 = 0x1000;

/// Exit code of a child whose code panicked.
const CHILD_PANICKED: i32 = 126;

impl OneThread {
    /// Looks whether it is so. Whoever holds the proof starts no thread as long as it uses it.
    pub fn prove() -> io::Result<Self> {
        let threads = std::fs::read_dir("/proc/self/task")?.count();
        if threads == 1 { Ok(Self::assume()) } else { Err(io::Error::other(format!("there are {threads} threads"))) }
    }

    fn assume() -> Self {
        Self { parts: Cell::new(true), _not_sent: PhantomData }
    }

    /// Does the work of this process in a second thread, while the first, which must be the only one, waits for it. The kernel
    /// lists children by the thread that made them, and gives processes that lose their parent to the first: so whoever makes
    /// all in the second finds those in a short list, and not among thousands. Working directory, root and mount namespace are
    /// the second thread's own as far as the kernel allows.
    pub fn beside_the_first<T: Send>(work: impl FnOnce(Self) -> T + Send) -> io::Result<T> {
        Self::prove()?;
        let with_parent = rustix::process::parent_process_death_signal()?;
        let second = || {
            // A thread does not inherit it, and whoever execs is what is left of the process.
            let _ = rustix::process::set_parent_process_death_signal(with_parent);
            // Without it a thread cannot go into another mount namespace, and says so where it tries.
            #[expect(unsafe_code, reason = "takes a number, and changes what this thread shares with one that only waits")]
            let _ = unsafe { libc::unshare(libc::CLONE_FS) };
            work(Self::assume())
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, second)?;
            thread.join().map_or_else(|panic| std::panic::resume_unwind(panic), Ok)
        })
    }

    /// Makes a child process that runs `child` and ends with the code that it returns. Nothing of the parent's is
    /// dropped or flushed in the child.
    pub fn fork(&self, child: impl FnOnce() -> i32) -> io::Result<u32> {
        #[expect(unsafe_code, reason = "fork(2) is sound here: `self` proves that no other thread holds a lock")]
        let pid = check(unsafe { libc::fork() })?;
        if pid == 0 {
            run(child);
        }
        u32::try_from(pid).map_err(|_| io::Error::other("fork returned no process id"))
    }

    /// As [`fork`](Self::fork), but the child is born in a cgroup of the unified hierarchy, which costs a start nothing;
    /// moving there later takes milliseconds. `child` is told whether it was: older kernels cannot do it, and then it
    /// begins where the parent is.
    pub fn fork_into(&self, cgroup: Option<BorrowedFd<'_>>, child: impl FnOnce(bool) -> i32) -> io::Result<u32> {
        if cgroup.is_none() {
            return self.fork(|| child(false));
        }
        match clone(cgroup, 0) {
            Ok(None) => run(|| child(true)),
            Ok(Some(born)) => Ok(born.pid),
            Err(error) if is_final(&error) => Err(error),
            Err(_) => self.fork(|| child(false)),
        }
    }

    /// As [`fork_into`](Self::fork_into), but of the parent's descriptors the child gets only those with numbers below
    /// `below`: a copy of thousands, and closing them at exec, takes longer than all else of a start. To that end it shares
    /// the table at first and then takes its own part (close_range(2) with `CLOSE_RANGE_UNSHARE`), for which the parent
    /// waits. Where that cannot be had, it gets all of them.
    pub fn fork_with_few(
        &self,
        cgroup: Option<BorrowedFd<'_>>,
        below: RawFd,
        child: impl FnOnce(bool) -> i32,
    ) -> io::Result<u32> {
        let parted = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
        let Some(parted) = parted.filter(|fd| self.parts.get() && fd.as_raw_fd() < below) else {
            return self.fork_into(cgroup, child);
        };
        let born = match clone(cgroup, CLONE_FILES) {
            Ok(None) => run(|| match part(below) {
                Ok(()) => {
                    let _ = rustix::io::write(&parted, &PARTED.to_ne_bytes());
                    child(cgroup.is_some())
                }
                Err(_) => i32::from(rustix::io::write(&parted, &NOT_PARTED.to_ne_bytes()).is_err()),
            }),
            Ok(Some(born)) => born,
            Err(error) if is_final(&error) => return Err(error),
            Err(_) => return self.fork_into(cgroup, child),
        };
        match born.wait_until_parted(&parted) {
            Ok(true) => Ok(born.pid),
            Ok(false) => {
                self.parts.set(false);
                born.reap();
                self.fork_into(cgroup, child)
            }
            Err(error) => {
                born.reap();
                Err(error)
            }
        }
    }
}

/// A child as its parent has it.
struct Born {
    pid: u32,
    pidfd: OwnedFd,
}

impl Born {
    /// Whether it has its own descriptors (or has ended before it could, by a signal: then it needs none); `false` where the
    /// kernel does not allow it.
    fn wait_until_parted(&self, parted: &OwnedFd) -> io::Result<bool> {
        let timeout = Timespec::try_from(PART_MAX).map_err(io::Error::other)?;
        let mut ends = [parted, &self.pidfd].map(|fd| PollFd::new(fd, PollFlags::IN));
        loop {
            match poll(&mut ends, Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut count = [0; size_of::<u64>()];
        let told = rustix::io::read(parted, &mut count).is_ok();
        Ok(!told || u64::from_ne_bytes(count) == PARTED)
    }

    /// Ends it, and waits for it.
    fn reap(&self) {
        let _ = pidfd_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let timeout = Timespec::try_from(PART_MAX).ok();
        let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], timeout.as_ref());
        // One that cannot be ended is waited for with all others of no name.
        let _ = wait(Child::Reap(self.pid));
    }
}

/// Calls clone3(2) for a child that is held by a pidfd. `None`: this is the child.
fn clone(cgroup: Option<BorrowedFd<'_>>, flags: u64) -> io::Result<Option<Born>> {
    let mut pidfd: RawFd = -1;
    #[expect(unsafe_code, reason = "clone_args is plain data for which zero is valid")]
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | CLONE_PIDFD;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    }
    let (pointer, size) = (&raw const arguments, size_of::<libc::clone_args>());
    #[expect(
        unsafe_code,
        reason = "as fork(2): no memory is shared and no stack given, and callers hold the proof that there is one thread"
    )]
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, pointer, size) })?;
    if pid == 0 {
        return Ok(None);
    }
    #[expect(unsafe_code, reason = "the kernel has put a new descriptor there, which nobody else owns")]
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = u32::try_from(pid).map_err(|_| io::Error::other("clone3 returned no process id"))?;
    Ok(Some(Born { pid, pidfd }))
}

/// No process, or no memory for one: that would be no better in another way.
fn is_final(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM))
}

/// Takes the descriptors below a number for this process's own, and leaves the others to whom they were shared with.
fn part(below: RawFd) -> io::Result<()> {
    #[expect(unsafe_code, reason = "what is closed stays open in the parent's table, and the caller uses none of it")]
    check(unsafe { libc::syscall(libc::SYS_close_range, below, u32::MAX, libc::CLOSE_RANGE_UNSHARE) }).map(drop)
}

/// What a child does, to its end.
fn run(child: impl FnOnce() -> i32) -> ! {
    // A panic must not unwind into the parent's frames and go on as a second parent.
    let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(CHILD_PANICKED);
    #[expect(unsafe_code, reason = "_exit(2) ends the child without running the parent's destructors")]
    unsafe {
        libc::_exit(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests run in processes with several threads; what these children do takes no lock.
    fn one_thread() -> OneThread {
        OneThread::assume()
    }

    fn exit_of(pid: u32) -> i32 {
        loop {
            match wait(Child::Reap(pid)).unwrap() {
                Some((_, crate::model::Exit::Code(code))) => return code,
                Some((_, other)) => panic!("{other:?}"),
                None => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn a_child_gets_the_low_descriptors_and_the_parent_loses_none() {
        const BELOW: RawFd = 200;
        let low = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let high = rustix::io::fcntl_dupfd_cloexec(&low, BELOW).unwrap();
        let (low_number, high_number) = (low.as_raw_fd(), high.as_raw_fd());
        #[expect(unsafe_code, reason = "fcntl(2) with F_GETFD only asks, and allocates nothing")]
        let is_open = |number| unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
        let child = |_| i32::from(is_open(low_number)) | i32::from(is_open(high_number)) << 1;
        let pid = one_thread().fork_with_few(None, BELOW, child).unwrap();
        assert_eq!(exit_of(pid), 0b01);
        assert!(is_open(high_number));
        // Where its own part cannot be had for the numbers in use, it gets all.
        let pid = one_thread().fork_with_few(None, 1, child).unwrap();
        assert_eq!(exit_of(pid), 0b11);
    }

    #[test]
    fn a_child_that_dies_early_is_the_callers_to_wait_for() {
        let pid = one_thread().fork_with_few(None, 200, |_| 7).unwrap();
        assert_eq!(exit_of(pid), 7);
    }
}
