//! Who else is there, as this supervisor knows it at the moment of the call. Needs no grant.
//!
//! ```no_run
//! use tagfall_hooks::prelude::*;
//!
//! # fn replicas() -> Result<()> {
//! let leader = census::leader("redis.default").ok_or("there is no leader")?;
//! let replicas = census::members("redis.default").iter().filter(|member| member.healthy && !member.leader).count();
//! # Ok(()) }
//! ```

use crate::host::census;

pub use crate::generated::bindings::tagfall::hooks::census::Member;

/// This member.
pub fn me() -> Member {
    census::me()
}

/// The members of a group that this one belongs to or binds; none of any other.
pub fn members(group: &str) -> Vec<Member> {
    census::members(group)
}

/// The leader of such a group, where it has one.
pub fn leader(group: &str) -> Option<Member> {
    members(group).into_iter().find(|member| member.leader)
}
