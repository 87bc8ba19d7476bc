//! Who runs, on disk: so that the next keeper never starts a second copy, and a task that is done stays done.
//!
//! Text with a checksum, replaced whole. It need not outlive a crash of the machine for what runs (nothing runs after that),
//! so only a newly done task is synced.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::model::{Digest, GroupName};

/// First line of the file.
const HEAD: &str = "tagfall keeper journal 1";

/// A process as it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) pid: u32,
    /// Its start in clock ticks since boot, as /proc/PID/stat has it.
    pub(super) started: u64,
    pub(super) incarnation: u64,
    pub(super) revision: Digest,
    pub(super) launch: Digest,
}

/// What the journal says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Contents {
    pub(super) boot_id: String,
    pub(super) running: BTreeMap<GroupName, Record>,
    /// Revisions for which tasks are done.
    pub(super) done: BTreeMap<GroupName, Digest>,
}

/// The file.
pub(super) struct Journal {
    path: PathBuf,
    last: Contents,
}

impl Journal {
    /// Reads the journal of an earlier keeper. One that is damaged is put aside, with words about it.
    pub(super) fn open(data_dir: &Path) -> io::Result<(Self, Contents, Option<String>)> {
        let dir = data_dir.join("keeper");
        super::log::private_dir(&dir)?;
        let path = dir.join("journal");
        let (contents, words) = match fs::read_to_string(&path) {
            Ok(text) => match parse(&text) {
                Some(contents) => (contents, None),
                None => (Contents::default(), Some(put_aside(&path)?)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Contents::default(), None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => (Contents::default(), Some(put_aside(&path)?)),
            Err(error) => return Err(error),
        };
        Ok((Self { path, last: contents.clone() }, contents, words))
    }

    /// Writes what has changed.
    pub(super) fn write(&mut self, contents: Contents) -> io::Result<()> {
        if contents == self.last {
            return Ok(());
        }
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(print(&contents).as_bytes())?;
        if contents.done != self.last.done {
            file.sync_all()?;
        }
        fs::rename(&new, &self.path)?;
        self.last = contents;
        Ok(())
    }
}

fn put_aside(path: &Path) -> io::Result<String> {
    let aside = path.with_extension("damaged");
    fs::rename(path, &aside)?;
    Ok(format!(
        "journal `{}` is damaged and was put aside as `{}`; services of an earlier keeper, if any still run, are not known here",
        path.display(),
        aside.display()
    ))
}

fn print(contents: &Contents) -> String {
    let mut text = format!("{HEAD}\nboot {}\n", contents.boot_id);
    for (group, record) in &contents.running {
        let Record { pid, started, incarnation, revision, launch } = record;
        text.push_str(&format!("run {group} {pid} {started} {incarnation} {revision} {launch}\n"));
    }
    for (group, revision) in &contents.done {
        text.push_str(&format!("done {group} {revision}\n"));
    }
    let sum = Digest::of(text.as_bytes());
    text.push_str(&format!("sum {sum}\n"));
    text
}

fn parse(text: &str) -> Option<Contents> {
    let at = text.rfind("sum ")?;
    let (body, sum) = text.split_at(at);
    let sum: Digest = sum.strip_prefix("sum ")?.strip_suffix('\n')?.parse().ok()?;
    if sum != Digest::of(body.as_bytes()) {
        return None;
    }
    let mut lines = body.lines();
    if lines.next() != Some(HEAD) {
        return None;
    }
    let mut contents = Contents::default();
    for line in lines {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields.as_slice() {
            ["boot", id] => contents.boot_id = (*id).to_owned(),
            ["run", group, pid, started, incarnation, revision, launch] => {
                let record = Record {
                    pid: pid.parse().ok()?,
                    started: started.parse().ok()?,
                    incarnation: incarnation.parse().ok()?,
                    revision: revision.parse().ok()?,
                    launch: launch.parse().ok()?,
                };
                contents.running.insert(group.parse().ok()?, record);
            }
            ["done", group, revision] => {
                contents.done.insert(group.parse().ok()?, revision.parse().ok()?);
            }
            // A newer keeper's word; what it says of other services still holds.
            _ => {}
        }
    }
    Some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents() -> Contents {
        let group: GroupName = "web".parse().unwrap();
        let digest = Digest::of(b"x");
        let record = Record { pid: 77, started: 4242, incarnation: 3, revision: digest, launch: digest };
        let done = BTreeMap::from([("migrate.default".parse().unwrap(), digest)]);
        Contents { boot_id: "abc".to_owned(), running: BTreeMap::from([(group, record)]), done }
    }

    #[test]
    fn it_reads_back_what_was_written() {
        let data = tempfile::tempdir().unwrap();
        let (mut journal, found, _) = Journal::open(data.path()).unwrap();
        assert_eq!(found, Contents::default());
        journal.write(contents()).unwrap();
        let (_, found, words) = Journal::open(data.path()).unwrap();
        assert_eq!((found, words), (contents(), None));
    }

    #[test]
    fn any_damage_is_noticed() {
        let text = print(&contents());
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let damaged = String::from_utf8(bytes).unwrap();
            assert_eq!(parse(&damaged), None, "byte {at}");
            assert_eq!(parse(&text[..at]), None, "cut at {at}");
        }
        assert_eq!(parse(&"\0".repeat(100)), None);
    }

    #[test]
    fn a_damaged_journal_is_put_aside() {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join("keeper")).unwrap();
        for damaged in [b"rubbish".as_slice(), b"\xff\xfe", b""] {
            std::fs::write(data.path().join("keeper/journal"), damaged).unwrap();
            let (_, found, words) = Journal::open(data.path()).unwrap();
            assert_eq!(found, Contents::default());
            assert!(words.unwrap().contains("damaged"));
        }
    }
}
