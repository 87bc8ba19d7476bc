//! The demo's supervisor: started, listened to, ended. All that is known of it comes through its API.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::process::Child;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::content::quoted;
use super::folder::Folder;
use super::page::{Page, When};
use super::{CliError, Signals};
use crate::api::wire::{Event, Status};
use crate::cli::client::{Address, Client, Lines};
use crate::cli::read;

/// By when each thing that the show waits for has come, on a busy machine too.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Between two looks for what makes no event of its own: a socket that appears, a program that has read its file.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Events that come so soon after what was waited for belong to it.
const SETTLE: Duration = Duration::from_millis(30);
/// By when the service must answer one question.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long the supervisor may take for an end in order; then it is told to kill what is left.
const END_MAX: Duration = Duration::from_secs(20);
/// How long it may take for that; then it is killed itself.
const KILL_MAX: Duration = Duration::from_secs(10);
/// Lines of the supervisor's log that are shown with a failure.
const LAST_WORDS: usize = 20;

/// What the service says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) greeting: String,
    pub(super) pid: i32,
}

/// The ways to the supervisor and to the service.
#[derive(Debug)]
pub(super) struct Look {
    api: Client,
    web: Client,
}

impl Look {
    /// The supervisor's status.
    pub(super) async fn status(&self) -> Result<Status, CliError> {
        read(&self.api.get("/v1/status").await?)
    }

    /// What the service answers; `None` where it does not (yet).
    pub(super) async fn answer(&self) -> Option<Answer> {
        let body = timeout(ANSWER_MAX, self.web.get("/")).await.ok()?.ok()?;
        let text = String::from_utf8_lossy(&body);
        let (greeting, rest) = text.split_once('\n')?;
        let pid = rest.trim().strip_prefix("(process ")?.strip_suffix(')')?.parse().ok()?;
        Some(Answer { greeting: greeting.to_owned(), pid })
    }
}

/// A running supervisor.
pub(super) struct Stage {
    pub(super) look: Look,
    child: Child,
    root: PathBuf,
    log: PathBuf,
    events: Option<Lines>,
    /// Id of the event that was heard last.
    last: u64,
}

/// Two ports of loopback on which nothing listens now.
pub(super) fn free_ports() -> Result<(u16, u16), CliError> {
    let failed = |error| CliError::could_not_run("find a free port of 127.0.0.1", error);
    // Both held at once, or they might be the same.
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (first, second) = (listen().map_err(failed)?, listen().map_err(failed)?);
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    Ok((port(&first).map_err(failed)?, port(&second).map_err(failed)?))
}

impl Stage {
    /// Starts a supervisor that ends with this process, in whatever way that ends.
    pub(super) fn start(
        program: &Path,
        folder: &Folder,
        signers: &Path,
        (web_port, api_port): (u16, u16),
    ) -> Result<Self, CliError> {
        let failed = |error| CliError::failed("start the supervisor", error);
        fs::create_dir(folder.etc())
            .and_then(|()| fs::write(folder.settings(), settings(folder, signers, api_port)))
            .map_err(failed)?;
        // So that what a killed supervisor leaves comes to this process, which ends it.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| failed(error.into()))?;
        let log = File::create(folder.log()).map_err(failed)?;
        let mut command = std::process::Command::new(program);
        command.arg("demo").arg("--dir").arg(folder.root()).arg("--supervise-for").arg(std::process::id().to_string());
        for (name, _) in std::env::vars_os() {
            // Settings that are meant for another supervisor.
            if name.to_string_lossy().starts_with("TAGFALL_") {
                command.env_remove(name);
            }
        }
        // A group of its own, so that ctrl-C reaches the demo alone, which then ends all in order.
        command.process_group(0).current_dir(folder.root()).stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        let child = tokio::process::Command::from(command).spawn().map_err(failed)?;
        let client = |address| Client { address, token: None, talk: None };
        let look = Look {
            api: client(Address::Unix(folder.socket())),
            web: client(Address::Tcp(Ipv4Addr::LOCALHOST.to_string(), web_port)),
        };
        Ok(Self { look, child, root: folder.root().to_owned(), log: folder.log(), events: None, last: 0 })
    }

