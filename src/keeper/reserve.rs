//! Descriptors that are kept back: what runs already is looked after to the last one, what is new is refused before.
//!
//! A keeper of many services runs out of them first. Without a reserve, the one service too many would take along the restarts
//! of all others, and the supervisor's. To hold something back from another use: a share of its own beside these.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};

use rustix::process::{Resource, getrlimit};

/// What stays open for a service is put at this number or above, so that what a new process needs is found below: the others
/// need not be copied for it, nor closed by it. Where few are allowed at all, it is their [`PART_MAX`]th part.
const LASTING_FROM: u64 = 128;

/// So many stay free of new services, beside one for each that is known and may be restarted in the same moment: for what a
/// restart, the supervisor's too, and commands need.
const FOR_SERVICES: u64 = 64;

/// Where few are allowed at all, no more than this part of them is kept back.
const PART_MAX: u64 = 4;

/// Of what is kept back, commands leave this part for restarts.
const PART_OF_RESTARTS: u64 = 2;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// A service that never ran here.
    Service,
    /// A command beside one.
    Command,
}

/// The first number of those that stay open.
pub(super) fn lasting_from() -> RawFd {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    RawFd::try_from(LASTING_FROM.min(limit / PART_MAX)).unwrap_or(RawFd::MAX)
}

/// Moves a descriptor that stays open to where such are. Where there is no room left it stays where it is, and starts take
/// longer.
pub(super) fn lasting(fd: OwnedFd) -> OwnedFd {
    rustix::io::fcntl_dupfd_cloexec(&fd, lasting_from()).unwrap_or(fd)
}

/// Whether there are descriptors for it beside so many services; else why not, and what to do.
pub(super) fn room(asks: Asks, services: usize, any: impl AsFd) -> Result<(), String> {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return Ok(()) };
    let used = in_use(any).unwrap_or(limit);
    let restarts = u64::try_from(services).unwrap_or(u64::MAX);
    if used.saturating_add(kept(asks, limit)).saturating_add(restarts) <= limit {
        return Ok(());
    }
    Err(format!(
        "the keeper has {used} of its {limit} descriptors in use and keeps the rest for the services that it has; give it more \
         (`LimitNOFILE=` of its unit, `ulimit -Hn`) and start it again"
    ))
}

/// How many descriptors this process has; `None` where there is no number left.
fn in_use(any: impl AsFd) -> Option<u64> {
    // Kernels since 6.2 count them.
    let counted = std::fs::metadata("/proc/self/fd").ok().map(|found| found.len()).filter(|count| *count > 0);
    // Others give the lowest number that is free, so those that last below it are in use.
    counted.or_else(|| u64::try_from(rustix::io::fcntl_dupfd_cloexec(any, lasting_from()).ok()?.as_raw_fd()).ok())
}

fn kept(asks: Asks, limit: u64) -> u64 {
    let kept = FOR_SERVICES.min(limit / PART_MAX);
    match asks {
        Asks::Service => kept,
        Asks::Command => kept / PART_OF_RESTARTS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_service_leaves_more_than_a_command_and_few_leave_something() {
        for (limit, service, command) in [(1_048_576, 64, 32), (256, 64, 32), (100, 25, 12), (0, 0, 0)] {
            assert_eq!((kept(Asks::Service, limit), kept(Asks::Command, limit)), (service, command), "{limit}");
        }
    }

    #[test]
    fn what_lasts_is_above_what_a_start_needs() {
        let fd = lasting(std::io::stderr().as_fd().try_clone_to_owned().unwrap());
        assert!(fd.as_raw_fd() >= lasting_from() && lasting_from() > 2, "{fd:?}");
    }

    #[test]
    fn there_is_room_as_long_as_few_are_in_use() {
        assert_eq!(room(Asks::Service, 1, std::io::stderr()), Ok(()));
    }
}
