//! `tagfall service logs`: the same lines that the files have, over rotations, and however large they are.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use common::{LONG, wait_for, wait_until};

use crate::host::{Host, WEB, tagfall};

/// So much is in a file that somebody made larger than a supervisor should be.
const HUGE_BYTES: usize = 128 << 20;

/// By how much reading it may make the supervisor grow.
const GROWTH_MAX_KB: u64 = 32 * 1024;

/// Lines that are followed: many files' worth.
const FOLLOWED: usize = 400;

/// A group whose service runs a script, with rules for its logs.
fn start(script: &str, logs: &str) -> Host {
    let host = Host::bare(|settings| settings);
    let group = format!(
        "format = 1\n[placement]\nlabels = {{}}\n[service]\nexec = [\"/bin/sh\", \"-c\", '''{script}''']\n[service.logs]\n{logs}\n"
    );
    host.repo.write(WEB, &group);
    host.repo.release("v1.0.0");
    host.supervisor.wait_ready("v1.0.0");
    host
}

fn client(host: &Host, arguments: &[&str]) -> common::Output {
    let all: Vec<&str> = ["service", "logs", "web"].into_iter().chain(arguments.iter().copied()).collect();
    host.supervisor.client(&all)
}

#[test]
fn the_command_gives_the_lines_of_the_files_byte_for_byte() {
    // Between its two streams a service's lines have no order: the rest is written once both have begun.
    let dir = common::temp_dir();
    let go = dir.path().join("go");
    let script = format!(
        "echo one; echo two >&2; until [ -e {} ]; do :; done; printf 'a\\000b\\377\\n'; head -c 40000 /dev/zero | tr '\\000' y; \
         echo; echo done; exec sleep 1000000",
        go.display()
    );
    let host = start(&script, "format = \"json\"");
    let file = host.path("data/logs/web.default/current.log");
    let read = || fs::read_to_string(&file).unwrap_or_default();
    wait_until("both streams are read", LONG, || read().contains("\"one\"") && read().contains("\"two\""));
    fs::write(&go, "").unwrap();
    wait_until("all is written", LONG, || read().contains("\"line\":\"done\""));
    let all = client(&host, &["-o", "json"]);
    assert_eq!((all.code, all.stdout.as_str()), (Some(0), read().as_str()));
    assert_eq!(all.stdout.matches("\"more\":true").count(), 2);
    assert!(all.stdout.contains("\"line\":\"a\\u0000b\u{fffd}\",\"bytes\":\"YQBi/w==\"}\n"), "{}", all.stdout);
    let text = |arguments: &[&str]| {
        let output = client(&host, arguments);
        assert_eq!(output.code, Some(0), "{output:?}");
        let line = |line: &str| line.split_once(' ').unwrap().1.to_owned();
        output.stdout.lines().map(line).collect::<Vec<_>>()
    };
    assert_eq!(text(&["-n", "1"]), ["done"]);
    assert_eq!(text(&["--grep", "o", "-n", "2"]).len(), 2);
    assert_eq!(text(&["--grep", "o", "--since", "1h"]).len(), 3);
    assert_eq!(text(&["--since", "2999-01-01T00:00:00Z"]), [""; 0]);
    assert_eq!(text(&["-n", "0"]), [""; 0]);
    assert_eq!(client(&host, &["--since", "yesterday"]).code, Some(2));
    assert_eq!(host.supervisor.client(&["service", "logs", "nobody"]).code, Some(1));
}

#[test]
fn a_follower_misses_nothing_while_files_are_closed() {
    let script = "n=0; while :; do n=$((n+1)); printf '%d %04000d\\n' $n 0; sleep 0.005; done";
    let host = start(script, "max_size = \"128KiB\"\nfiles = 3");
    let api = format!("unix:{}", host.path(common::SOCKET).display());
    let mut command = tagfall().command(&["service", "logs", "web", "-f", "-n", "5", "--api", &api]);
    let mut follower = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let number = |line: std::io::Result<String>| line.unwrap().split(' ').nth(1).unwrap().parse::<usize>().unwrap();
    let numbers: Vec<usize> = lines.take(FOLLOWED).map(number).collect();
    follower.kill().unwrap();
    follower.wait().unwrap();
    assert_eq!(numbers, (numbers[0]..numbers[0] + FOLLOWED).collect::<Vec<_>>());
    assert!(host.path("data/logs/web.default/older-2.log").exists());
}

fn peak_kb(pid: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn files_of_any_size_are_read_in_bounded_memory() {
    let host = start("echo newest; exec sleep 1000000", "");
    wait_for("its line", LONG, || {
        let output = client(&host, &[]);
        if output.stdout.contains("newest") { Ok(()) } else { Err(format!("{output:?}")) }
    });
    let older = host.path("data/logs/web.default/older-1.log");
    let block =
        format!("2026-01-01T00:00:00.000Z o a line of a file that is far too large {}\n", "x".repeat(1_000)).repeat(1_000);
    let mut file = fs::File::create(older).unwrap();
    file.write_all(b"2026-01-01T00:00:00.000Z e the first of all\n").unwrap();
    for _ in 0..HUGE_BYTES / block.len() {
        file.write_all(block.as_bytes()).unwrap();
    }
    let pid = host.supervisor_pid();
    let before = peak_kb(pid);
    let first = client(&host, &["--since", "2020-01-01T00:00:00Z", "--grep", "of all"]);
    assert!(first.code == Some(0) && first.stdout.ends_with("the first of all\n"), "{first:?}");
    // From the end back, to the beginning where so few match.
    let few = client(&host, &["-n", "2", "--grep", "e"]);
    assert_eq!(few.stdout.lines().count(), 2);
    assert!(few.stdout.ends_with("newest\n"), "{few:?}");
    let back = client(&host, &["-n", "5", "--grep", "of all"]);
    assert_eq!(back.stdout.lines().count(), 1, "{back:?}");
    let grown = peak_kb(pid).saturating_sub(before);
    assert!(grown < GROWTH_MAX_KB, "the supervisor grew by {grown} kB");
}
