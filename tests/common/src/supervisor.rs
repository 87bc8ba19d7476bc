//! The program as a person runs it: a command to its end, and `tagfall supervise` in a folder of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::wait::{LONG, SHORT, wait_for, wait_until};

/// Where a supervisor listens, below its test's folder: in one of its own, which is made for it.
pub const SOCKET: &str = "run/api.sock";

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Output {
    /// Exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Data.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
}

/// The program under test: pass `env!("CARGO_BIN_EXE_tagfall")`.
#[derive(Debug, Clone)]
pub struct Tagfall {
    program: PathBuf,
}

impl Tagfall {
    /// For the program at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { program: path.into() }
    }

    /// A command without any of the caller's settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_through(&[], arguments)
    }

    /// The same, started by a program that runs what stands behind its arguments.
    pub fn command_through(&self, through: &[&str], arguments: &[&str]) -> Command {
        let mut command = match through.split_first() {
            Some((program, own)) => {
                let mut command = Command::new(program);
                command.args(own).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(arguments).stdin(Stdio::null()).env("NO_COLOR", "1").env("GIT_CONFIG_NOSYSTEM", "1");
        command.env("GIT_CONFIG_GLOBAL", "/dev/null");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TAGFALL_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs to its end.
    ///
    /// # Panics
    /// Where the program cannot be started.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        Output {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A running `tagfall supervise`; the child is its keeper. Dropping it ends all that it started.
#[derive(Debug)]
pub struct Supervisor {
    tagfall: Tagfall,
    keeper: Child,
    dir: PathBuf,
}

impl Supervisor {
    /// Starts one that follows `source`, with its files below `dir`; `labels` is a TOML inline table.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start(tagfall: &Tagfall, dir: &Path, source: &Path, labels: &str) -> Self {
        Self::start_with(tagfall, dir, &Self::settings(dir, &source.display().to_string(), labels), &[])
    }

    /// The settings that [`Supervisor::start`] uses, to change and hand to [`Supervisor::start_with`].
    pub fn settings(dir: &Path, source: &str, labels: &str) -> String {
        format!(
            "name = \"test-1\"\nlabels = {labels}\ndata_dir = \"{data}\"\n\n[source]\nurl = \"{source}\"\npoll = \"1s\"\n\n\
             [source.verify]\nmode = \"off\"\n\n[api]\nsocket = \"{socket}\"\nlisten = \"127.0.0.1:{port}\"\n",
            data = dir.join("data").display(),
            socket = dir.join(SOCKET).display(),
            port = crate::free_port(),
        )
    }

    /// Starts one with these settings, through a program that runs what stands behind its arguments (`setpriv …`). The
    /// socket must be [`SOCKET`] in `dir`.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start_with(tagfall: &Tagfall, dir: &Path, settings: &str, through: &[&str]) -> Self {
        let keeper = Self::spawn(tagfall, dir, settings, through);
        Self { tagfall: tagfall.clone(), keeper, dir: dir.to_owned() }
    }

    /// Starts it again, after it has ended.
    ///
    /// # Panics
    /// Where it cannot be started, or has not ended.
    pub fn start_again(&mut self, tagfall: &Tagfall, settings: &str, through: &[&str]) {
        assert!(self.ended().is_some(), "it still runs");
        self.keeper = Self::spawn(tagfall, &self.dir, settings, through);
        self.tagfall = tagfall.clone();
    }

    fn spawn(tagfall: &Tagfall, dir: &Path, settings: &str, through: &[&str]) -> Child {
        fs::write(dir.join("supervisor.toml"), settings).expect("the supervisor's file can be written");
        let log = File::options().create(true).append(true).open(dir.join("supervise.log")).expect("the log can be opened");
        let config = dir.join("supervisor.toml").display().to_string();
        let mut command = tagfall.command_through(through, &["supervise", "--config", &config]);
        command.current_dir(dir).stdout(Stdio::null()).stderr(log);
        command.spawn().expect("the supervisor can be started")
    }

    /// Whether the keeper has ended, and how.
    ///
    /// # Panics
    /// Where it cannot be asked.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        self.keeper.try_wait().expect("the keeper can be waited for").map(|status| status.code())
    }

    /// Pid of the keeper: the process that `supervise` is.
    pub fn keeper_pid(&self) -> u32 {
        self.keeper.id()
    }

    /// What keeper and supervisor said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("supervise.log")).unwrap_or_default()
    }

    /// Runs a client command against it.
    ///
    /// # Panics
    /// Where the program cannot be started.
    pub fn client(&self, arguments: &[&str]) -> Output {
        let api = format!("unix:{}", self.dir.join(SOCKET).display());
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--api", &api]).collect();
        self.tagfall.run(&arguments)
    }

    /// `status -o json`.
    ///
    /// # Errors
    /// What it said instead.
    pub fn status(&self) -> Result<Value, String> {
        let output = self.client(&["status", "-o", "json"]);
        serde_json::from_str(&output.stdout)
            .map_err(|error| format!("{error}: {:?}: {}{}", output.code, output.stdout, output.stderr))
    }

    /// Waits until the supervisor is converged on `tag`: `Ready`, and nothing waits.
    ///
    /// # Panics
    /// With the last status and the log, when it is not in time.
    pub fn wait_ready(&self, tag: &str) -> Value {
        let status = wait_for(&format!("ready on {tag}"), LONG, || {
            let status = self.status().map_err(|error| format!("{error}\n{}", self.log()))?;
            let applied = status["release"]["tag"] == tag && !status["release"]["applied_at"].is_null();
            let waiting = status["groups"].as_array().into_iter().flatten().any(|group| group["waits"] != serde_json::json!([]));
            if applied && is_true(&status["conditions"], "Ready") && !waiting {
                Ok(status)
            } else {
                Err(format!("{status:#}\n{}", self.log()))
            }
        });
        assert_eq!(status["release"]["tag"], tag);
        status
    }

    /// Sends a signal to one of its processes.
    ///
    /// # Panics
    /// Where there is no such process.
    pub fn signal(pid: u64, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "{name} cannot be sent to {pid}");
    }

    /// SIGTERM to the keeper, then its exit code.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn terminate(&mut self) -> Option<i32> {
        Self::signal(u64::from(self.keeper.id()), "TERM");
        let mut code = None;
        wait_until("the keeper has ended", LONG, || match self.keeper.try_wait() {
            Ok(Some(status)) => {
                code = status.code();
                true
            }
            Ok(None) => false,
            Err(error) => panic!("the keeper cannot be waited for: {error}"),
        });
        code
    }
}

impl Drop for Supervisor {
    /// Asks it to end; what does not end in time is killed, and so is all that still works in the test's folder.
    fn drop(&mut self) {
        if self.keeper.try_wait().ok().flatten().is_none() {
            drop(Command::new("kill").args(["-TERM", &self.keeper.id().to_string()]).status());
            let begun = Instant::now();
            while self.keeper.try_wait().ok().flatten().is_none() && begun.elapsed() < SHORT {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            drop(self.keeper.kill());
            drop(self.keeper.wait());
        }
        for pid in pids_in(&self.dir) {
            drop(Command::new("kill").args(["-KILL", &pid]).status());
        }
    }
}

/// Processes whose working directory lies in a folder.
fn pids_in(dir: &Path) -> Vec<String> {
    let works_there = |pid: &String| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.bytes().all(|b| b.is_ascii_digit())).filter(works_there).collect()
}

/// Whether a list of conditions says `True` for one kind.
fn is_true(conditions: &Value, kind: &str) -> bool {
    let all = conditions.as_array().into_iter().flatten();
    all.filter(|condition| condition["type"] == kind).any(|condition| condition["status"] == "True")
}
