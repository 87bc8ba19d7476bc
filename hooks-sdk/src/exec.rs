//! Running what `allow.exec` names: a command that is written there, by its name. A hook cannot add a word to it.
//!
//! ```no_run
//! use tagfall_hooks::prelude::*;
//!
//! # fn migrate() -> Result<()> {
//! let exit = exec::run("migrate")?;
//! log::info(exit.text());
//! exit.successful()?;
//! # Ok(()) }
//! ```

use std::borrow::Cow;
use std::time::Duration;

use crate::host::exec;
use crate::{Error, ExitStatus, Result, clock};

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// Its name in `allow.exec`.
    pub name: String,
    /// Its end.
    pub status: ExitStatus,
    /// The last 16 KiB that it wrote to both outputs, in the order in which it came.
    pub output: Vec<u8>,
}

/// Runs the command to its end, in all the time that is left. An exit code other than 0 is no error of this: see
/// [`Exit::successful`].
///
/// # Errors
/// Where it did not run to its end: `denied`, `timeout`, `too-large` or `other`; more may come.
pub fn run(name: &str) -> Result<Exit> {
    begin(name, clock::timeout(None))
}

/// The same in so much time.
///
/// # Errors
/// As [`run`].
pub fn run_within(time: Duration, name: &str) -> Result<Exit> {
    begin(name, clock::timeout(Some(time)))
}

fn begin(name: &str, timeout_ms: u32) -> Result<Exit> {
    let exit = exec::run(name, timeout_ms).map_err(Error::of_exec)?;
    Ok(Exit { name: name.to_owned(), status: ExitStatus::of(exit.status), output: exit.output })
}

impl Exit {
    /// What it wrote, as text; what is none is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.output)
    }

    /// The same where it ended by itself with exit code 0.
    ///
    /// # Errors
    /// `exit` with how it ended and the last line that it wrote.
    pub fn successful(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let text = self.text();
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        let last = last.map(|line| format!(": {line}")).unwrap_or_default();
        Err(Error::new("exit", format!("`{}` {}{last}", self.name, self.status)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32, output: &str) -> Exit {
        let status = ExitStatus { code: Some(code), signal: None };
        Exit { name: "migrate".to_owned(), status, output: output.as_bytes().to_vec() }
    }

    #[test]
    fn an_end_that_is_none_to_be_wished_says_why() {
        assert!(exit(0, "done\n").successful().is_ok());
        let message = |exit: Exit| exit.successful().unwrap_err().message().to_owned();
        assert_eq!(message(exit(3, "step 1\nno table\n\n")), "`migrate` ended with exit code 3: no table");
        assert_eq!(message(exit(1, "")), "`migrate` ended with exit code 1");
    }
}
