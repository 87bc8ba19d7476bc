//! What is done on disk for a supervisor that may not do it itself: the host's links at mount paths, and whose group may read
//! what is published.
//!
//! Each request names a group and says no more than it must: where a link leads, and to which number a file goes, is worked out
//! here. All of it can be asked for again. What stands in the way stays.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, readlinkat, symlinkat, unlinkat};
use rustix::io::Errno;

use super::beneath::{below, folder, give, is_folder, parent, sync, walk};
use super::config::KeeperConfig;
use super::folders::inherit;
use super::wire::Request;
use crate::model::GroupName;
use crate::sys::process::user_by_name;

/// What stands at a mount path.
enum Found {
    Ours,
    Nothing,
    Other(String),
}

/// For whom it is done, and within which bounds.
pub(super) struct Work<'a> {
    pub(super) config: &'a KeeperConfig,
    /// The supervisor's user and group, where things can be given to it.
    pub(super) owner: Option<(u32, u32)>,
    /// The keeper's own user.
    pub(super) uid: u32,
}

impl Work<'_> {
    /// Does what is asked for; anything else is nobody's errand.
    pub(super) fn carry_out(&self, request: &Request) -> Result<(), String> {
        match request {
            Request::Link { group, path } => self.link(group, path),
            Request::Unlink { group, path } => self.unlink(group, path),
            Request::Readers { group, user } => self.readers(group, user),
            Request::Reclaim { group } => self.reclaim(group),
            Request::Run(_)
            | Request::Amend { .. }
            | Request::Stop { .. }
            | Request::Restart { .. }
            | Request::Signal { .. }
            | Request::Reload { .. }
            | Request::MarkReady { .. }
            | Request::Forget { .. }
            | Request::Exec(_)
            | Request::Serving
            | Request::Finished => Err("this is no errand".to_owned()),
        }
    }

    /// Makes the host's link to a group's view. There already is as good.
    pub(super) fn link(&self, group: &GroupName, path: &str) -> Result<(), String> {
        self.config.grants.check_mount(path, &self.config.data_dir)?;
        let failed = |error: io::Error| format!("the link at `{path}` cannot be made: {}", explain(&error));
        let target = self.link_target(group).map_err(failed)?;
        let (at, name) = parent(Path::new(path), true).map_err(failed)?;
        match symlinkat(&target, &at, &name) {
            Ok(()) => {}
            Err(Errno::EXIST) => match look(&at, &name, &target).map_err(failed)? {
                Found::Ours => {}
                Found::Nothing => return Err(failed(Errno::EXIST.into())),
                Found::Other(what) => return Err(format!("`{path}` is {what}, which Tagfall did not make and leaves as it is")),
            },
            Err(error) => return Err(failed(error.into())),
        }
        sync(&at).map_err(failed)
    }

    /// Takes the host's link away, where it is this group's; anything else stays. It may stand where none may be made any more.
    pub(super) fn unlink(&self, group: &GroupName, path: &str) -> Result<(), String> {
        let failed = |error: io::Error| format!("the link at `{path}` cannot be removed: {}", explain(&error));
        let target = self.link_target(group).map_err(failed)?;
        let (at, name) = match parent(Path::new(path), false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(failed)?,
        };
        if !matches!(look(&at, &name, &target).map_err(failed)?, Found::Ours) {
            return Ok(());
        }
        match unlinkat(&at, &name, AtFlags::empty()) {
            Ok(()) => sync(&at).map_err(failed),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Gives the folder of a group's publications to the group of a user, which everything that is made in it inherits.
    pub(super) fn readers(&self, group: &GroupName, user: &str) -> Result<(), String> {
        self.config.grants.check_user(Some(user))?;
        let failed = |error: io::Error| {
            format!("what is published for `{group}` cannot be given to the group of user `{user}`: {}", explain(&error))
        };
        let name = std::ffi::CString::new(user).map_err(|_| format!("`{}` is no user's name", user.escape_debug()))?;
        let found = user_by_name(&name).map_err(failed)?;
        let gid = found.ok_or_else(|| format!("user `{user}` does not exist on this host"))?.gid;
        let published = self.published(group).map_err(failed)?;
        self.check_supervisors(&published).map_err(failed)?;
        inherit(&published, gid).map_err(failed)
    }

    /// Gives folders that another user made among what is published to the supervisor. Only folders: what is in a file stays
    /// whose it is, and can be removed by whoever has the folder.
    pub(super) fn reclaim(&self, group: &GroupName) -> Result<(), String> {
        let failed =
            |error: io::Error| format!("what others made among the publications of `{group}` stays: {}", explain(&error));
        let Some((uid, gid)) = self.owner else { return Ok(()) };
        let published = match self.published(group) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(failed)?,
        };
        self.check_supervisors(&published).map_err(failed)?;
        let reclaimed = walk(&published, &mut |found, stat| {
            if is_folder(stat) && stat.st_uid != uid { give(found, Some(uid), Some(gid)) } else { Ok(()) }
        });
        reclaimed.map_err(failed)
    }

    /// The folder of a group's publications.
    fn published(&self, group: &GroupName) -> io::Result<OwnedFd> {
        below(folder(&self.config.data_dir)?, ["publications", &group.to_string()])
    }

    /// Nothing that is not the supervisor's is given away.
    fn check_supervisors(&self, found: &OwnedFd) -> io::Result<()> {
        let owner = self.owner.map_or(self.uid, |(uid, _)| uid);
        if rustix::fs::fstat(found)?.st_uid == owner { Ok(()) } else { Err(Errno::PERM.into()) }
    }

    /// Where the links of a group lead.
    fn link_target(&self, group: &GroupName) -> io::Result<PathBuf> {
        Ok(self.config.data_dir.canonicalize()?.join("view").join(group.to_string()).join("files"))
    }
}

/// What stands there, without following it.
fn look(at: &OwnedFd, name: &OsString, target: &Path) -> io::Result<Found> {
    let other = |what: &str| Ok(Found::Other(what.to_owned()));
    let found = match openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        found => found?,
    };
    match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
        FileType::Symlink => {}
        FileType::Directory => return other("a folder"),
        FileType::RegularFile => return other("a file"),
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
            return other("a special file");
        }
    }
    let leads = readlinkat(found.as_fd(), "", Vec::new())?;
    let leads = Path::new(std::ffi::OsStr::from_bytes(leads.to_bytes()));
    // The data folder may have been reached by another name when the link was made.
    let split = |path: &Path| -> Option<(PathBuf, OsString, OsString)> {
        let view = path.parent()?;
        Some((view.parent()?.to_owned(), view.file_name()?.to_owned(), path.file_name()?.to_owned()))
    };
    let same = |(views, group, files): (PathBuf, OsString, OsString)| {
        let views = views.canonicalize().ok()?;
        Some(split(target)? == (views, group, files))
    };
    let same = leads.is_absolute() && split(leads).and_then(same) == Some(true);
    if leads == target || same { Ok(Found::Ours) } else { other(&format!("a link to `{}`", leads.display())) }
}

/// An error with what it means on the way to a place.
fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ELOOP) => "a link on the way there is none of root's, so it is not followed".to_owned(),
        Some(libc::ENOTDIR) => "something on the way there is no folder".to_owned(),
        _ => error.to_string(),
    }
}
