//! What is written reads back; what is not a message is refused.

use super::*;
use crate::model::{
    Backoff, Hardening, Launch, Limits, LogFormat, LogLosses, LogPolicy, MountMode, PublicationId, Ready, ServiceKind,
    ServiceState, Timestamp,
};
use proptest::prelude::*;

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

fn group() -> impl Strategy<Value = GroupName> {
    "[a-z][a-z0-9-]{0,8}\\.[a-z]{1,8}".prop_map(|name| name.parse().unwrap())
}

fn duration() -> impl Strategy<Value = Duration> {
    (0..u64::from(u32::MAX)).prop_map(Duration::from_micros)
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(".*", 0..4)
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec((".*", ".*"), 0..4)
}

fn policy() -> impl Strategy<Value = Policy> {
    let ready = prop::sample::select(vec![Ready::Started, Ready::Health, Ready::Notify, Ready::Fd]);
    let timing = (duration(), duration(), duration(), duration(), prop::option::of(duration()));
    (any::<bool>(), any::<i32>(), timing, any::<(bool, bool)>(), ready, logs()).prop_map(
        |(
            task,
            signal,
            (stop_timeout, min, max, reset_after, watchdog),
            (ready_when_started, starts_when_asked),
            ready,
            logs,
        )| Policy {
            kind: if task { ServiceKind::Task } else { ServiceKind::Daemon },
            stop_signal: Signal(signal),
            stop_timeout,
            backoff: Backoff { min, max, reset_after },
            ready_when_started,
            ready,
            watchdog,
            logs,
            starts_when_asked,
        },
    )
}

fn logs() -> impl Strategy<Value = LogPolicy> {
    let forward = prop::sample::select(vec!["none", "journald", "syslog:/run/a b"]);
    (any::<u64>(), any::<u32>(), any::<bool>(), forward).prop_map(|(max_size, files, json, forward)| LogPolicy {
        max_size,
        files,
        format: if json { LogFormat::Json } else { LogFormat::Text },
        forward: forward.parse().unwrap(),
    })
}

fn losses() -> impl Strategy<Value = LogLosses> {
    let counts = (any::<u64>(), any::<u64>(), any::<u64>(), ".*");
    counts.prop_map(|(lines, bytes, unforwarded, trouble)| LogLosses { lines, bytes, unforwarded, trouble })
}

fn publication() -> impl Strategy<Value = PublicationId> {
    (digest(), any::<u32>()).prop_map(|(content, copy)| PublicationId { content, copy })
}

fn view() -> impl Strategy<Value = View> {
    (publication(), ".*", ".*").prop_map(|(publication, source, point)| View { publication, source, point })
}

fn launch() -> impl Strategy<Value = Launch> {
    let limits = (any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u64>>(), prop::option::of(0.0..100.0f64));
    let limits = limits.prop_map(|(memory, pids, open_files, cpu)| Limits { memory, pids, open_files, cpu });
    let hardening = prop::option::of(prop::sample::select(vec![Hardening::None, Hardening::Default, Hardening::Strict]));
    (texts(), pairs(), prop::option::of(".*"), ".*", limits, texts(), hardening).prop_map(
        |(argv, env, user, working_dir, limits, listen, hardening)| Launch {
            argv,
            env,
            user,
            working_dir,
            limits,
            listen,
            hardening,
            container: None,
        },
    )
}

