//! Faults, end to end: bad releases, bad remotes, bad disks, sudden deaths. Real processes, a real repository.
//!
//! The rule in all of them: what goes wrong is named, the last good state keeps running untouched, nothing is half applied, and
//! once the fault is gone the host ends on the newest good release without help. A new kind of fault is a module of its own.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it cannot go on, and says how much it tried")]

mod bad_input;
mod crash;
mod disk;
mod drift;
mod host;
mod keeper;
mod logs;
mod operator;
mod readiness;
mod remotes;
mod rights;
mod state;
mod sudden;
