//! What each service's state is, on disk: two files per service, written in turn, so that the next keeper goes on where this
//! one ended.
//!
//! A record has a checksum and a number that rises; the valid one with the higher number counts, so one that was cut off while
//! it was written leaves the one before. Writing over an existing file costs some microseconds where making and renaming one
//! costs a millisecond, and every answer to the supervisor waits for it. What runs need not outlive a crash of the machine
//! (nothing runs after that), so only a newly done task is synced.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::engine::now;
use super::error::KeeperError;
use super::state::Service;
use super::wire::{Fields, Writer};
use crate::model::{Digest, GroupName};

/// Version of the records, and of what one program hands to the next. It rises when an older program would misread them; new
/// fields need no rise.
pub const STATE_VERSION: u64 = 2;

/// Begins the first line of a record; the version follows. The frame (this line, the line of number and length, the line of
/// the sum over both and the body, the body) is the same in all versions, so that a newer record can be told from a damaged one.
const HEAD: &str = "tagfall keeper record ";

/// Behind a group's name, the names of its two files. No group's name holds the second.
const SLOTS: [&str; 2] = ["", "~other"];

/// A process as it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) pid: u32,
    /// Its start in clock ticks since boot, as /proc/PID/stat has it.
    pub(super) started: u64,
}

/// What a record says.
pub(super) struct Saved {
    pub(super) boot_id: String,
    /// When its main process started, in clock ticks since boot.
    pub(super) started: Option<u64>,
    pub(super) service: Service,
}

/// What a valid file says, its number, and the digest of its body.
type Read = (Saved, u64, Digest);

/// The folder of records.
pub(super) struct Journal {
    dir: PathBuf,
    boot_id: String,
    written: BTreeMap<GroupName, Written>,
}

impl Saved {
    /// Whether a successor in this boot has anything to go on with; nothing outlives the boot that it was started in.
    pub(super) fn goes_on(&self, boot_id: &str) -> bool {
        self.boot_id == boot_id && !self.service.laid_down()
    }
}

/// What is on disk of one service.
#[derive(Clone, Copy)]
pub(super) struct Written {
    /// Which of the two files is the newer.
    pub(super) slot: usize,
    number: u64,
    /// Of the body alone: where it is unchanged, nothing is written.
    body: Digest,
    /// For which revision a task is done.
    done: Option<Digest>,
}

/// What is wrong with a file.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    Missing,
    Damaged,
    Newer(u64),
}

impl Journal {
    /// Reads all records. The words tell of damage. Where a newer program has written, nothing is touched.
    pub(super) fn open(data_dir: &Path, boot_id: &str) -> Result<(Self, Vec<Saved>, Vec<String>), KeeperError> {
        let dir = data_dir.join("keeper").join("services");
        let failed = |source| KeeperError::DataDir { path: dir.clone(), source };
        super::log::private_dir(&dir).map_err(failed)?;
        let mut journal = Self { dir: dir.clone(), boot_id: boot_id.to_owned(), written: BTreeMap::new() };
        let (mut all, mut words) = (Vec::new(), Vec::new());
        for group in journal.groups().map_err(failed)? {
            let slots = [0, 1].map(|slot| read_file(&journal.path(&group, slot), &group));
            let damaged = slots.iter().any(|slot| matches!(slot, Err(Fault::Damaged)));
            let newest = newest(slots).map_err(|version| KeeperError::Newer { path: dir.clone(), version, known: STATE_VERSION });
            match newest? {
                Some((saved, written)) => {
                    if damaged {
                        words.push(format!("one of the two records of `{group}` is damaged; the other is taken"));
                    }
                    journal.written.insert(group, written);
                    all.push(saved);
                }
                None => words.push(format!(
                    "both records of `{group}` in `{}` are damaged; what runs of it is known by its lock alone",
                    dir.display()
                )),
            }
        }
        Ok((journal, all, words))
    }

    fn groups(&self) -> io::Result<Vec<GroupName>> {
        let mut groups = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let name = name.to_str().unwrap_or_default();
            groups.extend(name.strip_suffix(SLOTS[1]).unwrap_or(name).parse::<GroupName>().ok());
        }
        groups.sort();
        groups.dedup();
        Ok(groups)
    }

    fn path(&self, group: &GroupName, slot: usize) -> PathBuf {
        self.dir.join(format!("{group}{}", SLOTS[slot]))
    }

    /// Writes a service's state, where it has changed.
    pub(super) fn write(&mut self, service: &Service, started: Option<u64>) -> io::Result<()> {
        let group = &service.spec.group;
        let last = self.written.get(group).copied();
        let Some((bytes, written)) = compose(last, service, started, &self.boot_id) else { return Ok(()) };
        let mut file = File::options().write(true).create(true).truncate(false).open(self.path(group, written.slot))?;
        file.write_all(&bytes)?;
        // What is left behind the length that the frame tells means nothing, but would be read each time.
        file.set_len(bytes.len() as u64)?;
        if service.done != last.and_then(|last| last.done) {
            file.sync_all()?;
            File::open(&self.dir)?.sync_all()?;
        }
        self.written.insert(group.clone(), written);
        Ok(())
    }

    /// Drops what is known of a service.
    pub(super) fn forget(&mut self, group: &GroupName) {
        // The older one first: it must not be taken for the newest.
        let newest = self.written.remove(group).map_or(0, |last| last.slot);
        for slot in [1 - newest, newest] {
            // One that is left is taken for a service that is to be looked after, and forgotten again.
            let _ = fs::remove_file(self.path(group, slot));
        }
    }
}

