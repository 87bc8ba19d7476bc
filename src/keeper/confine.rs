//! What the supervisor's process is left with: a user of its own without capabilities, nothing to gain by what it executes, a
//! fence around what it writes, a filter of its system calls.
//!
//! Found out once, by trying in a child; what the kernel does not allow is said to the supervisor, whose status names it. As
//! root, by the operator's word, nothing is taken away. To take away another right: a step in [`Confinement::enter`], with its
//! words.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::error::KeeperError;
use super::grants::{Grants, RunAs};
use super::rights::Rights;
use super::spawn::landlock::{Fence, restrict};
use super::spawn::seccomp::program;
use super::trial::{UNKNOWN, attempt, code_of};
use crate::sys::confine::{Instruction, seccomp};
use crate::sys::fork::OneThread;
use crate::sys::process::groups_of;

/// How the supervisor's process is shut in.
pub(super) struct Confinement {
    pub(super) user: Option<RunAs>,
    fenced: bool,
    filter: Option<Vec<Instruction>>,
    /// What it should be and is not, for people.
    pub(super) lacks: Vec<String>,
    /// It runs as root: nothing is taken away.
    open: bool,
}

impl Confinement {
    /// Tries what can be had. An error, where the operator chose a user that this process cannot become.
    pub(super) fn find(one_thread: &OneThread, grants: &Grants, rights: &Rights) -> Result<Self, KeeperError> {
        let mut lacks = Vec::new();
        let mut user = grants.run_as.clone();
        if let Some(wanted) = &user
            && let Err(source) = try_user(one_thread, wanted, rights)
        {
            if wanted.chosen {
                return Err(KeeperError::NoUser { name: wanted.name.clone(), source });
            }
            lacks.push(format!("the supervisor runs as root: it cannot become user `{}` here ({source})", wanted.name));
            user = None;
        } else if user.is_none() && rights.uid == 0 {
            lacks.push("the supervisor runs as root, since `user` is `root` in supervisor.toml".to_owned());
        }
        let open = user.is_none() && rights.uid == 0;
        let filter = program(&[libc::SYS_openat2]);
        let filtered = if open { Ok(()) } else { try_filter(one_thread, &filter) };
        if !open {
            if let Err(why) = &rights.landlock {
                lacks.push(format!("what the supervisor may write is not fenced in by Landlock ({why})"));
            }
            if let Err(why) = &filtered {
                lacks.push(format!("the supervisor's system calls are not filtered ({why})"));
            }
        }
        let filter = (!open && filtered.is_ok()).then_some(filter);
        Ok(Self { user, fenced: !open && rights.landlock.is_ok(), filter, lacks, open })
    }

    /// The supervisor's user and group, as the keeper gives things to it; `None` where the keeper gives nothing to anybody.
    pub(super) fn owner(&self, rights: &Rights) -> Option<(u32, u32)> {
        match &self.user {
            Some(user) => Some((user.uid, user.gid)),
            None if rights.uid == 0 => Some((0, 0)),
            None => None,
        }
    }

    /// Becomes the user, without any capability and without a way to gain one. Runs in the child.
    pub(super) fn become_user(&self, groups: &[Gid], rights: &Rights) -> Result<(), (&'static str, io::Error)> {
        if self.open {
            return Ok(());
        }
        if let Some(user) = &self.user {
            if rights.may_drop_bounding {
                for capability in rights.known_capabilities.iter() {
                    rustix::thread::remove_capability_from_bounding_set(capability)
                        .map_err(|error| ("capabilities cannot be taken from its bounding set", error.into()))?;
                }
            }
            become_user(user, groups).map_err(|error| ("its user cannot be set", error))?;
        }
        shut_in().map_err(|error| ("its capabilities cannot be dropped", error))
    }

    /// Puts the fence and the filter up. Runs in the child, as the last thing before it becomes the program.
    pub(super) fn enter(&self, writable: &[PathBuf]) -> Result<(), (&'static str, io::Error)> {
        if self.fenced {
            fence(writable).map_err(|error| ("what it may write cannot be fenced in", error))?;
        }
        match &self.filter {
            Some(filter) => seccomp(filter).map_err(|error| ("its system calls cannot be filtered", error)),
            None => Ok(()),
        }
    }
}

