//! Lines for Tagfall's log. Needs no grant. The first 64 lines of a call are kept, each up to 4 KiB.
//!
//! ```
//! use tagfall_hooks::{Level, log};
//!
//! log::info("asked the leader");
//! log::warn(format!("{} replicas are missing", 3));
//! log::write(Level::Debug, "answered", &[("status", "200")]);
//! ```

use crate::host::log;

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For somebody who looks for an error step by step.
    Trace,
    /// What helps to find an error.
    Debug,
    /// What happened.
    Info,
    /// What somebody should look at.
    Warn,
    /// What went wrong.
    Error,
}

/// Says something to somebody who looks for an error step by step.
pub fn trace(message: impl AsRef<str>) {
    write(Level::Trace, message, &[]);
}

/// Says what helps to find an error.
pub fn debug(message: impl AsRef<str>) {
    write(Level::Debug, message, &[]);
}

/// Says what happened.
pub fn info(message: impl AsRef<str>) {
    write(Level::Info, message, &[]);
}

/// Says what somebody should look at.
pub fn warn(message: impl AsRef<str>) {
    write(Level::Warn, message, &[]);
}

/// Says what went wrong.
pub fn error(message: impl AsRef<str>) {
    write(Level::Error, message, &[]);
}

/// Says something, with names and values that programs can look for.
pub fn write(level: Level, message: impl AsRef<str>, fields: &[(&str, &str)]) {
    let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let level = match level {
        Level::Trace => log::Level::Trace,
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    };
    log::log(level, message.as_ref(), &fields);
}
