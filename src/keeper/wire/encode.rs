//! Which message and field has which number, and how what they carry is written; `spec.rs` has the largest of that.

use super::fields::{FieldError, Fields, Writer};
use super::spec::{
    read_launch, read_policy, read_publication, read_spec, read_view, write_launch, write_policy, write_publication, write_spec,
    write_view,
};
use super::{Command, ExecOutcome, Hello, Message, Request};
use crate::model::{Digest, Exit, GroupName, LogLosses, MountMode, ServiceReport, ServiceState, Signal, Timestamp};

/// A packet that cannot be read: with its attempt number, where that could be, so that it can be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a packet of kind {kind} cannot be read: {why}")]
pub struct Undecodable {
    /// Kind of the message; 0 where there was none.
    pub kind: u16,
    /// The attempt number; 0 where there was none.
    pub attempt: u64,
    why: String,
}

/// The tag that carries the attempt number in every request and reply.
const ATTEMPT: u16 = 1;

const RUN: u16 = 1;
const AMEND: u16 = 2;
const STOP: u16 = 3;
const RESTART: u16 = 4;
const SIGNAL: u16 = 5;
const RELOAD: u16 = 6;
const MARK_READY: u16 = 7;
const FORGET: u16 = 8;
const EXEC: u16 = 9;
const FINISHED: u16 = 10;
const LINK: u16 = 21;
const UNLINK: u16 = 22;
const READERS: u16 = 23;
const RECLAIM: u16 = 24;
const SERVING: u16 = 11;

const HELLO: u16 = 101;
const REPORT: u16 = 102;
const GONE: u16 = 103;
const SNAPSHOT_END: u16 = 104;
const REPLY: u16 = 105;
const EXEC_DONE: u16 = 106;
const SHUTDOWN: u16 = 107;

/// Writes a request.
pub fn encode_request(attempt: u64, request: &Request) -> Vec<u8> {
    let begin = |kind| {
        let mut writer = Writer::message(kind);
        writer.u64(ATTEMPT, attempt);
        writer
    };
    let named = |kind, group: &GroupName| {
        let mut writer = begin(kind);
        writer.text(2, &group.to_string());
        writer
    };
    let named_with = |kind, group: &GroupName, text: &str| {
        let mut writer = named(kind, group);
        writer.text(3, text);
        writer
    };
    let writer = match request {
        Request::Run(spec) => {
            let mut writer = begin(RUN);
            writer.record(2, |inner| write_spec(inner, spec));
            writer
        }
        Request::Amend { group, revision, release, policy } => {
            let mut writer = named(AMEND, group);
            writer.bytes(3, revision.as_bytes()).text(4, release).record(5, |inner| write_policy(inner, policy));
            writer
        }
        Request::Stop { group } => named(STOP, group),
        Request::Restart { group } => named(RESTART, group),
        Request::Signal { group, signal } => {
            let mut writer = named(SIGNAL, group);
            writer.i32(3, signal.0);
            writer
        }
        Request::Reload { group, view, signal } => {
            let mut writer = named(RELOAD, group);
            writer.record(3, |inner| write_view(inner, view));
            if let Some(signal) = signal {
                writer.i32(4, signal.0);
            }
            writer
        }
        Request::MarkReady { group, incarnation } => {
            let mut writer = named(MARK_READY, group);
            writer.u64(3, *incarnation);
            writer
        }
        Request::Forget { group } => named(FORGET, group),
        Request::Exec(command) => {
            let mut writer = begin(EXEC);
            write_command(&mut writer, command);
            writer
        }
        Request::Serving => begin(SERVING),
        Request::Finished => begin(FINISHED),
        Request::Link { group, path } => named_with(LINK, group, path),
        Request::Unlink { group, path } => named_with(UNLINK, group, path),
        Request::Readers { group, user } => named_with(READERS, group, user),
        Request::Reclaim { group } => named(RECLAIM, group),
    };
    writer.finish()
}

