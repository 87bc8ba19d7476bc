//! Writing one publication: below a temporary name, brought to the disk, renamed into place.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::disk::{folder_beneath, open_folder};
use super::record::{FILES, Manifest, PublishedFile, RECORD, file_mode, folder_mode};
use super::{PublishError, Publisher, Reader, TEMPORARY};
use crate::model::{Digest, GroupName, PublicationId};
use crate::render::{RenderedFile, content_digest};

/// Up to so many files each is synced by itself; from there on one sync of the file system is cheaper.
const SYNC_EACH_MAX_FILES: usize = 16;

/// Longest path below a publication, in bytes: with the folders above it PATH_MAX (4096) still holds.
const PATH_MAX_BYTES: usize = 3072;

/// Longest component of a path, in bytes (NAME_MAX).
const NAME_MAX_BYTES: usize = 255;

impl Publisher {
    /// Writes a publication, or finds it as it was written before. The group of `reader` may read it; without one everybody
    /// may. `fresh_copy` writes another copy in any case, which is how drift is mended.
    pub fn write(
        &self,
        group: &GroupName,
        files: &[RenderedFile],
        reader: Option<&Reader>,
        fresh_copy: bool,
    ) -> Result<PublicationId, PublishError> {
        check_paths(files)?;
        let content = content_digest(files);
        let folder = self.group_dir(group);
        let owner = reader.map(|reader| reader.gid);
        self.ensure_group_dir(&self.publications(), &folder)?;
        let copies: Vec<PublicationId> = self.on_disk(group)?.into_iter().filter(|id| id.content == content).collect();
        if !fresh_copy && let Some(id) = self.intact(group, &copies, owner)? {
            // An earlier run may have been cut off between its rename and this.
            self.disk.sync_folder(&folder).map_err(|error| PublishError::new("sync", &folder, error))?;
            return Ok(id);
        }
        reader.map_or(Ok(()), |reader| self.prepare_for(group, &folder, reader))?;
        let copy = copies.iter().map(|id| id.copy + 1).max().unwrap_or(0);
        let id = PublicationId { content, copy };
        let manifest = Manifest { sequence: self.next_sequence(group)?, gid: owner, files: describe(files, owner) };
        let temporary = folder.join(format!("{TEMPORARY}{id}"));
        self.place(group, &temporary, &folder.join(id.to_string()), files, &manifest).inspect_err(|_| {
            // The first error is the one to tell; what cannot be removed now goes at the next `open`.
            let _ = self.disk.remove_tree(&temporary);
        })?;
        self.disk.sync_folder(&folder).map_err(|error| PublishError::new("sync", &folder, error))?;
        Ok(id)
    }

