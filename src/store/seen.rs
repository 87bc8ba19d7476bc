//! What was seen once, for ever: the object that each tag name named first, and the highest version that ran.
//!
//! `DATA_DIR/state/seen.log` only grows: a head, then batches of a length, records, and a digest over all that stands before it in
//! the batch and over the digest of the batch before. So a torn end is found and cut off, a damaged batch is found and only its own
//! records are lost, and a file that was exchanged for an older one is shorter than what the state document remembers of it. A
//! batch is on the disk before anybody hears of the tags in it.
//!
//! A name is kept as sixteen bytes of its SHA-256, so that 200,000 tags take 7 MB of memory and of disk.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{STATE_FILE_MODE, StoreError};
use crate::model::{Digest, DigestBuilder, ObjectId, RemoteTag, TagName};

const NAME: &str = "seen.log";
const HEAD: &[u8; 16] = b"tagfall-seen 1\n\n";
/// So many names are remembered; then nothing new is taken.
pub const NAMES_MAX: usize = 500_000;
/// Longest file that is read.
const FILE_MAX_BYTES: u64 = 64 << 20;
/// Longest batch, in bytes.
const BATCH_MAX_BYTES: usize = 32 << 20;
/// More batches than this are written anew as one.
const BATCHES_MAX: u64 = 4096;
const DIGEST_BYTES: usize = 32;

/// A name's key.
type Key = [u8; 16];

const TAG: u8 = b'T';
const FLOOR: u8 = b'F';
/// Kind, key, object id.
const TAG_BYTES: usize = 1 + 16 + 20;

/// How far the log was when something else was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mark {
    /// Batches since it was made.
    pub batches: u64,
    /// Digest of the last one.
    pub digest: Digest,
}

/// Why a listing was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SeenError {
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bound.
    #[error("more than {NAMES_MAX} names of tags were seen here, and no new one is taken; if that is right, set `{}` aside", .0.display())]
    Full(PathBuf),
}

/// The log, open, and what it says.
#[derive(Debug)]
pub struct Seen {
    path: PathBuf,
    file: File,
    /// Sorted by key.
    names: Vec<(Key, ObjectId)>,
    floor: Option<semver::Version>,
    mark: Mark,
    /// Bytes of the file that are whole.
    length: u64,
}

/// What a file held.
struct Content {
    names: BTreeMap<Key, ObjectId>,
    floor: Option<semver::Version>,
    marks: Vec<Mark>,
    length: u64,
    /// Bytes behind the last batch that is whole.
    torn: bool,
    damaged: u64,
}

impl Seen {
    /// Opens the log of a state folder. `known` is what the state document remembers of it; `notes` gets what was not as it
    /// should be, and what was done about it.
    pub(super) fn open(folder: &Path, known: Option<Mark>, notes: &mut Vec<String>) -> Result<Self, StoreError> {
        let path = folder.join(NAME);
        let failed = |step: &'static str| {
            let path = path.clone();
            move |error| StoreError::new(step, &path, error)
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(STATE_FILE_MODE);
        let mut file = options.open(&path).map_err(failed("open the log of tags"))?;
        let mut bytes = Vec::new();
        (&mut file).take(FILE_MAX_BYTES).read_to_end(&mut bytes).map_err(failed("read the log of tags"))?;
        let fresh = bytes.is_empty();
        let content = if fresh { Content::empty() } else { parse(&bytes) };
        let lost = known.filter(|mark| !content.marks.contains(mark));
        let names: Vec<(Key, ObjectId)> = content.names.into_iter().collect();
        let last = content.marks.last().copied();
        let mark = last.unwrap_or(Mark { batches: 0, digest: Digest::of(HEAD) });
        let mut seen = Self { path, file, names, floor: content.floor, mark, length: content.length };
        if content.damaged > 0 {
            let aside = seen.aside()?;
            notes.push(format!(
                "`{}` is damaged in {} places and was moved to `{}`; what could be read of it is used: a tag that was noted \
                 there alone counts as seen for the first time",
                seen.path.display(),
                content.damaged,
                aside.display()
            ));
            seen.rewrite()?;
        } else if fresh || content.marks.len() as u64 > BATCHES_MAX {
            seen.rewrite()?;
        } else if content.torn {
            seen.cut()?;
        }
        if let Some(lost) = lost.filter(|_| content.damaged == 0) {
            notes.push(format!(
                "`{}` is older than the state beside it (batch {} of {} is the last): it was taken back or lost, and tags that \
                 were noted since count as seen for the first time",
                seen.path.display(),
                last.map_or(0, |mark| mark.batches),
                lost.batches
            ));
        }
        Ok(seen)
    }

