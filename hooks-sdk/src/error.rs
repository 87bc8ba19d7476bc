//! Why a hook could not do what it is for: one type, which everything that fails here can become by `?`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::generated::bindings::tagfall::hooks as wit;

/// What functions of hooks give back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a hook could not do what it is for.
///
/// It becomes the hook's `failure`: a word for programs, a sentence for people, and when to try again. Text becomes one by `?`,
/// as do the errors of this crate's modules, of JSON, of numbers and of text that is not UTF-8.
///
/// ```
/// use tagfall_hooks::prelude::*;
///
/// fn port(text: &str) -> Result<u16> {
///     let port: u16 = text.trim().parse()?;
///     if port == 0 { Err("port 0 is none".into()) } else { Ok(port) }
/// }
///
/// assert_eq!(port("80\n").unwrap(), 80);
/// assert_eq!(port("0").unwrap_err().message(), "port 0 is none");
/// assert_eq!(port("eighty").unwrap_err().to_string(), "invalid digit found in string");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Cow<'static, str>,
    message: String,
    retry_after: Option<Duration>,
    unanswered: bool,
}

impl Error {
    /// The code of an error that was made of a text alone.
    pub const FAILED: &str = "failed";

    /// An error with a word that programs can compare, like `not-yet`, and a sentence for people.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retry_after: None, unanswered: false }
    }

    /// The same, and it is not worth trying again before so long.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// The same, with what was being done in front of its message: `reading the pid file: there is no such file`.
    #[must_use]
    pub fn context(self, doing: impl fmt::Display) -> Self {
        Self { message: format!("{doing}: {}", self.message), ..self }
    }

    /// The word for programs.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether this is a server that was asked and did not answer: it refused the connection, or let the time pass.
    ///
    /// In a check that is the answer and no failure: `health_check!` and `post_update!` report it as `critical`, where any other
    /// error counts as `unknown`.
    pub fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    /// A server that was asked and did not answer, or a question that could not be asked.
    pub(crate) fn of_probe(error: wit::probe::ProbeError) -> Self {
        let unanswered = matches!(error.code.as_str(), "refused" | "timeout");
        Self { unanswered, ..Self::new(error.code, error.message) }
    }

    /// A command that did not run.
    pub(crate) fn of_exec(error: wit::exec::ExecError) -> Self {
        Self::new(error.code, error.message)
    }

    /// A file that could not be read or written.
    pub(crate) fn of_file(error: wit::files::FileError) -> Self {
        Self::new(error.code, error.message)
    }

    /// As Tagfall takes it.
    pub(crate) fn into_failure(self) -> wit::types::Failure {
        let retry_after_ms = self.retry_after.map(crate::clock::milliseconds);
        wit::types::Failure { code: self.code.into_owned(), message: self.message, retry_after_ms }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::new(Self::FAILED, message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::new(Self::FAILED, message)
    }
}

/// What is wrong with a JSON text that nobody wrote: where in it is of no use.
pub(crate) fn placeless(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map(str::to_owned).unwrap_or(text)
}

/// Errors of others, with the code that they get.
macro_rules! from {
    ($($error:ty => $code:expr,)*) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::new($code, error.to_string())
            }
        })*
    };
}

from! {
    serde_json::Error => "json",
    std::str::Utf8Error => "utf-8",
    std::string::FromUtf8Error => "utf-8",
    std::num::ParseIntError => Self::FAILED,
    std::num::ParseFloatError => Self::FAILED,
    std::num::TryFromIntError => Self::FAILED,
    std::str::ParseBoolError => Self::FAILED,
    std::net::AddrParseError => Self::FAILED,
    std::fmt::Error => Self::FAILED,
    std::io::Error => "io",
    Box<dyn std::error::Error> => Self::FAILED,
    Box<dyn std::error::Error + Send + Sync> => Self::FAILED,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(code: &str) -> Error {
        Error::of_probe(wit::probe::ProbeError { code: code.to_owned(), message: "it said so".to_owned() })
    }

    #[test]
    fn only_a_server_that_was_asked_is_unanswered() {
        for (code, unanswered) in [("refused", true), ("timeout", true), ("denied", false), ("dns", false), ("new-one", false)] {
            let error = probe(code);
            assert_eq!((error.code(), error.is_unanswered()), (code, unanswered));
        }
        assert!(!Error::new("refused", "our own word").is_unanswered());
    }

    #[test]
    fn a_failure_has_all_that_was_said() {
        let failure = Error::new("not-yet", "three replicas are missing").retry_after(Duration::from_secs(2)).into_failure();
        assert_eq!((failure.code.as_str(), failure.retry_after_ms), ("not-yet", Some(2_000)));
        let failure = Error::from("odd").context("counting").into_failure();
        assert_eq!((failure.code.as_str(), failure.message.as_str(), failure.retry_after_ms), ("failed", "counting: odd", None));
    }

    #[test]
    fn errors_of_others_become_one() {
        fn all(text: &[u8]) -> Result<u8> {
            let text = std::str::from_utf8(text)?;
            let value: serde_json::Value = serde_json::from_str(text)?;
            let number = value.as_u64().ok_or("no number")?;
            Ok(u8::try_from(number)?)
        }
        assert_eq!(all(b"7"), Ok(7));
        let code = |text: &[u8]| all(text).unwrap_err().code().to_owned();
        assert_eq!(
            (code(b"\xff"), code(b"{"), code(b"[]"), code(b"300")),
            ("utf-8".into(), "json".into(), "failed".into(), "failed".into())
        );
    }
}
