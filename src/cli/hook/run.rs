//! `tagfall hook run`

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;

use super::setting::Setting;
use super::{Here, hooks, not_admitted, read};
use crate::cli::{CliError, Context, Exit, Form};
use crate::hooks::HookRun;
use crate::model::{HealthStatus, HookAction, HookAnswer, HookKind};

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Exit codes: 0 the hook answered, and a check said `ok` or `warning`; 1 otherwise.\n\n\
    Examples:\n  tagfall hook run health.wasm                                       with nothing granted\n  \
    tagfall hook run health.wasm --allow net=127.0.0.1:8080 --args '{\"url\": \"http://127.0.0.1:8080/healthz\"}'\n  \
    tagfall hook run groups/web/hooks/health.wasm --group groups/web   as the group has it\n  \
    tagfall hook run stop.wasm --hook post-stop --context '{\"code\": 3}'")]
pub(in crate::cli) struct Args {
    /// The module: a component, or a WASI command
    #[arg(value_name = "MODULE", value_hint = clap::ValueHint::FilePath)]
    module: PathBuf,
    #[command(flatten)]
    setting: Setting,
    #[command(flatten)]
    form: Form,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let wasm = read(&args.module)?;
    context.wait(async {
        let hooks = hooks();
        let begun = Instant::now();
        let inspected = hooks.admit(&wasm).await.map_err(|error| not_admitted(&args.module, error))?;
        let prepared = begun.elapsed();
        let call = args.setting.call(&args.module, &wasm, &inspected)?;
        let run = hooks.call(&call, &Here { wasm: &wasm, grants: &call.grants }).await;
        if args.form.is_json() {
            let value = json!({
                "hook": call.kind().name(), "answer": &run.answer, "log": &run.log, "asked": &run.seen, "denied": &run.denied,
                "took_us": u64::try_from(run.took.as_micros()).unwrap_or(u64::MAX), "memory_bytes": run.memory,
                "prepared_ms": u64::try_from(prepared.as_millis()).unwrap_or(u64::MAX),
            });
            context.out.text(&format!("{value:#}\n"))?;
        } else {
            context.out.text(&format!("{}\n", answer(call.kind(), &run.answer)))?;
            context.out.talk(&around(&run, prepared, &hooks.gaps()));
        }
        Ok(exit(&run.answer))
    })
}

fn exit(answer: &HookAnswer) -> Exit {
    match answer {
        HookAnswer::Health { status: HealthStatus::Critical | HealthStatus::Unknown, .. } | HookAnswer::Failed(_) => Exit::Failed,
        HookAnswer::Health { .. } | HookAnswer::Outcome { .. } | HookAnswer::Rank(_) => Exit::Done,
    }
}

fn answer(kind: HookKind, answer: &HookAnswer) -> String {
    let with = |word: String, message: &str| if message.is_empty() { word } else { format!("{word}: {message}") };
    let said = match answer {
        HookAnswer::Health { status, message } => with(crate::cli::text::word(status), message),
        HookAnswer::Outcome { action, message } => {
            let word = match action {
                HookAction::Done => "done".to_owned(),
                HookAction::Signal(name) => format!("signal {name}"),
                HookAction::Restart => "restart".to_owned(),
            };
            with(word, message)
        }
        HookAnswer::Rank(rank) => rank.to_string(),
        HookAnswer::Failed(failure) => format!("failed ({}): {}", crate::cli::text::word(&failure.reason), failure.message),
    };
    format!("{} {said}", kind.name())
}

fn around(run: &HookRun, prepared: std::time::Duration, gaps: &[String]) -> String {
    let mut out = String::new();
    for line in &run.log {
        let fields: String = line.fields.iter().map(|(name, value)| format!(" {name}={value:?}")).collect();
        let _ = writeln!(out, "said     {:5} {}{fields}", line.level.name(), line.message.escape_debug());
    }
    for seen in &run.seen {
        let _ = writeln!(out, "asked    {seen}");
    }
    for denied in &run.denied {
        let _ = writeln!(out, "refused  it {denied}");
    }
    for gap in gaps {
        let _ = writeln!(out, "sandbox  {gap}");
    }
    let (took, kib) = (run.took.as_secs_f64() * 1000.0, run.memory.div_ceil(1024));
    let _ = writeln!(out, "took     {took:.3} ms and {kib} KiB of memory; getting it ready took {} ms", prepared.as_millis());
    out
}
