//! Calls that the keeper needs: exec, waiting, signals, descriptors, users.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use super::check;
use super::fork::OneThread;
use crate::model::Exit;

/// A program with its arguments and environment, laid out so that [`Image::exec`] allocates nothing.
pub struct Image {
    candidates: Vec<CString>,
    _arguments: Vec<CString>,
    _environment: Vec<CString>,
    argument_pointers: Vec<*const c_char>,
    environment_pointers: Vec<*const c_char>,
}

impl Image {
    /// `candidates` are tried one after the other, as a search in PATH does.
    pub fn new(candidates: Vec<CString>, arguments: Vec<CString>, environment: Vec<CString>) -> Self {
        let pointers =
            |strings: &[CString]| strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
        let (argument_pointers, environment_pointers) = (pointers(&arguments), pointers(&environment));
        Self { candidates, _arguments: arguments, _environment: environment, argument_pointers, environment_pointers }
    }

    /// The same with one more variable.
    pub fn with(&self, variable: CString) -> Self {
        let environment = self._environment.iter().cloned().chain([variable]).collect();
        Self::new(self.candidates.clone(), self._arguments.clone(), environment)
    }

    /// Replaces this process by the program; returns only if that fails.
    pub fn exec(&self) -> io::Error {
        let mut worst = io::Error::from_raw_os_error(libc::ENOENT);
        for candidate in &self.candidates {
            let (arguments, environment) = (self.argument_pointers.as_ptr(), self.environment_pointers.as_ptr());
            #[expect(unsafe_code, reason = "all pointers lead into strings that `self` owns, and both lists end with null")]
            unsafe {
                libc::execve(candidate.as_ptr(), arguments, environment)
            };
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => worst = error,
                _ => return error,
            }
        }
        worst
    }
}

/// Gives all signals their default effect and lets all of them through, as a program expects it at its start. By the
/// kernel's own call: the C library hides two signals, which may have been ignored by whoever started us.
pub fn reset_signals() {
    // A struct of the kernel's with all fields zero: SIG_DFL, no flags, an empty mask.
    let default = [0u64; 4];
    for signal in 1..=64 {
        let none = std::ptr::null_mut::<u64>();
        #[expect(unsafe_code, reason = "SIG_DFL runs no code of ours; numbers that cannot be set are refused by the kernel")]
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, size_of::<u64>())
        };
    }
    let (all, none) = (0u64, std::ptr::null_mut::<u64>());
    #[expect(unsafe_code, reason = "the set lives until the call returns, and has the size that the kernel asks for")]
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, none, size_of::<u64>())
    };
}

/// The session of a process; `None` where it is gone. Zero stands for one of a namespace that cannot be seen from here, and for
/// the kernel's own threads: that is why no type takes part that knows only numbers above zero.
pub fn session_of(pid: u32) -> Option<u32> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    #[expect(unsafe_code, reason = "takes a number and gives one back")]
    u32::try_from(unsafe { libc::getsid(pid) }).ok()
}

/// Takes these signals from the process and makes them readable from a descriptor instead.
pub fn signal_fd(signals: &[c_int]) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "the set lives on the stack; the descriptor is new and owned by nobody else")]
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            check(libc::sigaddset(&raw mut set, *signal))?;
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    /// Its number.
    pub signal: c_int,
    /// Who sent it; of SIGCHLD, the first of maybe several children that have ended. 0: the kernel, or one who cannot be seen.
    pub sender: u32,
}

/// The signals that are waiting on a descriptor of [`signal_fd`].
pub fn read_signals(fd: BorrowedFd<'_>) -> io::Result<Vec<Caught>> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut buffer = [0u8; SIZE * 8];
    let length = match rustix::io::read(fd, &mut buffer) {
        Ok(length) => length,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => 0,
        Err(error) => return Err(error.into()),
    };
    // Fields of four bytes: ssi_signo, ssi_errno, ssi_code, ssi_pid.
    let field = |record: &[u8], at: usize| record.get(at * 4..)?.first_chunk::<4>().copied();
    let caught = |record: &[u8]| {
        let signal = c_int::from_ne_bytes(field(record, 0)?);
        Some(Caught { signal, sender: u32::from_ne_bytes(field(record, 3)?) })
    };
    Ok(buffer[..length].chunks_exact(SIZE).filter_map(caught).collect())
}

