//! The doors of the other processes: the same binary, started by itself, never by a person.
//!
//! They are no commands: the tree of commands is not even built for them. It would cost each fetch a millisecond and the
//! keeper, which lives as long as the host, the memory that it touches.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use super::text::Out;
use super::{CliError, error, supervise};
use crate::keeper::{self, KeeperConfig};

/// Goes through a door where the first argument names one, to the end of the process behind it.
pub(super) fn door(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    let first = args.next()?;
    let outcome = match first.to_str()? {
        "keeper" => {
            show_as(c"tagfall-keeper");
            keeper(args)
        }
        "supervisor" => {
            show_as(c"tagfall");
            supervise::supervise(args.collect()).map(ExitCode::from)
        }
        "hook-host" => {
            show_as(c"tagfall-hooks");
            Ok(crate::hooks::run_host(args))
        }
        "hook-compile" => {
            show_as(c"tagfall-wasm");
            Ok(crate::hooks::run_compiler(args))
        }
        "fetch-child" => Ok(crate::source::run_child()),
        _ => return None,
    };
    Some(outcome.unwrap_or_else(|error| {
        Out { color: anstream::ColorChoice::Auto }.talk(&error::describe(&error));
        error.exit().into()
    }))
}

/// Started through `/proc/self/exe`, these processes would be called `exe` in `ps` and `top`.
fn show_as(name: &std::ffi::CStr) {
    // Only for people: without the name everything goes on.
    let _ = rustix::thread::set_name(name);
}

fn keeper(args: impl Iterator<Item = OsString>) -> Result<ExitCode, CliError> {
    let mut args: Vec<OsString> = args.collect();
    if args.first().is_some_and(|first| first == keeper::ASK_VERSION) {
        return writeln!(std::io::stdout(), "{}", keeper::STATE_VERSION)
            .map(|()| ExitCode::SUCCESS)
            .map_err(|error| CliError::could_not_run("say which state is known", error));
    }
    let resume = args.first().is_some_and(|first| first == keeper::RESUME) && args.len() > 2;
    let descriptor = resume.then(|| args.drain(..2).nth(1)).flatten();
    let descriptor = descriptor.and_then(|number| number.to_str()?.parse().ok());
    let Some(config) = KeeperConfig::from_args(args) else {
        return Err(CliError::usage("the keeper needs its arguments", "`tagfall supervise` starts it"));
    };
    match descriptor {
        Some(descriptor) => keeper::resume(config, descriptor),
        None => keeper::run(config),
    }
    .map_err(|error| CliError::could_not_run("keep services", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_word_opens_a_door() {
        let words = |words: &[&str]| door(words.iter().map(OsString::from));
        assert!(words(&[]).is_none());
        assert!(words(&["keeper"]).is_none());
        assert!(words(&["tagfall", "status", "keeper"]).is_none());
        // Without its arguments the keeper does not begin.
        assert!(words(&["tagfall", "keeper"]).is_some());
    }
}
