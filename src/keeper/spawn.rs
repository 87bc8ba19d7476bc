//! Making a process of a spec: everything is prepared before the fork; the child only makes system calls.
//!
//! The child says through a pipe that closes on exec which step failed, so that a start is known to have worked, or why not.
//! To add a step: a [`Step`] with its words, and its place in [`Plan::become_program`].

mod handover;
pub(super) mod landlock;
mod prepare;
pub(super) mod seccomp;
pub(super) mod shield;
mod strict;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::process::{Gid, Pid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::cgroup::Place;
use super::{mounts, reserve};
use crate::sys::fork::OneThread;
use crate::sys::process::{Image, close_on_exec_from, place_fd, reset_signals};
use crate::sys::turns::{Turns, take_turns};

use strict::Strict;

pub(super) use handover::{FIRST_HANDED_FD, Handed, READY_FD_ENV};
pub(super) use prepare::{Order, environment_of_keeper, owner_of, prepare};

/// What a child does, in this order; the number goes over the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Session,
    Output,
    Namespace,
    Publication,
    Limits,
    Groups,
    Bounding,
    User,
    Capabilities,
    Privileges,
    Directory,
    Program,
    Handover,
    Shield,
    Fence,
    Calls,
    Group,
    Lock,
}

impl Step {
    const ALL: [Self; 18] = [
        Self::Session,
        Self::Output,
        Self::Namespace,
        Self::Publication,
        Self::Limits,
        Self::Groups,
        Self::Bounding,
        Self::User,
        Self::Capabilities,
        Self::Privileges,
        Self::Directory,
        Self::Program,
        Self::Handover,
        Self::Shield,
        Self::Fence,
        Self::Calls,
        Self::Group,
        Self::Lock,
    ];

    /// What could not be done.
    fn words(self) -> &'static str {
        match self {
            Self::Session => "no session of its own can be made",
            Self::Output => "its output cannot be connected",
            Self::Namespace => "its mount namespace cannot be made or entered",
            Self::Publication => "its publication cannot be mounted",
            Self::Limits => "limit `open_files` cannot be set",
            Self::Groups => "its groups cannot be set",
            Self::Bounding => "capabilities cannot be taken from its bounding set",
            Self::User => "its user cannot be set",
            Self::Capabilities => "its capabilities cannot be dropped",
            Self::Privileges => "no_new_privs cannot be set",
            Self::Directory => "its working directory cannot be entered",
            Self::Program => "its program cannot be executed",
            Self::Handover => "its sockets cannot be handed over",
            Self::Shield => "what hardening `strict` hides and protects cannot be hidden and protected",
            Self::Fence => "what it may write cannot be fenced in",
            Self::Calls => "its system calls cannot be filtered",
            Self::Group => "it cannot be put into its cgroup",
            Self::Lock => "its lock cannot be taken",
        }
    }
}

/// Bytes of a report of a failed step: which, and the error's number.
const FAILURE_BYTES: usize = 5;

/// A step that failed in the child.
#[derive(Debug)]
pub(super) struct Failure {
    step: Step,
    error: io::Error,
}