/// Which ended child is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    /// Any: it stays as it is, and its number stays its own.
    PeekAny,
    /// This one, likewise.
    Peek(u32),
    /// This one, which is then gone for good.
    Reap(u32),
}

/// An ended child and how it ended; `None` where there is none (yet).
pub fn wait(child: Child) -> io::Result<Option<(u32, Exit)>> {
    let (kind, id, flags) = match child {
        Child::PeekAny => (libc::P_ALL, 0, libc::WNOWAIT),
        Child::Peek(pid) => (libc::P_PID, pid, libc::WNOWAIT),
        Child::Reap(pid) => (libc::P_PID, pid, 0),
    };
    #[expect(unsafe_code, reason = "siginfo_t is plain data, and read only where waitid filled it in for SIGCHLD")]
    let (pid, code, status) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        if let Err(error) = check(libc::waitid(kind, id, &raw mut info, libc::WEXITED | libc::WNOHANG | flags)) {
            return if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) };
        }
        (info.si_pid(), info.si_code, info.si_status())
    };
    let exit = if code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(crate::model::Signal(status)) };
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0).map(|pid| (pid, exit)))
}

/// Sends a signal to the process behind a pidfd, whatever its number is by now.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    #[expect(unsafe_code, reason = "the descriptor is valid for the call, and no siginfo is handed over")]
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the kernel says of the process behind a pidfd: the first version of its struct, which newer ones only lengthen.
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// How the process behind a pidfd has ended, though it may be nobody's child here; `None` where that is not known (yet):
/// before it was waited for by its parent, and on kernels before 6.15.
pub fn pidfd_exit(pidfd: BorrowedFd<'_>) -> Option<Exit> {
    /// `PIDFD_INFO_EXIT`.
    const EXIT: u64 = 1 << 3;
    /// `_IOWR(0xff, 11, struct pidfd_info)`.
    const GET_INFO: libc::c_ulong = 0xc000_ff0b | ((size_of::<PidfdInfo>() as libc::c_ulong) << 16);
    let mut info = PidfdInfo { mask: EXIT, cgroup: 0, ids: [0; 11], exit_code: 0 };
    #[expect(unsafe_code, reason = "the struct is as long as the request's number says, and lives until the call returns")]
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as libc::Ioctl, &raw mut info) };
    (result == 0 && info.mask & EXIT != 0).then(|| exit_of_status(info.exit_code))
}

/// How a process ended, by the status that wait(2) gives.
pub fn exit_of_status(status: c_int) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal(crate::model::Signal(libc::WTERMSIG(status)))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    }
}

/// Marks all descriptors from `first` on as closed by the next exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "close-on-exec closes nothing now; no descriptor in use is taken away")]
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Closes all descriptors from `first` on. Only for a child that uses none of them any more: it takes them away from their
/// owners.
pub fn close_from(_child: &OneThread, first: u32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "the caller is a child that ends without using or dropping what is closed")]
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts a copy of a descriptor at a number, in the place of whatever is there, and open over exec. Only for a child
/// that is about to exec: it may take a descriptor away from its owner.
pub fn place_fd(_child: &OneThread, fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        return Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?);
    }
    #[expect(unsafe_code, reason = "the caller is a child that uses no other descriptor before exec")]
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// A message of a local socket, and who sent it as the kernel saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Bytes of it that were read.
    pub length: usize,
    /// It was longer than the buffer.
    pub cut: bool,
    /// Who sent it; 0 for one whom this process cannot see.
    pub pid: u32,
    /// As which user.
    pub uid: u32,
}

