//! Outputs with FIFOs, files and sockets of their own.

use std::fs::File;
use std::io::{IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::rc::Rc;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::super::wire::{LOG_LINE_MAX_BYTES, log_dir, log_file};
use super::*;
use crate::model::{LogFormat, LogLine};

/// Every second of these the log tries again what it left alone.
const SECOND: u64 = 1_001;

struct Stage {
    data: tempfile::TempDir,
    group: GroupName,
    policy: LogPolicy,
    output: Output,
    buffer: Vec<u8>,
}

impl Stage {
    fn new(policy: LogPolicy) -> Self {
        let data = tempfile::tempdir().unwrap();
        let group: GroupName = "web".parse().unwrap();
        let output = open(data.path(), &group, &policy);
        Self { data, group, policy, output, buffer: vec![0; READ_BYTES] }
    }

    /// As a keeper does it that comes after another.
    fn again(&mut self) {
        self.output = open(self.data.path(), &self.group, &self.policy);
    }

    fn end(&self, stream: LogStream) -> File {
        File::from(self.output.service_end(stream).unwrap())
    }

    fn say(&self, text: &[u8]) {
        self.end(LogStream::Stdout).write_all(text).unwrap();
    }

    fn take(&mut self, time: u64) {
        while self.output.take(LogStream::Stdout, &mut self.buffer, Timestamp(time)) {}
    }

    fn hear(&mut self, text: &[u8]) {
        self.say(text);
        self.take(0);
    }

    fn drain(&mut self) {
        self.output.drain(&mut self.buffer, Timestamp(0));
    }

    fn dir(&self) -> std::path::PathBuf {
        log_dir(self.data.path(), &self.group)
    }

    fn lines(&self) -> Vec<LogLine> {
        let texts = (0..9).rev().map(|age| std::fs::read(self.dir().join(log_file(age))).unwrap_or_default());
        let bytes = texts.collect::<Vec<_>>().concat();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| LogLine::parse(&self.group, line).unwrap()).collect()
    }

    fn texts(&self) -> Vec<String> {
        self.lines().into_iter().map(|line| line.line).collect()
    }

    fn inside(&self, stream: LogStream) -> u64 {
        ioctl_fionread(&self.output.streams[stream as usize].fifo).unwrap()
    }
}

fn open(data: &Path, group: &GroupName, policy: &LogPolicy) -> Output {
    let rules = Rules { policy, release: "v1.0.0" };
    Output::open(data, group, rules, &Rc::new(Scratch::new(data).unwrap())).unwrap()
}

#[test]
fn lines_come_whole_and_what_has_no_end_stays_in_the_fifo() {
    let mut stage = Stage::new(LogPolicy::default());
    stage.hear(b"one\ntw");
    assert_eq!((stage.texts(), stage.inside(LogStream::Stdout)), (vec!["one".to_owned()], 2));
    assert!(!stage.output.take(LogStream::Stdout, &mut stage.buffer, Timestamp(0)));
    // A keeper that dies now takes nothing of it along.
    stage.again();
    stage.hear(b"o\n\xff\xfe\0\nrest");
    stage.drain();
    assert_eq!(stage.texts(), ["one", "two", "\u{fffd}\u{fffd}\0", "rest"]);
    assert_eq!(stage.lines()[2].bytes.as_deref(), Some("//4A"));
}

#[test]
fn a_long_line_comes_in_marked_parts_and_takes_no_memory() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let mut stage = Stage::new(LogPolicy { format, ..LogPolicy::default() });
        let text = "ä".repeat(2000);
        for _ in 0..10 {
            stage.hear(text.as_bytes());
            assert_eq!(stage.output.partial(LogStream::Stdout).len(), 0);
            assert!(stage.inside(LogStream::Stdout) <= LOG_LINE_MAX_BYTES as u64);
        }
        stage.hear(b"\nnext\n");
        let lines = stage.lines();
        let (next, parts) = lines.split_last().unwrap();
        let (last, parts) = parts.split_last().unwrap();
        assert!(parts.len() == 2 && parts.iter().all(|part| part.more && part.line.len() <= LOG_LINE_MAX_BYTES));
        assert!(!last.more && next.line == "next");
        let whole: String = lines[..3].iter().map(|line| line.line.as_str()).collect();
        assert_eq!(whole, "ä".repeat(20_000));
    }
}

