//! The keeper killed, or exchanged for another program, under a real supervisor: nothing is planned because of it.

use std::time::Duration;

use common::{LONG, Supervisor, holds_for, wait_for};

use crate::host::{Host, QUIET, is_alive};

#[test]
fn a_killed_keepers_service_is_gone_on_with() {
    let mut host = Host::start();
    let (before, pid, told) = (host.untouched(), host.pid(), host.told());
    Supervisor::signal(u64::from(host.supervisor.keeper_pid()), "KILL");
    wait_for("the keeper has ended", LONG, || host.supervisor.ended().map(drop).ok_or_else(|| "it runs".to_owned()));
    assert!(is_alive(pid));
    host.start_again();
    host.supervisor.wait_ready("v1.0.0");
    holds_for("nothing is done to the service", QUIET, || host.untouched() == before && host.told() == told);
    // All works on: the next release is shown to the same process, and it is told so.
    host.release("v1.0.1");
    host.supervisor.wait_ready("v1.0.1");
    wait_for("the service was told", LONG, || if host.told() == told { Err(told.clone()) } else { Ok(()) });
    assert_eq!((host.pid(), host.starts().len()), (pid, 1));
    assert_eq!(host.seen_by(pid), host.one_version());
    host.stop();
    // It was init's child by then: init decides when its number is gone.
    wait_for("the service is gone", LONG, || if is_alive(pid) { Err(pid.to_string()) } else { Ok(()) });
}

#[test]
fn sighup_exchanges_the_program() {
    let mut host = Host::start();
    let (before, pid, told) = (host.untouched(), host.pid(), host.told());
    let (keeper, supervisor) = (host.supervisor.keeper_pid(), host.supervisor_pid());
    Supervisor::signal(u64::from(keeper), "HUP");
    wait_for("another supervisor answers", LONG, || {
        let status = host.supervisor.status()?;
        let other = status["supervisor"]["pid"].as_u64().is_some_and(|pid| pid != supervisor);
        if other { Ok(()) } else { Err(host.supervisor.log()) }
    });
    assert!(host.supervisor.ended().is_none() && host.supervisor.keeper_pid() == keeper);
    host.supervisor.wait_ready("v1.0.0");
    holds_for("nothing is done to the service", QUIET, || host.untouched() == before && host.told() == told);
    host.release("v1.0.1");
    host.supervisor.wait_ready("v1.0.1");
    assert_eq!((host.pid(), host.starts().len()), (pid, 1));
    host.stop();
    assert!(!is_alive(pid));
}

/// How long a supervisor is stopped.
const STOPPED: Duration = Duration::from_secs(3);

#[test]
fn a_supervisor_that_was_stopped_does_what_it_missed_once() {
    let mut host = Host::start();
    let (supervisor, pid) = (host.supervisor_pid(), host.pid());
    Supervisor::signal(supervisor, "STOP");
    // What happens meanwhile: a crash, which is the keeper's, and three releases.
    Supervisor::signal(pid, "KILL");
    for version in ["v1.0.1", "v1.0.2", "v1.0.3"] {
        host.release(version);
    }
    wait_for("the service is back", LONG, || if host.starts().len() == 2 { Ok(()) } else { Err(host.supervisor.log()) });
    holds_for("nothing else happens", STOPPED, || host.starts().len() == 2 && host.one_version() == "version = v1.0.0\n");
    Supervisor::signal(supervisor, "CONT");
    host.wait_applied("v1.0.3", 2);
    assert_eq!(host.supervisor_pid(), supervisor);
    wait_for("the service was told", LONG, || if host.told().contains("v1.0.3") { Ok(()) } else { Err(host.told()) });
    let told = std::fs::read_to_string(host.path("told")).unwrap_or_default();
    assert_eq!(told.matches("v1.0.3").count(), 1, "{told}");
    host.stop();
}

#[test]
fn a_wall_clock_that_is_a_year_off_holds_nothing_up() {
    let dir = common::temp_dir();
    let Ok(shim) = common::compile("shim", dir.path(), &["-shared", "-fPIC", "-ldl"]) else { return };
    let said = dir.path().join("said");
    std::fs::write(&said, [0; 24]).unwrap();
    let shift = |seconds: i64| {
        use std::os::unix::fs::FileExt as _;
        std::fs::File::options().write(true).open(&said).unwrap().write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    };
    let (library, file) = (format!("LD_PRELOAD={}", shim.display()), format!("TAGFALL_TEST_SHIM={}", said.display()));
    let mut host = Host::through(&["env", &library, &file]);
    host.release("v1.0.0");
    host.supervisor.wait_ready("v1.0.0");
    let sealed = std::fs::read(&said).unwrap()[..8] != [0; 8];
    if common::need(!sealed, "the kernel seals the code by which clocks are read").is_err() {
        return;
    }
    let pid = host.pid();
    let year = 365 * 24 * 60 * 60;
    for (version, seconds) in [("v1.0.1", year), ("v1.0.2", -year), ("v1.0.3", 0)] {
        shift(seconds);
        host.release(version);
        host.supervisor.wait_ready(version);
        assert_eq!((host.pid(), host.starts().len()), (pid, 1), "{version}");
        // The next supervisor begins by that clock.
        let before = host.supervisor_pid();
        Supervisor::signal(before, "KILL");
        wait_for("another supervisor", LONG, || {
            let now = crate::host::supervisor_pid(&host.supervisor.status()?)?;
            if now != before { Ok(()) } else { Err(now.to_string()) }
        });
        host.supervisor.wait_ready(version);
        assert_eq!((host.pid(), host.starts().len()), (pid, 1), "{version}");
    }
    host.stop();
}

#[test]
fn whoever_waits_for_the_unit_finds_an_api_that_answers() {
    let dir = common::temp_dir();
    let path = dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut host = Host::through(&["env", &format!("NOTIFY_SOCKET={}", path.display())]);
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).expect("the unit becomes ready");
        if buffer[..length].starts_with(b"READY=1\n") {
            break;
        }
    }
    let status = host.supervisor.status();
    assert!(status.is_ok(), "{status:?}");
    host.stop();
}
