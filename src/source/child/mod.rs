//! The child that does everything with a remote: `tagfall fetch-child`, started by the supervisor and by nobody else.
//!
//! It reads one [`Request`] as JSON from standard input, limits itself (memory, processor time, file size; it dies with
//! its parent), does what is asked and writes one [`Answer`] to standard output. libgit2 can be made to use any amount of
//! memory and time by whoever it talks to; here that costs a process that is started for one question. It writes only
//! below the folder that it is given, never into the store.

mod copy;
mod network;
mod ssh_home;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use git2::Odb;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};

use super::config::{Credentials, Limits};
use super::store::open_objects;
use super::walk::{Fault, Objects};
use super::{refuse, remote};
use crate::model::{ObjectId, Reason, Refusal, RemoteTag, TagName};

/// The hidden subcommand.
pub(super) const SUBCOMMAND: &str = "fetch-child";
/// Largest question that is read.
const REQUEST_MAX_BYTES: u64 = 1 << 20;
/// A pack may grow by the bases of thin deltas, and its index lies beside it.
const FILE_SLACK_BYTES: u64 = 64 << 20;
/// What cannot be limited or answered ends the child so.
const FAILED: u8 = 70;

/// One question.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    /// Whom it dies with.
    pub(super) parent_pid: u32,
    pub(super) origin: Origin,
    pub(super) credentials: Credentials,
    pub(super) limits: Limits,
    /// The store: read only.
    pub(super) store: PathBuf,
    /// A bare repository to work in; the only place written to.
    pub(super) folder: PathBuf,
    pub(super) ask: Ask,
}

/// Where objects come from.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Origin {
    Local { path: PathBuf, objects: PathBuf },
    Network { url: String },
}

impl Origin {
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Local { path, .. } => path.display().to_string(),
            Self::Network { url } => remote::redacted(url),
        }
    }
}

/// What is wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    List,
    /// `fresh`: as if the store were empty.
    Fetch {
        name: String,
        object: ObjectId,
        have: Vec<ObjectId>,
        fresh: bool,
    },
    /// The bytes of one tag object, and nothing of what it points at.
    Statement {
        name: String,
        object: ObjectId,
        have: Vec<ObjectId>,
    },
    Sweep {
        keep: Vec<ObjectId>,
    },
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Tags(Vec<(String, ObjectId)>),
    Fetched { bytes: u64, objects: u64 },
    Statement(Vec<u8>),
    Swept,
    Refused(Refusal),
}

