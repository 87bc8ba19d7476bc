//! The compiler: `tagfall hook-compile`, a process for one module. The module is its standard input, a new file its standard
//! output; what it found out goes to standard error, as one line of JSON.
//!
//! A module of some hundred bytes can make a compiler use gigabytes; here that costs a process that was started for it.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::confine::{Bounds, confine};
use super::{FAILED, engine, module};
use crate::hooks::wire::Form;
use crate::model::Digest;

/// Bytes of address space.
pub(in crate::hooks) const MEMORY_MAX_BYTES: u64 = 1 << 30;
/// Seconds of processor time.
pub(in crate::hooks) const CPU_MAX_S: u64 = 30;
/// Bytes of compiled code.
pub(in crate::hooks) const CODE_MAX_BYTES: u64 = 256 << 20;
/// Bytes of a module.
pub(in crate::hooks) const MODULE_MAX_BYTES: u64 = 64 << 20;
/// Open files: those that it is started with.
const FILES_MAX: u64 = 16;

/// What became of a module.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::hooks) enum Report {
    /// Its code was written.
    Compiled { form: Form, engine: Digest, code: Digest, bytes: u64 },
    /// It is none that can be run.
    Refused(String),
}

/// Body of `tagfall hook-compile PARENT_PID`.
pub fn run_compiler(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(parent) = arguments.next().and_then(|pid| pid.to_str()?.parse().ok()) else { return ExitCode::from(FAILED) };
    let bounds = Bounds { address_space: Some(MEMORY_MAX_BYTES), cpu_s: Some(CPU_MAX_S), file: CODE_MAX_BYTES, files: FILES_MAX };
    let report = match confine(parent, &bounds, None) {
        Ok(_) => compile().unwrap_or_else(|error| Report::Refused(format!("it cannot be read or written: {error}"))),
        Err(error) => Report::Refused(format!("the compiler cannot shut itself in: {error}; nothing is compiled without")),
    };
    let line = serde_json::to_string(&report).unwrap_or_default();
    let told = io::stderr().write_all(format!("{line}\n").as_bytes());
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

fn compile() -> io::Result<Report> {
    let mut wasm = Vec::new();
    io::stdin().lock().take(MODULE_MAX_BYTES + 1).read_to_end(&mut wasm)?;
    if wasm.len() as u64 > MODULE_MAX_BYTES {
        return Ok(Report::Refused(format!("it is larger than {} MiB", MODULE_MAX_BYTES >> 20)));
    }
    let form = match wasm.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 0, 0]) => Form::Command,
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Form::Component,
        _ => return Ok(Report::Refused("it is not WebAssembly: its first bytes say so".to_owned())),
    };
    let engine = match engine::engine() {
        Ok(engine) => engine,
        Err(error) => return Ok(Report::Refused(format!("nothing can be compiled here: {}", module::words(&error)))),
    };
    let compiled = match form {
        Form::Component => engine.precompile_component(&wasm),
        Form::Command => engine.precompile_module(&wasm),
    };
    drop(wasm);
    let code = match compiled {
        Ok(code) => code,
        Err(error) => return Ok(Report::Refused(module::words(&error))),
    };
    let digest = Digest::of(&code);
    let mut out = io::stdout().lock();
    out.write_all(&code)?;
    out.flush()?;
    Ok(Report::Compiled { form, engine: engine::identity(&engine), code: digest, bytes: code.len() as u64 })
}
