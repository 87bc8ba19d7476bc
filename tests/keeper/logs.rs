//! Output: by which rules it is kept and handed on, what a full disk and a daemon that is stuck do to it, and that nothing of
//! it is lost or comes twice, whoever dies.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::Skipped;
use tagfall::keeper::wire::{Request, log_dir, log_file};
use tagfall::model::{GroupName, LogFormat, LogForward, LogLine, LogPolicy, LogStream, ServiceReport, ServiceSpec, ServiceState};

use crate::adopt::{check_lines, counter, start_all, wait_for_lines};
use crate::fixture::doing;
use crate::stage::{Stage, shell, signal, wait_until};

const HUP: rustix::process::Signal = rustix::process::Signal::HUP;

/// How many services write numbered lines beside a flood.
const MANY: usize = 50;

/// So long a flood goes on: lines of each that writes beside it.
const LINES_BESIDE: usize = 40;

/// Longest time between the writing of a line and its being in the log.
const LATE_MAX_MS: u64 = 1_000;

/// A service that writes numbered lines of 8 KB, so that its files are closed about once a second.
fn wide_counter(name: &str, policy: LogPolicy) -> ServiceSpec {
    let mut spec = shell(name, "n=0; while :; do n=$((n+1)); printf '%d %08000d\\n' $n 0; sleep 0.05; done");
    spec.policy.logs = policy;
    spec
}

fn numbers(stage: &Stage, group: &GroupName) -> Vec<u64> {
    let lines = stage.logs(group).into_iter().map(|line| line.line);
    lines.filter(|line| !line.starts_with("tagfall: ")).map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
}

fn wait_numbers(stage: &Stage, group: &GroupName, more: usize) {
    let wanted = numbers(stage, group).len() + more;
    wait_until("more lines", || (numbers(stage, group).len() >= wanted).then_some(()));
}

#[test]
fn json_lines_and_rotations_survive_the_death_and_exchange_of_everybody() {
    let mut stage = Stage::with_own_program();
    let policy = LogPolicy { max_size: 128 * 1024, files: 50, format: LogFormat::Json, ..LogPolicy::default() };
    let specs: Vec<_> = (0..5).map(|number| wide_counter(&format!("wide-{number}"), policy.clone())).collect();
    let before = start_all(&mut stage, &specs);
    for _ in 0..3 {
        stage.kill_supervisor();
        wait_numbers(&stage, &specs[0].group, 10);
        signal(stage.keeper.id(), HUP);
        stage.connect();
        wait_numbers(&stage, &specs[0].group, 10);
        stage.replace_keeper();
        wait_numbers(&stage, &specs[0].group, 10);
        assert_eq!(stage.reports, before);
    }
    for spec in &specs {
        let numbers = numbers(&stage, &spec.group);
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{}", spec.group);
        let dir = log_dir(&stage.data, &spec.group);
        assert!(dir.join(log_file(4)).exists(), "{numbers:?}");
        assert!(std::fs::read(dir.join(log_file(0))).unwrap_or_default().first().is_none_or(|first| *first == b'{'));
    }
}

#[test]
fn other_rules_hold_from_the_next_line_on_without_a_restart() {
    let mut stage = Stage::new();
    let spec = counter("amended");
    let before = start_all(&mut stage, std::slice::from_ref(&spec));
    wait_for_lines(&stage, &spec.group, 3);
    let mut policy = spec.policy.clone();
    policy.logs.format = LogFormat::Json;
    let (group, revision, release) = (spec.group.clone(), spec.revision, spec.release.clone());
    stage.ask(&Request::Amend { group, revision, release, policy: policy.clone() }).unwrap();
    assert_eq!((&stage.reports[&spec.group].policy, stage.reports[&spec.group].pid), (&policy, before[&spec.group].pid));
    let current = log_dir(&stage.data, &spec.group).join(log_file(0));
    wait_until("a line in JSON", || std::fs::read_to_string(&current).unwrap().contains("\"line\":").then_some(()));
    wait_for_lines(&stage, &spec.group, 1);
    check_lines(&stage, &spec.group);
    // A next keeper goes by them as well.
    stage.replace_keeper();
    assert_eq!(stage.reports[&spec.group].policy, policy);
    wait_for_lines(&stage, &spec.group, 3);
    check_lines(&stage, &spec.group);
    assert!(std::fs::read_to_string(&current).unwrap().ends_with("}\n"));
}

