//! What comes over the socket that no supervisor of this version would send, and one that reads nothing: none of it reaches a
//! service.

use tagfall::keeper::wire::{Message, PACKET_MAX_BYTES, Request, decode_request, encode_request};
use tagfall::model::{Ready, ServiceSpec, ServiceState};

use crate::stage::{Stage, alive, shell, signal, wait_until};

const KILL: rustix::process::Signal = rustix::process::Signal::KILL;

/// Packets of numbers that look random.
const GARBAGE: u64 = 500;

/// Printed with a failure: the same seed gives the same packets.
const SEED: u64 = 20_261_121;

/// By how much the keeper's memory may grow while nobody reads what it says, in kB.
const GROWTH_MAX_KB: u64 = 2 * 1024;

/// Services that end again and again while nobody reads.
const RESTLESS: usize = 20;

fn steady(stage: &mut Stage, name: &str) -> ServiceSpec {
    let spec = shell(name, "exec sleep 1000");
    stage.run(&spec);
    stage.wait_state(&spec.group, ServiceState::Running);
    spec
}

fn unchanged(stage: &mut Stage, spec: &ServiceSpec) {
    let before = stage.reports[&spec.group].clone();
    // Answered after all that was sent before.
    stage.run(spec);
    assert_eq!(stage.reports[&spec.group], before);
    assert!(alive(before.pid.unwrap()));
}

#[test]
fn garbage_is_answered_and_changes_nothing() {
    let mut stage = Stage::new();
    let spec = steady(&mut stage, "among-garbage");
    let mut state = SEED;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    for number in 0..GARBAGE {
        let mut packet: Vec<u8> = (0..1 + next() % 400).map(|_| (next() & 255) as u8).collect();
        // Every other one looks like a request at its beginning.
        if number % 2 == 0 && packet.len() > 2 {
            (packet[0], packet[1]) = ((next() % 12) as u8, 0);
        }
        // What means something is tried elsewhere.
        if decode_request(&packet).is_ok() {
            continue;
        }
        stage.send_raw(&packet);
        stage
            .next_where("an answer to garbage", |message| matches!(message, Message::Reply { result: Err(_), .. }).then_some(()));
    }
    unchanged(&mut stage, &spec);
}

#[test]
fn a_request_that_is_cut_off_does_nothing() {
    let mut stage = Stage::new();
    let spec = steady(&mut stage, "cut-off");
    let other = ServiceSpec { launch: shell("other", "exec sleep 2000").launch, ..spec.clone() };
    for request in [Request::Stop { group: spec.group.clone() }, Request::Run(Box::new(other))] {
        let packet = encode_request(7, &request);
        for length in (1..packet.len()).step_by(1 + packet.len() / 100) {
            stage.send_raw(&packet[..length]);
            let refused = stage.next_where("an answer", |message| {
                if let Message::Reply { result, .. } = message { Some(result.is_err()) } else { None }
            });
            assert!(refused, "cut at {length} of {} it was taken", packet.len());
        }
    }
    unchanged(&mut stage, &spec);
}

#[test]
fn a_packet_that_is_too_large_is_refused_by_its_size() {
    let mut stage = Stage::new();
    let spec = steady(&mut stage, "too-large");
    let mut large = shell("large", "exec sleep 1000");
    large.launch.env = vec![("LARGE".to_owned(), "x".repeat(PACKET_MAX_BYTES))];
    rustix::net::sockopt::set_socket_send_buffer_size(stage.socket(), 4 * PACKET_MAX_BYTES).unwrap();
    stage.send_raw(&encode_request(9, &Request::Run(Box::new(large.clone()))));
    let why = stage.reply_to(0).unwrap_err();
    assert!(why.contains("larger than"), "{why}");
    assert!(!stage.reports.contains_key(&large.group));
    unchanged(&mut stage, &spec);
}

/// A field: tag, and value.
type Field = (u16, Vec<u8>);

/// Fields of a record.
fn fields(mut bytes: &[u8]) -> Vec<Field> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<6>() {
        let length = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
        found.push((u16::from_le_bytes([head[0], head[1]]), rest[..length].to_vec()));
        bytes = &rest[length..];
    }
    found
}

