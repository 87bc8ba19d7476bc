//! Whom a supervisor believes: keys and tags made by the real git, ssh-keygen and gpg, and everything that people with push rights and
//! without a trusted key may try.
//!
//! The rule in every attack: it is refused by its own name, what runs is not touched, and the next good tag is applied. A new
//! attack is a line of a table in `attacks.rs`; a new kind of key one in `ssh.rs` or `openpgp.rs`.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod attacks;
mod clock;
mod host;
mod offline;
mod openpgp;
mod people;
mod rotation;
mod ssh;
mod state;
