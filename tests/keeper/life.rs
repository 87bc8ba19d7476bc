//! Starting, ending, restarting; supervisor and keeper dying.

use std::time::{Duration, Instant};

use tagfall::keeper::wire::{Command, Message, Request};
use tagfall::model::{Exit, GroupName, ServiceKind, ServiceState, Signal};
use tagfall::process::News;

use crate::stage::{Stage, alive, shell, signal, wait_until};

const KILL: rustix::process::Signal = rustix::process::Signal::KILL;
const TERM: rustix::process::Signal = rustix::process::Signal::TERM;

/// Processes that bear a service's mark, whoever their parent is.
fn marked(group: &GroupName) -> Vec<u32> {
    let mark = format!("TAGFALL_GROUP={group}");
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let bears = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    pids.filter(bears).filter(|pid| alive(*pid)).collect()
}

#[test]
fn a_service_that_crashes_is_back_at_once() {
    let mut stage = Stage::new();
    let spec = shell("crash", "exec sleep 1000");
    stage.run(&spec);
    let first = stage.wait_state(&spec.group, ServiceState::Running);
    let killed = Instant::now();
    signal(first.pid.unwrap(), KILL);
    let second = stage.wait_for(&spec.group, |report| report.incarnation == 2 && report.state == ServiceState::Running);
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    assert_ne!(first.pid, second.pid);
    assert_eq!((second.restarts, second.last_exit), (1, Some(Exit::Signal(Signal::KILL))));
    assert!(!alive(first.pid.unwrap()));
    // The second time it waits.
    signal(second.pid.unwrap(), KILL);
    let waits = stage.wait_state(&spec.group, ServiceState::Backoff);
    assert!(waits.next_try.is_some());
    stage.wait_for(&spec.group, |report| report.incarnation == 3);
}

#[test]
fn exit_code_125_is_not_restarted_and_says_so() {
    let mut stage = Stage::new();
    let spec = shell("never", "exit 125");
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Failed);
    assert_eq!((report.restarts, report.last_exit, report.pid), (0, Some(Exit::Code(125)), None));
    assert!(report.message.contains("125"), "{}", report.message);
}

#[test]
fn a_task_fails_until_it_is_done_and_stays_done_over_a_new_keeper() {
    let mut stage = Stage::new();
    let mark = stage.data.join("tried");
    let mut spec = shell("task", &format!("test -e {0} && exit 0; touch {0}; exit 3", mark.display()));
    spec.policy.kind = ServiceKind::Task;
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Done);
    assert_eq!((report.incarnation, report.restarts), (2, 1));
    assert!(stage.end().success());
    stage.replace_keeper();
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Done);
    assert_eq!(report.incarnation, 0);
    spec.revision = tagfall::model::Digest::of(b"next");
    stage.run(&spec);
    stage.wait_for(&spec.group, |report| report.state == ServiceState::Done && report.incarnation == 1);
}

#[test]
fn what_cannot_be_started_says_why_and_is_tried_again() {
    let mut stage = Stage::new();
    let mut spec = shell("missing", "");
    spec.launch.argv = vec!["/no/such/program".to_owned()];
    stage.run(&spec);
    let report = stage.wait_for(&spec.group, |report| report.state == ServiceState::Backoff && report.incarnation >= 3);
    assert!(report.message.contains("`/no/such/program`") && report.message.contains("No such file"), "{}", report.message);
    assert_eq!(report.last_exit, None);
    spec.launch.argv = vec!["/bin/sh".to_owned()];
    spec.launch.working_dir = "/no/such/place".to_owned();
    stage.run(&spec);
    stage.wait_for(&spec.group, |report| report.message.contains("/no/such/place"));
    spec.launch.user = Some("no-such-user".to_owned());
    stage.run(&spec);
    stage.wait_for(&spec.group, |report| report.message.contains("`no-such-user` does not exist"));
}

#[test]
fn one_that_ignores_the_signal_is_killed_after_its_time() {
    let mut stage = Stage::new();
    let mut spec = shell("deaf", "trap '' TERM; echo deaf; while :; do sleep 1000; done");
    spec.policy.stop_timeout = Duration::from_millis(300);
    stage.run(&spec);
    stage.wait_line(&spec.group, |line| line == "deaf");
    let asked = Instant::now();
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    assert_eq!(stage.reports[&spec.group].state, ServiceState::Stopping);
    let report = stage.wait_state(&spec.group, ServiceState::Stopped);
    assert!(asked.elapsed() >= Duration::from_millis(300));
    assert_eq!(report.last_exit, Some(Exit::Signal(Signal::KILL)));
    assert_eq!(marked(&spec.group), Vec::<u32>::new());
}

