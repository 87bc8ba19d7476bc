//! An upgrade in place: on SIGHUP this process becomes the program that is found now where it was started from, and goes on
//! with its children, its locks and its outputs.
//!
//! Before anything is given up, the new program is asked which state it knows: an older one, or one that does not run at all,
//! is refused, and all goes on as it was.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::engine::{Engine, now, say};
use super::roster::Mark;
use super::{ASK_VERSION, RESUME, STATE_VERSION, proc};
use crate::model::Moment;
use crate::sys::fork::OneThread;
use crate::sys::process::{Image, close_on_exec_from, pidfd_signal, place_fd, reset_signals};

/// How long the new program may take to say which state it knows; the keeper does nothing else meanwhile.
const ANSWER_TIMEOUT: Timespec = Timespec { tv_sec: 3, tv_nsec: 0 };

/// How long the supervisor may take to end; then it is killed, which it is made for.
const SUPERVISOR_TIMEOUT: Duration = Duration::from_secs(3);

/// How long services that are being started are waited for; the next program takes them as it finds them.
const STARTS_TIMEOUT: Duration = Duration::from_secs(5);

/// How far an exchange has come: the supervisor is told to end, and starts under way are waited for, at most until then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exchange {
    supervisor_until: Moment,
    starts_until: Moment,
    killed: bool,
}

impl Exchange {
    pub(super) fn deadline(self) -> Moment {
        if self.killed { self.starts_until } else { self.supervisor_until }
    }
}

/// The file that this program is, by the name under which it was started where that is known: a link may lead to another
/// one after an upgrade.
pub(super) fn own_program() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let named = std::env::args_os().next().map(PathBuf::from).filter(|path| path.is_absolute());
    named.filter(|path| std::fs::canonicalize(path).is_ok_and(|found| found == own)).unwrap_or(own)
}

impl Engine {
    /// SIGHUP: begins to become the program that is on disk now.
    pub(super) fn begin_exchange(&mut self) {
        if self.ending.is_some() || self.exchange.is_some() {
            say("told to exchange itself while that or the end is under way already: nothing more is done");
            return;
        }
        let program = self.program.display().to_string();
        self.unit_reloads();
        if let Err(why) = ask_version(&self.one_thread, &self.program) {
            let words = format!("the keeper does not become `{program}`: {why}; nothing was changed, and services run on");
            say(&words);
            self.unit_stays(&words);
            return;
        }
        say(&format!("the keeper becomes `{program}`; services run on"));
        let moment = now().moment;
        let (supervisor_until, starts_until) = (moment.after(SUPERVISOR_TIMEOUT), moment.after(STARTS_TIMEOUT));
        self.exchange = Some(Exchange { supervisor_until, starts_until, killed: false });
        if let Some((_, pidfd)) = &self.supervisor.process {
            let _ = pidfd_signal(pidfd.as_fd(), libc::SIGTERM);
        }
    }

    /// Goes on with an exchange as far as it is possible now. It does not return where it succeeds.
    pub(super) fn advance_exchange(&mut self) {
        let Some(exchange) = &mut self.exchange else { return };
        if self.ending.is_some() {
            self.exchange = None;
            return;
        }
        let moment = now().moment;
        let late = exchange.supervisor_until <= moment;
        if let Some((_, pidfd)) = &self.supervisor.process
            && late
            && !exchange.killed
        {
            let _ = pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
        }
        exchange.killed |= late;
        let waits = self.supervisor.process.is_some() || self.services.first_marked(Mark::Spawning).is_some();
        if waits && exchange.starts_until > moment {
            return;
        }
        self.exchange = None;
        let why = self.become_program();
        let program = self.program.display();
        let words = format!("the keeper cannot become `{program}`: {why}; it goes on as it was, and services run on");
        say(&words);
        self.unit_stays(&words);
        self.start_supervisor();
    }

    /// Returns only where it fails, with all as it was but for commands, whose supervisor is gone anyway.
    fn become_program(&mut self) -> String {
        let commands: Vec<u64> = self.commands.keys().copied().collect();
        for command in commands {
            self.command_timed_out(command);
        }
        self.journal_due = true;
        self.write_journal();
        if self.journal_failed.is_some() {
            return "who runs cannot be written down".to_owned();
        }
        let handed = match self.hand_over() {
            Ok(handed) => handed,
            Err(error) => {
                let _ = self.leave_open(false);
                return format!("what it has cannot be handed over: {error}");
            }
        };
        let number = handed.as_raw_fd().to_string();
        let mut arguments = vec![self.program.clone().into_os_string(), "keeper".into(), RESUME.into(), number.into()];
        arguments.extend(self.config.to_args());
        let arguments = arguments.into_iter().map(|argument| c_string(&argument)).collect();
        let error = Image::new(vec![c_string(self.program.as_os_str())], arguments, environment()).exec();
        let _ = self.leave_open(false);
        error.to_string()
    }
}

fn c_string(text: &OsStr) -> CString {
    // Arguments and paths were such strings when they came.
    CString::new(text.as_bytes()).unwrap_or_default()
}

fn environment() -> Vec<CString> {
    let pairs = std::env::vars_os().map(|(mut key, value)| {
        key.push("=");
        key.push(value);
        key
    });
    pairs.filter_map(|variable| CString::new(variable.into_vec()).ok()).collect()
}

/// Has a program say which state it knows; `Err` says why it is not fit to go on with this one's.
fn ask_version(one_thread: &OneThread, program: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("it cannot be asked which state it knows: {error}");
    let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
    let (read, write) = rustix::pipe::pipe_with(flags).map_err(|error| failed(error.into()))?;
    let arguments = vec![c_string(program.as_os_str()), c"keeper".to_owned(), c_string(OsStr::new(ASK_VERSION))];
    let image = Image::new(vec![c_string(program.as_os_str())], arguments, environment());
    let child = || {
        let _ = close_on_exec_from(3);
        if place_fd(one_thread, write.as_fd(), 1).is_err() {
            return 127;
        }
        reset_signals();
        image.exec();
        127
    };
    let pid = one_thread.fork(child).map_err(failed)?;
    drop(write);
    let succeeded = end_of(pid);
    let mut answer = [0; 64];
    let length = rustix::io::read(&read, &mut answer).unwrap_or(0);
    let answer = std::str::from_utf8(&answer[..length]).ok().filter(|_| succeeded);
    let version = answer.and_then(|answer| answer.trim().parse::<u64>().ok());
    match version {
        Some(version) if version >= STATE_VERSION => Ok(()),
        Some(version) => Err(format!("it is older: it knows state {version}, and the services' state is {STATE_VERSION}")),
        None => Err("it does not say which state it knows, so it is older, or not fit to run".to_owned()),
    }
}

/// Waits for a child, which is killed where it does not end in time, and says whether it ended well.
fn end_of(pid: u32) -> bool {
    // It is ours and not yet waited for, so its number is its own.
    let Some(pid) = proc::pid_of(pid) else { return false };
    let ended = pidfd_open(pid, PidfdFlags::empty()).is_ok_and(|pidfd| {
        let mut poll_fd = [PollFd::new(&pidfd, PollFlags::IN)];
        poll(&mut poll_fd, Some(&ANSWER_TIMEOUT)).is_ok_and(|ready| ready > 0)
    });
    if !ended {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let status = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).ok().flatten();
    ended && status.is_some_and(|status| status.exit_status() == Some(0))
}
