//! Every call of this room that changes a disk, in one place, so that a test can cut the work off after each of them.
//!
//! It decides nothing. A new kind of change is a new method here that begins with `step`.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The disk, or in tests one that stops taking changes after so many.
#[derive(Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    cut: Cut,
}

/// Stands for a SIGKILL: after `left` changes nothing is changed any more, clean-up included.
#[cfg(test)]
#[derive(Debug)]
struct Cut {
    left: std::sync::atomic::AtomicI64,
    done: std::sync::atomic::AtomicI64,
}

#[cfg(test)]
impl Default for Cut {
    fn default() -> Self {
        Self { left: i64::MAX.into(), done: 0.into() }
    }
}

#[cfg(test)]
impl Disk {
    /// Allows so many more changes.
    pub(super) fn cut_after(&self, steps: i64) {
        self.cut.left.store(steps, std::sync::atomic::Ordering::SeqCst);
    }

    /// How many changes were made so far.
    pub(super) fn steps(&self) -> i64 {
        self.cut.done.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Disk {
    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests count and cut here")]
    fn step(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        use std::sync::atomic::Ordering::SeqCst;
        if self.cut.left.fetch_sub(1, SeqCst) <= 0 {
            return Err(io::Error::other("cut off by the test"));
        }
        self.cut.done.fetch_add(1, SeqCst);
        Ok(())
    }

    /// Makes one folder with exactly this mode, whatever the umask.
    pub(super) fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.step()?;
        rustix::fs::mkdir(path, Mode::from_raw_mode(mode))?;
        self.chmod(path, mode)
    }

    /// Makes a folder that is sealed later. Its mode is left as the kernel makes it: what it inherits of its folder would be lost.
    pub(super) fn mkdir_own(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        Ok(rustix::fs::mkdir(path, Mode::RWXU)?)
    }

    /// Sets a mode; the path must not be a link.
    pub(super) fn chmod(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.step()?;
        Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
    }

    /// Makes a folder below `root`, writable until it is sealed.
    pub(super) fn mkdir_beneath(&self, root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
        let (parent, name) = parent_beneath(root, path)?;
        self.step()?;
        Ok(rustix::fs::mkdirat(&parent, name, Mode::RWXU)?)
    }

    /// Makes a file below `root`; it is an error where something has that name.
    pub(super) fn create_beneath(&self, root: BorrowedFd<'_>, path: &str) -> io::Result<File> {
        self.step()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open_beneath(root, path, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    }

    /// Writes all of it.
    pub(super) fn write_all(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        file.write_all(bytes)
    }

    /// Gives a file or folder its final group and mode.
    pub(super) fn seal(&self, fd: impl AsFd, gid: Option<u32>, mode: u32) -> io::Result<()> {
        if let Some(gid) = gid
            && rustix::fs::fstat(&fd)?.st_gid != gid
        {
            self.step()?;
            rustix::fs::fchown(&fd, None, Some(Gid::from_raw(gid)))?;
        }
        self.step()?;
        Ok(rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?)
    }

    /// Brings one file or folder to the disk.
    pub(super) fn sync(&self, fd: impl AsFd) -> io::Result<()> {
        self.step()?;
        Ok(rustix::fs::fsync(fd)?)
    }

    /// Brings the whole file system to the disk.
    pub(super) fn sync_all(&self, fd: impl AsFd) -> io::Result<()> {
        self.step()?;
        Ok(rustix::fs::syncfs(fd)?)
    }

    /// Brings a folder's entries to the disk.
    pub(super) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.sync(open_folder(path)?)
    }

    /// rename(2).
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        Ok(rustix::fs::rename(from, to)?)
    }

    /// symlink(2): fails where something has that name.
    pub(super) fn symlink(&self, target: &Path, path: &Path) -> io::Result<()> {
        self.step()?;
        Ok(rustix::fs::symlink(target, path)?)
    }

    /// unlink(2); gone already is as good.
    pub(super) fn unlink(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        gone_is_fine(rustix::fs::unlink(path).map_err(io::Error::from))
    }

    /// rmdir(2); gone already is as good.
    pub(super) fn rmdir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        gone_is_fine(rustix::fs::rmdir(path).map_err(io::Error::from))
    }

    /// Removes a folder and all below it, never through a link; sealed folders are opened first (without root they could
    /// not be emptied).
    pub(super) fn remove_tree(&self, path: &Path) -> io::Result<()> {
        let kind = match std::fs::symlink_metadata(path) {
            Ok(found) => found.file_type(),
            Err(error) => return gone_is_fine(Err(error)),
        };
        if !kind.is_dir() {
            return self.unlink(path);
        }
        self.chmod(path, 0o700)?;
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.remove_tree(&entry.path())?;
            } else {
                self.unlink(&entry.path())?;
            }
        }
        self.rmdir(path)
    }
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Opens a folder itself, never through a link in its last component.
pub(super) fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens a folder below `root`, for reading its entries, sealing and syncing.
pub(super) fn folder_beneath(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open_beneath(root, path, flags, Mode::empty())
}

/// Opens a path that can neither leave `root` nor pass a symbolic link: the kernel sees to it.
pub(super) fn open_beneath(root: BorrowedFd<'_>, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    match rustix::fs::openat2(root, path, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOSYS) => walk_beneath(root, path, flags, mode),
        other => Ok(other?),
    }
}

/// The same where there is no openat2(2) (gVisor, old seccomp profiles): one component at a time.
fn walk_beneath(root: BorrowedFd<'_>, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    if path == "." {
        return Ok(rustix::fs::openat(root, ".", flags | OFlags::NOFOLLOW, mode)?);
    }
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut at: Option<OwnedFd> = None;
    for part in parents.split('/').chain([name]).filter(|part| !part.is_empty()) {
        if part == ".." {
            return Err(Errno::XDEV.into());
        }
    }
    for part in parents.split('/').filter(|part| !part.is_empty()) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = rustix::fs::openat(at.as_ref().map_or(root, |fd| fd.as_fd()), part, flags, Mode::empty())?;
        at = Some(next);
    }
    Ok(rustix::fs::openat(at.as_ref().map_or(root, |fd| fd.as_fd()), name, flags | OFlags::NOFOLLOW, mode)?)
}

fn parent_beneath<'a>(root: BorrowedFd<'_>, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    Ok((open_beneath(root, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Open = fn(BorrowedFd<'_>, &str, OFlags, Mode) -> io::Result<OwnedFd>;

    /// Both ways of opening keep the same promise.
    #[test]
    fn no_path_leaves_the_root_or_passes_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/b/fine"), "x").unwrap();
        std::fs::write(dir.path().join("outside"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("out")).unwrap();
        std::os::unix::fs::symlink("b", root.join("a/in")).unwrap();
        std::os::unix::fs::symlink("b/fine", root.join("a/last")).unwrap();
        let root = open_folder(&root).unwrap();
        for open in [open_beneath as Open, walk_beneath as Open] {
            let read = |path| open(root.as_fd(), path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            read("a/b/fine").unwrap();
            read(".").unwrap();
            for bad in ["../outside", "a/../../outside", "out/outside", "a/in/fine", "a/last", ".."] {
                assert!(read(bad).is_err(), "{bad} was opened");
            }
        }
    }
}
