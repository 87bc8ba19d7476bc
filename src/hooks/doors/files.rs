//! Files, held against `allow.read` and `allow.write`: opened beneath the granted folder by the kernel itself, so that no link and
//! no `..` leads out, whoever may write in there. Blocks.

use std::collections::VecDeque;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, openat, openat2};
use rustix::io::Errno;

use crate::hooks::wire::{Code, Open};

/// Longest path.
const PATH_MAX_BYTES: usize = 4_096;
/// Links on the way to a granted folder, as the kernel counts them.
const LINKS_MAX: usize = 40;
/// What new files and folders may be read by.
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// What may be reached.
pub(super) struct Granted {
    pub(super) read: Vec<String>,
    pub(super) write: Vec<String>,
}

/// One thing to do.
pub(super) enum Job {
    Open { path: String, how: Open },
    Write { path: String, data: Vec<u8> },
    Remove { path: String, folder: bool },
    MakeFolder { path: String },
    Rename { from: String, to: String },
}

/// Why it was not done.
pub(super) enum Refused {
    /// No entry of `allow` covers it.
    NotGranted,
    /// It was allowed, and did not come about.
    Failed(Code, String),
}

impl Job {
    pub(super) fn path(&self) -> &str {
        match self {
            Self::Open { path, .. } | Self::Write { path, .. } | Self::Remove { path, .. } | Self::MakeFolder { path } => path,
            Self::Rename { from, .. } => from,
        }
    }

    pub(super) fn writes(&self) -> bool {
        match self {
            Self::Open { how, .. } => how.write || how.create || how.truncate || how.append,
            Self::Write { .. } | Self::Remove { .. } | Self::MakeFolder { .. } | Self::Rename { .. } => true,
        }
    }
}

/// Does it; what was opened comes back.
pub(super) fn carry_out(granted: &Granted, job: Job) -> Result<Option<OwnedFd>, Refused> {
    let writes = job.writes();
    match job {
        Job::Open { path, how } => Place::find(granted, &path, writes)?.open(how).map(Some),
        Job::Write { path, data } => Place::find(granted, &path, true)?.write(&data).map(|()| None),
        Job::Remove { path, folder } => {
            let (parent, name) = Place::find(granted, &path, true)?.parent()?;
            let flags = if folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            rustix::fs::unlinkat(parent, name, flags).map_err(failed).map(|()| None)
        }
        Job::MakeFolder { path } => {
            let (parent, name) = Place::find(granted, &path, true)?.parent()?;
            rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(FOLDER_MODE)).map_err(failed)?;
            own(&parent, &name);
            Ok(None)
        }
        Job::Rename { from, to } => {
            let (old_parent, old) = Place::find(granted, &from, true)?.parent()?;
            let (new_parent, new) = Place::find(granted, &to, true)?.parent()?;
            rustix::fs::renameat(old_parent, old, new_parent, new).map_err(failed).map(|()| None)
        }
    }
}

fn failed(error: Errno) -> Refused {
    let code = match error {
        // Out of the granted folder, or through a link where none may be.
        Errno::XDEV | Errno::LOOP => {
            return Refused::Failed(Code::Denied, "a link or `..` on the way leads out of the granted folder".to_owned());
        }
        Errno::NOENT => Code::NotFound,
        Errno::EXIST => Code::Exists,
        Errno::NOTDIR => Code::NotFolder,
        Errno::ISDIR => Code::IsFolder,
        Errno::NOTEMPTY => Code::NotEmpty,
        Errno::FBIG | Errno::NOSPC | Errno::DQUOT => Code::TooLarge,
        _ => Code::Other,
    };
    Refused::Failed(code, std::io::Error::from(error).to_string())
}

fn denied(message: &str) -> Refused {
    Refused::Failed(Code::Denied, message.to_owned())
}

/// A path below a granted folder, or the granted file itself (`rest` is empty).
struct Place {
    root: OwnedFd,
    rest: String,
}

