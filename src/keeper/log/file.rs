//! The files of one service's lines: written at their end, closed at their size, counted where they cannot be written.
//!
//! A disk that takes nothing holds nobody up: the newest lines wait in memory, bounded, and what falls out there is counted.
//! It is tried again after a while, and the log then says how many lines are missing where.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::super::reserve::lasting;
use super::super::wire::{LOG_FILES_MAX, log_dir, log_file};
use super::lines::Form;
use crate::model::{GroupName, LogLosses, LogPolicy, LogStream, Timestamp};

/// So many bytes of lines wait in memory for a disk that takes nothing.
const WAITING_MAX_BYTES: usize = 64 * 1024;

/// How long a disk that took nothing is left alone, in milliseconds of the wall clock: a full file system may take
/// milliseconds to say that it is.
const LEFT_ALONE_MS: u64 = 1_000;

/// Where lines go.
pub(crate) struct LogFile {
    dir: PathBuf,
    group: GroupName,
    pub(super) policy: LogPolicy,
    file: Option<File>,
    inode: u64,
    size: u64,
    /// The last line on disk may lack its end.
    torn: bool,
    /// Lines that the disk did not take; the newest ones.
    waiting: Vec<u8>,
    failed: Option<Timestamp>,
    /// Lost since the log last said so: lines and bytes.
    untold: (u64, u64),
    pub(super) losses: LogLosses,
}

/// Where the next line will be: a file and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) inode: u64,
    pub(super) offset: u64,
}

impl LogFile {
    /// For a service; nothing is opened before the first line.
    pub(super) fn new(data_dir: &Path, group: &GroupName, policy: LogPolicy) -> Self {
        Self {
            dir: log_dir(data_dir, group),
            group: group.clone(),
            policy,
            file: None,
            inode: 0,
            size: 0,
            torn: false,
            waiting: Vec::new(),
            failed: None,
            untold: (0, 0),
            losses: LogLosses::default(),
        }
    }

    /// Takes other rules over, for what is written from now on.
    pub(super) fn set_policy(&mut self, policy: LogPolicy) {
        if policy.files < self.policy.files {
            self.remove_surplus(policy.files);
        }
        self.policy = policy;
    }

    /// Whether lines wait for the disk.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many lines wait, and how many bytes they are.
    pub(super) fn waiting(&self) -> (u64, u64) {
        (ends(&self.waiting), self.waiting.len() as u64)
    }

    /// Appends formatted lines, whole ones.
    pub(super) fn append(&mut self, text: &[u8], time: Timestamp) {
        if self.is_left_alone(time) {
            return self.keep(text);
        }
        let written = self.try_append(text, time);
        self.judge(written, text, time);
    }

    /// Makes ready for the next lines: with a file that has room, all that waits written, and all that is lost told. `None`
    /// where that cannot be.
    pub(super) fn place(&mut self, time: Timestamp) -> Option<Place> {
        if self.is_left_alone(time) {
            return None;
        }
        let ready = self.ready(time);
        self.judge(ready.map_err(|error| (0, error)), &[], time);
        self.failed.is_none().then_some(Place { inode: self.inode, offset: self.size })
    }

    fn is_left_alone(&self, time: Timestamp) -> bool {
        self.failed.is_some_and(|failed| failed.0.abs_diff(time.0) < LEFT_ALONE_MS)
    }

    fn judge(&mut self, written: Result<(), (usize, io::Error)>, text: &[u8], time: Timestamp) {
        match written {
            Ok(()) => {
                self.failed = None;
                self.losses.trouble.clear();
            }
            Err((written, error)) => {
                self.failed = Some(time);
                self.losses.trouble = format!("its log cannot be written in `{}`: {error}", self.dir.display());
                self.keep(&text[written..]);
            }
        }
    }

