//! The small process that owns all services.
#![allow(dead_code, unused_imports)]

mod config;
mod mounts;
mod rights;
mod spawn;
mod state;
pub mod wire;

pub use config::KeeperConfig;
