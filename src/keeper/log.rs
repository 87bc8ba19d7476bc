//! A service's output: read from FIFOs, written to rotated files line by line.
//!
//! The FIFOs have names and the service holds them open for reading as well, so that it neither ends nor loses lines while
//! no keeper reads. What a service writes costs at most one read per turn of the loop and one partial line of memory.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, tee};

use super::wire::{LOG_FILES, LOG_LINE_MAX_BYTES, log_dir, stream_letter};
use crate::model::{GroupName, LogStream, Timestamp};

/// A file is rotated before it grows beyond this many bytes.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Formatted lines are written once so many bytes have come together.
const WRITE_BYTES: usize = 64 * 1024;

/// So many reads empty a FIFO that nobody writes to, with the buffer that the loop has.
const DRAIN_READS: usize = 1 + FIFO_BYTES / (64 * 1024);

/// A partial line's buffer larger than this is given back once it is empty.
const KEPT_BYTES: usize = 512;

/// Bytes that a FIFO takes in while nobody reads it: a service goes on for so long while no keeper is there. A user's limit
/// (/proc/sys/fs/pipe-user-pages-soft) may leave it at the system's default.
const FIFO_BYTES: usize = 1024 * 1024;

/// A pipe through which a FIFO is looked at before anything is taken from it: what a killed keeper had read but not written
/// would be lost.
pub(super) struct Scratch {
    read: OwnedFd,
    write: OwnedFd,
    nowhere: OwnedFd,
}

impl Scratch {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let nowhere = open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { read, write, nowhere })
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

/// One of the two streams.
struct Stream {
    path: PathBuf,
    fifo: OwnedFd,
    partial: Vec<u8>,
}

/// The output of one service.
pub(super) struct Output {
    stdout: Stream,
    stderr: Stream,
    file: LogFile,
    scratch: Rc<Scratch>,
}

impl Output {
    /// Opens or makes what the output of a service goes through.
    pub(super) fn open(data_dir: &Path, group: &GroupName, scratch: &Rc<Scratch>) -> io::Result<Self> {
        let fifos = data_dir.join("keeper").join("output");
        private_dir(&fifos)?;
        let stdout = Stream::open(fifos.join(format!("{group}.stdout")))?;
        let stderr = Stream::open(fifos.join(format!("{group}.stderr")))?;
        let dir = log_dir(data_dir, group);
        Ok(Self {
            stdout,
            stderr,
            file: LogFile { dir, file: None, size: 0, dropped: 0, torn: false },
            scratch: Rc::clone(scratch),
        })
    }

    /// The end that a service gets.
    pub(super) fn service_end(&self, stream: LogStream) -> io::Result<OwnedFd> {
        Ok(open(&self.stream(stream).path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// The end to wait on.
    pub(super) fn keeper_end(&self, stream: LogStream) -> BorrowedFd<'_> {
        self.stream(stream).fifo.as_fd()
    }

    /// Reads once what is there, at most a buffer full, and logs its whole lines. Says whether there was anything. What
    /// follows the last whole line is left for the next time, when there may be more of it.
    pub(super) fn take(&mut self, stream: LogStream, buffer: &mut [u8], time: Timestamp) -> bool {
        self.take_some(stream, buffer, time, false)
    }

    fn take_some(&mut self, stream: LogStream, buffer: &mut [u8], time: Timestamp, all: bool) -> bool {
        let (from, file) = match stream {
            LogStream::Stdout => (&mut self.stdout, &mut self.file),
            LogStream::Stderr => (&mut self.stderr, &mut self.file),
        };
        let Ok(there) = self.scratch.look(&from.fifo, buffer) else { return false };
        let whole = buffer[..there].iter().rposition(|byte| *byte == b'\n').filter(|_| !all);
        let length = whole.map_or(there, |at| at + 1);
        let mut lines = Lines::new(file, stream, time);
        lines.take(&mut from.partial, &buffer[..length]);
        lines.write();
        // Only now: killed in between, a keeper leaves lines to be logged twice rather than never.
        self.scratch.take(&from.fifo, length);
        length > 0
    }

    /// Takes what is there and ends partial lines: whoever wrote them is gone. A FIFO holds no more than a few reads; what
    /// somebody else goes on writing is not waited for.
    pub(super) fn drain(&mut self, buffer: &mut [u8], time: Timestamp) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            for _ in 0..DRAIN_READS {
                if !self.take_some(stream, buffer, time, true) {
                    break;
                }
            }
            let from = match stream {
                LogStream::Stdout => &mut self.stdout,
                LogStream::Stderr => &mut self.stderr,
            };
            let mut lines = Lines::new(&mut self.file, stream, time);
            if !from.partial.is_empty() {
                lines.line(&std::mem::take(&mut from.partial));
            }
            lines.write();
        }
    }

