//! The supervisor's end of the child: one request in, one answer out, within a wall-clock bound.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::child::{Answer, Ask, Origin, Request, SUBCOMMAND};
use super::refs::GitDir;
use super::remote::Remote;
use super::statements::STATEMENT_MAX_BYTES;
use super::{FetchStats, SourceConfig, refuse};
use crate::model::{ObjectId, Reason, Refusal, RemoteTag, TagName};

/// Bytes of an answer: what is said of one tag, and of everything else together.
const ANSWER_PER_TAG_BYTES: u64 = 512;
/// A statement's bytes are written as numbers, of up to four characters each.
const ANSWER_BYTES: u64 = (64 << 10) + 4 * STATEMENT_MAX_BYTES;
/// Variables of the supervisor that the child sees: how to reach the network. Everything else stays out of it.
const ENVIRONMENT: [&str; 10] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "RUST_BACKTRACE",
];

pub(super) async fn list(config: &SourceConfig, remote: &Remote, folder: &Path) -> Result<Vec<RemoteTag>, Refusal> {
    match call(config, remote, Ask::List, folder).await? {
        Answer::Tags(tags) => Ok(tags.into_iter().map(|(name, object)| RemoteTag { name: TagName::new(name), object }).collect()),
        other @ (Answer::Fetched { .. } | Answer::Statement(_) | Answer::Swept | Answer::Refused(_)) => Err(unexpected(&other)),
    }
}

pub(super) async fn fetch(
    config: &SourceConfig,
    remote: &Remote,
    tag: &RemoteTag,
    have: Vec<ObjectId>,
    fresh: bool,
    quarantine: &Path,
) -> Result<FetchStats, Refusal> {
    let ask = Ask::Fetch { name: tag.name.as_str().to_owned(), object: tag.object, have, fresh };
    match call(config, remote, ask, quarantine).await? {
        Answer::Fetched { bytes, objects } => Ok(FetchStats { bytes, objects }),
        other @ (Answer::Tags(_) | Answer::Statement(_) | Answer::Swept | Answer::Refused(_)) => Err(unexpected(&other)),
    }
}

pub(super) async fn statement(
    config: &SourceConfig,
    remote: &Remote,
    tag: &RemoteTag,
    have: Vec<ObjectId>,
    quarantine: &Path,
) -> Result<Vec<u8>, Refusal> {
    let ask = Ask::Statement { name: tag.name.as_str().to_owned(), object: tag.object, have };
    match call(config, remote, ask, quarantine).await? {
        Answer::Statement(bytes) => Ok(bytes),
        other @ (Answer::Tags(_) | Answer::Fetched { .. } | Answer::Swept | Answer::Refused(_)) => Err(unexpected(&other)),
    }
}

pub(super) async fn sweep(config: &SourceConfig, remote: &Remote, keep: Vec<ObjectId>, quarantine: &Path) -> Result<(), Refusal> {
    match call(config, remote, Ask::Sweep { keep }, quarantine).await? {
        Answer::Swept => Ok(()),
        other @ (Answer::Tags(_) | Answer::Fetched { .. } | Answer::Statement(_) | Answer::Refused(_)) => Err(unexpected(&other)),
    }
}

/// Starts the child, asks, waits. Dropping the future kills it.
async fn call(config: &SourceConfig, remote: &Remote, ask: Ask, folder: &Path) -> Result<Answer, Refusal> {
    let origin = match remote {
        Remote::Local(path) => Origin::Local { path: path.clone(), objects: GitDir::find(path)?.objects },
        Remote::Network(url) => Origin::Network { url: url.clone() },
    };
    let mut credentials = config.credentials.clone();
    credentials.known_hosts_file = credentials.known_hosts_file.or_else(default_known_hosts);
    let request = Request {
        parent_pid: std::process::id(),
        origin,
        credentials,
        limits: config.limits,
        store: config.store.clone(),
        folder: folder.to_owned(),
        ask,
    };
    let bound = Duration::from_secs(config.limits.seconds);
    match tokio::time::timeout(bound, converse(config, &request)).await {
        Ok(answer) => match answer? {
            Answer::Refused(refusal) => Err(refusal),
            answer @ (Answer::Tags(_) | Answer::Fetched { .. } | Answer::Statement(_) | Answer::Swept) => Ok(answer),
        },
        Err(_) => {
            let message = format!(
                "`{remote}` was not done within {} s (`source.limits.seconds`); nothing was taken from it, and it is tried again",
                bound.as_secs()
            );
            Err(refuse(Reason::GitOperationFailed, message))
        }
    }
}

async fn converse(config: &SourceConfig, request: &Request) -> Result<Answer, Refusal> {
    let trouble = |step: &str, error: &dyn std::fmt::Display| {
        refuse(Reason::GitOperationFailed, format!("the child that fetches cannot be {step}: {error}; it is tried again"))
    };
    let mut child = start(config, request).map_err(|error| trouble("started", &error))?;
    let question = serde_json::to_vec(request).map_err(|error| trouble("asked", &error))?;
    if let Some(mut input) = child.stdin.take() {
        // A child that ended early says why by its status.
        let _ = input.write_all(&question).await;
    }
    let max_bytes = ANSWER_BYTES + config.limits.tags.saturating_mul(ANSWER_PER_TAG_BYTES);
    let mut answer = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(max_bytes).read_to_end(&mut answer).await.map_err(|error| trouble("heard", &error))?;
    }
    let status = child.wait().await.map_err(|error| trouble("waited for", &error))?;
    if !status.success() {
        return Err(ended(status, request));
    }
    serde_json::from_slice(&answer).map_err(|error| trouble("understood", &error))
}

fn start(config: &SourceConfig, request: &Request) -> std::io::Result<Child> {
    let kept = |name: &'static str| std::env::var_os(name).map(|value| (name, value));
    let environment: Vec<(&str, OsString)> = ENVIRONMENT.into_iter().filter_map(kept).collect();
    Command::new(&config.program)
        .arg(SUBCOMMAND)
        .env_clear()
        .envs(environment)
        .env("HOME", &request.folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Words for a child that ended without an answer: mostly one that met a limit of its own.
fn ended(status: ExitStatus, request: &Request) -> Refusal {
    use std::os::unix::process::ExitStatusExt;
    let limits = &request.limits;
    let what = request.origin.shown();
    let Some(signal) = status.signal() else {
        return refuse(Reason::GitOperationFailed, format!("fetching from `{what}` broke off ({status}); it is tried again"));
    };
    let why = match signal {
        libc::SIGXCPU => format!("it took more than {} s of processor time (`source.limits.seconds`)", limits.seconds),
        libc::SIGXFSZ => format!("it wrote more than {} bytes (`source.limits.pack_bytes`)", limits.pack_bytes),
        libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS => {
            format!("it ended by signal {signal}, as it does when {} bytes of memory are not enough", limits.memory_bytes)
        }
        _ => {
            let message = format!("fetching from `{what}` was ended by signal {signal}; it is tried again");
            return refuse(Reason::GitOperationFailed, message);
        }
    };
    refuse(Reason::LimitExceeded, format!("fetching from `{what}` was stopped: {why}"))
}

fn unexpected(answer: &Answer) -> Refusal {
    refuse(Reason::GitOperationFailed, format!("the child that fetches answered another question: {answer:?}"))
}

/// Where OpenSSH keeps known hosts.
fn default_known_hosts() -> Option<PathBuf> {
    let of_user = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".ssh/known_hosts"));
    [of_user, Some(PathBuf::from("/etc/ssh/ssh_known_hosts"))].into_iter().flatten().find(|path| path.is_file())
}
