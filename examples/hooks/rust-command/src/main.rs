//! Whether a file was written lately enough, like the dump of a database: a plain WASI command, with nothing of Tagfall in it.
//!
//! It reads what it is told as JSON on standard input, and answers by its exit code and the last line of its output.

use std::fs;
use std::io;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

#[derive(serde::Deserialize)]
struct Told {
    args: Args,
}

#[derive(serde::Deserialize)]
struct Args {
    /// A file below a folder of `allow.read`.
    path: String,
    /// From how many seconds on its age is a warning, and critical.
    warning_s: u64,
    critical_s: u64,
}

const OK: u8 = 0;
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

fn main() -> ExitCode {
    let (code, message) = check().unwrap_or_else(|error| (UNKNOWN, error));
    println!("{message}");
    ExitCode::from(code)
}

fn check() -> Result<(u8, String), String> {
    let told: Told = serde_json::from_reader(io::stdin().lock()).map_err(|error| format!("cannot read the call: {error}"))?;
    let Args { path, warning_s, critical_s } = told.args;
    let written = match fs::metadata(&path).and_then(|file| file.modified()) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((CRITICAL, format!("{path} is not there, or not below `allow.read`")));
        }
        Err(error) => return Err(format!("cannot look at {path}: {error}")),
    };
    let age = SystemTime::now().duration_since(written).unwrap_or(Duration::ZERO).as_secs();
    let code = if age >= critical_s {
        CRITICAL
    } else if age >= warning_s {
        WARNING
    } else {
        OK
    };
    Ok((code, format!("{path} was written {age} s ago")))
}