#[test]
fn a_flood_loses_and_delays_no_line_of_fifty_others() {
    let mut stage = Stage::new();
    let specs: Vec<_> = (0..MANY).map(|number| doing(&format!("beside-{number}"), &["count"])).collect();
    start_all(&mut stage, &specs);
    let flood = shell("deluge", "exec yes 'a line of a flood that never ends'");
    stage.run(&flood);
    let dir = log_dir(&stage.data, &flood.group);
    wait_until("the flood's log has been rotated", || dir.join(log_file(2)).exists().then_some(()));
    let counted = |group: &GroupName| {
        let lines = stage.logs(group).into_iter();
        let parse = |line: &LogLine| {
            let mut words = line.line.strip_prefix("line ")?.split(' ').map(|word| word.parse::<u64>().unwrap());
            Some((words.next()?, line.time.0.saturating_sub(words.next()?)))
        };
        lines.filter_map(|line| parse(&line)).collect::<Vec<_>>()
    };
    for spec in &specs {
        wait_until("lines beside the flood", || (counted(&spec.group).len() >= LINES_BESIDE).then_some(()));
        let lines = counted(&spec.group);
        assert!(lines.iter().zip(1..).all(|((number, _), wanted)| *number == wanted), "{}: {lines:?}", spec.group);
        assert!(lines.iter().all(|(_, late_ms)| *late_ms < LATE_MAX_MS), "{}: {lines:?}", spec.group);
    }
    assert_eq!(stage.reports[&flood.group].logs, tagfall::model::LogLosses::default());
}