impl Place {
    /// The grant that lies nearest.
    fn find(granted: &Granted, path: &str, writes: bool) -> Result<Self, Refused> {
        if !path.starts_with('/') || path.len() > PATH_MAX_BYTES || path.contains('\0') {
            return Err(Refused::Failed(Code::Invalid, "a path must be absolute, and of at most 4096 bytes".to_owned()));
        }
        let readable = if writes { &[][..] } else { &granted.read };
        let below = |root: &String| {
            let root = root.trim_end_matches('/');
            let rest = path.strip_prefix(root)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| (root.to_owned(), rest.trim_matches('/').to_owned()))
        };
        let nearest = granted.write.iter().chain(readable).filter_map(below).max_by_key(|(root, _)| root.len());
        let (root, rest) = nearest.ok_or(Refused::NotGranted)?;
        Ok(Self { root: trusted(&root)?, rest })
    }

    fn is_folder(&self) -> Result<bool, Refused> {
        Ok(kind(&rustix::fs::fstat(&self.root).map_err(failed)?) == FileType::Directory)
    }

    fn beneath(&self, rest: &str, flags: OFlags, mode: Mode, more: ResolveFlags) -> Result<OwnedFd, Refused> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | more;
        let rest = if rest.is_empty() { "." } else { rest };
        match openat2(&self.root, rest, flags | OFlags::CLOEXEC, mode, resolve) {
            Ok(opened) => Ok(opened),
            Err(Errno::NOSYS) => {
                Err(Refused::Failed(Code::Other, "this kernel has no openat2(2), without which no grant holds".to_owned()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The folder that it lies in, and its name.
    fn parent(&self) -> Result<(OwnedFd, String), Refused> {
        let (folder, name) = self.rest.rsplit_once('/').unwrap_or(("", &self.rest));
        if name.is_empty() || name == "." || name == ".." {
            return Err(denied("the granted folder itself stays as it is"));
        }
        let parent = self.beneath(folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), ResolveFlags::empty())?;
        Ok((parent, name.to_owned()))
    }

    fn open(&self, how: Open) -> Result<OwnedFd, Refused> {
        let more = if how.no_follow { ResolveFlags::NO_SYMLINKS } else { ResolveFlags::empty() };
        let existing = if self.rest.is_empty() && !self.is_folder()? {
            self.root.try_clone().map_err(|error| Refused::Failed(Code::Other, error.to_string()))
        } else {
            self.beneath(&self.rest, OFlags::PATH, Mode::empty(), more)
        };
        let found = match existing {
            Ok(_) if how.create && how.exclusive => return Err(failed(Errno::EXIST)),
            Err(Refused::Failed(Code::NotFound, _)) if how.create => return self.create(how),
            found => found?,
        };
        let kind = kind(&rustix::fs::fstat(&found).map_err(failed)?);
        match kind {
            FileType::RegularFile if how.folder => return Err(failed(Errno::NOTDIR)),
            FileType::RegularFile => {}
            FileType::Directory if how.write || how.truncate || how.append => return Err(failed(Errno::ISDIR)),
            FileType::Directory => {}
            // Opening a pipe or a device does things.
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Err(denied("it is neither a file nor a folder")),
        }
        if how.look {
            return Ok(found);
        }
        let mut flags = match (how.read || !how.write, how.write) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            (_, false) => OFlags::RDONLY,
        };
        flags.set(OFlags::TRUNC, how.truncate);
        flags.set(OFlags::APPEND, how.append);
        flags.set(OFlags::DIRECTORY, kind == FileType::Directory);
        // The very file that was looked at, not the name a second time.
        let again = format!("/proc/self/fd/{}", found.as_raw_fd());
        openat(CWD, again, flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty()).map_err(failed)
    }

    fn create(&self, how: Open) -> Result<OwnedFd, Refused> {
        let (parent, name) = self.parent()?;
        let mut flags = if how.read { OFlags::RDWR } else { OFlags::WRONLY };
        flags.set(OFlags::APPEND, how.append);
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&parent, &name, flags, Mode::from_raw_mode(FILE_MODE)).map_err(failed)?;
        own(&parent, &name);
        Ok(made)
    }

    /// Replaces a file as a whole: whoever reads it sees the old content or the new.
    fn write(&self, data: &[u8]) -> Result<(), Refused> {
        let in_words = |error: std::io::Error| Refused::Failed(Code::Other, error.to_string());
        if self.rest.is_empty() {
            // A granted file has no granted folder to put a new one into.
            let how = Open { write: true, truncate: true, ..Open::default() };
            return std::fs::File::from(self.open(how)?).write_all(data).map_err(in_words);
        }
        let (parent, name) = self.parent()?;
        let before = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW);
        if before.as_ref().is_ok_and(|found| kind(found) == FileType::Directory) {
            return Err(failed(Errno::ISDIR));
        }
        let new = format!(".{}.{}.new", name.chars().take(200).collect::<String>(), std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&parent, &new, flags, Mode::from_raw_mode(FILE_MODE)).map_err(failed)?;
        let written = std::fs::File::from(file).write_all(data).map_err(in_words);
        own(&parent, &new);
        let kept = before.map_or(FILE_MODE, |found| found.st_mode & 0o777);
        let _ = rustix::fs::chmodat(&parent, &new, Mode::from_raw_mode(kept), AtFlags::empty());
        let done = written.and_then(|()| rustix::fs::renameat(&parent, &new, &parent, &name).map_err(failed));
        if done.is_err() {
            let _ = rustix::fs::unlinkat(&parent, &new, AtFlags::empty());
        }
        done
    }
}