#[test]
fn a_stop_takes_all_that_was_started_along() {
    let mut stage = Stage::new();
    let script = "setsid sh -c 'setsid sleep 1000 & sleep 1001 & wait' & (sleep 1002 &) ; sleep 1003 & echo up; exec sleep 1004";
    let spec = shell("family", script);
    stage.run(&spec);
    wait_until("all of the family is there", || (marked(&spec.group).len() >= 6).then_some(()));
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    assert_eq!(marked(&spec.group), Vec::<u32>::new());
}

#[test]
fn a_new_start_waits_until_all_of_the_old_is_gone() {
    let mut stage = Stage::new();
    let lock = stage.data.join("one-at-a-time");
    // Whoever finds the directory of another has started too early. The child outlives its parent unless it is killed.
    let script = format!("mkdir {0} || exit 125; (trap '' TERM; sleep 1000)& trap 'exit 0' TERM; echo up; wait", lock.display());
    let spec = shell("single", &script);
    stage.run(&spec);
    stage.wait_line(&spec.group, |line| line == "up");
    let before = marked(&spec.group);
    std::fs::remove_dir(&lock).unwrap();
    stage.ask(&Request::Restart { group: spec.group.clone() }).unwrap();
    stage.wait_for(&spec.group, |report| report.incarnation == 2 && report.state == ServiceState::Running);
    assert!(before.iter().all(|pid| !alive(*pid)));
}

#[test]
fn the_death_of_the_supervisor_restarts_no_service() {
    let mut stage = Stage::new();
    let specs: Vec<_> = (0..5).map(|number| shell(&format!("steady-{number}"), "exec sleep 1000")).collect();
    for spec in &specs {
        stage.run(spec);
        stage.wait_state(&spec.group, ServiceState::Running);
    }
    let before = stage.reports.clone();
    for _ in 0..3 {
        let supervisor = stage.supervisor_pid();
        stage.kill_supervisor();
        assert_ne!(stage.supervisor_pid(), supervisor);
        assert_eq!(stage.reports, before);
    }
    // Said again by the new supervisor, nothing changes either.
    for spec in &specs {
        stage.run(spec);
        assert_eq!(stage.reports[&spec.group].pid, before[&spec.group].pid);
    }
    // A service that dies while no supervisor is there comes back.
    let group = &specs[0].group;
    signal(stage.supervisor_pid(), KILL);
    signal(before[group].pid.unwrap(), KILL);
    stage.connect();
    stage.wait_for(group, |report| report.incarnation == 2 && report.state == ServiceState::Running);
}

#[test]
fn a_second_keeper_on_the_same_data_folder_is_refused() {
    let stage = Stage::new();
    let second =
        std::process::Command::new(env!("CARGO_BIN_EXE_tagfall")).arg("keeper").arg(&stage.data).arg("").output().unwrap();
    assert!(!second.status.success());
    let words = String::from_utf8(second.stderr).unwrap();
    assert!(words.contains("in use") && words.contains(&stage.keeper.id().to_string()), "{words}");
}

#[test]
fn the_end_is_ordered_by_the_supervisor_and_leaves_nothing() {
    let mut stage = Stage::new();
    let first = shell("first", "setsid sleep 1000 & exec sleep 1000");
    let second = shell("second", "exec sleep 1000");
    for spec in [&first, &second] {
        stage.run(spec);
        stage.wait_state(&spec.group, ServiceState::Running);
    }
    signal(stage.keeper.id(), TERM);
    stage.next_where("word of the end", |message| matches!(message, Message::Shutdown).then_some(()));
    assert!(stage.ask(&Request::Run(Box::new(shell("late", "exec sleep 1000")))).unwrap_err().contains("end"));
    stage.ask(&Request::Stop { group: first.group.clone() }).unwrap();
    stage.wait_state(&first.group, ServiceState::Stopped);
    assert_eq!(stage.reports[&second.group].state, ServiceState::Running);
    stage.send(&Request::Finished);
    assert!(stage.wait_end().success());
    assert_eq!((marked(&first.group), marked(&second.group)), (vec![], vec![]));
}

#[test]
fn a_second_signal_makes_the_end_immediate() {
    let mut stage = Stage::new();
    let spec = shell("slow", "trap '' TERM; echo deaf; while :; do sleep 1000; done");
    stage.run(&spec);
    stage.wait_line(&spec.group, |line| line == "deaf");
    signal(stage.keeper.id(), TERM);
    stage.next_where("word of the end", |message| matches!(message, Message::Shutdown).then_some(()));
    let asked = Instant::now();
    signal(stage.keeper.id(), TERM);
    assert!(stage.wait_end().success());
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert_eq!(marked(&spec.group), Vec::<u32>::new());
}

