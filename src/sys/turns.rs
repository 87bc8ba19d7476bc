//! Turns on a processor.

use std::ffi::c_int;
use std::io;

use super::check;

/// How a process stands in line for a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turns {
    /// As everybody else.
    Usual,
    /// Like everybody else, but for turns of so many nanoseconds at once: whoever asks for short ones gets them sooner
    /// (sched_setattr(2); Linux 6.12, an older kernel takes the number and does nothing with it). Children inherit it.
    Short(u64),
    /// Before everybody who computes, as `SCHED_RR` (sched(7)) of the lowest priority. Children do not inherit it.
    First,
}

/// Asks for it. Whoever was started with another policy than the usual one, or with a `nice` value, keeps what he has.
pub fn take_turns(turns: Turns) -> io::Result<()> {
    const RESET: u64 = libc::SCHED_FLAG_RESET_ON_FORK as u64;
    #[expect(unsafe_code, reason = "sched_attr is plain data for which zero is valid")]
    let mut now: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>();
    #[expect(unsafe_code, reason = "the kernel writes at most as many bytes as it is told are there")]
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut now, size, 0u32) })?;
    let usual = [libc::SCHED_OTHER, libc::SCHED_BATCH].contains(&(now.sched_policy as c_int));
    let first = now.sched_policy as c_int == libc::SCHED_RR && now.sched_flags & RESET != 0;
    if !usual && !first || turns == Turns::First && now.sched_nice != 0 {
        return Ok(());
    }
    if first {
        (now.sched_policy, now.sched_priority, now.sched_flags) = (libc::SCHED_OTHER as u32, 0, now.sched_flags & !RESET);
    }
    match turns {
        Turns::Usual => now.sched_runtime = 0,
        Turns::Short(nanoseconds) => now.sched_runtime = nanoseconds,
        Turns::First => {
            (now.sched_policy, now.sched_priority, now.sched_runtime) = (libc::SCHED_RR as u32, 1, 0);
            now.sched_flags |= RESET;
        }
    }
    #[expect(unsafe_code, reason = "the struct lives until the call returns, and says its own size")]
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const now, 0u32) }).map(drop)
}
