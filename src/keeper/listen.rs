//! Sockets that are held for a service over its restarts, so that whoever connects meanwhile waits instead of being refused.
//!
//! They are handed over as systemd does it: from descriptor 3 on, with `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES`. They are
//! closed when the service stops for good or no longer asks for them. To add a kind of address: a row in [`Address::parse`]
//! and in [`Address::open`]; what is written in `group.toml` is checked by `manifest`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, statat, unlinkat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt};

use super::beneath::{give, parent};
use super::engine::Engine;
use super::reserve::lasting;
use super::spawn::owner_of;
use crate::model::GroupName;

/// So many connections wait for a service that is not there, where the system's own limit (`net.core.somaxconn`) allows it.
const BACKLOG: i32 = 4096;

/// A socket that is held.
pub(super) struct Held {
    /// As the declaration names it.
    entry: String,
    name: String,
    fd: OwnedFd,
    /// To be taken away with it.
    _place: Option<Place>,
}

/// Where a socket has its name, and which file it is: a path may lead elsewhere by the time that it is taken away.
struct Place {
    dir: OwnedFd,
    name: OsString,
    file: (u64, u64),
}

impl Place {
    /// Of a socket that is there already.
    fn of(path: &Path) -> Option<Self> {
        let (dir, name) = parent(path, false).ok()?;
        let stat = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
        is_socket.then_some(Self { dir, name, file: (stat.st_dev, stat.st_ino) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let found = statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.file) {
            // What is left over is recognised and taken away by the next one who opens it.
            let _ = unlinkat(&self.dir, &self.name, AtFlags::empty());
        }
    }
}

impl Held {
    /// The one of a declaration that the program before had open.
    pub(super) fn inherited(entry: &str, fd: OwnedFd) -> Option<Self> {
        let address = Address::parse(entry).ok()?;
        let name = address.name();
        let place = if let Address::Unix(path) = &address { Place::of(path) } else { None };
        Some(Self { entry: entry.to_owned(), name, fd, _place: place })
    }

    pub(super) fn entry(&self) -> (&str, &OwnedFd) {
        (&self.entry, &self.fd)
    }
}

/// Copies of sockets, and the variables that tell of them.
pub(super) type Given = (Vec<OwnedFd>, Vec<(String, String)>);

enum Address {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    fn parse(entry: &str) -> Result<Self, String> {
        let wrong = || format!("`{entry}` in `listen` must be `tcp://IP:PORT`, `udp://IP:PORT` or `unix:///PATH`");
        let (kind, rest) = entry.split_once("://").ok_or_else(wrong)?;
        match kind {
            "tcp" => rest.parse().map(Self::Tcp).map_err(|_| wrong()),
            "udp" => rest.parse().map(Self::Udp).map_err(|_| wrong()),
            "unix" if Path::new(rest).is_absolute() => Ok(Self::Unix(PathBuf::from(rest))),
            _ => Err(wrong()),
        }
    }

    /// What the service knows it by; no colon, which separates names.
    fn name(&self) -> String {
        match self {
            Self::Tcp(address) => format!("tcp-{}", address.port()),
            Self::Udp(address) => format!("udp-{}", address.port()),
            Self::Unix(path) => {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let plain = |c: char| if c == ':' || c.is_control() || !c.is_ascii() { '-' } else { c };
                format!("unix-{}", name.chars().map(plain).collect::<String>())
            }
        }
    }

    fn open(&self, owner: (u32, u32)) -> io::Result<(OwnedFd, Option<Place>)> {
        match self {
            Self::Tcp(address) => {
                let socket = inet(address, SocketType::STREAM)?;
                listen(&socket, BACKLOG)?;
                Ok((socket, None))
            }
            Self::Udp(address) => inet(address, SocketType::DGRAM).map(|socket| (socket, None)),
            Self::Unix(path) => unix(path, owner).map(|(socket, place)| (socket, Some(place))),
        }
    }
}

fn inet(address: &SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if kind == SocketType::STREAM {
        // Connections of an earlier holder that are still winding up do not stand in the way; a live holder does.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, address)?;
    Ok(socket)
}

fn unix(path: &Path, (uid, gid): (u32, u32)) -> io::Result<(OwnedFd, Place)> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let (dir, name) = parent(path, false)?;
    take_away_left_over(&dir, &name, &address)?;
    // Who may connect is decided by the folder that it lies in, as for a socket that systemd holds.
    let before = rustix::process::umask(Mode::from_raw_mode(0o111));
    let bound = bind(&socket, &address);
    rustix::process::umask(before);
    bound?;
    // By its folder from here on: whoever may write to that may have put something else in its place by now.
    let found = openat(&dir, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&found)?;
    let own = rustix::process::geteuid().as_raw();
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket || stat.st_uid != own || stat.st_nlink != 1 {
        return Err(io::Error::other("something else was put in its place at once"));
    }
    if uid != own {
        give(&found, Some(uid), Some(gid))?;
    }
    listen(&socket, BACKLOG)?;
    Ok((socket, Place { dir, name, file: (stat.st_dev, stat.st_ino) }))
}

/// Removes a socket behind which nobody listens any more; nothing else.
fn take_away_left_over(dir: &OwnedFd, name: &OsStr, address: &SocketAddrUnix) -> io::Result<()> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Socket => {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            match connect(&probe, address) {
                Err(rustix::io::Errno::CONNREFUSED) => Ok(unlinkat(dir, name, AtFlags::empty())?),
                Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
            }
        }
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn explain(entry: &str, error: &io::Error) -> String {
    let what = format!("socket `{entry}` of `listen` cannot be opened");
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => format!("{what}: another program has the address; stop it, or choose another one"),
        Some(libc::EACCES | libc::EPERM) => {
            format!(
                "{what}: the supervisor has no right to ({error}); start it as root, or choose a port from 1024 on or another folder"
            )
        }
        Some(libc::EADDRNOTAVAIL) => format!("{what}: this host does not have the address"),
        Some(libc::ELOOP) => format!("{what}: a link on the way there is none of root's, so it is not followed"),
        Some(libc::ENOENT) => format!("{what}: the folder it lies in does not exist; make it, or choose another one"),
        _ if error.kind() == io::ErrorKind::AddrInUse => format!("{what}: another program listens there; stop it"),
        _ if error.kind() == io::ErrorKind::AlreadyExists => format!("{what}: something that is no socket is in its place"),
        _ => format!("{what}: {error}"),
    }
}

