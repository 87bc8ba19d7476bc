//! The keeper with the real binary and real children.

mod life;
mod rights;
mod stage;
mod views;

/// What the keeper starts as its supervisor: see `stage`.
#[test]
fn supervisor() {
    stage::hand_over();
}