/// Reads a request with its attempt number.
pub fn decode_request(packet: &[u8]) -> Result<(u64, Request), Undecodable> {
    let (kind, fields) = open(packet)?;
    let attempt = fields.u64(ATTEMPT).unwrap_or(0);
    let fail = |error: FieldError| Undecodable { kind, attempt, why: error.to_string() };
    let request = match kind {
        RUN => fields.record(2).and_then(read_spec).map(|spec| Request::Run(Box::new(spec))),
        AMEND => read_amend(fields),
        STOP => fields.parsed(2).map(|group| Request::Stop { group }),
        RESTART => fields.parsed(2).map(|group| Request::Restart { group }),
        SIGNAL => read_signal(fields),
        RELOAD => read_reload(fields),
        MARK_READY => fields.parsed(2).and_then(|group| Ok(Request::MarkReady { group, incarnation: fields.u64(3)? })),
        FORGET => fields.parsed(2).map(|group| Request::Forget { group }),
        EXEC => read_command(fields).map(|command| Request::Exec(Box::new(command))),
        SERVING => Ok(Request::Serving),
        FINISHED => Ok(Request::Finished),
        LINK => read_named(fields).map(|(group, path)| Request::Link { group, path }),
        UNLINK => read_named(fields).map(|(group, path)| Request::Unlink { group, path }),
        READERS => read_named(fields).map(|(group, user)| Request::Readers { group, user }),
        RECLAIM => fields.parsed(2).map(|group| Request::Reclaim { group }),
        _ => {
            let why = "no such request is known here; update the keeper by a restart of it".to_owned();
            return Err(Undecodable { kind, attempt, why });
        }
    };
    Ok((attempt, request.map_err(fail)?))
}

/// Writes a message of the keeper.
pub fn encode_message(message: &Message) -> Vec<u8> {
    let writer = match message {
        Message::Hello(hello) => {
            let mut writer = Writer::message(HELLO);
            writer.u64(2, hello.version).u64(3, u64::from(hello.keeper_pid)).text(4, &hello.boot_id);
            if let Err(why) = &hello.namespaces {
                writer.text(5, why);
            }
            if let Some(user) = &hello.supervisor_user {
                writer.text(6, user);
            }
            for lack in &hello.lacks {
                writer.text(7, lack);
            }
            writer.u64(8, hello.minor);
            writer
        }
        Message::Report(report) => {
            let mut writer = Writer::message(REPORT);
            write_report(&mut writer, report);
            writer
        }
        Message::Gone(group) => {
            let mut writer = Writer::message(GONE);
            writer.text(2, &group.to_string());
            writer
        }
        Message::SnapshotEnd => Writer::message(SNAPSHOT_END),
        Message::Reply { attempt, result } => {
            let mut writer = Writer::message(REPLY);
            writer.u64(ATTEMPT, *attempt);
            if let Err(why) = result {
                writer.text(2, why);
            }
            writer
        }
        Message::ExecDone { attempt, outcome } => {
            let mut writer = Writer::message(EXEC_DONE);
            writer.u64(ATTEMPT, *attempt).record(2, |inner| write_exit(inner, outcome.exit)).text(3, &outcome.output);
            writer.u64(4, u64::from(outcome.timed_out));
            writer
        }
        Message::Shutdown => Writer::message(SHUTDOWN),
    };
    writer.finish()
}

/// Reads a message of the keeper.
pub fn decode_message(packet: &[u8]) -> Result<Message, Undecodable> {
    let (kind, fields) = open(packet)?;
    let attempt = fields.u64(ATTEMPT).unwrap_or(0);
    let message = match kind {
        HELLO => read_hello(fields).map(Message::Hello),
        REPORT => read_report(fields).map(|report| Message::Report(Box::new(report))),
        GONE => fields.parsed(2).map(Message::Gone),
        SNAPSHOT_END => Ok(Message::SnapshotEnd),
        REPLY => {
            let why = fields.optional(2, Fields::text);
            why.map(|why| Message::Reply { attempt, result: why.map_or(Ok(()), Err) })
        }
        EXEC_DONE => read_outcome(fields).map(|outcome| Message::ExecDone { attempt, outcome }),
        SHUTDOWN => Ok(Message::Shutdown),
        _ => return Err(Undecodable { kind, attempt, why: "no such message is known here".to_owned() }),
    };
    message.map_err(|error| Undecodable { kind, attempt, why: error.to_string() })
}

