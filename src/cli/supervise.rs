//! `tagfall supervise`: this process becomes the keeper.

use std::path::PathBuf;

use super::{CliError, Context, Exit};

/// Where the supervisor's own file is, unless said otherwise.
pub(super) const DEFAULT_CONFIG: &str = "/etc/tagfall/supervisor.toml";

#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "SIGTERM and SIGINT stop the services in order, take the mounts away and exit 0.\n\n\
    Examples:\n  tagfall supervise\n  tagfall supervise --config ./supervisor.toml\n  \
    tagfall supervise --set source.url=/srv/config.git --set source.verify.mode=off --set data_dir=./data\n  \
    TAGFALL_SOURCE__URL=/srv/config.git tagfall supervise")]
pub(super) struct Args {
    /// The supervisor's own file; it may be missing where `--set` and the environment say enough
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG, value_hint = clap::ValueHint::FilePath)]
    pub(super) config: PathBuf,
    /// Override one key of the file: strings as they are, tables and lists as TOML
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("it takes the form KEY=VALUE, for example source.url=/srv/config.git".to_owned()),
    }
}

pub(super) fn run(args: Args, _context: &Context) -> Result<Exit, CliError> {
    let Args { config: _, set: _ } = args;
    Err(CliError::NotHere("supervise"))
}
