//! The keeper with the real binary and real children.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "a service that the keeper starts prints what the test looks for")]

mod adopt;
mod fixture;
mod groups;
mod life;
mod listening;
mod notify;
mod protocol;
mod rights;
mod stage;
mod strict;
mod successor;
mod views;

/// What the keeper starts as its supervisor: see `stage`.
#[test]
fn supervisor() {
    stage::hand_over();
}

/// What the keeper starts as a service: see `fixture`.
#[test]
fn fixture_of_services() {
    fixture::body();
}
