//! The supervisor's end of the compiler: one module, one process, within bounds.

use std::io::{Seek as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::cache::{Cache, Compiled};
use super::host::compile::{CODE_MAX_BYTES, CPU_MAX_S, MEMORY_MAX_BYTES, MODULE_MAX_BYTES, Report};
use crate::model::{Digest, DigestBuilder};

/// The hidden door.
const SUBCOMMAND: &str = "hook-compile";
/// Longest time of one module.
const WALL_MAX: Duration = Duration::from_secs(60);
/// What is read of what it says.
const WORDS_MAX_BYTES: u64 = 64 << 10;

/// Why a module was not compiled.
#[derive(Debug, Clone)]
pub(super) enum NotCompiled {
    /// It is the module, and will be so again.
    Refused(String),
    /// It is the machine, and may go better.
    Failed(String),
}

/// What a refusal depends on beside the module.
pub(super) fn rules(engine: &Digest) -> Digest {
    let rules = DigestBuilder::new("rules of compiling").field(engine.as_bytes());
    let bounds = [MEMORY_MAX_BYTES, CPU_MAX_S, CODE_MAX_BYTES, MODULE_MAX_BYTES];
    bounds.iter().fold(rules, |rules, bound| rules.field(&bound.to_le_bytes())).finish()
}

/// Compiles for `engine`, and keeps what came of it.
pub(super) async fn compile(
    program: &Path,
    cache: &Cache,
    wasm: &[u8],
    module: &Digest,
    engine: &Digest,
) -> Result<Compiled, NotCompiled> {
    if wasm.len() as u64 > MODULE_MAX_BYTES {
        let mb = wasm.len() >> 20;
        return Err(NotCompiled::Refused(format!("it has {mb} MiB, and a module may have {}", MODULE_MAX_BYTES >> 20)));
    }
    let failed =
        |step: &str, error: &dyn std::fmt::Display| NotCompiled::Failed(format!("the compiler cannot be {step}: {error}"));
    let (new, file) = cache.begin().map_err(|error| failed("given a file", &error))?;
    let done = converse(program, wasm, file.try_clone().map_err(|error| failed("given a file", &error))?).await;
    let kept = match done {
        Ok(Report::Compiled { form, engine: made_for, .. }) if made_for == *engine => {
            cache.keep(&new, file, module, engine, form).map_err(|error| failed("heard out", &error))
        }
        Ok(Report::Compiled { .. }) => Err(NotCompiled::Failed("the compiler is of another version: restart".to_owned())),
        Ok(Report::Refused(why)) => Err(NotCompiled::Refused(why)),
        Err(error) => Err(error),
    };
    if kept.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    kept
}

async fn converse(program: &Path, wasm: &[u8], output: std::fs::File) -> Result<Report, NotCompiled> {
    let failed =
        |step: &str, error: &dyn std::fmt::Display| NotCompiled::Failed(format!("the compiler cannot be {step}: {error}"));
    let input = memory_file(wasm).map_err(|error| failed("given the module", &error))?;
    let mut child = Command::new(program)
        .arg(SUBCOMMAND)
        .arg(std::process::id().to_string())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("started", &error))?;
    let mut words = Vec::new();
    let told = async {
        if let Some(errors) = child.stderr.take() {
            errors.take(WORDS_MAX_BYTES).read_to_end(&mut words).await?;
        }
        child.wait().await
    };
    let status = match tokio::time::timeout(WALL_MAX, told).await {
        Ok(status) => status.map_err(|error| failed("waited for", &error))?,
        Err(_) => {
            let message = format!("compiling it takes longer than {} s here", WALL_MAX.as_secs());
            return Err(NotCompiled::Failed(message));
        }
    };
    let words = String::from_utf8_lossy(&words);
    match words.lines().last().and_then(|line| serde_json::from_str(line).ok()) {
        Some(report) if status.success() => Ok(report),
        Some(_) | None => Err(ended(status, &words)),
    }
}

fn memory_file(bytes: &[u8]) -> std::io::Result<std::fs::File> {
    let mut file: std::fs::File = rustix::fs::memfd_create("module", rustix::fs::MemfdFlags::CLOEXEC)?.into();
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// Words for a compiler that met one of its limits.
fn ended(status: ExitStatus, words: &str) -> NotCompiled {
    let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let last: String = last.chars().take(200).collect();
    match status.signal() {
        Some(libc::SIGXCPU | libc::SIGKILL) => {
            NotCompiled::Refused(format!("compiling it takes more than {CPU_MAX_S} s of processor time"))
        }
        Some(libc::SIGXFSZ) => NotCompiled::Refused(format!("its code is larger than {} MiB", CODE_MAX_BYTES >> 20)),
        Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS) => {
            let gib = MEMORY_MAX_BYTES >> 30;
            NotCompiled::Refused(format!("compiling it takes more than {gib} GiB of memory, or more stack than there is"))
        }
        _ => NotCompiled::Failed(format!("the compiler ended ({status}) {last}")),
    }
}
