//! A service's state as bytes and back, for the journal: what the next keeper must know to go on as if it had been there.
//!
//! To add a field of [`Service`] that must outlive the keeper: a new tag, with a meaning where it is missing.

use super::notify::Told;
use super::{Context, Event, Next, Phase, Service};
use crate::keeper::wire::{
    FieldError, Fields, Writer, read_digest, read_exit, read_publication, read_spec, write_exit, write_publication, write_spec,
};
use crate::model::{Exit, Moment, MountMode, Now, Timestamp};

impl Service {
    /// Writes all that a successor needs.
    pub(in crate::keeper) fn save(&self, writer: &mut Writer) {
        writer.record(1, |inner| write_spec(inner, &self.spec));
        writer.record(2, |inner| write_phase(inner, self.phase));
        writer.record(3, |inner| write_next(inner, self.next));
        if let Some(pid) = self.pid {
            writer.u64(4, u64::from(pid));
        }
        writer.u64(5, self.incarnation).u64(6, self.restarts).u64(7, u64::from(self.failures)).u64(8, self.since.0);
        writer.bytes(9, self.launch.as_bytes()).bytes(10, self.started_revision.as_bytes());
        if let Some(publication) = self.publication {
            writer.record(11, |inner| write_publication(inner, publication));
        }
        writer.u64(12, u64::from(self.mode == MountMode::Namespace));
        if let Some(exit) = self.last_exit {
            writer.record(13, |inner| write_exit(inner, exit));
        }
        writer.u64(14, u64::from(self.start_failed)).text(15, &self.trouble).text(16, &self.notes);
        if let Some(done) = self.done {
            writer.bytes(17, done.as_bytes());
        }
        writer.record(18, |inner| self.told.save(inner));
    }

    /// Reads what [`Service::save`] wrote, in the same boot: its moments still mean what they meant.
    pub(in crate::keeper) fn restore(fields: Fields<'_>, now: Now) -> Result<Self, FieldError> {
        let narrow = |fields: Fields<'_>, tag| u32::try_from(fields.u64(tag)?).map_err(|_| FieldError::Invalid(tag));
        let done = fields.optional(17, read_digest)?;
        let fresh = Self::new(read_spec(fields.record(1)?)?, done, fields.u64(5)?, now);
        let pid = fields.optional(4, narrow)?;
        let phase = read_phase(fields.record(2)?)?;
        // Older records do not hold it: then it is as it was told when it was started.
        let told = fields.optional(18, |fields, tag| Told::restore(fields.record(tag)?))?;
        Ok(Self {
            told: told.unwrap_or_else(|| Told::new(&fresh.spec.policy)),
            phase,
            next: read_next(fields.record(3)?)?,
            pid,
            restarts: fields.u64(6)?,
            failures: narrow(fields, 7)?,
            since: Timestamp(fields.u64(8)?),
            launch: read_digest(fields, 9)?,
            started_revision: read_digest(fields, 10)?,
            publication: fields.optional(11, |fields, tag| read_publication(fields.record(tag)?))?,
            mode: if fields.u64(12)? == 1 { MountMode::Namespace } else { MountMode::Symlink },
            last_exit: fields.optional(13, |fields, tag| read_exit(fields.record(tag)?))?,
            start_failed: fields.u64(14)? != 0,
            trouble: fields.text(15)?,
            notes: fields.text(16)?,
            ..fresh
        })
    }

    /// The end that was asked for: what is kept of it is only for which revision a task is done.
    pub(in crate::keeper) fn lay_down(&mut self) {
        if self.at_rest() {
            self.rest(Phase::Stopped);
        }
    }

