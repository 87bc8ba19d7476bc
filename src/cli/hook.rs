//! `tagfall hook`: modules, outside any ring. They run in the same hook host and under the same grants as a supervisor's.
//!
//! What a hook is told and granted is put together in `setting.rs`.

mod bench;
mod inspect;
mod new;
mod run;
mod setting;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{CliError, Context, Exit};
use crate::hooks::{ExecCheck, ExecOutcome, ExecRun, Hooks, HooksConfig, NotAdmitted, Outside};
use crate::model::{Digest, Grants, Signal};
use crate::source::SourceConfig;

/// Longest module that is read, in bytes.
const MODULE_MAX_BYTES: u64 = 128 << 20;
/// What is kept of a command's output, in bytes.
const OUTPUT_MAX_BYTES: usize = 16 << 10;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Make a project that builds to a hook, in Rust, Python, JavaScript, Go, C and others
    New(new::Args),
    /// Run a module once, and show what it answered, what it asked for and what was refused to it
    Run(Box<run::Args>),
    /// Show what a module is: its hooks, what it imports, what it will need to be granted
    Inspect(inspect::Args),
    /// Time a module beside the cheapest shell
    Bench(Box<bench::Args>),
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, CliError> {
    match verb {
        Verb::New(args) => new::run(&args, context),
        Verb::Run(args) => run::run(&args, context),
        Verb::Inspect(args) => inspect::run(&args, context),
        Verb::Bench(args) => bench::run(&args, context),
    }
}

/// A module's bytes: WebAssembly as it is.
fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |error| CliError::could_not_run(format!("read `{}`", path.display()), error);
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MODULE_MAX_BYTES {
        let words = format!("it has {} MiB", length >> 20);
        return Err(CliError::could_not_run(format!("read `{}`", path.display()), std::io::Error::other(words)));
    }
    std::fs::read(path).map_err(failed)
}

/// A hook host of this command's own; compiled modules are kept for the next one.
fn hooks() -> Hooks {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let caches = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap_or_else(std::env::temp_dir);
    Hooks::new(HooksConfig { program: PathBuf::from(SourceConfig::THIS_PROGRAM), cache: caches.join("tagfall/hooks") })
}

fn not_admitted(path: &Path, error: NotAdmitted) -> CliError {
    let step = format!("take `{}` for a hook", path.display());
    match error {
        NotAdmitted::Refused(_) => CliError::failed(step, error),
        NotAdmitted::Failed(_) => CliError::could_not_run(step, error),
    }
}

/// What a module reaches when it is tried: its declared commands run as whoever tries it.
struct Here<'a> {
    wasm: &'a [u8],
    grants: &'a Grants,
}

impl Outside for Here<'_> {
    fn read_module(&self, _: &Digest) -> Result<Vec<u8>, String> {
        Ok(self.wasm.to_vec())
    }
}

impl ExecCheck for Here<'_> {
    fn run<'a>(&'a self, command: &'a str, timeout: Duration) -> ExecRun<'a> {
        Box::pin(async move {
            let argv = self.grants.exec.get(command).ok_or_else(|| "`allow.exec` does not name it".to_owned())?;
            let (program, arguments) = argv.split_first().ok_or_else(|| "`allow.exec` names no program for it".to_owned())?;
            let mut child = tokio::process::Command::new(program);
            child.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
            let output = tokio::time::timeout(timeout, child.output()).await;
            let output = output.map_err(|_| format!("it did not end within {} ms", timeout.as_millis()))?;
            let output = output.map_err(|error| format!("`{program}` cannot be run: {error}"))?;
            let mut bytes = [output.stdout, output.stderr].concat();
            bytes.drain(..bytes.len().saturating_sub(OUTPUT_MAX_BYTES));
            Ok(ExecOutcome { exit: exit(output.status), output: String::from_utf8_lossy(&bytes).into_owned() })
        })
    }
}

fn exit(status: std::process::ExitStatus) -> crate::model::Exit {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => crate::model::Exit::Code(code),
        (None, Some(signal)) => crate::model::Exit::Signal(Signal(signal)),
        (None, None) => crate::model::Exit::Unknown,
    }
}
