//! From a tag's id to the files of its release: every object read strictly, hashed again, counted.

use std::collections::BTreeSet;
use std::sync::Arc;

use git2::{ErrorCode, ObjectType, Odb, Oid};

use super::statements::STATEMENT_MAX_BYTES;
use super::{Limits, refuse};
use crate::model::{ObjectId, Reason, Refusal, RemoteTag, TreeFile};
use crate::release::object::{
    COMMIT_MAX_BYTES, Commit, Entry, Mode, PATH_MAX_BYTES, TAG_MAX_BYTES, TREE_MAX_BYTES, check_case, parse_commit, parse_tag,
    parse_tree,
};

/// The folder that groups live in.
pub(super) const GROUPS: &str = "groups";
/// The file at the root that is read beside it.
pub(super) const ROOT_FILE: &str = "tagfall.toml";

/// Why a walk ended early.
#[derive(Debug)]
pub(super) enum Fault {
    /// An object is not there.
    Missing(ObjectId),
    /// An object is there and does not follow the rules.
    Refused(Refusal),
    /// The object store itself cannot be read.
    Unreadable(git2::Error),
}

impl Fault {
    pub(super) fn into_refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Missing(id) => {
                refuse(Reason::GitOperationFailed, format!("object {id} is missing; it is fetched with the next poll"))
            }
            Self::Unreadable(error) => {
                refuse(Reason::GitOperationFailed, format!("objects cannot be read; they are fetched again: {}", error.message()))
            }
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A tag object and its commit as they are: what may be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The tag.
    pub tag: RemoteTag,
    /// The tag object's raw bytes.
    pub bytes: Vec<u8>,
    /// When it was tagged, in seconds since 1970, by the tagger's word.
    pub tagged_at_s: u64,
    /// The commit that it points at.
    pub commit: ObjectId,
    /// The commit object's raw bytes.
    pub commit_bytes: Vec<u8>,
    /// When it was committed, in seconds since 1970, by the committer's word.
    pub committed_at_s: u64,
}

/// What a walk found.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) commit: ObjectId,
    pub(super) made_at_s: u64,
    pub(super) files: Vec<TreeFile>,
}

pub(super) fn oid(id: ObjectId) -> Oid {
    // Twenty bytes always make an id of this length.
    Oid::from_bytes(id.as_bytes()).unwrap_or(Oid::ZERO_SHA1)
}

pub(super) fn object_id(oid: Oid) -> ObjectId {
    let mut bytes = [0; 20];
    let given = oid.as_bytes();
    let length = given.len().min(bytes.len());
    bytes[..length].copy_from_slice(&given[..length]);
    ObjectId::from_bytes(bytes)
}

/// A place to read objects from, and how much of it.
pub(super) struct Objects<'a> {
    pub(super) odb: &'a Odb<'a>,
    pub(super) limits: &'a Limits,
    /// Whether files that are parsed or rendered are read as well.
    pub(super) contents: bool,
}

