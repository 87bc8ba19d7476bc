//! Showing a publication: the view's link, switched by rename, and the host's link at the mount path, made once.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::record::FILES;
use super::{PublishError, Publisher, TEMPORARY};
use crate::model::{GroupName, PublicationId};

/// Mode of folders made above a mount path.
const PARENT_MODE: u32 = 0o755;

/// What stands at a mount path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Our link to this group's view.
    Ours,
    /// Nothing.
    Missing,
    /// Something that Tagfall did not make, or made for another group or data folder.
    Occupied {
        /// For a person: `a file`, `a link to /x`, …
        what: String,
    },
}

impl Publisher {
    /// Shows a publication on the host: first the view, then, where it is missing, the link at the mount path. Done
    /// already is as good.
    pub fn switch(&self, group: &GroupName, id: PublicationId, mount_path: &str) -> Result<(), PublishError> {
        let mount = self.mount_path(mount_path)?;
        if !self.publication_dir(group, id).join(FILES).is_dir() {
            return Err(PublishError::Unwritten { group: group.clone(), id });
        }
        let state = self.link_state(group, mount);
        if let LinkState::Occupied { what } = state {
            return Err(PublishError::MountOccupied { path: mount.to_path_buf(), what });
        }
        if self.current(group)? != Some(id) {
            self.turn_view(group, id)?;
        }
        self.note_switch(group, id);
        match state {
            LinkState::Missing => match &self.hands {
                Some(hands) => {
                    let refused = |message| PublishError::Refused { step: "make the link", path: mount.to_owned(), message };
                    hands.link(group, mount_path).map_err(refused)
                }
                None => self.make_link(group, mount),
            },
            LinkState::Ours | LinkState::Occupied { .. } => Ok(()),
        }
    }

    /// The publication that the host shows; `None` where there is none, or where the view is not as we make it.
    pub fn current(&self, group: &GroupName) -> Result<Option<PublicationId>, PublishError> {
        let view = self.view_point(group).join(FILES);
        match std::fs::read_link(&view) {
            Ok(target) => Ok(shown_by(group, &target)),
            // EINVAL: not a link.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => Ok(None),
            Err(error) => Err(PublishError::new("read the link", &view, error)),
        }
    }

    /// What stands at a mount path.
    pub fn link_ok(&self, group: &GroupName, mount_path: &str) -> LinkState {
        match self.mount_path(mount_path) {
            Ok(mount) => self.link_state(group, mount),
            Err(error) => LinkState::Occupied { what: format!("no place for a link ({error})") },
        }
    }

    /// Removes the link at a mount path if it is ours; the view and the publications stay.
    pub fn unlink(&self, group: &GroupName, mount_path: &str) -> Result<(), PublishError> {
        let mount = self.mount_path(mount_path)?;
        if self.link_state(group, mount) != LinkState::Ours {
            return Ok(());
        }
        if let Some(hands) = &self.hands {
            let refused = |message| PublishError::Refused { step: "remove the link", path: mount.to_owned(), message };
            return hands.unlink(group, mount_path).map_err(refused);
        }
        self.disk.unlink(mount).map_err(|error| PublishError::new("remove the link", mount, error))?;
        self.sync_parent(mount)
    }

    /// Takes the link at the mount path away, where it is ours, and the view. Only when no service looks through it any
    /// more: the kernel also takes away what other namespaces have mounted over a folder that is removed.
    pub fn withdraw(&self, group: &GroupName, mount_path: &str) -> Result<(), PublishError> {
        self.unlink(group, mount_path)?;
        let view = self.view_point(group);
        let failed = |error| PublishError::new("remove the view", &view, error);
        self.remove("remove the view", group, &view)?;
        self.disk.sync_folder(&self.views()).map_err(failed)
    }

    fn turn_view(&self, group: &GroupName, id: PublicationId) -> Result<(), PublishError> {
        let view = self.view_point(group);
        self.ensure_group_dir(&self.views(), &view)?;
        let link = view.join(FILES);
        let failed = |error| PublishError::new("switch the view", &link, error);
        if std::fs::symlink_metadata(&link).is_ok_and(|found| !found.is_symlink()) {
            // Put there by hand. It is in our own folder, but it may hold somebody's work.
            return Err(PublishError::MountOccupied { path: link, what: "not a link".to_owned() });
        }
        let temporary = view.join(format!("{TEMPORARY}{FILES}"));
        self.disk.unlink(&temporary).map_err(failed)?;
        self.disk.symlink(&view_target(group, id), &temporary).map_err(failed)?;
        self.disk.rename(&temporary, &link).map_err(|error| {
            let _ = self.disk.unlink(&temporary);
            failed(error)
        })?;
        self.disk.sync_folder(&view).map_err(failed)
    }