    /// Shows events until `look` finds what is waited for.
    pub(super) async fn watch<T>(
        &mut self,
        what: &str,
        page: &Page,
        when: When,
        look: impl AsyncFn(&Look) -> Result<Option<T>, CliError>,
    ) -> Result<T, CliError> {
        let until = Instant::now() + WAIT_MAX;
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.events.is_some()
                && let Some(found) = look(&self.look).await?
            {
                return Ok(found);
            }
            tokio::select! {
                biased;
                event = self.event() => page.event(when, &event?)?,
                _ = tick.tick() => {}
                () = sleep_until(until) => {
                    let late = format!("it has not come within {} s", WAIT_MAX.as_secs());
                    return Err(CliError::failed(format!("see {what}"), late));
                }
            }
        }
    }

    /// Events that are on their way.
    pub(super) async fn settle(&mut self) -> Result<Vec<Event>, CliError> {
        let mut events = Vec::new();
        while let Ok(event) = timeout(SETTLE, self.event()).await {
            events.push(event?);
        }
        Ok(events)
    }

    /// The next event. Of a supervisor that was killed, its successor tells the rest.
    pub(super) async fn event(&mut self) -> Result<Event, CliError> {
        loop {
            let Some(events) = &mut self.events else {
                self.connect().await?;
                continue;
            };
            match events.next().await {
                Ok(Some(line)) => {
                    let Some(json) = line.strip_prefix(b"data: ") else { continue };
                    let event: Event = read(json)?;
                    self.last = event.id;
                    return Ok(event);
                }
                Ok(None) | Err(_) => self.events = None,
            }
        }
    }

    /// Subscribes to events as soon as the supervisor answers.
    async fn connect(&mut self) -> Result<(), CliError> {
        let path = format!("/v1/events?follow=true&since={}", self.last);
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match self.look.api.lines(&path).await {
                Ok(events) => {
                    self.events = Some(events);
                    return Ok(());
                }
                Err(CliError::NoSupervisor { .. } | CliError::WentAway { .. }) => {}
                Err(error) => return Err(error),
            }
            tokio::select! {
                ended = self.child.wait() => {
                    let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                    return Err(CliError::failed("go on with the demo: its supervisor has ended", how));
                }
                _ = tick.tick() => {}
            }
        }
    }

    /// The end of the supervisor's log.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }

    /// Ends the supervisor: in order, at once with another signal, and in any case.
    pub(super) async fn end(&mut self, signals: &mut Signals) -> Result<(), CliError> {
        self.events = None;
        self.signal(Signal::TERM);
        let orderly = tokio::select! {
            _ = self.child.wait() => true,
            () = signals.next() => false,
            () = tokio::time::sleep(END_MAX) => false,
        };
        if !orderly {
            self.signal(Signal::TERM);
            if timeout(KILL_MAX, self.child.wait()).await.is_err() {
                let pid = self.child.id().unwrap_or_default();
                self.signal(Signal::KILL);
                let step = format!("end the supervisor (process {pid}) in order: it was killed, and its services may still run");
                return Err(CliError::failed(step, format!("it has not ended within {} s", (END_MAX + KILL_MAX).as_secs())));
            }
        }
        self.sweep().await
    }

    /// Ends what a supervisor that was killed has left: it has become this process's child.
    async fn sweep(&self) -> Result<(), CliError> {
        let until = Instant::now() + KILL_MAX;
        let mut tick = interval(LOOK_EVERY);
        loop {
            let left = orphans(&self.root);
            if left.is_empty() {
                return Ok(());
            }
            for pid in &left {
                let _ = kill_process(*pid, Signal::KILL);
                let _ = waitpid(Some(*pid), WaitOptions::NOHANG);
            }
            if Instant::now() > until {
                return Err(CliError::failed("end what the killed supervisor has left", format!("{left:?} do not end")));
            }
            tick.tick().await;
        }
    }

    /// Sends a signal, unless it has ended: its number is its own until it was waited for.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Children of this process that work in the demo's folder. A newcomer's shell may be there, too, but is no child.
fn orphans(root: &Path) -> Vec<Pid> {
    let own = std::process::id().to_string();
    let ours = |pid: &Pid| {
        let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        // After the name, which may hold anything: the state, then the parent.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1));
        parent == Some(&own) && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(root))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter(ours).collect()
}

fn settings(folder: &Folder, signers: &Path, api_port: u16) -> String {
    let path = |path: PathBuf| quoted(&path.to_string_lossy());
    format!(
        "# Written by `tagfall demo`.
name = \"demo\"
data_dir = {data}

[source]
url = {url}

[source.verify]
allowed_signers = {signers}

[api]
socket = {socket}
listen = \"127.0.0.1:{api_port}\"
",
        data = path(folder.data()),
        url = path(folder.bare()),
        signers = path(signers.to_owned()),
        socket = path(folder.socket()),
    )
}
