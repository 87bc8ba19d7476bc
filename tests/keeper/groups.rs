//! Limits, and ends that nothing escapes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{Skipped, need};
use tagfall::keeper::wire::{Command, Request};
use tagfall::model::{Exit, GroupName, ServiceState};

use crate::stage::{NOBODY, Stage, alive, is_root, shell, signal, wait_until};

const KILL: rustix::process::Signal = rustix::process::Signal::KILL;

/// Most processes of the bomb.
const BOMB_PIDS: u64 = 300;

/// So many live ones show that it has gone off: of those that count, others are on their way out at any moment, refused.
const BOMB_LIVE: usize = 150;

/// By when all of it must be gone.
const BOMB_STOPPED: Duration = Duration::from_millis(500);

/// Where a process is in each hierarchy.
fn memberships(pid: u32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Whether a process is in the group of its service, wherever that is.
fn in_group(pid: u32, group: &GroupName) -> bool {
    memberships(pid).iter().any(|line| line.contains("/tagfall/") && line.ends_with(&format!("/{group}")))
}

/// Whoever is in the group of a service.
fn members(group: &GroupName) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| in_group(*pid, group)).filter(|pid| alive(*pid)).collect()
}

/// Needs a keeper that can make groups.
fn need_groups(stage: &mut Stage) -> Result<(), Skipped> {
    let probe = shell("probe", "exec sleep 1000");
    stage.run(&probe);
    let pid = stage.wait_state(&probe.group, ServiceState::Running).pid.unwrap();
    let grouped = in_group(pid, &probe.group);
    stage.ask(&Request::Stop { group: probe.group.clone() }).unwrap();
    stage.wait_state(&probe.group, ServiceState::Stopped);
    need(grouped, "it needs the right to make cgroups")
}

/// Needs this limit to be enforced, which the message of a service with it tells.
fn need_limit(message: &str, limit: &str) -> Result<(), Skipped> {
    need(!message.contains(&format!("limit `{limit}`")), &format!("it needs a cgroup controller `{limit}`"))
}

#[test]
fn a_bomb_of_sessions_is_stopped_whole_and_at_once() {
    let mut stage = Stage::new();
    if need_groups(&mut stage).is_err() {
        return;
    }
    // Each makes new ones, in sessions of their own and without the mark, as long as it may.
    let mut spec = shell("bomb", "env -i \"B=$B\" setsid sh -c \"$B\" & exec sleep 1000");
    // Two at once, then one a second: it doubles until it may no more, and leaves the processor to the other tests after.
    let fuse = "trap '' TERM HUP; (setsid sh -c \"$B\" &); while :; do (setsid sh -c \"$B\" &); sleep 1; done 2>/dev/null";
    spec.launch.env = vec![("B".to_owned(), fuse.to_owned())];
    spec.launch.limits.pids = Some(BOMB_PIDS);
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    if need_limit(&report.message, "pids").is_err() {
        return;
    }
    let count = wait_until("the bomb has gone off", || Some(members(&spec.group).len()).filter(|count| *count > BOMB_LIVE));
    assert!(count as u64 <= BOMB_PIDS, "{count}");
    let asked = Instant::now();
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    let took = asked.elapsed();
    assert_eq!(members(&spec.group), Vec::<u32>::new());
    assert!(took <= BOMB_STOPPED, "{count} processes took {took:?}");
}

#[test]
fn a_daemon_that_forks_away_without_a_mark_is_never_there_twice() {
    let mut stage = Stage::new();
    if need_groups(&mut stage).is_err() {
        return;
    }
    let script = "env -i setsid sh -c 'setsid sleep 1000 & echo $!; exec sleep 1000'& sleep 0.1; read wait <go; exit 0";
    let mut spec = shell("daemon", script);
    spec.launch.working_dir = stage.data.to_str().unwrap().to_owned();
    let go = stage.data.join("go");
    rustix::fs::mknodat(rustix::fs::CWD, &go, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o666), 0).unwrap();
    stage.run(&spec);
    let first: u32 = stage.wait_line(&spec.group, |line| line.parse::<u32>().is_ok()).parse().unwrap();
    assert!(in_group(first, &spec.group));
    std::fs::write(&go, "go\n").unwrap();
    stage.wait_for(&spec.group, |report| report.incarnation == 2 && report.state == ServiceState::Running);
    assert!(!alive(first), "the first is there beside the second");
    wait_until("the second daemon is there", || (members(&spec.group).len() >= 3).then_some(()));
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    assert_eq!(members(&spec.group), Vec::<u32>::new());
}

