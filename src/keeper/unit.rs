//! What the keeper tells the service manager that started it, where one did and asks for it: by `sd_notify`, as a unit with
//! `Type=notify` does.
//!
//! The socket is the keeper's alone: the variables that name it go neither to services nor to the supervisor. What is told
//! follows from how things stand, in every turn of the loop: a message that the socket did not take is said again, or left
//! out where it is no longer true. Without `NOTIFY_SOCKET`, nothing here happens. To tell more: a field of [`Standing`] and its
//! line in [`Standing::message`].

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with};
use rustix::time::{ClockId, clock_gettime};

use super::engine::{Engine, now};
use crate::model::Moment;

/// Variables by which a manager says where and how often it wants to hear from this process, and from no other.
pub(super) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// After so long the keeper calls itself ready though no supervisor serves yet: services are looked after, the supervisor is
/// tried again for ever, and a manager that lost patience would take the services down.
const READY_AT_LATEST: Duration = Duration::from_secs(20);

/// When a message that the socket did not take is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// How far the unit has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    Reloading,
    /// All is being stopped, for so long at most.
    Stopping(Duration),
}

/// What is told: how far the unit has come, and a line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    phase: Phase,
    status: String,
}

impl Standing {
    /// The words for this, said after that.
    fn message(&self, before: Option<Phase>) -> String {
        let status = format!("STATUS={}", self.status);
        if before == Some(self.phase) {
            return status;
        }
        match self.phase {
            Phase::Starting => status,
            Phase::Ready => format!("READY=1\n{status}"),
            Phase::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}\n{status}", monotonic_us()),
            Phase::Stopping(most) => format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}\n{status}", most.as_micros()),
        }
    }
}

/// The clock by which a manager tells whether a reload began after it asked for one.
fn monotonic_us() -> i64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1_000)
}

/// How often a sign of life is due, and when the next one is.
#[derive(Debug, Clone, Copy)]
struct Watchdog {
    every: Duration,
    next: Moment,
}

/// The unit that this keeper is.
pub(super) struct Unit {
    socket: OwnedFd,
    address: SocketAddrUnix,
    watchdog: Option<Watchdog>,
    told: Option<Standing>,
    /// Why the last exchange for another program did not happen.
    refused: Option<String>,
    ready: bool,
    ready_by: Moment,
    retry_at: Option<Moment>,
}

impl Unit {
    /// Reads what the environment asks for; `None` where it asks for nothing that can be done.
    pub(super) fn from_environment(now: Moment) -> Option<Self> {
        let address = address(std::env::var_os(VARIABLES[0])?.as_bytes())?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).ok()?;
        let [_, usec, pid] = VARIABLES.map(|name| std::env::var(name).ok());
        let every = half_of_watchdog(usec.as_deref(), pid.as_deref(), std::process::id());
        Some(Self {
            socket,
            address,
            watchdog: every.map(|every| Watchdog { every, next: now }),
            told: None,
            refused: None,
            ready: false,
            ready_by: now.after(READY_AT_LATEST),
            retry_at: None,
        })
    }

    /// When something is to be said though nothing happens.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let ready_by = (!self.ready).then_some(self.ready_by);
        [self.watchdog.map(|watchdog| watchdog.next), self.retry_at, ready_by].into_iter().flatten().min()
    }

    fn tell(&mut self, standing: Standing, now: Moment) {
        let before = self.told.as_ref().map(|told| told.phase);
        if self.told.as_ref() != Some(&standing) {
            let sent = self.send(&standing.message(before));
            self.retry_at = (!sent).then(|| now.after(RETRY_AFTER));
            if sent {
                self.told = Some(standing);
            }
        } else {
            self.retry_at = None;
        }
        if let Some(watchdog) = self.watchdog.filter(|watchdog| watchdog.next <= now) {
            let wait = if self.send("WATCHDOG=1") { watchdog.every } else { watchdog.every.min(RETRY_AFTER) };
            self.watchdog = Some(Watchdog { next: now.after(wait), ..watchdog });
        }
    }

    /// Says whether the socket took it. A socket that is gone for good will take nothing later either.
    fn send(&self, message: &str) -> bool {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        !matches!(
            sendto(&self.socket, message.as_bytes(), flags, &self.address),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS)
        )
    }
}

/// A path, or a name outside of the file system behind an `@`.
fn address(text: &[u8]) -> Option<SocketAddrUnix> {
    match text.split_first()? {
        (b'@', name) => SocketAddrUnix::new_abstract_name(name).ok(),
        (b'/', _) => SocketAddrUnix::new(text).ok(),
        _ => None,
    }
}

