//! Two files, of which the newer whole one counts: `FORMAT VERSION GENERATION SHA256` on the first line, then JSON.
//!
//! The digest covers version and generation as well, so that a flipped bit in them does not make an old state the newest.
//! A write goes to a temporary name, to the disk, and over the *older* of the two.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{STATE_FILE_MODE, State, StoreError};
use crate::model::{Digest, DigestBuilder};

const FORMAT: &str = "tagfall-state";
/// The version that this code writes; the first line keeps its form in all versions.
const VERSION: u32 = 1;
const TEMPORARY: &str = "state.tmp";
/// So many damaged files are kept for a person to look at, the newest.
const BROKEN_MAX: usize = 4;
/// Longest state that is read: pins are the bulk of it, about 100 bytes for each tag.
const STATE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// One of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    A,
    B,
}

/// What the two files hold.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) state: Option<State>,
    pub(super) generation: u64,
    /// Where the newest is (where there is none: the one that is not written next).
    pub(super) slot: Slot,
    pub(super) payload: Option<Digest>,
    pub(super) notes: Vec<String>,
}

/// What one file holds.
enum Content {
    Whole { generation: u64, state: Box<State>, payload: Digest },
    Newer(u32),
    Missing,
    Broken(&'static str),
}

impl Slot {
    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(super) fn path(self, folder: &Path) -> PathBuf {
        folder.join(match self {
            Self::A => "state.a",
            Self::B => "state.b",
        })
    }
}

/// Reads both, moves what is broken aside, and takes the highest generation. A file of a newer version is an error, and
/// then nothing is moved.
pub(super) fn read(folder: &Path) -> Result<Found, StoreError> {
    let both = [Slot::A, Slot::B].map(|slot| (slot, content(&slot.path(folder))));
    let mut found = Found { state: None, generation: 0, slot: Slot::B, payload: None, notes: Vec::new() };
    let mut broken = Vec::new();
    for (slot, content) in both {
        let path = slot.path(folder);
        match content.map_err(|error| StoreError::new("read the state", &path, error))? {
            Content::Newer(version) => return Err(StoreError::Newer { path, found: version, known: VERSION }),
            Content::Missing => (),
            Content::Broken(what) => broken.push((path, what)),
            Content::Whole { generation, state, payload } if generation > found.generation => {
                found = Found { state: Some(*state), generation, slot, payload: Some(payload), notes: found.notes };
            }
            Content::Whole { .. } => (),
        }
    }
    for (path, what) in broken {
        let aside = move_aside(folder, &path)?;
        let instead = found
            .state
            .as_ref()
            .map(|_| format!("; the other file, generation {}, is used", found.generation))
            .unwrap_or_default();
        found.notes.push(format!("`{}` is {what} and was moved to `{}`{instead}", path.display(), aside.display()));
    }
    Ok(found)
}

/// The newest whole state, for those who only look: takes no lock, moves nothing. `None` where there is none that can be read.
pub(super) fn peek(folder: &Path) -> Option<State> {
    let whole = |slot: Slot| match content(&slot.path(folder)) {
        Ok(Content::Whole { generation, state, .. }) => Some((generation, state)),
        Ok(Content::Newer(_) | Content::Missing | Content::Broken(_)) | Err(_) => None,
    };
    let newest = [Slot::A, Slot::B].into_iter().filter_map(whole).max_by_key(|(generation, _)| *generation);
    newest.map(|(_, state)| *state)
}

pub(super) fn payload(state: &State, folder: &Path) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec_pretty(state).map_err(|error| StoreError::new("put into words the state of", folder, error.into()))
}

/// Writes one file, durably and whole.
pub(super) fn write(folder: &Path, slot: Slot, generation: u64, payload: &[u8]) -> Result<(), StoreError> {
    let temporary = folder.join(TEMPORARY);
    let place = slot.path(folder);
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(STATE_FILE_MODE).open(&temporary)?;
        writeln!(file, "{FORMAT} {VERSION} {generation} {}", checksum(VERSION, generation, payload))?;
        file.write_all(payload)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &place)
    })();
    written.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        StoreError::new("write the state", &place, error)
    })?;
    sync(folder)
}

fn sync(folder: &Path) -> Result<(), StoreError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| StoreError::new("sync", folder, error))
}

fn checksum(version: u32, generation: u64, payload: &[u8]) -> Digest {
    let digest = DigestBuilder::new(FORMAT).field(&version.to_le_bytes());
    digest.field(&generation.to_le_bytes()).field(payload).finish()
}

fn content(path: &Path) -> io::Result<Content> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => return Ok(Content::Broken("not a file")),
        Ok(found) if found.len() > STATE_MAX_BYTES => return Ok(Content::Broken("too long")),
        Ok(_) => (),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Missing),
        Err(error) => return Err(error),
    }
    Ok(parse(&std::fs::read(path)?))
}

fn parse(bytes: &[u8]) -> Content {
    if bytes.is_empty() {
        return Content::Broken("empty");
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Content::Broken("all zeros");
    }
    let Some((version, generation, digest, payload)) = split(bytes) else {
        return Content::Broken("damaged in its first line");
    };
    if checksum(version, generation, payload) != digest {
        return Content::Broken("damaged (its checksum does not fit)");
    }
    if version > VERSION {
        return Content::Newer(version);
    }
    match serde_json::from_slice(payload) {
        Ok(state) => Content::Whole { generation, state: Box::new(state), payload: Digest::of(payload) },
        Err(_) => Content::Broken("whole, but not a state that can be read"),
    }
}

fn split(bytes: &[u8]) -> Option<(u32, u64, Digest, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut words = head.split(' ');
    let (format, version, generation, digest) = (words.next()?, words.next()?, words.next()?, words.next()?);
    if format != FORMAT || words.next().is_some() {
        return None;
    }
    Some((version.parse().ok()?, generation.parse().ok()?, digest.parse().ok()?, &bytes[end + 1..]))
}

/// Renames to `NAME.broken-N`, and lets the oldest of those go beyond the bound.
fn move_aside(folder: &Path, path: &Path) -> Result<PathBuf, StoreError> {
    let failed = |error| StoreError::new("move aside", path, error);
    let mut old: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let number = entry.file_name().to_str().and_then(|name| name.split_once(".broken-")?.1.parse().ok());
        old.extend(number.map(|number| (number, entry.path())));
    }
    old.sort();
    let next = old.last().map_or(1, |(number, _)| number + 1);
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".broken-{next}"));
    let aside = PathBuf::from(aside);
    std::fs::rename(path, &aside).map_err(failed)?;
    for (_, oldest) in old.iter().take((old.len() + 1).saturating_sub(BROKEN_MAX)) {
        std::fs::remove_file(oldest).map_err(|error| StoreError::new("remove", oldest, error))?;
    }
    sync(folder)?;
    Ok(aside)
}

#[cfg(test)]
pub(super) fn with_version(version: u32, generation: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{FORMAT} {version} {generation} {}\n", checksum(version, generation, payload)).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}