    /// How far the log is.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// The highest version that ran here.
    pub fn floor(&self) -> Option<&semver::Version> {
        self.floor.as_ref()
    }

    /// How many names are remembered.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// What a name named when it was first seen.
    pub fn first(&self, name: &TagName) -> Option<ObjectId> {
        let at = self.names.binary_search_by_key(&key(name), |(key, _)| *key).ok()?;
        self.names.get(at).map(|(_, object)| *object)
    }

    /// Writes down the names that are new, and tells those that named something else before. On an error nothing new counts
    /// as seen.
    pub fn see<'a>(&mut self, tags: impl Iterator<Item = &'a RemoteTag>) -> Result<BTreeMap<TagName, ObjectId>, SeenError> {
        let mut moved = BTreeMap::new();
        let mut fresh = BTreeMap::new();
        for tag in tags {
            match self.first(&tag.name) {
                Some(first) if first != tag.object => drop(moved.insert(tag.name.clone(), first)),
                Some(_) => {}
                None => drop(fresh.insert(key(&tag.name), tag.object)),
            }
        }
        if fresh.is_empty() {
            return Ok(moved);
        }
        if self.names.len() + fresh.len() > NAMES_MAX {
            return Err(SeenError::Full(self.path.clone()));
        }
        let records: Vec<u8> = fresh.iter().flat_map(|(key, object)| tag_record(key, object)).collect();
        self.append(&records)?;
        self.names.extend(fresh);
        self.names.sort_unstable();
        Ok(moved)
    }

    /// Writes down that a version ran, where none that is higher did.
    pub fn raise_floor(&mut self, version: &semver::Version) -> Result<(), StoreError> {
        if self.floor.as_ref().is_some_and(|floor| floor >= version) {
            return Ok(());
        }
        self.append(&floor_record(version))?;
        self.floor = Some(version.clone());
        Ok(())
    }

    fn append(&mut self, records: &[u8]) -> Result<(), StoreError> {
        let (batch, mark) = batch(self.mark, records);
        let written = (|| {
            self.file.seek(SeekFrom::Start(self.length))?;
            self.file.write_all(&batch)?;
            self.file.sync_data()
        })();
        if let Err(error) = written {
            // What half a batch left behind must not stand before the next one.
            let _ = self.file.set_len(self.length);
            return Err(StoreError::new("write the log of tags", &self.path, error));
        }
        self.length += batch.len() as u64;
        self.mark = mark;
        Ok(())
    }

    /// Takes away what a crash left of a batch that was never whole.
    fn cut(&self) -> Result<(), StoreError> {
        let cut = self.file.set_len(self.length).and_then(|()| self.file.sync_data());
        cut.map_err(|error| StoreError::new("cut the log of tags", &self.path, error))
    }

    fn aside(&self) -> Result<PathBuf, StoreError> {
        let aside = self.path.with_extension("log.broken");
        std::fs::rename(&self.path, &aside).map_err(|error| StoreError::new("move aside", &self.path, error))?;
        Ok(aside)
    }

    /// Writes all of it as one batch in a new file, which takes the place of the old one.
    fn rewrite(&mut self) -> Result<(), StoreError> {
        let mut records: Vec<u8> = self.names.iter().flat_map(|(key, object)| tag_record(key, object)).collect();
        records.extend(self.floor.iter().flat_map(floor_record));
        let mut bytes = HEAD.to_vec();
        if !records.is_empty() {
            let (batch, mark) = batch(self.mark, &records);
            bytes.extend_from_slice(&batch);
            self.mark = mark;
        }
        let fresh = self.path.with_extension("log.new");
        let write = || {
            let mut options = OpenOptions::new();
            let mut file = options.read(true).write(true).create(true).truncate(true).mode(STATE_FILE_MODE).open(&fresh)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &self.path)?;
            let folder = self.path.parent().unwrap_or(Path::new("/"));
            File::open(folder)?.sync_all()?;
            Ok(file)
        };
        self.file = write().map_err(|error: io::Error| StoreError::new("write the log of tags", &self.path, error))?;
        self.length = bytes.len() as u64;
        Ok(())
    }
}

fn key(name: &TagName) -> Key {
    let digest = Digest::of(name.as_str().as_bytes());
    let mut key = Key::default();
    key.copy_from_slice(&digest.as_bytes()[..16]);
    key
}

