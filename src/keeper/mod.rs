//! The small process that owns all services: it alone starts, signals and waits for them, keeps their output, and restarts
//! them by the policy it was last given, whether or not a supervisor is there.
//!
//! Single-threaded, std and rustix only: no tokio, no serde, no TOML or JSON, no tracing; of the crate it uses `model` and
//! `sys`. It decides nothing that a release, a tag or the ring has a say in.
//!
//! | file | question |
//! | --- | --- |
//! | `state.rs` | what follows from an event: pure, checked for all short sequences |
//! | `engine.rs`, `poller.rs` | what happens next: the loop |
//! | `services.rs`, `spawn.rs`, `mounts.rs`, `proc.rs` | how it is carried out |
//! | `cgroup.rs`, `oom.rs` | what holds a service together and within its limits; whom the kernel kills first |
//! | `link.rs`, `requests.rs`, `commands.rs`, `wire.rs` | the supervisor: its process, what it asks, what it is told |
//! | `log.rs`, `journal.rs`, `lock.rs` | what is on disk |
//! | `notify.rs`, `listen.rs` | what services say of themselves; the sockets that are held for them |
//! | `ending.rs` | the end |
//!
//! To add something a supervisor may ask: a message in `wire.rs`, its row in `requests.rs`, and where it changes what a
//! service does, an event in `state.rs`. Left open for what is to come: the
//! journal with `Engine::find_foreign` is where a successor would adopt.

mod cgroup;
mod commands;
mod config;
mod ending;
mod engine;
mod error;
mod journal;
mod link;
mod listen;
mod lock;
mod log;
mod mounts;
mod notify;
mod oom;
mod poller;
mod proc;
mod requests;
mod rights;
mod services;
mod spawn;
mod state;
pub mod wire;

pub use config::KeeperConfig;
pub use error::KeeperError;

/// Runs the keeper until a signal asks for its end: the body of the hidden subcommand `keeper`. It takes over this whole
/// process, which must have a single thread: its signals, its children, its limit of open files.
pub fn run(config: KeeperConfig) -> Result<std::process::ExitCode, KeeperError> {
    let lock = lock::take(&config.data_dir)?;
    engine::Engine::new(config)?.run()?;
    drop(lock);
    Ok(std::process::ExitCode::SUCCESS)
}
