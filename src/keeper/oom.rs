//! Whom the kernel is to kill first when the whole host runs out of memory: a service, not the keeper.

use std::fs;

use rustix::fs::{Mode, OFlags};

/// The keeper's own value, where it may be set: all but exempt.
const KEEPER: i32 = -900;

/// By how much services are easier to kill where the keeper's own value cannot be lowered.
const APART: i32 = 100;

/// The kernel's largest value.
const MAX: i32 = 1000;

/// Makes the keeper hard to kill, and says what services get instead.
pub(super) fn prefer_keeper() -> i32 {
    let path = "/proc/self/oom_score_adj";
    let read = || fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok());
    let inherited = read().unwrap_or(0);
    if inherited > KEEPER {
        let _ = fs::write(path, KEEPER.to_string());
    }
    of_services(inherited, read().unwrap_or(inherited))
}

/// What was meant for the keeper alone is not handed on; and the keeper is always better off.
fn of_services(inherited: i32, keeper: i32) -> i32 {
    let plain = inherited.max(0);
    if keeper < plain { plain } else { (keeper + APART).min(MAX) }
}

/// Sets it in a child. Without /proc, or without the right, all is as inherited: no reason not to start.
pub(super) fn set(value: &str) {
    if let Ok(file) = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(&file, value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keeper_is_always_better_off() {
        // Inherited, what the keeper has now, what services get.
        let table =
            [(0, -900, 0), (0, 0, 100), (200, -900, 200), (200, 200, 300), (-900, -900, 0), (-500, -500, 0), (1000, 1000, 1000)];
        for (inherited, keeper, services) in table {
            assert_eq!(of_services(inherited, keeper), services, "{inherited} {keeper}");
        }
    }
}
