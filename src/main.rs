//! The `tagfall` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|word| word == "keeper")
        && let Some(config) = tagfall::keeper::KeeperConfig::from_args(args)
    {
        return match tagfall::keeper::run(config) {
            Ok(code) => code,
            Err(error) => {
                use std::io::Write as _;
                let _ = writeln!(std::io::stderr(), "{error}");
                ExitCode::from(2)
            }
        };
    }
    ExitCode::from(2)
}
