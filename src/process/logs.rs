//! Reading the log files of services, whatever their number, size and form: a bounded part at a time, on over rotations, and
//! back from the end to where the newest so many lines begin.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::keeper::wire::{LOG_LINE_MAX_BYTES, log_age, log_dir, log_file};
use crate::model::{GroupName, LogFilter, LogLine};

/// How much is read at once.
const READ_BYTES: usize = 256 * 1024;

/// Longest line in any form: six bytes for each of its own, its head, and its Base64. What is longer, no keeper has written.
const LINE_MAX_BYTES: usize = 8 * LOG_LINE_MAX_BYTES + 1024;

/// How often a list of files is made anew where a rotation came in between.
const TRIES: usize = 8;

/// A log file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("log file `{}` cannot be read", .path.display())]
pub struct LogsError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A reader of one service's lines. It holds the file open in which it stands, so that no other one is taken for it.
pub struct LogReader {
    dir: PathBuf,
    group: GroupName,
    filter: LogFilter,
    at: Option<At>,
}

/// A file, and the byte behind which is what was not read yet.
struct At {
    file: File,
    inode: u64,
    offset: u64,
}

impl At {
    fn open(path: &Path) -> Result<Option<Self>, LogsError> {
        let failed = |source| LogsError { path: path.to_owned(), source };
        match File::open(path) {
            Ok(file) => {
                let inode = file.metadata().map_err(failed)?.ino();
                Ok(Some(Self { file, inode, offset: 0 }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Whether it has no name any more; then what is in it is all that there will be.
    fn is_removed(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() == 0)
    }
}

impl LogReader {
    /// Begins with the first line that is wanted. A service that never wrote has none.
    pub fn open(data_dir: &Path, group: &GroupName, filter: LogFilter) -> Result<Self, LogsError> {
        let mut reader = Self { dir: log_dir(data_dir, group), group: group.clone(), filter, at: None };
        match reader.filter.lines {
            Some(tail) => reader.seek_back(tail)?,
            None => reader.at = reader.oldest()?,
        }
        Ok(reader)
    }

    /// The next lines that match: some of them, at most what one read holds. `None`: there are no more for now.
    pub fn read(&mut self) -> Result<Option<Vec<LogLine>>, LogsError> {
        loop {
            if self.at.is_none() {
                self.at = self.oldest()?;
            }
            let Some(at) = &mut self.at else { return Ok(None) };
            let failed = |source| LogsError { path: self.dir.clone(), source };
            let mut text = read(at).map_err(failed)?;
            if text.is_empty() {
                let newer = beside(&self.dir, at, Side::Newer)?;
                // Found to be rotated, it gets nothing more: what it got before is still to be read.
                text = read(at).map_err(failed)?;
                if text.is_empty() {
                    match newer {
                        Beside::None => return Ok(None),
                        Beside::At(next) => self.at = Some(next),
                        Beside::Removed => self.at = self.oldest()?,
                    }
                    continue;
                }
            }
            let lines = text.split(|byte| *byte == b'\n').filter_map(|line| LogLine::parse(&self.group, line));
            let filter = &self.filter;
            return Ok(Some(lines.filter(|line| filter.matches(line)).collect()));
        }
    }

    fn oldest(&self) -> Result<Option<At>, LogsError> {
        for _ in 0..TRIES {
            let files = list(&self.dir)?;
            let Some((age, inode)) = files.last_key_value() else { return Ok(None) };
            let found = At::open(&self.dir.join(log_file(*age)))?;
            if found.as_ref().is_some_and(|found| found.inode == *inode) {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Goes to where the last so many lines begin that match.
    fn seek_back(&mut self, tail: usize) -> Result<(), LogsError> {
        let mut left = tail;
        self.at = At::open(&self.dir.join(log_file(0)))?;
        let Some(at) = &mut self.at else {
            self.at = self.oldest()?;
            return Ok(());
        };
        let failed = |source| LogsError { path: self.dir.clone(), source };
        let mut end = at.file.metadata().map_err(failed)?.len();
        loop {
            let Some(at) = &mut self.at else { return Ok(()) };
            let failed = |source| LogsError { path: self.dir.clone(), source };
            at.offset = back(at, end, &mut left, &self.group, &self.filter).map_err(failed)?;
            if left == 0 {
                return Ok(());
            }
            let Beside::At(older) = beside(&self.dir, at, Side::Older)? else { return Ok(()) };
            end = older.file.metadata().map_err(failed)?.len();
            self.at = Some(older);
        }
    }
}

/// Whole lines from where it stands, and on behind them. What has no newline and never can, is passed over.
fn read(at: &mut At) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let length = read_at(&at.file, &mut bytes, at.offset)?;
        let whole = bytes[..length].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole == 0 && length > LINE_MAX_BYTES {
            at.offset += length as u64;
            continue;
        }
        at.offset += whole as u64;
        bytes.truncate(whole);
        return Ok(bytes);
    }
}

fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Where the last `left` matching lines before `end` begin, or the file does.
fn back(at: &At, mut end: u64, left: &mut usize, group: &GroupName, filter: &LogFilter) -> io::Result<u64> {
    let mut bytes = vec![0; READ_BYTES];
    while *left > 0 && end > 0 {
        let begin = end.saturating_sub(READ_BYTES as u64);
        let length = read_at(&at.file, &mut bytes[..usize::try_from(end - begin).unwrap_or(0)], begin)?;
        let text = &bytes[..length];
        // The first line may begin further in front: it is looked at with what is there.
        let first = if begin == 0 { 0 } else { text.iter().position(|byte| *byte == b'\n').map_or(length, |at| at + 1) };
        let mut from = length;
        for line in text[first..].split_inclusive(|byte| *byte == b'\n').rev() {
            from -= line.len();
            let parsed = line.strip_suffix(b"\n").and_then(|line| LogLine::parse(group, line));
            if parsed.is_some_and(|line| filter.matches(&line)) {
                *left -= 1;
                if *left == 0 {
                    return Ok(begin + from as u64);
                }
            }
        }
        // A line that fills a whole read is none of the keeper's.
        end = begin + if first == length { 0 } else { first as u64 };
    }
    Ok(if *left == 0 { end } else { 0 })
}

/// Which neighbour of a file.
#[derive(Clone, Copy)]
enum Side {
    Newer,
    Older,
}

/// What is next to a file.
enum Beside {
    None,
    At(At),
    /// The file itself has been rotated away.
    Removed,
}

fn beside(dir: &Path, at: &At, side: Side) -> Result<Beside, LogsError> {
    for _ in 0..TRIES {
        let files = list(dir)?;
        let Some(age) = files.iter().find(|(_, found)| **found == at.inode).map(|(age, _)| *age) else {
            if at.is_removed().map_err(|source| LogsError { path: dir.to_owned(), source })? {
                return Ok(Beside::Removed);
            }
            // It has a name, and got it while the names were listed.
            continue;
        };
        // In the middle of a rotation the next number may be free.
        let next = match side {
            Side::Newer => files.range(..age).next_back(),
            Side::Older => files.range(age + 1..).next(),
        };
        let Some((next, wanted)) = next else { return Ok(Beside::None) };
        match At::open(&dir.join(log_file(*next)))? {
            Some(found) if found.inode == *wanted => return Ok(Beside::At(found)),
            Some(_) | None => {}
        }
    }
    Ok(Beside::None)
}

/// Log files by age, each with its inode, as they stood at one moment: listed twice alike, since a rotation in between gives
/// each of them another name.
fn list(dir: &Path) -> Result<BTreeMap<u32, u64>, LogsError> {
    let mut files = look(dir)?;
    for _ in 0..TRIES {
        let again = look(dir)?;
        if again == files {
            break;
        }
        files = again;
    }
    Ok(files)
}

/// One that a rotation shows under two names counts as the older.
fn look(dir: &Path) -> Result<BTreeMap<u32, u64>, LogsError> {
    let failed = |source| LogsError { path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let age = entry.file_name().to_str().and_then(log_age);
        // Gone meanwhile: then it is under another name, or nobody misses it.
        if let (Some(age), Ok(found)) = (age, entry.metadata()) {
            files.insert(age, found.ino());
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    let twice: Vec<u32> = files.iter().rev().filter(|(_, inode)| !seen.insert(**inode)).map(|(age, _)| *age).collect();
    for age in twice {
        files.remove(&age);
    }
    Ok(files)
}

/// All lines that are kept and wanted, oldest first: where these are few.
pub fn read_logs(data_dir: &Path, group: &GroupName, filter: LogFilter) -> Result<Vec<LogLine>, LogsError> {
    let mut reader = LogReader::open(data_dir, group, filter)?;
    let mut all = Vec::new();
    while let Some(lines) = reader.read()? {
        all.extend(lines);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LogStream;
    use std::fs;
    use std::io::Write as _;

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.line.as_str()).collect()
    }

    fn stage() -> (tempfile::TempDir, GroupName, PathBuf) {
        let data = tempfile::tempdir().unwrap();
        let group: GroupName = "web".parse().unwrap();
        let dir = log_dir(data.path(), &group);
        fs::create_dir_all(&dir).unwrap();
        (data, group, dir)
    }

    fn rest(reader: &mut LogReader) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(lines) = reader.read().unwrap() {
            all.extend(lines.into_iter().map(|line| line.line));
        }
        all
    }

    #[test]
    fn lines_that_nobody_wrote_whole_are_left_out() {
        let (data, group, dir) = stage();
        let text =
            "2026-01-01T00:00:00.000Z o one\nrubbish\n\n2026-01-01T00:00:01.000Z x y\n2026-01-01T00:00:01.500Z e two \n2026";
        fs::write(dir.join("current.log"), text).unwrap();
        let lines = read_logs(data.path(), &group, LogFilter::default()).unwrap();
        assert_eq!(texts(&lines), ["one", "two "]);
        assert_eq!(lines[1].stream, LogStream::Stderr);
    }

    #[test]
    fn since_grep_and_tail_choose() {
        let (data, group, dir) = stage();
        fs::write(dir.join("older-1.log"), "2026-01-01T00:00:00.000Z o one\n").unwrap();
        fs::write(dir.join("current.log"), "2026-01-01T00:00:01.000Z o two\n2026-01-01T00:00:02.000Z o three\n").unwrap();
        let read = |filter| read_logs(data.path(), &group, filter).unwrap();
        let all = read(LogFilter::default());
        assert_eq!(texts(&all), ["one", "two", "three"]);
        let since = LogFilter { since: Some(all[1].time), ..LogFilter::default() };
        assert_eq!(texts(&read(since.clone())), ["two", "three"]);
        assert_eq!(texts(&read(LogFilter { lines: Some(1), ..since.clone() })), ["three"]);
        assert_eq!(texts(&read(LogFilter { lines: Some(9), ..since })), ["two", "three"]);
        let grep = LogFilter { grep: Some("o".to_owned()), ..LogFilter::default() };
        assert_eq!(texts(&read(grep.clone())), ["one", "two"]);
        assert_eq!(texts(&read(LogFilter { lines: Some(1), ..grep })), ["two"]);
        assert!(read(LogFilter { lines: Some(0), ..LogFilter::default() }).is_empty());
    }

    #[test]
    fn the_last_lines_are_found_wherever_reads_end() {
        let (data, group, dir) = stage();
        let line = |number: usize| format!("2026-01-01T00:00:00.000Z o {number} {}\n", "x".repeat(number * 37 % 9_000));
        let text = |range: std::ops::Range<usize>| range.map(line).collect::<String>();
        fs::write(dir.join("older-2.log"), text(0..100)).unwrap();
        fs::write(dir.join("older-1.log"), text(100..300)).unwrap();
        fs::write(dir.join("current.log"), text(300..400)).unwrap();
        for tail in [1, 5, 99, 100, 101, 250, 300, 301, 400, 500] {
            let lines = read_logs(data.path(), &group, LogFilter { lines: Some(tail), ..LogFilter::default() }).unwrap();
            let numbers: Vec<usize> = lines.iter().map(|line| line.line.split(' ').next().unwrap().parse().unwrap()).collect();
            assert_eq!(numbers, (400_usize.saturating_sub(tail)..400).collect::<Vec<_>>(), "{tail}");
        }
    }

    #[test]
    fn following_goes_on_over_rotations_and_a_change_of_form() {
        let (data, group, dir) = stage();
        let mut reader = LogReader::open(data.path(), &group, LogFilter::default()).unwrap();
        assert_eq!(rest(&mut reader), [""; 0]);
        fs::write(dir.join("current.log"), "2026-01-01T00:00:00.000Z o one\n2026-01-01T00:00:00.000Z o tw").unwrap();
        assert_eq!(rest(&mut reader), ["one"]);
        let mut old = fs::OpenOptions::new().append(true).open(dir.join("current.log")).unwrap();
        old.write_all(b"o\n").unwrap();
        fs::rename(dir.join("current.log"), dir.join("older-1.log")).unwrap();
        let json = "{\"time\":\"2026-01-01T00:00:02.000Z\",\"group\":\"web.default\",\"stream\":\"stdout\",\"line\":\"three\"}\n";
        fs::write(dir.join("current.log"), json).unwrap();
        assert_eq!(rest(&mut reader), ["two", "three"]);
        // Two rotations at once, and then so many that what it stood in is gone.
        fs::rename(dir.join("older-1.log"), dir.join("older-2.log")).unwrap();
        fs::rename(dir.join("current.log"), dir.join("older-1.log")).unwrap();
        fs::write(dir.join("current.log"), "2026-01-01T00:00:00.000Z o four\n").unwrap();
        assert_eq!(rest(&mut reader), ["four"]);
        fs::remove_file(dir.join("current.log")).unwrap();
        fs::write(dir.join("older-2.log"), "2026-01-01T00:00:00.000Z o six\n").unwrap();
        fs::write(dir.join("older-1.log"), "2026-01-01T00:00:00.000Z o seven\n").unwrap();
        assert_eq!(rest(&mut reader), ["six", "seven"]);
    }

    #[test]
    fn a_file_that_has_no_name_for_a_moment_is_not_read_again() {
        let (data, group, dir) = stage();
        fs::write(dir.join("current.log"), "2026-01-01T00:00:00.000Z o one\n").unwrap();
        let mut reader = LogReader::open(data.path(), &group, LogFilter::default()).unwrap();
        assert_eq!(rest(&mut reader), ["one"]);
        // As whoever lists names during a rotation sees it.
        fs::write(dir.join("older-1.log"), "2026-01-01T00:00:00.000Z o before\n").unwrap();
        fs::rename(dir.join("current.log"), dir.join("between")).unwrap();
        assert_eq!(rest(&mut reader), [""; 0]);
        fs::rename(dir.join("older-1.log"), dir.join("older-2.log")).unwrap();
        fs::rename(dir.join("between"), dir.join("older-1.log")).unwrap();
        fs::write(dir.join("current.log"), "2026-01-01T00:00:00.000Z o two\n").unwrap();
        assert_eq!(rest(&mut reader), ["two"]);
    }

    #[test]
    fn what_is_no_line_takes_no_memory() {
        let (data, group, dir) = stage();
        let mut text = vec![b'x'; 3 * READ_BYTES];
        text.extend_from_slice(b"\n2026-01-01T00:00:00.000Z o one\n");
        fs::write(dir.join("current.log"), text).unwrap();
        let lines = read_logs(data.path(), &group, LogFilter::default()).unwrap();
        assert_eq!(texts(&lines), ["one"]);
        let lines = read_logs(data.path(), &group, LogFilter { lines: Some(2), ..LogFilter::default() }).unwrap();
        assert_eq!(texts(&lines), ["one"]);
    }
}