fn kind(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

/// What is new belongs to whom its folder belongs to, where that can be given.
fn own(parent: &OwnedFd, name: &str) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if let Ok(folder) = rustix::fs::fstat(parent) {
        let (user, group) = (Uid::from_raw(folder.st_uid), Gid::from_raw(folder.st_gid));
        let _ = rustix::fs::chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW);
    }
}

/// Opens a granted folder or file. Links on the way are followed only where root or the supervisor's user made them: a mount
/// path is one, and what a service put in its place is not.
fn trusted(path: &str) -> Result<OwnedFd, Refused> {
    let open = |at: &OwnedFd, name: &str| {
        openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
    };
    let top = || openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(failed);
    let names = |path: &str| path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let own = rustix::process::geteuid().as_raw();
    let (mut at, mut left, mut links) = (top()?, VecDeque::from(names(path)), 0);
    while let Some(name) = left.pop_front() {
        let next = open(&at, &name)?;
        let found = rustix::fs::fstat(&next).map_err(failed)?;
        if kind(&found) != FileType::Symlink {
            at = next;
            continue;
        }
        links += 1;
        if ![0, own].contains(&found.st_uid) || links > LINKS_MAX {
            return Err(denied("a link on the way to the granted path belongs to somebody else"));
        }
        let target = rustix::fs::readlinkat(&next, "", Vec::new()).map_err(failed)?;
        let target = target.to_str().map_err(|_| denied("a link on the way to the granted path is not text"))?;
        if Path::new(target).is_absolute() {
            at = top()?;
        }
        for name in names(target).into_iter().rev() {
            left.push_front(name);
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Stage {
        _folder: tempfile::TempDir,
        top: String,
        granted: Granted,
    }

    fn stage() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().display().to_string();
        fs::create_dir_all(format!("{top}/open/below")).unwrap();
        fs::create_dir(format!("{top}/mine")).unwrap();
        fs::write(format!("{top}/open/a"), "a").unwrap();
        fs::write(format!("{top}/secret"), "secret").unwrap();
        fs::write(format!("{top}/one"), "one").unwrap();
        symlink(format!("{top}/secret"), format!("{top}/open/absolute")).unwrap();
        symlink("../secret", format!("{top}/open/relative")).unwrap();
        symlink("a", format!("{top}/open/inside")).unwrap();
        symlink("..", format!("{top}/open/up")).unwrap();
        symlink("/proc/self/root", format!("{top}/open/magic")).unwrap();
        let granted = Granted { read: vec![format!("{top}/open"), format!("{top}/one")], write: vec![format!("{top}/mine/")] };
        Stage { _folder: folder, top, granted }
    }

    impl Stage {
        fn read(&self, path: &str) -> Result<String, String> {
            self.open(path, Open { read: true, ..Open::default() })
        }

        fn open(&self, path: &str, how: Open) -> Result<String, String> {
            let path = if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.top) };
            let file = self.carry_out(Job::Open { path, how })?.unwrap();
            let mut text = String::new();
            drop(fs::File::from(file).read_to_string(&mut text));
            Ok(text)
        }

        fn carry_out(&self, job: Job) -> Result<Option<OwnedFd>, String> {
            carry_out(&self.granted, job).map_err(|refused| match refused {
                Refused::NotGranted => "not granted".to_owned(),
                Refused::Failed(code, _) => format!("{code:?}"),
            })
        }

        fn write(&self, path: &str) -> Result<(), String> {
            self.carry_out(Job::Write { path: format!("{}/{path}", self.top), data: b"new".to_vec() }).map(drop)
        }
    }

    #[test]
    fn only_what_is_granted_is_read() {
        let stage = stage();
        for (path, content) in [("open/a", "a"), ("open/inside", "a"), ("open/below/../a", "a"), ("one", "one"), ("open//a", "a")]
        {
            assert_eq!(stage.read(path).as_deref(), Ok(content), "{path}");
        }
        for (path, why) in [
            ("open/../secret", "Denied"),
            ("open/below/../../secret", "Denied"),
            ("open/absolute", "Denied"),
            ("open/relative", "Denied"),
            ("open/up/secret", "Denied"),
            ("open/magic/etc/shadow", "Denied"),
            ("openly", "not granted"),
            ("secret", "not granted"),
            ("/etc/shadow", "not granted"),
            ("open/gone", "NotFound"),
            ("one/x", "NotFolder"),
        ] {
            assert_eq!(stage.read(path), Err(why.to_owned()), "{path}");
        }
        for how in [
            Open { write: true, ..Open::default() },
            Open { truncate: true, ..Open::default() },
            Open { append: true, ..Open::default() },
            Open { create: true, ..Open::default() },
        ] {
            assert_eq!(stage.open("open/a", how), Err("not granted".to_owned()));
        }
        assert_eq!(fs::read_to_string(format!("{}/open/a", stage.top)).unwrap(), "a");
    }

    #[test]
    fn a_pipe_is_not_opened() {
        let stage = stage();
        let path = format!("{}/open/pipe", stage.top);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(stage.read("open/pipe"), Err("Denied".to_owned()));
    }

    #[test]
    fn writing_replaces_whole_files_and_follows_nothing_out() {
        let stage = stage();
        let at = |name: &str| format!("{}/{name}", stage.top);
        stage.write("mine/x").unwrap();
        assert_eq!(fs::read_to_string(at("mine/x")).unwrap(), "new");
        symlink(at("secret"), at("mine/link")).unwrap();
        stage.write("mine/link").unwrap();
        // The link was replaced, and where it led to is as it was.
        assert_eq!(fs::read_to_string(at("secret")).unwrap(), "secret");
        assert_eq!(fs::read_to_string(at("mine/link")).unwrap(), "new");
        symlink("..", at("mine/up")).unwrap();
        assert_eq!(stage.write("mine/up/secret"), Err("Denied".to_owned()));
        assert_eq!(stage.write("mine/../secret"), Err("Denied".to_owned()));
        assert_eq!(stage.write("open/a"), Err("not granted".to_owned()));
        assert_eq!(stage.write("mine"), Err("IsFolder".to_owned()));
        let rename = |from: &str, to: &str| stage.carry_out(Job::Rename { from: at(from), to: at(to) }).map(drop);
        assert_eq!(rename("mine/x", "secret"), Err("not granted".to_owned()));
        assert_eq!(rename("secret", "mine/x"), Err("not granted".to_owned()));
        rename("mine/x", "mine/y").unwrap();
        let remove = |path: &str| stage.carry_out(Job::Remove { path: at(path), folder: false }).map(drop);
        assert_eq!(remove("mine/up/secret"), Err("Denied".to_owned()));
        remove("mine/y").unwrap();
        assert_eq!(fs::read_to_string(at("secret")).unwrap(), "secret");
    }

    #[test]
    fn a_link_of_somebody_else_is_no_way_to_a_granted_folder() {
        if !rustix::process::geteuid().is_root() {
            // Only root can make a file somebody else's; the suite runs as root in CI.
            return;
        }
        let stage = stage();
        symlink(format!("{}/open", stage.top), format!("{}/swapped", stage.top)).unwrap();
        let read = || {
            let granted = Granted { read: vec![format!("{}/swapped", stage.top)], write: Vec::new() };
            let how = Open { read: true, ..Open::default() };
            carry_out(&granted, Job::Open { path: format!("{}/swapped/a", stage.top), how }).is_ok()
        };
        assert!(read());
        let link = format!("{}/swapped", stage.top);
        rustix::fs::chownat(CWD, link, Some(Uid::from_raw(1)), None, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        assert!(!read());
    }
}