impl Failure {
    /// Reads what a child has written to its pipe so far. `Ok(None)`: it closed the pipe and wrote nothing, so it has become
    /// the program (or was killed before). `Err`: nothing yet.
    pub(super) fn read(pipe: &OwnedFd) -> Result<Option<Self>, ()> {
        let mut record = [0; FAILURE_BYTES];
        match rustix::io::read(pipe, &mut record) {
            Ok(FAILURE_BYTES) => {
                let [step, errno @ ..] = record;
                let step = Step::ALL.get(usize::from(step)).copied().unwrap_or(Step::Program);
                Ok(Some(Self { step, error: io::Error::from_raw_os_error(i32::from_le_bytes(errno)) }))
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Err(()),
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// Whether it was refused because another copy runs.
    pub(super) fn for_a_second_copy(&self) -> bool {
        self.step == Step::Lock && self.error.kind() == io::ErrorKind::WouldBlock
    }

    /// Whether it failed for lack of the right to mount, so that it may go without.
    pub(super) fn for_lack_of_mounts(&self) -> bool {
        let denied = matches!(self.error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS));
        denied && matches!(self.step, Step::Namespace | Step::Publication)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.for_a_second_copy() {
            return f.write_str("its lock is held, so something of an earlier copy still runs");
        }
        write!(f, "{}: {}", self.step.words(), self.error)
    }
}

/// Whose rights a process gets.
struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

/// In which mount namespace it runs.
enum Mounts {
    Host,
    Own { view: Option<(OwnedFd, String)> },
    Of(OwnedFd),
}

/// All that a child needs, made before it is.
pub(super) struct Plan {
    image: Image,
    what: String,
    directory: CString,
    directory_text: String,
    identity: Option<Identity>,
    shut_in: bool,
    drop_bounding: bool,
    known_capabilities: CapabilitySet,
    /// What a process that is not shut in can have at most, by the operator's list.
    capability_limit: Option<CapabilitySet>,
    open_files: Rlimit,
    mounts: Mounts,
    stdio: [OwnedFd; 3],
    /// Of a service: the lock that it holds as long as anything of it lives.
    pub(super) lock: Option<CString>,
    handed: Handed,
    strict: Option<Strict>,
    /// Where it is, with limits in force, before it does anything.
    pub(super) place: Place,
    oom_score: String,
    /// What is not carried out, for the report.
    pub(super) notes: Vec<String>,
}

/// A process that was made, and the pipe on which it reports a step that failed.
pub(super) struct Spawned {
    pub(super) pid: u32,
    pub(super) status: OwnedFd,
}

impl Plan {
    /// Makes the process.
    pub(super) fn spawn(&self, one_thread: &OneThread) -> Result<Spawned, String> {
        use rustix::pipe::{PipeFlags, pipe_with};
        let failed = |error: io::Error| format!("no process can be made for it: {error}{}", advice(&error));
        let (status, report) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
        let report = self.handed.out_of_the_way(report).map_err(failed)?;
        let keeper = rustix::process::getpid();
        let child = |born| {
            let (step, error) = self.become_program(one_thread, keeper, born);
            let [a, b, c, d] = error.raw_os_error().unwrap_or(0).to_le_bytes();
            // If even this cannot be said, the exit code remains.
            let _ = rustix::io::write(&report, &[step as u8, a, b, c, d]);
            EXIT_NOT_STARTED
        };
        let cgroup = self.place.into.as_ref().map(|dir| dir.as_fd());
        let needs = self.descriptors().chain([report.as_fd()]).map(|fd| fd.as_raw_fd()).max();
        let below = reserve::lasting_from();
        let pid = if needs < Some(below) {
            one_thread.fork_with_few(cgroup, below, child)
        } else {
            one_thread.fork_into(cgroup, child)
        };
        let pid = pid.map_err(failed)?;
        Ok(Spawned { pid, status: reserve::lasting(status) })
    }

    /// All that the child uses of the keeper's.
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let mounts = match &self.mounts {
            Mounts::Own { view: Some((fd, _)) } | Mounts::Of(fd) => Some(fd),
            Mounts::Own { view: None } | Mounts::Host => None,
        };
        let Self { stdio, handed, place, .. } = self;
        let groups = place.into.iter().chain(&place.join);
        stdio.iter().chain(&handed.fds).chain(groups).chain(mounts).map(|fd| fd.as_fd())
    }

    /// Words for a failure, with what they are about.
    pub(super) fn explain(what: &str, failure: &Failure) -> String {
        format!("{what} cannot be started: {failure}")
    }

    /// Whether the process gets a mount namespace of its own.
    pub(super) fn has_namespace(&self) -> bool {
        matches!(self.mounts, Mounts::Own { .. })
    }

    /// Program and working directory, for messages.
    pub(super) fn what(&self) -> String {
        format!("`{}` in `{}`", self.what, self.directory_text)
    }

    /// Only returns where a step failed. Runs in the child.
    fn become_program(&self, one_thread: &OneThread, keeper: Pid, born: bool) -> (Step, io::Error) {
        match self.steps(one_thread, keeper, born) {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    fn steps(&self, one_thread: &OneThread, keeper: Pid, born: bool) -> Result<std::convert::Infallible, (Step, io::Error)> {
        let at = |step: Step| move |error: rustix::io::Errno| (step, io::Error::from(error));
        // The keeper's own place in the line is not inherited.
        super::engine::take_short_turns();
        self.live_with(keeper).map_err(|error| (Step::Lock, error))?;
        self.place.enter(born).map_err(|error| (Step::Group, error))?;
        super::oom::set(&self.oom_score);
        rustix::process::setsid().map_err(at(Step::Session))?;
        for (number, fd) in (0..).zip(&self.stdio) {
            place_fd(one_thread, fd.as_fd(), number).map_err(|error| (Step::Output, error))?;
        }
        // Kernels before 5.11 do not know it; all descriptors of the keeper close on exec by themselves.
        let _ = close_on_exec_from(3);
        self.take_lock().map_err(|error| (Step::Lock, error))?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        self.place_mounts()?;
        rustix::process::setrlimit(Resource::Nofile, self.open_files).map_err(at(Step::Limits))?;
        if let Some(identity) = &self.identity {
            rustix::thread::set_thread_groups(&identity.groups).map_err(at(Step::Groups))?;
            let gid = identity.gid;
            rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(at(Step::Groups))?;
        }
        let kept = if self.shut_in { Some(CapabilitySet::empty()) } else { self.capability_limit };
        if let Some(kept) = kept.filter(|_| self.drop_bounding || !self.shut_in) {
            for capability in self.known_capabilities.difference(kept).iter() {
                rustix::thread::remove_capability_from_bounding_set(capability).map_err(at(Step::Bounding))?;
            }
        }
        if let Some(identity) = &self.identity {
            let uid = identity.uid;
            rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(at(Step::User))?;
        }
        if let Some(kept) = kept {
            rustix::thread::clear_ambient_capability_set().map_err(at(Step::Capabilities))?;
            let now = rustix::thread::capabilities(None).map_err(at(Step::Capabilities))?;
            let [effective, permitted] = [now.effective, now.permitted].map(|set| set.intersection(kept));
            let sets = CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() };
            rustix::thread::set_capabilities(None, sets).map_err(at(Step::Capabilities))?;
            rustix::thread::set_no_new_privs(true).map_err(at(Step::Privileges))?;
        }
        rustix::process::chdir(&self.directory).map_err(at(Step::Directory))?;
        if let Some(strict) = &self.strict {
            strict.fence(&self.stdio).map_err(|error| (Step::Fence, error))?;
        }
        self.handed.place(one_thread).map_err(|error| (Step::Handover, error))?;
        reset_signals();
        // What is the keeper's alone is not handed on.
        let _ = take_turns(Turns::Usual);
        if let Some(strict) = &self.strict {
            strict.filter().map_err(|error| (Step::Calls, error))?;
        }
        Err((Step::Program, self.handed.exec(&self.image)))
    }

    /// Until it holds its lock, it ends with the keeper that has made it: the next one could not know of it.
    fn live_with(&self, keeper: Pid) -> io::Result<()> {
        if self.lock.is_none() {
            return Ok(());
        }
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        if rustix::process::getppid() == Some(keeper) { Ok(()) } else { Err(rustix::io::Errno::OWNERDEAD.into()) }
    }

    fn take_lock(&self) -> io::Result<()> {
        let Some(lock) = &self.lock else { return Ok(()) };
        super::hold::take(lock, self.handed.beyond())?;
        Ok(rustix::process::set_parent_process_death_signal(None)?)
    }

    fn place_mounts(&self) -> Result<(), (Step, io::Error)> {
        match &self.mounts {
            Mounts::Host => Ok(()),
            Mounts::Own { view } => {
                mounts::own_namespace().map_err(|error| (Step::Namespace, error))?;
                if let Some((mount, point)) = view {
                    mounts::attach(mount.as_fd(), point).map_err(|error| (Step::Publication, error))?;
                }
                self.strict.as_ref().map_or(Ok(()), Strict::shield).map_err(|error| (Step::Shield, error))
            }
            Mounts::Of(pidfd) => mounts::enter(pidfd.as_fd()).map_err(|error| (Step::Namespace, error)),
        }
    }
}

/// What can be done where the kernel makes no process.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => {
            "; a limit of processes is reached: of its user (RLIMIT_NPROC), of the keeper's cgroup (pids.max) or of the host"
        }
        Some(libc::ENOMEM) => "; the host, or the keeper's cgroup, has no memory left",
        Some(libc::EMFILE | libc::ENFILE) => "; the keeper, or the host, has no descriptors left",
        _ => "",
    }
}

/// Exit code of a child that did not become the program; it is not the service's.
const EXIT_NOT_STARTED: i32 = 127;
