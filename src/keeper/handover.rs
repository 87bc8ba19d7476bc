//! What one keeper's program hands to the next in the same process, beside the journal: descriptors that stay open, and what
//! it has in memory only. It goes through a memory file whose descriptor is named in the arguments.
//!
//! To keep a descriptor over an exchange: [`Engine::keep`] it under a name of its own; in the next program it is in
//! `Engine::kept` under that name, once all services are adopted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::FdFlags;
use rustix::process::Rlimit;

use super::engine::Engine;
use super::listen::Held;
use super::log::Output;
use super::notify::Voice;
use super::services::Entry;
use super::wire::{Fields, Writer};
use crate::model::{GroupName, LogLosses, LogStream};
use crate::sys::process::inherited_fd;

/// Name of outputs, which are only kept open until the next program has opened them anew.
const OUTPUT: &str = "output";

/// Name of the data folder's lock.
pub(super) const LOCK: &str = "lock";

/// Names of what is kept open for one service: where it is heard, and (the declaration follows) its sockets.
const VOICES: [&str; 2] = ["notify", "ready"];
const SOCKET: &str = "listen ";

/// Most bytes that are taken: a line's beginning of each output of some thousand services.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

const STREAMS: [LogStream; 2] = [LogStream::Stdout, LogStream::Stderr];

/// What was handed over.
pub(super) struct Handover {
    kept: Vec<(String, OwnedFd)>,
    /// Beginnings of lines, and what got lost.
    lines: BTreeMap<GroupName, ([Vec<u8>; 2], LogLosses)>,
    /// What is kept open for services.
    of_services: Vec<(GroupName, String, OwnedFd)>,
    /// What services get so that the kernel kills them before the keeper.
    oom_score: Option<i32>,
    /// The limit of descriptors that services begin with.
    open_files: Rlimit,
}

impl Handover {
    /// Reads what the program before has written to this descriptor.
    pub(super) fn take(descriptor: i32) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let mut file = File::from(inherited_fd(descriptor)?);
        file.rewind()?;
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        let invalid = |error: super::wire::FieldError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let fields = Fields::parse(&bytes).map_err(invalid)?;
        let mut kept = Vec::new();
        for record in fields.list(1) {
            let record = Fields::parse(record).map_err(invalid)?;
            kept.push((record.text(1).map_err(invalid)?, inherited_fd(record.i32(2).map_err(invalid)?)?));
        }
        let mut lines = BTreeMap::new();
        for record in fields.list(2) {
            let record = Fields::parse(record).map_err(invalid)?;
            let part = |tag| record.bytes(tag).map(<[u8]>::to_vec).unwrap_or_default();
            let count = |tag| record.u64(tag).unwrap_or(0);
            let lost = LogLosses { lines: count(4), bytes: count(5), unforwarded: count(6), trouble: String::new() };
            lines.insert(record.parsed(1).map_err(invalid)?, ([part(2), part(3)], lost));
        }
        let limit = |tag| fields.optional(tag, Fields::u64).map_err(invalid);
        let mut of_services = Vec::new();
        for record in fields.list(5) {
            let record = Fields::parse(record).map_err(invalid)?;
            let descriptor = inherited_fd(record.i32(3).map_err(invalid)?)?;
            of_services.push((record.parsed(1).map_err(invalid)?, record.text(2).map_err(invalid)?, descriptor));
        }
        let oom_score = fields.optional(6, Fields::i32).map_err(invalid)?;
        Ok(Self { kept, lines, of_services, oom_score, open_files: Rlimit { current: limit(3)?, maximum: limit(4)? } })
    }
}

impl Engine {
    /// Keeps a descriptor open when this process becomes another program.
    pub(super) fn keep(&mut self, name: &str, descriptor: OwnedFd) {
        self.kept.push((name.to_owned(), descriptor));
    }

