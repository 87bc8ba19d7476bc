//! Publications: written whole, switched in atomically, checked, put away.
//!
//! On disk, below the data folder:
//!
//! ```text
//! publications/GROUP/ID/files/…   one immutable publication (ID: digest of its content, `-N` behind it for a later copy)
//! publications/GROUP/ID/manifest  what it was written with
//! publications/GROUP/order        which publications were switched to anew, after newer ones existed
//! view/GROUP/files                link to ../../publications/GROUP/ID/files, switched by rename(2)
//! ```
//!
//! The mount path on the host is a link, made once, to `view/GROUP/files`. In a service's own mount namespace the keeper
//! binds `publications/GROUP/ID` over `view/GROUP`, so that the same path leads to one publication there until the keeper
//! swaps it.
//!
//! All functions block; the loop calls them on its blocking pool. This room never decides *what* is shown, never mends a
//! file in place, never replaces what it did not make, and runs nothing. Every change of the disk goes through `disk`;
//! killed between any two of them, [`Publisher::open`] and the same calls again lead to a whole old or a whole new state.
//! A new operation is a file of its own with an `impl Publisher`.

mod disk;
mod error;
mod hands;
mod prune;
mod record;
mod switch;
#[cfg(test)]
mod tests;
mod verify;
mod watch;
mod write;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::{GroupName, PublicationId};
use disk::Disk;
use record::RecordFault;

pub use error::PublishError;
pub use hands::{Hands, Reader};
pub use record::{Manifest, PublishedFile};
pub use switch::{LinkState, shown_in};
pub use watch::{DriftWatch, WatchError};

/// Names that an interrupted write may leave behind begin so; nothing else is removed by [`Publisher::open`].
const TEMPORARY: &str = ".tmp-";

/// Services run as other users and pass through these folders without reading them.
const PASSAGE_MODE: u32 = 0o711;

/// The folder with all publications, and the views on the current ones.
#[derive(Debug)]
pub struct Publisher {
    data_dir: PathBuf,
    disk: Disk,
    /// Who does what this process may not; `None`: it does all of it itself.
    hands: Option<Box<dyn Hands>>,
}

impl Publisher {
    /// Makes the folders, and removes what an interrupted write left.
    pub fn open(data_dir: &Path) -> Result<Self, PublishError> {
        Self::open_with(data_dir, None)
    }

    /// The same with somebody else's hands for what this process has no right to do.
    pub fn open_with(data_dir: &Path, hands: Option<Box<dyn Hands>>) -> Result<Self, PublishError> {
        let disk = Disk::default();
        ensure_passage(&disk, data_dir, false)?;
        let data_dir = data_dir.canonicalize().map_err(|error| PublishError::new("find the data folder", data_dir, error))?;
        let publisher = Self { data_dir, disk, hands };
        for top in [publisher.publications(), publisher.views()] {
            ensure_passage(&publisher.disk, &top, true)?;
            for (group, folder) in groups_in(&top)? {
                publisher.sweep(&group, &folder)?;
            }
        }
        Ok(publisher)
    }

    /// Groups with something on disk.
    pub fn groups(&self) -> Result<Vec<GroupName>, PublishError> {
        let mut groups = BTreeSet::new();
        for top in [self.publications(), self.views()] {
            groups.extend(groups_in(&top)?.into_iter().map(|(group, _)| group));
        }
        Ok(groups.into_iter().collect())
    }

    /// What a publication was written with.
    pub fn manifest(&self, group: &GroupName, id: PublicationId) -> Result<Manifest, PublishError> {
        let folder = self.publication_dir(group, id);
        Manifest::read(&folder).map_err(|fault| match fault {
            RecordFault::Missing if !folder.is_dir() => PublishError::Unwritten { group: group.clone(), id },
            RecordFault::Missing => PublishError::Damaged { group: group.clone(), id, what: "missing" },
            RecordFault::Damaged => PublishError::Damaged { group: group.clone(), id, what: "damaged" },
            RecordFault::Io(error) => PublishError::new("read the record of", &folder, error),
        })
    }

    /// The folder that a service's private mount binds over [`Publisher::view_point`].
    pub fn publication_dir(&self, group: &GroupName, id: PublicationId) -> PathBuf {
        self.group_dir(group).join(id.to_string())
    }

    /// The folder through which the mount path's link leads.
    pub fn view_point(&self, group: &GroupName) -> PathBuf {
        self.views().join(group.to_string())
    }

    fn publications(&self) -> PathBuf {
        self.data_dir.join("publications")
    }

    fn views(&self) -> PathBuf {
        self.data_dir.join("view")
    }

    fn group_dir(&self, group: &GroupName) -> PathBuf {
        self.publications().join(group.to_string())
    }

    /// Makes the folder of a group, durably.
    fn ensure_group_dir(&self, top: &Path, folder: &Path) -> Result<(), PublishError> {
        if ensure_passage(&self.disk, folder, true)? {
            self.disk.sync_folder(top).map_err(|error| PublishError::new("sync", top, error))?;
        }
        Ok(())
    }

    /// Removes temporary names of an interrupted write.
    fn sweep(&self, group: &GroupName, folder: &Path) -> Result<(), PublishError> {
        for name in names_in(folder)? {
            if name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
                self.remove("remove the leftover", group, &folder.join(name))?;
            }
        }
        Ok(())
    }
}

/// Makes a folder that others may pass through, and says whether it was missing. The mode of one that exists is put right
/// only where it is ours alone: an operator chose that of the data folder.
fn ensure_passage(disk: &Disk, path: &Path, ours: bool) -> Result<bool, PublishError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |error| PublishError::new("make the folder", path, error);
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            // Where the keeper gives it to the group of its readers, all in it inherits that.
            if ours && found.permissions().mode() & 0o5777 != PASSAGE_MODE {
                disk.chmod(path, PASSAGE_MODE).map_err(failed)?;
            }
            Ok(false)
        }
        Ok(_) => Err(failed(io::ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent().filter(|parent| !ours && !parent.as_os_str().is_empty()) {
                std::fs::create_dir_all(parent).map_err(failed)?;
            }
            disk.mkdir(path, PASSAGE_MODE).map_err(failed)?;
            Ok(true)
        }
        Err(error) => Err(failed(error)),
    }
}

fn groups_in(top: &Path) -> Result<Vec<(GroupName, PathBuf)>, PublishError> {
    let named = |name: &OsStr| name.to_str().and_then(|name| name.parse::<GroupName>().ok());
    Ok(names_in(top)?.into_iter().filter_map(|name| Some((named(&name)?, top.join(name)))).collect())
}

/// Names in a folder; none where there is no such folder.
fn names_in(folder: &Path) -> Result<Vec<std::ffi::OsString>, PublishError> {
    let failed = |error| PublishError::new("list", folder, error);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    entries.map(|entry| Ok(entry.map_err(failed)?.file_name())).collect()
}
