//! `tagfall check`: needs no supervisor.

use std::path::PathBuf;

use super::{CliError, Context, Exit, Form};

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  tagfall check                          the folder as it stands, committed or not\n  tagfall check . --tag v1.4.0           what a supervisor would make of this tag\n  tagfall check . --ring staging -o json"
)]
pub(super) struct Args {
    /// The configuration repository
    #[arg(value_name = "DIR", default_value = ".", value_hint = clap::ValueHint::DirPath)]
    pub(super) dir: PathBuf,
    /// Check the tree of this tag instead of the folder's files
    #[arg(long, value_name = "TAG")]
    pub(super) tag: Option<String>,
    /// With the overlays of this ring [default: without, then once with each]
    #[arg(long, value_name = "RING")]
    pub(super) ring: Option<String>,
    #[command(flatten)]
    pub(super) form: Form,
}

pub(super) fn run(args: Args, _context: &Context) -> Result<Exit, CliError> {
    let Args { dir: _, tag: _, ring: _, form: _ } = args;
    Err(CliError::NotHere("check"))
}
