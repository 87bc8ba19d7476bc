//! Where the keeper's own cgroups lie, of what /proc says: parsing only, nothing is opened here but in `own_dirs`.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use super::Controller;

/// A mounted cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Which part of the hierarchy is mounted.
    root: PathBuf,
    point: PathBuf,
    /// `None`: the unified one. Else the controllers that are bound to it.
    controllers: Option<Vec<String>>,
}

/// The keeper's own directories, as far as they can be seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct OwnDirs {
    pub(super) unified: Option<PathBuf>,
    pub(super) v1: Vec<(Controller, PathBuf)>,
}

/// Reads where this process is.
pub(super) fn own_dirs() -> io::Result<OwnDirs> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let memberships = std::fs::read_to_string("/proc/self/cgroup")?;
    Ok(dirs(&parse_mounts(&mounts), &memberships))
}

/// The mounted hierarchies, of /proc/PID/mountinfo.
pub(super) fn parse_mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (first, second) = line.split_once(" - ")?;
    let mut first = first.split(' ').skip(3);
    let (root, point) = (unescape(first.next()?), unescape(first.next()?));
    let mut second = second.split(' ');
    let kind = second.next()?;
    let options = second.nth(1).unwrap_or("");
    let controllers = match kind {
        "cgroup2" => None,
        "cgroup" => Some(options.split(',').map(str::to_owned).collect()),
        _ => return None,
    };
    Some(Mount { root, point, controllers })
}

/// Blanks and the like stand there as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.first_chunk::<3>().filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// Finds the own directory in each hierarchy, of /proc/PID/cgroup.
pub(super) fn dirs(mounts: &[Mount], memberships: &str) -> OwnDirs {
    let mut own = OwnDirs::default();
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(names), Some(path)) = (fields.next(), fields.next()) else { continue };
        if names.is_empty() {
            let mount = mounts.iter().filter(|mount| mount.controllers.is_none());
            own.unified = mount.filter_map(|mount| mount.dir(path)).next();
            continue;
        }
        for name in names.split(',') {
            let Some(controller) = Controller::named(name) else { continue };
            let bound = |mount: &&Mount| mount.controllers.as_ref().is_some_and(|all| all.iter().any(|one| one == name));
            if let Some(dir) = mounts.iter().filter(bound).find_map(|mount| mount.dir(path)) {
                own.v1.push((controller, dir));
            }
        }
    }
    own
}

impl Mount {
    /// Where a cgroup of this hierarchy is in the file system; `None` where it lies outside of what is mounted.
    fn dir(&self, path: &str) -> Option<PathBuf> {
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        let outside = below.components().any(|part| !matches!(part, std::path::Component::Normal(_)));
        let dir = || if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) };
        (!outside).then(dir)
    }
}
