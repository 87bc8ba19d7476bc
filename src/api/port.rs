//! The supervisor as the API sees it: questions, commands, who asked, and how an answer can fail.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{broadcast, mpsc};

use super::wire;
use crate::model::{GroupName, LogLine, TagName, Timestamp};

/// What stands behind the API. A handle: cloning it is cheap.
pub trait Daemon: Clone + Send + Sync + 'static {
    /// The latest snapshot; cheap, never waits.
    fn status(&self) -> Arc<wire::Status>;

    /// Events with a higher id than this that are still kept, oldest first. 0 = all of them.
    fn events_since(&self, id: u64) -> Vec<wire::Event>;

    /// Id of the newest event, 0 before the first: also how many there have been.
    fn last_event(&self) -> u64;

    /// Events from now on. A receiver that falls behind catches up through [`Daemon::events_since`].
    fn events(&self) -> broadcast::Receiver<wire::Event>;

    /// Answers a question that needs more than the snapshot.
    fn ask(&self, query: Query) -> impl Future<Output = Result<Answer, ApiError>> + Send;

    /// A service's output: what [`LogQuery::select`] picks of what is kept, then, with `follow`, every new line that
    /// [`LogQuery::matches`]. The sender is dropped where nothing more comes; a closed channel means that nobody reads.
    fn logs(&self, query: LogQuery) -> impl Future<Output = Result<mpsc::Receiver<LogLine>, ApiError>> + Send;

    /// Takes a command over; `Ok` once it is recorded, not once it is carried out.
    fn command(&self, command: Command, caller: Caller) -> impl Future<Output = Result<(), ApiError>> + Send;
}

/// A question to the supervisor. Groups named in it are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Effective config and origins → [`Answer::Config`].
    Config(GroupName),
    /// What holds a group back → [`Answer::Why`].
    Why(GroupName),
    /// What would change with this tag, or with the newest that is acceptable → [`Answer::Plan`].
    Plan(Option<TagName>),
    /// What differs; `to` left out = the release that runs → [`Answer::Diff`].
    Diff {
        /// The older side.
        from: TagName,
        /// The newer side.
        to: Option<TagName>,
    },
    /// Where a published file comes from → [`Answer::Trace`].
    Trace(String),
    /// Every tag known → [`Answer::Releases`].
    Releases,
    /// Whether a tag's signatures are enough → [`Answer::Verification`].
    Verify(TagName),
}

/// The answer to the [`Query`] of the same name.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each is named as its question")]
pub enum Answer {
    Config(wire::ConfigView),
    Why(wire::Why),
    Plan(wire::PlanView),
    Diff(wire::Diff),
    Trace(wire::Trace),
    Releases(Vec<wire::Release>),
    Verification(wire::Verification),
}

/// Which lines of a service's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Whose output.
    pub group: GroupName,
    /// Only so many of the newest that match; `None` = all that are kept.
    pub lines: Option<usize>,
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Only lines with this text in them.
    pub grep: Option<String>,
    /// New lines as they come, too.
    pub follow: bool,
}

impl LogQuery {
    /// Whether a line is wanted, its place among the newest aside.
    pub fn matches(&self, line: &LogLine) -> bool {
        self.since.is_none_or(|since| line.time >= since) && self.grep.as_ref().is_none_or(|text| line.text.contains(text))
    }

    /// The lines that are wanted of those that are kept (oldest first).
    pub fn select(&self, kept: impl IntoIterator<Item = LogLine>) -> VecDeque<LogLine> {
        let mut chosen = VecDeque::new();
        for line in kept.into_iter().filter(|line| self.matches(line)) {
            chosen.push_back(line);
            if self.lines.is_some_and(|most| chosen.len() > most) {
                chosen.pop_front();
            }
        }
        chosen
    }
}

/// Something that the supervisor is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Start, stop or restart a group's service.
    Service {
        /// Which group; it is here.
        group: GroupName,
        /// What to do.
        verb: ServiceVerb,
        /// Why, for the status.
        reason: Option<String>,
        /// Until when a stop holds.
        until: Option<Timestamp>,
    },
    /// What an operator says of a tag.
    Release {
        /// Which.
        tag: TagName,
        /// What he says.
        verb: ReleaseVerb,
        /// Why, for the status.
        reason: Option<String>,
        /// Until when it holds.
        until: Option<Timestamp>,
    },
    /// Look at the source now.
    Poll,
}

/// What can be said of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseVerb {
    /// It is to run, whatever its version.
    Pin,
    /// The highest is to run again.
    Unpin,
    /// It is not to run.
    Reject,
    /// It may run again.
    Accept,
}

impl ReleaseVerb {
    /// As in the path of its request.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Unpin => "unpin",
            Self::Reject => "reject",
            Self::Accept => "accept",
        }
    }
}

/// What can be done to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceVerb {
    /// Take a stop back.
    Start,
    /// Stop until started, or until a new revision.
    Stop,
    /// Stop and start once.
    Restart,
}

impl ServiceVerb {
    /// As in the path of its request.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}

/// Who gave a command, as it is recorded and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A process on this host, by what the kernel says of it.
    Local {
        /// Its user.
        uid: u32,
        /// The process.
        pid: Option<i32>,
    },
    /// Somebody on TCP.
    Remote {
        /// Where from.
        address: std::net::SocketAddr,
        /// Whether the token was shown.
        token: bool,
    },
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, pid } => {
                let user = crate::sys::process::user_by_id(*uid).ok().flatten();
                let process = pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
                match user {
                    Some(user) => write!(f, "{} (uid {uid}{process})", user.name),
                    None => write!(f, "uid {uid}{}", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()),
                }
            }
            Self::Remote { address, token: true } => write!(f, "the API token from {address}"),
            Self::Remote { address, token: false } => write!(f, "{address}"),
        }
    }
}

/// Why a request was not answered as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Which kind of failure: the HTTP status.
    pub failure: Failure,
    /// As a name that programs may rely on.
    pub reason: String,
    /// What could not be done, and what to do.
    pub message: String,
}

impl ApiError {
    /// A failure with its name and words.
    pub fn new(failure: Failure, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { failure, reason: reason.into(), message: message.into() }
    }
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The request makes no sense (400).
    Invalid,
    /// The token is missing or wrong (401).
    Unauthorized,
    /// Policy, or the caller's rights, say no (403).
    Refused,
    /// It is not here (404).
    NotFound,
    /// Not with this method (405).
    Method,
    /// Not in the present state (409).
    Conflict,
    /// The body is too long (413).
    TooLarge,
    /// The supervisor failed (500).
    Internal,
    /// Not at this moment (503).
    Unavailable,
    /// No answer in time (504).
    Late,
}

impl Failure {
    /// The HTTP status.
    pub const fn status(self) -> axum::http::StatusCode {
        use axum::http::StatusCode;
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Refused => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}