#[test]
fn a_fifo_without_room_for_the_end_of_a_line_is_emptied_all_the_same() {
    let mut stage = Stage::new(LogPolicy::default());
    fcntl_setpipe_size(&stage.output.streams[0].fifo, 4096).unwrap();
    stage.hear(&[b'x'; 4096]);
    assert_eq!(stage.output.partial(LogStream::Stdout).len(), 4096);
    stage.hear(b"yz\nnext\n");
    assert_eq!(stage.texts(), ["x".repeat(4096) + "yz", "next".to_owned()]);
    // Fragments, more than a look shows.
    let mut end = stage.end(LogStream::Stdout);
    rustix::fs::fcntl_setfl(&end, OFlags::RDWR | OFlags::DIRECT).unwrap();
    fcntl_setpipe_size(&stage.output.scratch.write, 4096).unwrap();
    for byte in [b"a", b"b", b"c", b"\n"] {
        let _ = end.write(byte);
        stage.take(0);
    }
    assert_eq!(stage.texts()[2..], ["abc"]);
}

#[test]
fn of_a_flood_nothing_leaves_the_fifo_but_whole_lines() {
    let mut stage = Stage::new(LogPolicy::default());
    let mut end = stage.end(LogStream::Stdout);
    rustix::io::ioctl_fionbio(&end, true).unwrap();
    let text: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    let mut left = text.as_bytes();
    while !left.is_empty() {
        // As much as there is room for, then half of it is read by one keeper and the rest by its successor.
        while let Ok(written) = end.write(left) {
            left = &left[written..];
            if left.is_empty() {
                break;
            }
        }
        for _ in 0..3 {
            stage.output.take(LogStream::Stdout, &mut stage.buffer, Timestamp(0));
            assert!(stage.output.partial(LogStream::Stdout).is_empty());
        }
        stage.again();
    }
    stage.take(0);
    let texts = stage.texts();
    let first: usize = texts[0].parse().unwrap();
    assert_eq!(texts, (first..200_000).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn files_are_closed_at_their_size_and_there_are_so_many() {
    let policy = LogPolicy { max_size: 128 * 1024, files: 4, ..LogPolicy::default() };
    let mut stage = Stage::new(policy);
    let block = format!("{}\n", "x".repeat(1023)).repeat(32);
    for _ in 0..40 {
        stage.hear(block.as_bytes());
    }
    let sizes = |stage: &Stage| {
        let files = (0..9).filter_map(|age| std::fs::metadata(stage.dir().join(log_file(age))).ok());
        files.map(|file| file.len()).collect::<Vec<_>>()
    };
    let found = sizes(&stage);
    assert!(found.len() == 4 && found.iter().all(|size| *size > 0 && *size <= 128 * 1024), "{found:?}");
    // Fewer and other ones: what is too much goes at once, the form changes with the next line.
    let fewer = LogPolicy { files: 2, format: LogFormat::Json, ..stage.policy.clone() };
    stage.output.set_rules(Rules { policy: &fewer, release: "v1.0.0" });
    assert_eq!(sizes(&stage).len(), 2);
    stage.hear(b"in JSON\n");
    let text = std::fs::read_to_string(stage.dir().join(log_file(0))).unwrap();
    assert!(text.ends_with("\"group\":\"web.default\",\"stream\":\"stdout\",\"line\":\"in JSON\"}\n"), "{text}");
    let one = LogPolicy { files: 1, ..fewer };
    stage.output.set_rules(Rules { policy: &one, release: "v1.0.0" });
    for _ in 0..8 {
        stage.hear(block.as_bytes());
    }
    assert!(sizes(&stage).len() == 1 && sizes(&stage)[0] <= 128 * 1024);
}

#[test]
fn what_cannot_be_written_waits_and_what_is_too_much_is_counted() {
    let mut stage = Stage::new(LogPolicy::default());
    // A file in the place of the directory: nothing can be written.
    std::fs::write(stage.data.path().join("logs"), "").unwrap();
    stage.hear(b"one\ntwo\n");
    let losses = stage.output.losses();
    assert!(losses.lines == 0 && losses.trouble.contains("cannot be written"), "{losses:?}");
    std::fs::remove_file(stage.data.path().join("logs")).unwrap();
    // Not at once, since a full disk may be slow to say so.
    stage.hear(b"three\n");
    assert!(stage.output.waits() && stage.lines().is_empty());
    stage.output.try_again(Timestamp(SECOND));
    assert_eq!(stage.texts(), ["one", "two", "three"]);
    assert_eq!(stage.output.losses(), LogLosses::default());

    std::fs::rename(stage.data.path().join("logs"), stage.data.path().join("away")).unwrap();
    std::fs::write(stage.data.path().join("logs"), "").unwrap();
    stage.again();
    let line = format!("{}\n", "y".repeat(1000));
    for number in 0..200 {
        stage.hear(format!("{number} {line}").as_bytes());
    }
    let losses = stage.output.losses();
    assert!(losses.lines > 100 && losses.bytes > losses.lines * 1000, "{losses:?}");
    std::fs::remove_file(stage.data.path().join("logs")).unwrap();
    stage.output.try_again(Timestamp(SECOND));
    let texts = stage.texts();
    let wanted = format!("tagfall: {} lines ({} bytes) could not be written here and are lost", losses.lines, losses.bytes);
    assert_eq!(texts[0], wanted);
    assert_eq!(texts.len() as u64 - 1 + losses.lines, 200);
    assert!(texts[1].starts_with(&format!("{} y", losses.lines)) && texts[texts.len() - 1].starts_with("199 y"));
    assert_eq!(stage.output.losses().trouble, "");
}

/// Logs what is in the FIFO and is killed before it takes it out.
fn log_and_die(stage: &mut Stage, time: u64) {
    let Output { streams, sink, scratch } = &mut stage.output;
    let length = scratch.look(&streams[0].fifo, &mut stage.buffer).unwrap();
    let (there, mut partial) = (&stage.buffer[..length], Vec::new());
    let place = sink.file.place(Timestamp(time)).unwrap();
    scratch.mark.borrow_mut().set(&stage.group, LogStream::Stdout, place, there);
    let text = &mut scratch.text.borrow_mut();
    let mut lines = Lines::new(sink, text, LogStream::Stdout, Timestamp(time));
    lines.take(&mut partial, there, false);
    lines.write();
}

#[test]
fn a_keeper_killed_in_the_middle_of_it_logs_nothing_twice() {
    for format in [LogFormat::Text, LogFormat::Json] {
        // How much of the last line is on disk, and where rotations fall.
        for (torn, max_size) in [(0, 1 << 20), (9, 1 << 20), (0, 200)] {
            let mut stage = Stage::new(LogPolicy { format, max_size, files: 9, ..LogPolicy::default() });
            stage.hear(b"zero\n");
            stage.say(b"one\ntwo\nthree\nand no e");
            log_and_die(&mut stage, 0);
            let file = File::options().write(true).open(stage.dir().join(log_file(0))).unwrap();
            file.set_len(file.metadata().unwrap().len() - torn).unwrap();
            stage.again();
            stage.hear(b"nd\n");
            assert_eq!(stage.texts(), ["zero", "one", "two", "three", "and no end"], "{format:?} {torn} {max_size}");
        }
    }
}

#[test]
fn a_mark_of_what_was_taken_hides_nothing() {
    let mut stage = Stage::new(LogPolicy::default());
    stage.say(b"tick\n");
    log_and_die(&mut stage, 0);
    let scratch = Rc::clone(&stage.output.scratch);
    scratch.take(&stage.output.streams[0].fifo, 5);
    stage.say(b"tock\n");
    stage.again();
    stage.take(0);
    assert_eq!(stage.texts(), ["tick", "tock"]);
    // The mark is of this service only, and of this once.
    stage.say(b"tick\n");
    log_and_die(&mut stage, 0);
    let other: GroupName = "other".parse().unwrap();
    drop(open(stage.data.path(), &other, &LogPolicy::default()));
    stage.again();
    stage.take(0);
    stage.hear(b"tick\n");
    assert_eq!(stage.texts(), ["tick", "tock", "tick", "tick"]);
}

fn listener(stage: &tempfile::TempDir) -> (UnixDatagram, String) {
    let path = stage.path().join("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    (socket, path.to_str().unwrap().to_owned())
}

fn received(socket: &UnixDatagram) -> Vec<String> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    while let Ok(length) = socket.recv(&mut buffer) {
        all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    all
}

#[test]
fn journald_gets_fields_and_syslog_what_programs_send() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, path) = listener(&dir);
    let mut stage = Stage::new(LogPolicy { forward: LogForward::Journald(path.clone()), ..LogPolicy::default() });
    stage.hear(b"hello\n<4>careful\n");
    let fields = "SYSLOG_IDENTIFIER=web.default\nTAGFALL_GROUP=web.default\nTAGFALL_RELEASE=v1.0.0\nTAGFALL_STREAM=stdout\n";
    let message = |priority, line| format!("PRIORITY={priority}\n{fields}MESSAGE={line}\n");
    assert_eq!(received(&socket), [message(6, "hello"), message(4, "careful")]);
    stage.policy.forward = LogForward::Syslog(path);
    let rules = Rules { policy: &stage.policy, release: "v1.0.1" };
    assert!(stage.output.forwards_elsewhere(rules));
    stage.output.set_rules(rules);
    stage.hear(b"a\0b\n");
    stage.end(LogStream::Stderr).write_all(b"oh\n").unwrap();
    stage.drain();
    assert_eq!(received(&socket), ["<30>web.default: a#000b", "<27>web.default: oh"]);
    assert_eq!(stage.texts(), ["hello", "<4>careful", "a\0b", "oh"]);
    assert_eq!(stage.output.losses(), LogLosses::default());
}

#[test]
fn a_daemon_that_takes_nothing_holds_nobody_up_and_is_told_of_the_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, path) = listener(&dir);
    let mut stage = Stage::new(LogPolicy { forward: LogForward::Syslog(path.clone()), ..LogPolicy::default() });
    let line = "z".repeat(1000);
    for number in 0..2000 {
        stage.hear(format!("{number} {line}\n").as_bytes());
    }
    let losses = stage.output.losses();
    assert!(losses.unforwarded > 1000 && losses.trouble.contains(&path), "{losses:?}");
    assert_eq!((losses.lines, stage.texts().len()), (0, 2000));
    assert!(stage.output.blocked_on().is_some());
    let mut all = Vec::new();
    loop {
        let some = received(&socket);
        if some.is_empty() {
            break;
        }
        all.extend(some);
        stage.output.try_again(Timestamp(0));
    }
    let gap = all.pop().unwrap();
    assert!(gap.starts_with(&format!("<28>web.default: tagfall: {} lines", losses.unforwarded)), "{gap}");
    assert_eq!(all.len() as u64 + losses.unforwarded, 2000);
    assert!(all.iter().enumerate().all(|(number, text)| text.starts_with(&format!("<30>web.default: {number} z"))));
    assert!(stage.output.blocked_on().is_none() && !stage.output.waits());
    stage.hear(b"after\n");
    assert_eq!(received(&socket), ["<30>web.default: after"]);
    assert_eq!(stage.output.losses(), LogLosses { unforwarded: losses.unforwarded, ..LogLosses::default() });
}

