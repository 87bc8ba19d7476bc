//! What each service's state is, on disk: one record per service, so that the next keeper goes on where this one ended.
//!
//! A record has a checksum and is replaced whole; the one before it is kept, in case the newest is damaged. What runs need not
//! outlive a crash of the machine (nothing runs after that), so only a newly done task is synced.

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
pub const STATE_VERSION: u64 = 1;

/// Begins the first line of a record; the version follows. The frame (this line, the line of the sum, the body) is the same
/// in all versions, so that a newer record can be told from a damaged one.
const HEAD: &str = "tagfall keeper record ";

/// Behind the names of records before the newest, and of ones being written. No group's name holds it.
const BEFORE: &str = "~before";
const NEW: &str = "~new";

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

/// The folder of records.
pub(super) struct Journal {
    dir: PathBuf,
    boot_id: String,
    /// What is on disk: the sum, and for which revision a task is done.
    written: BTreeMap<GroupName, (Digest, Option<Digest>)>,
}

/// What is wrong with a file.
enum Fault {
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
            match journal.read(&group) {
                Ok((saved, Some(sum))) => {
                    journal.written.insert(group, (sum, saved.service.done));
                    all.push(saved);
                }
                Ok((saved, None)) => {
                    words.push(format!("the newest record of `{group}` is damaged; the one before it is taken"));
                    // So that it does not become the one before the next.
                    let _ = fs::remove_file(journal.path(&group, ""));
                    all.push(saved);
                }
                Err(Fault::Damaged) => words.push(format!(
                    "both records of `{group}` in `{}` are damaged; what runs of it is known by its lock alone",
                    dir.display()
                )),
                Err(Fault::Newer(version)) => return Err(KeeperError::Newer { path: dir, version, known: STATE_VERSION }),
            }
        }
        Ok((journal, all, words))
    }

    fn groups(&self) -> io::Result<Vec<GroupName>> {
        let mut groups = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let name = name.to_str().unwrap_or_default();
            groups.extend(name.strip_suffix(BEFORE).unwrap_or(name).parse::<GroupName>().ok());
        }
        groups.sort();
        groups.dedup();
        Ok(groups)
    }

    /// The newest record with its sum, or the one before without.
    fn read(&self, group: &GroupName) -> Result<(Saved, Option<Digest>), Fault> {
        match read_file(&self.path(group, ""), group) {
            Ok((saved, sum)) => Ok((saved, Some(sum))),
            Err(Fault::Newer(version)) => Err(Fault::Newer(version)),
            Err(Fault::Damaged) => Ok((read_file(&self.path(group, BEFORE), group)?.0, None)),
        }
    }

    fn path(&self, group: &GroupName, suffix: &str) -> PathBuf {
        self.dir.join(format!("{group}{suffix}"))
    }

    /// Writes a service's state, where it has changed.
    pub(super) fn write(&mut self, service: &Service, started: Option<u64>) -> io::Result<()> {
        let group = &service.spec.group;
        let (bytes, sum) = print(service, started, &self.boot_id);
        let last = self.written.get(group);
        if last.is_some_and(|(last, _)| *last == sum) {
            return Ok(());
        }
        let path = self.path(group, "");
        let new = self.path(group, NEW);
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        if service.done != last.and_then(|(_, done)| *done) {
            file.sync_all()?;
        }
        match fs::rename(&path, self.path(group, BEFORE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::rename(&new, &path)?;
        self.written.insert(group.clone(), (sum, service.done));
        Ok(())
    }

    /// Drops what is known of a service.
    pub(super) fn forget(&mut self, group: &GroupName) {
        self.written.remove(group);
        for suffix in [BEFORE, "", NEW] {
            // One that is left is taken for a service that is to be looked after, and forgotten again.
            let _ = fs::remove_file(self.path(group, suffix));
        }
    }
}

fn print(service: &Service, started: Option<u64>, boot_id: &str) -> (Vec<u8>, Digest) {
    let mut writer = Writer::default();
    writer.text(1, boot_id);
    if let Some(started) = started {
        writer.u64(2, started);
    }
    writer.record(3, |inner| service.save(inner));
    let body = writer.finish();
    let head = format!("{HEAD}{STATE_VERSION}\n");
    let sum = Digest::of(&[head.as_bytes(), &body].concat());
    let bytes = [head.as_bytes(), format!("sum {sum}\n").as_bytes(), &body].concat();
    (bytes, sum)
}

fn read_file(path: &Path, group: &GroupName) -> Result<(Saved, Digest), Fault> {
    let bytes = fs::read(path).map_err(|_| Fault::Damaged)?;
    let (saved, sum) = parse(&bytes)?;
    // A file under another's name would make two of one.
    if saved.service.spec.group == *group { Ok((saved, sum)) } else { Err(Fault::Damaged) }
}

fn parse(bytes: &[u8]) -> Result<(Saved, Digest), Fault> {
    let damaged = || Fault::Damaged;
    let (head, rest) = line(bytes).ok_or_else(damaged)?;
    let (sum, body) = line(rest).ok_or_else(damaged)?;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Fault::Damaged);
    let sum: Digest = text(sum)?.strip_prefix("sum ").and_then(|sum| sum.parse().ok()).ok_or_else(damaged)?;
    if sum != Digest::of(&[head, b"\n", body].concat()) {
        return Err(Fault::Damaged);
    }
    let version: u64 = text(head)?.strip_prefix(HEAD).and_then(|version| version.parse().ok()).ok_or_else(damaged)?;
    if version > STATE_VERSION {
        return Err(Fault::Newer(version));
    }
    let read = || {
        let fields = Fields::parse(body)?;
        let service = Service::restore(fields.record(3)?, now())?;
        Ok(Saved { boot_id: fields.text(1)?, started: fields.optional(2, Fields::u64)?, service })
    };
    read().map(|saved| (saved, sum)).map_err(|_: super::wire::FieldError| Fault::Damaged)
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
                // What a running process has said is not written down: see `Service::heard_again`.
                watchdog: None,
                kind: ServiceKind::Daemon,
                stop_signal: Signal::TERM,
                stop_timeout: Duration::from_secs(8),
                backoff,
                ready_when_started: true,
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
        // A process that is being made without a number is no state between two turns of the loop.
        for service in history().into_iter().filter(|service| !service.spawning() || service.pid().is_some()) {
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
        let (bytes, _) = print(&history()[3], Some(1), "boot");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(matches!(parse(&damaged), Err(Fault::Damaged)), "byte {at}");
            assert!(matches!(parse(&bytes[..at]), Err(Fault::Damaged)), "cut at {at}");
        }
        assert!(matches!(parse(&[0; 100]), Err(Fault::Damaged)));
    }

    #[test]
    fn of_a_damaged_record_the_one_before_is_taken() {
        let data = tempfile::tempdir().unwrap();
        let history = history();
        let mut journal = open(data.path()).0;
        journal.write(&history[2], Some(1)).unwrap();
        journal.write(&history[3], Some(1)).unwrap();
        let path = journal.path(&spec().group, "");
        for damaged in [b"rubbish".as_slice(), b"\xff\xfe", b"", &[0; 500]] {
            fs::write(&path, damaged).unwrap();
            let (_, found, words) = open(data.path());
            assert_eq!(found[0].service, history[2]);
            assert!(words[0].contains("damaged"), "{words:?}");
        }
        assert!(!path.exists());
        assert_eq!(open(data.path()).1.len(), 1);
        fs::write(journal.path(&spec().group, BEFORE), "").unwrap();
        let (_, found, words) = open(data.path());
        assert!(found.is_empty() && words[0].contains("both"), "{words:?}");
    }

    #[test]
    fn a_newer_programs_record_is_refused_and_left() {
        let data = tempfile::tempdir().unwrap();
        let mut journal = open(data.path()).0;
        journal.write(&history()[3], Some(1)).unwrap();
        let (head, body) = (format!("{HEAD}{}\n", STATE_VERSION + 1), b"whatever it holds");
        let sum = Digest::of(&[head.as_bytes(), body].concat());
        let newer = [head.as_bytes(), format!("sum {sum}\n").as_bytes(), body].concat();
        fs::write(journal.path(&spec().group, ""), &newer).unwrap();
        let error = Journal::open(data.path(), "boot").err().unwrap();
        assert!(error.to_string().contains("newer"), "{error}");
        assert_eq!(fs::read(journal.path(&spec().group, "")).unwrap(), newer);
    }
}