#[test]
fn a_flood_neither_fills_the_disk_nor_hides_another_services_lines() {
    let mut stage = Stage::new();
    let flood = shell("flood", "exec yes 'a line of a flood that never ends'");
    stage.run(&flood);
    let dir = tagfall::keeper::wire::log_dir(&stage.data, &flood.group);
    wait_until("the flood's log has been rotated", || dir.join("older-2.log").exists().then_some(()));
    let quiet = shell("quiet", "echo heard; printf 'no newline' >&2; exit 125");
    stage.run(&quiet);
    stage.wait_line(&quiet.group, |line| line == "no newline");
    let texts: Vec<_> = stage.logs(&quiet.group).into_iter().map(|line| line.line).collect();
    assert!(texts.contains(&"heard".to_owned()), "{texts:?}");
    let size: u64 = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(size <= 3 * 1024 * 1024, "{size}");
}

#[test]
fn what_cannot_be_read_or_is_not_known_is_answered() {
    let mut stage = Stage::new();
    stage.send_raw(&[255, 255, 1, 0, 8, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0]);
    assert!(stage.reply_to(42).unwrap_err().contains("65535"));
    stage.send_raw(b"x");
    assert!(stage.reply_to(0).is_err());
    let group: GroupName = "nobody-knows".parse().unwrap();
    assert!(stage.ask(&Request::Stop { group: group.clone() }).unwrap_err().contains("not known"));
    let spec = shell("known", "exec sleep 1000");
    stage.run(&spec);
    stage.wait_state(&spec.group, ServiceState::Running);
    assert!(stage.ask(&Request::Forget { group: spec.group.clone() }).is_err());
    assert!(stage.ask(&Request::Signal { group: spec.group.clone(), signal: Signal(0) }).is_err());
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    stage.ask(&Request::Forget { group: spec.group.clone() }).unwrap();
    assert!(!stage.reports.contains_key(&spec.group));
}

/// More requests than all buffers between supervisor and keeper can hold.
const FLOOD: usize = 20_000;

#[test]
fn a_supervisor_that_does_not_read_loses_no_answer_and_holds_nothing_up() {
    let mut stage = Stage::new();
    let spec = shell("busy", "exec sleep 1000");
    stage.run(&spec);
    stage.wait_state(&spec.group, ServiceState::Running);
    let request = Request::MarkReady { group: spec.group.clone(), incarnation: 1 };
    let mut sent = Vec::new();
    // Without reading, until the keeper takes no more: then it is the sender who has to wait.
    while let Some(attempt) = stage.try_send(&request) {
        sent.push(attempt);
        assert!(sent.len() < FLOOD, "the keeper takes requests without end from one that does not read");
    }
    // The keeper goes on with its work meanwhile.
    let pid = stage.reports[&spec.group].pid.unwrap();
    signal(pid, KILL);
    wait_until("the service is back", || marked(&spec.group).into_iter().find(|fresh| *fresh != pid));
    for attempt in sent {
        stage.reply_to(attempt).unwrap();
    }
    stage.wait_for(&spec.group, |report| report.incarnation == 2 && report.state == ServiceState::Running);
}

#[tokio::test]
async fn the_supervisors_own_client_speaks_to_the_keeper() {
    let mut stage = Stage::new();
    let spec = shell("client", "exec sleep 1000");
    let (keeper, mut news) = tagfall::process::Keeper::connect(stage.socket()).unwrap();
    keeper.request(Request::Run(Box::new(spec.clone()))).await.unwrap();
    let state = loop {
        let next = tokio::time::timeout(Duration::from_secs(20), news.recv()).await.unwrap();
        match next {
            Some(News::Report(report)) if report.state == ServiceState::Running => break report,
            Some(News::Lost) | None => panic!("the keeper went away"),
            Some(News::Hello(_) | News::Report(_) | News::Gone(_) | News::SnapshotEnd | News::Shutdown) => {}
        }
    };
    assert_eq!(state.group, spec.group);
    let argv = ["/bin/sh", "-c", "echo hello"].map(str::to_owned).to_vec();
    let command = Command { group: Some(spec.group.clone()), argv, timeout: Duration::from_secs(20), ..Command::default() };
    assert_eq!(keeper.exec(command).await.unwrap().output, "hello\n");
    assert!(keeper.request(Request::Forget { group: spec.group }).await.is_err());
    stage.keeper.kill().unwrap();
    signal(state.pid.unwrap(), KILL);
    let lost = tokio::time::timeout(Duration::from_secs(20), async {
        while let Some(next) = news.recv().await {
            if next == News::Lost {
                return true;
            }
        }
        false
    });
    assert!(lost.await.unwrap());
}