/// A small disk over a folder, taken away with the test.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Result<Self, Skipped> {
        common::need_root()?;
        common::rights_to_mount()?;
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tagfall-test"]).arg(at).status();
        assert!(mounted.unwrap().success());
        Ok(Self(at.to_owned()))
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[test]
fn a_full_disk_stops_no_service_and_what_is_lost_is_counted_and_told() {
    let mut stage = Stage::new();
    let Ok(disk) = Disk::mount(&stage.data.join("logs"), "4m") else { return };
    // Faster than what can wait in memory.
    let mut spec = shell("unheard", "n=0; while :; do n=$((n+1)); printf '%d %02000d\\n' $n 0; sleep 0.01; done");
    spec.policy.logs = LogPolicy { max_size: 1 << 20, files: 3, ..LogPolicy::default() };
    let before = start_all(&mut stage, std::slice::from_ref(&spec));
    wait_numbers(&stage, &spec.group, 5);
    disk.fill();
    let told = stage.wait_for(&spec.group, |report| report.logs.lines > 20);
    assert!(told.logs.trouble.contains("No space left") && told.logs.trouble.contains("logs"), "{told:?}");
    assert_eq!((told.pid, told.state), (before[&spec.group].pid, ServiceState::Running));
    disk.free();
    let after = stage.wait_for(&spec.group, |report| report.logs.trouble.is_empty());
    assert_eq!(after.pid, told.pid);
    wait_numbers(&stage, &spec.group, 5);
    // Every line is there or counted, and the log says where they are missing.
    let lost = stage.reports[&spec.group].logs.lines;
    let numbers = numbers(&stage, &spec.group);
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    assert_eq!(numbers.last().unwrap() - numbers.len() as u64, lost, "{numbers:?}");
    let notices = stage.logs(&spec.group).into_iter().filter(|line| line.line.starts_with("tagfall: "));
    let counted: u64 = notices.map(|line| line.line.split(' ').nth(1).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(counted, lost);
}

#[test]
fn a_journal_that_cannot_be_written_is_named_and_written_once_it_can() {
    let mut stage = Stage::with_own_program();
    let first = shell("before", "exec sleep 1000");
    start_all(&mut stage, std::slice::from_ref(&first));
    let Ok(disk) = Disk::mount(&stage.data.join("keeper/services"), "64k") else { return };
    disk.fill();
    let spec = shell("during", "exec sleep 1000");
    stage.run(&spec);
    let unwritten = |report: &ServiceReport| report.message.contains("No space left");
    let report = stage.wait_for(&spec.group, |report| report.state == ServiceState::Running && unwritten(report));
    stage.wait_words(1, "cannot be written down");
    assert!(!unwritten(&stage.reports[&first.group]));
    disk.free();
    let written = stage.wait_for(&spec.group, |report| report.message.is_empty());
    assert_eq!(written.pid, report.pid);
    stage.wait_words(1, "who runs is written down again");
}

fn forwarding(name: &str, script: &str, forward: LogForward) -> ServiceSpec {
    let mut spec = shell(name, script);
    spec.policy.logs.forward = forward;
    spec
}

#[test]
fn a_daemon_that_is_stuck_holds_up_neither_its_service_nor_others() {
    let mut stage = Stage::new();
    let path = stage.data.join("stuck");
    // Bound and never read.
    let socket = UnixDatagram::bind(&path).unwrap();
    let forward = LogForward::Journald(path.to_str().unwrap().to_owned());
    let quiet = counter("unstuck");
    let chatty = forwarding("chatty", "n=0; while [ $n -lt 5000 ]; do n=$((n+1)); echo $n; done; exec sleep 1000", forward);
    let before = start_all(&mut stage, &[quiet.clone(), chatty.clone()]);
    wait_until("all of its lines are in its log", || (numbers(&stage, &chatty.group).len() == 5000).then_some(()));
    let told = stage.wait_for(&chatty.group, |report| report.logs.unforwarded > 0);
    assert!(told.logs.trouble.contains(path.to_str().unwrap()), "{told:?}");
    assert_eq!((told.logs.lines, told.pid), (0, before[&chatty.group].pid));
    wait_for_lines(&stage, &quiet.group, 3);
    check_lines(&stage, &quiet.group);
    // It reads again, and gets what waited, then word of what is missing.
    socket.set_nonblocking(true).unwrap();
    let (mut buffer, mut got) = (vec![0; 4096], Vec::new());
    wait_until("word of the gap", || {
        while let Ok(length) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            got.push(text.rsplit_once("MESSAGE=").unwrap().1.trim_end().to_owned());
        }
        got.last().is_some_and(|last| last.contains("are missing here")).then_some(())
    });
    let missing: u64 = got.pop().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(got, (1..=got.len()).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(got.len() as u64 + missing, 5000);
    let told = stage.wait_for(&chatty.group, |report| report.logs.trouble.is_empty());
    assert_eq!(told.logs.unforwarded, missing);
}

#[test]
fn a_real_syslog_daemon_understands_what_it_gets() {
    let Ok(program) = common::need_tool("rsyslogd") else { return };
    let mut stage = Stage::new();
    let path = |name: &str| stage.data.join(name).display().to_string();
    let (socket, out, config) = (path("log"), path("out"), path("rsyslog.conf"));
    let text = format!(
        "global(workDirectory=\"{}\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket=\"{socket}\" RateLimit.Interval=\"0\")\n\
         template(name=\"all\" type=\"string\" string=\"%syslogfacility-text%.%syslogseverity-text%|%programname%|%msg%\\n\")\n\
         action(type=\"omfile\" file=\"{out}\" template=\"all\")\n",
        stage.data.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut daemon = Command::new(program).args(["-n", "-f", &config, "-i", "NONE"]).spawn().unwrap();
    wait_until("the daemon listens", || Path::new(&socket).exists().then_some(()));
    let script =
        "echo hello there; echo '<4>be careful' ; echo wrong >&2; printf 'caf\\303\\251 \\000 \\377\\n'; exec sleep 1000";
    let spec = forwarding("spoken", script, LogForward::Syslog(socket));
    stage.run(&spec);
    let all = wait_until("all that was said", || {
        let text = String::from_utf8_lossy(&std::fs::read(&out).unwrap_or_default()).into_owned();
        (text.lines().count() == 4).then_some(text)
    });
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let name = spec.group.to_string();
    let wanted = [
        format!("daemon.info|{name}| hello there"),
        format!("daemon.warning|{name}| be careful"),
        format!("daemon.err|{name}| wrong"),
    ];
    let lines: BTreeSet<&str> = all.lines().collect();
    assert!(wanted.iter().all(|line| lines.contains(line.as_str())), "{all}");
    assert!(all.contains("café #000 "), "{all}");
    let stderr = |line: &LogLine| line.stream == LogStream::Stderr;
    assert_eq!(stage.logs(&spec.group).iter().filter(|line| stderr(line)).count(), 1);
}
