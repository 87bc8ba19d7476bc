//! What this process gives up before it reads the first byte of a module: rights, files, sockets, other processes, most system
//! calls. All of it for good.
//!
//! What the kernel would not enforce comes back as words for the status; it stops nothing, since a module has no way to any of
//! these in the first place. To allow another system call: a row of [`ALLOWED`], with what needs it.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use libc::c_long;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::hooks::wire::Gap;
use crate::sys::confine::{Instruction, landlock_abi, landlock_allow, landlock_restrict, landlock_ruleset, seccomp};

/// Who owns nothing: a user that no file should belong to.
const NOBODY: u32 = 65_534;

/// Reading files, of Landlock's rights.
const READ_FILE: u64 = 1 << 2;
/// All rights over files that its versions know, from the first on.
const FILES: [u64; 5] = [0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff];
/// Binding and connecting over TCP, since the fourth.
const NET: u64 = 0b11;
/// Abstract unix sockets and signals of others, since the sixth.
const SCOPED: u64 = 0b11;

/// System calls that a process lives on which has all its files and connections handed to it.
const ALLOWED: &[c_long] = &[
    // Waiting, and talking over what is open.
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_create1,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    // Of tokio, whose drivers wake themselves so: connected to nobody else.
    libc::SYS_socketpair,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    // Memory: instances, stacks, code.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_memfd_create,
    libc::SYS_membarrier,
    // Threads: the ticker, and reading files.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    // Traps and aborts.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    // Opened files and folders; opening is for the code of modules, and Landlock's to judge.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_getdents64,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
];

/// Calls that only x86_64 has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[c_long] = &[];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// What a new thread is cloned with, and a new process is not.
const CLONE_THREAD: u32 = 0x0001_0000;

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7FFF_0000;
const FAIL: u32 = 0x0005_0000;
/// Offsets in what the kernel shows of a call: its number, the architecture, the lower half of the first argument.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENT: u32 = if cfg!(target_endian = "big") { 20 } else { 16 };

/// Bounds of a process.
pub(super) struct Bounds {
    /// Bytes of address space; `None` for one that reserves room for many memories.
    pub(super) address_space: Option<u64>,
    /// Seconds of processor time in a process's whole life.
    pub(super) cpu_s: Option<u64>,
    /// Bytes of a file.
    pub(super) file: u64,
    /// Open files.
    pub(super) files: u64,
}

/// Shuts the calling process in, which has one thread; `code` is the folder that compiled modules lie in. Dies with its
/// parent from here on.
///
/// # Errors
/// Where even what every kernel has cannot be had, or the parent is gone.
pub(super) fn confine(parent: u32, bounds: &Bounds, code: Option<&Path>) -> io::Result<Vec<Gap>> {
    let mut gaps = Vec::new();
    let gap = |words: String, open: bool| Gap { words, open };
    let limits = [
        (Resource::As, bounds.address_space),
        (Resource::Cpu, bounds.cpu_s),
        (Resource::Fsize, Some(bounds.file)),
        (Resource::Nofile, Some(bounds.files)),
        (Resource::Core, Some(0)),
    ];
    for (resource, bound) in limits.into_iter().filter_map(|(resource, bound)| bound.map(|bound| (resource, bound))) {
        // One that was set lower by others stays.
        let before = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let bound = Some(bound.min(before));
        rustix::process::setrlimit(resource, Rlimit { current: bound, maximum: bound })?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::thread::set_no_new_privs(true)?;
    // Opened while this user may still look into the folder.
    let code = code.map(|code| openat(CWD, code, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())).transpose()?;
    if let Err(error) = become_nobody() {
        gaps.push(gap(format!("it runs as the user of whoever started it ({error})"), false));
    }
    // A change of user forgets this, so it comes after.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let is_ours = rustix::process::getppid().map(Pid::as_raw_nonzero).is_some_and(|pid| pid.get().cast_unsigned() == parent);
    if !is_ours {
        return Err(io::Error::other("its parent is gone"));
    }
    if let Err(error) = fence(code.as_ref(), &mut gaps) {
        gaps.push(gap(format!("Landlock does not fence it off from files ({error})"), true));
    }
    if let Err(error) = seccomp(&filter()) {
        gaps.push(gap(format!("no filter of system calls ({error})"), true));
    }
    Ok(gaps)
}

/// Another user than whoever started it, and no capability.
fn become_nobody() -> io::Result<()> {
    let nothing = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    if !rustix::process::geteuid().is_root() {
        // Whatever it was given beside is given up; without any, there is nothing to do.
        let _ = rustix::thread::set_capabilities(None, nothing);
        return Err(io::Error::other("only root may become another"));
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let become_it = || {
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(group, group, group)?;
        rustix::thread::set_thread_res_uid(user, user, user)
    };
    let became: rustix::io::Result<()> = become_it();
    let _ = rustix::thread::set_capabilities(None, nothing);
    Ok(became?)
}

fn fence(code: Option<&std::os::fd::OwnedFd>, gaps: &mut Vec<Gap>) -> io::Result<()> {
    let abi = landlock_abi()?;
    let Some(newest) = usize::try_from(abi).ok().filter(|abi| *abi > 0) else {
        return Err(io::Error::other("it is switched off"));
    };
    let files = FILES[newest.min(FILES.len()) - 1];
    let net = if abi >= 4 { NET } else { 0 };
    let scoped = if abi >= 6 { SCOPED } else { 0 };
    if abi < 4 {
        let words = format!("Landlock {abi} knows nothing of TCP; the filter of system calls denies sockets");
        gaps.push(Gap { words, open: false });
    }
    if abi < 6 {
        let words = format!("Landlock {abi} knows nothing of signals; the filter of system calls denies them");
        gaps.push(Gap { words, open: false });
    }
    let ruleset = landlock_ruleset(files, net, scoped)?;
    if let Some(code) = code {
        landlock_allow(ruleset.as_fd(), code.as_fd(), READ_FILE)?;
    }
    landlock_restrict(ruleset.as_fd())
}

/// The filter: what is not allowed fails with EPERM; clone3 with ENOSYS, so that libc takes clone for a thread.
fn filter() -> Vec<Instruction> {
    let step = |code, value, if_true, if_false| Instruction { code, if_true, if_false, value };
    let fail = |errno: i32| step(RETURN, FAIL | errno.unsigned_abs(), 0, 0);
    let number = |call: c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let mut program = vec![step(LOAD, ARCH, 0, 0), step(JUMP_EQUAL, ARCHITECTURE, 1, 0), fail(libc::ENOSYS)];
    program.push(step(LOAD, NUMBER, 0, 0));
    for call in ALLOWED.iter().chain(ALLOWED_HERE) {
        program.push(step(JUMP_EQUAL, number(*call), 0, 1));
        program.push(step(RETURN, ALLOW, 0, 0));
    }
    program.push(step(JUMP_EQUAL, number(libc::SYS_clone3), 0, 1));
    program.push(fail(libc::ENOSYS));
    program.push(step(JUMP_EQUAL, number(libc::SYS_clone), 1, 0));
    program.push(fail(libc::EPERM));
    program.push(step(LOAD, ARGUMENT, 0, 0));
    program.push(step(JUMP_ANY_BIT, CLONE_THREAD, 1, 0));
    program.push(fail(libc::EPERM));
    program.push(step(RETURN, ALLOW, 0, 0));
    program
}
