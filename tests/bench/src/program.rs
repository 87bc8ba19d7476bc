//! The service: tells through a pipe when its `main` began, and what its config says whenever it is told to read it anew.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use crate::Failure;
use crate::clock::now_ns;

/// SIGHUP and SIGTERM.
const TOLD: i32 = 1;
const END: i32 = 15;

/// Runs until SIGTERM.
pub(crate) fn serve(begun: u64, fifo: &str, config: Option<&str>) -> Result<bool, Failure> {
    let mut out = File::options().write(true).open(fifo)?;
    // One short write each: lines of several services do not mix.
    out.write_all(format!("main {} {begun} -\n", std::process::id()).as_bytes())?;
    if Path::new("notification-fd").exists() {
        std::fs::write("/proc/self/fd/3", "\n")?;
    }
    let signals = tagfall::sys::process::signal_fd(&[TOLD, END])?;
    loop {
        poll(&mut [PollFd::new(&signals, PollFlags::IN)], None)?;
        for caught in tagfall::sys::process::read_signals(signals.as_fd())? {
            if caught.signal == END {
                return Ok(true);
            }
            let version = match config {
                Some(path) => std::fs::read_to_string(path)?.trim().to_owned(),
                None => "-".to_owned(),
            };
            out.write_all(format!("told {} {} {version}\n", std::process::id(), now_ns()).as_bytes())?;
        }
    }
}

/// One line of a service.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) kind: String,
    pub(crate) pid: u32,
    pub(crate) at: u64,
    pub(crate) text: String,
}

/// The other end of the pipe.
pub(crate) struct Ear {
    pub(crate) path: PathBuf,
    pipe: OwnedFd,
    rest: Vec<u8>,
    lines: VecDeque<Line>,
}

impl Ear {
    pub(crate) fn new(path: &Path) -> Result<Self, Failure> {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::from_raw_mode(0o666))?;
        // Open both ways, so that it never ends with a writer.
        let pipe = rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { path: path.to_owned(), pipe, rest: Vec::new(), lines: VecDeque::new() })
    }

    /// The next line that is wanted; others are dropped.
    pub(crate) fn wait(&mut self, bound: Duration, wanted: impl Fn(&Line) -> bool) -> Option<Line> {
        let end = now_ns() + u64::try_from(bound.as_nanos()).ok()?;
        loop {
            while let Some(line) = self.lines.pop_front() {
                if wanted(&line) {
                    return Some(line);
                }
            }
            let left = end.checked_sub(now_ns())?;
            let timeout = Timespec::try_from(Duration::from_nanos(left)).ok()?;
            if poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], Some(&timeout)).ok()? == 0 {
                return None;
            }
            self.read();
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = rustix::io::read(&self.pipe, &mut buffer) {
            self.rest.extend_from_slice(&buffer[..length]);
        }
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line).into_owned();
            let mut words = text.split_whitespace();
            let mut word = || words.next().unwrap_or_default().to_owned();
            let (kind, pid, at, text) = (word(), word().parse().unwrap_or(0), word().parse().unwrap_or(0), word());
            self.lines.push_back(Line { kind, pid, at, text });
        }
    }
}
