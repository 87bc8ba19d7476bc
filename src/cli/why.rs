//! `tagfall why`

use super::text::{BAD, DIM, GOOD, NAME, word};
use super::{CliError, Context, Exit, Form, group_name};
use crate::api::wire::{Cause, Why};
use crate::model::GroupName;

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  tagfall why web\n  tagfall why web.blue -o json")]
pub(super) struct Args {
    /// The group; `.default` may be left out
    #[arg(value_name = "GROUP", value_parser = group_name)]
    group: GroupName,
    #[command(flatten)]
    form: Form,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    context.show(&format!("/v1/groups/{}/why", args.group), args.form, text)?;
    Ok(Exit::Done)
}

fn text(why: &Why) -> String {
    let group = &why.group;
    if why.ready && why.because.is_empty() {
        return format!("{NAME}{group}{NAME:#} is {GOOD}ready{GOOD:#}: nothing holds it back\n");
    }
    let verdict = if why.ready { "ready, but" } else { "not ready" };
    let mut out = format!("{NAME}{group}{NAME:#} is {BAD}{verdict}{BAD:#}:\n");
    for cause in &why.because {
        chain(cause, &group.to_string(), 1, &mut out);
    }
    if why.because.is_empty() {
        out.push_str("  the supervisor gave no reason\n");
    }
    out
}

fn chain(cause: &Cause, about: &str, depth: usize, out: &mut String) {
    let indent = depth * 2;
    let object = if cause.object == about { String::new() } else { format!("{NAME}{}{NAME:#}: ", cause.object) };
    let reason = word(&cause.reason);
    out.push_str(&format!("{:indent$}{object}{} {DIM}({reason}){DIM:#}\n", "", cause.message));
    for inner in &cause.because {
        chain(inner, &cause.object, depth + 1, out);
    }
}
