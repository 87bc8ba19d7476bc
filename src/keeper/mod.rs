//! The small process that owns all services.
#![allow(dead_code, unused_imports)]

mod config;
mod journal;
mod log;
mod mounts;
mod proc;
mod rights;
mod spawn;
mod state;
pub mod wire;

pub use config::KeeperConfig;
