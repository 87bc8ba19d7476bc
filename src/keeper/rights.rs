//! What this keeper may do, found out once at its start, by trying where asking does not tell.

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::spawn::landlock;
use super::spawn::shield::{Missing, missing};
use super::trial::attempt;
use crate::sys::fork::OneThread;
use crate::sys::process::{User, user_by_id};

/// The keeper's own rights.
#[derive(Debug, Clone)]
pub(super) struct Rights {
    pub(super) uid: u32,
    /// Who that is: looked up once, since a service without `user` asks for it with each start.
    pub(super) user: User,
    pub(super) may_switch_user: bool,
    pub(super) may_drop_bounding: bool,
    /// What belongs to another user can be given away, opened and changed.
    pub(super) may_give: bool,
    /// Whether services get mount namespaces; if not, why.
    pub(super) namespaces: Result<(), String>,
    /// What of hardening `strict` cannot be had, beside what needs namespaces.
    pub(super) missing: Missing,
    /// Whether the kernel's fence around writing can be had; if not, why.
    pub(super) landlock: Result<(), String>,
    /// The limit of descriptors that services begin with: the keeper's own is raised.
    pub(super) open_files: Rlimit,
    /// Capabilities that the kernel knows.
    pub(super) known_capabilities: CapabilitySet,
    /// How readily the kernel kills what the keeper starts.
    pub(super) oom_score: i32,
}

/// To look after what belongs to the supervisor's user.
const GIVING: CapabilitySet =
    CapabilitySet::CHOWN.union(CapabilitySet::FOWNER).union(CapabilitySet::FSETID).union(CapabilitySet::DAC_OVERRIDE);

impl Rights {
    pub(super) fn find(one_thread: &OneThread, data_dir: &Path) -> Self {
        let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        let open_files = getrlimit(Resource::Nofile);
        // Every service takes a few descriptors here. Where it cannot be raised, starts fail later and say so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: open_files.maximum, maximum: open_files.maximum });
        let namespaces = try_namespace(one_thread, data_dir);
        let uid = rustix::process::geteuid().as_raw();
        let missing = if namespaces.is_ok() { missing(one_thread) } else { Missing::all() };
        Self {
            missing,
            landlock: landlock::available(),
            uid,
            user: own_user(uid),
            may_switch_user: effective.contains(CapabilitySet::SETUID | CapabilitySet::SETGID),
            may_give: effective.contains(GIVING),
            may_drop_bounding: effective.contains(CapabilitySet::SETPCAP),
            namespaces,
            open_files,
            known_capabilities: known_capabilities(),
            oom_score: super::oom::prefer_keeper(),
        }
    }
}

/// The user of this process. In a container, it often has no entry.
fn own_user(uid: u32) -> User {
    let gid = rustix::process::getegid().as_raw();
    let nameless = || User { name: uid.to_string(), uid, gid, home: "/".to_owned(), shell: "/bin/sh".to_owned() };
    user_by_id(uid).ok().flatten().unwrap_or_else(nameless)
}

/// All capabilities up to the last one that the kernel names.
fn known_capabilities() -> CapabilitySet {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
    let last: u32 = last.and_then(|text| text.trim().parse().ok()).unwrap_or(40);
    CapabilitySet::from_bits_retain(u64::MAX >> (63 - last.min(63)))
}

/// Tries in a child whether a mount namespace can be made, and directories mounted in it: capabilities alone do not tell, since a seccomp filter or an
/// LSM may refuse it as well.
fn try_namespace(one_thread: &OneThread, data_dir: &Path) -> Result<(), String> {
    attempt(one_thread, || super::mounts::try_all(data_dir)).map_err(|error| match error.raw_os_error() {
        Some(_) => format!("mount namespaces are not allowed here ({error})"),
        None => format!("whether mount namespaces are allowed here could not be tried ({error})"),
    })
}
