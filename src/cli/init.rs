//! `tagfall init`

use std::path::PathBuf;

use super::{CliError, Context, Exit};

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  tagfall init config        make ./config, ready to commit, tag and push\n  tagfall init .             make it here, in an empty folder"
)]
pub(super) struct Args {
    /// The folder to make; an existing one must be empty
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(super) dir: PathBuf,
}

pub(super) fn run(args: Args, _context: &Context) -> Result<Exit, CliError> {
    let Args { dir: _ } = args;
    Err(CliError::NotHere("init"))
}