    /// Says how many bytes of the text are on disk where not all are: whole lines.
    fn try_append(&mut self, text: &[u8], time: Timestamp) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        while done < text.len() {
            self.ready(time).map_err(|error| (done, error))?;
            let room = usize::try_from(self.policy.max_size.saturating_sub(self.size)).unwrap_or(usize::MAX);
            let rest = &text[done..];
            // At the end of a line; a line that is larger than a file gets one of its own.
            let fits = if rest.len() <= room { rest.len() } else { last_end(&rest[..room]) };
            let fits = if fits == 0 && self.size == 0 { first_end(rest) } else { fits };
            if fits == 0 {
                self.rotate().map_err(|error| (done, error))?;
                continue;
            }
            let begin = self.size;
            if let Err(error) = self.write(&rest[..fits]) {
                let got = usize::try_from(self.size - begin).unwrap_or(0);
                let whole = last_end(&rest[..got.min(rest.len())]);
                self.cut_back(begin + whole as u64);
                return Err((done + whole, error));
            }
            done += fits;
        }
        Ok(())
    }

    /// An open file with room, and nothing that should stand before the next line.
    fn ready(&mut self, time: Timestamp) -> io::Result<()> {
        if self.file.is_none() {
            self.open()?;
        }
        let more = (self.waiting.len() as u64).max(1);
        if self.size > 0 && self.size + more > self.policy.max_size {
            self.rotate()?;
        }
        if self.torn {
            self.write(b"\n")?;
            self.torn = false;
        }
        if self.untold != (0, 0) {
            let (lines, bytes) = self.untold;
            let words = format!("tagfall: {lines} lines ({bytes} bytes) could not be written here and are lost");
            let mut notice = Vec::new();
            Form::new(&self.policy, &self.group, LogStream::Stderr, time).line(&mut notice, words.as_bytes(), false);
            self.write_whole(&notice)?;
            self.untold = (0, 0);
        }
        if !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            if let Err(error) = self.write_whole(&waiting) {
                self.waiting = waiting;
                return Err(error);
            }
        }
        Ok(())
    }

    /// All of it, or nothing.
    fn write_whole(&mut self, text: &[u8]) -> io::Result<()> {
        let begin = self.size;
        self.write(text).inspect_err(|_| self.cut_back(begin))
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        while !bytes.is_empty() {
            match file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.size += written as u64;
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes the beginning of a line away whose rest found no room.
    fn cut_back(&mut self, size: u64) {
        let cut = self.file.as_ref().is_some_and(|file| file.set_len(size).is_ok());
        if cut {
            self.size = size;
        } else {
            self.torn = self.size > size;
        }
    }

    fn open(&mut self) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(&self.dir)?;
        let path = self.dir.join(log_file(0));
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
        let found = file.metadata()?;
        (self.inode, self.size) = (found.ino(), found.len());
        let mut last = [b'\n'];
        if self.size > 0 {
            file.read_exact_at(&mut last, self.size - 1)?;
        }
        self.torn = last != [b'\n'];
        self.file = Some(lasting(file.into()).into());
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        // The oldest goes first: a rename over it would make ext4 write all of the other file to the disk at once.
        self.remove_surplus(self.policy.files - 1);
        for age in (1..self.policy.files).rev() {
            match std::fs::rename(self.dir.join(log_file(age - 1)), self.dir.join(log_file(age))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.file = None;
        self.open()
    }

    /// How many whole lines stand behind a place, and a line without an end is taken away: nobody has read it yet.
    pub(super) fn lines_since(&mut self, place: Place) -> Option<u64> {
        let mut lines = 0;
        for age in 0..self.policy.files {
            let file = OpenOptions::new().read(true).write(true).open(self.dir.join(log_file(age))).ok()?;
            let found = file.metadata().ok()?;
            let ours = found.ino() == place.inode;
            let begin = if ours { place.offset } else { 0 };
            let mut text = vec![0; usize::try_from(found.len().checked_sub(begin)?).ok()?];
            file.read_exact_at(&mut text, begin).ok()?;
            let whole = last_end(&text);
            if whole < text.len() && age == 0 {
                file.set_len(begin + whole as u64).ok()?;
            }
            lines += ends(&text);
            if ours {
                return Some(lines);
            }
        }
        None
    }

    /// Files that fewer were asked for since.
    fn remove_surplus(&self, files: u32) {
        for age in files..LOG_FILES_MAX {
            if std::fs::remove_file(self.dir.join(log_file(age))).is_err() {
                return;
            }
        }
    }

    /// Keeps the newest lines for later; counts those that fall out.
    fn keep(&mut self, text: &[u8]) {
        self.waiting.extend_from_slice(text);
        let surplus = self.waiting.len().saturating_sub(WAITING_MAX_BYTES);
        if surplus > 0 {
            let gone = surplus - 1 + first_end(&self.waiting[surplus - 1..]);
            self.lose(gone);
            self.waiting.drain(..gone);
            self.waiting.shrink_to(WAITING_MAX_BYTES);
        }
    }

    /// Counts so many bytes of what waits as lost.
    fn lose(&mut self, bytes: usize) {
        let count = ends(&self.waiting[..bytes]);
        let bytes = bytes as u64;
        self.untold = (self.untold.0 + count, self.untold.1 + bytes);
        self.losses.lines += count;
        self.losses.bytes += bytes;
    }
}

fn ends(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Behind the last newline; 0 where there is none.
fn last_end(text: &[u8]) -> usize {
    text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

/// Behind the first newline; the end where there is none.
fn first_end(text: &[u8]) -> usize {
    text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| at + 1)
}
