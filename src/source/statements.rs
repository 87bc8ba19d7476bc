//! Tag objects that are not releases: others' signatures of a tag, and the heartbeat.
//!
//! Of such a tag nothing is wanted but its own bytes: what it points at is thrown away with the quarantine folder. Those that
//! sign a release are kept as files (`statements/RELEASE/ID`) for as long as the release is, so that it can be judged again without
//! the remote.

use std::fs;

use git2::{ObjectType, Oid};

use super::store::{Quarantine, Store, failed, make_folder, remove_folder, write_file};
use super::walk::{object_id, oid};
use super::{Source, SourceError, refuse, spawn};
use crate::model::{ObjectId, Reason, Refusal, RemoteTag};

/// Largest tag object of this kind, in bytes.
pub const STATEMENT_MAX_BYTES: u64 = 64 << 10;
/// Seconds for one of them: it points at what is here already, or at little.
const SECONDS_MAX: u64 = 30;
/// So many are kept of one release: more than any threshold needs.
const KEPT_MAX: usize = 100;

impl Source {
    /// The bytes of one tag object, checked against its id. Nothing of it gets into the store.
    ///
    /// # Errors
    /// What is wrong with it, or what kept it from being fetched.
    pub async fn statement(&self, tag: &RemoteTag) -> Result<Vec<u8>, Refusal> {
        let inner = &self.0;
        let _turn = inner.turn.lock().await;
        let store = &inner.store;
        let trouble = |error: SourceError| super::failed(&error);
        let have = store.known(&[]).map_err(trouble)?;
        let quarantine = Quarantine::new(store).map_err(trouble)?;
        let mut config = inner.config.clone();
        config.limits.seconds = config.limits.seconds.min(SECONDS_MAX);
        let bytes = spawn::statement(&config, &inner.remote, tag, have, quarantine.path()).await?;
        if is(&bytes, tag.object) {
            return Ok(bytes);
        }
        Err(refuse(
            Reason::GitOperationFailed,
            format!("the object of tag `{}` is not what its id says; it is tried again", tag.name),
        ))
    }

    /// Keeps what somebody said of a release, as long as the release itself is kept.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn keep_statement(&self, of: ObjectId, bytes: &[u8]) -> Result<(), SourceError> {
        let Ok(id) = Oid::hash_object(ObjectType::Tag, bytes) else { return Ok(()) };
        let folder = self.0.store.statements().join(of.to_string());
        let path = folder.join(object_id(id).to_string());
        if path.exists() {
            return Ok(());
        }
        make_folder(&self.0.store.statements())?;
        make_folder(&folder)?;
        let fresh = path.with_extension("new");
        write_file(&fresh, bytes, true)?;
        fs::rename(&fresh, &path).map_err(failed("write", &path))
    }

    /// What others said of a release, as far as it was kept. What is damaged is left out: it counts for nothing then.
    pub fn statements(&self, of: ObjectId) -> Vec<(ObjectId, Vec<u8>)> {
        let folder = self.0.store.statements().join(of.to_string());
        let mut names: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        names.sort();
        let read = |path: std::path::PathBuf| {
            let id: ObjectId = path.file_name()?.to_str()?.parse().ok()?;
            let short = fs::metadata(&path).is_ok_and(|found| found.len() <= STATEMENT_MAX_BYTES);
            let bytes = fs::read(&path).ok().filter(|_| short)?;
            is(&bytes, id).then_some((id, bytes))
        };
        names.into_iter().take(KEPT_MAX).filter_map(read).collect()
    }
}

fn is(bytes: &[u8], id: ObjectId) -> bool {
    Oid::hash_object(ObjectType::Tag, bytes).is_ok_and(|hashed| hashed == oid(id))
}

impl Store {
    /// Lets go of what was said of releases that are kept no longer.
    pub(super) fn forget_statements(&self, keep: &[ObjectId]) -> Result<(), SourceError> {
        for entry in fs::read_dir(self.statements()).into_iter().flatten().flatten() {
            let of: Option<ObjectId> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if of.is_none_or(|of| !keep.contains(&of)) {
                remove_folder(&entry.path())?;
            }
        }
        Ok(())
    }
}
