//! Whether a publication still is what was written: its record against what lies on the disk.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::record::{FILES, Manifest, PublishedFile};
use super::{PublishError, Publisher};
use crate::model::{Digest, GroupName, PublicationId};

const PERMISSION_BITS: u32 = 0o7777;

impl Publisher {
    /// What of a publication is not as it was written, as `PATH (changed|added|removed|mode)`; empty = nothing.
    pub fn verify(&self, group: &GroupName, id: PublicationId) -> Result<Vec<String>, PublishError> {
        let folder = self.publication_dir(group, id);
        let manifest = match self.manifest(group, id) {
            Ok(manifest) => manifest,
            Err(PublishError::Unwritten { .. }) => return Ok(vec![drift(FILES, "removed")]),
            Err(PublishError::Damaged { what: "missing", .. }) => return Ok(vec![drift("manifest", "removed")]),
            Err(PublishError::Damaged { .. }) => return Ok(vec![drift("manifest", "changed")]),
            Err(error) => return Err(error),
        };
        let mut drifted = Vec::new();
        let mut expected = Expected::of(&manifest);
        let files = folder.join(FILES);
        let failed = |error| PublishError::new("check", &files, error);
        match std::fs::symlink_metadata(&files) {
            Ok(found) if found.is_dir() => {
                if !sealed_as(&found, manifest.folder_mode(), manifest.gid) {
                    drifted.push(drift(FILES, "mode"));
                }
                expected.walk(&files, "", &mut drifted).map_err(failed)?;
            }
            Ok(_) => return Ok(vec![drift(FILES, "changed")]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![drift(FILES, "removed")]),
            Err(error) => return Err(failed(error)),
        }
        drifted.extend(expected.files.keys().chain(expected.folders.keys()).map(|path| drift(path, "removed")));
        drifted.sort();
        Ok(drifted)
    }
}

fn drift(path: &str, what: &str) -> String {
    format!("{path} ({what})")
}

/// What has not been found yet.
struct Expected<'a> {
    files: BTreeMap<&'a str, &'a PublishedFile>,
    folders: BTreeMap<&'a str, ()>,
    folder_mode: u32,
    gid: Option<u32>,
}

impl<'a> Expected<'a> {
    fn of(manifest: &'a Manifest) -> Self {
        let files: BTreeMap<_, _> = manifest.files.iter().map(|(path, file)| (path.as_str(), file)).collect();
        let parents = |path: &&'a str| path.match_indices('/').map(|(at, _)| (&path[..at], ())).collect::<Vec<_>>();
        let folders = files.keys().flat_map(parents).collect();
        Self { files, folders, folder_mode: manifest.folder_mode(), gid: manifest.gid }
    }

    fn walk(&mut self, folder: &Path, below: &str, drifted: &mut Vec<String>) -> io::Result<()> {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            // Taken away, or its mode changed, while we look: the mode was told above, the rest is told as removed.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let path = if below.is_empty() {
                name.to_string_lossy().into_owned()
            } else {
                format!("{below}/{}", name.to_string_lossy())
            };
            let found = match entry.metadata() {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if let Some(what) = self.look(&entry.path(), &path, &found)? {
                drifted.push(drift(&path, what));
            }
            if found.is_dir() {
                self.walk(&entry.path(), &path, drifted)?;
            }
        }
        Ok(())
    }

    /// What is wrong with one entry; what was expected of it is crossed off.
    fn look(&mut self, place: &Path, path: &str, found: &Metadata) -> io::Result<Option<&'static str>> {
        if self.folders.remove(path).is_some() {
            return Ok(match (found.is_dir(), sealed_as(found, self.folder_mode, self.gid)) {
                (true, true) => None,
                (true, false) => Some("mode"),
                (false, _) => Some("changed"),
            });
        }
        let Some(expected) = self.files.remove(path) else { return Ok(Some("added")) };
        if !found.is_file() || found.len() != expected.size {
            return Ok(Some("changed"));
        }
        if !sealed_as(found, expected.mode, self.gid) {
            return Ok(Some("mode"));
        }
        Ok(if digest(place, expected.size)? == Some(expected.sha256) { None } else { Some("changed") })
    }
}

/// Whether mode and group are as they were given.
fn sealed_as(found: &Metadata, mode: u32, gid: Option<u32>) -> bool {
    found.mode() & PERMISSION_BITS == mode && gid.is_none_or(|gid| found.gid() == gid)
}

/// The digest of a file of this size; `None` where it is gone or has become something else meanwhile.
fn digest(path: &Path, size: u64) -> io::Result<Option<Digest>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Ok(None),
        // What this process wrote, it may read: somebody else's file is in its place.
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // One byte more than expected is enough to tell that it has grown.
    file.take(size + 1).read_to_end(&mut content)?;
    Ok((content.len() as u64 == size).then(|| Digest::of(&content)))
}
