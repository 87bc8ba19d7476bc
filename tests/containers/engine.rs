//! A container engine of the test's own: Docker's daemon with its data, its socket, its bridge and its cgroups apart from
//! whatever else this machine runs, and an image made from one static program.
//!
//! It is bounded from outside as well (`timeout`), so that it cannot outlive a test that was killed.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{LONG, SHORT, Skipped, need, need_root, need_tool, wait_until};
use serde_json::Value;

/// The engine ends by itself after so long, in seconds, whatever becomes of the test.
const LIFE_MAX_S: &str = "240";
/// Longest wait for one answer of the engine.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The image that every test uses.
pub(crate) const IMAGE: &str = "tagfall-test:1";

pub(crate) struct Engine {
    dir: PathBuf,
    name: String,
    daemon: Option<Child>,
    bridged: bool,
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Engine {
    /// Starts one below `dir`, and gives it the image.
    pub(crate) fn start(dir: &Path) -> Result<Self, Skipped> {
        // `tests/run` has said so, once.
        if std::env::var_os("TAGFALL_TEST_NO_ENGINE").is_some() {
            return Err(Skipped);
        }
        need_root()?;
        for tool in ["dockerd", "cc", "tar", "timeout"] {
            need_tool(tool)?;
        }
        let pid = std::process::id();
        let mut engine = Self { dir: dir.join("engine"), name: format!("tf{pid}"), daemon: None, bridged: false };
        fs::create_dir_all(&engine.dir).expect("a folder for the engine");
        engine.bridged = engine.make_bridge(pid);
        let started = engine.daemon();
        need(started, &format!("no container engine can be started here: {}", engine.last_words()))?;
        engine.make_image();
        Ok(engine)
    }

    /// A bridge with a network of its own; without one, no port of a container can be reached.
    fn make_bridge(&self, pid: u32) -> bool {
        let address = format!("10.{}.{}.1/24", 200 + pid % 50, pid / 50 % 250);
        run("ip", &["link", "add", &self.name, "type", "bridge"])
            && run("ip", &["address", "add", &address, "dev", &self.name])
            && run("ip", &["link", "set", &self.name, "up"])
    }

    pub(crate) fn needs_ports(&self) -> Result<(), Skipped> {
        need(self.bridged, "no bridge can be made here")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("s")
    }

    /// Starts the daemon, again where it has ended; false where it does not answer in time.
    pub(crate) fn daemon(&mut self) -> bool {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let bridge = if self.bridged { self.name.as_str() } else { "none" };
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).expect("the engine's log");
        let mut command = Command::new("timeout");
        command.args(["-k", "10", LIFE_MAX_S, "dockerd", "--storage-driver=vfs", "--iptables=false", "--ip6tables=false"]);
        command.args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")]);
        command.args(["--host", &format!("unix://{}", path("s")), "--bridge", bridge]);
        command.args(["--cgroup-parent", &format!("/{}", self.name), "--live-restore"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let Ok(child) = command.spawn() else { return false };
        self.daemon = Some(child);
        let begun = Instant::now();
        while begun.elapsed() < LONG {
            if self.ask("GET", "/_ping", "", &[]).is_ok_and(|answer| answer == "OK") {
                // As a group would, for the user that the supervisor runs as.
                let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
                return fs::set_permissions(self.socket(), open).is_ok();
            }
            if self.daemon.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some())) {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        false
    }

    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        log.lines().rev().take(8).collect::<Vec<_>>().join("; ")
    }

    /// Asks the engine; the answer's body, or what went wrong.
    pub(crate) fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<String, String> {
        let text = |error: std::io::Error| error.to_string();
        let mut stream = UnixStream::connect(self.socket()).map_err(text)?;
        stream.set_read_timeout(Some(ANSWER_MAX)).map_err(text)?;
        let length = body.len();
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        let head = format!("{method} {path} HTTP/1.0\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).map_err(text)?;
        let written = stream.write_all(body).map_err(text);
        let mut answer = Vec::new();
        // It may hang up before it has taken the padding of an archive; what it answered is there all the same.
        let read = stream.read_to_end(&mut answer).map_err(text);
        if answer.is_empty() {
            written.and(read)?;
        }
        // What containers print is framed by bytes that are no text.
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if status.starts_with('2') { Ok(body.to_owned()) } else { Err(format!("{status}: {body}")) }
    }

    /// Asks for JSON.
    pub(crate) fn json(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, "", &[]).unwrap_or_else(|error| panic!("{path}: {error}"));
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"))
    }

    /// Every container, running or not, as it is inspected.
    pub(crate) fn containers(&self) -> Vec<Value> {
        let listed = self.json("/containers/json?all=true");
        let ids = listed.as_array().into_iter().flatten().filter_map(|one| one["Id"].as_str());
        let inspect = |id| self.ask("GET", &format!("/containers/{id}/json"), "", &[]).ok();
        ids.filter_map(inspect).filter_map(|answer| serde_json::from_str(&answer).ok()).collect()
    }

    /// The one container of a group.
    pub(crate) fn container(&self, group: &str) -> Result<Value, String> {
        let ours = |one: &Value| one["Config"]["Labels"]["tagfall.group"] == group;
        let mut found: Vec<Value> = self.containers().into_iter().filter(ours).collect();
        assert!(found.len() <= 1, "{group} has {} containers", found.len());
        found.pop().ok_or_else(|| format!("{group} has no container"))
    }

    fn make_image(&self) {
        let (root, source) = (self.dir.join("root"), Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/box.c"));
        fs::create_dir_all(&root).expect("a folder for the image");
        let tool = root.join("box").display().to_string();
        let built = run("cc", &["-static", "-O1", "-Wall", "-Werror", "-o", &tool, &source.display().to_string()]);
        assert!(built, "the image's program does not compile");
        let tar = Command::new("tar").args(["-C", &root.display().to_string(), "-cf", "-", "box"]).output().expect("tar runs");
        let (repo, tag) = IMAGE.split_once(':').expect("a tag");
        let path = format!("/images/create?fromSrc=-&repo={repo}&tag={tag}");
        self.ask("POST", &path, "application/x-tar", &tar.stdout).expect("the image is taken");
    }

    /// Builds an image of a folder with a `Dockerfile`.
    pub(crate) fn build(&self, folder: &Path, tag: &str) {
        let tar = Command::new("tar").args(["-C", &folder.display().to_string(), "-cf", "-", "."]).output().expect("tar runs");
        let built = self.ask("POST", &format!("/build?t={tag}"), "application/x-tar", &tar.stdout).expect("the image is built");
        assert!(built.contains("Successfully built"), "{built}");
    }

    /// Ends the daemon as a crash would; containers go on.
    pub(crate) fn crash(&mut self) {
        let pid = fs::read_to_string(self.dir.join("pid")).expect("the engine's pid");
        assert!(run("kill", &["-KILL", pid.trim()]), "the engine cannot be killed");
        self.wait_ended();
        // Its helper holds locks that the next one waits for; the shims, which hold the containers, go on.
        let helper = self.dir.join("exec/containerd/containerd.pid");
        if let Ok(pid) = fs::read_to_string(&helper) {
            run("kill", &["-KILL", pid.trim()]);
        }
        for file in [helper, self.dir.join("pid"), self.dir.join("exec/containerd/containerd.sock")] {
            let _ = fs::remove_file(file);
        }
    }

    fn wait_ended(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            wait_until("the engine has ended", LONG, || child.try_wait().is_ok_and(|status| status.is_some()));
        }
    }

    /// Processes that work for this engine: its folder is in their command line.
    fn processes(&self) -> Vec<String> {
        let ours = self.dir.display().to_string();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let pids = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        let works = |pid: &String| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&ours)
        };
        let own = std::process::id().to_string();
        let mut found: Vec<String> = pids.filter(|pid| *pid != own).filter(works).collect();
        // A container whose engine has crashed has nothing but its cgroup to be known by.
        for root in self.cgroups() {
            members(&root, &mut found);
        }
        found
    }

    fn remove_containers(&self) {
        let Ok(listed) = self.ask("GET", "/containers/json?all=true", "", &[]) else { return };
        let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
        for id in listed.as_array().into_iter().flatten().filter_map(|one| one["Id"].as_str()) {
            drop(self.ask("DELETE", &format!("/containers/{id}?force=true&v=true"), "", &[]));
        }
    }

    /// Where the containers' cgroups are, by hierarchy.
    fn cgroups(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        hierarchies.chain([root.to_owned()]).map(|path| path.join(&self.name)).filter(|path| path.is_dir()).collect()
    }

    fn unmount(&self) {
        let ours = self.dir.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| point.starts_with(&ours));
        for point in points {
            run("umount", &["-l", point]);
        }
    }
}

/// Processes of a cgroup and of those below it.
fn members(folder: &Path, found: &mut Vec<String>) {
    let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    found.extend(listed.lines().map(str::to_owned));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members(&entry.path(), found);
        }
    }
}

/// Removes empty cgroups, the innermost first.
fn remove_folders(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_folders(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

impl Drop for Engine {
    /// Leaves nothing: containers, daemon, shims, bridge, cgroups, mounts. Every step is bounded and none of them panics.
    fn drop(&mut self) {
        self.remove_containers();
        if let Some(mut child) = self.daemon.take() {
            run("kill", &["-TERM", &child.id().to_string()]);
            let begun = Instant::now();
            while begun.elapsed() < SHORT && !child.try_wait().is_ok_and(|status| status.is_some()) {
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < SHORT {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for pid in left {
                run("kill", &["-KILL", &pid]);
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        run("ip", &["link", "delete", &self.name]);
        self.unmount();
        for root in self.cgroups() {
            remove_folders(&root);
        }
    }
}
