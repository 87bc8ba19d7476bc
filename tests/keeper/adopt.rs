//! The keeper killed outright, its records damaged, itself exchanged: services go on, and none runs twice.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tagfall::keeper::wire::{Command, Request};
use tagfall::model::{Exit, GroupName, ServiceReport, ServiceSpec, ServiceState, Signal};

use crate::stage::{Setting, Stage, alive, is_root, shell, signal, wait_until};

const KILL: rustix::process::Signal = rustix::process::Signal::KILL;

/// How many services write lines at once.
const MANY: usize = 50;

/// Longest time without a line of a service that writes one every 50 ms or so.
const GAP_MAX: Duration = Duration::from_secs(1);

/// A service that writes numbered lines, without an end.
pub(crate) fn counter(name: &str) -> ServiceSpec {
    shell(name, "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done")
}

pub(crate) fn start_all(stage: &mut Stage, specs: &[ServiceSpec]) -> BTreeMap<GroupName, ServiceReport> {
    for spec in specs {
        stage.run(spec);
    }
    for spec in specs {
        stage.wait_state(&spec.group, ServiceState::Running);
    }
    stage.reports.clone()
}

/// Every number from 1 on is there, and none was long in coming.
pub(crate) fn check_lines(stage: &Stage, group: &GroupName) {
    let lines = stage.logs(group);
    let numbers: Vec<u64> = lines.iter().map(|line| line.line.parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "{group}: {numbers:?}");
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{group}");
    for pair in lines.windows(2) {
        let gap = Duration::from_millis(pair[1].time.0.saturating_sub(pair[0].time.0));
        assert!(gap < GAP_MAX, "{group}: {gap:?} before line {}", pair[1].line);
    }
}

pub(crate) fn wait_for_lines(stage: &Stage, group: &GroupName, more: usize) {
    let wanted = stage.logs(group).len() + more;
    wait_until("more lines", || (stage.logs(group).len() >= wanted).then_some(()));
}

fn record(stage: &Stage, group: &GroupName) -> PathBuf {
    stage.data.join("keeper/services").join(group.to_string())
}

#[test]
fn a_successor_adopts_what_runs_and_loses_no_line() {
    let mut stage = Stage::new();
    let specs: Vec<_> = (0..MANY).map(|number| counter(&format!("count-{number}"))).collect();
    let before = start_all(&mut stage, &specs);
    for _ in 0..3 {
        wait_for_lines(&stage, &specs[MANY - 1].group, 5);
        let killed = Instant::now();
        stage.replace_keeper();
        assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
        assert_eq!(stage.reports, before);
    }
    // Said again by the supervisor, nothing changes either.
    for spec in &specs {
        stage.run(spec);
        assert_eq!(stage.reports[&spec.group], before[&spec.group]);
        wait_for_lines(&stage, &spec.group, 1);
        check_lines(&stage, &spec.group);
    }
    // They are stopped whole, though they are nobody's children here.
    let group = &specs[0].group;
    stage.ask(&Request::Stop { group: group.clone() }).unwrap();
    stage.wait_state(group, ServiceState::Stopped);
    assert!(!alive(before[group].pid.unwrap()));
}

#[test]
fn an_adopted_service_that_ends_is_restarted_and_how_it_ended_is_known() {
    let mut stage = Stage::new();
    let killed = shell("killed", "exec sleep 1000");
    let coded = shell("coded", "trap 'exit 7' USR1; echo up; while :; do sleep 0.05; done");
    let before = start_all(&mut stage, &[killed.clone(), coded.clone()]);
    stage.wait_line(&coded.group, |line| line == "up");
    stage.replace_keeper();
    signal(before[&killed.group].pid.unwrap(), KILL);
    signal(before[&coded.group].pid.unwrap(), rustix::process::Signal::USR1);
    for (group, exit) in [(&killed.group, Exit::Signal(Signal::KILL)), (&coded.group, Exit::Code(7))] {
        let report = stage.wait_for(group, |report| report.incarnation == 2 && report.state == ServiceState::Running);
        assert_eq!((report.last_exit, report.restarts), (Some(exit), 1));
    }
}