    /// A copy with this content and this reader whose files are all as they were written: the current one first.
    fn intact(
        &self,
        group: &GroupName,
        copies: &[PublicationId],
        owner: Option<u32>,
    ) -> Result<Option<PublicationId>, PublishError> {
        let current = self.current(group)?;
        let mut copies = copies.to_vec();
        copies.sort_by_key(|id| (Some(*id) != current, std::cmp::Reverse(id.copy)));
        for id in copies {
            let same_reader = self.manifest(group, id).is_ok_and(|manifest| manifest.gid == owner);
            if same_reader && self.verify(group, id)?.is_empty() {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    fn place(
        &self,
        group: &GroupName,
        temporary: &Path,
        place: &Path,
        files: &[RenderedFile],
        manifest: &Manifest,
    ) -> Result<(), PublishError> {
        self.remove("remove the leftover", group, temporary)?;
        self.disk.mkdir_own(temporary).map_err(|error| PublishError::new("make the folder", temporary, error))?;
        let failed = |error| PublishError::new("open the folder", temporary, error);
        let root = open_folder(temporary).map_err(failed)?;
        self.fill(root.as_fd(), temporary, files, manifest)?;
        self.disk.rename(temporary, place).map_err(|error| PublishError::new("rename into place", place, error))
    }

    fn fill(
        &self,
        root: BorrowedFd<'_>,
        temporary: &Path,
        files: &[RenderedFile],
        manifest: &Manifest,
    ) -> Result<(), PublishError> {
        let each = files.len() <= SYNC_EACH_MAX_FILES;
        let failed = |step, path: &str, error| PublishError::new(step, &temporary.join(path), error);
        let folders = folders_of(files);
        for folder in &folders {
            self.disk.mkdir_beneath(root, folder).map_err(|error| failed("make the folder", folder, error))?;
        }
        for file in files {
            let path = format!("{FILES}/{}", file.path);
            let mode = file_mode(manifest.gid, file.executable);
            self.put(root, &path, &file.bytes, manifest.gid, mode, each).map_err(|error| failed("write", &path, error))?;
        }
        let record = manifest.to_bytes().map_err(|error| failed("write", RECORD, error))?;
        self.put(root, RECORD, &record, manifest.gid, file_mode(manifest.gid, false), each)
            .map_err(|error| failed("write", RECORD, error))?;
        // From the deepest up: a sealed folder takes no more entries.
        for folder in folders.iter().rev().map(String::as_str).chain(["."]) {
            self.close(root, folder, manifest.gid, each).map_err(|error| failed("seal", folder, error))?;
        }
        match each {
            true => Ok(()),
            false => self.disk.sync_all(root).map_err(|error| failed("sync", "", error)),
        }
    }

    fn put(&self, root: BorrowedFd<'_>, path: &str, content: &[u8], gid: Option<u32>, mode: u32, sync: bool) -> io::Result<()> {
        let file = self.disk.create_beneath(root, path)?;
        self.disk.write_all(&file, content)?;
        self.disk.seal(&file, gid, mode)?;
        if sync { self.disk.sync(&file) } else { Ok(()) }
    }

    fn close(&self, root: BorrowedFd<'_>, folder: &str, gid: Option<u32>, sync: bool) -> io::Result<()> {
        let folder = folder_beneath(root, folder)?;
        self.disk.seal(&folder, gid, folder_mode(gid))?;
        if sync { self.disk.sync(&folder) } else { Ok(()) }
    }
}

fn describe(files: &[RenderedFile], gid: Option<u32>) -> BTreeMap<String, PublishedFile> {
    let one = |file: &RenderedFile| PublishedFile {
        mode: file_mode(gid, file.executable),
        size: file.bytes.len() as u64,
        sha256: Digest::of(&file.bytes),
    };
    files.iter().map(|file| (file.path.clone(), one(file))).collect()
}

/// All folders of a publication, each after the one it is in.
fn folders_of(files: &[RenderedFile]) -> Vec<String> {
    let mut folders = std::collections::BTreeSet::from([FILES.to_owned()]);
    for file in files {
        let ends = file.path.match_indices('/').map(|(at, _)| at);
        folders.extend(ends.map(|at| format!("{FILES}/{}", &file.path[..at])));
    }
    folders.into_iter().collect()
}

/// Refuses what could leave the publication or cannot stand in one folder together, before anything is written.
fn check_paths(files: &[RenderedFile]) -> Result<(), PublishError> {
    let mut seen = std::collections::BTreeSet::new();
    for file in files {
        let refuse = |rule| Err(PublishError::UnsafePath { path: file.path.clone(), rule });
        let mut parts = file.path.split('/');
        if file.path.len() > PATH_MAX_BYTES || parts.clone().any(|part| part.len() > NAME_MAX_BYTES) {
            return refuse("it is too long");
        }
        if file.path.contains('\0') {
            return refuse("it contains a zero byte");
        }
        if parts.any(|part| matches!(part, "" | "." | "..")) {
            return refuse("each part of a path is a name: not empty, not `.`, not `..`");
        }
        if !seen.insert(file.path.as_str()) {
            return refuse("two files have this path");
        }
    }
    for path in &seen {
        if path.match_indices('/').any(|(at, _)| seen.contains(&path[..at])) {
            let path = (*path).to_owned();
            return Err(PublishError::UnsafePath { path, rule: "another file has the name of a folder that it is in" });
        }
    }
    Ok(())
}
