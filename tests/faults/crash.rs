//! The crash matrix: the supervisor is killed at every system call that changes something, during an update.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::{LONG, SHORT, Skipped, wait_for, wait_until};

use crate::host::{Host, WEB, is_alive};

/// So many releases go before the first kill, so that each later update also deletes a publication.
const WARM_UP: u32 = 5;
/// Two updates differ by a few calls (a longer log, a new slot). The matrix goes on so far beyond the last point that was reached.
const BEYOND: u64 = 3;
/// More calls than any update of one group makes.
const POINTS_MAX: u64 = 1_000;
/// Work is shared by so many hosts.
const HOSTS: u64 = 4;

/// What an update asks of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Update {
    /// Only files: it is told, the process stays.
    Reload,
    /// It is started in another way: exactly one restart.
    Restart,
}

/// `tests/tools/kill_at.c`, attached.
struct KillAt {
    child: Child,
    out: PathBuf,
}

impl KillAt {
    /// Attached to all threads of `pid`; 0 only counts.
    fn attach(tool: &Path, pid: u64, at: u64, out: &Path) -> Self {
        let mut command = Command::new(tool);
        command.args([pid.to_string(), at.to_string()]).arg(out).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "attached\n");
        Self { child, out: out.to_owned() }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Lets go; gives the count and the name of the call at which it killed.
    fn end(mut self) -> (u64, String) {
        drop(self.child.stdin.take());
        wait_until("the tracer has ended", SHORT, || self.has_ended());
        let text = std::fs::read_to_string(&self.out).unwrap();
        let (count, name) = text.trim().split_once(' ').unwrap();
        (count.parse().unwrap(), name.to_owned())
    }
}

/// Builds the tool; skips where this machine does not let one process trace another.
fn tool(dir: &Path) -> Result<PathBuf, Skipped> {
    common::need_root()?;
    common::compile("kill_at", dir, &[])
}

/// One host that goes through every `HOSTS`th point.
struct Round {
    host: Host,
    tool: PathBuf,
    update: Update,
    /// Releases so far.
    patch: u32,
}

impl Round {
    fn new(update: Update) -> Result<Self, Skipped> {
        let dir = common::temp_dir();
        tool(dir.path())?;
        let host = Host::start();
        let tool = tool(host.dir.path())?;
        let mut round = Self { host, tool, update, patch: 0 };
        for _ in 0..WARM_UP {
            let (version, starts) = round.next();
            round.host.repo.release(&version);
            round.host.wait_applied(&version, starts);
        }
        Ok(round)
    }

    /// Writes the next release into the clone; gives its version and how many starts there must have been with it.
    fn next(&mut self) -> (String, usize) {
        self.patch += 1;
        let version = format!("v1.0.{}", self.patch);
        self.host.write(&version);
        let starts = self.host.starts().len();
        if self.update == Update::Reload {
            return (version, starts);
        }
        let service = self.host.service(&version);
        self.host.repo.write(WEB, &self.host.group_with(&service, &version));
        (version, starts + 1)
    }

    /// How many calls an update makes when nobody disturbs it.
    fn count(&mut self) -> u64 {
        let kill_at = KillAt::attach(&self.tool, self.host.supervisor_pid(), 0, &self.host.path("count"));
        let (version, starts) = self.next();
        self.host.repo.release(&version);
        self.host.wait_applied(&version, starts);
        kill_at.end().0
    }