/// Body of `tagfall fetch-child`.
pub fn run_child() -> ExitCode {
    let mut question = Vec::new();
    let read = std::io::stdin().take(REQUEST_MAX_BYTES).read_to_end(&mut question);
    let Some(request) = read.ok().and_then(|_| serde_json::from_slice::<Request>(&question).ok()) else {
        return ExitCode::from(FAILED);
    };
    let answer = match confine(&request) {
        Ok(()) => answer(&request).unwrap_or_else(Answer::Refused),
        Err(error) => {
            let message = format!("the child that fetches cannot limit itself: {error}; nothing is fetched without limits");
            Answer::Refused(refuse(Reason::GitOperationFailed, message))
        }
    };
    let written = serde_json::to_vec(&answer).is_ok_and(|bytes| std::io::stdout().write_all(&bytes).is_ok());
    if written { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// Takes away what no fetch needs.
fn confine(request: &Request) -> std::io::Result<()> {
    // Sent when the thread that started us ends: the supervisor's one thread for everything asynchronous.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = rustix::process::getppid().map(Pid::as_raw_nonzero);
    if parent.map(|pid| pid.get().cast_unsigned()) != Some(request.parent_pid) {
        return Err(std::io::Error::other("its parent is gone"));
    }
    let limits = &request.limits;
    let bounds = [
        (Resource::As, limits.memory_bytes),
        (Resource::Cpu, limits.seconds.max(1)),
        (Resource::Fsize, limits.pack_bytes.saturating_add(FILE_SLACK_BYTES)),
        (Resource::Core, 0),
    ];
    for (resource, bound) in bounds {
        rustix::process::setrlimit(resource, Rlimit { current: Some(bound), maximum: Some(bound) })?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(())
}

fn answer(request: &Request) -> Result<Answer, Refusal> {
    crate::sys::git::isolate();
    crate::sys::git::allow_deltas(request.limits.file_bytes);
    match &request.ask {
        Ask::List => match &request.origin {
            Origin::Network { url } => network::list(request, url).map(Answer::Tags),
            Origin::Local { .. } => Err(refuse(Reason::GitOperationFailed, "a local repository is listed without a child")),
        },
        Ask::Fetch { name, object, have, fresh } => {
            let tag = RemoteTag { name: TagName::new(name.as_str()), object: *object };
            fetch(request, &tag, have, *fresh)
        }
        Ask::Statement { name, object, have } => {
            statement(request, &RemoteTag { name: TagName::new(name.as_str()), object: *object }, have)
        }
        Ask::Sweep { keep } => copy::sweep(request, keep),
    }
}

/// Brings what the store lacks, and checks the whole tag. Where something turns out to be missing in the end, because
/// the store had a part of it without the rest, once more with nothing taken for granted.
fn fetch(request: &Request, tag: &RemoteTag, have: &[ObjectId], fresh: bool) -> Result<Answer, Refusal> {
    check_ref(tag)?;
    let mut fresh = fresh;
    loop {
        let (bytes, objects) = match &request.origin {
            Origin::Local { objects, .. } => copy::fetch(request, objects, tag, fresh)?,
            Origin::Network { url } => network::fetch(request, url, tag, if fresh { &[] } else { have })?,
        };
        match check(request, tag, fresh) {
            Ok(()) => return Ok(Answer::Fetched { bytes, objects }),
            Err(Fault::Missing(_)) if !fresh => {
                empty(&request.folder.join("objects/pack")).map_err(|error| in_folder(request, &error))?;
                fresh = true;
            }
            Err(Fault::Missing(id)) => {
                let message = format!("`{}` does not have object {id}, which tag `{}` needs", request.origin.shown(), tag.name);
                return Err(refuse(Reason::GitOperationFailed, message));
            }
            Err(fault @ (Fault::Refused(_) | Fault::Unreadable(_))) => return Err(fault.into_refusal()),
        }
    }
}

fn check_ref(tag: &RemoteTag) -> Result<(), Refusal> {
    if git2::Reference::is_valid_name(&format!("refs/tags/{}", tag.name)) {
        return Ok(());
    }
    let message = format!("`{}` is not a name that Git gives to tags", tag.name.as_str().escape_debug());
    Err(refuse(Reason::UnsafePath, message))
}

/// Reads one tag object from where it is, or from what arrived.
fn statement(request: &Request, tag: &RemoteTag, have: &[ObjectId]) -> Result<Answer, Refusal> {
    check_ref(tag)?;
    let folder = match &request.origin {
        Origin::Local { objects, .. } => objects.clone(),
        Origin::Network { url } => {
            network::fetch(request, url, tag, have)?;
            request.folder.join("objects")
        }
    };
    let read = || {
        let odb = open_objects(&[&folder]).map_err(Fault::Unreadable)?;
        Objects { odb: &odb, limits: &request.limits, contents: false }.read_statement(tag)
    };
    read().map(Answer::Statement).map_err(Fault::into_refusal)
}

/// Walks the tag over what arrived and what the store has.
fn check(request: &Request, tag: &RemoteTag, fresh: bool) -> Result<(), Fault> {
    let arrived = request.folder.join("objects");
    let stored = request.store.join("objects");
    let folders: &[&Path] = if fresh { &[&arrived] } else { &[&arrived, &stored] };
    let odb = open_objects(folders).map_err(Fault::Unreadable)?;
    walk(&odb, request, tag)
}

fn walk(odb: &Odb<'_>, request: &Request, tag: &RemoteTag) -> Result<(), Fault> {
    Objects { odb, limits: &request.limits, contents: false }.walk_tag(tag).map(|_| ())
}

fn empty(folder: &Path) -> std::io::Result<()> {
    std::fs::remove_dir_all(folder)?;
    std::fs::create_dir(folder)
}

fn in_folder(request: &Request, error: &std::io::Error) -> Refusal {
    refuse(Reason::GitOperationFailed, format!("`{}` cannot be written: {error}; it is tried again", request.folder.display()))
}

/// Which bound a transfer met, told by its progress.
fn met(progress: &git2::Progress<'_>, limits: &Limits) -> Option<Refusal> {
    let over = |what: &str, bound: u64, key: &str| {
        Some(refuse(
            Reason::LimitExceeded,
            format!("the pack has more than {bound} {what} (`source.limits.{key}`); nothing of it was kept"),
        ))
    };
    if progress.received_bytes() as u64 > limits.pack_bytes {
        return over("bytes", limits.pack_bytes, "pack_bytes");
    }
    if progress.total_objects() as u64 > limits.objects {
        return over("objects", limits.objects, "objects");
    }
    None
}
