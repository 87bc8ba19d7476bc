//! Who owns which part of the data folder: the keeper what decides over services, the supervisor what it writes.
//!
//! The data folder itself and the keeper's parts are root's where the keeper is: no supervisor can rename, replace or read
//! them. The supervisor's parts are made here, and change their owner when the supervisor runs as another user than before: by
//! descriptor, never through a link, and only what belonged to the one before. To add a part: a row in [`PARTS`].

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod, fstat};
use rustix::io::Errno;

use super::beneath::{below, folder, give, is_folder, make_folder, open, parent, walk};

/// Where a supervisor listens whom root started and nobody told otherwise: always its own.
const SOCKET_FOLDER: &str = "/run/tagfall";

const SET_GID: u32 = 0o2000;

/// Whose a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Written by the supervisor.
    Supervisors,
    /// Written by the operator, read by the supervisor.
    Operators,
    /// Written by the keeper, read by the supervisor by way of its group, which everything in it inherits.
    Read,
}

/// Parts that the supervisor uses, with the modes of new ones.
const PARTS: [(&str, u32, Whose); 8] = [
    ("git", 0o700, Whose::Supervisors),
    ("publications", 0o711, Whose::Supervisors),
    ("view", 0o711, Whose::Supervisors),
    ("state", 0o700, Whose::Supervisors),
    ("containers", 0o700, Whose::Supervisors),
    ("hooks", 0o700, Whose::Supervisors),
    ("user", 0o755, Whose::Operators),
    ("logs", 0o750, Whose::Read),
];

/// Parts that nobody but the keeper may have a hand in.
const OWN: [&str; 5] = ["keeper", "run", "var", "logs", "lock"];

/// Parts of a data folder that a supervisor writes: what its fence leaves open.
pub(super) fn written(data_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let written = PARTS.iter().filter(|(_, _, whose)| *whose == Whose::Supervisors);
    written.map(|(name, ..)| data_dir.join(name))
}

/// What could not be done to which part.
fn failed(data_dir: &Path, name: &str) -> impl Fn(io::Error) -> String {
    let path = data_dir.join(name).display().to_string();
    move |error| format!("`{path}` cannot be made ready for the supervisor: {error}")
}

/// Refuses a data folder in which another user has kept services: its records would be followed with root's rights.
pub(super) fn check_own(data_dir: &Path) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    use std::os::unix::fs::MetadataExt as _;
    for name in OWN {
        let path = data_dir.join(name);
        if let Some(found) = std::fs::symlink_metadata(&path).ok().filter(|found| found.uid() != 0) {
            return Err(format!(
                "`{}` belongs to user {}, who kept services here before, and root follows nobody else's records: stop that one, then \
                 give the folder to root (`chown -R root:root`) if you trust what is in it, or name another `data_dir`",
                path.display(),
                found.uid()
            ));
        }
    }
    Ok(())
}

/// Makes what is missing. `owner` is the supervisor's user and group where this keeper gives things to others, and so also
/// takes back what an earlier run left to somebody else.
pub(super) fn settle(data_dir: &Path, owner: Option<(u32, u32)>) -> Result<(), String> {
    let root = folder(data_dir).map_err(failed(data_dir, ""))?;
    if owner.is_some() {
        guard(&root).map_err(failed(data_dir, ""))?;
    }
    for (name, mode, whose) in PARTS {
        let part = (|| {
            make_folder(&root, OsStr::new(name), mode)?;
            let part = below(&root, [name])?;
            match (owner, whose) {
                (Some(owner), Whose::Supervisors) => hand_over(&part, owner),
                (Some((_, gid)), Whose::Read) => let_read(&part, gid),
                (Some(_), Whose::Operators) | (None, _) => Ok(()),
            }
        })();
        part.map_err(failed(data_dir, name))?;
    }
    Ok(())
}

/// The data folder is root's, others pass through it, and nobody else makes or renames anything in it.
fn guard(root: &OwnedFd) -> io::Result<()> {
    let stat = fstat(root)?;
    if stat.st_uid != 0 {
        give(root, Some(0), Some(0))?;
    }
    let mode = stat.st_mode & 0o7777;
    let wanted = (mode | 0o711) & !0o022;
    if mode == wanted { Ok(()) } else { Ok(fchmod(root, Mode::from_raw_mode(wanted))?) }
}

/// Gives a part to the supervisor's user, with all in it that belongs to whom the part belonged. The part itself comes last:
/// cut off in between, this begins anew.
fn hand_over(part: &OwnedFd, (uid, gid): (u32, u32)) -> io::Result<()> {
    let before = fstat(part)?.st_uid;
    if before == uid {
        return Ok(());
    }
    walk(part, &mut |found, stat| {
        // A file with a second name may be anybody's; the group is what lets services read, and stays.
        let plain = is_folder(stat) || stat.st_nlink == 1;
        if stat.st_uid == before && plain { give(found, Some(uid), None) } else { Ok(()) }
    })?;
    give(part, Some(uid), Some(gid))
}

