//! `tagfall config`

use super::text::{Cell, DIM, Out, cell, columns};
use super::{CliError, Context, Exit, Form, group_name};
use crate::api::wire::ConfigView;
use crate::model::GroupName;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Show a group's effective config
    Show(Show),
}

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  tagfall config show web\n  tagfall config show web --origin        and the layer that set each value"
)]
pub(super) struct Show {
    /// The group; `.default` may be left out
    #[arg(value_name = "GROUP", value_parser = group_name)]
    group: GroupName,
    /// Name the layer of each value
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    form: Form,
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, CliError> {
    let Verb::Show(args) = verb;
    let path = format!("/v1/groups/{}/config", args.group);
    context.show(&path, args.form, |view| text(view, args.origin))?;
    Ok(Exit::Done)
}

fn text(view: &ConfigView, origin: bool) -> String {
    if view.values.is_empty() {
        return format!("{} has no config\n", view.group);
    }
    let setting = |value: &crate::api::wire::ConfigValue| format!("{} = {}", value.key, value.value);
    let row = |value| if origin { with_origin(setting(value), &value.origin) } else { vec![cell(setting(value))] };
    columns(&view.values.iter().map(row).collect::<Vec<_>>(), if origin { None } else { Out::width() })
}

fn with_origin(setting: String, origin: &str) -> Vec<Cell> {
    vec![cell(setting), Cell(format!("# {origin}"), DIM)]
}
