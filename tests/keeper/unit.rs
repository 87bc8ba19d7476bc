//! The keeper as a unit of a service manager: what it says to a socket of the test's own.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tagfall::keeper::wire::{Message, Request};
use tagfall::model::ServiceState;

use crate::shim::Shim;
use crate::stage::{Setting, Stage, shell, signal};

/// By when a message that is waited for must have come.
const BOUND: Duration = Duration::from_secs(20);

/// A service manager, as far as a unit sees one.
struct Manager {
    _dir: tempfile::TempDir,
    path: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("tagfall-manager-").tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        Self { _dir: dir, path, socket }
    }

    fn setting(&self) -> Setting {
        Setting { env: vec![("NOTIFY_SOCKET".to_owned(), self.path.to_str().unwrap().to_owned())], ..Setting::default() }
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("the keeper says something in time");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// The next message that is more than a status; none of those before it may hold `never`.
    fn word(&self, never: &str) -> String {
        loop {
            let message = self.next();
            assert!(!message.contains(never), "{message}");
            if !message.starts_with("STATUS=") {
                return message;
            }
        }
    }

    /// Waits until a message holds this.
    fn says(&self, wanted: &str) -> String {
        let end = Instant::now() + BOUND;
        loop {
            let message = self.next();
            if message.contains(wanted) {
                return message;
            }
            assert!(Instant::now() < end, "`{wanted}` is not said, but `{message}`");
        }
    }
}

fn monotonic_us() -> i64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

fn number(message: &str, key: &str) -> i64 {
    message.lines().find_map(|line| line.strip_prefix(key)).unwrap().parse().unwrap()
}

#[test]
fn a_unit_is_ready_when_the_supervisor_serves_and_tells_of_reload_and_end() {
    let manager = Manager::new();
    let mut stage = Stage::with(manager.setting());
    assert!(manager.next().starts_with("STATUS=0 services; the supervisor is starting"));
    let mut spec = shell("one", "exec sleep 1000");
    spec.policy.stop_timeout = Duration::from_secs(100);
    stage.run(&spec);
    let service = stage.wait_state(&spec.group, ServiceState::Running).pid.unwrap();
    // What is for the keeper is for nobody else.
    for pid in [service, stage.supervisor_pid()] {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains("NOTIFY_SOCKET"), "{pid}");
    }
    stage.ask(&Request::Serving).unwrap();
    assert_eq!(manager.word("READY=1\nSTATUS=0"), "READY=1\nSTATUS=1 service");
    // Its supervisor's death is no news to those who wait for the unit, but told.
    stage.kill_supervisor();
    assert!(manager.says("the supervisor was ended by").starts_with("STATUS=1 service; "));
    stage.ask(&Request::Serving).unwrap();
    loop {
        if manager.next() == "STATUS=1 service" {
            break;
        }
    }
    // Another program in its place: told before and after, by the clock of whoever asked.
    let asked = monotonic_us();
    signal(stage.keeper.id(), rustix::process::Signal::HUP);
    let reloading = manager.word("READY");
    assert!(reloading.starts_with("RELOADING=1\n"), "{reloading}");
    let at = number(&reloading, "MONOTONIC_USEC=");
    assert!((asked..=monotonic_us()).contains(&at), "{asked} {at}");
    stage.connect();
    stage.ask(&Request::Serving).unwrap();
    assert_eq!(manager.word("STOPPING"), "READY=1\nSTATUS=1 service");
    assert_eq!(stage.reports[&spec.group].pid, Some(service));
    // The end: it may take as long as the slowest service.
    signal(stage.keeper.id(), rustix::process::Signal::TERM);
    stage.next_where("word of the end", |message| matches!(message, Message::Shutdown).then_some(()));
    let stopping = manager.word("READY");
    assert!(stopping.starts_with("STOPPING=1\n"), "{stopping}");
    assert!(number(&stopping, "EXTEND_TIMEOUT_USEC=") > 100_000_000, "{stopping}");
    stage.send(&Request::Finished);
    assert!(stage.wait_end().success());
}

#[test]
fn an_exchange_that_is_refused_ends_the_reload_and_says_why() {
    let manager = Manager::new();
    let mut stage = Stage::with(Setting { own_program: true, ..manager.setting() });
    stage.ask(&Request::Serving).unwrap();
    manager.says("READY=1");
    let broken = stage.program().with_extension("new");
    std::fs::write(&broken, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(&broken, stage.program()).unwrap();
    signal(stage.keeper.id(), rustix::process::Signal::HUP);
    assert!(manager.word("READY").starts_with("RELOADING=1\n"));
    let after = manager.word("STOPPING");
    assert!(after.starts_with("READY=1\n") && after.contains("does not become"), "{after}");
    assert_eq!(after.lines().count(), 2, "{after}");
}

/// Half of it is how often a sign of life is due.
const WATCHDOG: Duration = Duration::from_millis(400);

#[test]
fn a_sign_of_life_comes_twice_in_the_time_that_is_given_and_no_more_often() {
    let manager = Manager::new();
    let mut setting = manager.setting();
    setting.env.push(("WATCHDOG_USEC".to_owned(), WATCHDOG.as_micros().to_string()));
    let mut stage = Stage::with(setting);
    let spec = shell("busy", "exit 1");
    stage.run(&spec);
    manager.says("WATCHDOG=1");
    let begun = Instant::now();
    let mut signs = 0;
    while signs < 6 {
        signs += u32::from(manager.next() == "WATCHDOG=1");
    }
    // Late is the machine's fault; early would be a tick that nobody asked for. The first may have waited for the test.
    assert!(begun.elapsed() >= WATCHDOG / 2 * (signs - 2), "{:?}", begun.elapsed());
}

#[test]
fn a_watchdog_of_another_process_is_none_of_its_business() {
    let manager = Manager::new();
    let mut setting = manager.setting();
    setting.env.push(("WATCHDOG_USEC".to_owned(), WATCHDOG.as_micros().to_string()));
    setting.env.push(("WATCHDOG_PID".to_owned(), std::process::id().to_string()));
    let mut stage = Stage::with(setting);
    stage.ask(&Request::Serving).unwrap();
    // It would have been the first word of all.
    assert!(manager.word("WATCHDOG").starts_with("READY=1\n"));
}

/// Longer than a keeper waits for its supervisor before it calls itself ready, in seconds.
const LATE_S: i64 = 60;

#[test]
fn a_supervisor_that_never_serves_does_not_keep_the_unit_from_being_ready() {
    let Ok(shim) = Shim::new() else { return };
    let manager = Manager::new();
    let mut setting = shim.setting();
    setting.env.extend(manager.setting().env);
    let mut stage = Stage::with(setting);
    if shim.need_clocks().is_err() {
        return;
    }
    stage.run(&shell("first", "exec sleep 1000"));
    shim.sleep(LATE_S);
    stage.run(&shell("second", "exec sleep 1000"));
    let ready = manager.word("WATCHDOG");
    assert!(ready.starts_with("READY=1\n") && ready.contains("the supervisor is starting"), "{ready}");
}
