//! What tools made of `wit/0.1.0`, and nothing by hand: `tests/generated.rs` compares it, and writes it anew.

#[rustfmt::skip]
#[expect(
    unsafe_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "made by a tool: it moves values across the module's edge, and is no part of what this crate offers"
)]
pub(crate) mod bindings;
#[rustfmt::skip]
mod types;
