//! The supervisor's side of the keeper's socket, and of the log files that the keeper writes.
//!
//! It turns requests into packets and packets into news; it decides nothing. It may not start, signal or wait for a
//! service itself. To add a request: a message in `keeper::wire`, and nothing here.

mod client;
mod logs;

pub use crate::keeper::wire::{Command, ExecOutcome, Hello, Request};
pub use client::{Keeper, News, ProcessError};
pub use logs::{LogReader, LogsError, read_logs};