    /// The beginning of a line whose end has not come yet.
    pub(super) fn partial(&mut self, stream: LogStream) -> &mut Vec<u8> {
        match stream {
            LogStream::Stdout => &mut self.stdout.partial,
            LogStream::Stderr => &mut self.stderr.partial,
        }
    }

    /// Takes the FIFOs away; the log files stay.
    pub(super) fn remove(&self) {
        for stream in [&self.stdout, &self.stderr] {
            let _ = std::fs::remove_file(&stream.path);
        }
    }

    fn stream(&self, stream: LogStream) -> &Stream {
        match stream {
            LogStream::Stdout => &self.stdout,
            LogStream::Stderr => &self.stderr,
        }
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
        Ok(Self { path, fifo, partial: Vec::new() })
    }
}

/// Makes a directory that only the keeper's user can enter.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Where lines go.
pub(crate) struct LogFile {
    dir: PathBuf,
    file: Option<File>,
    size: u64,
    dropped: u64,
    /// The last line on disk may lack its end.
    torn: bool,
}

impl LogFile {
    /// For a service; nothing is opened before the first line.
    pub(crate) fn new(data_dir: &Path, group: &GroupName) -> Self {
        Self { dir: log_dir(data_dir, group), file: None, size: 0, dropped: 0, torn: false }
    }

    /// Appends formatted lines; counts those that could not be written.
    pub(crate) fn append(&mut self, text: &[u8], lines: u64, time: Timestamp) {
        if self.try_append(text, time).is_err() {
            self.dropped += lines;
        }
    }

    fn try_append(&mut self, text: &[u8], time: Timestamp) -> io::Result<()> {
        if self.file.is_some() && self.size + text.len() as u64 > FILE_MAX_BYTES {
            self.rotate()?;
        }
        if self.file.is_none() {
            self.open()?;
        }
        if self.torn {
            self.write(b"\n")?;
            self.torn = false;
        }
        if self.dropped > 0 {
            let notice = format!("{time} e tagfall: {} lines could not be written here and are lost\n", self.dropped);
            self.write(notice.as_bytes())?;
            self.dropped = 0;
        }
        self.write(text)
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        while !bytes.is_empty() {
            match file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.size += written as u64;
                    self.torn = bytes[written - 1] != b'\n';
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(&self.dir)?;
        let path = self.dir.join(LOG_FILES[0]);
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        if self.size > FILE_MAX_BYTES { self.rotate() } else { Ok(()) }
    }

    fn rotate(&mut self) -> io::Result<()> {
        for at in (1..LOG_FILES.len()).rev() {
            match std::fs::rename(self.dir.join(LOG_FILES[at - 1]), self.dir.join(LOG_FILES[at])) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.file = None;
        self.torn = false;
        self.open()
    }
}

/// Lines on their way to a file, written together.
struct Lines<'a> {
    file: &'a mut LogFile,
    prefix: String,
    time: Timestamp,
    text: Vec<u8>,
    count: u64,
}

impl<'a> Lines<'a> {
    fn new(file: &'a mut LogFile, stream: LogStream, time: Timestamp) -> Self {
        let mut prefix = String::with_capacity(32);
        let _ = write!(prefix, "{time} {} ", stream_letter(stream));
        Self { file, prefix, time, text: Vec::new(), count: 0 }
    }

    /// Splits what was read into lines; the last one may go on in the next read.
    fn take(&mut self, partial: &mut Vec<u8>, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            if partial.is_empty() {
                self.split(line, true);
            } else {
                partial.extend_from_slice(line);
                self.split(partial, true);
                partial.clear();
            }
            bytes = &rest[1..];
        }
        partial.extend_from_slice(bytes);
        if partial.len() > LOG_LINE_MAX_BYTES {
            let taken = self.split(partial, false);
            partial.drain(..taken);
        }
        if partial.is_empty() && partial.capacity() > KEPT_BYTES {
            *partial = Vec::new();
        }
    }

    /// Logs one line in pieces of bounded length; of one that goes on, only the full pieces. Says how much was taken.
    fn split(&mut self, line: &[u8], whole: bool) -> usize {
        let mut rest = line;
        while rest.len() > LOG_LINE_MAX_BYTES {
            // Not within a character: at most three bytes of UTF-8 follow its first.
            let back = (0..4).find(|back| rest[LOG_LINE_MAX_BYTES - back] & 0xc0 != 0x80).unwrap_or(0);
            let (piece, after) = rest.split_at(LOG_LINE_MAX_BYTES - back);
            self.line(piece);
            rest = after;
        }
        if whole {
            self.line(rest);
            rest = &[];
        }
        line.len() - rest.len()
    }

