//! The supervisor process: opens the shells, runs the loop, serves the API.
//!
//! The loop (`turning.rs`) is the only place that observes and begins. Effects (`effects.rs`, `examine.rs`, `stage.rs`) turn
//! one action into one answer. Questions from the API are answered from a copy of the core (`answers.rs`). Nothing here
//! decides: what to do is `plan`'s, what to say of it is `plan::explain`'s.

mod answers;
mod calls;
mod clock;
mod context;
mod diff;
mod effects;
mod examine;
mod handle;
mod hands;
mod layers;
mod logs;
mod modules;
mod narrate;
mod pace;
mod secrets;
mod shutdown;
pub(crate) mod stage;
mod start;
mod turning;
mod wire;

pub(crate) use answers::{Runs, group_steps};
pub(crate) use layers::gather as gather_layers;
pub use start::{DaemonError, Setup, data_dir, host_facts, run};