impl Objects<'_> {
    /// Reads one object: of the wanted kind, within its bound, and what its id says.
    pub(super) fn read(&self, id: ObjectId, kind: ObjectType, max_bytes: u64) -> Result<Vec<u8>, Fault> {
        self.measure(id, kind, max_bytes)?;
        let object = self.odb.read(oid(id)).map_err(|error| unread(id, error))?;
        let hashed = Oid::hash_object(kind, object.data()).map_err(Fault::Unreadable)?;
        if hashed != oid(id) {
            return Err(Fault::Unreadable(git2::Error::from_str(&format!("object {id} is not what its id says"))));
        }
        Ok(object.data().to_vec())
    }

    /// Bytes of an object, by its header alone.
    fn measure(&self, id: ObjectId, kind: ObjectType, max_bytes: u64) -> Result<u64, Fault> {
        let (size, found) = self.odb.read_header(oid(id)).map_err(|error| unread(id, error))?;
        if found != kind {
            let message = format!("object {id} is a {found} where a {kind} is named");
            return Err(refuse(Reason::InvalidGitObject, message).into());
        }
        let size = size as u64;
        if size > max_bytes {
            let message = format!("the {kind} {id} has {size} bytes, more than the {max_bytes} allowed");
            return Err(refuse(Reason::LimitExceeded, message).into());
        }
        Ok(size)
    }

    /// What a tag points at, checked; and when it was made.
    pub(super) fn read_tag(&self, tag: &RemoteTag) -> Result<(ObjectId, u64), Fault> {
        let bytes = self.read_tag_bytes(tag)?;
        let parsed = parse_tag(&bytes, &tag.name)?;
        Ok((parsed.commit, parsed.tagged_at_s))
    }

    /// The tag object and the commit object as they are: what may be signed.
    pub(super) fn read_signed(&self, tag: &RemoteTag) -> Result<Signed, Fault> {
        let bytes = self.read_tag_bytes(tag)?;
        let parsed = parse_tag(&bytes, &tag.name)?;
        let (commit, tagged_at_s) = (parsed.commit, parsed.tagged_at_s);
        let commit_bytes = self.read(commit, ObjectType::Commit, COMMIT_MAX_BYTES as u64)?;
        let committed_at_s = parse_commit(&commit_bytes)?.committed_at_s;
        Ok(Signed { tag: tag.clone(), bytes, tagged_at_s, commit, commit_bytes, committed_at_s })
    }

    /// A tag object's bytes; what is no tag object is refused by name.
    pub(super) fn read_tag_bytes(&self, tag: &RemoteTag) -> Result<Vec<u8>, Fault> {
        let (_, kind) = self.odb.read_header(oid(tag.object)).map_err(|error| unread(tag.object, error))?;
        if kind != ObjectType::Tag {
            let message = format!(
                "tag `{}` points straight at a {kind}; a release is an annotated tag: `git tag -a` (or -s) and push it anew",
                tag.name
            );
            return Err(refuse(Reason::NotAnnotated, message).into());
        }
        self.read(tag.object, ObjectType::Tag, TAG_MAX_BYTES as u64)
    }

    /// A tag object of which nothing is wanted but its bytes.
    pub(super) fn read_statement(&self, tag: &RemoteTag) -> Result<Vec<u8>, Fault> {
        self.read(tag.object, ObjectType::Tag, STATEMENT_MAX_BYTES)
    }

    pub(super) fn read_commit(&self, id: ObjectId) -> Result<Commit, Fault> {
        Ok(parse_commit(&self.read(id, ObjectType::Commit, COMMIT_MAX_BYTES as u64)?)?)
    }

    /// The whole tag: its object, its commit, every tree, and the files that count.
    pub(super) fn walk_tag(&self, tag: &RemoteTag) -> Result<Walked, Fault> {
        let (commit, made_at_s) = self.read_tag(tag)?;
        Ok(Walked { made_at_s, ..self.walk_commit(commit)? })
    }

    pub(super) fn walk_commit(&self, id: ObjectId) -> Result<Walked, Fault> {
        let commit = self.read_commit(id)?;
        Ok(Walked { commit: id, made_at_s: commit.committed_at_s, files: self.walk_tree(commit.tree)? })
    }

    fn walk_tree(&self, root: ObjectId) -> Result<Vec<TreeFile>, Fault> {
        let mut walk = Walk { limits: self.limits, files: Vec::new(), entries: 0, bytes: 0 };
        let mut folders = vec![(String::new(), root, 0_u64)];
        while let Some((path, id, depth)) = folders.pop() {
            if depth > self.limits.path_depth {
                let message = format!("`{path}` lies more than {} folders deep", self.limits.path_depth);
                return Err(refuse(Reason::LimitExceeded, message).into());
            }
            let bytes = self.read(id, ObjectType::Tree, TREE_MAX_BYTES as u64)?;
            let entries = parse_tree(&bytes, &path)?;
            walk.count(entries.len())?;
            if counts(&path) || path.is_empty() {
                check_case(entries.iter().map(|entry| entry.name), &path)?;
            }
            for entry in &entries {
                let below = joined(&path, entry.name);
                match entry.mode {
                    Mode::Folder => folders.push((below, entry.id, depth + 1)),
                    Mode::File | Mode::Executable | Mode::Symlink | Mode::Submodule if counts(&below) => {
                        let file = self.file(below, entry)?;
                        walk.take(file)?;
                    }
                    Mode::File | Mode::Executable | Mode::Symlink | Mode::Submodule => {}
                }
            }
        }
        walk.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(walk.files)
    }

    fn file(&self, path: String, entry: &Entry<'_>) -> Result<TreeFile, Fault> {
        let executable = check_file(&path, entry.mode)?;
        let max_bytes = self.limits.file_bytes;
        let size = self.measure(entry.id, ObjectType::Blob, max_bytes).map_err(|fault| naming(fault, &path))?;
        let content = if self.contents && is_read(&path) {
            Some(Arc::from(self.read(entry.id, ObjectType::Blob, max_bytes)?))
        } else {
            None
        };
        Ok(TreeFile { path, blob: entry.id, executable, size, content })
    }

    /// Every object of a tag that `known` does not say is there already, the tag's own first. Trees that are known are
    /// taken to be known with all that is below them; a later walk finds out.
    pub(super) fn closure(&self, tag: &RemoteTag, known: &dyn Fn(ObjectId) -> bool) -> Result<Vec<ObjectId>, Fault> {
        let (commit_id, _) = self.read_tag(tag)?;
        let commit = self.read_commit(commit_id)?;
        let mut found = vec![tag.object, commit_id];
        let mut seen = BTreeSet::new();
        let mut trees = vec![commit.tree];
        let mut entries_seen = 0;
        while let Some(tree) = trees.pop() {
            if !seen.insert(tree) || known(tree) {
                continue;
            }
            found.push(tree);
            let bytes = self.read(tree, ObjectType::Tree, TREE_MAX_BYTES as u64)?;
            let entries = parse_tree(&bytes, "")?;
            entries_seen += entries.len() as u64;
            for entry in &entries {
                match entry.mode {
                    Mode::Folder => trees.push(entry.id),
                    Mode::Submodule => {}
                    Mode::File | Mode::Executable | Mode::Symlink => {
                        if seen.insert(entry.id) && !known(entry.id) {
                            found.push(entry.id);
                        }
                    }
                }
            }
            if entries_seen.max(found.len() as u64) > self.limits.objects {
                return Err(too_many(self.limits.objects).into());
            }
        }
        Ok(found)
    }
}

