//! A repository, and `tagfall supervise` that follows it, in a folder of their own.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::Repo;
use serde_json::Value;

use crate::Failure;
use crate::clock::{now_ns, pause};

/// By when anything that is waited for must have happened.
const BOUND: Duration = Duration::from_secs(60);

/// The release binary beside this one.
pub(crate) fn tagfall() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?.with_file_name("tagfall");
    if program.is_file() {
        Ok(program)
    } else {
        Err(format!("{} is not there: `cargo build --release --workspace` makes it", program.display()).into())
    }
}

/// The smallest service, beside this binary.
pub(crate) fn small_service() -> Result<String, Failure> {
    let program = std::env::current_exe()?.with_file_name("tagfall-bench-service");
    if program.is_file() {
        Ok(program.display().to_string())
    } else {
        Err(format!("{} is not there: `cargo build --release --workspace` makes it", program.display()).into())
    }
}

pub(crate) fn me() -> Result<String, Failure> {
    Ok(std::env::current_exe()?.display().to_string())
}

/// A supervisor at work.
pub(crate) struct Stage {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) repo: Repo,
    keeper: Option<Child>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let dir = common::temp_dir();
        let repo = Repo::new(dir.path());
        Self { dir, repo, keeper: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Starts it with the settings of a fresh installation.
    pub(crate) fn supervise(&mut self) -> Result<(), Failure> {
        let url = self.repo.bare().display().to_string();
        self.supervise_with(&url, &[])
    }

    pub(crate) fn supervise_with(&mut self, url: &str, more: &[&str]) -> Result<(), Failure> {
        let mut command = Command::new(tagfall()?);
        command.arg("supervise").args(["--config", "/nonexistent"]);
        let data = format!("data_dir={}", self.data().display());
        let socket = format!("api.socket={}", self.socket().display());
        for set in
            [&format!("source.url={url}"), "source.verify.mode=off", &data, &socket].into_iter().chain(more.iter().copied())
        {
            command.args(["--set", set]);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TAGFALL_") {
                command.env_remove(name);
            }
        }
        let log = std::fs::File::create(self.path("supervise.log"))?;
        self.keeper = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.path(common::SOCKET)
    }

    pub(crate) fn keeper_pid(&self) -> u32 {
        self.keeper.as_ref().map_or(0, Child::id)
    }

    /// Waits for the end of one that was told to end.
    pub(crate) fn wait_ended(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.wait());
        }
    }

    /// The whole status.
    pub(crate) fn status(&self) -> Result<Value, Failure> {
        get(&self.socket(), "/v1/status")
    }

    /// Waits until a tag is applied whole.
    pub(crate) fn wait_applied(&self, tag: &str) -> Result<Value, Failure> {
        let end = now_ns() + u64::try_from(BOUND.as_nanos())?;
        loop {
            let seen = self.status();
            if let Ok(status) = &seen
                && status["release"]["tag"] == tag
                && !status["release"]["applied_at"].is_null()
            {
                return seen;
            }
            if now_ns() > end {
                let log = std::fs::read_to_string(self.path("supervise.log")).unwrap_or_default();
                return Err(format!("{tag} was not applied in time: {seen:?}\n{log}").into());
            }
            pause(Duration::from_millis(5));
        }
    }

    /// Processes of its services by group, as the status names them.
    pub(crate) fn pids(&self) -> Result<Vec<(String, u64)>, Failure> {
        let status = self.status()?;
        let groups = status["groups"].as_array().cloned().unwrap_or_default();
        let pid = |group: &Value| {
            let name = group["name"].as_str().unwrap_or_default().to_owned();
            group["service"]["pid"].as_u64().map(|pid| (name, pid))
        };
        Ok(groups.iter().filter_map(pid).collect())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(Command::new("kill").args(["-TERM", &keeper.id().to_string()]).status());
            drop(keeper.wait());
        }
    }
}

/// One answer of the API.
pub(crate) fn get(socket: &Path, path: &str) -> Result<Value, Failure> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: tagfall\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let at = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or("an answer without a body")?;
    Ok(serde_json::from_slice(&answer[at + 4..])?)
}

/// A group whose service is this binary, with one file of config.
pub(crate) fn group(name: &str, fifo: &Path, mount: Option<&Path>, more: &str) -> Result<String, Failure> {
    let config = mount.map_or_else(String::new, |mount| format!(", \"{}/app.conf\"", mount.display()));
    let mount = mount.map_or_else(String::new, |mount| format!("[mount]\npath = \"{}\"\n", mount.display()));
    let exec = format!("[\"{}\", \"service\", \"{}\"{config}]", me()?, fifo.display());
    Ok(format!(
        "format = 1\n[placement]\nlabels = {{}}\n[service]\nexec = {exec}\nreload_signal = \"SIGHUP\"\nbackoff = {{ reset_after = \"1s\" }}\n\
         [config]\nversion = \"0\"\nname = \"{name}\"\n{mount}{more}"
    ))
}
