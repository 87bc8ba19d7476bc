//! Carries out hooks: built-in health checks here, modules through [`Hooks`] in a process of their own (`host/`).
//!
//! A call asks once and answers: when to ask, how often, and what follows from the answers is `plan`'s question. A command goes
//! to whoever implements [`ExecCheck`]. A new built-in check is a file here, a variant of [`Check`], and an arm in [`check`].
//!
//! Who does what for a module: `client.rs` admits and calls, `process.rs` keeps the host alive, `compile.rs` and `cache.rs` have
//! compiled code ready, `doors/` opens what a call was granted, `wire.rs` and `frame.rs` are the words between the processes.

mod cache;
mod client;
mod compile;
mod doors;
mod exec;
mod file;
mod frame;
mod host;
mod http;
mod needs;
mod process;
mod target;
mod tcp;
#[cfg(test)]
mod tests;
mod wire;

use std::io::ErrorKind;
use std::time::Duration;

use crate::model::{Check, CheckResult, HealthStatus};

pub use client::{HookRun, Hooks, HooksConfig, NotAdmitted, Outside};
pub use exec::{ExecCheck, ExecOutcome, ExecRun};
pub use host::{run_compiler, run_host};
pub use needs::{missing_grants, unread_probes};
pub use wire::{Form, Inspected, Level, LogLine};

/// Longest message of a result, in bytes.
const MESSAGE_MAX_BYTES: usize = 512;

/// Carries one check out; never longer than `timeout`. All templates in it are rendered.
pub async fn check(check: &Check, timeout: Duration, exec: &dyn ExecCheck) -> CheckResult {
    let answer = async {
        match check {
            Check::Module(path) => CheckResult::new(HealthStatus::Unknown, format!("`{path}` is a module: `Hooks` runs it")),
            Check::Http { url, status, body } => http::check(url, *status, body.as_deref()).await,
            Check::Tcp { address } => tcp::check(address).await,
            Check::File { path, max_age } => file::check(path, *max_age).await,
            Check::Exec { command } => exec::check(command, timeout, exec).await,
        }
    };
    let mut result = match tokio::time::timeout(timeout, answer).await {
        Ok(result) => result,
        Err(_) => critical(format!("{} gave no answer within {}", asked(check), humantime::format_duration(timeout))),
    };
    result.message.truncate(result.message.floor_char_boundary(MESSAGE_MAX_BYTES));
    result
}

/// What was asked, as messages name it.
fn asked(check: &Check) -> String {
    match check {
        Check::Module(path) => format!("`{path}`"),
        Check::Http { url, .. } => format!("GET {url}"),
        Check::Tcp { address } => format!("connecting to {address}"),
        Check::File { path, .. } => format!("looking at `{path}`"),
        Check::Exec { command } => format!("command `{command}`"),
    }
}

fn ok(message: impl Into<String>) -> CheckResult {
    CheckResult::new(HealthStatus::Ok, message)
}

fn critical(message: impl Into<String>) -> CheckResult {
    CheckResult::new(HealthStatus::Critical, message)
}

/// An error in the words that say most to a person.
fn in_words(error: &std::io::Error) -> String {
    let known = [
        (ErrorKind::ConnectionRefused, "connection refused: nothing listens there"),
        (ErrorKind::ConnectionReset, "the connection was reset"),
        (ErrorKind::PermissionDenied, "permission denied"),
    ];
    let words = known.iter().find(|(kind, _)| *kind == error.kind());
    words.map_or_else(|| error.to_string(), |(_, words)| (*words).to_owned())
}
