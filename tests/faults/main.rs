//! Faults, end to end: bad releases, bad remotes, bad disks, sudden deaths. Real processes, a real repository.
//!
//! The rule in all of them: what goes wrong is named, the last good state keeps running untouched, nothing is half applied, and
//! once the fault is gone the host ends on the newest good release without help. A new kind of fault is a module of its own.

mod bad_input;
mod crash;
mod disk;
mod drift;
mod host;
mod keeper;
mod operator;
mod remotes;
mod state;
mod sudden;
