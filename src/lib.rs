//! Tagfall: a declarative GitOps supervisor for Linux hosts.
//!
//! Facts go into a function, decisions and their reasons come out; shells carry them out and make no choices; one loop
//! stands between. ARCHITECTURE.md opens with the flow.

pub mod model;

pub mod manifest;
pub mod plan;
pub mod release;
pub mod render;
pub mod trust;

pub mod api;
pub mod cli;
pub mod containers;
pub mod daemon;
pub mod hooks;
pub mod keeper;
pub mod process;
pub mod publish;
pub mod source;
pub mod store;
pub mod sys;
