//! What every effect may use: the shells' handles and this host's facts. Holds no decision.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::trust::Loaded;
use crate::containers::Containers;
use crate::model::{Digest, DigestBuilder, GroupName, ObjectId, RemoteTag, TagName};
use crate::process::Keeper;
use crate::publish::{DriftWatch, Publisher};
use crate::release::Selection;
use crate::render::{Host, Layer};
use crate::source::Source;
use crate::store::{Seen, SeenError, State, Store, StoreError};

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
    /// The environment as the supervisor was started with it.
    pub(super) env: BTreeMap<String, String>,
    /// Digest of the rules by which tags are judged, trust aside: program and settings.
    pub(super) rules: Digest,
    /// Which tags count.
    pub(super) selection: Selection,
    pub(super) trust: Mutex<Arc<Loaded>>,
    /// What was seen once, for ever.
    pub(super) seen: Mutex<Seen>,
    /// What the remote listed last, and the loop was told of.
    pub(super) listed: Mutex<Option<Vec<RemoteTag>>>,
    /// Folders below which groups may publish; `None` = anywhere that the manifest's own rules allow.
    pub(super) mount_roots: Option<Vec<String>>,
}

impl Context {
    /// The trust of now.
    pub(super) fn trust(&self) -> Arc<Loaded> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_trust(&self, loaded: Loaded) {
        *self.trust.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
    }

    /// Digest of the rules by which tags are judged. Verdicts of other rules count for nothing.
    pub(super) fn judge(&self) -> Digest {
        DigestBuilder::new("judge").field(self.rules.as_bytes()).field(self.trust().digest().as_bytes()).finish()
    }

    /// Notes tags, and tells those that named something else when they were first seen. Blocks for the sync.
    pub(super) fn see<'a>(&self, tags: impl Iterator<Item = &'a RemoteTag>) -> Result<BTreeMap<TagName, ObjectId>, SeenError> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).see(tags)
    }

    /// What a name named when it was first seen here.
    pub(super) fn first_seen(&self, name: &TagName) -> Option<ObjectId> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).first(name)
    }

    /// Whether the remote lists what it listed before.
    pub(super) fn is_as_listed(&self, tags: &[RemoteTag]) -> bool {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(tags)
    }

    pub(super) fn set_listed(&self, tags: Vec<RemoteTag>) {
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some(tags);
    }

    pub(super) fn raise_floor(&self, version: &semver::Version) -> Result<(), StoreError> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).raise_floor(version)
    }

    /// A declared command of a group's check.
    pub(super) fn command(&self, group: &GroupName, name: &str) -> Option<Vec<String>> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.get(group)?.get(name).cloned()
    }

    pub(super) fn set_commands(&self, group: &GroupName, declared: Commands) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).insert(group.clone(), declared);
    }

    /// The layers above the release, for one group.
    pub(super) fn layers(&self, group: &GroupName) -> Arc<Vec<Layer>> {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.get(group).cloned().unwrap_or_default()
    }

    pub(super) fn set_layers(&self, group: &GroupName, layers: Vec<Layer>) {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).insert(group.clone(), Arc::new(layers));
    }

    /// Changes the durable state and writes it down; blocks for the sync. Where writing fails, memory is as it was.
    pub(super) fn remember(&self, change: impl FnOnce(&mut State)) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = state.clone();
        change(&mut next);
        next.seen = Some(self.seen.lock().unwrap_or_else(PoisonError::into_inner).mark());
        self.store.save(&next)?;
        *state = next;
        Ok(())
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
