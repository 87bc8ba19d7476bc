//! Reading /proc: who a process is, what it started, and to which service it belongs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::sys::process::session_of;

/// What tells a process apart, of /proc/PID/stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: u32,
    pub(super) group: u32,
    pub(super) session: u32,
    /// In clock ticks since boot.
    pub(super) started: u64,
    /// It is in the middle of an exec, or about to be gone: its environment does not show. The kernel sets the end of the
    /// code last, after the environment, so that it is zero until then; where we may not look, it is one.
    pub(super) in_between: bool,
    /// It has ended, and only waits to be waited for.
    pub(super) zombie: bool,
}

/// Whether a process belongs to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    No,
    /// It bears no mark that can be seen now, but may bear one in a moment.
    Unclear,
}

/// By which what belongs to a service is recognised once its main process is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marks {
    /// Session and process group, which bear the number of the main process; `None` where that number is in use again.
    pub(super) session: Option<u32>,
    /// The service's own mount namespace.
    pub(super) namespace: Option<String>,
    /// `TAGFALL_GROUP=…`, as it stands in the environment it was started with.
    pub(super) variable: String,
}

/// Longest file that is read at once, in bytes.
const SHORT_MAX_BYTES: usize = 4096;

/// How many bytes a list is expected to have: what thousands of numbers take.
const LIST_BYTES: usize = 16 * 1024;

