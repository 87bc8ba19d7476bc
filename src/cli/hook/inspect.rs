//! `tagfall hook inspect`

use std::path::PathBuf;

use serde_json::json;

use super::{hooks, not_admitted, read};
use crate::cli::text::{cell, columns};
use crate::cli::{CliError, Context, Exit, Form as Output};
use crate::hooks::{Form, Inspected};
use crate::model::Digest;

/// Interfaces of `wit/` that are open only as far as `allow` opens them.
const GRANTS: [(&str, &str); 3] = [("probe", "net"), ("exec", "exec"), ("files", "read and write")];

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  tagfall hook inspect hooks/health.wasm")]
pub(in crate::cli) struct Args {
    /// The module: a component, or a WASI command
    #[arg(value_name = "MODULE", value_hint = clap::ValueHint::FilePath)]
    module: PathBuf,
    #[command(flatten)]
    form: Output,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let wasm = read(&args.module)?;
    let inspected = context.wait(async { hooks().admit(&wasm).await.map_err(|error| not_admitted(&args.module, error)) })?;
    let digest = Digest::of(&wasm);
    let names: Vec<&str> = inspected.hooks.iter().map(|hook| hook.name()).collect();
    if args.form.is_json() {
        let value = json!({
            "sha256": digest.to_string(), "bytes": wasm.len(), "form": inspected.form, "hooks": names,
            "imports": inspected.imports, "unknown_exports": inspected.unknown_exports, "memory_bytes": inspected.memory,
            "may_need": needs(&inspected),
        });
        context.out.text(&format!("{value:#}\n"))?;
        return Ok(Exit::Done);
    }
    let hooks = match inspected.form {
        Form::Component => names.join(", "),
        Form::Command => "any: a command is told by its first argument which one it is".to_owned(),
    };
    let form = match inspected.form {
        Form::Component => "component",
        Form::Command => "WASI command (wasm32-wasip1)",
    };
    let mut rows = vec![
        row("sha256", digest.to_string()),
        row("bytes", wasm.len().to_string()),
        row("form", form),
        row("hooks", if hooks.is_empty() { "none: nothing will ever call it".to_owned() } else { hooks }),
        row("memory", format!("{} KiB to begin with", inspected.memory.div_ceil(1024))),
    ];
    rows.extend(inspected.imports.iter().map(|import| row("imports", import.clone())));
    rows.extend(inspected.unknown_exports.iter().map(|export| row("ignored", format!("exports `{export}`, which is no hook"))));
    rows.extend(needs(&inspected).into_iter().map(|need| row("may need", need)));
    context.out.text(&columns(&rows, crate::cli::text::Out::width()))?;
    Ok(Exit::Done)
}

fn row(name: &str, text: impl Into<String>) -> Vec<crate::cli::text::Cell> {
    vec![cell(name), cell(text)]
}

/// Which grants it will ask for, as far as its imports tell.
fn needs(inspected: &Inspected) -> Vec<String> {
    let imports = |interface: &str| {
        let name = format!("tagfall:hooks/{interface}@");
        inspected.imports.iter().any(|import| import.starts_with(&name))
    };
    let asked = GRANTS.iter().filter(|(interface, _)| imports(interface));
    asked.map(|(interface, grant)| format!("`allow.{grant}` for `{interface}`")).collect()
}
