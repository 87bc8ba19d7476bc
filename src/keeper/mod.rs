//! The small process that owns all services.

mod config;
#[allow(dead_code)]
mod state;
pub mod wire;

pub use config::KeeperConfig;
