//! Descriptors and processes that run out: named, survived, and over once there are some again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tagfall::keeper::wire::{Command, Request};
use tagfall::model::{Exit, ServiceSpec, ServiceState};

use crate::shim::Shim;
use crate::stage::{Setting, Stage, shell, signal};

/// A small limit of descriptors, and more services than fit into it.
const DESCRIPTORS: u32 = 128;
const SERVICES: usize = 48;

fn with_few_descriptors() -> Result<Stage, common::Skipped> {
    common::need_tool("prlimit")?;
    let through = ["prlimit".to_owned(), format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}")].to_vec();
    Ok(Stage::with(Setting { through, ..Setting::default() }))
}

fn command(script: &str) -> Command {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Command { argv, timeout: Duration::from_secs(20), ..Command::default() }
}

#[test]
fn a_keeper_without_descriptors_refuses_what_is_new_and_keeps_what_it_has() {
    let Ok(mut stage) = with_few_descriptors() else { return };
    let specs: Vec<ServiceSpec> = (0..SERVICES).map(|number| shell(&format!("many{number}"), "exec sleep 1000")).collect();
    for spec in &specs {
        stage.run(spec);
    }
    let settled = |state: ServiceState| matches!(state, ServiceState::Running | ServiceState::Backoff);
    let reports: Vec<_> = specs.iter().map(|spec| stage.wait_for(&spec.group, |report| settled(report.state))).collect();
    let (running, refused): (Vec<_>, Vec<_>) = reports.into_iter().partition(|report| report.state == ServiceState::Running);
    assert!(running.len() >= 8 && refused.len() >= 8, "{} run, {} do not", running.len(), refused.len());
    for report in &refused {
        let (used, limit) = ("descriptors in use", DESCRIPTORS.to_string());
        assert!(report.message.contains(used) && report.message.contains(&limit), "{}", report.message);
    }
    // All that run are looked after as ever, all at once; commands are run; the supervisor comes back.
    for report in &running {
        signal(report.pid.unwrap(), rustix::process::Signal::KILL);
    }
    for report in &running {
        stage.wait_for(&report.group, |report| report.incarnation == 2 && report.state == ServiceState::Running);
    }
    assert_eq!(stage.exec(command("echo works")).unwrap().output, "works\n");
    stage.kill_supervisor();
    assert_eq!(stage.reports.len(), SERVICES);
    // Once there is room, those that waited go on by themselves.
    for report in &running {
        stage.ask(&Request::Stop { group: report.group.clone() }).unwrap();
        stage.wait_state(&report.group, ServiceState::Stopped);
        stage.ask(&Request::Forget { group: report.group.clone() }).unwrap();
    }
    let room = running.len() / 2;
    stage.wait_until("those that waited run", |reports| {
        reports.values().filter(|report| report.state == ServiceState::Running).count() >= room
    });
}

#[test]
fn a_service_that_uses_up_its_descriptors_harms_itself_alone() {
    let mut stage = Stage::new();
    let beside = shell("beside", "exec sleep 1000");
    stage.run(&beside);
    stage.wait_state(&beside.group, ServiceState::Running);
    let mut greedy = shell("greedy", "n=3; while eval \"exec $n</dev/null\"; do n=$((n+1)); done 2>/dev/null; echo $n; exit 125");
    greedy.launch.argv[0] = "/bin/bash".to_owned();
    greedy.launch.limits.open_files = Some(40);
    stage.run(&greedy);
    stage.wait_state(&greedy.group, ServiceState::Failed);
    stage.wait_line(&greedy.group, |line| line.parse::<u32>().is_ok_and(|number| number <= 40));
    assert_eq!(stage.reports[&beside.group].restarts, 0);
}

/// A cgroup that the keeper is put into, with a limit of processes.
struct Few(PathBuf);

impl Few {
    fn around(keeper: u32) -> Result<Self, common::Skipped> {
        common::need_root()?;
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(Path::new);
        let name = format!("tagfall-test-{}", std::process::id());
        for root in roots {
            let dir = root.join(&name);
            if std::fs::create_dir(&dir).is_err() {
                continue;
            }
            let few = Self(dir);
            // Where version 2 does not give the controller on yet, it is left so.
            if few.0.join("pids.max").exists() && std::fs::write(few.0.join("cgroup.procs"), keeper.to_string()).is_ok() {
                return Ok(few);
            }
        }
        common::need(false, "no cgroup with a limit of processes can be made here")?;
        Err(common::Skipped)
    }

    fn limit(&self, most: &str) {
        std::fs::write(self.0.join("pids.max"), most).unwrap();
    }
}

impl Drop for Few {
    fn drop(&mut self) {
        // Whoever is left in it goes to where it is no longer in the way.
        let members = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        let above = self.0.parent().map(|above| above.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines() {
            let _ = std::fs::write(&above, pid);
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_keeper_whose_cgroup_is_full_says_so_and_goes_on_once_it_is_not() {
    let mut stage = Stage::new();
    let Ok(few) = Few::around(stage.keeper.id()) else { return };
    few.limit("1");
    let spec = shell("late", "exec sleep 1000");
    stage.run(&spec);
    let report = stage.wait_for(&spec.group, |report| report.state == ServiceState::Backoff && report.incarnation >= 2);
    assert!(report.message.contains("no process can be made") && report.message.contains("pids.max"), "{}", report.message);
    assert_eq!((report.pid, report.last_exit), (None, None));
    let why = stage.exec(command("true")).unwrap_err();
    assert!(why.contains("no process can be made"), "{why}");
    // Its supervisor dies meanwhile: tried again until there may be one.
    signal(stage.supervisor_pid(), rustix::process::Signal::KILL);
    few.limit("max");
    stage.connect();
    stage.wait_state(&spec.group, ServiceState::Running);
}

#[test]
fn without_memory_for_a_process_all_waits_and_recovers() {
    let Ok(shim) = Shim::new() else { return };
    let mut stage = Stage::with(Setting { own_program: true, ..shim.setting() });
    let runs = shell("runs", "exec sleep 1000");
    stage.run(&runs);
    let before = stage.wait_state(&runs.group, ServiceState::Running);
    for (name, error, words) in [("memory", libc::ENOMEM, "no memory left"), ("number", libc::EAGAIN, "limit of processes")] {
        shim.fail_forks(error);
        let spec = shell(name, "exec sleep 1000");
        stage.run(&spec);
        let report = stage.wait_for(&spec.group, |report| report.state == ServiceState::Backoff && report.incarnation >= 3);
        assert!(report.message.contains(words) && report.next_try.is_some(), "{}", report.message);
        signal(stage.supervisor_pid(), rustix::process::Signal::KILL);
        stage.wait_words(1, "the supervisor cannot be started: no process");
        shim.fail_forks(0);
        stage.connect();
        stage.wait_state(&spec.group, ServiceState::Running);
        assert_eq!(stage.reports[&runs.group].pid, before.pid);
    }
    // One that dies while no process can be made is back once there can.
    shim.fail_forks(libc::ENOMEM);
    signal(before.pid.unwrap(), rustix::process::Signal::KILL);
    stage.wait_state(&runs.group, ServiceState::Backoff);
    shim.fail_forks(0);
    let again = stage.wait_state(&runs.group, ServiceState::Running);
    assert_eq!(again.last_exit, Some(Exit::Signal(tagfall::model::Signal::KILL)));
}
