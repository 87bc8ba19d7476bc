//! The doors of the other processes: the same binary, started by itself, never by a person.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use super::{CliError, supervise};
use crate::keeper::{self, KeeperConfig};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  (started by `tagfall supervise`, never by hand)")]
pub(super) struct Args {
    /// Agreed between the two processes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(super) args: Vec<OsString>,
}

pub(super) fn keeper(args: Args) -> Result<ExitCode, CliError> {
    let mut args = args.args;
    if args.first().is_some_and(|first| first == keeper::ASK_VERSION) {
        return writeln!(std::io::stdout(), "{}", keeper::STATE_VERSION)
            .map(|()| ExitCode::SUCCESS)
            .map_err(|error| CliError::could_not_run("say which state is known", error));
    }
    let resume = args.first().is_some_and(|first| first == keeper::RESUME) && args.len() > 2;
    let descriptor = resume.then(|| args.drain(..2).nth(1)).flatten();
    let descriptor = descriptor.and_then(|number| number.to_str()?.parse().ok());
    let Some(config) = KeeperConfig::from_args(args) else {
        return Err(CliError::usage("the keeper needs its arguments", "`tagfall supervise` starts it"));
    };
    match descriptor {
        Some(descriptor) => keeper::resume(config, descriptor),
        None => keeper::run(config),
    }
    .map_err(|error| CliError::could_not_run("keep services", error))
}

pub(super) fn supervisor(args: Args) -> Result<ExitCode, CliError> {
    supervise::supervise(args.args).map(ExitCode::from)
}

pub(super) fn fetch_child(_: Args) -> ExitCode {
    crate::source::run_child()
}
