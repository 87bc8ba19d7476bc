//! The `tagfall` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|command| command == "fetch-child") {
        return tagfall::source::run_child();
    }
    ExitCode::SUCCESS
}
