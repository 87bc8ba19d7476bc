//! The kernel's own fence around what a process may write: it needs no rights, so it holds where mounts cannot be made.
//!
//! Runs in the child, once its mounts are in place, since rules hold for what is seen there. To allow another place: a row in
//! [`restrict`].

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::sys::confine::{landlock_abi, landlock_allow, landlock_restrict, landlock_ruleset};

const WRITE_FILE: u64 = 1 << 1;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_BLOCK: u64 = 1 << 11;

/// All ways to change files that the first version of Landlock knows: writing, removing, making.
const WRITES: u64 = WRITE_FILE | 0b1_1111_1111 << 4;

/// Moving between folders, since its second version, and cutting short, since its third.
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;

/// Signals to processes outside, since its sixth version.
const SCOPE_SIGNAL: u64 = 1 << 1;

/// The oldest version that is used: with the first one, no program could move a file from one folder to another.
const ABI_MIN: u32 = 2;

/// Devices that anybody may write.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// Where a process may write.
pub(in crate::keeper) struct Fence<'a> {
    pub(in crate::keeper) writable: &'a [&'a Path],
    /// Its temporary folders are its own.
    pub(in crate::keeper) private_tmp: bool,
    /// /proc is its own, with the kernel's settings read-only.
    pub(in crate::keeper) private_proc: bool,
    /// It may signal only what comes from it.
    pub(in crate::keeper) scope_signals: bool,
    pub(in crate::keeper) outputs: [BorrowedFd<'a>; 2],
}

/// Whether it can be had here; if not, why.
pub(in crate::keeper) fn available() -> Result<(), String> {
    match landlock_abi() {
        Ok(abi) if abi >= ABI_MIN => Ok(()),
        Ok(abi) => Err(format!("this kernel has version {abi} of it, and {ABI_MIN} is needed")),
        Err(error) => Err(error.to_string()),
    }
}

/// Puts up the fence around the calling process, for good.
pub(in crate::keeper) fn restrict(fence: &Fence<'_>) -> io::Result<()> {
    let abi = landlock_abi()?;
    let handled = WRITES | REFER | if abi >= 3 { TRUNCATE } else { 0 };
    let scoped = if abi >= 6 && fence.scope_signals { SCOPE_SIGNAL } else { 0 };
    let ruleset = landlock_ruleset(handled, 0, scoped)?;
    let file = handled & (WRITE_FILE | TRUNCATE);
    let folder = handled & !(MAKE_CHAR | MAKE_BLOCK);
    let mut rules: Vec<(&Path, u64)> = fence.writable.iter().map(|path| (*path, folder)).collect();
    rules.extend(DEVICES.iter().map(|path| (Path::new(*path), file)));
    rules.push((Path::new("/dev/pts"), file));
    if fence.private_tmp {
        rules.extend(["/tmp", "/var/tmp", "/dev/shm"].map(|path| (Path::new(path), folder)));
    }
    if fence.private_proc {
        rules.push((Path::new("/proc"), file));
    }
    for (path, access) in rules {
        // What is not there needs no rule.
        let Ok(place) = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else { continue };
        let is_folder = rustix::fs::fstat(&place).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR);
        landlock_allow(ruleset.as_fd(), place.as_fd(), if is_folder { access } else { access & file })?;
    }
    for output in fence.outputs {
        // One that is no file is not fenced in.
        let _ = landlock_allow(ruleset.as_fd(), output, file);
    }
    landlock_restrict(ruleset.as_fd())
}
