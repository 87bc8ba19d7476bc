//! The object store: a bare repository of our own, with packs alone and one ref for each tag that is whole.
//!
//! `objects/pack/` holds packs, moved in by rename after every check; `refs/tagfall/ID` says that the tag object ID and
//! all that it needs are there; `quarantine/` holds what is not checked yet and is emptied at the start. Nothing is
//! deleted but packs that a rewritten one replaces. A store that cannot be read is filled anew from the remote.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use git2::{ErrorCode, ObjectType, Odb, Oid};

use super::SourceError;
use super::walk::oid;
use crate::model::ObjectId;

/// Our folders and files are nobody else's to read.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Redirects to other hosts would carry credentials there; no object or ref of this repository is ever collected by Git.
const CONFIG: &str =
    "[core]\n\trepositoryformatversion = 0\n\tbare = true\n[http]\n\tfollowRedirects = false\n[gc]\n\tauto = 0\n";
/// So many packs are left before they become one.
const PACKS_MAX: usize = 24;
/// Below this, space is not worth a rewrite.
const SWEEP_FROM_BYTES: u64 = 64 << 20;
/// Haves that a remote is told of: the newest say it all.
const HAVES_MAX: usize = 32;

/// The store's folder, and an open handle while it is in use.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    open: Mutex<Option<Shared>>,
    used: AtomicBool,
}