fn tag_record(key: &Key, object: &ObjectId) -> impl Iterator<Item = u8> {
    let mut record = [TAG; TAG_BYTES];
    record[1..17].copy_from_slice(key);
    record[17..].copy_from_slice(object.as_bytes());
    record.into_iter()
}

fn floor_record(version: &semver::Version) -> Vec<u8> {
    let text = version.to_string();
    // A version is part of a tag's name, which is far shorter.
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    let mut record = vec![FLOOR];
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    record
}

/// Length, number, records, digest.
fn batch(before: Mark, records: &[u8]) -> (Vec<u8>, Mark) {
    let batches = before.batches + 1;
    let digest = chained(before.digest, batches, records);
    let mut bytes = u32::try_from(records.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    bytes.extend_from_slice(&batches.to_le_bytes());
    bytes.extend_from_slice(before.digest.as_bytes());
    bytes.extend_from_slice(records);
    bytes.extend_from_slice(digest.as_bytes());
    (bytes, Mark { batches, digest })
}

fn chained(before: Digest, number: u64, records: &[u8]) -> Digest {
    DigestBuilder::new("tagfall-seen").field(before.as_bytes()).field(&number.to_le_bytes()).field(records).finish()
}

impl Content {
    fn empty() -> Self {
        let length = HEAD.len() as u64;
        Self { names: BTreeMap::new(), floor: None, marks: Vec::new(), length, torn: false, damaged: 0 }
    }
}

fn parse(bytes: &[u8]) -> Content {
    let mut content = Content::empty();
    let Some(mut rest) = bytes.strip_prefix(HEAD) else {
        // Without its head nothing in it can be believed to stand where it should.
        content.damaged = 1;
        return content;
    };
    let mut before: Option<Digest> = None;
    while !rest.is_empty() {
        let Some((number, claimed, records, digest, after)) = split(rest) else {
            // Half a batch at the end is what a crash leaves: nobody was told of it.
            content.torn = true;
            break;
        };
        let whole = chained(claimed, number, records) == digest;
        let follows = before.is_none_or(|before| before == claimed);
        if whole && take(&mut content, records) {
            content.marks.push(Mark { batches: number, digest });
            content.damaged += u64::from(!follows);
        } else if after.is_empty() {
            content.torn = true;
            break;
        } else {
            content.damaged += 1;
        }
        before = Some(digest);
        rest = after;
        content.length = (bytes.len() - rest.len()) as u64;
    }
    content
}

type Split<'a> = (u64, Digest, &'a [u8], Digest, &'a [u8]);

fn split(bytes: &[u8]) -> Option<Split<'_>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > BATCH_MAX_BYTES {
        return None;
    }
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (before, rest) = rest.split_first_chunk::<DIGEST_BYTES>()?;
    let (records, rest) = rest.split_at_checked(length)?;
    let (digest, rest) = rest.split_first_chunk::<DIGEST_BYTES>()?;
    Some((u64::from_le_bytes(*number), Digest::from_bytes(*before), records, Digest::from_bytes(*digest), rest))
}