/// Reads a message and its sender from a socket that has SO_PASSCRED; `None` where there is none. Descriptors that came
/// with it are closed by the kernel, since there is no room to take them.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Message>> {
    /// Room for one record of credentials and nothing else, aligned as the kernel wants it.
    #[repr(C, align(8))]
    struct Control([u8; 32]);
    let mut control = Control([0; 32]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    #[expect(
        unsafe_code,
        reason = "all parts live until the call returns; the record of credentials is read only where it is one"
    )]
    unsafe {
        let mut head: libc::msghdr = std::mem::zeroed();
        head.msg_iov = &raw mut part;
        head.msg_iovlen = 1;
        head.msg_control = control.0.as_mut_ptr().cast();
        head.msg_controllen = control.0.len() as _;
        let length = libc::recvmsg(socket.as_raw_fd(), &raw mut head, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC);
        let Ok(length) = usize::try_from(length) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
        };
        let record = libc::CMSG_FIRSTHDR(&raw const head);
        if record.is_null() || (*record).cmsg_level != libc::SOL_SOCKET || (*record).cmsg_type != libc::SCM_CREDENTIALS {
            return Err(io::Error::other("the kernel does not say who sent a message"));
        }
        let sender: libc::ucred = libc::CMSG_DATA(record).cast::<libc::ucred>().read_unaligned();
        let cut = head.msg_flags & libc::MSG_TRUNC != 0;
        Ok(Some(Message { length, cut, pid: u32::try_from(sender.pid).unwrap_or(0), uid: sender.uid }))
    }
}

/// Takes over a descriptor that whoever started this process has left open. To be called once per number.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "the descriptor is only looked at; that it is open is what is asked")]
    rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })?;
    #[expect(unsafe_code, reason = "it was inherited under a number that the starter named, so nobody here owns it")]
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// An entry of the user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// Longest entry of the user database that is taken, in bytes.
const USER_MAX_BYTES: usize = 64 * 1024;

/// Looks a user up by name.
pub fn user_by_name(name: &CStr) -> io::Result<Option<User>> {
    #[expect(unsafe_code, reason = "all pointers are valid for the call; see `lookup`")]
    lookup(|entry, buffer, size, found| unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer, size, found) })
}

/// Looks a user up by id.
pub fn user_by_id(uid: u32) -> io::Result<Option<User>> {
    #[expect(unsafe_code, reason = "all pointers are valid for the call; see `lookup`")]
    lookup(|entry, buffer, size, found| unsafe { libc::getpwuid_r(uid, entry, buffer, size, found) })
}

fn lookup(call: impl Fn(*mut libc::passwd, *mut c_char, usize, *mut *mut libc::passwd) -> c_int) -> io::Result<Option<User>> {
    let mut size = 1024;
    loop {
        let mut buffer: Vec<c_char> = vec![0; size];
        let mut found = std::ptr::null_mut();
        #[expect(unsafe_code, reason = "passwd is plain data for which zero is valid")]
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        match call(&raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found) {
            0 if found.is_null() => return Ok(None),
            0 => {
                let (uid, gid) = (entry.pw_uid, entry.pw_gid);
                let (name, home, shell) = (text(entry.pw_name), text(entry.pw_dir), text(entry.pw_shell));
                return Ok(Some(User { name, uid, gid, home, shell }));
            }
            libc::ERANGE if size < USER_MAX_BYTES => size *= 4,
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// A string of the entry, which leads into the buffer that is still alive in `lookup`.
fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    #[expect(unsafe_code, reason = "the C library has put a terminated string there")]
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// Most supplementary groups that are taken.
const GROUPS_MAX: usize = 65_536;

/// All groups of a user.
pub fn groups_of(name: &CStr, gid: u32) -> io::Result<Vec<u32>> {
    let mut groups = vec![0; 32];
    loop {
        let mut count = c_int::try_from(groups.len()).unwrap_or(c_int::MAX);
        #[expect(unsafe_code, reason = "the list has room for as many groups as `count` says")]
        let result = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if result >= 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        if groups.len() >= GROUPS_MAX {
            return Err(io::Error::other("the user is in more groups than the kernel takes"));
        }
        groups.resize((groups.len() * 2).max(count), 0);
    }
}