fn open(packet: &[u8]) -> Result<(u16, Fields<'_>), Undecodable> {
    let Some((kind, rest)) = packet.split_first_chunk::<2>() else {
        return Err(Undecodable { kind: 0, attempt: 0, why: "it is empty".to_owned() });
    };
    let kind = u16::from_le_bytes(*kind);
    let fields = Fields::parse(rest).map_err(|error| Undecodable { kind, attempt: 0, why: error.to_string() })?;
    Ok((kind, fields))
}

fn read_amend(fields: Fields<'_>) -> Result<Request, FieldError> {
    Ok(Request::Amend {
        group: fields.parsed(2)?,
        revision: read_digest(fields, 3)?,
        release: fields.text(4)?,
        policy: read_policy(fields.record(5)?)?,
    })
}

fn read_signal(fields: Fields<'_>) -> Result<Request, FieldError> {
    Ok(Request::Signal { group: fields.parsed(2)?, signal: Signal(fields.i32(3)?) })
}

fn read_named(fields: Fields<'_>) -> Result<(GroupName, String), FieldError> {
    Ok((fields.parsed(2)?, fields.text(3)?))
}

fn read_reload(fields: Fields<'_>) -> Result<Request, FieldError> {
    let signal = fields.optional(4, Fields::i32)?.map(Signal);
    Ok(Request::Reload { group: fields.parsed(2)?, view: read_view(fields.record(3)?)?, signal })
}

fn read_hello(fields: Fields<'_>) -> Result<Hello, FieldError> {
    Ok(Hello {
        version: fields.u64(2)?,
        keeper_pid: narrow(fields, 3)?,
        boot_id: fields.text(4)?,
        namespaces: fields.optional(5, Fields::text)?.map_or(Ok(()), Err),
        supervisor_user: fields.optional(6, Fields::text)?,
        lacks: fields.texts(7)?,
        minor: fields.optional(8, Fields::u64)?.unwrap_or(0),
    })
}

pub(super) fn write_pairs(writer: &mut Writer, tag: u16, pairs: &[(String, String)]) {
    for (key, value) in pairs {
        writer.record(tag, |inner| {
            inner.text(1, key).text(2, value);
        });
    }
}

pub(super) fn read_pairs(fields: Fields<'_>, tag: u16) -> Result<Vec<(String, String)>, FieldError> {
    let read = |value| {
        let pair = Fields::parse(value)?;
        Ok((pair.text(1)?, pair.text(2)?))
    };
    fields.list(tag).map(read).collect()
}

fn write_command(writer: &mut Writer, command: &Command) {
    if let Some(group) = &command.group {
        writer.text(2, &group.to_string());
    }
    if let Some(user) = &command.user {
        writer.text(3, user);
    }
    for argument in &command.argv {
        writer.text(4, argument);
    }
    write_pairs(writer, 5, &command.env);
    if let Some(cwd) = &command.cwd {
        writer.text(6, cwd);
    }
    writer.duration(7, command.timeout);
    if let Some(launch) = &command.launch {
        writer.record(8, |inner| write_launch(inner, launch));
    }
}

fn read_command(fields: Fields<'_>) -> Result<Command, FieldError> {
    Ok(Command {
        group: fields.optional(2, Fields::parsed)?,
        user: fields.optional(3, Fields::text)?,
        argv: fields.texts(4)?,
        env: read_pairs(fields, 5)?,
        cwd: fields.optional(6, Fields::text)?,
        timeout: fields.duration(7)?,
        launch: fields.optional(8, |fields, tag| read_launch(fields.record(tag)?))?,
    })
}

fn read_outcome(fields: Fields<'_>) -> Result<ExecOutcome, FieldError> {
    let exit = read_exit(fields.record(2)?)?;
    Ok(ExecOutcome { exit, output: fields.text(3)?, timed_out: fields.u64(4)? != 0 })
}

pub(in crate::keeper) fn read_digest(fields: Fields<'_>, tag: u16) -> Result<Digest, FieldError> {
    fields.array(tag).map(Digest::from_bytes)
}

pub(super) fn narrow(fields: Fields<'_>, tag: u16) -> Result<u32, FieldError> {
    u32::try_from(fields.u64(tag)?).map_err(|_| FieldError::Invalid(tag))
}