#[test]
fn a_service_that_eats_memory_dies_alone_and_it_is_said() {
    let mut stage = Stage::new();
    if need_groups(&mut stage).is_err() {
        return;
    }
    let steady = shell("steady", "exec sleep 1000");
    stage.run(&steady);
    let before = stage.wait_state(&steady.group, ServiceState::Running);
    let mut spec = shell("hungry", "a=aaaaaaaaaaaaaaaa; while :; do a=$a$a; done");
    spec.launch.limits.memory = Some(64 << 20);
    stage.run(&spec);
    let message = stage.wait_for(&spec.group, |report| report.state != ServiceState::Starting).message;
    if need_limit(&message, "memory").is_err() {
        return;
    }
    let report = stage.wait_state(&spec.group, ServiceState::Backoff);
    assert_eq!(report.last_exit, Some(Exit::OutOfMemory { limit: Some(64 << 20) }));
    assert!(report.message.contains("killed: out of memory (limit 64 MiB)"), "{}", report.message);
    assert_eq!(stage.reports[&steady.group], before);
    // One that is killed by somebody else is not taken for it, though the group has seen it before.
    spec.launch.argv = ["/bin/sleep", "1000"].map(str::to_owned).to_vec();
    stage.run(&spec);
    let running = stage.wait_state(&spec.group, ServiceState::Running);
    signal(running.pid.unwrap(), KILL);
    let next = stage.wait_for(&spec.group, |report| report.incarnation > running.incarnation);
    assert_eq!(next.last_exit, Some(Exit::Signal(tagfall::model::Signal::KILL)));
}

#[test]
fn an_adopted_service_dies_of_its_memory_or_is_stopped_whole_as_before() {
    let mut stage = Stage::new();
    if need_groups(&mut stage).is_err() {
        return;
    }
    let go = stage.data.join("go");
    let eats = format!("while ! test -e {}; do sleep 0.05; done; a=aaaaaaaaaaaaaaaa; while :; do a=$a$a; done", go.display());
    let mut hungry = shell("adopted-hungry", &eats);
    hungry.launch.limits.memory = Some(64 << 20);
    let family = shell("adopted-family", "env -i setsid sh -c 'sleep 1000 & exec sleep 1000' & exec sleep 1000");
    stage.run(&hungry);
    stage.run(&family);
    let limited = stage.wait_state(&hungry.group, ServiceState::Running);
    stage.wait_state(&family.group, ServiceState::Running);
    wait_until("all of the family is there", || (members(&family.group).len() >= 3).then_some(()));
    let before = [&hungry, &family].map(|spec| stage.reports[&spec.group].clone());
    stage.replace_keeper();
    assert_eq!([&hungry, &family].map(|spec| stage.reports[&spec.group].clone()), before);
    stage.ask(&Request::Stop { group: family.group.clone() }).unwrap();
    stage.wait_state(&family.group, ServiceState::Stopped);
    assert_eq!(members(&family.group), Vec::<u32>::new());
    if need_limit(&limited.message, "memory").is_err() {
        return;
    }
    std::fs::write(&go, "").unwrap();
    let report = stage.wait_for(&hungry.group, |report| report.incarnation > 1 || report.state == ServiceState::Backoff);
    assert_eq!(report.last_exit, Some(Exit::OutOfMemory { limit: Some(64 << 20) }));
}

#[test]
fn a_command_runs_in_the_group_of_its_service_and_ends_with_it() {
    let mut stage = Stage::new();
    if need_groups(&mut stage).is_err() {
        return;
    }
    let mut spec = shell("asked-inside", "exec sleep 1000");
    spec.launch.limits.pids = Some(6);
    stage.run(&spec);
    let running = stage.wait_state(&spec.group, ServiceState::Running);
    let command = |script: &str| Command {
        group: Some(spec.group.clone()),
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        timeout: Duration::from_secs(20),
        ..Command::default()
    };
    for _ in 0..2 {
        let outcome = stage.exec(command("cat /proc/self/cgroup")).unwrap();
        assert!(outcome.output.lines().any(|line| line.ends_with(&format!("/{}", spec.group))), "{}", outcome.output);
        // The same under a keeper that has not made the group.
        stage.replace_keeper();
    }
    if need_limit(&running.message, "pids").is_ok() {
        let many = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; wait";
        let outcome = stage.exec(command(many)).unwrap();
        assert!(outcome.output.contains("fork"), "{}", outcome.output);
    }
    let asked = stage.send(&Request::Exec(Box::new(command("setsid sleep 1000 & exec sleep 1000"))));
    wait_until("the command is there", || (members(&spec.group).len() >= 3).then_some(()));
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    assert_eq!(members(&spec.group), Vec::<u32>::new());
    assert_eq!(stage.outcome_of(asked).unwrap().exit, Exit::Signal(tagfall::model::Signal::KILL));
    assert_eq!(stage.reports[&spec.group].incarnation, 1);
}