impl Engine {
    /// Opens what a service asks for and does not have yet, and closes what it no longer asks for. Gives copies, in the
    /// order of the declaration, and the environment that goes with them.
    pub(super) fn open_sockets(&mut self, group: &GroupName) -> Result<Given, String> {
        let Some(entry) = self.services.get_mut(group) else { return Ok((Vec::new(), Vec::new())) };
        let launch = &entry.service.spec.launch;
        if launch.listen.is_empty() {
            entry.sockets.clear();
            return Ok((Vec::new(), Vec::new()));
        }
        let mut before = std::mem::take(&mut entry.sockets);
        before.retain(|held| launch.listen.contains(&held.entry));
        let owner = owner_of(launch.user.as_deref(), &self.rights);
        let mut fds = Vec::new();
        for wanted in &launch.listen {
            let held = match before.iter().position(|held| held.entry == *wanted) {
                Some(at) => before.swap_remove(at),
                None => open(wanted, owner)?,
            };
            fds.push(held.fd.try_clone().map_err(|error| explain(wanted, &error))?);
            entry.sockets.push(held);
        }
        let names: Vec<&str> = entry.sockets.iter().map(|held| held.name.as_str()).collect();
        let mut env = Vec::new();
        if !fds.is_empty() {
            env.push(("LISTEN_FDS".to_owned(), fds.len().to_string()));
            env.push(("LISTEN_FDNAMES".to_owned(), names.join(":")));
        }
        Ok((fds, env))
    }

    /// Closes what was held for a service that does not run and will not by itself.
    pub(super) fn close_unused(&mut self, group: &GroupName) {
        let Some(entry) = self.services.get_mut(group).filter(|entry| entry.service.at_rest()) else { return };
        entry.sockets.clear();
        self.close_voice(group);
    }
}

fn open(entry: &str, owner: (u32, u32)) -> Result<Held, String> {
    let address = Address::parse(entry)?;
    let (fd, place) = address.open(owner).map_err(|error| explain(entry, &error))?;
    Ok(Held { entry: entry.to_owned(), name: address.name(), fd: lasting(fd), _place: place })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> (u32, u32) {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }

    #[test]
    fn an_address_that_is_taken_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let entry = format!("tcp://{}", taken.local_addr().unwrap());
        let why = open(&entry, own()).err().unwrap();
        assert!(why.contains(&entry) && why.contains("another program has the address"), "{why}");
        drop(taken);
        assert_eq!(open(&entry, own()).unwrap().name, format!("tcp-{}", entry.rsplit_once(':').unwrap().1));
        let why = open("tcp://192.0.2.1:8080", own()).err().unwrap();
        assert!(why.contains("does not have the address"), "{why}");
        for bad in ["", "tcp://", "tcp://localhost:80", "unix://x", "sctp://127.0.0.1:1"] {
            assert!(open(bad, own()).err().unwrap().contains("must be"), "{bad}");
        }
    }

    #[test]
    fn a_left_over_socket_is_taken_away_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a:b.sock");
        let entry = format!("unix://{}", path.display());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let held = open(&entry, own()).unwrap();
        assert_eq!(held.name, "unix-a-b.sock");
        assert!(open(&entry, own()).err().unwrap().contains("another program"));
        drop(held);
        assert!(!path.exists());
        std::fs::write(&path, "a file").unwrap();
        assert!(open(&entry, own()).err().unwrap().contains("no socket"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
        let nowhere = format!("unix://{}/no/such.sock", dir.path().display());
        assert!(open(&nowhere, own()).err().unwrap().contains("does not exist"));
    }
}
