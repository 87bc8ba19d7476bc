//! What services say of themselves.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use tagfall::keeper::wire::Request;
use tagfall::model::{Exit, GroupName, Ready, ServiceSpec, ServiceState, Signal};

use crate::fixture::{STEPS, command, doing};
use crate::stage::{Stage, is_root, shell, wait_until};

/// A service that is ready when it says so.
fn speaking(name: &str, steps: &[&str]) -> ServiceSpec {
    let mut spec = doing(name, steps);
    says_itself(&mut spec, Ready::Notify);
    spec
}

fn says_itself(spec: &mut ServiceSpec, ready: Ready) {
    (spec.policy.ready_when_started, spec.policy.ready) = (false, ready);
}

fn gate(stage: &Stage, name: &str) -> String {
    stage.data.join(name).display().to_string()
}

fn open_gate(path: &str) {
    std::fs::write(path, "").unwrap();
}

fn socket_of(stage: &Stage, group: &GroupName) -> std::path::PathBuf {
    stage.data.join("run/notify").join(format!("{group}.sock"))
}

fn check_words(mut stage: Stage, user: Option<&str>) {
    let (first, second, third) = (gate(&stage, "first"), gate(&stage, "second"), gate(&stage, "third"));
    let steps = [
        "say STATUS=warming \u{1b}[2Jup",
        &format!("await {first}"),
        "say READY=1;STATUS=serving",
        "say READY=1",
        &format!("await {second}"),
        "say RELOADING=1",
        &format!("await {third}"),
        "say READY=1",
    ];
    let mut spec = speaking("speaks", &steps);
    spec.launch.user = user.map(str::to_owned);
    stage.run(&spec);
    let report = stage.wait_for(&spec.group, |report| report.message.contains("warming"));
    assert_eq!(report.state, ServiceState::Starting);
    assert!(report.message.contains("it says: warming  [2Jup"), "{}", report.message);
    open_gate(&first);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    assert!(report.message.contains("it says: serving"), "{}", report.message);
    open_gate(&second);
    stage.wait_state(&spec.group, ServiceState::Reloading);
    open_gate(&third);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    assert_eq!((report.incarnation, report.restarts), (1, 0));
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    assert!(!socket_of(&stage, &spec.group).exists());
}

#[test]
fn a_service_is_ready_reloading_and_ready_again_when_it_says_so() {
    check_words(Stage::new(), is_root().then_some("nobody"));
}

#[test]
fn the_keeper_of_an_ordinary_user_hears_its_services_too() {
    check_words(Stage::unprivileged(), None);
}

#[test]
fn nobody_else_speaks_for_a_service_whatever_is_sent() {
    let mut stage = Stage::new();
    let go = gate(&stage, "go");
    let spec = speaking("deaf", &["garbage", "say MAINPID=1", "print sent", &format!("await {go}"), "flood", "say READY=1"]);
    stage.run(&spec);
    stage.wait_line(&spec.group, |line| line == "sent");
    // A stranger, of the same user or root.
    let stranger = UnixDatagram::unbound().unwrap();
    stranger.send_to(b"READY=1\nSTATUS=stranger", socket_of(&stage, &spec.group)).unwrap();
    // Answered after all of it was read: the service behind it in the queue says nothing yet.
    let quiet = shell("quiet", "exec sleep 1000");
    stage.run(&quiet);
    stage.wait_state(&quiet.group, ServiceState::Running);
    let report = stage.reports[&spec.group].clone();
    assert_eq!((report.state, report.message.contains("stranger")), (ServiceState::Starting, false));
    open_gate(&go);
    let ready = stage.wait_state(&spec.group, ServiceState::Running);
    assert_eq!(ready.pid, report.pid);
}

#[test]
fn what_comes_from_the_main_process_speaks_for_it() {
    let mut stage = Stage::new();
    // A child that is on its own as far as it can be: another session, and its parent gone.
    let mut spec = shell("parent", &format!("(setsid {} >/dev/null &); exec sleep 1000", command()));
    says_itself(&mut spec, Ready::Notify);
    spec.launch.env = vec![(STEPS.to_owned(), "say READY=1".to_owned())];
    stage.run(&spec);
    stage.wait_state(&spec.group, ServiceState::Running);
}

#[test]
fn a_service_that_goes_into_the_background_stays_one() {
    let mut stage = Stage::new();
    let go = gate(&stage, "go");
    // The launcher's child names itself, the launcher ends, and the service goes on.
    let mut spec = shell("daemon", &format!("{} & while ! test -e {go}; do :; done; exit 0", command()));
    spec.launch.env = vec![(STEPS.to_owned(), "main|print named".to_owned())];
    says_itself(&mut spec, Ready::Notify);
    stage.run(&spec);
    stage.wait_line(&spec.group, |line| line == "named");
    let taken = stage.wait_state(&spec.group, ServiceState::Running);
    open_gate(&go);
    let main = taken.pid.unwrap();
    wait_until("the keeper is its parent", || {
        let stat = std::fs::read_to_string(format!("/proc/{main}/stat")).unwrap();
        stat.contains(&format!(" {} ", stage.keeper.id())).then_some(())
    });
    assert_eq!(stage.reports[&spec.group].incarnation, 1);
    crate::stage::signal(main, rustix::process::Signal::KILL);
    let again = stage.wait_for(&spec.group, |report| report.incarnation == 2);
    assert_eq!(again.last_exit, Some(Exit::Signal(Signal::KILL)));
}

#[test]
fn a_newline_on_its_descriptor_makes_it_ready_and_nothing_else_does() {
    let mut stage = Stage::new();
    let go = gate(&stage, "go");
    let mut spec = doing("pipe", &["ready-fd almost", "print almost"]);
    says_itself(&mut spec, Ready::Fd);
    stage.run(&spec);
    stage.wait_line(&spec.group, |line| line == "almost");
    assert_eq!(stage.reports[&spec.group].state, ServiceState::Starting);
    let mut spec = doing("piped", &[&format!("await {go}"), "ready-fd readynewline"]);
    spec.launch.listen = vec![format!("unix://{}", gate(&stage, "beside.sock"))];
    says_itself(&mut spec, Ready::Fd);
    stage.run(&spec);
    stage.wait_state(&spec.group, ServiceState::Starting);
    open_gate(&go);
    stage.wait_state(&spec.group, ServiceState::Running);
}

#[test]
fn a_silent_service_is_ended_and_comes_back() {
    let mut stage = Stage::new();
    let mut spec = speaking("silent", &["env WATCHDOG_USEC", "say READY=1", "say WATCHDOG=1"]);
    spec.policy.watchdog = Some(Duration::from_millis(300));
    stage.run(&spec);
    let begun = Instant::now();
    stage.wait_state(&spec.group, ServiceState::Running);
    let again = stage.wait_for(&spec.group, |report| report.incarnation == 2);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(again.last_exit, Some(Exit::Signal(Signal(6))));
    stage.wait_line(&spec.group, |line| line == "env WATCHDOG_USEC=300000");
    assert!(again.message.contains("heard nothing"), "{}", again.message);
}

#[test]
fn more_time_is_passed_on() {
    let mut stage = Stage::new();
    let spec = speaking("slow", &["say EXTEND_TIMEOUT_USEC=90000000"]);
    stage.run(&spec);
    let report = stage.wait_for(&spec.group, |report| report.start_extended.is_some());
    assert!(report.start_extended.unwrap() >= Duration::from_secs(90));
    assert_eq!(report.state, ServiceState::Starting);
}
