//! The small process that owns all services: it alone starts, signals and waits for them, keeps their output, and restarts
//! them by the policy it was last given, whether or not a supervisor is there.
//!
//! Single-threaded, std and rustix only: no tokio, no serde, no TOML or JSON, no tracing; of the crate it uses `model` and
//! `sys`. It decides nothing that a release, a tag or the ring has a say in.
//!
//! | file | question |
//! | --- | --- |
//! | `state.rs` | what follows from an event: pure, and looked at in every state that there is |
//! | `engine.rs`, `poller.rs` | what happens next: the loop |
//! | `roster.rs` | for whom something is due |
//! | `services.rs`, `spawn.rs`, `mounts.rs`, `proc.rs`, `trial.rs` | how it is carried out, and whether it can be |
//! | `reserve.rs` | what is kept back for those that run already |
//! | `leftovers.rs` | who is left of a service, and their end |
//! | `cgroup.rs`, `oom.rs` | what holds a service together and within its limits; whom the kernel kills first |
//! | `link.rs`, `requests.rs`, `commands.rs`, `wire.rs` | the supervisor: its process, what it asks, what it is told |
//! | `outputs.rs` | what services write, in the loop |
//! | `log.rs`, `journal.rs`, `lock.rs`, `hold.rs` | what is on disk |
//! | `grants.rs`, `confine.rs` | what a supervisor may have done for it, and what its process is left with |
//! | `folders.rs`, `errands.rs`, `links.rs`, `beneath.rs` | whose the data folder is; what is done on disk for the supervisor, and how safely |
//! | `notify.rs`, `listen.rs` | what services say of themselves; the sockets that are held for them |
//! | `adopt.rs` | what an earlier keeper has left |
//! | `exchange.rs`, `handover.rs` | becoming another program, with all that it has |
//! | `unit.rs` | what a service manager that started the keeper is told |
//! | `ending.rs` | the end |
//! | `tests.rs` | the keeper in a simulated kernel |
//!
//! To add something a supervisor may ask: a message in `wire.rs`, its row in `requests.rs`, and where it changes what a
//! service does, an event in `state.rs`.

mod adopt;
mod beneath;
mod cgroup;
mod commands;
mod config;
mod confine;
mod ending;
mod engine;
mod errands;
mod error;
mod exchange;
mod folders;
mod grants;
mod handover;
mod hold;
mod journal;
mod leftovers;
mod link;
mod links;
mod listen;
mod lock;
pub(crate) mod log;
mod mounts;
mod notify;
mod oom;
mod outputs;
mod poller;
mod proc;
mod requests;
mod reserve;
mod rights;
mod roster;
mod services;
mod spawn;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod trial;
mod unit;
pub mod wire;

pub use config::KeeperConfig;
pub use confine::{Need, closed_to};
pub use error::KeeperError;
pub use grants::{DEFAULT_USER, Grants, NAMELESS_ID, RunAs};
pub use journal::STATE_VERSION;

use crate::sys::fork::OneThread;

/// First argument of the hidden subcommand `keeper` when it is asked which [`STATE_VERSION`] it knows.
pub const ASK_VERSION: &str = "--state-version";

/// First argument of the hidden subcommand `keeper` when it goes on in the place of another program; the number of the
/// descriptor with what that one hands over follows.
pub const RESUME: &str = "--adopt-fd";

/// Signals that the keeper takes. As the first process of a container, all others but SIGKILL and SIGSTOP of the host's are
/// kept from it by the kernel; elsewhere, they do to it what they do to any program.
const SIGNALS: [i32; 5] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP];

/// Has this process keep what it is sent until it is the keeper: the first process of a container would never get it.
pub fn hold_signals() -> std::io::Result<()> {
    crate::sys::process::signal_fd(&SIGNALS).map(drop)
}

/// Runs the keeper until a signal asks for its end: the body of the hidden subcommand `keeper`. It takes over this whole
/// process, which must have a single thread: its signals, its children, its limit of open files.
pub fn run(config: KeeperConfig) -> Result<std::process::ExitCode, KeeperError> {
    let lock = lock::take(&config.data_dir)?;
    folders::check_own(&config.data_dir).map_err(KeeperError::NotOurs)?;
    work(config, |engine| engine.keep(handover::LOCK, lock.into()))
}

/// Goes on as the keeper of this process, which was another program before: see [`RESUME`].
pub fn resume(config: KeeperConfig, descriptor: i32) -> Result<std::process::ExitCode, KeeperError> {
    let handed = handover::Handover::take(descriptor).map_err(KeeperError::setup("read what its predecessor hands over"))?;
    work(config, |engine| engine.take_over(handed))
}

fn work(config: KeeperConfig, begin: impl FnOnce(&mut engine::Engine) + Send) -> Result<std::process::ExitCode, KeeperError> {
    const ALONE: &str = "begin: it must be alone in its process";
    // Before there is a second thread: what one of them does not hold back would end them both.
    hold_signals().map_err(KeeperError::setup("take signals"))?;
    crate::sys::memory::one_heap();
    let work = |one_thread| {
        let mut engine = engine::Engine::new(config, one_thread)?;
        begin(&mut engine);
        engine.run()
    };
    OneThread::beside_the_first(work).map_err(KeeperError::setup(ALONE))??;
    Ok(std::process::ExitCode::SUCCESS)
}

/// All states of a service and what leads from each to the next, as the page of the site. `group` is any name.
pub fn states_page(group: &crate::model::GroupName) -> String {
    state::table::page(group)
}
