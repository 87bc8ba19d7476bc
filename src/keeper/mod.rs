//! The small process that owns all services.

mod config;
pub mod wire;

pub use config::KeeperConfig;
