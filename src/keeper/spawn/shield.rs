//! What `hardening = "strict"` changes in what a process sees: a read-only system with private temporary folders, no homes,
//! few devices, only its own processes, and no settings of the kernel.
//!
//! Made in the child, in its own mount namespace, with the publication already in place. What of it cannot be had on this
//! host is found out once, by trying ([`missing`]), and said by name. To add a piece: a variant of [`Piece`], its words and
//! its function.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, mount_bind, move_mount, open_tree};

use crate::keeper::mounts::own_namespace;
use crate::sys::fork::OneThread;
use crate::sys::mounts::{mount_read_only, mount_writable};

/// One thing that is done; the number is its bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::keeper) enum Piece {
    Temporary,
    Homes,
    Processes,
    Devices,
    Settings,
    System,
}

impl Piece {
    pub(in crate::keeper) const ALL: [Self; 6] =
        [Self::Temporary, Self::Homes, Self::Processes, Self::Devices, Self::Settings, Self::System];

    fn bit(self) -> u8 {
        1 << (self as u8)
    }

    /// For people.
    pub(in crate::keeper) fn words(self) -> &'static str {
        match self {
            Self::Temporary => "private /tmp",
            Self::Homes => "hidden homes",
            Self::Processes => "hidden processes",
            Self::Devices => "few devices",
            Self::Settings => "read-only kernel settings",
            Self::System => "read-only system",
        }
    }
}

/// Pieces that cannot be had, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::keeper) struct Missing(u8);

impl Missing {
    pub(in crate::keeper) fn all() -> Self {
        Self(Piece::ALL.iter().fold(0, |bits, piece| bits | piece.bit()))
    }

    pub(in crate::keeper) fn has(self, piece: Piece) -> bool {
        self.0 & piece.bit() != 0
    }

    pub(in crate::keeper) fn pieces(self) -> impl Iterator<Item = Piece> {
        Piece::ALL.into_iter().filter(move |piece| self.has(*piece))
    }
}

/// Folders that are replaced by empty ones, and whether they may be written.
const EMPTIED: [(&str, Piece); 5] = [
    ("/tmp", Piece::Temporary),
    ("/var/tmp", Piece::Temporary),
    ("/home", Piece::Homes),
    ("/root", Piece::Homes),
    ("/run/user", Piece::Homes),
];

/// Devices that stay.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// What usually leads from /dev to elsewhere.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Settings of the kernel that may be read.
const SETTINGS: [&str; 6] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi"];

/// What of /proc is nobody's business.
const SECRETS: [&str; 3] = ["/proc/kcore", "/proc/kallsyms", "/proc/kmsg"];

/// What a process keeps.
#[derive(Debug, Clone, Default)]
pub(super) struct Shield {
    /// Folders that it may write.
    pub(super) writable: Vec<String>,
    /// What it must see even where it lies in a folder that is emptied.
    pub(super) shown: Vec<PathBuf>,
    pub(super) missing: Missing,
}

impl Shield {
    /// Does all that can be had here. The namespace is the process's own by now.
    pub(super) fn raise(&self) -> io::Result<()> {
        let kept = self.keep()?;
        for piece in Piece::ALL.into_iter().filter(|piece| !self.missing.has(*piece)) {
            if piece == Piece::System {
                // Places for what is kept are made before nothing can be made any more.
                put_back(&kept)?;
            }
            self.apply(piece)?;
        }
        if self.missing.has(Piece::System) {
            put_back(&kept)?;
        }
        Ok(())
    }

    fn apply(&self, piece: Piece) -> io::Result<()> {
        match piece {
            Piece::Temporary | Piece::Homes => empty_folders(piece),
            Piece::Processes => own_processes(),
            Piece::Devices => few_devices(),
            Piece::Settings => protect_settings(),
            Piece::System => self.protect_system(),
        }
    }

