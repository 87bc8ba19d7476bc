//! `tagfall trace`

use std::path::{Path, PathBuf};

use super::client::encoded;
use super::text::{BAD, Cell, DIM, NAME, Out, PLAIN, WARN, columns};
use super::{CliError, Context, Exit, Form};
use crate::api::wire::Trace;

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  tagfall trace /etc/guestbook/app.toml")]
pub(super) struct Args {
    /// A published file
    #[arg(value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    path: PathBuf,
    #[command(flatten)]
    form: Form,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    // Made absolute, links left as they are: a mount path may itself be one.
    let absolute = std::path::absolute(&args.path);
    let path = absolute.map_err(|error| CliError::could_not_run(format!("make `{}` absolute", args.path.display()), error))?;
    context.show(&format!("/v1/trace?path={}", encoded(text_of(&path)?)), args.form, text)?;
    Ok(Exit::Done)
}

fn text_of(path: &Path) -> Result<&str, CliError> {
    let hint = "published files have UTF-8 names";
    path.to_str().ok_or_else(|| CliError::usage(format!("`{}` is not UTF-8", path.display()), hint))
}

fn text(trace: &Trace) -> String {
    let made = if trace.template { " (a template)" } else { "" };
    let signed = if trace.signers.is_empty() { ("verification off".to_owned(), WARN) } else { (trace.signers.join(", "), PLAIN) };
    let mut rows = vec![
        ("path", trace.path.clone(), NAME),
        ("group", trace.group.to_string(), PLAIN),
        ("file", format!("{}{made}", trace.file), PLAIN),
        ("blob", trace.blob.to_string(), PLAIN),
        ("publication", trace.publication.clone(), PLAIN),
        ("commit", trace.commit.to_string(), PLAIN),
        ("tag", format!("{} ({})", trace.tag, trace.tag_object), PLAIN),
        ("signed by", signed.0, signed.1),
    ];
    if !trace.intact {
        rows.push(("drift", "what stands there now is not what was published".to_owned(), BAD));
    }
    let rows: Vec<_> = rows.into_iter().map(|(key, value, style)| vec![Cell(key.to_owned(), DIM), Cell(value, style)]).collect();
    columns(&rows, Out::width())
}
