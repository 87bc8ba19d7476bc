//! The only place of the daemon that asks for the time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::model::{Moment, Now, Timestamp};

/// Both clocks. The planning clock is CLOCK_BOOTTIME: it counts through a suspend and never jumps with the wall clock.
pub(super) fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let millis = u64::try_from(boot.tv_sec).unwrap_or(0) * 1000 + u64::try_from(boot.tv_nsec).unwrap_or(0) / 1_000_000;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Now { moment: Moment(millis), wall: Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)) }
}