/// Takes the records of a batch; `false` where they are not as they are written.
fn take(content: &mut Content, records: &[u8]) -> bool {
    let mut rest = records;
    while let Some(kind) = rest.first() {
        match *kind {
            TAG => {
                let Some((record, after)) = rest.split_first_chunk::<TAG_BYTES>() else { return false };
                let (mut key, mut object) = (Key::default(), [0; 20]);
                key.copy_from_slice(&record[1..17]);
                object.copy_from_slice(&record[17..]);
                // What was seen first stays.
                content.names.entry(key).or_insert(ObjectId::from_bytes(object));
                rest = after;
            }
            FLOOR => {
                let Some((head, after)) = rest.split_first_chunk::<3>() else { return false };
                let length = usize::from(u16::from_le_bytes([head[1], head[2]]));
                let Some((text, after)) = after.split_at_checked(length) else { return false };
                let version = std::str::from_utf8(text).ok().and_then(|text| semver::Version::parse(text).ok());
                let Some(version) = version else { return false };
                content.floor = content.floor.take().into_iter().chain([version]).max();
                rest = after;
            }
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(name: &str, object: u8) -> RemoteTag {
        RemoteTag { name: TagName::new(name), object: ObjectId::from_bytes([object; 20]) }
    }

    fn open(folder: &Path, known: Option<Mark>) -> (Seen, Vec<String>) {
        let mut notes = Vec::new();
        (Seen::open(folder, known, &mut notes).unwrap(), notes)
    }

    /// A log with three batches: two tags, a floor, one tag.
    fn filled(folder: &Path) -> Mark {
        let (mut seen, notes) = open(folder, None);
        assert_eq!(notes, [""; 0]);
        seen.see([tag("v1", 1), tag("v2", 2)].iter()).unwrap();
        seen.raise_floor(&semver::Version::new(1, 2, 0)).unwrap();
        seen.see([tag("v3", 3)].iter()).unwrap();
        seen.mark()
    }

    #[test]
    fn a_name_keeps_what_it_named_first_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let mark = filled(folder.path());
        let (mut seen, notes) = open(folder.path(), Some(mark));
        assert_eq!(notes, [""; 0]);
        assert_eq!((seen.len(), seen.floor().cloned()), (3, Some(semver::Version::new(1, 2, 0))));
        let moved = seen.see([tag("v1", 9), tag("v2", 2), tag("v4", 4)].iter()).unwrap();
        assert_eq!(moved, BTreeMap::from([(TagName::new("v1"), ObjectId::from_bytes([1; 20]))]));
        assert_eq!(seen.see([tag("v1", 9)].iter()).unwrap().len(), 1, "moved for ever");
        assert_eq!(seen.first(&TagName::new("v4")), Some(ObjectId::from_bytes([4; 20])));
        seen.raise_floor(&semver::Version::new(1, 1, 0)).unwrap();
        assert_eq!(seen.floor(), Some(&semver::Version::new(1, 2, 0)), "never lower");
    }

    #[test]
    fn nothing_new_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        filled(folder.path());
        let (mut seen, _) = open(folder.path(), None);
        let before = std::fs::read(folder.path().join(NAME)).unwrap();
        seen.see([tag("v1", 1), tag("v2", 9)].iter()).unwrap();
        assert_eq!(std::fs::read(folder.path().join(NAME)).unwrap(), before);
    }

    #[test]
    fn a_torn_end_is_cut_off_and_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        filled(folder.path());
        let whole = std::fs::read(&path).unwrap();
        let first_batches = {
            let (seen, _) = open(folder.path(), None);
            seen.length as usize - (4 + 8 + 32 + TAG_BYTES + 32)
        };
        for end in first_batches + 1..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            let (mut seen, notes) = open(folder.path(), None);
            assert_eq!((seen.len(), notes.len()), (2, 0), "cut at {end}");
            assert!(seen.see([tag("v3", 7)].iter()).unwrap().is_empty(), "it was never told of");
            let (seen, notes) = open(folder.path(), None);
            assert_eq!((seen.first(&TagName::new("v3")), notes.len()), (Some(ObjectId::from_bytes([7; 20])), 0));
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_told_and_costs_only_what_it_hit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let mark = filled(folder.path());
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let (mut seen, notes) = open(folder.path(), Some(mark));
            assert!(!notes.is_empty(), "bit {at}");
            assert!(
                seen.names.iter().all(|(_, object)| (1..=3).contains(&object.as_bytes()[0])),
                "bit {at}: something was made up"
            );
            seen.see([tag("v9", 9)].iter()).unwrap();
            let (again, notes) = open(folder.path(), Some(seen.mark()));
            assert_eq!((again.len(), notes), (seen.len(), Vec::new()), "bit {at}: whole again");
        }
    }

    #[test]
    fn an_older_copy_and_a_missing_file_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        filled(folder.path());
        let old = std::fs::read(&path).unwrap();
        let mark = {
            let (mut seen, _) = open(folder.path(), None);
            seen.see([tag("v4", 4)].iter()).unwrap();
            seen.mark()
        };
        std::fs::write(&path, &old).unwrap();
        assert!(open(folder.path(), Some(mark)).1[0].contains("older"));
        std::fs::remove_file(&path).unwrap();
        assert!(open(folder.path(), Some(mark)).1[0].contains("lost"));
    }

    #[test]
    fn many_tags_take_little_and_have_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let (mut seen, _) = open(folder.path(), None);
        let tags: Vec<RemoteTag> = (0..20_000).map(|n| tag(&format!("v1.0.{n}"), 1)).collect();
        seen.see(tags.iter()).unwrap();
        let bytes = std::fs::metadata(folder.path().join(NAME)).unwrap().len();
        assert!(bytes < 20_000 * 40, "{bytes}");
        seen.names.resize(NAMES_MAX, ([0xff; 16], ObjectId::from_bytes([0; 20])));
        assert!(matches!(seen.see([tag("w", 1)].iter()), Err(SeenError::Full(_))));
    }
}
