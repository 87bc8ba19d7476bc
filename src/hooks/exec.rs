//! `builtin:exec`: a fixed command of `allow.exec`, run by whoever runs processes here.

use std::pin::Pin;
use std::time::Duration;

use crate::model::{CheckResult, Exit, HealthStatus};

/// A command on its way.
pub type ExecRun<'a> = Pin<Box<dyn Future<Output = Result<ExecOutcome, String>> + Send + 'a>>;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Its end.
    pub exit: Exit,
    /// What it wrote, as far as that is kept; its last line counts.
    pub output: String,
}

/// Runs a command that the group's `allow.exec` names.
pub trait ExecCheck: Send + Sync {
    /// Runs it, at most for `timeout`; whoever implements this ends the process then, and also where the future is dropped.
    /// An error says why it could not be run.
    fn run<'a>(&'a self, command: &'a str, timeout: Duration) -> ExecRun<'a>;
}

pub(super) async fn check(command: &str, timeout: Duration, exec: &dyn ExecCheck) -> CheckResult {
    let outcome = match exec.run(command, timeout).await {
        Ok(outcome) => outcome,
        Err(cause) => return CheckResult::new(HealthStatus::Unknown, format!("could not run command `{command}`: {cause}")),
    };
    let status = match outcome.exit {
        Exit::Code(0) => HealthStatus::Ok,
        Exit::Code(1) => HealthStatus::Warning,
        Exit::Code(2) => HealthStatus::Critical,
        Exit::Code(_) | Exit::Signal(_) | Exit::OutOfMemory { .. } | Exit::Unknown => HealthStatus::Unknown,
    };
    let last = outcome.output.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let end = || format!("command `{command}` ended with {}", outcome.exit);
    match (last, status) {
        (None, _) => CheckResult::new(status, end()),
        (Some(line), HealthStatus::Unknown) => CheckResult::new(status, format!("{}: {line}", end())),
        (Some(line), HealthStatus::Ok | HealthStatus::Warning | HealthStatus::Critical) => CheckResult::new(status, line),
    }
}
