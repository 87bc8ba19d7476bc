//! Who changes what the process that publishes has no right to change: itself, or somebody with more rights, who checks what it is
//! asked for. What is asked for can be asked for again, so that being cut off in between does no harm.
//!
//! To need another hand: a method here, and what it does where there are no others.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{PublishError, Publisher};
use crate::model::GroupName;

/// Somebody who may what this process may not. Every method blocks, and answers with what went wrong in words.
pub trait Hands: std::fmt::Debug + Send + Sync {
    /// Whether files can be given to other groups.
    fn give_to_groups(&self) -> bool;

    /// Makes the host's link at a mount path, where nothing stands.
    fn link(&self, group: &GroupName, mount: &str) -> Result<(), String>;

    /// Takes it away, where it is ours.
    fn unlink(&self, group: &GroupName, mount: &str) -> Result<(), String>;

    /// From now on, what is made in a group's folder of publications belongs to the group of a user.
    fn readers(&self, group: &GroupName, user: &str) -> Result<(), String>;

    /// Makes folders removable that somebody else has made among a group's publications.
    fn reclaim(&self, group: &GroupName) -> Result<(), String>;
}

/// Who may read a publication beside this process's user: the group of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// The user's name.
    pub user: String,
    /// Its primary group.
    pub gid: u32,
}

impl Publisher {
    /// Whether files can be given to other groups.
    pub fn gives_to_groups(&self) -> bool {
        self.hands.as_ref().map_or_else(|| rustix::process::geteuid().is_root(), |hands| hands.give_to_groups())
    }

    /// Sees to it that what is made in a group's folder belongs to its reader's group, where this process cannot give it later.
    pub(super) fn prepare_for(&self, group: &GroupName, folder: &Path, reader: &Reader) -> Result<(), PublishError> {
        let Some(hands) = &self.hands else { return Ok(()) };
        let found = std::fs::metadata(folder).map_err(|error| PublishError::new("look at", folder, error))?;
        if found.gid() == reader.gid && found.mode() & 0o2000 != 0 {
            return Ok(());
        }
        let refused = |message| PublishError::Refused { step: "give to its reader's group", path: folder.to_owned(), message };
        hands.readers(group, &reader.user).map_err(refused)
    }

    /// Removes a tree of a group, also where somebody else has put a folder into it.
    pub(super) fn remove(&self, step: &'static str, group: &GroupName, path: &Path) -> Result<(), PublishError> {
        let failed = |error| PublishError::new(step, path, error);
        match (self.disk.remove_tree(path), &self.hands) {
            (Err(error), Some(hands)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let refused = |message| PublishError::Refused { step, path: path.to_owned(), message };
                hands.reclaim(group).map_err(refused)?;
                self.disk.remove_tree(path).map_err(failed)
            }
            (removed, _) => removed.map_err(failed),
        }
    }
}
