//! One clock for all processes of a measurement, and waiting.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC in nanoseconds: the same for every process of this machine.
pub(crate) fn now_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// What this thread has spent of the processor: on a busy machine, the time of others does not count.
pub(crate) fn spent_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Lets time pass: measurements have pauses between them.
pub(crate) fn pause(span: Duration) {
    let end = now_ns() + u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    while let Some(left) = end.checked_sub(now_ns()).filter(|left| *left > 0) {
        std::thread::park_timeout(Duration::from_nanos(left));
    }
}

/// Milliseconds between two moments; negative where the second was first.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a benchmark fit")]
pub(crate) fn ms_between(from: u64, to: u64) -> f64 {
    if to >= from { (to - from) as f64 / 1e6 } else { -((from - to) as f64 / 1e6) }
}
