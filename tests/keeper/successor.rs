//! What a keeper must know that comes after another: what services were promised, what they have said, what was about to begin.

use std::time::Duration;

use tagfall::keeper::wire::{Command, Request};
use tagfall::model::{Exit, Policy, Ready, ServiceSpec, ServiceState, Signal};

use crate::fixture::doing;
use crate::stage::{Stage, alive, shell, signal, wait_until};

const HUP: rustix::process::Signal = rustix::process::Signal::HUP;

/// A service that says itself when it is ready.
fn speaking(name: &str, ready: Ready, steps: &[&str]) -> ServiceSpec {
    let mut spec = doing(name, steps);
    (spec.policy.ready_when_started, spec.policy.ready) = (false, ready);
    spec
}

fn gate(stage: &Stage, name: &str) -> String {
    stage.data.join(name).display().to_string()
}

fn open_gate(path: &str) {
    std::fs::write(path, "").unwrap();
}

#[test]
fn what_a_service_has_said_is_known_to_the_next_keeper() {
    let mut stage = Stage::new();
    let (first, second) = (gate(&stage, "first"), gate(&stage, "second"));
    let more = "say EXTEND_TIMEOUT_USEC=90000000;STATUS=reading";
    let mut slow = speaking("slow", Ready::Notify, &[more, &format!("await {first}"), "say READY=1"]);
    slow.policy.watchdog = Some(Duration::from_secs(600));
    let loads = speaking(
        "loads",
        Ready::Notify,
        &["say READY=1", "say RELOADING=1;STATUS=half way", &format!("await {second}"), "say READY=1"],
    );
    stage.run(&slow);
    stage.run(&loads);
    stage.wait_for(&slow.group, |report| report.start_extended.is_some());
    stage.wait_state(&loads.group, ServiceState::Reloading);
    let before = stage.reports.clone();
    stage.replace_keeper();
    assert_eq!(stage.reports, before);
    open_gate(&first);
    open_gate(&second);
    for spec in [&slow, &loads] {
        let report = stage.wait_state(&spec.group, ServiceState::Running);
        assert_eq!((report.incarnation, report.restarts), (1, 0));
    }
}

#[test]
fn a_watchdog_goes_on_under_the_next_keeper_for_those_who_were_promised_one() {
    let mut stage = Stage::new();
    let go = gate(&stage, "go");
    let mut watched = speaking("watched", Ready::Notify, &["say READY=1", &format!("await {go}"), "say WATCHDOG=1"]);
    watched.policy.watchdog = Some(Duration::from_secs(2));
    let mut unwatched = speaking("unwatched", Ready::Notify, &["say READY=1"]);
    stage.run(&watched);
    stage.run(&unwatched);
    for spec in [&watched, &unwatched] {
        stage.wait_state(&spec.group, ServiceState::Running);
    }
    // It runs on as it was started: nobody has told it that it must speak.
    let policy = Policy { watchdog: Some(Duration::from_millis(100)), ..unwatched.policy };
    unwatched.policy = policy;
    let (group, release) = (unwatched.group.clone(), unwatched.release.clone());
    stage.ask(&Request::Amend { group, revision: unwatched.revision, release, policy }).unwrap();
    let before = stage.reports.clone();
    stage.replace_keeper();
    assert_eq!(stage.reports, before);
    open_gate(&go);
    let again = stage.wait_for(&watched.group, |report| report.incarnation == 2);
    assert_eq!(again.last_exit, Some(Exit::Signal(Signal(6))));
    assert!(again.message.contains("heard nothing for 2000 ms"), "{}", again.message);
    assert_eq!(stage.reports[&unwatched.group].incarnation, 1);
}

