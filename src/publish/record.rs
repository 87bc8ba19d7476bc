//! The record beside a publication's files: what was written, so that a later look can tell whether it still is so.
//!
//! One file, `manifest`: a line with the format, its version and the SHA-256 of the rest, then JSON.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::model::Digest;

/// Name of the record in a publication's folder.
pub(super) const RECORD: &str = "manifest";
/// Name of the folder with the published files.
pub(super) const FILES: &str = "files";

const FORMAT: &str = "tagfall-publication";
const VERSION: u32 = 1;

/// Longest record that is read: far above the tree limits of a release.
const RECORD_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// What one publication was written with.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// Rises with every publication of the group.
    pub sequence: u64,
    /// The group that may read it, by number; `None` = everybody may.
    pub gid: Option<u32>,
    /// Its files, by path.
    pub files: BTreeMap<String, PublishedFile>,
}

/// One published file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PublishedFile {
    /// Permission bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: Digest,
}

/// Why a record cannot be used.
#[derive(Debug)]
pub(super) enum RecordFault {
    Missing,
    Damaged,
    Io(io::Error),
}

impl Manifest {
    /// Mode of its folders.
    pub fn folder_mode(&self) -> u32 {
        folder_mode(self.gid)
    }

    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let payload = serde_json::to_vec(self)?;
        let mut bytes = format!("{FORMAT} {VERSION} {}\n", Digest::of(&payload)).into_bytes();
        bytes.extend_from_slice(&payload);
        Ok(bytes)
    }

    pub(super) fn read(publication: &Path) -> Result<Self, RecordFault> {
        let path = publication.join(RECORD);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if !found.is_file() || found.len() > RECORD_MAX_BYTES => return Err(RecordFault::Damaged),
            Ok(_) => (),
            Err(error) => return Err(fault(error)),
        }
        let bytes = std::fs::read(&path).map_err(fault)?;
        Self::parse(&bytes).ok_or(RecordFault::Damaged)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (head, payload) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]);
        let digest = head.strip_prefix(&format!("{FORMAT} {VERSION} "))?.parse::<Digest>().ok()?;
        if Digest::of(payload) != digest {
            return None;
        }
        serde_json::from_slice(payload).ok()
    }
}

fn fault(error: io::Error) -> RecordFault {
    match error.kind() == io::ErrorKind::NotFound {
        true => RecordFault::Missing,
        false => RecordFault::Io(error),
    }
}

/// Mode of a published folder.
pub(super) const fn folder_mode(gid: Option<u32>) -> u32 {
    if gid.is_some() { 0o550 } else { 0o555 }
}

/// Mode of a published file.
pub(super) const fn file_mode(gid: Option<u32>, executable: bool) -> u32 {
    match (gid.is_some(), executable) {
        (true, false) => 0o440,
        (true, true) => 0o550,
        (false, false) => 0o444,
        (false, true) => 0o555,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_is_seen() {
        let file = PublishedFile { mode: 0o444, size: 1, sha256: Digest::of(b"x") };
        let record = Manifest { sequence: 7, gid: Some(12), files: BTreeMap::from([("a".to_owned(), file)]) };
        let bytes = record.to_bytes().unwrap();
        assert_eq!(Manifest::parse(&bytes).unwrap(), record);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Manifest::parse(&bad).is_none(), "byte {at}");
            assert!(Manifest::parse(&bytes[..at]).is_none(), "cut at {at}");
        }
    }
}
