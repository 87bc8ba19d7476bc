//! Paths on which somebody else may have a hand: opened one name at a time, by descriptors, so that what is looked at is what
//! is changed and no link leads to anywhere else.
//!
//! To open something new of the data folder: [`folder`] for its path, then [`below`]. Never a path of a message as a whole.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;

/// Links that are followed on the way to one place, as the kernel does.
const LINKS_MAX: usize = 40;

/// Folders within folders that are gone through.
const DEPTH_MAX: u32 = 64;

/// Mode of folders that are made above a mount path or a socket.
const PARENT_MODE: u32 = 0o755;

const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a folder that the operator chose, through links of the operator's.
pub(super) fn folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Finds a folder below another one, through no link at all.
pub(super) fn below<N: AsRef<OsStr>>(root: impl AsFd, names: impl IntoIterator<Item = N>) -> io::Result<OwnedFd> {
    let mut at = openat(root, ".", LOOK, Mode::empty())?;
    for name in names {
        let name = name.as_ref();
        if name == ".." || name.as_encoded_bytes().contains(&b'/') {
            return Err(Errno::INVAL.into());
        }
        at = openat(&at, name, LOOK | OFlags::DIRECTORY, Mode::empty())?;
    }
    Ok(at)
}

/// Opens a folder that was found, to list it, to change its mode or to bring it to the disk.
pub(super) fn open(found: impl AsFd) -> io::Result<OwnedFd> {
    Ok(openat(found, ".", READ, Mode::empty())?)
}

/// Opens the folder in which a path's last name is, and gives that name. A link on the way is followed only where root made it
/// (or this process's own user); what is missing is made where `make` says so, and brought to the disk.
pub(super) fn parent(path: &Path, make: bool) -> io::Result<(OwnedFd, OsString)> {
    let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
    let mut rest: VecDeque<OsString> = path.parent().map(names_of).unwrap_or_default();
    let mut at = folder(Path::new("/"))?;
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        let found = match openat(&at, &name, LOOK, Mode::empty()) {
            Err(Errno::NOENT) if make => {
                make_folder(&at, &name, PARENT_MODE)?;
                openat(&at, &name, LOOK, Mode::empty())?
            }
            other => other?,
        };
        let stat = fstat(&found)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => at = found,
            FileType::Symlink => {
                links += 1;
                if links > LINKS_MAX || !is_trusted(&stat) {
                    return Err(Errno::LOOP.into());
                }
                let target = OsString::from_vec(readlinkat(&found, "", Vec::new())?.into_bytes());
                if Path::new(&target).is_absolute() {
                    at = folder(Path::new("/"))?;
                }
                for name in names_of(Path::new(&target)).into_iter().rev() {
                    rest.push_front(name);
                }
            }
            FileType::RegularFile
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Err(Errno::NOTDIR.into()),
        }
    }
    Ok((at, name))
}

fn names_of(path: &Path) -> VecDeque<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

/// Whether nobody but root, or this process's own user, can have made it.
fn is_trusted(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw()
}

/// Makes a folder with exactly this mode, durably. Somebody who was quicker is as good.
pub(super) fn make_folder(at: impl AsFd, name: &OsStr, mode: u32) -> io::Result<bool> {
    let before = rustix::process::umask(Mode::empty());
    let made = mkdirat(&at, name, Mode::from_raw_mode(mode));
    rustix::process::umask(before);
    match made {
        Ok(()) => sync(&at).map(|()| true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Brings a folder's entries to the disk.
pub(super) fn sync(at: impl AsFd) -> io::Result<()> {
    match rustix::fs::fsync(open(at)?) {
        // A file system that has nothing to bring anywhere.
        Err(Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

/// Goes through all below a folder of one file system, what is within a folder before the folder itself. Each is given as it
/// was found, with a descriptor that means it and nothing else.
pub(super) fn walk(root: impl AsFd, each: &mut dyn FnMut(BorrowedFd<'_>, &Stat) -> io::Result<()>) -> io::Result<()> {
    let root = open(root)?;
    let device = fstat(&root)?.st_dev;
    let mut visit = |found: BorrowedFd<'_>, stat: &Stat| if stat.st_dev == device { each(found, stat) } else { Ok(()) };
    walk_one(root.as_fd(), device, 0, &mut visit)
}

fn walk_one(
    at: BorrowedFd<'_>,
    device: u64,
    depth: u32,
    each: &mut dyn FnMut(BorrowedFd<'_>, &Stat) -> io::Result<()>,
) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(Errno::LOOP.into());
    }
    for entry in Dir::read_from(at)? {
        let entry = entry?;
        if [&b"."[..], b".."].contains(&entry.file_name().to_bytes()) {
            continue;
        }
        let found = match openat(at, entry.file_name(), LOOK, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let stat = fstat(&found)?;
        if is_folder(&stat) && stat.st_dev == device {
            walk_one(open(&found)?.as_fd(), device, depth + 1, each)?;
        }
        each(found.as_fd(), &stat)?;
    }
    Ok(())
}

/// Whether it is a folder.
pub(super) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Gives what a descriptor means, be it a link, to another owner.
pub(super) fn give(found: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let (uid, gid) = (uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw));
    Ok(rustix::fs::chownat(found, "", uid, gid, AtFlags::EMPTY_PATH)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_below_is_reached_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        symlink("b", dir.path().join("a/inner")).unwrap();
        let root = folder(dir.path()).unwrap();
        below(&root, ["a", "b"]).unwrap();
        for bad in [&["link"][..], &["link", "b"], &["a", "inner"], &[".."], &["a", ".."], &["a/b"], &["none"]] {
            assert!(below(&root, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_parent_is_found_through_links_of_ones_own_and_made() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("real/deep")).unwrap();
        symlink("real/../real", dir.join("way")).unwrap();
        symlink(dir.join("way/deep"), dir.join("far")).unwrap();
        symlink("round", dir.join("round")).unwrap();
        let (at, name) = parent(&dir.join("far/new/name"), true).unwrap();
        assert_eq!(name, "name");
        std::fs::write(dir.join("real/deep/new/file"), "").unwrap();
        openat(&at, "file", LOOK, Mode::empty()).unwrap();
        assert!(parent(&dir.join("round/x"), true).is_err());
        assert!(parent(&dir.join("none/x"), false).is_err());
        assert!(parent(&dir.join("real/deep/new/file/x"), true).is_err());
    }

    #[test]
    fn a_link_that_a_stranger_made_is_not_followed() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        parent(&dir.path().join("link/x"), false).unwrap();
        std::os::unix::fs::lchown(dir.path().join("link"), Some(65_534), None).unwrap();
        assert_eq!(parent(&dir.path().join("link/x"), true).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn everything_is_gone_through_from_the_inside_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/file"), "").unwrap();
        symlink("/etc", dir.path().join("a/link")).unwrap();
        let mut kinds = Vec::new();
        walk(folder(dir.path()).unwrap(), &mut |_, stat| {
            kinds.push(FileType::from_raw_mode(stat.st_mode));
            Ok(())
        })
        .unwrap();
        assert_eq!(kinds.iter().filter(|kind| **kind == FileType::Directory).count(), 2);
        assert_eq!((kinds.len(), kinds.last()), (4, Some(&FileType::Directory)));
    }
}