    fn make_link(&self, group: &GroupName, mount: &Path) -> Result<(), PublishError> {
        let failed = |error| PublishError::new("make the link", mount, error);
        self.make_parents(mount)?;
        match self.disk.symlink(&self.link_target(group), mount) {
            Ok(()) => (),
            // Somebody was quicker; what they made decides.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match self.link_state(group, mount) {
                LinkState::Ours => (),
                LinkState::Occupied { what } => {
                    return Err(PublishError::MountOccupied { path: mount.to_path_buf(), what });
                }
                LinkState::Missing => return Err(failed(error)),
            },
            Err(error) => return Err(failed(error)),
        }
        self.sync_parent(mount)
    }

    fn make_parents(&self, mount: &Path) -> Result<(), PublishError> {
        let missing: Vec<&Path> = mount.ancestors().skip(1).take_while(|folder| !folder.exists()).collect();
        for folder in missing.into_iter().rev() {
            match self.disk.mkdir(folder, PARENT_MODE) {
                Ok(()) => self.sync_parent(folder)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => (),
                Err(error) => return Err(PublishError::new("make the folder", folder, error)),
            }
        }
        Ok(())
    }

    /// Brings a name to the disk. The folder may be reached through links (`/var/run`), so it is opened following them.
    fn sync_parent(&self, path: &Path) -> Result<(), PublishError> {
        let parent = path.parent().unwrap_or(path);
        let synced = std::fs::File::open(parent).and_then(|folder| self.disk.sync(folder));
        synced.map_err(|error| PublishError::new("sync", parent, error))
    }

    fn link_target(&self, group: &GroupName) -> PathBuf {
        self.view_point(group).join(FILES)
    }

    fn link_state(&self, group: &GroupName, mount: &Path) -> LinkState {
        let occupied = |what: &str| LinkState::Occupied { what: what.to_owned() };
        let found = match std::fs::symlink_metadata(mount) {
            Ok(found) => found.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return LinkState::Missing,
            // A component above it is a file.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return occupied("below a file"),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return occupied("out of reach of the supervisor's user, who must be able to pass through the folders above");
            }
            Err(error) => return occupied(&format!("out of reach ({error})")),
        };
        if found.is_dir() {
            return occupied("a folder");
        }
        if found.is_file() {
            return occupied("a file");
        }
        match std::fs::read_link(mount) {
            Ok(target) if self.leads_here(group, mount, &target) => LinkState::Ours,
            Ok(target) => occupied(&format!("a link to `{}`", target.display())),
            Err(_) => occupied("a special file"),
        }
    }

    /// Whether a link's target is this group's view, also when the data folder is reached by another name today.
    fn leads_here(&self, group: &GroupName, mount: &Path, target: &Path) -> bool {
        let ours = self.link_target(group);
        if target == ours {
            return true;
        }
        let point = mount.parent().unwrap_or(mount).join(target);
        let Some(above) = point.parent() else { return false };
        point.file_name() == ours.file_name() && above.canonicalize().is_ok_and(|above| Some(above.as_path()) == ours.parent())
    }

    fn mount_path<'a>(&self, path: &'a str) -> Result<&'a Path, PublishError> {
        let refuse = |rule| Err(PublishError::BadMountPath { path: path.to_owned(), rule });
        let mount = Path::new(path);
        if !mount.is_absolute() || path.contains('\0') {
            return refuse("it is not absolute");
        }
        let normal = mount.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
        let plain: PathBuf = mount.components().collect();
        if !normal || plain.as_os_str().as_bytes() != path.as_bytes() || mount.file_name().is_none() {
            return refuse("it is not a plain path to a name (`..`, `//`, a slash at the end)");
        }
        if ["publications", "view", "state"].iter().any(|ours| mount.starts_with(self.data_dir.join(ours))) {
            return refuse("it lies in a folder where Tagfall keeps its own data");
        }
        Ok(mount)
    }
}

/// Where the view's link leads, seen from `view/GROUP`.
fn view_target(group: &GroupName, id: PublicationId) -> PathBuf {
    Path::new("../../publications").join(group.to_string()).join(id.to_string()).join(FILES)
}

/// The publication that a data folder shows, for those who only look: makes nothing, removes nothing. `None` also where the
/// folder is out of reach.
pub fn shown_in(data_dir: &Path, group: &GroupName) -> Option<PublicationId> {
    let target = std::fs::read_link(data_dir.join("view").join(group.to_string()).join(FILES)).ok()?;
    shown_by(group, &target)
}

fn shown_by(group: &GroupName, target: &Path) -> Option<PublicationId> {
    let id = target.parent()?.file_name()?.to_str()?.parse().ok()?;
    (target == view_target(group, id)).then_some(id)
}