#[test]
fn what_ends_while_no_keeper_is_there_is_started_again_without_a_supervisor_asking() {
    let mut stage = Stage::new();
    let spec = shell("gone", "exec sleep 1000");
    let before = start_all(&mut stage, std::slice::from_ref(&spec));
    stage.kill_keeper();
    signal(before[&spec.group].pid.unwrap(), KILL);
    stage.start_keeper();
    let report = stage.wait_for(&spec.group, |report| report.incarnation == 2 && report.state == ServiceState::Running);
    assert_eq!(report.restarts, 1);
}

#[test]
fn stopped_failed_and_waiting_services_stay_what_they_are() {
    let mut stage = Stage::new();
    let (failed, mut waiting) = (shell("failed", "exit 125"), shell("waiting", "exit 3"));
    waiting.policy.backoff.min = Duration::from_secs(600);
    waiting.policy.backoff.max = Duration::from_secs(600);
    stage.run(&failed);
    stage.run(&waiting);
    let failed_before = stage.wait_state(&failed.group, ServiceState::Failed);
    let waiting_before = stage.wait_state(&waiting.group, ServiceState::Backoff);
    stage.replace_keeper();
    assert_eq!(stage.reports[&failed.group], failed_before);
    let waiting_now = stage.reports[&waiting.group].clone();
    assert_eq!((waiting_now.state, waiting_now.incarnation, waiting_now.last_exit), {
        (waiting_before.state, waiting_before.incarnation, waiting_before.last_exit)
    });
}

#[test]
fn with_a_damaged_record_the_one_before_is_taken() {
    let mut stage = Stage::new();
    let spec = shell("damaged", "exec sleep 1000");
    let before = start_all(&mut stage, std::slice::from_ref(&spec));
    let path = record(&stage, &spec.group);
    let damages: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes.truncate(bytes.len() / 2), |bytes| bytes.fill(0), |bytes| bytes[100] ^= 4];
    for damage in damages {
        stage.kill_keeper();
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        stage.start_keeper();
        let now = &stage.reports[&spec.group];
        assert_eq!((now.pid, now.state), (before[&spec.group].pid, ServiceState::Running));
        assert_eq!((now.incarnation, now.restarts), (1, 0));
    }
}

#[test]
fn without_any_record_the_lock_makes_a_second_copy_impossible() {
    let mut stage = Stage::new();
    // It forgets its environment, its session and its parent; its lock it keeps.
    let spec = shell("lost", "env -i setsid sleep 1001 & exec sleep 1000");
    let before = start_all(&mut stage, std::slice::from_ref(&spec));
    stage.kill_keeper();
    std::fs::remove_dir_all(stage.data.join("keeper/services")).unwrap();
    stage.start_keeper();
    assert!(stage.reports.is_empty());
    stage.run(&spec);
    let found = stage.wait_state(&spec.group, ServiceState::Unknown);
    let pid = before[&spec.group].pid;
    assert_eq!(found.pid, pid);
    assert!(found.message.contains(&pid.unwrap().to_string()), "{}", found.message);
    // Replaced on request, with all that it had started.
    let holders = || holders(&stage.data, &spec.group);
    assert_eq!(holders().len(), 2);
    stage.ask(&Request::Restart { group: spec.group.clone() }).unwrap();
    let fresh = stage.wait_state(&spec.group, ServiceState::Running);
    assert!(fresh.pid != pid && !alive(pid.unwrap()));
    let data = stage.data.clone();
    wait_until("two processes hold the lock", || (self::holders(&data, &spec.group).len() == 2).then_some(()));
}