    /// One update with a kill at its Nth call; the call's name, or `None` where the update made fewer.
    fn kill(&mut self, at: u64) -> Option<String> {
        let (supervisor, service) = (self.host.supervisor_pid(), self.host.pid());
        let before = self.host.one_version();
        let (version, starts) = self.next();
        let after = format!("version = {version}\n");
        let mut kill_at = KillAt::attach(&self.tool, supervisor, at, &self.host.path("count"));
        self.host.repo.release(&version);
        wait_for("the kill, or the end of the update", LONG, || {
            let done = kill_at.has_ended()
                || self.host.supervisor.status().is_ok_and(|status| {
                    status["release"]["tag"] == version.as_str() && !status["release"]["applied_at"].is_null()
                });
            if done { Ok(()) } else { Err(self.host.supervisor.log()) }
        });
        self.inspect(at, &before, &after, service);
        let name = kill_at.end().1;
        self.host.wait_applied(&version, starts);
        if self.update == Update::Reload {
            assert_eq!(self.host.pid(), service, "{at}: the process stays");
            wait_for("the service was told of the new files", SHORT, || {
                let told = self.host.told();
                if format!("{told}\n") == after { Ok(()) } else { Err(told) }
            });
        }
        assert_eq!(self.host.web()["service"]["restarts"], 0, "{at}: a restart that was asked for does not count");
        let service = self.host.pid();
        assert_eq!(self.host.seen_by(service), after, "{at}: what the service sees");
        self.no_leftovers(at);
        (name != "-").then_some(name)
    }

    /// The moment after the kill: wholly old or wholly new, for the host and for the service.
    fn inspect(&self, at: u64, before: &str, after: &str, service: u64) {
        let now = self.host.one_version();
        assert!(now == before || now == after, "{at}: {now}");
        if self.update == Update::Reload {
            assert!(is_alive(service), "{at}: the service went with the supervisor");
            let seen = self.host.seen_by(service);
            assert!(seen == before || seen == after, "{at}: the service sees {seen}");
        }
    }

    /// What an interrupted write left goes once the host is converged (a deletion may still be under way then).
    fn no_leftovers(&self, at: u64) {
        let data = self.host.path("data");
        wait_for(&format!("{at}: nothing temporary is left"), SHORT, || {
            let folders = ["state", "publications/web.default", "view/web.default", "git/quarantine"];
            let entries = folders.iter().flat_map(|folder| std::fs::read_dir(data.join(folder)).into_iter().flatten().flatten());
            let left: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_temporary(path)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }
}

fn is_temporary(path: &Path) -> bool {
    path.to_string_lossy().contains("/quarantine/") || path.file_name().is_some_and(|name| name.to_string_lossy().contains("tmp"))
}

/// Every point of one kind of update.
fn matrix(update: Update) {
    let begun = Instant::now();
    let points: Vec<Option<Vec<(u64, String)>>> = std::thread::scope(|scope| {
        let hosts: Vec<_> = (0..HOSTS).map(|first| scope.spawn(move || share(update, first + 1))).collect();
        hosts.into_iter().map(|host| host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let Some(points) = points.into_iter().collect::<Option<Vec<_>>>() else { return };
    let mut points: Vec<(u64, String)> = points.into_iter().flatten().collect();
    points.sort();
    println!("crash matrix ({update:?}): {} points in {:?}", points.len(), begun.elapsed());
    for (at, name) in &points {
        println!("  {at} {name}");
    }
    let numbers: Vec<u64> = points.iter().map(|(at, _)| *at).collect();
    let last = numbers.last().copied().unwrap_or_default();
    assert!(last > 20, "an update makes more calls than {last}");
}

/// The points of one host; `None` where the machine does not allow the test.
fn share(update: Update, first: u64) -> Option<Vec<(u64, String)>> {
    let mut round = Round::new(update).ok()?;
    let calls = round.count();
    println!("an update of kind {update:?} makes {calls} calls");
    let mut points = Vec::new();
    let mut missed = 0;
    for at in (first..POINTS_MAX).step_by(usize::try_from(HOSTS).unwrap_or(1)) {
        match round.kill(at) {
            Some(name) => points.push((at, name)),
            None => missed += 1,
        }
        if missed >= BEYOND && at > calls {
            return Some(points);
        }
    }
    panic!("an update makes more than {POINTS_MAX} calls");
}

#[test]
fn killed_at_any_call_of_an_update_that_reloads() {
    matrix(Update::Reload);
}

#[test]
fn killed_at_any_call_of_an_update_that_restarts() {
    matrix(Update::Restart);
}
