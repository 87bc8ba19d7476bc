//! Tags of a repository on this host, read from its files.
//!
//! Without libgit2: a supervisor at rest asks every few seconds, and what did not change since is not read again. A
//! foreign repository's configuration is not even opened.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Limits, refuse};
use crate::model::{ObjectId, Reason, Refusal, RemoteTag, TagName};

/// Largest `packed-refs` that is read.
const PACKED_REFS_MAX_BYTES: u64 = 256 << 20;
/// Longest line of it: an id and a name.
const LINE_MAX_BYTES: u64 = 4_096;
/// Folders within `refs/tags`.
const DEPTH_MAX: u32 = 16;
/// How old the last change must be before "nothing changed since" can be believed: two changes within one tick of a file
/// system's clock (seconds, on some) look like one.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Where a repository keeps what is read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GitDir {
    /// The folder with `refs` and `packed-refs`.
    pub(super) common: PathBuf,
    /// The folder of objects.
    pub(super) objects: PathBuf,
}

impl GitDir {
    /// Finds the repository at `path`: bare, `.git` in it, or a `.git` file that points elsewhere.
    pub(super) fn find(path: &Path) -> Result<Self, Refusal> {
        let none = || {
            let closed = [path.join(".git/HEAD"), path.join("HEAD")].iter().any(|head| is_closed(head));
            let words = if closed {
                format!(
                    "the repository at `{}` is closed to the supervisor's user ({}): let it read there, or name another `user` in \
                     supervisor.toml",
                    path.display(),
                    rustix::process::geteuid().as_raw()
                )
            } else {
                format!("there is no Git repository at `{}`", path.display())
            };
            refuse(Reason::GitOperationFailed, words)
        };
        let dir = [path.join(".git"), path.to_owned()].into_iter().find_map(|dir| resolved(&dir)).ok_or_else(none)?;
        let common = match read_small(&dir.join("commondir")) {
            Some(text) => dir.join(text.trim_end()),
            None => dir,
        };
        let objects = common.join("objects");
        if !objects.is_dir() {
            return Err(none());
        }
        if common.join("reftable").is_dir() {
            let message = format!(
                "the repository at `{}` keeps its refs as reftable, which is not read from a path: \
                 `git refs migrate --ref-format=files`, or give its address as ssh:// or https://",
                path.display()
            );
            return Err(refuse(Reason::GitOperationFailed, message));
        }
        Ok(Self { common, objects })
    }
}