/// Lets a group read what is here, and what will be.
fn let_read(part: &OwnedFd, gid: u32) -> io::Result<()> {
    let stat = fstat(part)?;
    if stat.st_gid == gid && stat.st_mode & SET_GID != 0 {
        return Ok(());
    }
    walk(part, &mut |found, stat| {
        if is_folder(stat) {
            inherit(found, gid)
        } else if stat.st_nlink == 1 {
            give(found, None, Some(gid))
        } else {
            Ok(())
        }
    })?;
    inherit(part, gid)
}

/// Gives a folder to a group, and with it all that will be made in it.
pub(super) fn inherit(found: impl AsFd, gid: u32) -> io::Result<()> {
    let found = open(found)?;
    give(&found, None, Some(gid))?;
    let mode = fstat(&found)?.st_mode & 0o7777;
    fchmod(&found, Mode::from_raw_mode(mode | SET_GID))?;
    // Without CAP_FSETID the kernel takes the bit off again, and says nothing.
    if fstat(&found)?.st_mode & SET_GID == 0 { Err(Errno::PERM.into()) } else { Ok(()) }
}

/// Makes the folder of the supervisor's socket where it is missing, and gives it to its user: one that was there stays as it is.
pub(super) fn make_socket_folder(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    let (at, name) = parent(path, true)?;
    let made = make_folder(&at, &name, 0o755)?;
    let Some((uid, gid)) = owner else { return Ok(()) };
    if !made && path != Path::new(SOCKET_FOLDER) {
        return Ok(());
    }
    let found = below(&at, [&name])?;
    if fstat(&found)?.st_uid == 0 { give(&found, Some(uid), Some(gid)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

    const ONE: (u32, u32) = (60_001, 60_002);
    const OTHER: (u32, u32) = (60_003, 60_004);

    fn ids(path: &Path) -> (u32, u32) {
        let found = std::fs::symlink_metadata(path).unwrap();
        (found.uid(), found.gid())
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn every_part_has_its_owner_and_the_rest_is_the_keepers() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o777)).unwrap();
        settle(&data, Some(ONE)).unwrap();
        assert_eq!((ids(&data), mode(&data)), ((0, 0), 0o755));
        for part in written(&data) {
            assert_eq!(ids(&part), ONE, "{}", part.display());
        }
        assert_eq!(ids(&data.join("user")), (0, 0));
        assert_eq!((ids(&data.join("logs")), mode(&data.join("logs"))), ((0, ONE.1), 0o2750));
        std::fs::create_dir(data.join("logs/web")).unwrap();
        assert_eq!(ids(&data.join("logs/web")), (0, ONE.1));
        check_own(&data).unwrap();
        std::fs::create_dir(data.join("keeper")).unwrap();
        chown(data.join("keeper"), Some(ONE.0), None).unwrap();
        assert!(check_own(&data).unwrap_err().contains("chown -R root:root"));
    }

    #[test]
    fn what_an_earlier_run_left_changes_its_owner_and_nothing_else_does() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (data, outside) = (dir.path().join("data"), dir.path().join("outside"));
        std::fs::create_dir_all(data.join("git/objects/pack")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        let (file, strange, twice) = (data.join("git/objects/pack/a"), data.join("git/strange"), data.join("git/twice"));
        for path in [&file, &strange, &twice, &outside.join("secret")] {
            std::fs::write(path, "").unwrap();
        }
        chown(&file, None, Some(60_099)).unwrap();
        chown(&strange, Some(OTHER.0), None).unwrap();
        std::fs::hard_link(&twice, outside.join("same")).unwrap();
        symlink(&outside, data.join("git/away")).unwrap();
        settle(&data, Some(ONE)).unwrap();
        assert_eq!((ids(&data.join("git")), ids(&data.join("git/objects/pack"))), (ONE, (ONE.0, 0)));
        assert_eq!(ids(&file), (ONE.0, 60_099), "its group is for readers, and stays");
        assert_eq!((ids(&strange), ids(&twice)), ((OTHER.0, 0), (0, 0)), "another's, and one with two names");
        assert_eq!((ids(&outside), ids(&outside.join("secret"))), ((0, 0), (0, 0)), "what a link leads to");
        settle(&data, Some(OTHER)).unwrap();
        assert_eq!((ids(&data.join("git")), ids(&file)), (OTHER, (OTHER.0, 60_099)));
        settle(&data, Some((0, 0))).unwrap();
        assert_eq!((ids(&data.join("git")), ids(&file)), ((0, 0), (0, 60_099)));
        // A link in the place of a part is not followed.
        std::fs::remove_dir_all(data.join("state")).unwrap();
        symlink(&outside, data.join("state")).unwrap();
        assert!(settle(&data, Some(ONE)).unwrap_err().contains("state"));
        assert_eq!(ids(&outside), (0, 0));
    }

    #[test]
    fn only_a_folder_that_was_missing_is_given_away() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        make_socket_folder(&dir.path().join("a/run"), Some(ONE)).unwrap();
        assert_eq!((ids(&dir.path().join("a")), ids(&dir.path().join("a/run"))), ((0, 0), ONE));
        make_socket_folder(dir.path(), Some(ONE)).unwrap();
        assert_eq!(ids(dir.path()), (0, 0));
    }
}