fn bytes_of(fields: &[Field]) -> Vec<u8> {
    let length = |value: &[u8]| u32::try_from(value.len()).unwrap().to_le_bytes();
    fields.iter().flat_map(|(tag, value)| [&tag.to_le_bytes()[..], &length(value), value].concat()).collect()
}

/// What is done to fields.
type Change = dyn Fn(&mut Vec<Field>);

/// Changes the fields of the record at this path of tags.
fn change(record: &[u8], path: &[u16], how: &Change) -> Vec<u8> {
    let mut found = fields(record);
    match path.split_first() {
        None => how(&mut found),
        Some((tag, rest)) => {
            let inner = found.iter_mut().find(|(at, _)| at == tag).unwrap();
            inner.1 = change(&inner.1, rest, how);
        }
    }
    bytes_of(&found)
}

#[test]
fn a_newer_supervisors_fields_are_skipped_and_an_older_ones_missing_ones_have_a_meaning() {
    let mut stage = Stage::new();
    let mut spec = shell("versions", "exec sleep 1000");
    spec.policy.watchdog = None;
    spec.policy.ready = Ready::Health;
    let packet = encode_request(5, &Request::Run(Box::new(spec.clone())));
    let (kind, body) = packet.split_at(2);
    // In the request, the spec, the launch and the policy.
    let newer = [&[][..], &[2], &[2, 4], &[2, 5]].iter().fold(body.to_vec(), |body, path| {
        change(&body, path, &|fields| fields.insert(0, (60_000, b"what this version does not know".to_vec())))
    });
    stage.send_raw(&[kind, &newer].concat());
    stage.reply_to(5).unwrap();
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    assert_eq!((report.launch, report.policy.ready), (spec.launch.digest(), Ready::Health));
    // Before anything could say itself when it is ready: a start was enough.
    let older = change(body, &[2, 5], &|fields| fields.retain(|(tag, _)| *tag != 8));
    stage.send_raw(&[kind, &older].concat());
    stage.reply_to(5).unwrap();
    let report = stage.wait_for(&spec.group, |report| report.policy.ready == Ready::Started);
    assert_eq!((report.state, report.incarnation), (ServiceState::Running, 1));
    // What cannot be done without is asked for by its number.
    let broken = change(body, &[2], &|fields| fields.retain(|(tag, _)| *tag != 4));
    stage.send_raw(&[kind, &broken].concat());
    assert!(stage.reply_to(5).unwrap_err().contains("field 4 is missing"));
}

fn memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn of_what_nobody_reads_the_newest_is_kept_and_no_more() {
    let mut stage = Stage::new();
    let specs: Vec<_> = (0..RESTLESS)
        .map(|number| {
            let mut spec = shell(&format!("restless-{number}"), "exec sleep 1000");
            let short = std::time::Duration::from_millis(20);
            (spec.policy.backoff.min, spec.policy.backoff.max) = (short, short);
            spec
        })
        .collect();
    for spec in &specs {
        stage.run(spec);
        stage.wait_state(&spec.group, ServiceState::Running);
    }
    let keeper = stage.keeper.id();
    let before = memory_kb(keeper);
    let pid_of = |group: &tagfall::model::GroupName| {
        let mark = format!("TAGFALL_GROUP={group}");
        let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut marked = pids.filter(|pid: &u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        });
        marked.find(|pid| alive(*pid))
    };
    // Each ends several times, and nobody reads a word of it.
    for spec in &specs {
        for _ in 0..5 {
            let pid = wait_until("it runs", || pid_of(&spec.group));
            signal(pid, KILL);
            wait_until("it is gone", || (!alive(pid)).then_some(()));
        }
    }
    let grown = memory_kb(keeper).saturating_sub(before);
    assert!(grown < GROWTH_MAX_KB, "the keeper has grown by {grown} kB");
    for spec in &specs {
        let report = stage.wait_for(&spec.group, |report| report.restarts == 5 && report.state == ServiceState::Running);
        assert_eq!(report.incarnation, 6);
    }
}
