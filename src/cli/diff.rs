//! `tagfall diff`

use super::client::encoded;
use super::text::{BAD, DIM, GOOD, NAME, WARN};
use super::{CliError, Context, Exit, Form};
use crate::api::wire::{Diff, GroupChange};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Secrets are never shown. Exit codes: 0 no difference · 1 there are changes · 2 error.\n\n\
    Examples:\n  tagfall diff v1.3.0               against what runs\n  tagfall diff v1.3.0 v1.4.0")]
pub(super) struct Args {
    /// The older tag
    #[arg(value_name = "TAG")]
    from: String,
    /// The newer tag [default: the release that runs]
    #[arg(value_name = "TAG2")]
    to: Option<String>,
    #[command(flatten)]
    form: Form,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let to = args.to.map(|to| format!("&to={}", encoded(&to))).unwrap_or_default();
    let diff = context.show(&format!("/v1/diff?from={}{to}", encoded(&args.from)), args.form, text)?;
    Ok(if diff.groups.is_empty() { Exit::Done } else { Exit::Failed })
}

fn text(diff: &Diff) -> String {
    if diff.groups.is_empty() {
        return format!("{} and {} ask for the same here\n", diff.from, diff.to);
    }
    diff.groups.iter().map(group).collect()
}

fn group(change: &GroupChange) -> String {
    let mut out = format!("{NAME}{}{NAME:#} {WARN}{}{WARN:#}\n", change.name, change.change);
    for value in &change.config {
        let side = |value: &serde_json::Value| if value.is_null() { "nothing".to_owned() } else { value.to_string() };
        let (from, to) = (side(&value.from), side(&value.to));
        out.push_str(&format!("  config {}: {BAD}{from}{BAD:#} → {GOOD}{to}{GOOD:#}\n", value.key));
    }
    for file in &change.files {
        out.push_str(&format!("  file {} {}\n", file.path, file.change));
        for line in file.diff.iter().flat_map(|diff| diff.lines()) {
            let style = match line.as_bytes().first() {
                Some(b'+') => GOOD,
                Some(b'-') => BAD,
                Some(_) | None => DIM,
            };
            out.push_str(&format!("    {style}{line}{style:#}\n"));
        }
    }
    for words in &change.other {
        out.push_str(&format!("  {words}\n"));
    }
    out
}