#[test]
fn a_limit_of_processes_holds() {
    let mut stage = Stage::new();
    let mut spec = shell("few", "trap 'sleep 1000' EXIT; for i in 1 2 3 4 5 6 7 8 9; do setsid sleep 1000 & echo $i; done");
    spec.launch.limits.pids = Some(5);
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    if need_limit(&report.message, "pids").is_err() {
        return;
    }
    let refused = stage.wait_line(&spec.group, |line| line.contains("fork"));
    let lines: Vec<_> = stage.logs(&spec.group).into_iter().map(|line| line.line).filter(|line| line.len() == 1).collect();
    assert_eq!(lines.iter().take(4).collect::<Vec<_>>(), ["1", "2", "3", "4"], "{refused}");
    assert!(!lines.contains(&"5".to_owned()));
}

/// Clock ticks that a process has used.
fn ticks(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
}

#[test]
fn a_limit_of_processor_time_holds_about() {
    let mut stage = Stage::new();
    let mut spec = shell("busy", "while :; do :; done");
    spec.launch.limits.cpu = Some(0.2);
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    if need_limit(&report.message, "cpu").is_err() {
        return;
    }
    let pid = report.pid.unwrap();
    let (begin, used) = (Instant::now(), ticks(pid));
    wait_until("it has used 0.4 s", || (ticks(pid) - used >= 40.0).then_some(()));
    let share = (ticks(pid) - used) / 100.0 / begin.elapsed().as_secs_f64();
    assert!(share < 0.3, "it has {share:.2} of a core");
}

#[test]
fn what_an_ordinary_users_keeper_cannot_enforce_is_said_by_name() {
    let mut stage = Stage::unprivileged();
    let mut spec = shell("modest", "setsid sleep 1000 & echo up; exec sleep 1000");
    spec.launch.limits.memory = Some(1 << 30);
    spec.launch.limits.pids = Some(100);
    spec.launch.limits.cpu = Some(1.0);
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    stage.wait_line(&spec.group, |line| line == "up");
    let pid = report.pid.unwrap();
    assert_eq!(report.message.contains("no cgroup can be made here"), !in_group(pid, &spec.group), "{}", report.message);
    for limit in ["memory", "pids", "cpu"] {
        let line = memberships(pid).into_iter().find(|line| line.contains(limit) || line.starts_with("0::"));
        let enforced = line.is_some_and(|line| line.contains("/tagfall/"));
        let said = report.message.contains(&format!("limit `{limit}` cannot be enforced here"));
        assert!(enforced || said, "{limit}: {}", report.message);
    }
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    assert!(!alive(pid));
}

/// Sets how many processes the keeper's user may have as the keeper sees it, as that user.
fn limit_processes(keeper: u32, soft: &str) -> Result<(), Skipped> {
    let program = common::need_tool("prlimit")?;
    let limit = [format!("--pid={keeper}"), format!("--nproc={soft}:")];
    let mut command = std::process::Command::new(if is_root() { "setpriv".into() } else { program.clone() });
    if is_root() {
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all"]).arg(program);
    }
    assert!(command.args(limit).status().unwrap().success());
    Ok(())
}

fn hard_limit(pid: u32) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max processes")).unwrap();
    line.split_whitespace().nth(3).unwrap().to_owned()
}

#[test]
fn without_processes_to_be_had_a_start_fails_with_words_and_is_tried_again() {
    let mut stage = Stage::unprivileged();
    let keeper = stage.keeper.id();
    if limit_processes(keeper, "1").is_err() {
        return;
    }
    let spec = shell("late", "exec sleep 1000");
    stage.run(&spec);
    let report = stage.wait_for(&spec.group, |report| report.state == ServiceState::Backoff && report.incarnation >= 2);
    assert!(report.message.contains("no process can be made for it"), "{}", report.message);
    assert_eq!((report.pid, report.last_exit), (None, None));
    if limit_processes(keeper, &hard_limit(keeper)).is_err() {
        return;
    }
    stage.wait_state(&spec.group, ServiceState::Running);
}

