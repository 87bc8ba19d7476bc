//! A service's spec as bytes and back: launch, policy, view.

use super::encode::{narrow, read_digest, read_pairs, write_pairs};
use super::fields::{FieldError, Fields, Writer};
use crate::model::{
    Backoff, Hardening, Launch, Limits, LogFormat, LogPolicy, Policy, PublicationId, Ready, ServiceKind, ServiceSpec, Signal,
    View,
};

pub(in crate::keeper) fn write_spec(writer: &mut Writer, spec: &ServiceSpec) {
    writer.text(1, &spec.group.to_string()).bytes(2, spec.revision.as_bytes()).text(3, &spec.release);
    writer.record(4, |inner| write_launch(inner, &spec.launch)).record(5, |inner| write_policy(inner, &spec.policy));
    if let Some(view) = &spec.view {
        writer.record(6, |inner| write_view(inner, view));
    }
}

pub(in crate::keeper) fn read_spec(fields: Fields<'_>) -> Result<ServiceSpec, FieldError> {
    Ok(ServiceSpec {
        group: fields.parsed(1)?,
        revision: read_digest(fields, 2)?,
        release: fields.text(3)?,
        launch: read_launch(fields.record(4)?)?,
        policy: read_policy(fields.record(5)?)?,
        view: fields.optional(6, |fields, tag| read_view(fields.record(tag)?))?,
    })
}

pub(super) fn write_launch(writer: &mut Writer, launch: &Launch) {
    for argument in &launch.argv {
        writer.text(1, argument);
    }
    write_pairs(writer, 2, &launch.env);
    if let Some(user) = &launch.user {
        writer.text(3, user);
    }
    writer.text(4, &launch.working_dir);
    let limits = launch.limits;
    let cpu = limits.cpu.map(f64::to_bits);
    for (tag, limit) in [(5, limits.memory), (6, limits.pids), (7, limits.open_files), (8, cpu)] {
        if let Some(limit) = limit {
            writer.u64(tag, limit);
        }
    }
    for socket in &launch.listen {
        writer.text(9, socket);
    }
    if let Some(hardening) = launch.hardening {
        let number = match hardening {
            Hardening::None => 0,
            Hardening::Default => 1,
            Hardening::Strict => 2,
        };
        writer.u64(10, number);
    }
}

pub(super) fn read_launch(fields: Fields<'_>) -> Result<Launch, FieldError> {
    let hardening = match fields.optional(10, Fields::u64)? {
        None => None,
        Some(0) => Some(Hardening::None),
        Some(1) => Some(Hardening::Default),
        Some(2) => Some(Hardening::Strict),
        Some(_) => return Err(FieldError::Invalid(10)),
    };
    Ok(Launch {
        argv: fields.texts(1)?,
        env: read_pairs(fields, 2)?,
        user: fields.optional(3, Fields::text)?,
        working_dir: fields.text(4)?,
        limits: Limits {
            memory: fields.optional(5, Fields::u64)?,
            pids: fields.optional(6, Fields::u64)?,
            open_files: fields.optional(7, Fields::u64)?,
            cpu: fields.optional(8, Fields::u64)?.map(f64::from_bits),
        },
        listen: fields.texts(9)?,
        hardening,
        // Containers are not the keeper's.
        container: None,
    })
}

pub(super) fn write_policy(writer: &mut Writer, policy: &Policy) {
    let kind = match policy.kind {
        ServiceKind::Daemon => 0,
        ServiceKind::Task => 1,
    };
    writer.u64(1, kind).i32(2, policy.stop_signal.0).duration(3, policy.stop_timeout);
    writer.duration(4, policy.backoff.min).duration(5, policy.backoff.max).duration(6, policy.backoff.reset_after);
    writer.u64(7, u64::from(policy.ready_when_started));
    let ready = match policy.ready {
        Ready::Started => 0,
        Ready::Health => 1,
        Ready::Notify => 2,
        Ready::Fd => 3,
    };
    writer.u64(8, ready);
    if let Some(watchdog) = policy.watchdog {
        writer.duration(9, watchdog);
    }
    writer.record(10, |inner| write_log_policy(inner, &policy.logs)).u64(11, u64::from(policy.starts_when_asked));
}

pub(super) fn read_policy(fields: Fields<'_>) -> Result<Policy, FieldError> {
    let kind = match fields.u64(1)? {
        0 => ServiceKind::Daemon,
        1 => ServiceKind::Task,
        _ => return Err(FieldError::Invalid(1)),
    };
    // An older supervisor knows of neither kind of message.
    let ready = match fields.optional(8, Fields::u64)?.unwrap_or(0) {
        0 => Ready::Started,
        1 => Ready::Health,
        2 => Ready::Notify,
        3 => Ready::Fd,
        _ => return Err(FieldError::Invalid(8)),
    };
    Ok(Policy {
        kind,
        stop_signal: Signal(fields.i32(2)?),
        stop_timeout: fields.duration(3)?,
        backoff: Backoff { min: fields.duration(4)?, max: fields.duration(5)?, reset_after: fields.duration(6)? },
        ready_when_started: fields.u64(7)? != 0,
        ready,
        watchdog: fields.optional(9, Fields::duration)?,
        logs: fields.optional(10, |fields, tag| read_log_policy(fields.record(tag)?))?.unwrap_or_default(),
        starts_when_asked: fields.optional(11, Fields::u64)?.unwrap_or(0) != 0,
    })
}

fn write_log_policy(writer: &mut Writer, logs: &LogPolicy) {
    let format = match logs.format {
        LogFormat::Text => 0,
        LogFormat::Json => 1,
    };
    writer.u64(1, logs.max_size).u64(2, u64::from(logs.files)).u64(3, format).text(4, &logs.forward.to_string());
}

fn read_log_policy(fields: Fields<'_>) -> Result<LogPolicy, FieldError> {
    let format = match fields.u64(3)? {
        0 => LogFormat::Text,
        1 => LogFormat::Json,
        _ => return Err(FieldError::Invalid(3)),
    };
    Ok(LogPolicy { max_size: fields.u64(1)?, files: narrow(fields, 2)?, format, forward: fields.parsed(4)? })
}

pub(super) fn write_view(writer: &mut Writer, view: &View) {
    writer.record(1, |inner| write_publication(inner, view.publication)).text(2, &view.source).text(3, &view.point);
}

pub(super) fn read_view(fields: Fields<'_>) -> Result<View, FieldError> {
    let publication = read_publication(fields.record(1)?)?;
    Ok(View { publication, source: fields.text(2)?, point: fields.text(3)? })
}

pub(in crate::keeper) fn write_publication(writer: &mut Writer, id: PublicationId) {
    writer.bytes(1, id.content.as_bytes()).u64(2, u64::from(id.copy));
}

pub(in crate::keeper) fn read_publication(fields: Fields<'_>) -> Result<PublicationId, FieldError> {
    Ok(PublicationId { content: read_digest(fields, 1)?, copy: narrow(fields, 2)? })
}