pub(in crate::keeper) fn write_exit(writer: &mut Writer, exit: Exit) {
    match exit {
        Exit::Code(code) => writer.i32(1, code),
        Exit::Signal(signal) => writer.i32(2, signal.0),
        // Who does not know the third takes it for what it also is.
        Exit::OutOfMemory { limit } => writer.i32(2, Signal::KILL.0).u64(3, limit.unwrap_or(0)),
        Exit::Unknown => writer,
    };
}

pub(in crate::keeper) fn read_exit(fields: Fields<'_>) -> Result<Exit, FieldError> {
    if let Some(code) = fields.optional(1, Fields::i32)? {
        return Ok(Exit::Code(code));
    }
    if let Some(limit) = fields.optional(3, Fields::u64)? {
        return Ok(Exit::OutOfMemory { limit: Some(limit).filter(|limit| *limit > 0) });
    }
    Ok(fields.optional(2, Fields::i32)?.map_or(Exit::Unknown, |signal| Exit::Signal(Signal(signal))))
}

/// States by their number on the wire, which is their place here: only ever append.
const STATES: [ServiceState; 11] = [
    ServiceState::Waiting,
    ServiceState::Starting,
    ServiceState::Running,
    ServiceState::Reloading,
    ServiceState::Stopping,
    ServiceState::Stopped,
    ServiceState::Backoff,
    ServiceState::Done,
    ServiceState::Failed,
    ServiceState::Stuck,
    ServiceState::Unknown,
];

fn write_report(writer: &mut Writer, report: &ServiceReport) {
    let state = STATES.iter().position(|state| *state == report.state).unwrap_or(STATES.len() - 1);
    writer.text(2, &report.group.to_string()).u64(3, state as u64);
    writer.u64(5, report.incarnation).u64(6, report.restarts).u64(7, report.since.0);
    writer.bytes(9, report.launch.as_bytes()).bytes(11, report.revision.as_bytes());
    writer.record(10, |inner| write_policy(inner, &report.policy));
    writer.u64(13, u64::from(report.mount_mode == MountMode::Namespace)).text(15, &report.message);
    if let Some(pid) = report.pid {
        writer.u64(4, u64::from(pid));
    }
    if let Some(next_try) = report.next_try {
        writer.u64(8, next_try.0);
    }
    if let Some(publication) = report.publication {
        writer.record(12, |inner| write_publication(inner, publication));
    }
    if let Some(exit) = report.last_exit {
        writer.record(14, |inner| write_exit(inner, exit));
    }
    if let Some(extended) = report.start_extended {
        writer.duration(16, extended);
    }
    let lost = &report.logs;
    if *lost != LogLosses::default() {
        writer.record(17, |inner| {
            inner.u64(1, lost.lines).u64(2, lost.bytes).u64(3, lost.unforwarded).text(4, &lost.trouble);
        });
    }
}

fn read_report(fields: Fields<'_>) -> Result<ServiceReport, FieldError> {
    let state = usize::try_from(fields.u64(3)?).ok().and_then(|at| STATES.get(at));
    Ok(ServiceReport {
        group: fields.parsed(2)?,
        state: *state.ok_or(FieldError::Invalid(3))?,
        pid: fields.optional(4, narrow)?,
        incarnation: fields.u64(5)?,
        restarts: fields.u64(6)?,
        since: Timestamp(fields.u64(7)?),
        next_try: fields.optional(8, Fields::u64)?.map(Timestamp),
        launch: read_digest(fields, 9)?,
        policy: read_policy(fields.record(10)?)?,
        revision: read_digest(fields, 11)?,
        publication: fields.optional(12, |fields, tag| read_publication(fields.record(tag)?))?,
        mount_mode: if fields.u64(13)? == 1 { MountMode::Namespace } else { MountMode::Symlink },
        last_exit: fields.optional(14, |fields, tag| read_exit(fields.record(tag)?))?,
        message: fields.text(15)?,
        start_extended: fields.optional(16, Fields::duration)?,
        logs: fields.optional(17, |fields, tag| read_losses(fields.record(tag)?))?.unwrap_or_default(),
    })
}

fn read_losses(fields: Fields<'_>) -> Result<LogLosses, FieldError> {
    Ok(LogLosses { lines: fields.u64(1)?, bytes: fields.u64(2)?, unforwarded: fields.u64(3)?, trouble: fields.text(4)? })
}