/// Half of the time within which a manager wants a sign of life from this process.
fn half_of_watchdog(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let usec: u64 = usec?.parse().ok().filter(|usec| *usec > 0)?;
    // Deadlines are whole milliseconds; one of none would be a loop that never rests.
    Some(Duration::from_micros(usec / 2).max(Duration::from_millis(1)))
}

impl Engine {
    /// Tells the manager how things stand, where there is one and that is news.
    pub(super) fn tell_unit(&mut self) {
        let now = now().moment;
        let serving = self.supervisor.serving;
        let Some(unit) = &mut self.unit else { return };
        unit.ready |= serving || unit.ready_by <= now;
        let phase = if self.ending.is_some() {
            match &unit.told {
                // Said once: what it takes then counts from then.
                Some(Standing { phase: Phase::Stopping(most), .. }) => Phase::Stopping(*most),
                _ => Phase::Stopping(super::ending::longest(self.services.values().map(|entry| &entry.service.spec.policy))),
            }
        } else if self.exchange.is_some() {
            Phase::Reloading
        } else if unit.ready {
            Phase::Ready
        } else {
            Phase::Starting
        };
        let services = match self.services.len() {
            1 => "1 service".to_owned(),
            count => format!("{count} services"),
        };
        let status = match phase {
            Phase::Stopping(_) => format!("stopping {services}"),
            Phase::Reloading => format!("becoming the program that is in its place now; {services} run on"),
            Phase::Starting | Phase::Ready if serving => services,
            Phase::Starting | Phase::Ready => match &self.supervisor.ended {
                Some(end) => format!("{services}; the supervisor {end} and is started again"),
                None => format!("{services}; the supervisor is starting"),
            },
        };
        let status =
            unit.refused.as_ref().filter(|_| phase == Phase::Ready).map_or(status.clone(), |why| format!("{status}; {why}"));
        unit.tell(Standing { phase, status }, now);
    }

    /// Tells the manager that an exchange was asked for, before it is known whether it can be: it waits for both words.
    pub(super) fn unit_reloads(&mut self) {
        let Some(unit) = &mut self.unit else { return };
        unit.refused = None;
        unit.tell(Standing { phase: Phase::Reloading, status: "asking the new program what it knows".to_owned() }, now().moment);
    }

    /// Notes why an exchange did not happen, for the manager's status.
    pub(super) fn unit_stays(&mut self, why: &str) {
        if let Some(unit) = &mut self.unit {
            // On one line: what follows a line's end would be another word.
            unit.refused = Some(why.replace('\n', " "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_is_due_twice_in_the_time_that_is_given_and_only_from_this_process() {
        let cases = [
            (Some("30000000"), None, Some(15_000)),
            (Some("30000000"), Some("7"), Some(15_000)),
            (Some("30000000"), Some("8"), None),
            (Some("30000000"), Some(""), None),
            (Some("1"), None, Some(1)),
            (Some("0"), None, None),
            (Some("-5"), None, None),
            (None, Some("7"), None),
        ];
        for (usec, pid, ms) in cases {
            assert_eq!(half_of_watchdog(usec, pid, 7), ms.map(Duration::from_millis), "{usec:?} {pid:?}");
        }
    }

    #[test]
    fn a_phase_is_told_once_and_a_status_as_often_as_it_changes() {
        let standing = |phase| Standing { phase, status: "2 services".to_owned() };
        let ready = standing(Phase::Ready);
        assert_eq!(ready.message(None), "READY=1\nSTATUS=2 services");
        assert_eq!(ready.message(Some(Phase::Ready)), "STATUS=2 services");
        assert!(standing(Phase::Reloading).message(Some(Phase::Ready)).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        let stopping = standing(Phase::Stopping(Duration::from_secs(2)));
        assert_eq!(stopping.message(Some(Phase::Ready)), "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000\nSTATUS=2 services");
        assert_eq!(standing(Phase::Starting).message(None), "STATUS=2 services");
    }

    #[test]
    fn only_a_path_or_a_name_behind_an_at_is_an_address() {
        assert!(address(b"/run/systemd/notify").is_some() && address(b"@name").is_some());
        for bad in [b"".as_slice(), b"vsock:2:1", b"relative", &[b'/'; 200]] {
            assert!(address(bad).is_none(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