    /// Whether a successor has nothing to go on with.
    pub(in crate::keeper) fn laid_down(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// Whether its process has not become the program yet.
    pub(in crate::keeper) fn spawning(&self) -> bool {
        matches!(self.phase, Phase::Spawning { .. })
    }

    /// Whether a process was about to be made for it, of which nothing more is known: the one that holds its lock, then.
    pub(in crate::keeper) fn may_have_forked(&self) -> bool {
        self.spawning() && self.pid.is_none()
    }

    /// Whether nothing of it should be there at all.
    pub(in crate::keeper) fn expects_nobody(&self) -> bool {
        self.at_rest() || matches!(self.phase, Phase::Backoff { .. })
    }

    /// A successor has looked for its main process: `found` is that and how it sees its publication. What follows from a
    /// process that is gone is an event.
    #[must_use]
    pub(in crate::keeper) fn take_up(&mut self, found: Option<(u32, MountMode)>, context: Context) -> Option<Event> {
        let now = context.now.moment;
        let Some((pid, mode)) = found else {
            if self.pid.is_some() {
                return Some(Event::Exited(Exit::Unknown));
            }
            if matches!(self.phase, Phase::Spawning { .. } | Phase::Up { .. } | Phase::Stopping { .. } | Phase::Foreign) {
                self.phase = Phase::Clearing { since: now, look_at: now, stuck: false };
            }
            return None;
        };
        self.pid = Some(pid);
        if self.spawning() {
            // Whether the start has worked was told to the keeper that is gone. It lives, so it has.
            self.mode = mode;
            self.phase = if self.start_failed {
                Phase::Stopping { kill_at: now, killed: None }
            } else {
                self.trouble.clear();
                self.since = context.now.wall;
                Phase::Up { since: now, ready: self.spec.policy.ready_when_started.then_some(now) }
            };
        }
        None
    }
}

fn write_phase(writer: &mut Writer, phase: Phase) {
    let (kind, first, second) = match phase {
        Phase::Stopped => (0, None, None),
        Phase::Done => (1, None, None),
        Phase::Failed => (2, None, None),
        Phase::Backoff { until } => (3, Some(until), None),
        Phase::Spawning { by } => (4, Some(by), None),
        Phase::Up { since, ready } => (5, Some(since), ready),
        Phase::Stopping { kill_at, killed } => (6, Some(kill_at), killed),
        Phase::Clearing { since, look_at, .. } => (7, Some(since), Some(look_at)),
        Phase::Foreign => (8, None, None),
        Phase::Waiting => (9, None, None),
    };
    writer.u64(1, kind);
    for (tag, moment) in [(2, first), (3, second)] {
        if let Some(moment) = moment {
            writer.u64(tag, moment.0);
        }
    }
    if let Phase::Clearing { stuck: true, .. } = phase {
        writer.u64(4, 1);
    }
}

fn read_phase(fields: Fields<'_>) -> Result<Phase, FieldError> {
    let first = || fields.u64(2).map(Moment);
    let second = fields.optional(3, Fields::u64)?.map(Moment);
    Ok(match fields.u64(1)? {
        0 => Phase::Stopped,
        1 => Phase::Done,
        2 => Phase::Failed,
        3 => Phase::Backoff { until: first()? },
        4 => Phase::Spawning { by: first()? },
        5 => Phase::Up { since: first()?, ready: second },
        6 => Phase::Stopping { kill_at: first()?, killed: second },
        7 => {
            let stuck = fields.optional(4, Fields::u64)?.is_some();
            Phase::Clearing { since: first()?, look_at: second.unwrap_or(first()?), stuck }
        }
        8 => Phase::Foreign,
        9 => Phase::Waiting,
        _ => return Err(FieldError::Invalid(1)),
    })
}

fn write_next(writer: &mut Writer, next: Next) {
    let kind = match next {
        Next::Start => 0,
        Next::Retry { at } => {
            writer.u64(2, at.0);
            1
        }
        Next::Stop => 2,
        Next::Done => 3,
        Next::Fail => 4,
    };
    writer.u64(1, kind);
}

fn read_next(fields: Fields<'_>) -> Result<Next, FieldError> {
    Ok(match fields.u64(1)? {
        0 => Next::Start,
        1 => Next::Retry { at: Moment(fields.u64(2)?) },
        2 => Next::Stop,
        3 => Next::Done,
        4 => Next::Fail,
        _ => return Err(FieldError::Invalid(1)),
    })
}