/// Processes that have a service's lock open.
fn holders(data: &std::path::Path, group: &GroupName) -> Vec<u32> {
    let lock = data.join("keeper/locks").join(group.to_string());
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let open = |pid: &u32| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|path| path == lock)
    };
    pids.filter(open).collect()
}

#[test]
fn what_a_stop_does_not_know_by_its_marks_it_knows_by_the_lock() {
    let mut stage = Stage::new();
    let spec = shell("hidden", "env -i setsid -f sleep 1002; exec sleep 1000");
    start_all(&mut stage, std::slice::from_ref(&spec));
    let data = stage.data.clone();
    wait_until("both hold the lock", || (holders(&data, &spec.group).len() == 2).then_some(()));
    let all = holders(&data, &spec.group);
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    assert!(all.iter().all(|pid| !alive(*pid)));
}

#[test]
fn a_stranger_with_the_recorded_number_is_never_signalled() {
    let mut stage = Stage::new();
    let spec = shell("mistaken", "exec sleep 1000");
    let before = start_all(&mut stage, std::slice::from_ref(&spec));
    let pid = before[&spec.group].pid.unwrap();
    let began = start_of(pid);
    stage.kill_keeper();
    // The process ends, and its number is given to a stranger, who leads a session: the record is made to name one.
    signal(pid, KILL);
    let mut stranger = wait_until("a stranger who began later, by the clock that the record has", || {
        let mut stranger = std::process::Command::new("setsid").args(["sleep", "1000"]).spawn().unwrap();
        if start_of(stranger.id()) > began {
            return Some(stranger);
        }
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        None
    });
    wait_until("the stranger is a program", || {
        let line = std::fs::read(format!("/proc/{}/cmdline", stranger.id())).unwrap();
        line.starts_with(b"sleep").then_some(())
    });
    for name in ["", "~other"] {
        let path = record(&stage, &spec.group).with_file_name(format!("{}{name}", spec.group));
        rename_process(&path, pid, stranger.id());
    }
    stage.start_keeper();
    let fresh = stage.wait_for(&spec.group, |report| report.incarnation == 2 && report.state == ServiceState::Running);
    assert_ne!(fresh.pid, Some(stranger.id()));
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    assert!(alive(stranger.id()));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

/// When a process began, in clock ticks.
fn start_of(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap()
}

/// Puts another process id into a record, and mends its sum.
fn rename_process(path: &std::path::Path, old: u32, new: u32) {
    let bytes = std::fs::read(path).unwrap();
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap();
    let (head, place, _, body) = (part(), part(), part(), part());
    // Tag 4 of eight bytes, as the format has it.
    let field = |pid: u32| [&[4, 0, 8, 0, 0, 0][..], &u64::from(pid).to_le_bytes()].concat();
    let (old, new) = (field(old), field(new));
    let at = body.windows(old.len()).position(|part| part == old);
    let mut body = body.to_vec();
    if let Some(at) = at {
        body[at..at + new.len()].copy_from_slice(&new);
    }
    let head = [head, b"\n", place, b"\n"].concat();
    let sum = tagfall::model::Digest::of(&[&head[..], &body].concat());
    std::fs::write(path, [&head[..], format!("sum {sum}\n").as_bytes(), &body].concat()).unwrap();
}

#[test]
fn a_newer_programs_records_are_refused_and_its_services_run_on() {
    let mut stage = Stage::new();
    let spec = shell("newer", "exec sleep 1000");
    let before = start_all(&mut stage, std::slice::from_ref(&spec));
    stage.kill_keeper();
    let path = record(&stage, &spec.group);
    let kept = std::fs::read(&path).unwrap();
    let head = "tagfall keeper record 999\nnumber 9 length 0\n";
    let sum = tagfall::model::Digest::of(head.as_bytes());
    std::fs::write(&path, format!("{head}sum {sum}\n")).unwrap();
    let refused =
        std::process::Command::new(env!("CARGO_BIN_EXE_tagfall")).arg("keeper").arg(&stage.data).arg("").output().unwrap();
    assert!(!refused.status.success());
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(words.contains("newer") && words.contains("999"), "{words}");
    assert!(alive(before[&spec.group].pid.unwrap()));
    std::fs::write(&path, kept).unwrap();
    stage.start_keeper();
    assert_eq!(stage.reports, before);
}

#[test]
fn twenty_deaths_of_the_supervisor_are_noticed_by_no_service() {
    let mut stage = Stage::new();
    let specs: Vec<_> = (0..MANY).map(|number| counter(&format!("steady-{number}"))).collect();
    let before = start_all(&mut stage, &specs);
    for _ in 0..20 {
        stage.kill_supervisor();
        assert_eq!(stage.reports, before);
    }
    for spec in &specs {
        wait_for_lines(&stage, &spec.group, 1);
        check_lines(&stage, &spec.group);
    }
}

#[test]
fn an_ordinary_users_services_are_adopted_too() {
    let mut stage = Stage::unprivileged();
    let spec = shell("plain", "trap 'exit 9' USR1; echo up; while :; do sleep 0.05; done");
    let before = start_all(&mut stage, std::slice::from_ref(&spec));
    stage.wait_line(&spec.group, |line| line == "up");
    stage.replace_keeper();
    assert_eq!(stage.reports, before);
    signal(before[&spec.group].pid.unwrap(), rustix::process::Signal::USR1);
    let report = stage.wait_for(&spec.group, |report| report.incarnation == 2);
    assert_eq!(report.last_exit, Some(Exit::Code(9)), "as {}", if is_root() { "nobody" } else { "this user" });
}

const HUP: rustix::process::Signal = rustix::process::Signal::HUP;

#[test]
fn the_keeper_becomes_the_new_program_ten_times_and_no_service_notices() {
    let mut stage = Stage::with_own_program();
    let mut specs: Vec<_> = (0..10).map(|number| counter(&format!("upgrade-{number}"))).collect();
    specs.push(shell("halves", "printf 'first half, '; while :; do sleep 0.05; done"));
    let before = start_all(&mut stage, &specs);
    let keeper = stage.keeper.id();
    for _ in 0..10 {
        let program = stage.program().to_owned();
        let new = program.with_extension("new");
        std::fs::copy(&program, &new).unwrap();
        std::fs::rename(&new, &program).unwrap();
        signal(keeper, HUP);
        stage.connect();
        assert_eq!(stage.reports, before);
        assert_eq!(stage.hello.as_ref().unwrap().keeper_pid, keeper);
        assert_eq!(std::fs::read_link(format!("/proc/{keeper}/exe")).unwrap(), program);
    }
    for spec in &specs[..10] {
        wait_for_lines(&stage, &spec.group, 1);
        check_lines(&stage, &spec.group);
    }
    // They are its children still, one data folder has one keeper, and services begin with the limits they had.
    let killed = &specs[0].group;
    signal(before[killed].pid.unwrap(), KILL);
    let report = stage.wait_for(killed, |report| report.incarnation == 2 && report.state == ServiceState::Running);
    assert_eq!(report.last_exit, Some(Exit::Signal(Signal::KILL)));
    let limit = |pid: Option<u32>| {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", pid.unwrap())).unwrap();
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned()
    };
    assert_eq!(limit(report.pid), limit(before[&specs[1].group].pid));
    let second =
        std::process::Command::new(env!("CARGO_BIN_EXE_tagfall")).arg("keeper").arg(&stage.data).arg("").output().unwrap();
    assert!(String::from_utf8(second.stderr).unwrap().contains("in use"));
    let halves = &specs[10].group;
    stage.ask(&Request::Stop { group: halves.clone() }).unwrap();
    stage.wait_line(halves, |line| line == "first half, ");
    let open = std::fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count();
    assert!(open < 80, "{open} descriptors are open");
}

#[test]
fn a_program_that_is_older_or_broken_is_refused_and_nothing_changes() {
    let mut stage = Stage::with_own_program();
    let spec = counter("kept");
    let before = start_all(&mut stage, std::slice::from_ref(&spec));
    let supervisor = stage.supervisor_pid();
    let program = stage.program().to_owned();
    let good = std::fs::read(&program).unwrap();
    let older = "#!/bin/sh\necho 0\n";
    for (number, bad) in ["#!/bin/sh\nexit 1\n", older, "no program at all", "#!/bin/sh\nexec sleep 1000\n"].iter().enumerate() {
        replace(&program, bad.as_bytes());
        signal(stage.keeper.id(), HUP);
        stage.wait_words(number + 1, "nothing was changed");
        stage.run(&spec);
        assert_eq!((&stage.reports, stage.supervisor_pid()), (&before, supervisor));
    }
    replace(&program, &good);
    signal(stage.keeper.id(), HUP);
    stage.connect();
    assert_eq!(stage.reports, before);
}

fn replace(program: &std::path::Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    let new = program.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&new, program).unwrap();
}

