//! Whose rights a service and a command get.

use std::collections::BTreeMap;
use std::time::Duration;

use tagfall::keeper::wire::Command;
use tagfall::model::{Exit, Hardening, MountMode, ServiceState, Signal};

use crate::stage::{NOBODY, Stage, alive, is_root, publication, shell, wait_until};

/// Fields of /proc/PID/status.
fn status(pid: u32) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

#[test]
fn a_service_has_its_users_rights_and_no_more() {
    let mut stage = Stage::new();
    let mut spec = shell("meek", "umask; pwd; env; echo anew >/dev/stderr; exec sleep 1000");
    spec.launch.user = is_root().then(|| "nobody".to_owned());
    spec.launch.working_dir = stage.data.join("var").join(spec.group.to_string()).to_str().unwrap().to_owned();
    spec.launch.env = vec![("COLOUR".to_owned(), "blue".to_owned())];
    spec.launch.limits.open_files = Some(123);
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    let pid = report.pid.unwrap();
    stage.wait_line(&spec.group, |line| line == "anew");
    let status = status(pid);
    let uid = if is_root() { NOBODY } else { rustix::process::getuid().as_raw() };
    assert_eq!(status["Uid"], [uid; 4].map(|id| id.to_string()).join(" "));
    if is_root() {
        assert_eq!(status["Gid"], [NOBODY; 4].map(|id| id.to_string()).join(" "));
        assert_eq!(status["Groups"], NOBODY.to_string());
        assert_eq!(status["CapBnd"], "0000000000000000");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "SigBlk", "SigIgn"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    assert!(limits.lines().any(|line| line.starts_with("Max open files") && line.contains("123")), "{limits}");
    // The shell holds one of its own until it has become `sleep`.
    wait_until("only standard input and output are open, and the lock", || {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut fds: Vec<u32> = fds.flatten().filter_map(|fd| fd.file_name().to_str()?.parse().ok()).collect();
        fds.sort_unstable();
        (fds == [0, 1, 2, 100]).then_some(())
    });
    let mut lines: Vec<_> = stage.logs(&spec.group).into_iter().map(|line| line.line).collect();
    assert_eq!(lines.remove(0), "0022");
    assert_eq!(lines.remove(0), spec.launch.working_dir);
    let keys: Vec<_> = lines.iter().filter_map(|line| line.split_once('=')).map(|(key, _)| key).collect();
    let known = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "COLOUR",
        "TAGFALL_GROUP",
        "TAGFALL_RELEASE",
        "PWD",
        "OLDPWD",
        "_",
        "SHLVL",
    ];
    assert!(keys.iter().all(|key| known.contains(key)), "{keys:?}");
    assert!(lines.contains(&"TAGFALL_RELEASE=v1.0.0".to_owned()) && lines.contains(&"COLOUR=blue".to_owned()), "{lines:?}");
}

/// The keeper is let in first, or asks for short turns. That is its own affair.
#[test]
fn turns_on_the_processor_are_as_whoever_started_the_keeper_had_them() {
    let line = |pid: u32, name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/sched")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.rsplit(' ').next().map(str::to_owned)
    };
    // Not every kernel tells.
    let (Some(slice), Some(policy)) = (line(std::process::id(), "se.slice"), line(std::process::id(), "policy")) else { return };
    let mut stage = Stage::new();
    let spec = shell("patient", "exec sleep 1000");
    stage.run(&spec);
    let pid = stage.wait_state(&spec.group, ServiceState::Running).pid.unwrap();
    assert_eq!((line(pid, "se.slice"), line(pid, "policy")), (Some(slice), Some(policy.clone())));
    let allowed = std::process::Command::new("chrt").args(["-r", "1", "true"]).status().is_ok_and(|status| status.success());
    // Its first thread only waits.
    let working = common::threads(stage.keeper.id()).into_iter().find(|thread| *thread != stage.keeper.id()).unwrap();
    let keeper = line(working, "policy").unwrap();
    if allowed {
        assert_eq!(keeper, ROUND_ROBIN);
    } else {
        assert_eq!(keeper, policy);
        let slice = line(working, "se.slice").unwrap();
        assert!(slice.parse::<u64>().unwrap() <= 1_000_000, "{slice}");
    }
}