/// An open object database: mapped packs, so it is let go of when nobody reads.
struct Shared(Arc<Odb<'static>>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Store {
    /// Opens the store at `root`, made anew where it is missing or is not one.
    pub(super) fn open(root: &Path) -> Result<Self, SourceError> {
        let root = root.to_owned();
        make_folder(&root)?;
        if !is_store(&root) {
            if fs::read_dir(&root).map_err(failed("read", &root))?.next().is_some() {
                tracing::warn!(store = %root.display(), "the object store is not whole and is made anew; tags are fetched again");
            }
            make(&root, true)?;
        }
        let store = Self { root, open: Mutex::new(None), used: AtomicBool::new(false) };
        let quarantine = store.quarantine_root();
        remove_folder(&quarantine)?;
        make_folder(&quarantine)?;
        Ok(store)
    }

    fn quarantine_root(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    fn refs(&self) -> PathBuf {
        self.root.join("refs/tagfall")
    }

    fn packs(&self) -> PathBuf {
        self.root.join("objects/pack")
    }

    /// The folder of objects.
    pub(super) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// Where what others said of a tag is kept.
    pub(super) fn statements(&self) -> PathBuf {
        self.root.join("statements")
    }

    /// A handle to read objects with.
    pub(super) fn odb(&self) -> Result<Arc<Odb<'static>>, git2::Error> {
        self.used.store(true, Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = open.as_ref() {
            return Ok(Arc::clone(&shared.0));
        }
        let odb = open_objects(&[&self.root.join("objects")])?;
        let odb = Arc::new(odb);
        *open = Some(Shared(Arc::clone(&odb)));
        Ok(odb)
    }

    /// Lets the handle go where nobody asked for it since the last call.
    pub(super) fn rest(&self) {
        if !self.used.swap(false, Ordering::Relaxed) {
            self.let_go();
        }
    }

    fn let_go(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn read_blob(&self, id: ObjectId, max_bytes: u64) -> Result<Vec<u8>, SourceError> {
        let odb = self.odb().map_err(|source| SourceError::Object { id, source })?;
        read_blob(&odb, id, max_bytes)
    }

    /// The tags that are whole here: of `wanted`, or all where it is empty.
    pub(super) fn known(&self, wanted: &[ObjectId]) -> Result<Vec<ObjectId>, SourceError> {
        let refs = self.refs();
        let mut known = Vec::new();
        for entry in fs::read_dir(&refs).map_err(failed("read", &refs))? {
            let entry = entry.map_err(failed("read", &refs))?;
            known.extend(entry.file_name().to_str().and_then(|name| name.parse::<ObjectId>().ok()));
        }
        known.sort_unstable();
        if wanted.is_empty() {
            return Ok(known);
        }
        let mut chosen: Vec<ObjectId> = wanted.iter().copied().filter(|id| known.binary_search(id).is_ok()).collect();
        chosen.truncate(HAVES_MAX);
        Ok(chosen)
    }

    /// Those of `tags` whose objects are here, marked or not: a mark may be lost in a crash, an object is not.
    pub(super) fn present(&self, tags: &[ObjectId]) -> Result<Vec<ObjectId>, SourceError> {
        let Some(first) = tags.first() else { return Ok(Vec::new()) };
        let odb = self.odb().map_err(|source| SourceError::Object { id: *first, source })?;
        Ok(tags.iter().copied().filter(|id| odb.exists(oid(*id))).collect())
    }

    /// Writes down that a tag is whole here.
    pub(super) fn mark(&self, tag: ObjectId) -> Result<(), SourceError> {
        let path = self.refs().join(tag.to_string());
        if path.exists() {
            return Ok(());
        }
        // Not synced: where a crash loses it, the next fetch finds the objects all the same and writes it again.
        let fresh = path.with_extension("new");
        write_file(&fresh, format!("{tag}\n").as_bytes(), false)?;
        fs::rename(&fresh, &path).map_err(failed("write", &path))
    }

    /// Moves what a quarantine holds into the store, then marks the tag. `anew` throws away what was there before.
    pub(super) fn admit(&self, quarantine: Quarantine, tag: ObjectId, anew: bool) -> Result<(), SourceError> {
        if anew {
            self.unmark_all_but(&[])?;
            self.replace(&quarantine)?;
        } else {
            self.move_in(&quarantine)?;
        }
        drop(quarantine);
        self.let_go();
        self.mark(tag)
    }

    /// Moves packs in: each pack before its index, because the index makes it count.
    fn move_in(&self, quarantine: &Quarantine) -> Result<BTreeSet<String>, SourceError> {
        let from = quarantine.packs();
        let mut names: Vec<String> = listed(&from)?.into_iter().filter(|name| is_pack_file(name)).collect();
        names.sort_unstable_by_key(|name| name.ends_with(".idx"));
        sync_files(&from, &names)?;
        for name in &names {
            let source = from.join(name);
            let target = self.packs().join(name);
            fs::rename(&source, &target).map_err(failed("move into the store", &source))?;
        }
        sync_folder(&self.packs())?;
        Ok(names.into_iter().collect())
    }

    /// Forgets that tags are here.
    pub(super) fn unmark_all_but(&self, keep: &[ObjectId]) -> Result<(), SourceError> {
        for id in self.known(&[])?.into_iter().filter(|id| !keep.contains(id)) {
            let path = self.refs().join(id.to_string());
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }

    /// Whether the packs are so many, or so large beside the largest, that one new pack is better.
    pub(super) fn is_worth_a_sweep(&self) -> Result<bool, SourceError> {
        let packs = self.packs();
        let mut sizes = Vec::new();
        for name in listed(&packs)?.into_iter().filter(|name| name.ends_with(".pack")) {
            let path = packs.join(name);
            sizes.push(fs::metadata(&path).map_err(failed("read", &path))?.len());
        }
        let total: u64 = sizes.iter().sum();
        let largest = sizes.iter().max().copied().unwrap_or(0);
        Ok(sizes.len() > PACKS_MAX || (total > SWEEP_FROM_BYTES && total > largest.saturating_mul(2)))
    }

    /// Moves a quarantine's packs in and removes all others.
    pub(super) fn replace(&self, quarantine: &Quarantine) -> Result<(), SourceError> {
        let keep = self.move_in(quarantine)?;
        self.let_go();
        // An index without its pack is an error to readers, a pack without its index is nothing: indexes go first.
        let mut old: Vec<String> = listed(&self.packs())?.into_iter().filter(|name| !keep.contains(name)).collect();
        old.sort_unstable_by_key(|name| !name.ends_with(".idx"));
        for name in old {
            let path = self.packs().join(name);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }
}

/// A folder within the store for what is not checked yet; gone when it is dropped.
#[derive(Debug)]
pub(super) struct Quarantine(PathBuf);

impl Quarantine {
    pub(super) fn new(store: &Store) -> Result<Self, SourceError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = store.quarantine_root().join(format!("{}-{number}", std::process::id()));
        remove_folder(&path)?;
        make(&path, false)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn packs(&self) -> PathBuf {
        self.0.join("objects/pack")
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        if let Err(error) = remove_folder(&self.0) {
            tracing::warn!(error = %error, "a quarantine folder stays until the next start");
        }
    }
}

/// Opens folders of objects for reading, without the repositories around them.
pub(super) fn open_objects(folders: &[&Path]) -> Result<Odb<'static>, git2::Error> {
    let odb = Odb::new()?;
    for folder in folders {
        let Some(text) = folder.to_str() else {
            return Err(git2::Error::from_str("the path of an object folder is not UTF-8"));
        };
        odb.add_disk_alternate(text)?;
    }
    Ok(odb)
}

/// One blob, within its bound and what its id says.
pub(super) fn read_blob(odb: &Odb<'_>, id: ObjectId, max_bytes: u64) -> Result<Vec<u8>, SourceError> {
    let failed = |source| SourceError::Object { id, source };
    let (size, kind) = odb.read_header(oid(id)).map_err(failed)?;
    if kind != ObjectType::Blob || size as u64 > max_bytes {
        return Err(failed(git2::Error::from_str(&format!("it is a {kind} of {size} bytes"))));
    }
    let object = odb.read(oid(id)).map_err(|error| {
        if error.code() == ErrorCode::NotFound { failed(error) } else { SourceError::Object { id, source: error } }
    })?;
    match Oid::hash_object(ObjectType::Blob, object.data()) {
        Ok(hashed) if hashed == oid(id) => Ok(object.data().to_vec()),
        Ok(_) => Err(SourceError::Damaged(id)),
        Err(error) => Err(failed(error)),
    }
}

/// Makes an empty bare repository at `root`; what is in the way goes.
fn make(root: &Path, durable: bool) -> Result<(), SourceError> {
    make_folder(root)?;
    for name in ["HEAD", "config", "objects", "refs", "shallow"] {
        let path = root.join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => remove_folder(&path)?,
            Ok(_) => fs::remove_file(&path).map_err(failed("remove", &path))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", &path)(error)),
        }
    }
    for name in ["objects", "objects/pack", "objects/info", "refs", "refs/tagfall"] {
        make_folder(&root.join(name))?;
    }
    write_file(&root.join("config"), CONFIG.as_bytes(), durable)?;
    // Written last: without it the folder is no store, and is made again.
    write_file(&root.join("HEAD"), b"ref: refs/heads/none\n", durable)
}

fn is_store(root: &Path) -> bool {
    let folders = ["objects/pack", "refs/tagfall"].iter().all(|name| root.join(name).is_dir());
    folders && fs::read(root.join("config")).is_ok_and(|text| text == CONFIG.as_bytes()) && root.join("HEAD").is_file()
}

fn is_pack_file(name: &str) -> bool {
    name.starts_with("pack-") && (name.ends_with(".pack") || name.ends_with(".idx"))
}

fn listed(folder: &Path) -> Result<Vec<String>, SourceError> {
    let entries = fs::read_dir(folder).map_err(failed("read", folder))?;
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed("read", folder))?.file_name().into_string());
    }
    Ok(names)
}

pub(super) fn make_folder(path: &Path) -> Result<(), SourceError> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path).map_err(failed("make", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_MODE)).map_err(failed("close off", path))
}

pub(super) fn remove_folder(path: &Path) -> Result<(), SourceError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn write_file(path: &Path, bytes: &[u8], durable: bool) -> Result<(), SourceError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
        file.write_all(bytes)?;
        if durable { file.sync_all() } else { Ok(()) }
    };
    write().map_err(failed("write", path))
}

/// Brings files to the disk side by side: one flush of the device serves them all.
fn sync_files(folder: &Path, names: &[String]) -> Result<(), SourceError> {
    let sync = |name: &String| {
        let path = folder.join(name);
        File::open(&path).and_then(|file| file.sync_all()).map_err(failed("write", &path))
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = names.iter().map(|name| scope.spawn(move || sync(name))).collect();
        running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|broken| std::panic::resume_unwind(broken)))
    })
}

fn sync_folder(path: &Path) -> Result<(), SourceError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("write", path))
}

pub(super) fn failed(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SourceError {
    let path = path.display().to_string();
    move |source| SourceError::Store { step, path, source }
}