    /// Goes on with what the program before had.
    pub(super) fn take_over(&mut self, handed: Handover) {
        self.rights.open_files = handed.open_files;
        // The program before has made itself hard to kill: what it had inherited can no longer be seen.
        self.rights.oom_score = handed.oom_score.unwrap_or(self.rights.oom_score);
        let mut voices = BTreeMap::<GroupName, [Option<OwnedFd>; 2]>::new();
        for (group, name, descriptor) in handed.of_services {
            if let Some(at) = VOICES.iter().position(|voice| *voice == name) {
                voices.entry(group).or_default()[at] = Some(descriptor);
            } else if let Some(entry) = self.services.get_mut(&group)
                && let Some(held) = name.strip_prefix(SOCKET).and_then(|declared| Held::inherited(declared, descriptor))
            {
                entry.sockets.push(held);
            }
        }
        for (group, [socket, pipe]) in voices {
            self.regain_voice(&group, socket, pipe);
        }
        for (group, (partial, lost)) in handed.lines {
            if let Some(output) = self.services.get_mut(&group).and_then(Entry::output) {
                for (stream, bytes) in STREAMS.into_iter().zip(partial) {
                    *output.partial(stream) = bytes;
                }
                output.add_losses(&lost);
            }
        }
        self.kept = handed.kept.into_iter().filter(|(name, _)| name != OUTPUT).collect();
    }

    /// Writes down what the next program must have, with all its descriptors left open over exec.
    pub(super) fn hand_over(&mut self) -> io::Result<OwnedFd> {
        let mut writer = Writer::default();
        for (name, descriptor) in &self.kept {
            writer.record(1, |inner| write_descriptor(inner, name, descriptor.as_raw_fd()));
        }
        for (group, entry) in self.services.iter_mut() {
            let Some(output) = entry.output() else { continue };
            for stream in STREAMS {
                writer.record(1, |inner| write_descriptor(inner, OUTPUT, output.keeper_end(stream).as_raw_fd()));
            }
            writer.record(2, |inner| write_lines(inner, group, output));
        }
        for (group, entry) in self.services.iter() {
            for (name, descriptor) in of_service(entry) {
                writer.record(5, |inner| {
                    inner.text(1, &group.to_string()).text(2, &name).i32(3, descriptor.as_raw_fd());
                });
            }
        }
        writer.i32(6, self.rights.oom_score);
        for (tag, limit) in [(3, self.rights.open_files.current), (4, self.rights.open_files.maximum)] {
            if let Some(limit) = limit {
                writer.u64(tag, limit);
            }
        }
        let mut file = File::from(memfd_create("tagfall-handover", MemfdFlags::CLOEXEC)?);
        file.write_all(&writer.finish())?;
        self.leave_open(true)?;
        rustix::io::fcntl_setfd(&file, FdFlags::empty())?;
        Ok(file.into())
    }

    /// Leaves what is kept open over exec, or no longer.
    pub(super) fn leave_open(&mut self, open: bool) -> io::Result<()> {
        let flags = if open { FdFlags::empty() } else { FdFlags::CLOEXEC };
        for (_, descriptor) in &self.kept {
            rustix::io::fcntl_setfd(descriptor.as_fd(), flags)?;
        }
        for (_, descriptor) in self.services.values().flat_map(of_service) {
            rustix::io::fcntl_setfd(descriptor, flags)?;
        }
        for output in self.services.values_mut().filter_map(Entry::output) {
            for stream in STREAMS {
                rustix::io::fcntl_setfd(output.keeper_end(stream), flags)?;
            }
        }
        Ok(())
    }
}

/// What is kept open for a service, beside its output.
fn of_service(entry: &Entry) -> Vec<(String, &OwnedFd)> {
    let voices = entry.voice.as_ref().map_or([None, None], Voice::kept);
    let voices = VOICES.into_iter().zip(voices).filter_map(|(name, fd)| Some((name.to_owned(), fd?)));
    let sockets = entry.sockets.iter().map(Held::entry).map(|(declared, fd)| (format!("{SOCKET}{declared}"), fd));
    voices.chain(sockets).collect()
}

fn write_descriptor(writer: &mut Writer, name: &str, number: i32) {
    writer.text(1, name).i32(2, number);
}

fn write_lines(writer: &mut Writer, group: &GroupName, output: &mut Output) {
    writer.text(1, &group.to_string());
    for (tag, stream) in (2..).zip(STREAMS) {
        writer.bytes(tag, output.partial(stream));
    }
    let lost = output.losses_at_end();
    writer.u64(4, lost.lines).u64(5, lost.bytes).u64(6, lost.unforwarded);
}
