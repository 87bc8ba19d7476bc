//! What every effect may use: the shells' handles and this host's facts. Holds no decision.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::effects::chain;
use crate::containers::Containers;
use crate::hooks::Hooks;
use crate::model::{Digest, GroupName, ObjectId};
use crate::process::Keeper;
use crate::publish::{DriftWatch, Publisher};
use crate::render::{Host, Layer};
use crate::source::Source;
use crate::store::{State, Store};

/// `allow.exec`: name → argument list.
pub(super) type Commands = BTreeMap<String, Vec<String>>;

/// Handles and facts; shared by all effects.
pub(super) struct Context {
    pub(super) data_dir: PathBuf,
    pub(super) ring: Option<String>,
    /// Facts for templates.
    pub(super) host: Host,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) source: Source,
    pub(super) publisher: Publisher,
    pub(super) drift: DriftWatch,
    pub(super) keeper: Keeper,
    pub(super) containers: Containers,
    pub(super) store: Store,
    pub(super) state: Mutex<State>,
    pub(super) layers: Mutex<BTreeMap<GroupName, Arc<Vec<Layer>>>>,
    /// Declared commands of checks, rendered, by group and name.
    pub(super) commands: Mutex<BTreeMap<GroupName, Commands>>,
    /// Runs modules.
    pub(super) hooks: Hooks,
    /// Modules that may be called, by group.
    pub(super) modules: Mutex<BTreeMap<GroupName, BTreeSet<Digest>>>,
    /// Digests of modules that were read.
    pub(super) digests: Mutex<BTreeMap<ObjectId, Digest>>,
    /// Calls of modules so far.
    pub(super) calls: AtomicU64,
    /// The environment as the supervisor was started with it.
    pub(super) env: BTreeMap<String, String>,
    /// Digest of the rules by which tags are judged: program and settings. Verdicts of other rules count for nothing.
    pub(super) judge: Digest,
    /// Folders below which groups may publish; `None` = anywhere that the manifest's own rules allow.
    pub(super) mount_roots: Option<Vec<String>>,
}

impl Context {
    /// A declared command of a group's check.
    pub(super) fn command(&self, group: &GroupName, name: &str) -> Option<Vec<String>> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.get(group)?.get(name).cloned()
    }

    pub(super) fn set_commands(&self, group: &GroupName, declared: Commands) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).insert(group.clone(), declared);
    }

    /// Modules that a group may call from now on; what no group may call any more is unloaded.
    pub(super) fn set_modules(&self, group: &GroupName, modules: BTreeSet<Digest>) {
        let mut loaded = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = loaded.insert(group.clone(), modules).is_some_and(|before| !before.is_empty());
        if changed {
            self.hooks.retain(&loaded.values().flatten().copied().collect());
        }
    }

    /// The number of the next call of a module.
    pub(super) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// The digest of a module; blocks for reading it the first time.
    pub(super) fn module(&self, blob: ObjectId) -> Result<Digest, String> {
        if let Some(known) = self.digests.lock().unwrap_or_else(PoisonError::into_inner).get(&blob) {
            return Ok(*known);
        }
        let bytes = self.source.read_blob(blob).map_err(|error| chain(&error))?;
        let digest = Digest::of(&bytes);
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).insert(blob, digest);
        Ok(digest)
    }

    /// Where a module that was read is kept.
    pub(super) fn blob_of(&self, module: &Digest) -> Option<ObjectId> {
        let digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        digests.iter().find(|(_, digest)| *digest == module).map(|(blob, _)| *blob)
    }

    /// The layers above the release, for one group.
    pub(super) fn layers(&self, group: &GroupName) -> Arc<Vec<Layer>> {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.get(group).cloned().unwrap_or_default()
    }

    /// Whether the layers of a group were read.
    pub(super) fn has_layers(&self, group: &GroupName) -> bool {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).contains_key(group)
    }

    pub(super) fn set_layers(&self, group: &GroupName, layers: Vec<Layer>) {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).insert(group.clone(), Arc::new(layers));
    }

    /// Changes the durable state and writes it down; blocks for the sync. Where writing fails, memory is as it was.
    pub(super) fn remember(&self, change: impl FnOnce(&mut State)) -> Result<(), crate::store::StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = state.clone();
        change(&mut next);
        self.store.save(&next)?;
        *state = next;
        Ok(())
    }

    /// What is owed to hooks speaks of processes of one boot.
    pub(super) fn remember_boot(&self, boot_id: &str) -> Result<(), crate::store::StoreError> {
        if self.state(|state| state.boot_id == boot_id) {
            return Ok(());
        }
        self.remember(|state| state.booted(boot_id))
    }

    /// Reads the durable state.
    pub(super) fn state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why a group may not publish at a path on this host; `None` where it may.
    pub(super) fn outside_roots(&self, path: &str) -> Option<String> {
        let roots = self.mount_roots.as_ref()?;
        let below = |root: &String| path.starts_with(&format!("{}/", root.trim_end_matches('/')));
        (!roots.iter().any(below))
            .then(|| format!("mount path `{path}` is below none of this supervisor's `mount_roots` ({})", roots.join(", ")))
    }
}
