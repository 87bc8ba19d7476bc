//! What happened, for people: two files of JSON lines, bounded, never synced (an event lost with the power is no harm).

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{STATE_FILE_MODE, StoreError, folder};
use crate::model::{Reason, Timestamp};

/// A file of this size becomes the older one, and a new one is begun.
const ROTATE_BYTES: u64 = 1024 * 1024;
/// Longer texts are cut.
const TEXT_MAX_BYTES: usize = 4096;

/// One event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Event {
    /// Rises over restarts.
    pub id: u64,
    /// When.
    pub time: Timestamp,
    /// `Normal`, `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A name of [`Reason`]; text, so that events of another version stay readable.
    pub reason: String,
    /// What it is about: a group, a tag, the supervisor.
    pub object: String,
    /// For a person.
    pub message: String,
}

/// An event that has no id yet.
#[derive(Debug, Clone, Copy)]
pub struct NewEvent<'a> {
    /// When.
    pub time: Timestamp,
    /// `Normal`, `Warning`.
    pub kind: &'a str,
    /// Why.
    pub reason: Reason,
    /// What it is about.
    pub object: &'a str,
    /// For a person.
    pub message: &'a str,
}

/// The log.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    older: PathBuf,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    last: u64,
}

impl Events {
    /// Opens the log, and drops a last line that was cut off.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let folder = folder(data_dir)?;
        let (path, older) = (folder.join("events.log"), folder.join("events.log.1"));
        let failed = |error| StoreError::new("open the events", &path, error);
        let file = append_to(&path).map_err(failed)?;
        let content = read(&path)?;
        let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < content.len() {
            file.set_len(whole as u64).map_err(failed)?;
        }
        let old = read(&older)?;
        let last = lines(&old).chain(lines(&content[..whole])).map(|event| event.id).max().unwrap_or(0);
        let open = Mutex::new(Open { file, bytes: whole as u64, last });
        Ok(Self { path, older, open })
    }

    /// Adds one, and returns it with its id. On an error nothing of it is in the log.
    pub fn append(&self, new: NewEvent<'_>) -> Result<Event, StoreError> {
        let failed = |error| StoreError::new("write an event to", &self.path, error);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event {
            id: open.last + 1,
            time: new.time,
            kind: cut(new.kind),
            reason: format!("{:?}", new.reason),
            object: cut(new.object),
            message: cut(new.message),
        };
        let mut line = serde_json::to_vec(&event).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        if open.bytes > 0 && open.bytes + line.len() as u64 > ROTATE_BYTES {
            std::fs::rename(&self.path, &self.older).map_err(failed)?;
            open.file = append_to(&self.path).map_err(failed)?;
            open.bytes = 0;
        }
        if let Err(error) = open.file.write_all(&line) {
            // Half a line would spoil the next one.
            let _ = open.file.set_len(open.bytes);
            return Err(failed(error));
        }
        open.bytes += line.len() as u64;
        open.last = event.id;
        Ok(event)
    }

    /// Events after `id`, oldest first, as far as they are kept.
    pub fn read_since(&self, id: u64) -> Result<Vec<Event>, StoreError> {
        // Held, so that no file is renamed between the two.
        let _open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, new) = (read(&self.older)?, read(&self.path)?);
        Ok(lines(&old).chain(lines(&new)).filter(|event| event.id > id).collect())
    }

    /// The id of the newest; 0 = none yet.
    pub fn last_id(&self) -> u64 {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).last
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(STATE_FILE_MODE).open(path)
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    match std::fs::read(path) {
        Ok(content) => Ok(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(StoreError::new("read the events", path, error)),
    }
}

/// Events of the lines that can be read; others are passed over.
fn lines(content: &[u8]) -> impl Iterator<Item = Event> {
    content.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_MAX_BYTES)].to_owned()
}
