//! The keeper killed, or exchanged for another program, under a real supervisor: nothing is planned because of it.

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