#[test]
fn a_daemon_that_is_away_gets_what_waited_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket").to_str().unwrap().to_owned();
    let mut stage = Stage::new(LogPolicy { forward: LogForward::Syslog(path), ..LogPolicy::default() });
    stage.hear(b"one\n");
    assert!(stage.output.losses().trouble.contains("cannot be reached"));
    let (socket, _) = listener(&dir);
    stage.output.try_again(Timestamp(SECOND));
    assert_eq!(received(&socket), ["<30>web.default: one"]);
    drop(socket);
    std::fs::remove_file(dir.path().join("socket")).unwrap();
    stage.say(b"two\n");
    stage.take(2 * SECOND);
    let (socket, _) = listener(&dir);
    stage.say(b"three\n");
    stage.take(4 * SECOND);
    assert_eq!(received(&socket), ["<30>web.default: two", "<30>web.default: three"]);
    assert_eq!(stage.output.losses(), LogLosses::default());
}

#[test]
fn what_is_too_large_for_a_datagram_reaches_journald_in_a_sealed_file() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, path) = listener(&dir);
    let mut stage = Stage::new(LogPolicy { forward: LogForward::Journald(path), ..LogPolicy::default() });
    stage.hear(b"first\n");
    rustix::net::sockopt::set_socket_send_buffer_size(stage.output.forward_end().unwrap(), 4096).unwrap();
    let long = "w".repeat(16_000);
    stage.hear(format!("{long}\n").as_bytes());
    assert!(socket.recv(&mut [0; 4096]).unwrap() > 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 16];
    let got = recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let file: OwnedFd = control
        .drain()
        .find_map(|message| if let RecvAncillaryMessage::ScmRights(mut files) = message { files.next() } else { None })
        .unwrap();
    let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
    assert!(seals.contains(rustix::fs::SealFlags::WRITE | rustix::fs::SealFlags::SHRINK | rustix::fs::SealFlags::SEAL));
    let mut file = File::from(file);
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert!(got.bytes == 0 && text.ends_with(&format!("MESSAGE={long}\n")), "{} bytes", text.len());
    assert_eq!(stage.output.losses(), LogLosses::default());
}

#[test]
fn lines_with_times_of_their_own_are_kept_by_the_same_rules() {
    let data = tempfile::tempdir().unwrap();
    let group: GroupName = "web".parse().unwrap();
    let policy = LogPolicy { format: LogFormat::Json, ..LogPolicy::default() };
    let mut log = Log::new(data.path(), &group, &policy, "v1.0.0");
    log.line(LogStream::Stdout, Timestamp(1), b"one", false);
    log.set_policy(&LogPolicy::default(), "v1.0.0");
    log.line(LogStream::Stderr, Timestamp(2), b"two", true);
    assert_eq!(log.losses(), LogLosses::default());
    let text = std::fs::read_to_string(log_dir(data.path(), &group).join(log_file(0))).unwrap();
    let lines: Vec<_> = text.lines().map(|line| LogLine::parse(&group, line.as_bytes()).unwrap()).collect();
    assert_eq!((lines[0].time, lines[1].time, lines[1].more), (Timestamp(1), Timestamp(2), true));
}
