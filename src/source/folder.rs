//! Trees without a supervisor: a working folder as it lies there, or any tag or revision of a local repository.
//!
//! For `check`, `plan --repo` and `diff`: the rules of a release hold here too, so that what passes here is not refused
//! later. A working folder's files get the ids that Git would give them; symbolic links are never followed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{Index, ObjectType, Odb, Oid, Repository};

use super::refs::{GitDir, Listing};
use super::store::{open_objects, read_blob};
use super::walk::{GROUPS, Objects, ROOT_FILE, Signed, Walked, check_file, is_read, joined, object_id, too_many};
use super::{Limits, SourceError, failed, refuse};
use crate::model::{ObjectId, Reason, Refusal, RemoteTag, TreeFile};
use crate::release::object::{Mode, check_case, check_name};
use crate::release::{Selection, candidates};

/// The stage of an index entry without a merge conflict.
const STAGED: i32 = 0;

/// The files of a release that runs nowhere yet.
pub struct Tree {
    /// The tag, where one was named.
    pub tag: Option<RemoteTag>,
    /// The commit; `None` for a working folder.
    pub commit: Option<ObjectId>,
    /// `tagfall.toml` and everything below `groups/`, by path.
    pub files: Vec<TreeFile>,
    blobs: Blobs,
}

/// Where contents are.
enum Blobs {
    Folder(BTreeMap<ObjectId, PathBuf>),
    Repository(Box<Odb<'static>>),
}

impl Tree {
    /// A file's bytes, by its blob id.
    ///
    /// # Errors
    /// Where it cannot be read, or changed since the tree was read.
    pub fn read_blob(&self, id: ObjectId) -> Result<Vec<u8>, SourceError> {
        let max_bytes = Limits::default().file_bytes;
        match &self.blobs {
            Blobs::Repository(odb) => read_blob(odb, id, max_bytes),
            Blobs::Folder(paths) => {
                let missing = || SourceError::Object { id, source: git2::Error::from_str("no file of this folder has it") };
                let path = paths.get(&id).ok_or_else(missing)?;
                let folder = |source| SourceError::Folder { path: path.display().to_string(), source };
                let bytes = read_regular(path, max_bytes).map_err(folder)?;
                let hashed = Oid::hash_object(ObjectType::Blob, &bytes).map_err(|source| SourceError::Object { id, source })?;
                if object_id(hashed) == id { Ok(bytes) } else { Err(SourceError::Damaged(id)) }
            }
        }
    }
}

/// Reads a working folder: `tagfall.toml` and `groups/`, tracked by Git or not, without what `.gitignore` leaves out.
///
/// # Errors
/// The first rule of a release that a path breaks, or what cannot be read.
pub fn read_folder(dir: &Path) -> Result<Tree, Refusal> {
    super::prepare();
    let mut reader = FolderReader {
        limits: Limits::default(),
        ignored: Ignored::of(dir),
        files: Vec::new(),
        paths: BTreeMap::new(),
        entries: 0,
        bytes: 0,
    };
    if !dir.is_dir() {
        return Err(refuse(Reason::GitOperationFailed, format!("there is no folder `{}`", dir.display())));
    }
    if let Ok(found) = fs::symlink_metadata(dir.join(ROOT_FILE)) {
        reader.take(ROOT_FILE.to_owned(), &dir.join(ROOT_FILE), &found)?;
    }
    if let Ok(found) = fs::symlink_metadata(dir.join(GROUPS)) {
        if found.is_dir() {
            reader.folder(dir)?;
        } else {
            reader.take(GROUPS.to_owned(), &dir.join(GROUPS), &found)?;
        }
    }
    reader.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(Tree { tag: None, commit: None, files: reader.files, blobs: Blobs::Folder(reader.paths) })
}

/// Reads a tag or any other revision (`HEAD`, a branch, an id) of the repository at `dir`. A tag's own object is
/// checked as a supervisor would.
///
/// # Errors
/// What is wrong with it, or what cannot be read.
pub fn read_repository(dir: &Path, revision: &str) -> Result<Tree, Refusal> {
    super::prepare();
    let git = GitDir::find(dir)?;
    let unreadable = |error: git2::Error| {
        let message = format!("the repository at `{}` cannot be read: {}", dir.display(), error.message());
        refuse(Reason::GitOperationFailed, message)
    };
    let odb = open_objects(&[&git.objects]).map_err(unreadable)?;
    let limits = Limits::default();
    let short = revision.strip_prefix("refs/tags/").unwrap_or(revision);
    let tag = list_local(dir)?.into_iter().find(|tag| tag.name.as_str() == short);
    let objects = Objects { odb: &odb, limits: &limits, contents: true };
    let walked = match &tag {
        Some(tag) => objects.walk_tag(tag),
        None => objects.walk_commit(resolve(dir, revision)?),
    };
    let Walked { commit, files, .. } = walked.map_err(super::Fault::into_refusal)?;
    Ok(Tree { tag, commit: Some(commit), files, blobs: Blobs::Repository(Box::new(odb)) })
}

/// What may be signed of a tag of the repository at `dir`.
///
/// # Errors
/// What is wrong with the tag, or what cannot be read.
pub fn read_signed(dir: &Path, tag: &RemoteTag) -> Result<Signed, Refusal> {
    super::prepare();
    let odb = open_objects(&[&GitDir::find(dir)?.objects]).map_err(|error| super::Fault::Unreadable(error).into_refusal())?;
    let limits = Limits::default();
    Objects { odb: &odb, limits: &limits, contents: false }.read_signed(tag).map_err(super::Fault::into_refusal)
}

/// The bytes of a tag object of the repository at `dir` that is not a release.
///
/// # Errors
/// As [`read_signed`].
pub fn read_local_tag(dir: &Path, tag: &RemoteTag) -> Result<Vec<u8>, Refusal> {
    super::prepare();
    let odb = open_objects(&[&GitDir::find(dir)?.objects]).map_err(|error| super::Fault::Unreadable(error).into_refusal())?;
    let limits = Limits::default();
    Objects { odb: &odb, limits: &limits, contents: false }.read_statement(tag).map_err(super::Fault::into_refusal)
}

/// All tags of the repository at `dir`.
///
/// # Errors
/// Where there is none, or its refs cannot be read.
pub fn list_local(dir: &Path) -> Result<Vec<RemoteTag>, Refusal> {
    Listing::default().read(dir, &Limits::default())
}

/// The highest tag of the repository at `dir` that a supervisor with this selection would look at.
///
/// # Errors
/// As [`list_local`].
pub fn latest_tag(dir: &Path, selection: &Selection) -> Result<Option<RemoteTag>, Refusal> {
    Ok(candidates(&list_local(dir)?, selection).into_iter().next().map(|candidate| candidate.tag))
}

fn resolve(dir: &Path, revision: &str) -> Result<ObjectId, Refusal> {
    let unknown = |error: git2::Error| {
        let message = format!("`{revision}` names no commit of `{}`: {}", dir.display(), error.message());
        refuse(Reason::GitOperationFailed, message)
    };
    let repository = Repository::open(dir).map_err(unknown)?;
    let commit = repository.revparse_single(revision).and_then(|found| found.peel_to_commit()).map_err(unknown)?;
    Ok(object_id(commit.id()))
}

/// What the repository around a folder leaves out of its commits.
struct Ignored(Option<(Repository, Index)>);

impl Ignored {
    fn of(dir: &Path) -> Self {
        let open = || Repository::open(dir).and_then(|repository| repository.index().map(|index| (repository, index)));
        Self(open().ok())
    }

