//! One supervisor with one small group, and what may be asked of it from outside.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{LONG, Repo, SHORT, Supervisor, Tagfall, wait_for};
use serde_json::Value;
use tempfile::TempDir;

/// The group that every test runs.
pub(crate) const WEB: &str = "groups/web/group.toml";

/// How long nothing may happen before "it was left alone" is believed.
pub(crate) const QUIET: Duration = Duration::from_secs(1);

/// A host, its repository and its folder.
pub(crate) struct Host {
    pub(crate) supervisor: Supervisor,
    pub(crate) repo: Repo,
    pub(crate) settings: String,
    // Last, so that it goes when nothing uses it any more.
    pub(crate) dir: TempDir,
}

/// What must not change while something else goes wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Untouched {
    pid: u64,
    starts: usize,
    files: [String; 2],
    publication: String,
}

impl Host {
    /// One that runs `v1.0.0`.
    pub(crate) fn start() -> Self {
        Self::with(|settings| settings)
    }

    /// The same, with other settings of the supervisor.
    pub(crate) fn with(change: impl FnOnce(String) -> String) -> Self {
        let host = Self::bare(change);
        host.release("v1.0.0");
        host.supervisor.wait_ready("v1.0.0");
        host
    }

    /// One whose repository is empty.
    pub(crate) fn bare(change: impl FnOnce(String) -> String) -> Self {
        Self::begin(change, &[])
    }

    /// The same, started by a program that runs what stands behind its arguments.
    pub(crate) fn through(through: &[&str]) -> Self {
        Self::begin(|settings| settings, through)
    }

    fn begin(change: impl FnOnce(String) -> String, through: &[&str]) -> Self {
        let dir = common::temp_dir();
        let repo = Repo::new(dir.path());
        let settings = change(Supervisor::settings(dir.path(), &repo.bare().display().to_string(), "{}"));
        let supervisor = Supervisor::start_with(&tagfall(), dir.path(), &settings, through);
        Self { supervisor, repo, settings, dir }
    }

    /// Stops all, as a person would with ctrl-C.
    pub(crate) fn stop(&mut self) {
        assert_eq!(self.supervisor.terminate(), Some(0), "{}", self.supervisor.log());
        assert!(!self.path(common::SOCKET).exists(), "the socket is left: {}", self.supervisor.log());
    }

    /// Starts it again on what is there.
    pub(crate) fn start_again(&mut self) {
        self.supervisor.start_again(&tagfall(), &self.settings, &[]);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `[service]` of the group: writes down each start, each start while another copy is still there, and what it sees each
    /// time that it is told of new files. Another `mark` is another launch.
    pub(crate) fn service(&self, mark: &str) -> String {
        let (starts, lock, told, seen) = (self.path("starts"), self.path("lock"), self.path("told"), self.mount().join("a.conf"));
        let script = format!(
            ": {mark}; echo $$ >> {starts}; exec 9>{lock}; flock -n 9 || echo twice >> {starts}; \
             trap 'cat {seen} >> {told}' HUP; sleep 1000000 9>&- & while wait $!; [ $? -gt 128 ]; do :; done",
            starts = starts.display(),
            lock = lock.display(),
            told = told.display(),
            seen = seen.display(),
        );
        format!("[service]\nexec = [\"/bin/sh\", \"-c\", \"{script}\"]\nreload_signal = \"SIGHUP\"\n")
    }

    /// The group's file with another service.
    pub(crate) fn group_with(&self, service: &str, version: &str) -> String {
        let mount = self.mount();
        format!(
            "format = 1\n[placement]\nlabels = {{}}\n{service}[config]\nversion = \"{version}\"\n[mount]\npath = \"{}\"\n",
            mount.display()
        )
    }

    /// The group's file as a good release has it.
    pub(crate) fn group(&self, version: &str) -> String {
        self.group_with(&self.service("one"), version)
    }

    /// Where the group publishes.
    pub(crate) fn mount(&self) -> PathBuf {
        self.path("mnt/web")
    }

    /// Writes a good release into the clone.
    pub(crate) fn write(&self, version: &str) {
        self.repo.write(WEB, &self.group(version));
        for name in ["a", "b"] {
            self.repo.write(&format!("groups/web/config/{name}.conf.hbs"), "version = {{cfg.version}}\n");
        }
    }

    /// Commits, tags and pushes a good release.
    pub(crate) fn release(&self, version: &str) {
        self.write(version);
        self.repo.release(version);
    }

    /// The group as the status shows it now.
    pub(crate) fn web(&self) -> Value {
        wait_for("web in the status", SHORT, || group_of(&self.supervisor.status()?, "web.default"))
    }

    /// The pid of the group's service.
    pub(crate) fn pid(&self) -> u64 {
        let web = self.web();
        web["service"]["pid"].as_u64().unwrap_or_else(|| panic!("no process: {web:#}"))
    }

    /// The supervisor's pid.
    pub(crate) fn supervisor_pid(&self) -> u64 {
        wait_for("the supervisor's pid", LONG, || supervisor_pid(&self.supervisor.status()?))
    }

    /// Every start of the service so far, by pid.
    pub(crate) fn starts(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("starts")).unwrap_or_default();
        assert!(!text.contains("twice"), "two copies ran at a time: {text}");
        text.lines().map(str::to_owned).collect()
    }

