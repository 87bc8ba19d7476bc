//! A service's output: read from FIFOs, cut into lines, written to files of bounded size and handed on.
//!
//! The FIFOs have names and the service holds them open for reading as well, so that it neither ends nor loses lines while
//! no keeper reads. What is taken out of a FIFO is in a file already, and what has no end yet stays inside, so that a keeper
//! may be killed at any moment: its successor finds in [`mark`] what of the FIFO is written, and goes on behind it.
//!
//! | file | question |
//! | --- | --- |
//! | `lines.rs` | how lines are cut and what they look like |
//! | `file.rs` | where they are kept, and what becomes of those that cannot be |
//! | `forward.rs` | who gets them as well |
//! | `mark.rs` | what is being written at this moment |

mod file;
mod forward;
mod lines;
mod mark;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::io::ioctl_fionread;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, tee};

use super::reserve::lasting;
use super::wire::LOG_LINE_MAX_BYTES;
use crate::model::{GroupName, LogForward, LogLosses, LogPolicy, LogStream, Timestamp};
use file::LogFile;
use forward::Forward;
use lines::Lines;
use mark::Mark;

/// How much of one stream is read at once, so that a flood delays nobody else for long.
pub(super) const READ_BYTES: usize = 128 * 1024;

/// So many reads empty a FIFO that nobody writes to, with the buffer that the loop has.
const DRAIN_READS: usize = 1 + FIFO_BYTES / (64 * 1024);

/// Bytes that a FIFO takes in while nobody reads it: a service goes on for so long while no keeper is there. A user's limit
/// (/proc/sys/fs/pipe-user-pages-soft) may leave it at the system's default.
const FIFO_BYTES: usize = 1024 * 1024;

/// What all outputs share, since only one is read at a time: a pipe through which a FIFO is looked at before anything is taken
/// from it, room for formatted lines, and the mark.
pub(super) struct Scratch {
    read: OwnedFd,
    write: OwnedFd,
    nowhere: OwnedFd,
    text: RefCell<Vec<u8>>,
    mark: RefCell<Mark>,
}

