//! The doors of the other processes: the same binary, started by itself, never by a person.

use std::ffi::OsString;

use super::{CliError, Exit};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  (started by `tagfall supervise`, never by hand)")]
pub(super) struct Args {
    /// Agreed between the two processes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(super) args: Vec<OsString>,
}

pub(super) fn keeper(args: Args) -> Result<Exit, CliError> {
    let Args { args: _ } = args;
    Err(CliError::NotHere("keeper"))
}

pub(super) fn supervisor(args: Args) -> Result<Exit, CliError> {
    let Args { args: _ } = args;
    Err(CliError::NotHere("supervisor"))
}

pub(super) fn fetch_child(args: Args) -> Result<Exit, CliError> {
    let Args { args: _ } = args;
    Err(CliError::NotHere("fetch-child"))
}