    fn line(&mut self, line: &[u8]) {
        self.text.extend_from_slice(self.prefix.as_bytes());
        self.text.extend_from_slice(String::from_utf8_lossy(line).as_bytes());
        self.text.push(b'\n');
        self.count += 1;
        if self.text.len() >= WRITE_BYTES {
            self.write();
        }
    }

    fn write(&mut self) {
        if !self.text.is_empty() {
            self.file.append(&self.text, self.count, self.time);
            self.text.clear();
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::wire::parse_line;

    fn stage() -> (tempfile::TempDir, GroupName, Output) {
        let data = tempfile::tempdir().unwrap();
        let group: GroupName = "web".parse().unwrap();
        let output = Output::open(data.path(), &group, &Rc::new(Scratch::new().unwrap())).unwrap();
        (data, group, output)
    }

    fn texts(data: &Path, group: &GroupName) -> Vec<String> {
        let bytes = std::fs::read(log_dir(data, group).join(LOG_FILES[0])).unwrap_or_default();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| parse_line(line).unwrap().text).collect()
    }

    #[test]
    fn lines_come_whole_whatever_they_are_made_of() {
        let (data, group, mut output) = stage();
        let mut end = File::from(output.service_end(LogStream::Stdout).unwrap());
        let mut buffer = vec![0; 4096];
        end.write_all(b"one\ntw").unwrap();
        output.take(LogStream::Stdout, &mut buffer, Timestamp(0));
        assert_eq!(texts(data.path(), &group), ["one"]);
        end.write_all(b"o\n\xff\xfe\0\nrest").unwrap();
        output.drain(&mut buffer, Timestamp(0));
        assert_eq!(texts(data.path(), &group), ["one", "two", "\u{fffd}\u{fffd}\0", "rest"]);
    }

    #[test]
    fn an_endless_line_is_continued_and_takes_bounded_memory() {
        let (data, group, mut output) = stage();
        let mut end = File::from(output.service_end(LogStream::Stderr).unwrap());
        let mut buffer = vec![0; 4096];
        let text = "ä".repeat(2000);
        for _ in 0..10 {
            end.write_all(text.as_bytes()).unwrap();
            while output.take(LogStream::Stderr, &mut buffer, Timestamp(0)) {}
            assert!(output.stderr.partial.len() <= LOG_LINE_MAX_BYTES + buffer.len());
        }
        output.drain(&mut buffer, Timestamp(0));
        let lines = texts(data.path(), &group);
        assert!(lines.iter().all(|line| line.len() <= LOG_LINE_MAX_BYTES));
        assert_eq!(lines.concat(), "ä".repeat(20_000));
    }

    #[test]
    fn files_are_rotated_and_bounded() {
        let (data, group, mut output) = stage();
        let mut end = File::from(output.service_end(LogStream::Stdout).unwrap());
        let mut buffer = vec![0; 64 * 1024];
        let block = format!("{}\n", "x".repeat(1023)).repeat(32);
        for _ in 0..160 {
            end.write_all(block.as_bytes()).unwrap();
            while output.take(LogStream::Stdout, &mut buffer, Timestamp(0)) {}
        }
        let sizes = LOG_FILES.map(|name| std::fs::metadata(log_dir(data.path(), &group).join(name)).unwrap().len());
        assert!(sizes.iter().all(|size| *size > 0 && *size <= FILE_MAX_BYTES), "{sizes:?}");
        assert_eq!(std::fs::read_dir(log_dir(data.path(), &group)).unwrap().count(), LOG_FILES.len());
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (data, group, mut output) = stage();
        let mut end = File::from(output.service_end(LogStream::Stdout).unwrap());
        let mut buffer = vec![0; 4096];
        // A file in the place of the directory: nothing can be written.
        std::fs::write(data.path().join("logs"), "").unwrap();
        end.write_all(b"one\ntwo\n").unwrap();
        output.take(LogStream::Stdout, &mut buffer, Timestamp(0));
        std::fs::remove_file(data.path().join("logs")).unwrap();
        end.write_all(b"three\n").unwrap();
        output.take(LogStream::Stdout, &mut buffer, Timestamp(0));
        assert_eq!(texts(data.path(), &group), ["tagfall: 2 lines could not be written here and are lost", "three"]);
    }
}
