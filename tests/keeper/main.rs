//! The keeper with the real binary and real children.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adopt;
mod life;
mod rights;
mod stage;
mod views;

/// What the keeper starts as its supervisor: see `stage`.
#[test]
fn supervisor() {
    stage::hand_over();
}