/// What was counted so far.
struct Walk<'a> {
    limits: &'a Limits,
    files: Vec<TreeFile>,
    entries: u64,
    bytes: u64,
}

impl Walk<'_> {
    fn count(&mut self, entries: usize) -> Result<(), Refusal> {
        self.entries += entries as u64;
        if self.entries > self.limits.objects { Err(too_many(self.limits.objects)) } else { Ok(()) }
    }

    fn take(&mut self, file: TreeFile) -> Result<(), Refusal> {
        self.bytes = self.bytes.saturating_add(file.size);
        if self.bytes > self.limits.tree_bytes {
            let message =
                format!("the files of this release have more than the {} bytes allowed together", self.limits.tree_bytes);
            return Err(refuse(Reason::LimitExceeded, message));
        }
        if file.path.len() as u64 > self.limits.path_bytes {
            let message = format!("the path `{}` is longer than the {} bytes allowed", file.path, self.limits.path_bytes);
            return Err(refuse(Reason::LimitExceeded, message));
        }
        if self.files.len() as u64 >= self.limits.files {
            let message = format!("this release has more than the {} files allowed", self.limits.files);
            return Err(refuse(Reason::LimitExceeded, message));
        }
        self.files.push(file);
        Ok(())
    }
}

pub(super) fn too_many(limit: u64) -> Refusal {
    refuse(Reason::LimitExceeded, format!("the tree of this release has more than the {limit} names allowed"))
}

pub(super) fn joined(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Whether a path is of those that a release is made of.
pub(super) fn counts(path: &str) -> bool {
    path == ROOT_FILE || path == GROUPS || path.strip_prefix(GROUPS).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a file's content is parsed or rendered, and so read at once.
pub(super) fn is_read(path: &str) -> bool {
    path.ends_with(".toml") || path.ends_with(".hbs")
}

/// Checks what may stand at a path that counts; tells whether it is executable.
pub(super) fn check_file(path: &str, mode: Mode) -> Result<bool, Refusal> {
    let fail = |what: &str| Err(refuse(Reason::UnsafePath, format!("`{path}` {what}")));
    match mode {
        Mode::Symlink => return fail("is a symbolic link; put the file itself there and tag again"),
        Mode::Submodule => {
            return fail("is a submodule, and nothing of another repository is fetched; put the files themselves there");
        }
        Mode::Folder | Mode::File | Mode::Executable => {}
    }
    if path == GROUPS {
        return fail("is a file, and groups live in a folder of this name");
    }
    if path.len() > PATH_MAX_BYTES {
        return fail(&format!("is longer than {PATH_MAX_BYTES} bytes"));
    }
    Ok(mode == Mode::Executable)
}

fn naming(fault: Fault, path: &str) -> Fault {
    match fault {
        Fault::Refused(refusal) => Fault::Refused(Refusal { message: format!("`{path}`: {}", refusal.message), ..refusal }),
        other @ (Fault::Missing(_) | Fault::Unreadable(_)) => other,
    }
}

fn unread(id: ObjectId, error: git2::Error) -> Fault {
    if error.code() == ErrorCode::NotFound {
        return Fault::Missing(id);
    }
    match over_large(&error) {
        Some(refusal) => Fault::Refused(refusal),
        None => Fault::Unreadable(error),
    }
}

/// What libgit2 says of a delta that would grow beyond [`allow_deltas`](crate::sys::git::allow_deltas)'s bound, in our words: it has
/// no code for it.
pub(super) fn over_large(error: &git2::Error) -> Option<Refusal> {
    let message = "an object unpacks to more than is read (`source.limits.file_bytes`); nothing of it was kept";
    error.message().contains("overly large object").then(|| refuse(Reason::LimitExceeded, message))
}
