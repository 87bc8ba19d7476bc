//! `tagfall completions`

use clap::CommandFactory;

use super::{Cli, CliError, Context, Exit};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  tagfall completions bash > /etc/bash_completion.d/tagfall\n  \
    tagfall completions zsh > \"${fpath[1]}/_tagfall\"\n  tagfall completions fish > ~/.config/fish/completions/tagfall.fish")]
pub(super) struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut offered(), "tagfall", &mut script);
    context.out.bytes(&script)?;
    Ok(Exit::Done)
}

/// The commands that a person types: the generators would offer the hidden ones too.
fn offered() -> clap::Command {
    let full = Cli::command();
    let shown = full.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    clap::Command::new("tagfall").args(full.get_arguments().cloned()).subcommands(shown)
}