/// `SCHED_RR` in /proc/PID/sched.
const ROUND_ROBIN: &str = "2";

#[test]
fn hardening_none_takes_nothing_away() {
    let mut stage = Stage::new();
    let mut spec = shell("proud", "exec sleep 1000");
    spec.launch.hardening = Some(Hardening::None);
    stage.run(&spec);
    let pid = stage.wait_state(&spec.group, ServiceState::Running).pid.unwrap();
    let (own, service) = (status(std::process::id()), status(pid));
    for field in ["NoNewPrivs", "CapEff", "CapBnd"] {
        assert_eq!(own[field], service[field], "{field}");
    }
}

#[test]
fn an_ordinary_users_keeper_does_what_that_user_may_and_says_what_not() {
    let mut stage = Stage::unprivileged();
    let why = stage.hello.clone().unwrap().namespaces;
    let mut spec = shell("plain", "exec sleep 1000");
    spec.view = Some(publication(&stage.data, &spec.group, "one"));
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    if let Err(why) = why {
        assert_eq!(report.mount_mode, MountMode::Symlink);
        assert!(report.message.contains(&why), "{}", report.message);
    } else {
        assert_eq!(report.mount_mode, MountMode::Namespace);
    }
    assert_eq!(report.publication, spec.view.map(|view| view.publication));
    assert_eq!(status(report.pid.unwrap())["NoNewPrivs"], "1");
    let mut other = shell("other", "exec sleep 1000");
    other.launch.user = Some("root".to_owned());
    if !is_root() || stage.hello.as_ref().unwrap().namespaces.is_err() {
        stage.run(&other);
        let report = stage.wait_for(&other.group, |report| report.state == ServiceState::Backoff);
        assert!(report.message.contains("cannot run as user `root`"), "{}", report.message);
        assert_eq!(report.pid, None);
    }
    assert!(stage.end().success());
}

fn command(spec: &tagfall::model::ServiceSpec, script: &str) -> Command {
    Command {
        group: Some(spec.group.clone()),
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        timeout: Duration::from_secs(20),
        ..Command::default()
    }
}

#[test]
fn a_command_runs_as_the_services_user_and_is_bounded() {
    let mut stage = Stage::new();
    let mut spec = shell("asked", "exec sleep 1000");
    spec.launch.user = is_root().then(|| "nobody".to_owned());
    spec.launch.env = vec![("COLOUR".to_owned(), "blue".to_owned())];
    stage.run(&spec);
    stage.wait_state(&spec.group, ServiceState::Running);
    let uid = if is_root() { NOBODY } else { rustix::process::getuid().as_raw() };

    let outcome =
        stage.exec(command(&spec, "id -u; echo $COLOUR $TAGFALL_GROUP >&2; grep NoNew /proc/self/status; exit 3")).unwrap();
    assert_eq!((outcome.exit, outcome.timed_out), (Exit::Code(3), false));
    assert_eq!(outcome.output, format!("{uid}\nblue {}\nNoNewPrivs:\t1\n", spec.group));

    let outcome = stage.exec(command(&spec, "yes | head -c 100000; echo last")).unwrap();
    assert_eq!(outcome.output.len(), 4096);
    assert!(outcome.output.ends_with("y\nlast\n"));

    let slow = Command { timeout: Duration::from_millis(200), ..command(&spec, "sleep 1000 & echo $!; wait") };
    let outcome = stage.exec(slow).unwrap();
    assert_eq!((outcome.exit, outcome.timed_out), (Exit::Signal(Signal::KILL), true));
    let child: u32 = outcome.output.trim().parse().unwrap();
    wait_until("its child is gone as well", || (!alive(child)).then_some(()));

    let error = stage.exec(Command { argv: vec!["no-such-program".to_owned()], ..command(&spec, "") }).unwrap_err();
    assert!(error.contains("no-such-program"), "{error}");
    let error = stage.exec(Command { user: Some("no-such-user".to_owned()), ..command(&spec, "") }).unwrap_err();
    assert!(error.contains("no-such-user"), "{error}");
}
