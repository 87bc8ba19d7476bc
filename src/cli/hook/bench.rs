//! `tagfall hook bench`

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::setting::Setting;
use super::{Here, hooks, not_admitted, read};
use crate::cli::text::{cell, columns};
use crate::cli::{CliError, Context, Exit, Form};
use crate::model::HookAnswer;

/// Calls before anything is counted.
const WARM_CALLS: u32 = 20;
/// Shells that are started for comparison.
const SHELLS: u32 = 100;

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  tagfall hook bench health.wasm --calls 10000")]
pub(in crate::cli) struct Args {
    /// The module: a component, or a WASI command
    #[arg(value_name = "MODULE", value_hint = clap::ValueHint::FilePath)]
    module: PathBuf,
    /// How often it is called
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
    #[command(flatten)]
    setting: Setting,
    #[command(flatten)]
    form: Form,
}

/// Durations of one kind, sorted.
struct Sample(Vec<Duration>);

impl Sample {
    fn new(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        Self(took)
    }

    fn at(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0.get(rank).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
    }

    fn json(&self) -> serde_json::Value {
        json!({ "p50_us": self.at(50), "p99_us": self.at(99), "max_us": self.at(100), "count": self.0.len() })
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let wasm = read(&args.module)?;
    let (first, inside, whole, failed) = context.wait(async {
        let hooks = hooks();
        let inspected = hooks.admit(&wasm).await.map_err(|error| not_admitted(&args.module, error))?;
        let call = args.setting.call(&args.module, &wasm, &inspected)?;
        let here = Here { wasm: &wasm, grants: &call.grants };
        let begun = Instant::now();
        let _ = hooks.call(&call, &here).await;
        let first = begun.elapsed();
        for _ in 0..WARM_CALLS {
            let _ = hooks.call(&call, &here).await;
        }
        let (mut inside, mut whole, mut failed) = (Vec::new(), Vec::new(), None);
        for _ in 0..args.calls {
            let begun = Instant::now();
            let run = hooks.call(&call, &here).await;
            whole.push(begun.elapsed());
            inside.push(run.took);
            if let HookAnswer::Failed(failure) = run.answer {
                failed = Some(failure.message);
            }
        }
        Ok((first, Sample::new(inside), Sample::new(whole), failed))
    })?;
    let shells = Sample::new((0..SHELLS).filter_map(|_| shell()).collect());
    let ratio = shells.at(50) / whole.at(50);
    if args.form.is_json() {
        let value = json!({
            "first_us": first.as_secs_f64() * 1e6, "inside": inside.json(), "whole": whole.json(), "shell": shells.json(),
            "ratio": ratio, "failed": failed,
        });
        context.out.text(&format!("{value:#}\n"))?;
    } else {
        let row = |name: &str, sample: &Sample| {
            let figures = [50, 99, 100].map(|percent| cell(format!("{:.0}", sample.at(percent))));
            std::iter::once(cell(name)).chain(figures).collect::<Vec<_>>()
        };
        let head = ["µs", "p50", "p99", "max"].map(cell).into_iter().collect();
        let rows = [head, row("inside the hook host", &inside), row("over the socket", &whole), row("sh -c 'exit 0'", &shells)];
        context.out.text(&columns(&rows, crate::cli::text::Out::width()))?;
        context.out.text(&format!("{ratio:.0} times cheaper than the shell\n"))?;
        if let Some(why) = &failed {
            context.out.talk(&format!("some calls failed: {why}\n"));
        }
    }
    Ok(if failed.is_some() { Exit::Failed } else { Exit::Done })
}

/// A shell that does nothing, with its output captured, as whoever runs scripts as checks does it.
fn shell() -> Option<Duration> {
    let begun = Instant::now();
    let mut command = Command::new("sh");
    let output = command.args(["-c", "exit 0"]).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| begun.elapsed())
}