impl Scratch {
    pub(super) fn new(data_dir: &Path) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Smaller, it makes for smaller reads.
        let _ = fcntl_setpipe_size(&write, FIFO_BYTES);
        let nowhere = open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        let fifos = fifo_dir(data_dir);
        private_dir(&fifos)?;
        Ok(Self { read, write, nowhere, text: RefCell::default(), mark: RefCell::new(Mark::open(&fifos)) })
    }

    /// Copies what is there, without taking it.
    fn look(&self, fifo: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
        let there = tee(fifo, &self.write, buffer.len(), SpliceFlags::NONBLOCK)?;
        let mut length = 0;
        while length < there {
            match rustix::io::read(&self.read, &mut buffer[length..there]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(length)
    }

    /// Takes so many bytes, which have been looked at.
    fn take(&self, fifo: &OwnedFd, mut length: usize) {
        while length > 0 {
            match splice(fifo, None, &self.nowhere, None, length, SpliceFlags::NONBLOCK) {
                Ok(taken) if taken > 0 => length -= taken,
                Err(rustix::io::Errno::INTR) => {}
                // Nobody else reads it: it cannot have become less.
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// Where formatted lines go.
struct Sink {
    group: GroupName,
    file: LogFile,
    forward: Option<Forward>,
}

/// One of the two streams.
struct Stream {
    path: PathBuf,
    fifo: OwnedFd,
    /// The beginning of a line that had to be taken from the FIFO before its end came.
    partial: Vec<u8>,
    /// Lines at the head of the FIFO that an earlier keeper has written.
    known: u64,
}

/// The output of one service.
pub(super) struct Output {
    /// By [`LogStream`]'s order.
    streams: [Stream; 2],
    sink: Sink,
    scratch: Rc<Scratch>,
}

/// What a service's lines are kept by.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) policy: &'a LogPolicy,
    pub(super) release: &'a str,
}

impl Output {
    /// Opens or makes what the output of a service goes through.
    pub(super) fn open(data_dir: &Path, group: &GroupName, rules: Rules<'_>, scratch: &Rc<Scratch>) -> io::Result<Self> {
        let fifos = fifo_dir(data_dir);
        private_dir(&fifos)?;
        let stream = |stream: LogStream| Stream::open(fifos.join(format!("{group}.{}", stream.name())));
        let streams = [stream(LogStream::Stdout)?, stream(LogStream::Stderr)?];
        let mut output = Self { streams, sink: Sink::new(data_dir, group, rules), scratch: Rc::clone(scratch) };
        output.go_on_behind_the_mark();
        Ok(output)
    }

    /// What a keeper that was killed in the middle of it had written already is not written again.
    fn go_on_behind_the_mark(&mut self) {
        let Some(marked) = self.scratch.mark.borrow_mut().take(&self.sink.group) else { return };
        let from = &mut self.streams[marked.stream as usize];
        let mut head = vec![0; marked.length];
        let there = self.scratch.look(&from.fifo, &mut head).unwrap_or(0);
        if there == marked.length && marked.is_of(&head) {
            from.known = self.sink.file.lines_since(marked.place).unwrap_or(0);
        }
    }

    /// Takes other rules over. Whoever waits on [`Output::blocked_on`] has ended that before.
    pub(super) fn set_rules(&mut self, rules: Rules<'_>) {
        self.sink.set_rules(rules);
    }

    /// Whether other lines than so far go somewhere else by these rules.
    pub(super) fn forwards_elsewhere(&self, rules: Rules<'_>) -> bool {
        self.sink.forwards_elsewhere(rules)
    }

    /// The end that a service gets.
    pub(super) fn service_end(&self, stream: LogStream) -> io::Result<OwnedFd> {
        Ok(open(&self.streams[stream as usize].path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// The end to wait on, for every write anew: what has no end yet stays inside.
    pub(super) fn keeper_end(&self, stream: LogStream) -> BorrowedFd<'_> {
        self.streams[stream as usize].fifo.as_fd()
    }

    /// What must become writable before more can be handed on; `None` while nothing waits.
    pub(super) fn blocked_on(&self) -> Option<BorrowedFd<'_>> {
        self.sink.forward.as_ref()?.blocked_on()
    }

    /// The descriptor over which lines are handed on.
    pub(super) fn forward_end(&self) -> Option<BorrowedFd<'_>> {
        self.sink.forward.as_ref()?.end()
    }

    /// Whether something is to be tried again after a while.
    pub(super) fn waits(&self) -> bool {
        self.sink.waits()
    }

    /// Tries again what could not be written or handed on.
    pub(super) fn try_again(&mut self, time: Timestamp) {
        self.sink.try_again(time);
    }

    /// What got lost.
    pub(super) fn losses(&self) -> LogLosses {
        self.sink.losses()
    }

    /// What will be lost if this program ends now: with all that waits.
    pub(super) fn losses_at_end(&self) -> LogLosses {
        let mut losses = self.sink.losses();
        losses.unforwarded += self.sink.forward.as_ref().map_or(0, Forward::queued);
        let (lines, bytes) = self.sink.file.waiting();
        LogLosses { lines: losses.lines + lines, bytes: losses.bytes + bytes, ..losses }
    }

    /// Goes on counting where an earlier program ended.
    pub(super) fn add_losses(&mut self, earlier: &LogLosses) {
        let file = &mut self.sink.file.losses;
        (file.lines, file.bytes) = (file.lines + earlier.lines, file.bytes + earlier.bytes);
        if let Some(forward) = &mut self.sink.forward {
            forward.lost += earlier.unforwarded;
        }
    }

    /// Reads once what is there, at most a buffer full, and logs its whole lines. Says whether more is there that can be
    /// logged; what follows the last whole line is left for the write that ends it.
    pub(super) fn take(&mut self, stream: LogStream, buffer: &mut [u8], time: Timestamp) -> bool {
        let Self { streams, sink, scratch } = self;
        let from = &mut streams[stream as usize];
        let Ok(length) = scratch.look(&from.fifo, buffer) else { return false };
        let there = &buffer[..length];
        let has_end = length > LOG_LINE_MAX_BYTES || lines::end_of_line(there).is_some();
        let taken = if has_end || from.is_held_up(length) { scratch.log(sink, from, there, (stream, time), !has_end) } else { 0 };
        ioctl_fionread(&from.fifo).is_ok_and(|left| left > (length - taken) as u64)
    }

    /// Takes what is there and ends partial lines: whoever wrote them is gone. A FIFO holds no more than a few reads; what
    /// somebody else goes on writing is not waited for.
    pub(super) fn drain(&mut self, buffer: &mut [u8], time: Timestamp) {
        let Self { streams, sink, scratch } = self;
        for (stream, from) in [LogStream::Stdout, LogStream::Stderr].into_iter().zip(streams) {
            for _ in 0..DRAIN_READS {
                let Ok(length) = scratch.look(&from.fifo, buffer) else { break };
                scratch.log(sink, from, &buffer[..length], (stream, time), true);
            }
            if !from.partial.is_empty() {
                let text = &mut scratch.text.borrow_mut();
                let mut lines = Lines::new(sink, text, stream, time);
                lines.line(&std::mem::take(&mut from.partial), false);
                lines.write();
            }
        }
    }

    /// The beginning of a line that is no longer in its FIFO.
    pub(super) fn partial(&mut self, stream: LogStream) -> &mut Vec<u8> {
        &mut self.streams[stream as usize].partial
    }

    /// Takes the FIFOs away; the log files stay.
    pub(super) fn remove(&self) {
        for stream in &self.streams {
            let _ = std::fs::remove_file(&stream.path);
        }
    }
}

impl Scratch {
    /// Logs what was looked at, as far as it has an end or with `all`, then takes it from its FIFO. Says how much was taken.
    fn log(&self, sink: &mut Sink, from: &mut Stream, there: &[u8], (stream, time): (LogStream, Timestamp), all: bool) -> usize {
        let mut mark = self.mark.borrow_mut();
        if let Some(place) = sink.file.place(time) {
            mark.set(&sink.group, stream, place, there);
        }
        let text = &mut self.text.borrow_mut();
        let mut lines = Lines::new(sink, text, stream, time);
        lines.known = from.known;
        let taken = lines.take(&mut from.partial, there, all);
        from.known = lines.known;
        lines.write();
        self.take(&from.fifo, taken);
        mark.clear();
        taken
    }
}

impl Sink {
    fn new(data_dir: &Path, group: &GroupName, rules: Rules<'_>) -> Self {
        let file = LogFile::new(data_dir, group, rules.policy.clone());
        let forward = Forward::new(&rules.policy.forward, group, rules.release);
        Self { group: group.clone(), file, forward }
    }

    fn forwards_elsewhere(&self, rules: Rules<'_>) -> bool {
        self.forward.as_ref().map_or(&LogForward::None, |forward| &forward.target) != &rules.policy.forward
    }

    fn set_rules(&mut self, rules: Rules<'_>) {
        if self.file.policy != *rules.policy {
            self.file.set_policy(rules.policy.clone());
        }
        if self.forwards_elsewhere(rules) {
            // What waits for the one from before has found its end; the count goes on.
            let lost = self.forward.as_ref().map_or(0, |forward| forward.lost + forward.queued());
            self.forward = Forward::new(&rules.policy.forward, &self.group, rules.release);
            if let Some(forward) = &mut self.forward {
                forward.lost = lost;
            }
        }
        if let Some(forward) = self.forward.as_mut().filter(|forward| forward.release != rules.release) {
            forward.release = rules.release.to_owned();
        }
    }

    fn waits(&self) -> bool {
        self.file.waits() || self.forward.as_ref().is_some_and(Forward::waits)
    }

    fn try_again(&mut self, time: Timestamp) {
        if self.file.waits() {
            self.file.place(time);
        }
        if let Some(forward) = &mut self.forward {
            forward.flush(time);
        }
    }

    fn losses(&self) -> LogLosses {
        let mut losses = self.file.losses.clone();
        if let Some(forward) = &self.forward {
            losses.unforwarded = forward.lost;
            if !forward.trouble.is_empty() {
                let separator = if losses.trouble.is_empty() { "" } else { "; " };
                losses.trouble = format!("{}{separator}{}", losses.trouble, forward.trouble);
            }
        }
        losses
    }
}

impl Stream {
    fn open(path: PathBuf) -> io::Result<Self> {
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_fifo() => {}
            Ok(_) => std::fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // Held open for writing too, so that the end of the last writer does not show as an end that never goes away.
        let fifo = open(&path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        // It may be as it was: then it holds less.
        let _ = fcntl_setpipe_size(&fifo, FIFO_BYTES);
        Ok(Self { path, fifo: lasting(fifo), partial: Vec::new(), known: 0 })
    }

    /// Whether what has no end must be taken all the same: there is more behind it than was seen, or no room for its end.
    fn is_held_up(&self, seen: usize) -> bool {
        let behind = ioctl_fionread(&self.fifo).is_ok_and(|there| there > seen as u64);
        let mut writable = [PollFd::new(&self.fifo, PollFlags::OUT)];
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        behind || !poll(&mut writable, Some(&none)).is_ok_and(|ready| ready > 0)
    }
}

/// Lines of a service that nobody reads a FIFO for, each with a time of its own.
pub(crate) struct Log {
    sink: Sink,
    text: Vec<u8>,
}

impl Log {
    /// For a service; nothing is opened before the first line.
    pub(crate) fn new(data_dir: &Path, group: &GroupName, policy: &LogPolicy, release: &str) -> Self {
        Self { sink: Sink::new(data_dir, group, Rules { policy, release }), text: Vec::new() }
    }

    /// Takes other rules over.
    pub(crate) fn set_policy(&mut self, policy: &LogPolicy, release: &str) {
        self.sink.set_rules(Rules { policy, release });
    }

    /// Writes one line, or a part of one that goes on.
    pub(crate) fn line(&mut self, stream: LogStream, time: Timestamp, line: &[u8], more: bool) {
        let mut lines = Lines::new(&mut self.sink, &mut self.text, stream, time);
        lines.line(line, more);
        lines.write();
    }

    /// What got lost.
    pub(crate) fn losses(&self) -> LogLosses {
        self.sink.losses()
    }
}

fn fifo_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("keeper").join("output")
}

/// Makes a directory that only the keeper's user can enter.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