fn open(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Reads a short file of the kernel's, which gives all of it at once: with fewer calls than one whose length is asked for.
pub(super) fn read_short(path: impl AsRef<Path>) -> io::Result<String> {
    let mut buffer = [0; SHORT_MAX_BYTES];
    let length = rustix::io::read(open(path)?, &mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Reads a list of the kernel's, which comes page by page.
pub(super) fn read_list(path: impl AsRef<Path>) -> io::Result<String> {
    let (file, mut bytes, mut length) = (open(path)?, vec![0; LIST_BYTES], 0);
    loop {
        match rustix::io::read(&file, &mut bytes[length..])? {
            0 => break,
            more => length += more,
        }
        if bytes.len() - length < SHORT_MAX_BYTES {
            bytes.resize(bytes.len() * 2, 0);
        }
    }
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Reads who a process is; `None` where it is gone.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&read_short(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name, in parentheses, may hold anything; the fields behind it count from the third.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    Some(Stat {
        parent: field(4)?.parse().ok()?,
        group: field(5)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        started: field(22)?.parse().ok()?,
        in_between: field(27).is_some_and(|end_of_code| *end_of_code == "0"),
        zombie: field(3).is_some_and(|state| matches!(*state, "Z" | "X")),
    })
}

/// How a process that has ended and was not waited for yet did so; `None` where it is no such one, or where we may not know.
pub(super) fn exit_of_zombie(pid: u32, started: u64) -> Option<crate::model::Exit> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    let same = field(22)?.parse() == Ok(started) && *field(3)? == "Z";
    let status: i32 = field(52)?.parse().ok()?;
    // Zero is also what those are told who may not know.
    let may_know = status != 0 || {
        use std::os::unix::fs::MetadataExt as _;
        let own = rustix::process::geteuid();
        own.is_root() || fs::metadata(format!("/proc/{pid}")).ok()?.uid() == own.as_raw()
    };
    (same && may_know).then(|| crate::sys::process::exit_of_status(status))
}

/// The kernel's id of this boot.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A name for the mount namespace of a process.
pub(super) fn mount_namespace(pid: u32) -> Option<String> {
    Some(fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?.to_string_lossy().into_owned())
}

/// Children of a process, of all its threads.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut found = Vec::new();
    for task in tasks.flatten() {
        match children_of_thread(&task.path()) {
            Ok(children) => found.extend(children),
            Err(_) => return children_among_all(pid),
        }
    }
    found
}

/// Children that the first thread of a process has made, or got from those that ended.
pub(super) fn children_of_first_thread(pid: u32) -> Vec<u32> {
    children_of_thread(Path::new(&format!("/proc/{pid}/task/{pid}"))).unwrap_or_else(|_| children_among_all(pid))
}

fn children_of_thread(thread: &Path) -> io::Result<Vec<u32>> {
    Ok(read_list(thread.join("children"))?.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// On kernels without such lists.
fn children_among_all(pid: u32) -> Vec<u32> {
    everyone().filter(|one| stat(*one).is_some_and(|stat| stat.parent == pid)).collect()
}

/// All processes.
fn everyone() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// All processes by the session that they belong to; also those that have ended and were not waited for.
pub(super) fn sessions() -> BTreeMap<u32, Vec<u32>> {
    let mut sessions = BTreeMap::<u32, Vec<u32>>::new();
    for pid in everyone() {
        // One call for each, where reading who it is takes a hundred times as long.
        if let Some(session) = session_of(pid).filter(|session| *session != 0) {
            sessions.entry(session).or_default().push(pid);
        }
    }
    sessions
}

/// A process and all that descends from it, with their starts. Each is seen as a child of one that was seen before, so that
/// none is a stranger who got the number of one that has ended meanwhile.
pub(super) fn family(root: u32) -> Vec<(u32, u64)> {
    let mut found: Vec<(u32, u64)> = stat(root).map(|stat| (root, stat.started)).into_iter().collect();
    let mut at = 0;
    while let Some((parent, _)) = found.get(at).copied() {
        let new: Vec<u32> = children(parent).into_iter().filter(|pid| found.iter().all(|(known, _)| known != pid)).collect();
        let own = new.into_iter().filter_map(|pid| Some((pid, stat(pid)?))).filter(|(_, stat)| stat.parent == parent);
        found.extend(own.map(|(pid, stat)| (pid, stat.started)));
        at += 1;
    }
    found
}

impl Marks {
    /// Whether a process bears one of the marks.
    pub(super) fn fit(&self, pid: u32) -> Fit {
        // Looked at before and after the environment is read, so that an exec in between does not hide it.
        let Some(stat) = stat(pid) else { return Fit::No };
        if self.session.is_some_and(|session| stat.session == session || stat.group == session) {
            return Fit::Yes;
        }
        if self.namespace.is_some() && mount_namespace(pid) == self.namespace {
            return Fit::Yes;
        }
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == self.variable.as_bytes()) {
            return Fit::Yes;
        }
        let still = self::stat(pid).is_some_and(|stat| stat.in_between);
        if stat.in_between || still { Fit::Unclear } else { Fit::No }
    }
}

/// Kills a process, if it is still the one that began at `started`: its number may have been given away since.
pub(super) fn kill_verified(pid: u32, started: u64) {
    let Some(id) = pid_of(pid) else { return };
    let Ok(pidfd) = pidfd_open(id, PidfdFlags::empty()) else { return };
    if stat(pid).is_some_and(|stat| stat.started == started) {
        // Gone in between is what is wanted.
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
}

/// A number as a process id that may be signalled: never 0 or 1, which would be others than one process of ours.
pub(super) fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_hides_nothing() {
        let text = "7 (a) S (b c) S 1 2 3 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(
            parse_stat(text),
            Some(Stat { parent: 1, group: 2, session: 3, started: 4242, in_between: false, zombie: false })
        );
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn nobody_signals_everyone_or_init() {
        assert!(pid_of(0).is_none() && pid_of(1).is_none() && pid_of(u32::MAX).is_none());
        assert!(pid_of(2).is_some());
    }

    #[test]
    fn how_a_process_ended_is_known_before_and_after_it_was_waited_for() {
        use crate::model::{Exit, Signal as Number};
        use crate::sys::process::pidfd_exit;
        use std::os::fd::AsFd as _;
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
        let tells = (numbers.next(), numbers.next()) >= (Some(6), Some(15));
        for (script, exit) in [("exit 7", Exit::Code(7)), ("kill -9 $$", Exit::Signal(Number::KILL)), ("exit 0", Exit::Code(0))] {
            let mut child = std::process::Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
            let started = stat(child.id()).unwrap().started;
            rustix::process::waitid(
                rustix::process::WaitId::Pid(Pid::from_child(&child)),
                rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
            )
            .unwrap();
            assert_eq!(exit_of_zombie(child.id(), started), Some(exit));
            assert_eq!(exit_of_zombie(child.id(), started + 1), None);
            child.wait().unwrap();
            assert_eq!(pidfd_exit(pidfd.as_fd()), tells.then_some(exit), "Linux {release}");
        }
    }

    #[test]
    fn sessions_are_those_of_processes_that_have_one() {
        // Kernel threads have none, and are there for any root of namespaces.
        let all = sessions();
        assert!(!all.contains_key(&0));
        let own = std::process::id();
        let session = stat(own).unwrap().session;
        assert!(all.values().any(|members| members.contains(&own)) || session == 0, "{session}");
    }

    #[test]
    fn this_process_is_found() {
        let own = std::process::id();
        assert!(stat(own).is_some());
        assert!(family(own).contains(&(own, stat(own).unwrap().started)));
        assert!(!boot_id().unwrap().is_empty());
    }
}
