//! Durable state of the supervisor: one state document in two generations, and the log of events.
//!
//! Below `DATA_DIR/state/`: `lock`, `state.a`, `state.b`, `seen.log`, `events.log`, `events.log.1`. It stores what it is given and
//! hands back what it finds; what the values mean is `release`'s and `plan`'s question. It knows nothing of Git, services
//! or publications. A new fact to remember is a field of [`State`] with `#[serde(default)]`; a change that older versions
//! would misread raises the version in `slot`.

mod error;
mod events;
mod seen;
mod slot;
mod state;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::model::{Digest, MemberId, RemoteTag};

pub use error::StoreError;
pub use events::{Event, Events, NewEvent};
pub use seen::{Mark, NAMES_MAX, Seen, SeenError};
pub use state::{Accepted, PublishedAt, Refused, State};

/// Only the supervisor's user reads its state.
const STATE_DIR_MODE: u32 = 0o700;
/// Mode of every file in it.
const STATE_FILE_MODE: u32 = 0o600;
/// The data folder itself is passed through by services that run as other users.
const DATA_DIR_MODE: u32 = 0o711;

/// The state document on disk. Held by one process at a time.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
    last: Mutex<Last>,
}

/// What is on disk.
#[derive(Debug)]
struct Last {
    generation: u64,
    slot: slot::Slot,
    payload: Option<Digest>,
}

/// What was found when the store was opened.
#[derive(Debug)]
pub struct Opened {
    /// For saving.
    pub store: Store,
    /// What was seen once, for ever.
    pub seen: Seen,
    /// The newest whole state.
    pub state: State,
    /// What was not whole, and what was done about it, for condition `StateRestored`; empty = all was well.
    pub notes: Vec<String>,
}

impl Store {
    /// Takes the lock and reads the newest whole state; a data folder that has none gets one, with a new member id.
    pub fn open(data_dir: &Path) -> Result<Opened, StoreError> {
        let folder = folder(data_dir)?;
        let lock = lock(&folder)?;
        let found = slot::read(&folder)?;
        let mut notes = found.notes;
        let (state, fresh) = match found.state {
            Some(state) => (state, false),
            None => (State::new(new_member_id()?), true),
        };
        let last = Last { generation: found.generation, slot: found.slot, payload: found.payload };
        let mut seen = Seen::open(&folder, state.seen, &mut notes)?;
        let mut state = state;
        if fresh && (!notes.is_empty() || !seen.is_empty()) {
            notes.push(format!(
                "no whole state is left: this supervisor begins anew, with a new member id and without pinned or rejected \
                 releases; {} tags and what they named first are remembered",
                seen.len()
            ));
        }
        check_floor(&mut state, &mut seen, &mut notes)?;
        note_accepted(&state, &mut seen)?;
        let store = Self { folder, _lock: lock, last: Mutex::new(last) };
        if fresh {
            store.save(&state)?;
        }
        Ok(Opened { store, seen, state, notes })
    }

    /// What a data folder remembers, for those who only look while its supervisor runs or does not. `None` also where the
    /// folder is out of reach.
    pub fn peek(data_dir: &Path) -> Option<State> {
        slot::peek(&data_dir.join("state"))
    }

    /// Writes a new generation over the older one. Says whether there was anything new to write. On an error the state on
    /// disk is what it was.
    pub fn save(&self, state: &State) -> Result<bool, StoreError> {
        let payload = slot::payload(&state.bounded(), &self.folder)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = Digest::of(&payload);
        if last.payload == Some(digest) {
            return Ok(false);
        }
        let (generation, slot) = (last.generation + 1, last.slot.other());
        slot::write(&self.folder, slot, generation, &payload)?;
        *last = Last { generation, slot, payload: Some(digest) };
        Ok(true)
    }
}

/// The floor stands in both; where they differ, one of them was taken back, and the higher counts.
fn check_floor(state: &mut State, seen: &mut Seen, notes: &mut Vec<String>) -> Result<(), StoreError> {
    let of_state = state.floor.as_ref().and_then(|floor| semver::Version::parse(floor).ok());
    match (of_state, seen.floor().cloned()) {
        (Some(floor), of_log) if of_log.as_ref().is_none_or(|other| *other < floor) => seen.raise_floor(&floor),
        (of_state, Some(floor)) if of_state.as_ref().is_none_or(|other| *other < floor) => {
            let told = of_state.map_or_else(|| "none".to_owned(), |other| other.to_string());
            notes.push(format!(
                "the state remembers {told} as the highest version that ran here, and the log of tags {floor}: the state is an older \
                 copy or was lost, and {floor} counts"
            ));
            state.floor = Some(floor.to_string());
            Ok(())
        }
        (_, _) => Ok(()),
    }
}

/// What ran here was seen here, though the log of it may be gone.
fn note_accepted(state: &State, seen: &mut Seen) -> Result<(), StoreError> {
    let tag = |accepted: &Accepted| RemoteTag { name: accepted.tag.clone(), object: accepted.tag_object };
    let ran: Vec<RemoteTag> = state.accepted.iter().chain(&state.history).map(tag).collect();
    match seen.see(ran.iter()) {
        Ok(_) | Err(SeenError::Full(_)) => Ok(()),
        Err(SeenError::Store(error)) => Err(error),
    }
}

/// The folder of the state, made where it is missing.
fn folder(data_dir: &Path) -> Result<PathBuf, StoreError> {
    let folder = data_dir.join("state");
    for (path, mode) in [(data_dir, DATA_DIR_MODE), (&folder, STATE_DIR_MODE)] {
        let make = || std::fs::DirBuilder::new().recursive(true).mode(mode).create(path);
        make().map_err(|error| StoreError::new("make the folder", path, error))?;
    }
    Ok(folder)
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let failed = |error| StoreError::new("open the lock", &path, error);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(STATE_FILE_MODE);
    let mut file = options.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => (),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message.
            let _ = file.read_to_string(&mut holder);
            return Err(StoreError::InUse { path, holder: holder.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(StoreError::new("lock", &path, error)),
    }
    let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    match noted {
        // The lock holds without the number of its holder.
        Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(failed(error)),
        _ => Ok(file),
    }
}

fn new_member_id() -> Result<MemberId, StoreError> {
    let mut bytes = [0_u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let got = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty());
        filled += got.map_err(|error| StoreError::Random(error.into()))?;
    }
    Ok(MemberId::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}
