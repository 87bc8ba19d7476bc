//! What services see at their mount points.

use std::time::Duration;

use tagfall::keeper::wire::{Command, Request};
use tagfall::model::{Hardening, MountMode, ServiceState, Signal};

use crate::stage::{Stage, publication, shell, wait_until};

/// How many switches the readers live through.
const SWITCHES: usize = 200;

#[test]
fn a_switch_is_never_seen_half() {
    let mut stage = Stage::new();
    let mut spec = shell("reader", "");
    let views: Vec<_> = ["one", "two", "three"].map(|name| publication(&stage.data, &spec.group, name)).to_vec();
    let point = std::path::PathBuf::from(&views[0].point);
    std::fs::write(point.join("host"), "the host's own").unwrap();
    // Each reader enters the directory once and reads both files in it: they must be there, and of one publication. By
    // path, no file may ever be missing. Built into the shell, all of it, so that it is quick.
    let reader = format!(
        "while :; do cd {0} || echo missing; read x <a || echo missing; read y <b || echo missing; \
         [ \"$x\" = \"$y\" ] || echo torn; cd /; test -e {0}/a || echo missing; done",
        point.display()
    );
    spec = shell("reader", &format!("trap 'echo told' HUP; ({reader}) & ({reader}) & echo up; while :; do wait; done"));
    spec.view = Some(views[0].clone());
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    stage.wait_line(&spec.group, |line| line == "up");
    if let Err(why) = stage.hello.clone().unwrap().namespaces {
        // Without the right to mount, the host's link decides, and that is what must be said.
        assert_eq!(report.mount_mode, MountMode::Symlink);
        assert!(report.message.contains(&why), "{}", report.message);
        return;
    }
    assert_eq!((report.mount_mode, report.publication), (MountMode::Namespace, Some(views[0].publication)));
    let read = |stage: &mut Stage| {
        let argv = ["/bin/sh", "-c", &format!("cat {0}/a; touch {0}/new || ls {0}", point.display())].map(str::to_owned).to_vec();
        let timeout = Duration::from_secs(20);
        stage.exec(Command { group: Some(spec.group.clone()), argv, timeout, ..Command::default() }).unwrap().output
    };
    for at in 1..=SWITCHES {
        let view = views[at % views.len()].clone();
        let signal = (at == SWITCHES).then_some(Signal::HUP);
        stage.ask(&Request::Reload { group: spec.group.clone(), view: view.clone(), signal }).unwrap();
        assert_eq!(stage.reports[&spec.group].publication, Some(view.publication));
    }
    stage.wait_line(&spec.group, |line| line == "told");
    let seen = read(&mut stage);
    assert!(seen.starts_with("three\n") && seen.contains("Read-only") && seen.ends_with("a\nb\n"), "{seen}");
    let lines: Vec<_> = stage.logs(&spec.group).into_iter().map(|line| line.line).collect();
    assert_eq!(lines, ["up", "told"]);
    assert_eq!(stage.reports[&spec.group].pid, report.pid);
    // The host sees nothing of it, and only one publication is left mounted.
    assert_eq!(std::fs::read_dir(&point).unwrap().count(), 1);
    let mounts = || std::fs::read_to_string(format!("/proc/{}/mountinfo", report.pid.unwrap())).unwrap();
    assert_eq!(mounts().matches(point.to_str().unwrap()).count(), 1, "{}", mounts());
    let data = stage.data.to_str().unwrap().to_owned();
    wait_until("what was put aside is unmounted", || {
        (mounts().lines().filter(|line| line.contains(&data)).count() == 1).then_some(())
    });
    at_home(&stage);
}

/// The keeper goes into the namespaces of services and comes back.
fn at_home(stage: &Stage) {
    for of in ["ns/mnt", "cwd", "root"] {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/{of}")).unwrap();
        assert_eq!(of(&stage.keeper.id().to_string()), of("self"));
    }
}

#[test]
fn a_service_in_a_namespace_of_its_own_making_holds_nobody_up() {
    let Ok(unshare) = common::need_tool("unshare") else { return };
    let mut stage = Stage::new();
    let unshare = unshare.display();
    let mut spec =
        shell("gone", &format!("exec {unshare} --user --map-root-user --mount /bin/sh -c 'echo away; exec sleep 1000'"));
    spec.launch.hardening = Some(Hardening::None);
    let views = ["one", "two"].map(|name| publication(&stage.data, &spec.group, name));
    spec.view = Some(views[0].clone());
    stage.run(&spec);
    stage.wait_line(&spec.group, |line| line == "away");
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    if report.mount_mode == MountMode::Symlink {
        assert!(stage.hello.clone().unwrap().namespaces.is_err());
        return;
    }
    // The kernel lets nobody take away there what was mounted before, and that is said.
    let why = stage.ask(&Request::Reload { group: spec.group.clone(), view: views[1].clone(), signal: None }).unwrap_err();
    assert!(why.contains("still sees the one before"), "{why}");
    assert_eq!(stage.reports[&spec.group].publication, Some(views[0].publication));
    at_home(&stage);
}

#[test]
fn a_publication_that_is_missing_changes_nothing_and_is_said() {
    let mut stage = Stage::new();
    let mut spec = shell("steadfast", "exec sleep 1000");
    let good = publication(&stage.data, &spec.group, "good");
    spec.view = Some(good.clone());
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    if report.mount_mode == MountMode::Symlink {
        assert!(stage.hello.clone().unwrap().namespaces.is_err());
        return;
    }
    let bad = publication(&stage.data, &spec.group, "bad");
    std::fs::remove_dir_all(&bad.source).unwrap();
    let reload = Request::Reload { group: spec.group.clone(), view: bad.clone(), signal: Some(Signal::KILL) };
    assert!(stage.ask(&reload).unwrap_err().contains("cannot be shown"));
    let after = stage.reports[&spec.group].clone();
    assert_eq!((after.pid, after.publication), (report.pid, Some(good.publication)));
    // A start with it fails as well, and says so, until it is there.
    spec.view = Some(bad.clone());
    stage.run(&spec);
    stage.ask(&Request::Restart { group: spec.group.clone() }).unwrap();
    stage.wait_for(&spec.group, |report| report.message.contains("cannot be mounted"));
    publication(&stage.data, &spec.group, "bad");
    let fresh = stage.wait_state(&spec.group, ServiceState::Running);
    assert_eq!(fresh.publication, Some(bad.publication));
}

#[test]
fn what_a_service_leaves_in_its_namespace_is_found_without_its_environment() {
    let mut stage = Stage::new();
    let mut spec = shell("hidden", "env -i setsid sleep 1006 & echo $!; exec sleep 1000");
    spec.view = Some(publication(&stage.data, &spec.group, "one"));
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    let hidden: u32 = stage.wait_line(&spec.group, |line| line.parse::<u32>().is_ok()).parse().unwrap();
    wait_until("it has left its session", || {
        let stat = std::fs::read_to_string(format!("/proc/{hidden}/stat")).ok()?;
        stat.starts_with(&format!("{hidden} (sleep)")).then_some(())
    });
    if report.mount_mode == MountMode::Symlink {
        assert!(stage.hello.clone().unwrap().namespaces.is_err());
        return;
    }
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    assert!(!crate::stage::alive(hidden));
}
