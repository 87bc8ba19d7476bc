//! What hooks answer: reports of checks, outcomes of what changed, and the end of a process.

use std::fmt;

use serde::Serialize;

use crate::Result;
use crate::generated::bindings::tagfall::hooks as wit;

pub use wit::types::Health;

/// The answer of a check.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// What was found.
    pub health: Health,
    /// One sentence for people. Tagfall shows the first 512 bytes.
    pub message: String,
    /// More, as a JSON text, for programs.
    pub details_json: Option<String>,
    /// More, by name.
    pub extra: Vec<(String, String)>,
}

impl Report {
    /// What was found, with a sentence for people.
    pub fn new(health: Health, message: impl Into<String>) -> Self {
        Self { health, message: message.into(), details_json: None, extra: Vec::new() }
    }

    /// All is well.
    pub fn ok(message: impl Into<String>) -> Self {
        Self::new(Health::Ok, message)
    }

    /// It works, and there is something to look at.
    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(Health::Warning, message)
    }

    /// It does not work.
    pub fn critical(message: impl Into<String>) -> Self {
        Self::new(Health::Critical, message)
    }

    /// It cannot be told.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Health::Unknown, message)
    }

    /// The same with details for programs.
    ///
    /// # Errors
    /// Where they are nothing that JSON can express, like a map whose keys are no text.
    pub fn details(self, details: &impl Serialize) -> Result<Self> {
        Ok(Self { details_json: Some(serde_json::to_string(details)?), ..self })
    }

    /// The same with one more name and value.
    #[must_use]
    pub fn extra(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// As Tagfall takes it.
    pub(crate) fn into_wit(self) -> wit::types::Report {
        let Self { health, message, details_json, extra } = self;
        wit::types::Report { health, message, details_json, extra }
    }
}

/// What Tagfall is to do with the service now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: the service has taken notice, or need not.
    Done,
    /// Send it this signal, by its name: `SIGHUP`.
    Signal(String),
    /// Stop and start it.
    Restart,
}

/// The answer of a hook that decides what comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// What is to be done.
    pub action: Action,
    /// One sentence for people, or nothing.
    pub message: String,
    /// More, by name.
    pub extra: Vec<(String, String)>,
}

impl Outcome {
    fn new(action: Action) -> Self {
        Self { action, message: String::new(), extra: Vec::new() }
    }

    /// Nothing is to be done: the service has taken notice, or need not.
    pub fn done() -> Self {
        Self::new(Action::Done)
    }

    /// The service is to get this signal, by its name: `SIGHUP`.
    pub fn signal(name: impl Into<String>) -> Self {
        Self::new(Action::Signal(name.into()))
    }

    /// The service is to be stopped and started.
    pub fn restart() -> Self {
        Self::new(Action::Restart)
    }

    /// The same with a sentence for people: why.
    #[must_use]
    pub fn because(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// The same with one more name and value.
    #[must_use]
    pub fn extra(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// As Tagfall takes it.
    pub(crate) fn into_wit(self) -> wit::types::Outcome {
        let action = match self.action {
            Action::Done => wit::types::Action::Done,
            Action::Signal(name) => wit::types::Action::Signal(name),
            Action::Restart => wit::types::Action::Restart,
        };
        wit::types::Outcome { action, message: self.message, extra: self.extra }
    }
}

/// How a process ended. Both are `None` where that could not be learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExitStatus {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it, by its name: `SIGKILL`.
    pub signal: Option<String>,
}

impl ExitStatus {
    /// Whether it ended by itself with exit code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// As Tagfall gives it.
    pub(crate) fn of(status: wit::types::ExitStatus) -> Self {
        Self { code: status.code, signal: status.signal }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.signal, self.code) {
            (Some(signal), _) => write!(f, "was ended by {signal}"),
            (None, Some(code)) => write!(f, "ended with exit code {code}"),
            (None, None) => write!(f, "ended in a way that could not be learned"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_all_that_was_said() {
        let report = Report::warning("slow").details(&[1, 2]).unwrap().extra("took", "3s").into_wit();
        assert_eq!((report.health, report.message.as_str()), (Health::Warning, "slow"));
        assert_eq!(report.details_json.as_deref(), Some("[1,2]"));
        assert_eq!(report.extra, [("took".to_owned(), "3s".to_owned())]);
    }

    #[test]
    fn an_outcome_names_its_action() {
        let outcome = Outcome::signal("SIGHUP").because("two files").into_wit();
        assert!(matches!(outcome.action, wit::types::Action::Signal(name) if name == "SIGHUP"));
        assert_eq!(outcome.message, "two files");
        assert!(matches!(Outcome::restart().into_wit().action, wit::types::Action::Restart));
        assert!(matches!(Outcome::done().into_wit().action, wit::types::Action::Done));
    }

    #[test]
    fn an_end_is_said_in_words() {
        let end = |code, signal: Option<&str>| ExitStatus { code, signal: signal.map(str::to_owned) };
        assert_eq!(end(Some(3), None).to_string(), "ended with exit code 3");
        assert_eq!(end(None, Some("SIGKILL")).to_string(), "was ended by SIGKILL");
        assert!(end(Some(0), None).success() && !end(None, None).success());
    }
}
