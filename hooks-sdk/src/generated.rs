//! What tools made of `wit/0.1.0`, and nothing by hand: `tests/generated.rs` compares it, and writes it anew.

#[rustfmt::skip]
#[expect(unsafe_code, unreachable_pub, reason = "made by a tool: reading and writing values across the module's edge")]
pub(crate) mod bindings;
#[rustfmt::skip]
mod types;
