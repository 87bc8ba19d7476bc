//! What is being written at this moment: so many bytes at the head of a FIFO, whose lines go behind this place of a file.
//!
//! Written before the lines, cleared after the FIFO has been emptied of them. Found by a keeper whose predecessor was killed in
//! between, it tells whether the FIFO still holds what the file already has. One for all services, since only one is written
//! at a time; where it cannot be written, such lines come twice.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::READ_BYTES;
use super::file::Place;
use crate::model::{GroupName, LogStream};

/// Its name; no group's is like it.
const NAME: &str = ".mark";

/// Bytes in front of the group's name: six numbers.
const HEAD_BYTES: usize = 48;

/// Longest name that is marked.
const NAME_MAX_BYTES: usize = 464;

/// So much of either end of what was read tells it from other output.
const SAMPLE_BYTES: usize = 256;

/// The file.
pub(super) struct Mark(Option<File>);

/// What it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Marked {
    group: String,
    pub(super) stream: LogStream,
    pub(super) place: Place,
    pub(super) length: usize,
    sum: u64,
}

impl Mark {
    pub(super) fn open(dir: &Path) -> Self {
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(dir.join(NAME));
        Self(open.ok())
    }

    /// Before the lines of these bytes are written.
    pub(super) fn set(&mut self, group: &GroupName, stream: LogStream, place: Place, bytes: &[u8]) {
        let Some(file) = &self.0 else { return };
        let name = group.to_string();
        if name.len() > NAME_MAX_BYTES {
            return;
        }
        let numbers = [1 + stream as u64, place.inode, place.offset, bytes.len() as u64, sum(bytes), name.len() as u64]
            .map(u64::to_le_bytes);
        let mut record = [0; HEAD_BYTES + NAME_MAX_BYTES];
        record[..HEAD_BYTES].copy_from_slice(numbers.as_flattened());
        record[HEAD_BYTES..HEAD_BYTES + name.len()].copy_from_slice(name.as_bytes());
        let _ = file.write_all_at(&record[..HEAD_BYTES + name.len()], 0);
    }

    /// Once they are taken from their FIFO.
    pub(super) fn clear(&mut self) {
        if let Some(file) = &self.0 {
            let _ = file.write_all_at(&[0; 8], 0);
        }
    }

    /// What a keeper before has left of this service, which is then cleared.
    pub(super) fn take(&mut self, group: &GroupName) -> Option<Marked> {
        let marked = self.read().filter(|marked| marked.group == group.to_string())?;
        self.clear();
        Some(marked)
    }

    fn read(&self) -> Option<Marked> {
        let mut record = [0; HEAD_BYTES + NAME_MAX_BYTES];
        let file = self.0.as_ref()?;
        let length = usize::try_from(file.metadata().ok()?.len()).ok()?.min(record.len());
        file.read_exact_at(&mut record[..length], 0).ok()?;
        let number = |at: usize| record[8 * at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let stream = match number(0) {
            1 => LogStream::Stdout,
            2 => LogStream::Stderr,
            _ => return None,
        };
        let name = record.get(HEAD_BYTES..HEAD_BYTES + usize::try_from(number(5)).ok()?)?;
        Some(Marked {
            group: std::str::from_utf8(name).ok()?.to_owned(),
            stream,
            place: Place { inode: number(1), offset: number(2) },
            length: usize::try_from(number(3)).ok().filter(|length| *length <= READ_BYTES)?,
            sum: number(4),
        })
    }
}

impl Marked {
    /// Whether these are the bytes that were marked.
    pub(super) fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.length && sum(bytes) == self.sum
    }
}

/// FNV-1a over both ends.
fn sum(bytes: &[u8]) -> u64 {
    let tail = bytes.len().saturating_sub(SAMPLE_BYTES).max(bytes.len().min(SAMPLE_BYTES));
    let sample = bytes[..bytes.len().min(SAMPLE_BYTES)].iter().chain(&bytes[tail..]);
    sample.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
