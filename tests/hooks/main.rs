//! Modules in the real hook host, compiled by the real compiler: what hooks can do, and what they cannot.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attacks;
mod basics;
mod bombs;
mod commands;
mod daemon;
mod faults;
mod hostile;
mod life;
mod probes;
mod program;
mod reach;
mod recorder;
mod stage;
