//! Write hooks of the Tagfall supervisor in Rust.

#![doc = include_str!("../README.md")]

mod answer;
mod call;
pub mod census;
pub mod clock;
pub mod config;
mod error;
pub mod exec;
pub mod files;
mod generated;
mod hooks;
mod host;
pub mod http;
pub mod log;
pub mod net;
mod serve;

pub use answer::{Action, ExitStatus, Health, Outcome, Report};
pub use call::{Call, Reason};
pub use error::{Error, Result};
pub use log::Level;
pub use serde_json as json;

/// All that hooks commonly name: `use tagfall_hooks::prelude::*;`.
pub mod prelude {
    pub use crate::{Call, Error, ExitStatus, Health, Outcome, Reason, Report, Result};
    pub use crate::{census, clock, config, exec, files, http, log, net};
    pub use serde::Deserialize;
}

/// What the macros expand to, and no part of what stays as it is.
#[doc(hidden)]
pub mod __private {
    pub use crate::serve::*;
}
