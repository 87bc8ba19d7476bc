//! The log of processes that stay: standard error, text, coloured on a terminal.
//!
//! `TAGFALL_LOG` filters (`info` by default, `tagfall::source=debug,info` for one room), `TAGFALL_LOG_FORMAT=json` writes
//! one JSON object a line for collectors.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The environment variable that filters.
pub const FILTER_VARIABLE: &str = "TAGFALL_LOG";
/// The environment variable that chooses the form.
pub const FORMAT_VARIABLE: &str = "TAGFALL_LOG_FORMAT";

/// Begins logging in this process; a second call changes nothing. `verbose` (`-v`) raises what is said without a filter.
pub fn start(verbose: u8) {
    let default = match verbose {
        0 => "info",
        1 => "tagfall=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(default));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    let _ = match std::env::var(FORMAT_VARIABLE) {
        Ok(form) if form == "json" => log.json().try_init(),
        Ok(_) | Err(_) => log.with_target(false).try_init(),
    };
}
