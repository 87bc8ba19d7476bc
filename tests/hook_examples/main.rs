//! The hooks of `examples/hooks`, built from their sources by `tests/run`, against real servers: what each says of a server that
//! is well and of one that is not, and what it is told where nothing is granted.
//!
//! A module that was not built is a skip. A new language: a test in `checks.rs`, and one line in `made.rs`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod checks;
mod group;
mod made;
mod servers;
