//! How a command fails: the one error of this room, the exit codes, and the one printer.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

/// What the program ends with. Decided here and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; for `plan` and `diff`: nothing would change.
    Done = 0,
    /// It could not be done; `check` found errors; for `plan` and `diff`: there are changes.
    Failed = 1,
    /// The command line makes no sense, or the command could not run.
    Usage = 2,
    /// No supervisor answers.
    NoSupervisor = 3,
    /// Policy, or the caller's rights, said no.
    Refused = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

type Cause = Box<dyn Error + Send + Sync>;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The arguments make no sense together.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to type instead.
        hint: String,
    },
    /// Nobody listens.
    #[error("no supervisor answers at {address}")]
    NoSupervisor {
        /// Where it was looked for.
        address: String,
        /// What the connection said.
        source: Cause,
    },
    /// It was there, and is not any more.
    #[error("the supervisor at {address} went away")]
    WentAway {
        /// Where it was.
        address: String,
        /// What the connection said.
        source: Cause,
    },
    /// The supervisor said no.
    #[error("{message}")]
    Api {
        /// HTTP status.
        status: u16,
        /// The failure's name.
        reason: String,
        /// The failure in words.
        message: String,
    },
    /// Policy said no, without a supervisor.
    #[error("{message}")]
    Refused {
        /// The name of the cause.
        reason: String,
        /// The cause in words.
        message: String,
    },
    /// Output could not be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// A step of the command failed (exit 1).
    #[error("cannot {step}")]
    Failed {
        /// What was tried: a verb and its object.
        step: String,
        /// Why it failed.
        source: Cause,
    },
    /// The command could not begin (exit 2).
    #[error("cannot {step}")]
    CouldNotRun {
        /// What was tried: a verb and its object.
        step: String,
        /// Why it failed.
        source: Cause,
    },
}

/// Everything that was found in one reading, each with its place.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub(crate) struct Problems(Vec<crate::manifest::Diagnostic>);

impl Problems {
    /// From what a reader found.
    pub(crate) fn new(found: Vec<crate::manifest::Diagnostic>) -> Self {
        Self(found)
    }

    /// A command that could not begin because of them.
    pub(crate) fn could_not_run(self, step: &str) -> CliError {
        CliError::could_not_run(step, self)
    }
}

impl CliError {
    /// A command line that makes no sense.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: hint.into() }
    }

    /// A command that could not begin.
    pub(crate) fn could_not_run(step: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::CouldNotRun { step: step.into(), source: source.into() }
    }

    /// A step that failed.
    pub(crate) fn failed(step: impl Into<String>, source: impl Into<Cause>) -> Self {
        Self::Failed { step: step.into(), source: source.into() }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } | Self::CouldNotRun { .. } => Exit::Usage,
            Self::NoSupervisor { .. } | Self::WentAway { .. } => Exit::NoSupervisor,
            Self::Refused { .. } => Exit::Refused,
            // Whoever read our output has what they wanted (`tagfall events | head`).
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) | Self::Failed { .. } => Exit::Failed,
            Self::Api { status, .. } => match status {
                400 => Exit::Usage,
                401 | 403 => Exit::Refused,
                _ => Exit::Failed,
            },
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => Some(hint.clone()),
            Self::NoSupervisor { .. } => {
                Some("is `tagfall supervise` running, and is this its address? `--api` or `TAGFALL_API` name another".to_owned())
            }
            Self::WentAway { .. } => {
                Some("a supervisor that was killed is back within moments: run the command again".to_owned())
            }
            Self::Api { status: 401, .. } => Some("`--token-file PATH` names a file with the API token".to_owned()),
            Self::Api { .. } | Self::Refused { .. } | Self::Output(_) | Self::Failed { .. } | Self::CouldNotRun { .. } => None,
        }
    }
}

const ERROR: Style = AnsiColor::Red.on_default().bold();
const NOTE: Style = AnsiColor::Cyan.on_default();

/// The error, what caused it, and what to do, each on a line; nothing where only the reader of our output went away.
pub(crate) fn describe(error: &CliError) -> String {
    if error.exit() == Exit::Done {
        return String::new();
    }
    let mut text = format!("{ERROR}error{ERROR:#}: {error}");
    if let CliError::Api { reason, .. } | CliError::Refused { reason, .. } = error {
        let _ = write!(text, " ({reason})");
    }
    text.push('\n');
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = writeln!(text, "  {NOTE}caused by{NOTE:#}: {inner}");
        cause = inner.source();
    }
    if let Some(hint) = error.hint() {
        let _ = writeln!(text, "  {NOTE}hint{NOTE:#}: {hint}");
    }
    text
}