#[test]
fn all_that_is_held_for_a_service_stays_open_over_an_exchange() {
    let mut stage = Stage::with_own_program();
    let go = gate(&stage, "go");
    let port = common::free_port();
    let mut piped = speaking("piped", Ready::Fd, &[&format!("await {go}"), "ready-fd readynewline", "serve"]);
    piped.launch.listen = vec![format!("tcp://127.0.0.1:{port}")];
    let mut told = speaking("told", Ready::Notify, &[&format!("await {go}"), "say READY=1;STATUS=there"]);
    told.policy.watchdog = Some(Duration::from_secs(600));
    stage.run(&piped);
    stage.run(&told);
    for spec in [&piped, &told] {
        stage.wait_for(&spec.group, |report| report.pid.is_some() && report.state == ServiceState::Starting);
    }
    let pids = [&piped, &told].map(|spec| stage.reports[&spec.group].pid);
    for _ in 0..2 {
        signal(stage.keeper.id(), HUP);
        stage.connect();
        assert_eq!([&piped, &told].map(|spec| stage.reports[&spec.group].pid), pids);
        // Nobody accepts yet; nobody is refused either.
        std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
    open_gate(&go);
    for spec in [&piped, &told] {
        let report = stage.wait_state(&spec.group, ServiceState::Running);
        assert_eq!(report.incarnation, 1);
    }
    assert!(stage.reports[&told.group].message.contains("it says: there"));
    // The next start gets the same socket, from a keeper that never opened it itself.
    signal(pids[0].unwrap(), rustix::process::Signal::KILL);
    stage.wait_for(&piped.group, |report| report.incarnation == 2 && report.pid.is_some());
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
}

#[test]
fn a_process_that_no_record_names_yet_is_found_by_what_was_to_be_done() {
    let mut stage = Stage::new();
    let spec = shell("unnamed", "setsid sleep 1000 & exec sleep 1000");
    // The first record goes to one of the two files; where the second one cannot be written, all that a successor reads is
    // that a process was about to be made.
    let second = stage.data.join("keeper/services").join(format!("{}~other", spec.group));
    std::fs::create_dir(&second).unwrap();
    stage.run(&spec);
    let before = stage.wait_state(&spec.group, ServiceState::Running);
    for _ in 0..2 {
        stage.replace_keeper();
        let now = &stage.reports[&spec.group];
        assert_eq!((now.pid, now.incarnation, now.restarts), (before.pid, 1, 0));
        assert_eq!((now.state, now.launch), (ServiceState::Running, spec.launch.digest()));
        stage.run(&spec);
        assert_eq!(stage.reports[&spec.group].pid, before.pid);
    }
    std::fs::remove_dir(&second).unwrap();
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    assert!(!alive(before.pid.unwrap()));
}

#[test]
fn a_second_keeper_that_is_refused_has_touched_nothing() {
    let mut stage = Stage::new();
    let mut spec = shell("untouched", "env -i setsid sleep 1000 & exec sleep 1000");
    spec.launch.limits.pids = Some(20);
    stage.run(&spec);
    let before = stage.wait_state(&spec.group, ServiceState::Running);
    for _ in 0..3 {
        let second =
            std::process::Command::new(env!("CARGO_BIN_EXE_tagfall")).arg("keeper").arg(&stage.data).arg("").output().unwrap();
        assert!(!second.status.success());
    }
    stage.run(&spec);
    assert_eq!(stage.reports[&spec.group], before);
    let groups = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let command = Command { argv: vec!["true".to_owned()], timeout: Duration::from_secs(20), ..Command::default() };
    assert_eq!(stage.exec(command).unwrap().exit, Exit::Code(0));
    assert_eq!(groups(before.pid.unwrap()).contains("/tagfall/"), !before.message.contains("no cgroup can be made here"));
}

#[test]
fn a_keeper_that_stood_still_takes_nobodys_silence_for_granted() {
    let mut stage = Stage::new();
    let mut spec = shell("patient", "exec sleep 1000");
    spec.policy.ready = Ready::Notify;
    spec.policy.watchdog = Some(Duration::from_millis(400));
    stage.run(&spec);
    let ready = stage.wait_state(&spec.group, ServiceState::Running);
    let keeper = stage.keeper.id();
    signal(keeper, rustix::process::Signal::STOP);
    let stopped = std::time::Instant::now();
    // So long that the silence is none of the service's: it would be noticed at once otherwise.
    wait_until("the keeper has stood still", || (stopped.elapsed() > Duration::from_secs(3)).then_some(()));
    signal(keeper, rustix::process::Signal::CONT);
    stage.run(&spec);
    assert_eq!(stage.reports[&spec.group].pid, ready.pid);
    // From then on its own silence counts.
    let again = stage.wait_for(&spec.group, |report| report.incarnation == 2);
    assert!(again.message.contains("heard nothing"), "{}", again.message);
}