#[test]
fn the_keeper_is_the_last_one_that_the_kernel_kills() {
    for mut stage in [Stage::new(), Stage::unprivileged()] {
        let spec = shell("first", "exec sleep 1000");
        stage.run(&spec);
        let pid = stage.wait_state(&spec.group, ServiceState::Running).pid.unwrap();
        let score =
            |pid: u32| -> i32 { std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap() };
        assert!(score(stage.keeper.id()) < score(pid));
        assert_eq!(score(stage.supervisor_pid()), score(pid));
        assert!(score(pid) >= 0);
    }
}

#[test]
fn what_a_killed_keeper_left_unrecorded_ends_before_the_next_start() {
    let mut stage = Stage::new();
    if need_groups(&mut stage).is_err() {
        return;
    }
    let spec = shell("remains", "env -i setsid sh -c 'echo $$; exec sleep 1000' & exec sleep 1000");
    stage.run(&spec);
    let main = stage.wait_state(&spec.group, ServiceState::Running).pid.unwrap();
    let hidden: u32 = stage.wait_line(&spec.group, |line| line.parse::<u32>().is_ok()).parse().unwrap();
    stage.keeper.kill().unwrap();
    stage.keeper.wait().unwrap();
    signal(main, KILL);
    wait_until("the main process is gone", || (!alive(main)).then_some(()));
    assert!(alive(hidden));
    stage.replace_keeper();
    stage.run(&spec);
    stage.wait_state(&spec.group, ServiceState::Running);
    assert!(!alive(hidden), "it was left beside the new process");
}

#[test]
fn nothing_is_left_of_a_group_once_its_keeper_has_ended() {
    let mut stage = Stage::new();
    if need_groups(&mut stage).is_err() {
        return;
    }
    let mut spec = shell("brief", "exec sleep 1000");
    spec.launch.limits.memory = Some(64 << 20);
    stage.run(&spec);
    let pid = stage.wait_state(&spec.group, ServiceState::Running).pid.unwrap();
    let paths: Vec<String> =
        memberships(pid).into_iter().filter_map(|line| Some(line.splitn(3, ':').nth(2)?.to_owned())).collect();
    let dirs = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]);
    let ours: Vec<_> = paths.iter().filter(|path| path.contains("/tagfall/")).collect();
    let dirs: Vec<_> =
        dirs.flat_map(|dir| ours.iter().map(move |path| dir.join(&path[1..]))).filter(|dir| dir.is_dir()).collect();
    assert!(!dirs.is_empty());
    assert!(stage.end().success());
    for dir in dirs {
        assert!(!dir.parent().unwrap().exists(), "{}", dir.display());
    }
}

/// A group of the freezer of version 1: who is frozen there does not even die, like one that waits for a dead disk.
struct Ice(PathBuf);

impl Ice {
    fn new() -> Result<Self, Skipped> {
        let dir = PathBuf::from(format!("/sys/fs/cgroup/freezer/ice-{}", std::process::id()));
        need(std::fs::create_dir(&dir).is_ok(), "it needs to make a group in the freezer of cgroups of version 1")?;
        Ok(Self(dir))
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.join(file), text).unwrap();
    }
}

impl Drop for Ice {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("freezer.state"), "THAWED");
        let removed = || std::fs::remove_dir(&self.0).ok();
        wait_until("whoever was frozen is gone", removed);
    }
}

#[test]
fn one_that_does_not_even_die_is_stuck_and_gets_no_second_copy() {
    let Ok(ice) = Ice::new() else { return };
    let mut stage = Stage::new();
    let mut spec = shell("frozen", "exec sleep 1000");
    spec.policy.stop_timeout = Duration::from_millis(100);
    stage.run(&spec);
    let pid = stage.wait_state(&spec.group, ServiceState::Running).pid.unwrap();
    ice.write("cgroup.procs", &pid.to_string());
    ice.write("freezer.state", "FROZEN");
    let frozen = || std::fs::read_to_string(ice.0.join("freezer.state")).unwrap().starts_with("FROZEN").then_some(());
    wait_until("it is frozen", frozen);
    stage.ask(&Request::Restart { group: spec.group.clone() }).unwrap();
    let stuck = stage.wait_state(&spec.group, ServiceState::Stuck);
    assert_eq!((stuck.pid, stuck.incarnation), (Some(pid), 1));
    assert!(stuck.message.contains("no second copy is started"), "{}", stuck.message);
    ice.write("freezer.state", "THAWED");
    let next = stage.wait_state(&spec.group, ServiceState::Running);
    assert_eq!(next.incarnation, 2);
    assert!(!alive(pid));
}
