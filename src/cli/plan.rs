//! `tagfall plan`: of a tag through the supervisor; of a folder without one.

use std::path::PathBuf;

use super::client::encoded;
use super::text::{DIM, NAME, WARN, cell, columns};
use super::{CliError, Context, Exit, Form};
use crate::api::wire::PlanView;
use crate::model::TagName;

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Exit codes: 0 nothing would change · 1 there are changes · 2 error.\n\n\
    Examples:\n  tagfall plan                       with the newest acceptable tag\n  tagfall plan --tag v1.4.0\n  \
    tagfall plan --repo . -o json      with the folder as it stands")]
pub(super) struct Args {
    /// With this tag instead of the newest that is acceptable
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// With a configuration repository's folder as it stands
    #[arg(long, value_name = "DIR", conflicts_with = "tag", value_hint = clap::ValueHint::DirPath)]
    repo: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    if args.repo.is_some() {
        return Err(CliError::NotHere("plan --repo"));
    }
    let query = args.tag.map(|tag| format!("?tag={}", encoded(&tag))).unwrap_or_default();
    let view = context.show(&format!("/v1/plan{query}"), args.form, text)?;
    Ok(if view.steps.is_empty() { Exit::Done } else { Exit::Failed })
}

fn text(view: &PlanView) -> String {
    let name = |tag: &Option<TagName>| tag.as_ref().map_or_else(|| "no release".to_owned(), TagName::to_string);
    let way = match (&view.from, &view.to) {
        (from, to) if from == to => name(to),
        (from, to) => format!("{} → {}", name(from), name(to)),
    };
    if view.steps.is_empty() {
        return format!("{way}: nothing would change\n");
    }
    let row = |step: &super::super::api::wire::PlanStep| {
        vec![super::text::Cell(step.group.to_string(), NAME), super::text::Cell(step.action.clone(), WARN), cell(&step.message)]
    };
    let rows: Vec<_> = view.steps.iter().map(row).collect();
    format!("{}{DIM}{way}: {} steps{DIM:#}\n", columns(&rows, super::Out::width()), view.steps.len())
}
