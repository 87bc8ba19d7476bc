//! A health check: is a file that a service writes there, and recent?
//!
//! `args` in group.toml: `file` is the file, `max_age_s` how old it may be. The exit code says how the service is, the last line of
//! the output is the message.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

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
    // What stands on standard input has more: context, config, members.
    let told: serde_json::Value = serde_json::from_reader(std::io::stdin()).map_err(|error| error.to_string())?;
    let path = told["args"]["file"].as_str().ok_or("`args` needs `file`, the file to look at")?;
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        // To a command, what it was not granted is not there either.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((CRITICAL, format!("{path} is not there, or not opened by  allow = {{ read = [\"{path}\"] }}")));
        }
        Err(error) => return Err(format!("{path}: {error}")),
    };
    let changed = metadata.modified().map_err(|error| error.to_string())?;
    let age = SystemTime::now().duration_since(changed).unwrap_or_default();
    let message = format!("{path} was written {} s ago", age.as_secs());
    let is_old = told["args"]["max_age_s"].as_u64().is_some_and(|max| age > Duration::from_secs(max));
    Ok((if is_old { WARNING } else { OK }, message))
}