#[test]
fn a_line_of_100_mb_takes_bounded_memory_and_hides_no_other_service() {
    let mut stage = Stage::new();
    let long = shell("long", "head -c 100000000 /dev/zero | tr '\\0' x; printf '\\nend\\000\\377\\n'; exec sleep 1000");
    let quiet = counter("beside");
    stage.run(&quiet);
    stage.run(&long);
    stage.wait_line(&long.group, |line| line == "end\0\u{fffd}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", stage.keeper.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert!(peak < 64 * 1024, "{peak} kB");
    wait_for_lines(&stage, &quiet.group, 1);
    check_lines(&stage, &quiet.group);
}

/// Of the thousand that the figures are about, so many are taken along in every run of the tests.
const FEW_HUNDRED: usize = 300;

#[test]
fn hundreds_are_known_again_within_seconds() {
    let mut stage = Stage::new();
    let specs: Vec<_> = (0..FEW_HUNDRED).map(|number| shell(&format!("one-of-many-{number}"), "exec sleep 1000")).collect();
    let before = start_all(&mut stage, &specs);
    let killed = Instant::now();
    stage.kill_supervisor();
    let supervisor = killed.elapsed();
    assert_eq!(stage.reports, before);
    let killed = Instant::now();
    stage.replace_keeper();
    let keeper = killed.elapsed();
    assert_eq!(stage.reports, before);
    assert!(supervisor < Duration::from_secs(1) && keeper < Duration::from_secs(2), "{supervisor:?}, {keeper:?}");
}

#[test]
fn a_successor_in_another_mount_namespace_takes_no_others_for_a_services_own() {
    if common::rights_to_mount().is_err() {
        return;
    }
    let through = ["unshare".to_owned(), "--mount".to_owned()].to_vec();
    let mut stage = Stage::with(Setting { through, ..Setting::default() });
    let plain = shell("plain", "exec sleep 1000");
    stage.run(&plain);
    stage.wait_state(&plain.group, ServiceState::Running);
    stage.replace_keeper();
    let report = stage.reports[&plain.group].clone();
    assert_eq!((report.state, report.incarnation), (ServiceState::Running, 1));
    // What is run beside it is run where the keeper is, which can be told by what only that one sees.
    let seen = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_ne!(seen(stage.keeper.id()), seen(report.pid.unwrap()));
    let argv = ["/bin/sh", "-c", "readlink /proc/self/ns/mnt"].map(str::to_owned).to_vec();
    let group = Some(plain.group.clone());
    let command = Command { group, argv, timeout: Duration::from_secs(20), ..Command::default() };
    assert_eq!(stage.exec(command).unwrap().output.trim(), seen(stage.keeper.id()).to_str().unwrap());
}