    /// Takes hold of what lies in a folder that is about to be emptied, and of what stays writable.
    fn keep(&self) -> io::Result<Vec<(PathBuf, OwnedFd)>> {
        let writable = self.writable.iter().map(PathBuf::from);
        let emptied = |path: &Path| EMPTIED.iter().any(|(folder, piece)| path.starts_with(folder) && !self.missing.has(*piece));
        let shown = self.shown.iter().filter(|path| emptied(path)).cloned();
        let mut kept = Vec::new();
        for path in writable.chain(shown) {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
            match open_tree(CWD, &path, flags) {
                Ok(tree) => kept.push((path, tree)),
                // What is not there is missed, and named, by whoever needs it.
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(kept)
    }

    fn protect_system(&self) -> io::Result<()> {
        mount_read_only(place("/")?.as_fd())?;
        let mut writable: Vec<&str> = self.writable.iter().map(String::as_str).collect();
        // Its own; and what only has devices and processes behind it.
        writable.extend(["/proc", "/dev/pts", "/dev/shm"]);
        if !self.missing.has(Piece::Temporary) {
            writable.extend(["/tmp", "/var/tmp"]);
        }
        for path in writable {
            match place(path).map(|place| mount_writable(place.as_fd())) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // No mount of its own: a part of the system, like the rest.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EINVAL) => {}
                Ok(done) => done?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn place(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Attaches what is kept where it was, in empty folders if need be.
fn put_back(kept: &[(PathBuf, OwnedFd)]) -> io::Result<()> {
    for (path, tree) in kept {
        if !path.exists() {
            let is_folder = rustix::fs::fstat(tree).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR);
            std::fs::create_dir_all(if is_folder { path } else { path.parent().unwrap_or(path) })?;
            if !is_folder {
                std::fs::File::create(path)?;
            }
        }
        move_mount(tree, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    Ok(())
}

fn memory(path: &str, flags: MountFlags, options: &std::ffi::CStr) -> io::Result<()> {
    Ok(mount("tmpfs", path, "tmpfs", flags, options)?)
}

fn is_folder(path: &str) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn empty_folders(of: Piece) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    for (path, _) in EMPTIED.iter().filter(|(path, piece)| *piece == of && is_folder(path)) {
        let options = if of == Piece::Temporary { c"mode=1777" } else { c"mode=0755,size=1m" };
        memory(path, flags, options)?;
    }
    Ok(())
}

fn own_processes() -> io::Result<()> {
    // Nothing is hidden from the group that is named here, which is root's by default; nobody is in this one.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("proc", "/proc", "proc", flags, c"hidepid=invisible,gid=4294967294")?)
}

fn few_devices() -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mut nodes = Vec::new();
    for name in DEVICES {
        match open_tree(CWD, format!("/dev/{name}"), flags) {
            Ok(node) => nodes.push((name, node)),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    memory("/dev", quiet | MountFlags::NODEV, c"mode=0755,size=1m")?;
    for (name, node) in nodes {
        let path = format!("/dev/{name}");
        std::fs::File::create(&path)?;
        move_mount(&node, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    }
    for (name, target) in DEVICE_LINKS {
        std::os::unix::fs::symlink(target, format!("/dev/{name}"))?;
    }
    for folder in ["/dev/shm", "/dev/pts"] {
        std::fs::create_dir(folder)?;
    }
    memory("/dev/shm", quiet | MountFlags::NODEV, c"mode=1777")?;
    Ok(mount("devpts", "/dev/pts", "devpts", quiet, c"newinstance,ptmxmode=0666,mode=0620")?)
}

fn protect_settings() -> io::Result<()> {
    for path in SETTINGS.into_iter().filter(|path| Path::new(path).exists()) {
        mount_bind(path, path)?;
        mount_read_only(place(path)?.as_fd())?;
    }
    for path in SECRETS.into_iter().filter(|path| Path::new(path).exists()) {
        mount_bind("/dev/null", path)?;
    }
    Ok(())
}

/// Finds out, in a child, which pieces cannot be had here.
pub(in crate::keeper) fn missing(one_thread: &OneThread) -> Missing {
    let attempt = || {
        if own_namespace().is_err() {
            return i32::from(Missing::all().0);
        }
        let shield = Shield::default();
        let failed = Piece::ALL.into_iter().filter(|piece| shield.apply(*piece).is_err());
        i32::from(failed.fold(0, |bits, piece| bits | piece.bit()))
    };
    let Ok(pid) = one_thread.fork(attempt) else { return Missing::all() };
    let bits =
        crate::keeper::trial::code_of(pid).and_then(|code| u8::try_from(code).ok()).filter(|bits| *bits & !Missing::all().0 == 0);
    bits.map_or(Missing::all(), Missing)
}