/// Of both files what counts, and where it stands; `Err` is the version of a newer program that has written one of them.
pub(super) fn newest(slots: [Result<Read, Fault>; 2]) -> Result<Option<(Saved, Written)>, u64> {
    let mut newest = None;
    for (slot, read) in slots.into_iter().enumerate() {
        match read {
            Err(Fault::Newer(version)) => return Err(version),
            Err(Fault::Missing | Fault::Damaged) => {}
            Ok((saved, number, body)) => {
                let written = Written { slot, number, body, done: saved.service.done };
                if newest.as_ref().is_none_or(|(_, known): &(Saved, Written)| known.number < number) {
                    newest = Some((saved, written));
                }
            }
        }
    }
    Ok(newest)
}

/// What is to be written of a service, and where, if anything is; `last` is what was.
pub(super) fn compose(last: Option<Written>, service: &Service, started: Option<u64>, boot: &str) -> Option<(Vec<u8>, Written)> {
    let body = print_body(service, started, boot);
    let digest = Digest::of(&body);
    if last.is_some_and(|last| last.body == digest) {
        return None;
    }
    let (slot, number) = last.map_or((0, 1), |last| (1 - last.slot, last.number + 1));
    let bytes = frame(STATE_VERSION, number, &body);
    Some((bytes, Written { slot, number, body: digest, done: service.done }))
}

fn print_body(service: &Service, started: Option<u64>, boot_id: &str) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.text(1, boot_id);
    if let Some(started) = started {
        writer.u64(2, started);
    }
    writer.record(3, |inner| service.save(inner));
    writer.finish()
}

fn frame(version: u64, number: u64, body: &[u8]) -> Vec<u8> {
    let head = format!("{HEAD}{version}\nnumber {number} length {}\n", body.len());
    let sum = Digest::of(&[head.as_bytes(), body].concat());
    [head.as_bytes(), format!("sum {sum}\n").as_bytes(), body].concat()
}

fn read_file(path: &Path, group: &GroupName) -> Result<Read, Fault> {
    let missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
    let bytes = fs::read(path).map_err(|error| if missing(error) { Fault::Missing } else { Fault::Damaged })?;
    let read = parse(&bytes)?;
    // A file under another's name would make two of one.
    if read.0.service.spec.group == *group { Ok(read) } else { Err(Fault::Damaged) }
}

/// Reads a file's bytes.
pub(super) fn parse(bytes: &[u8]) -> Result<Read, Fault> {
    let (version, number, body) = unframe(bytes).ok_or(Fault::Damaged)?;
    if version > STATE_VERSION {
        return Err(Fault::Newer(version));
    }
    let read = || {
        let fields = Fields::parse(body)?;
        let service = Service::restore(fields.record(3)?, now())?;
        Ok(Saved { boot_id: fields.text(1)?, started: fields.optional(2, Fields::u64)?, service })
    };
    let saved = read().map_err(|_: super::wire::FieldError| Fault::Damaged)?;
    Ok((saved, number, Digest::of(body)))
}