/// Whether this process's user may not even look.
fn is_closed(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// A Git folder itself, or where a `.git` file leads.
fn resolved(dir: &Path) -> Option<PathBuf> {
    if dir.join("HEAD").symlink_metadata().is_ok() && (dir.join("objects").is_dir() || dir.join("commondir").is_file()) {
        return Some(dir.to_owned());
    }
    let text = read_small(dir)?;
    let target = Path::new(text.strip_prefix("gitdir: ")?.trim_end());
    let target = dir.parent()?.join(target);
    target.join("HEAD").symlink_metadata().is_ok().then_some(target)
}

/// A short text file, where it is one.
fn read_small(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.metadata().ok().filter(Metadata::is_file)?;
    file.take(LINE_MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The last listing, and by what it is known to be still true.
#[derive(Debug, Default)]
pub(super) struct Listing {
    known: Option<(u64, Vec<RemoteTag>)>,
}

impl Listing {
    /// All tags of the repository at `path`, by name.
    pub(super) fn read(&mut self, path: &Path, limits: &Limits) -> Result<Vec<RemoteTag>, Refusal> {
        let dir = GitDir::find(path)?;
        let scan = Scan::of(&dir, limits).map_err(|error| error.refusal(path))?;
        if let Some((print, tags)) = &self.known
            && *print == scan.print
        {
            return Ok(tags.clone());
        }
        let settled = scan.settled();
        let print = scan.print;
        let tags = scan.tags(&dir, limits).map_err(|error| error.refusal(path))?;
        self.known = settled.then(|| (print, tags.clone()));
        Ok(tags)
    }
}

/// Why refs cannot be read.
enum Unread {
    Io(PathBuf, std::io::Error),
    TooMany(u64),
    Malformed(String),
}

impl Unread {
    fn refusal(self, repository: &Path) -> Refusal {
        let at = repository.display();
        match self {
            Self::Io(path, error) => {
                refuse(Reason::GitOperationFailed, format!("the tags of `{at}` cannot be read: `{}`: {error}", path.display()))
            }
            Self::TooMany(limit) => {
                let message = format!("`{at}` has more than {limit} tags; raise `source.limits.tags` or remove some");
                refuse(Reason::LimitExceeded, message)
            }
            Self::Malformed(what) => refuse(Reason::GitOperationFailed, format!("the tags of `{at}` cannot be read: {what}")),
        }
    }
}

/// What lies below `refs/tags`, and a fingerprint of all of it.
struct Scan {
    print: u64,
    newest: SystemTime,
    /// Loose refs: short name and path.
    loose: Vec<(String, PathBuf)>,
}

impl Scan {
    fn of(dir: &GitDir, limits: &Limits) -> Result<Self, Unread> {
        let mut hasher = DefaultHasher::new();
        let mut scan = Self { print: 0, newest: SystemTime::UNIX_EPOCH, loose: Vec::new() };
        // Loose refs first: packing writes the packed file before it removes them.
        let mut folders = vec![(String::new(), dir.common.join("refs/tags"), 0)];
        while let Some((name, path, depth)) = folders.pop() {
            let Some(entries) = gone(fs::read_dir(&path)).map_err(|error| Unread::Io(path.clone(), error))? else { continue };
            let mut found = entries.collect::<Result<Vec<_>, _>>().map_err(|error| Unread::Io(path.clone(), error))?;
            found.sort_unstable_by_key(fs::DirEntry::file_name);
            for entry in found {
                let Some(part) = entry.file_name().into_string().ok().filter(|part| !part.contains(char::is_control)) else {
                    continue;
                };
                let below = if name.is_empty() { part } else { format!("{name}/{part}") };
                let Some(metadata) = gone(fs::metadata(entry.path())).map_err(|error| Unread::Io(entry.path(), error))? else {
                    continue;
                };
                if metadata.is_dir() {
                    if depth < DEPTH_MAX {
                        folders.push((below, entry.path(), depth + 1));
                    }
                } else if metadata.is_file() && !below.ends_with(".lock") {
                    scan.note(&mut hasher, &below, &metadata);
                    scan.loose.push((below, entry.path()));
                    if scan.loose.len() as u64 > limits.tags {
                        return Err(Unread::TooMany(limits.tags));
                    }
                }
            }
        }
        let packed = dir.common.join("packed-refs");
        if let Some(metadata) = gone(fs::metadata(&packed)).map_err(|error| Unread::Io(packed, error))? {
            scan.note(&mut hasher, "", &metadata);
        }
        scan.print = hasher.finish();
        Ok(scan)
    }

    fn note(&mut self, hasher: &mut DefaultHasher, name: &str, metadata: &Metadata) {
        (name, metadata.dev(), metadata.ino(), metadata.size()).hash(hasher);
        (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()).hash(hasher);
        let changed = Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0));
        self.newest = self.newest.max(SystemTime::UNIX_EPOCH + changed);
    }

    fn settled(&self) -> bool {
        // A file of the future (a clock that was set back) is never settled.
        self.newest.elapsed().is_ok_and(|age| age > SETTLED_AFTER)
    }

    fn tags(self, dir: &GitDir, limits: &Limits) -> Result<Vec<RemoteTag>, Unread> {
        let mut tags = BTreeMap::new();
        for (name, path) in self.loose {
            // A symbolic ref, or a file that a crash left empty, names no object; Git warns of it and goes on.
            if let Some(id) = read_small(&path).and_then(|text| text.trim_end().parse::<ObjectId>().ok()) {
                tags.insert(name, id);
            }
        }
        read_packed(&dir.common.join("packed-refs"), limits, &mut tags)?;
        Ok(tags.into_iter().map(|(name, object)| RemoteTag { name: TagName::new(name), object }).collect())
    }
}

/// Reads the tags of `packed-refs` that are not loose as well.
fn read_packed(path: &Path, limits: &Limits, tags: &mut BTreeMap<String, ObjectId>) -> Result<(), Unread> {
    let io = |error| Unread::Io(path.to_owned(), error);
    let Some(file) = gone(File::open(path)).map_err(io)? else { return Ok(()) };
    if file.metadata().map_err(io)?.len() > PACKED_REFS_MAX_BYTES {
        return Err(Unread::Malformed(format!("`packed-refs` is larger than {PACKED_REFS_MAX_BYTES} bytes")));
    }
    let mut reader = BufReader::with_capacity(64 << 10, file.take(PACKED_REFS_MAX_BYTES));
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line).map_err(io)? == 0 {
            return Ok(());
        }
        if !line.ends_with(b"\n") {
            return Err(Unread::Malformed("`packed-refs` has a line without an end".to_owned()));
        }
        if matches!(line[0], b'#' | b'^') {
            continue;
        }
        let Some((id, name)) = std::str::from_utf8(&line).ok().and_then(|line| line.trim_end().split_once(' ')) else { continue };
        let Some(name) = name.strip_prefix("refs/tags/") else { continue };
        let Ok(id) = id.parse::<ObjectId>() else {
            let what = if id.len() == 64 {
                "it uses SHA-256 ids; only SHA-1 repositories are read"
            } else {
                "`packed-refs` is malformed"
            };
            return Err(Unread::Malformed(what.to_owned()));
        };
        tags.entry(name.to_owned()).or_insert(id);
        if tags.len() as u64 > limits.tags {
            return Err(Unread::TooMany(limits.tags));
        }
    }
}