    fn has(&self, path: &str) -> bool {
        let Some((repository, index)) = &self.0 else { return false };
        // What was added once stays in, whatever `.gitignore` says since.
        repository.is_path_ignored(path).unwrap_or(false) && index.get_path(Path::new(path), STAGED).is_none()
    }
}

struct FolderReader {
    limits: Limits,
    ignored: Ignored,
    files: Vec<TreeFile>,
    paths: BTreeMap<ObjectId, PathBuf>,
    entries: u64,
    bytes: u64,
}

impl FolderReader {
    fn folder(&mut self, root: &Path) -> Result<(), Refusal> {
        let mut folders = vec![(GROUPS.to_owned(), 0_u64)];
        while let Some((path, depth)) = folders.pop() {
            if depth > self.limits.path_depth {
                let message = format!("`{path}` lies more than {} folders deep", self.limits.path_depth);
                return Err(refuse(Reason::LimitExceeded, message));
            }
            let here = root.join(&path);
            let entries = fs::read_dir(&here).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|e| unread(&here, e))?;
            let mut names = Vec::new();
            for entry in &entries {
                let raw = entry.file_name();
                let name = check_name(raw.as_encoded_bytes(), &path)?.to_owned();
                let below = joined(&path, &name);
                let found = entry.metadata().map_err(|error| unread(&entry.path(), error))?;
                self.entries += 1;
                if self.entries > self.limits.objects {
                    return Err(too_many(self.limits.objects));
                }
                if found.is_dir() {
                    folders.push((below, depth + 1));
                } else if self.ignored.has(&below) {
                    continue;
                } else {
                    self.take(below, &entry.path(), &found)?;
                }
                names.push(name);
            }
            check_case(names.iter().map(String::as_str), &path)?;
        }
        Ok(())
    }

    fn take(&mut self, path: String, place: &Path, found: &fs::Metadata) -> Result<(), Refusal> {
        let executable = found.permissions().mode() & 0o100 != 0;
        let mode = match () {
            () if found.is_symlink() => Mode::Symlink,
            () if !found.is_file() => {
                let message = format!("`{path}` is neither a file nor a folder; Git cannot hold it");
                return Err(refuse(Reason::UnsafePath, message));
            }
            () if executable => Mode::Executable,
            () => Mode::File,
        };
        let executable = check_file(&path, mode)?;
        let limit = self.limits.file_bytes;
        if found.len() > limit {
            let message = format!("`{path}` has {} bytes, more than the {limit} allowed", found.len());
            return Err(refuse(Reason::LimitExceeded, message));
        }
        self.bytes = self.bytes.saturating_add(found.len());
        if self.bytes > self.limits.tree_bytes {
            let message =
                format!("the files of this folder have more than the {} bytes allowed together", self.limits.tree_bytes);
            return Err(refuse(Reason::LimitExceeded, message));
        }
        let bytes = read_regular(place, limit).map_err(|error| unread(place, error))?;
        let id = Oid::hash_object(ObjectType::Blob, &bytes).map_err(|source| {
            let id = ObjectId::from_bytes([0; 20]);
            failed(&SourceError::Object { id, source })
        })?;
        let blob = object_id(id);
        self.paths.insert(blob, place.to_owned());
        let size = bytes.len() as u64;
        let content = is_read(&path).then(|| Arc::from(bytes));
        self.files.push(TreeFile { path, blob, executable, size, content });
        Ok(())
    }
}

/// Reads a regular file, no link, up to a bound.
fn read_regular(path: &Path, max_bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    file.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unread(path: &Path, error: std::io::Error) -> Refusal {
    failed(&SourceError::Folder { path: path.display().to_string(), source: error })
}
