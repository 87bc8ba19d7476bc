//! Time, by the host's clocks. Needs no grant. The clocks of `std` do not run in every module.

use std::time::{Duration, SystemTime};

use crate::host::clock;

/// The time of day by the host's clock.
pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + since_epoch()
}

/// How long ago 1970 began, by the host's clock.
pub fn since_epoch() -> Duration {
    Duration::from_millis(clock::now_unix_ms())
}

/// How long this call has run.
pub fn elapsed() -> Duration {
    Duration::from_nanos(clock::monotonic_ns())
}

/// Waits. The call's deadline goes on.
pub fn sleep(time: Duration) {
    clock::sleep_ms(milliseconds(time));
}

/// Whole milliseconds, never fewer than asked for.
pub(crate) fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

/// A timeout as imports take it: 0 stands for all the time that is left, so that the shortest is 1.
pub(crate) fn timeout(time: Option<Duration>) -> u32 {
    time.map_or(0, |time| milliseconds(time).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_timeout_becomes_none_by_rounding() {
        assert_eq!(timeout(None), 0);
        assert_eq!(timeout(Some(Duration::ZERO)), 1);
        assert_eq!(timeout(Some(Duration::from_micros(1_001))), 2);
        assert_eq!(timeout(Some(Duration::MAX)), u32::MAX);
    }
}
