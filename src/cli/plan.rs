//! `tagfall plan`: of a tag through the supervisor; of a folder without one.

mod folder;

use std::path::PathBuf;

use super::client::encoded;
use super::supervise::SettingsArgs;
use super::text::{Cell, DIM, NAME, WARN, cell, columns};
use super::{CliError, Context, Exit, Form, Out};
use crate::api::wire::{PlanStep, PlanView};
use crate::model::TagName;

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "With --repo no supervisor is asked: what the folder asks for is compared with what stands in the data \
    folder, as far as that can be read, and services are taken to run as the last accepted release has them. `--config` and \
    `--set` say whose labels, ring and data folder are meant; without any, it is a host without labels.\n\n\
    Exit codes: 0 nothing would change · 1 there are changes · 2 error.\n\n\
    Examples:\n  tagfall plan                       with the newest acceptable tag\n  tagfall plan --tag v1.4.0\n  \
    tagfall plan --repo . -o json      with the folder as it stands\n  \
    tagfall plan --repo . --set labels='{ role = \"web\" }'"
)]
pub(super) struct Args {
    /// With this tag instead of the newest that is acceptable
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// With a configuration repository's folder as it stands
    #[arg(long, value_name = "DIR", conflicts_with = "tag", value_hint = clap::ValueHint::DirPath)]
    repo: Option<PathBuf>,
    #[command(flatten)]
    place: SettingsArgs,
    #[command(flatten)]
    form: Form,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let view = match &args.repo {
        Some(repo) => {
            let view = folder::plan(repo, &args.place, context.out)?;
            if args.form.is_json() {
                let mut bytes =
                    serde_json::to_vec(&view).map_err(|error| CliError::could_not_run("put the plan into JSON", error))?;
                bytes.push(b'\n');
                context.out.bytes(&bytes)?;
            } else {
                context.out.text(&text(&view, &format!("the folder `{}`", repo.display())))?;
            }
            view
        }
        None if args.place.is_given() => {
            let message = "a running supervisor has its own settings";
            return Err(CliError::usage(message, "`--config` and `--set` go with `--repo`"));
        }
        None => {
            let query = args.tag.map(|tag| format!("?tag={}", encoded(&tag))).unwrap_or_default();
            context.show(&format!("/v1/plan{query}"), args.form, |view| text(view, "no release"))?
        }
    };
    Ok(if view.steps.is_empty() { Exit::Done } else { Exit::Failed })
}

/// `untagged` stands for what was asked about where that is no tag.
fn text(view: &PlanView, untagged: &str) -> String {
    let to = view.to.as_ref().map_or_else(|| untagged.to_owned(), TagName::to_string);
    let from = view.from.as_ref().map_or_else(|| "no release".to_owned(), TagName::to_string);
    let way = if from == to { to } else { format!("{from} → {to}") };
    if view.steps.is_empty() {
        return format!("{way}: nothing would change\n");
    }
    let row = |step: &PlanStep| vec![Cell(step.group.to_string(), NAME), Cell(step.action.clone(), WARN), cell(&step.message)];
    let rows: Vec<_> = view.steps.iter().map(row).collect();
    let count = view.steps.len();
    let steps = if count == 1 { "step" } else { "steps" };
    format!("{}{DIM}{way}: {count} {steps}{DIM:#}\n", columns(&rows, Out::width()))
}