/// What is gone is no error: refs come and go while they are read.
fn gone<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "1111111111111111111111111111111111111111";
    const B: &str = "2222222222222222222222222222222222222222";

    fn repository() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["objects", "refs/tags"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("HEAD"), "ref: refs/heads/main\n").unwrap();
        dir
    }

    fn list(path: &Path) -> Result<Vec<(String, String)>, Refusal> {
        let tags = Listing::default().read(path, &Limits { tags: 4, ..Limits::default() })?;
        Ok(tags.into_iter().map(|tag| (tag.name.to_string(), tag.object.to_string())).collect())
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn loose_nested_and_packed_tags_are_listed_and_loose_wins() {
        let dir = repository();
        let root = dir.path();
        fs::write(root.join("refs/tags/v1"), format!("{A}\n")).unwrap();
        fs::create_dir_all(root.join("refs/tags/team/a")).unwrap();
        fs::write(root.join("refs/tags/team/a/v2"), format!("{A}\n")).unwrap();
        fs::write(root.join("refs/tags/v9.lock"), format!("{A}\n")).unwrap();
        fs::write(root.join("refs/tags/empty"), "").unwrap();
        fs::write(root.join("refs/tags/symbolic"), "ref: refs/tags/v1\n").unwrap();
        let packed = format!("# pack-refs with: peeled\n{B} refs/heads/main\n{B} refs/tags/v1\n^{A}\n{B} refs/tags/v3\n");
        fs::write(root.join("packed-refs"), packed).unwrap();
        assert_eq!(list(root).unwrap(), pairs(&[("team/a/v2", A), ("v1", A), ("v3", B)]));
    }

    #[test]
    fn worktrees_and_git_files_are_followed() {
        let bare = repository();
        fs::write(bare.path().join("refs/tags/v1"), A).unwrap();
        let work = tempfile::tempdir().unwrap();
        fs::write(work.path().join(".git"), format!("gitdir: {}\n", bare.path().display())).unwrap();
        assert_eq!(list(work.path()).unwrap(), pairs(&[("v1", A)]));
        let linked = bare.path().join("worktrees/x");
        fs::create_dir_all(&linked).unwrap();
        fs::write(linked.join("HEAD"), "x").unwrap();
        fs::write(linked.join("commondir"), "../..\n").unwrap();
        fs::write(work.path().join(".git"), format!("gitdir: {}\n", linked.display())).unwrap();
        assert_eq!(list(work.path()).unwrap(), pairs(&[("v1", A)]));
    }

    #[test]
    fn what_is_no_repository_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let refusal = list(dir.path()).unwrap_err();
        assert_eq!(refusal.reason, Reason::GitOperationFailed);
        assert!(refusal.message.contains(&dir.path().display().to_string()), "{refusal:?}");
        assert!(list(Path::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn too_many_tags_and_malformed_files_are_refused() {
        let dir = repository();
        let line = |n: usize| format!("{A} refs/tags/v{n}\n");
        fs::write(dir.path().join("packed-refs"), (0..4).map(line).collect::<String>()).unwrap();
        assert_eq!(list(dir.path()).unwrap().len(), 4);
        fs::write(dir.path().join("packed-refs"), (0..5).map(line).collect::<String>()).unwrap();
        assert_eq!(list(dir.path()).unwrap_err().reason, Reason::LimitExceeded);
        for bad in [
            format!("{} refs/tags/x\n", "a".repeat(64)),
            "x refs/tags/x\n".to_owned(),
            "y".repeat(10_000),
            line(1).trim().to_owned(),
        ] {
            fs::write(dir.path().join("packed-refs"), &bad).unwrap();
            assert_eq!(list(dir.path()).unwrap_err().reason, Reason::GitOperationFailed, "{bad}");
        }
        fs::create_dir(dir.path().join("reftable")).unwrap();
        assert!(list(dir.path()).unwrap_err().message.contains("reftable"));
    }

    #[test]
    fn a_change_is_never_missed_by_the_fingerprint() {
        let dir = repository();
        let mut listing = Listing::default();
        let limits = Limits::default();
        for round in 0..50_u32 {
            let id = format!("{round:040x}");
            fs::write(dir.path().join("refs/tags/v1.lock"), &id).unwrap();
            fs::rename(dir.path().join("refs/tags/v1.lock"), dir.path().join("refs/tags/v1")).unwrap();
            assert_eq!(listing.read(dir.path(), &limits).unwrap()[0].object.to_string(), id);
        }
    }
}