fn spec() -> impl Strategy<Value = ServiceSpec> {
    (group(), digest(), ".*", launch(), policy(), prop::option::of(view())).prop_map(
        |(group, revision, release, launch, policy, view)| ServiceSpec { group, revision, release, launch, policy, view },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let command = (
        prop::option::of(group()),
        prop::option::of(".*"),
        texts(),
        pairs(),
        prop::option::of(".*"),
        duration(),
        prop::option::of(launch()),
    );
    prop_oneof![
        spec().prop_map(|spec| Request::Run(Box::new(spec))),
        (group(), digest(), ".*", policy()).prop_map(|(group, revision, release, policy)| Request::Amend {
            group,
            revision,
            release,
            policy
        }),
        group().prop_map(|group| Request::Stop { group }),
        group().prop_map(|group| Request::Restart { group }),
        (group(), ".*").prop_map(|(group, path)| Request::Link { group, path }),
        (group(), ".*").prop_map(|(group, path)| Request::Unlink { group, path }),
        (group(), ".*").prop_map(|(group, user)| Request::Readers { group, user }),
        group().prop_map(|group| Request::Reclaim { group }),
        (group(), any::<i32>()).prop_map(|(group, signal)| Request::Signal { group, signal: Signal(signal) }),
        (group(), view(), any::<Option<i32>>()).prop_map(|(group, view, signal)| Request::Reload {
            group,
            view,
            signal: signal.map(Signal)
        }),
        (group(), any::<u64>()).prop_map(|(group, incarnation)| Request::MarkReady { group, incarnation }),
        group().prop_map(|group| Request::Forget { group }),
        command.prop_map(|(group, user, argv, env, cwd, timeout, launch)| Request::Exec(Box::new(Command {
            group,
            launch,
            user,
            argv,
            env,
            cwd,
            timeout
        }))),
        Just(Request::Serving),
        Just(Request::Finished),
    ]
}

fn exit() -> impl Strategy<Value = Exit> {
    prop_oneof![
        any::<i32>().prop_map(Exit::Code),
        any::<i32>().prop_map(|signal| Exit::Signal(Signal(signal))),
        proptest::option::of(1u64..).prop_map(|limit| Exit::OutOfMemory { limit }),
        Just(Exit::Unknown)
    ]
}

fn report() -> impl Strategy<Value = ServiceReport> {
    let state = prop::sample::select(vec![ServiceState::Waiting, ServiceState::Running, ServiceState::Unknown]);
    let first = (group(), state, any::<Option<u32>>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<Option<u64>>());
    let second = (digest(), policy(), digest(), prop::option::of(publication()), any::<bool>(), prop::option::of(exit()), ".*");
    let second = (second, prop::option::of(duration()), losses());
    (first, second).prop_map(|(first, (second, start_extended, logs))| ServiceReport {
        group: first.0,
        state: first.1,
        pid: first.2,
        incarnation: first.3,
        restarts: first.4,
        since: Timestamp(first.5),
        next_try: first.6.map(Timestamp),
        launch: second.0,
        policy: second.1,
        revision: second.2,
        publication: second.3,
        mount_mode: if second.4 { MountMode::Namespace } else { MountMode::Symlink },
        last_exit: second.5,
        message: second.6,
        start_extended,
        logs,
    })
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<[u64; 2]>(), any::<u32>(), ".*", prop::option::of(".*")).prop_map(
            |([version, minor], keeper_pid, boot_id, why)| {
                let (supervisor_user, lacks) = (why.clone(), why.iter().cloned().collect());
                let namespaces = why.map_or(Ok(()), Err);
                Message::Hello(Hello { version, minor, keeper_pid, boot_id, namespaces, supervisor_user, lacks })
            }
        ),
        report().prop_map(|report| Message::Report(Box::new(report))),
        group().prop_map(Message::Gone),
        Just(Message::SnapshotEnd),
        (any::<u64>(), prop::option::of(".*"))
            .prop_map(|(attempt, why)| Message::Reply { attempt, result: why.map_or(Ok(()), Err) }),
        (any::<u64>(), exit(), ".*", any::<bool>()).prop_map(|(attempt, exit, output, timed_out)| Message::ExecDone {
            attempt,
            outcome: ExecOutcome { exit, output, timed_out }
        }),
        Just(Message::Shutdown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_read_back_what_was_written(attempt in any::<u64>(), request in request()) {
        prop_assert_eq!(decode_request(&encode_request(attempt, &request)).unwrap(), (attempt, request));
    }

    #[test]
    fn messages_read_back_what_was_written(message in message()) {
        prop_assert_eq!(decode_message(&encode_message(&message)).unwrap(), message);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode_request(&bytes);
        let _ = decode_message(&bytes);
    }

    #[test]
    fn damaged_packets_never_panic(request in request(), at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<bool>()) {
        let mut packet = encode_request(7, &request);
        let at = at.index(packet.len());
        packet[at] ^= 1 << bit;
        if cut {
            packet.truncate(at);
        }
        let _ = decode_request(&packet);
    }

    #[test]
    fn damaged_messages_never_panic(message in message(), at in any::<prop::sample::Index>(), bit in 0..8u8, cut in any::<bool>()) {
        let mut packet = encode_message(&message);
        let at = at.index(packet.len());
        packet[at] ^= 1 << bit;
        if cut {
            packet.truncate(at);
        }
        if let Ok(message) = decode_message(&packet) {
            // What is taken in spite of it means the same when it is passed on.
            prop_assert_eq!(decode_message(&encode_message(&message)).unwrap(), message);
        }
    }

    #[test]
    fn what_a_newer_keeper_adds_is_skipped(message in message(), tag in 1_000u16.., extra in any::<Vec<u8>>()) {
        let mut packet = encode_message(&message);
        let mut newer = fields::Writer::default();
        newer.bytes(tag, &extra);
        packet.extend(newer.finish());
        prop_assert_eq!(decode_message(&packet).unwrap(), message);
    }
}

#[test]
fn fields_and_kinds_of_a_newer_peer_are_skipped_or_answered() {
    let group: GroupName = "web".parse().unwrap();
    let mut packet = encode_request(9, &Request::Stop { group: group.clone() });
    let mut newer = fields::Writer::default();
    newer.text(999, "what this version does not know");
    packet.extend(newer.finish());
    assert_eq!(decode_request(&packet).unwrap(), (9, Request::Stop { group }));

    let mut unknown = fields::Writer::message(77);
    unknown.u64(1, 12);
    let error = decode_request(&unknown.finish()).unwrap_err();
    assert_eq!((error.kind, error.attempt), (77, 12));
}

/// What a peer sends or takes that has never heard of log policies: without the field, and without a minor version.
fn without(packet: &[u8], path: &[u16]) -> Vec<u8> {
    fn strip(mut rest: &[u8], path: &[u16], out: &mut Vec<u8>) {
        while !rest.is_empty() {
            let (tag, length) =
                (u16::from_le_bytes([rest[0], rest[1]]), u32::from_le_bytes(rest[2..6].try_into().unwrap()) as usize);
            let value = &rest[6..6 + length];
            rest = &rest[6 + length..];
            let inner = match path {
                [only] if *only == tag => continue,
                [first, below @ ..] if *first == tag => {
                    let mut inner = Vec::new();
                    strip(value, below, &mut inner);
                    inner
                }
                _ => value.to_vec(),
            };
            out.extend(tag.to_le_bytes());
            out.extend(u32::try_from(inner.len()).unwrap().to_le_bytes());
            out.extend(inner);
        }
    }
    let mut out = packet[..2].to_vec();
    strip(&packet[2..], path, &mut out);
    out
}

#[test]
fn an_older_peer_has_no_rules_for_logs_and_starts_without_being_asked() {
    let hello = Hello {
        version: 1,
        minor: 9,
        keeper_pid: 1,
        boot_id: String::new(),
        namespaces: Ok(()),
        supervisor_user: None,
        lacks: Vec::new(),
    };
    let packet = without(&encode_message(&Message::Hello(hello.clone())), &[8]);
    assert_eq!(decode_message(&packet).unwrap(), Message::Hello(Hello { minor: 0, ..hello }));
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) }, |(report in report())| {
        let packet = encode_message(&Message::Report(Box::new(report.clone())));
        let packet = without(&without(&without(&packet, &[10, 10]), &[10, 11]), &[17]);
        let policy = report.policy.clone().known_by(0);
        let older = ServiceReport { policy, logs: LogLosses::default(), ..report };
        prop_assert_eq!(decode_message(&packet).unwrap(), Message::Report(Box::new(older)));
    });
}
