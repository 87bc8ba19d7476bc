//! `tagfall render`: needs no supervisor.
//!
//! Which group a path belongs to is found in `input.rs`; Habitat's layout is understood in `habitat.rs`; files are written in
//! `output.rs`. What a template sees is what a supervisor would hand it where it knows of no other member.

mod data;
mod habitat;
pub(super) mod input;
mod output;

use std::path::PathBuf;

use serde_json::Value;

use self::input::Input;
use super::check::shown;
use super::{CliError, Context, Exit, repository};
use crate::manifest::{Diagnostic, Severity};
use crate::model::Templates;
use crate::render::{self, RenderError, RenderedFile};

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "A FILE in GROUP_DIR/config is rendered with that group's `[config]` and `templates`; any other FILE \
    has only what `--data` gives it. Data is a JSON object, merged over the group's own by key: `cfg`, `svc`, `bind`, `sys`, \
    `pkg`, `mount`, `release`. Facts of a host are stand-ins (`127.0.0.1`, `v0.0.0`). A folder with a `default.toml` \
    instead of a `group.toml` is taken as a Habitat plan: `cfg` from there, and names that are missing print nothing.\n\n\
    Examples:\n  tagfall render groups/redis -o out                              every file of the group's config\n  \
    tagfall render groups/redis/config/redis.conf.hbs               one template, to standard output\n  \
    tagfall render groups/redis --ring staging -o out               as that ring's overlay has it\n  \
    echo '{\"cfg\": {\"port\": 7000}}' | tagfall render redis.conf.hbs --data -"
)]
pub(super) struct Args {
    /// A group's folder, or one template
    #[arg(value_name = "GROUP_DIR | FILE", value_hint = clap::ValueHint::AnyPath)]
    pub(super) input: PathBuf,
    /// JSON data merged over the group's own; `-` reads standard input
    #[arg(long, value_name = "JSON", value_hint = clap::ValueHint::FilePath)]
    pub(super) data: Option<PathBuf>,
    /// With the overlay of this ring
    #[arg(long, value_name = "RING")]
    pub(super) ring: Option<String>,
    /// Write the files into this folder; needed for a group with more than one
    #[arg(short, long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(super) out: Option<PathBuf>,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let over = args.data.as_deref().map(data::read).transpose()?;
    let input = Input::find(&args.input, args.ring.as_deref())?;
    if input.is_habitat() {
        context
            .out
            .talk("no `group.toml` here, but a `default.toml`: rendered as Habitat does, and what is missing prints nothing\n");
    }
    let files = match input.render(over) {
        Ok(files) => files,
        Err(found) => {
            context.out.talk(&found.iter().map(shown).collect::<String>());
            return Ok(Exit::Failed);
        }
    };
    match (&args.out, files.as_slice()) {
        (Some(dir), files) => {
            output::write(dir, files)?;
            context.out.talk(&format!("{} written into `{}`\n", counted(files.len()), dir.display()));
        }
        (None, [one]) => context.out.bytes(&one.bytes)?,
        (None, []) => context.out.talk("this group publishes no file\n"),
        (None, files) => {
            let message = format!("this group has {}, and standard output takes one", counted(files.len()));
            return Err(CliError::usage(message, "`-o DIR` writes them into a folder; or name one of them"));
        }
    }
    Ok(Exit::Done)
}

fn counted(files: usize) -> String {
    format!("{files} file{}", if files == 1 { "" } else { "s" })
}

type Rendered = Result<Vec<RenderedFile>, Vec<Diagnostic>>;

/// An error as it is shown, with the path that was typed and the name that may have been meant.
fn diagnostic(error: RenderError, data: &Value, place: impl Fn(&str) -> String) -> Diagnostic {
    let RenderError { file, line, column, message, name } = error;
    let hint = name.and_then(|name| repository::meant(data, &name));
    Diagnostic { severity: Severity::Error, file: place(&file), line: line.max(1), column: column.max(1), message, hint }
}

/// Renders one text with the given data alone.
fn alone(file: &str, target: &str, bytes: Vec<u8>, data: &Value) -> Rendered {
    let text = String::from_utf8(bytes).map_err(|_| {
        let message = "a template must be UTF-8 text".to_owned();
        vec![Diagnostic { severity: Severity::Error, file: file.to_owned(), line: 1, column: 1, message, hint: None }]
    })?;
    let done = render::render_text(file, &text, data, Templates::Strict).map_err(|error| {
        let mut errors = render::missing_names(file, &text, data);
        if error.name.is_none() || errors.is_empty() {
            errors.push(error);
        }
        errors.into_iter().map(|error| diagnostic(error, data, str::to_owned)).collect::<Vec<_>>()
    })?;
    Ok(vec![RenderedFile { path: target.to_owned(), bytes: done.into_bytes(), executable: false }])
}
