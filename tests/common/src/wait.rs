//! Waits on a condition, each with a bound. The only place of the tests where time passes on purpose.

use std::time::{Duration, Instant};

/// Long enough for anything that one process does on a busy machine.
pub const SHORT: Duration = Duration::from_secs(10);
/// Long enough for a fetch, an update and a restart on a busy machine.
pub const LONG: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const POLL_MS: u64 = 20;

/// Waits until `look` gives a value.
///
/// # Panics
/// With `what` and what was seen last, when `deadline` has passed without one.
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) => assert!(begun.elapsed() < deadline, "not within {deadline:?}: {what}; last seen: {seen}"),
        }
        pause();
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// When it does not within `deadline`.
pub fn wait_until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, deadline, || if holds() { Ok(()) } else { Err("it does not hold".to_owned()) });
}

/// Checks that a condition holds and goes on holding.
///
/// # Panics
/// As soon as it does not.
pub fn holds_for(what: &str, span: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < span {
        assert!(holds(), "no longer after {:?}: {what}", begun.elapsed());
        pause();
    }
}

fn pause() {
    std::thread::park_timeout(Duration::from_millis(POLL_MS));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_its_condition() {
        let mut left = 3;
        let value = wait_for("a count", SHORT, || {
            left -= 1;
            if left == 0 { Ok(7) } else { Err(format!("{left} left")) }
        });
        assert_eq!(value, 7);
    }

    #[test]
    #[should_panic(expected = "last seen: never")]
    fn a_wait_ends_with_its_bound() {
        wait_for("what never comes", Duration::from_millis(30), || Err::<(), _>("never".to_owned()));
    }

    #[test]
    #[should_panic(expected = "no longer")]
    fn a_condition_that_ends_is_noticed() {
        let mut looks = 0;
        holds_for("two looks", SHORT, || {
            looks += 1;
            looks < 3
        });
    }
}
