//! `tagfall demo`

use std::path::PathBuf;

use super::{CliError, Context, Exit};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Needs neither root nor a network. Ctrl-C ends it and leaves nothing behind.\n\n\
    Examples:\n  tagfall demo\n  tagfall demo --dir ./demo --keep        to look around afterwards")]
pub(super) struct Args {
    /// Where to make it [default: a new temporary folder]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(super) dir: Option<PathBuf>,
    /// Leave the folder there at the end
    #[arg(long)]
    pub(super) keep: bool,
}

pub(super) fn run(args: Args, _context: &Context) -> Result<Exit, CliError> {
    let Args { dir: _, keep: _ } = args;
    Err(CliError::NotHere("demo"))
}
