//! The figures that Tagfall is held to, measured on the machine at hand: `cargo build --release --workspace`, then
//! `target/release/tagfall-bench all`, or single names. It never runs as a test: a busy machine is no defect.
//!
//! It drives the release binary beside it with real Git, real processes and real mounts; only `plan` and the library's part of
//! `check` call functions. One row per figure: what is wanted, what was measured, the verdict. Some modes are hidden: this
//! same binary is the service, the readers, and the stand-in for the supervisor. To add a figure: a file with a function that
//! returns rows, and a line in `FIGURES`.

mod adopt;
mod bomb;
mod clock;
mod crash;
mod crowd;
mod crowds;
mod direct;
mod exits;
mod fleet;
mod guests;
mod hooks;
mod logs;
mod peers;
mod plan;
mod program;
mod push;
mod rest;
mod revive;
mod size;
mod stage;
mod swap;
mod table;
mod tags;
mod tree;
mod weight;

use std::process::ExitCode;

use table::{Row, say};

/// Why a figure could not be measured.
type Failure = Box<dyn std::error::Error>;

/// A figure's name and how it is measured.
type Figure = (&'static str, fn() -> Result<Vec<Row>, Failure>);

const FIGURES: [Figure; 19] = [
    ("size", size::measure),
    ("plan", plan::measure),
    ("check", tree::measure),
    ("tags", tags::measure),
    ("push", push::measure),
    ("swap", swap::measure),
    ("revive", revive::measure),
    ("crash", crash::measure),
    ("rest", rest::measure),
    ("logs", logs::measure),
    ("crowd", crowd::measure_few),
    ("throng", crowd::measure_many),
    ("exits", exits::measure),
    ("weight", weight::measure),
    ("adopt", adopt::measure),
    ("bomb", bomb::measure),
    ("fleet", fleet::measure),
    ("hooks", hooks::measure),
    ("guests", guests::measure),
];

fn main() -> ExitCode {
    // First of all: for a service, this is the moment that is measured.
    let begun = clock::now_ns();
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [run, ..] if run.ends_with("/run") || *run == "run" => program::serve(begun, "fifo", None),
        [_, "service", fifo] => program::serve(begun, fifo, None),
        [_, "service", fifo, config] => program::serve(begun, fifo, Some(config)),
        [_, "readers", root, result] => swap::read_in_a_loop(root, result),
        [_, "supervisor", "hand-over", door] => direct::hand_over(door),
        [_, "supervisor", dir] => swap::drive(dir),
        [_, "writer", done, line, block] => logs::write_lines(done, line, block),
        [_] | [_, "help" | "--help"] => {
            say(&format!("names: all {}", FIGURES.map(|(name, _)| name).join(" ")));
            Ok(true)
        }
        [_, names @ ..] => measure(names),
        [] => Ok(false),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            table::complain(&error.to_string());
            ExitCode::from(2)
        }
    }
}

/// Measures what is named; `false` where a figure was missed.
fn measure(names: &[&str]) -> Result<bool, Failure> {
    let all = names == ["all"];
    if let Some(unknown) = names.iter().find(|name| !all && !FIGURES.iter().any(|(known, _)| known == *name)) {
        return Err(format!("`{unknown}` is none of: all {}", FIGURES.map(|(name, _)| name).join(" ")).into());
    }
    table::head();
    let mut met = true;
    for (name, figure) in FIGURES {
        if all || names.contains(&name) {
            for row in figure().map_err(|error| format!("{name}: {error}"))? {
                met &= row.print(name);
            }
        }
    }
    Ok(met)
}
