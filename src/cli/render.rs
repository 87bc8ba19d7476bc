//! `tagfall render`: needs no supervisor.

use std::path::PathBuf;

use super::{CliError, Context, Exit};

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  tagfall render groups/redis -o out                              every file of the group's config\n  \
    tagfall render groups/redis/config/redis.conf.hbs               one template, to standard output\n  \
    echo '{\"cfg\": {\"port\": 7000}}' | tagfall render redis.conf.hbs --data -"
)]
pub(super) struct Args {
    /// A group's folder, or one template
    #[arg(value_name = "GROUP_DIR | FILE", value_hint = clap::ValueHint::AnyPath)]
    pub(super) input: PathBuf,
    /// JSON data merged over the group's own; `-` reads standard input
    #[arg(long, value_name = "JSON", value_hint = clap::ValueHint::FilePath)]
    pub(super) data: Option<PathBuf>,
    /// Write the files into this folder; needed for a group with more than one
    #[arg(short, long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(super) out: Option<PathBuf>,
}

pub(super) fn run(args: Args, _context: &Context) -> Result<Exit, CliError> {
    let Args { input: _, data: _, out: _ } = args;
    Err(CliError::NotHere("render"))
}