/// Version, number and body of a whole record.
fn unframe(bytes: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (head, rest) = line(bytes)?;
    let (place, rest) = line(rest)?;
    let (sum, rest) = line(rest)?;
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let (number, length) = text(place)?.strip_prefix("number ")?.split_once(" length ")?;
    let body = rest.get(..length.parse().ok()?)?;
    let sum: Digest = text(sum)?.strip_prefix("sum ")?.parse().ok()?;
    if sum != Digest::of(&[head, b"\n", place, b"\n", body].concat()) {
        return None;
    }
    Some((text(head)?.strip_prefix(HEAD)?.parse().ok()?, number.parse().ok()?, body))
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::state::{Context, Event};
    use crate::model::{Backoff, Launch, Policy, ServiceKind, ServiceSpec, Signal};
    use std::time::Duration;

    fn spec() -> ServiceSpec {
        let backoff =
            Backoff { min: Duration::from_millis(9), max: Duration::from_secs(1), reset_after: Duration::from_secs(60) };
        ServiceSpec {
            group: "web".parse().unwrap(),
            revision: Digest::of(b"1"),
            release: "v1.0.0".to_owned(),
            launch: Launch { argv: vec!["/bin/true".to_owned()], ..Launch::default() },
            policy: Policy {
                ready: crate::model::Ready::Notify,
                watchdog: None,
                logs: crate::model::LogPolicy { files: 7, ..crate::model::LogPolicy::default() },
                kind: ServiceKind::Daemon,
                stop_signal: Signal::TERM,
                stop_timeout: Duration::from_secs(8),
                backoff,
                ready_when_started: true,
                starts_when_asked: true,
            },
            view: None,
        }
    }

    /// The same service a step further each time: spawned, up, ended.
    fn history() -> Vec<Service> {
        let context = Context { now: now(), roll: 0 };
        let mut service = Service::new(spec(), None, 0, context.now);
        let mut all = vec![service.clone()];
        let events = [
            Event::Run(Box::new(spec())),
            Event::Spawned { pid: 77 },
            Event::Started { mode: crate::model::MountMode::Symlink, publication: None, notes: "a note".to_owned() },
            Event::Exited(crate::model::Exit::Code(3)),
        ];
        for event in events {
            service.on(event, context);
            all.push(service.clone());
        }
        all
    }

    fn open(data: &Path) -> (Journal, Vec<Saved>, Vec<String>) {
        Journal::open(data, "boot").unwrap()
    }

    #[test]
    fn it_reads_back_what_was_written() {
        let data = tempfile::tempdir().unwrap();
        for service in history() {
            open(data.path()).0.write(&service, service.pid().map(|_| 4242)).unwrap();
            let (_, found, words) = open(data.path());
            let [saved] = found.as_slice() else { panic!("{} records", found.len()) };
            assert_eq!((&saved.service, saved.started, words), (&service, service.pid().map(|_| 4242), vec![]));
            assert_eq!(saved.boot_id, "boot");
        }
        open(data.path()).0.forget(&spec().group);
        assert!(open(data.path()).1.is_empty());
    }

    #[test]
    fn any_damage_is_noticed() {
        let bytes = frame(STATE_VERSION, 1, &print_body(&history()[3], Some(1), "boot"));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(parse(&damaged).err(), Some(Fault::Damaged), "byte {at}");
            assert_eq!(parse(&bytes[..at]).err(), Some(Fault::Damaged), "cut at {at}");
        }
        assert_eq!(parse(&[0; 100]).err(), Some(Fault::Damaged));
        // What a longer record before it has left behind its end.
        assert!(parse(&[&bytes, b"rest".as_slice()].concat()).is_ok());
    }

    #[test]
    fn of_a_damaged_record_the_one_before_is_taken() {
        let data = tempfile::tempdir().unwrap();
        let history = history();
        let mut journal = open(data.path()).0;
        journal.write(&history[2], Some(1)).unwrap();
        journal.write(&history[3], Some(1)).unwrap();
        let newest = journal.path(&spec().group, 1);
        for damaged in [b"rubbish".as_slice(), b"\xff\xfe", b"", &[0; 500]] {
            fs::write(&newest, damaged).unwrap();
            let (mut journal, found, words) = open(data.path());
            assert_eq!(found[0].service, history[2]);
            assert!(words[0].contains("damaged"), "{words:?}");
            // What is written next takes its place, not that of the one that is whole.
            journal.write(&history[3], Some(1)).unwrap();
            let (_, found, words) = open(data.path());
            assert_eq!((&found[0].service, words), (&history[3], vec![]));
        }
        for slot in [0, 1] {
            fs::write(journal.path(&spec().group, slot), "").unwrap();
        }
        let (_, found, words) = open(data.path());
        assert!(found.is_empty() && words[0].contains("both"), "{words:?}");
    }

    #[test]
    fn the_newest_counts_wherever_it_stands_and_a_forgotten_one_is_gone() {
        let data = tempfile::tempdir().unwrap();
        let history = history();
        for service in [&history[2], &history[3], &history[2], &history[3], &history[2]] {
            let mut journal = open(data.path()).0;
            journal.write(service, Some(1)).unwrap();
            assert_eq!(open(data.path()).1[0].service, *service);
        }
        open(data.path()).0.forget(&spec().group);
        assert_eq!(fs::read_dir(data.path().join("keeper").join("services")).unwrap().count(), 0);
    }

    #[test]
    fn a_newer_programs_record_is_refused_and_left() {
        let data = tempfile::tempdir().unwrap();
        let mut journal = open(data.path()).0;
        journal.write(&history()[3], Some(1)).unwrap();
        let newer = frame(STATE_VERSION + 1, 7, b"whatever it holds");
        fs::write(journal.path(&spec().group, 0), &newer).unwrap();
        let error = Journal::open(data.path(), "boot").err().unwrap();
        assert!(error.to_string().contains("newer"), "{error}");
        assert_eq!(fs::read(journal.path(&spec().group, 0)).unwrap(), newer);
    }
}