fn fence(writable: &[PathBuf]) -> io::Result<()> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let outputs = [std::os::fd::AsFd::as_fd(&stdout), std::os::fd::AsFd::as_fd(&stderr)];
    let writable: Vec<&Path> = writable.iter().map(PathBuf::as_path).collect();
    restrict(&Fence { writable: &writable, private_tmp: false, private_proc: false, scope_signals: true, outputs })
}

/// The groups that a user is in; its own alone where it has no name.
pub(super) fn groups_of_user(user: &RunAs) -> Vec<Gid> {
    let named = CString::new(user.name.as_str()).ok().filter(|_| user.name.parse::<u32>().is_err());
    let groups = named.and_then(|name| groups_of(&name, user.gid).ok());
    groups.unwrap_or_else(|| vec![user.gid]).into_iter().map(Gid::from_raw).collect()
}

/// Becomes a user for good.
pub(super) fn become_user(user: &RunAs, groups: &[Gid]) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_groups(groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

fn shut_in() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(rustix::thread::set_no_new_privs(true)?)
}

fn try_user(one_thread: &OneThread, user: &RunAs, rights: &Rights) -> io::Result<()> {
    if !rights.may_give {
        // It could become that user, which would then have nothing to write to.
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let groups = groups_of_user(user);
    attempt(one_thread, || become_user(user, &groups))
}

fn try_filter(one_thread: &OneThread, filter: &[Instruction]) -> io::Result<()> {
    attempt(one_thread, || {
        rustix::thread::set_no_new_privs(true)?;
        seccomp(filter)
    })
}

/// What a user is to be able to do with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Find it.
    Reach,
    /// Read a file.
    Read,
    /// Make files in a folder.
    Make,
}

/// What is closed to a user of what it needs, be it that a folder on the way is: each path with what the kernel says. What is
/// not there is not closed.
pub fn closed_to(user: &RunAs, needs: &[(PathBuf, Need)]) -> io::Result<Vec<(PathBuf, io::Error)>> {
    let one_thread = OneThread::prove()?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let groups = groups_of_user(user);
    let child = || {
        if let Err(error) = become_user(user, &groups) {
            return error.raw_os_error().unwrap_or(UNKNOWN);
        }
        for (path, need) in needs {
            let tried = match need {
                Need::Reach => rustix::fs::access(path, Access::EXISTS).map_err(Into::into),
                Need::Read => std::fs::File::open(path).map(drop),
                Need::Make => rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK).map_err(Into::into),
            };
            let errno = tried.err().and_then(|error| error.raw_os_error()).unwrap_or(0);
            if rustix::io::write(&write, &errno.to_le_bytes()).is_err() {
                return UNKNOWN;
            }
        }
        0
    };
    let pid = one_thread.fork(child)?;
    drop(write);
    let mut answer = Vec::new();
    io::Read::read_to_end(&mut std::fs::File::from(read), &mut answer)?;
    match code_of(pid) {
        Some(0) => {}
        code => return Err(code.map_or(io::ErrorKind::Other.into(), io::Error::from_raw_os_error)),
    }
    let errors = answer.chunks_exact(4).filter_map(|bytes| bytes.first_chunk().map(|bytes| i32::from_le_bytes(*bytes)));
    let bad = needs.iter().zip(errors).filter(|(_, errno)| [libc::EACCES, libc::EPERM].contains(errno));
    Ok(bad.map(|((path, _), errno)| (path.clone(), io::Error::from_raw_os_error(errno))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_another_user_cannot_read_is_found() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (open, closed) = (dir.path().join("open"), dir.path().join("closed"));
        std::fs::write(&open, "").unwrap();
        std::fs::write(&closed, "").unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o600)).unwrap();
        let user = RunAs { name: "60963".to_owned(), uid: 60_963, gid: 60_963, chosen: false };
        // Other tests have threads of their own, and then it cannot be tried.
        let needs = [
            (open, Need::Read),
            (closed.clone(), Need::Read),
            (dir.path().join("none"), Need::Read),
            (dir.path().to_owned(), Need::Make),
        ];
        if let Ok(found) = closed_to(&user, &needs) {
            assert_eq!(found.into_iter().map(|(path, _)| path).collect::<Vec<_>>(), [closed, dir.path().to_owned()]);
        }
    }
}
