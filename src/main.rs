//! The `tagfall` program.

fn main() -> std::process::ExitCode {
    tagfall::cli::main()
}