    /// Both published files as the host shows them.
    pub(crate) fn files(&self) -> [String; 2] {
        ["a.conf", "b.conf"].map(|name| {
            let file = self.mount().join(name);
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        })
    }

    /// What the service saw when it was last told of new files.
    pub(crate) fn told(&self) -> String {
        let text = std::fs::read_to_string(self.path("told")).unwrap_or_default();
        text.lines().last().unwrap_or_default().to_owned()
    }

    /// What somebody reads who opens the host's path once.
    pub(crate) fn one_version(&self) -> String {
        one_version(&self.mount()).unwrap_or_else(|error| panic!("{}: {error}", self.mount().display()))
    }

    /// The same through the eyes of a process.
    pub(crate) fn seen_by(&self, pid: u64) -> String {
        let path = PathBuf::from(format!("/proc/{pid}/root")).join(self.mount().strip_prefix("/").unwrap());
        one_version(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Events with a reason, oldest first, by their messages.
    pub(crate) fn events(&self, reason: &str) -> Result<Vec<String>, String> {
        let events = self.supervisor.client(&["events", "-o", "json"]);
        let values: Vec<Value> = serde_json::from_str(&events.stdout).map_err(|error| format!("{error}: {events:?}"))?;
        Ok(values.iter().filter(|event| event["reason"] == reason).map(|event| text(&event["message"])).collect())
    }

    /// Takes down what must stay as it is.
    pub(crate) fn untouched(&self) -> Untouched {
        let web = self.web();
        Untouched {
            pid: web["service"]["pid"].as_u64().unwrap_or_else(|| panic!("no process: {web:#}")),
            starts: self.starts().len(),
            files: self.files(),
            publication: text(&web["mount"]["publication"]),
        }
    }

    /// Waits until a tag is shown as refused; returns its reason and message.
    pub(crate) fn refused(&self, tag: &str) -> (String, String) {
        wait_for(&format!("{tag} is refused"), LONG, || {
            let status = self.supervisor.status()?;
            let entry = status["refused"].as_array().into_iter().flatten().find(|entry| entry["tag"] == tag).cloned();
            let entry = entry.ok_or_else(|| format!("{status:#}\n{}", self.supervisor.log()))?;
            Ok((text(&entry["reason"]), text(&entry["message"])))
        })
    }

    /// Waits until a condition of the supervisor or the group has a reason; returns its message.
    pub(crate) fn said(&self, reason: &str) -> String {
        wait_for(&format!("{reason} is said"), LONG, || {
            let status = self.supervisor.status().map_err(|error| format!("{error}\n{}", self.supervisor.log()))?;
            let own = status["conditions"].as_array().cloned().unwrap_or_default();
            let groups = status["groups"].as_array().cloned().unwrap_or_default();
            let theirs = groups.iter().flat_map(|group| group["conditions"].as_array().cloned().unwrap_or_default());
            let found = own.into_iter().chain(theirs).find(|condition| condition["reason"] == reason);
            found.map(|condition| text(&condition["message"])).ok_or_else(|| format!("{status:#}\n{}", self.supervisor.log()))
        })
    }

    /// Waits until it is converged on a tag, with the files and the processes that this asks for.
    pub(crate) fn wait_applied(&self, version: &str, starts: usize) {
        self.supervisor.wait_ready(version);
        let line = format!("version = {version}\n");
        assert_eq!(self.files(), [line.clone(), line], "{version}");
        assert_eq!(self.starts().len(), starts, "starts of the service by {version}: {}", self.supervisor.log());
    }
}

pub(crate) fn tagfall() -> Tagfall {
    Tagfall::new(env!("CARGO_BIN_EXE_tagfall"))
}

pub(crate) fn group_of(status: &Value, name: &str) -> Result<Value, String> {
    let found = status["groups"].as_array().into_iter().flatten().find(|group| group["name"] == name);
    found.cloned().ok_or_else(|| format!("{status:#}"))
}

pub(crate) fn supervisor_pid(status: &Value) -> Result<u64, String> {
    status["supervisor"]["pid"].as_u64().ok_or_else(|| format!("{status:#}"))
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn is_alive(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Both files, read as somebody who opened the folder once: the version that they carry.
///
/// # Panics
/// Where they carry two.
pub(crate) fn one_version(folder: &Path) -> std::io::Result<String> {
    let dir = std::fs::File::open(folder)?;
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()));
    let (a, b) = (read("a.conf")?, read("b.conf")?);
    assert_eq!(a, b, "two versions in {}", folder.display());
    Ok(a)
}

impl Untouched {
    /// What was published.
    pub(crate) fn files(&self) -> [String; 2] {
        self.files.clone()
    }
}
