//! Reading the log files of services: at once, and onwards from where a reader stood.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::keeper::wire::{LOG_FILES, log_dir, parse_line};
use crate::model::{GroupName, LogLine, Timestamp};

/// Most bytes read from one file at a time; the keeper rotates far earlier.
const FILE_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// A log file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("log file `{}` cannot be read", .path.display())]
pub struct LogsError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Only so many, the last ones.
    pub tail: Option<usize>,
    /// Only from then on.
    pub since: Option<Timestamp>,
}

/// Where a reader stands: in which file, however it is called by now, and behind which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogPosition {
    inode: u64,
    offset: u64,
}

/// Lines, oldest first, and where they end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Logs {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// For [`follow_logs`].
    pub position: LogPosition,
}

/// Reads what is kept of a service's output. A service that never wrote has no lines.
pub fn read_logs(data_dir: &Path, group: &GroupName, query: &LogQuery) -> Result<Logs, LogsError> {
    let mut logs = follow_logs(data_dir, group, &LogPosition::default())?;
    if let Some(since) = query.since {
        logs.lines.retain(|line| line.time >= since);
    }
    if let Some(tail) = query.tail {
        logs.lines.drain(..logs.lines.len().saturating_sub(tail));
    }
    Ok(logs)
}

/// Reads what was written since a position. Where that file is gone by rotation, all that is kept is newer.
pub fn follow_logs(data_dir: &Path, group: &GroupName, position: &LogPosition) -> Result<Logs, LogsError> {
    let dir = log_dir(data_dir, group);
    let mut newer = Vec::new();
    let mut known = None;
    for name in LOG_FILES {
        let path = dir.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(LogsError { path, source }),
        };
        let inode = file.metadata().map_err(|source| LogsError { path: path.clone(), source })?.ino();
        if newer.iter().any(|(_, _, seen)| *seen == inode) {
            // A rotation between two opens shows the same file under its next name.
            continue;
        }
        if inode == position.inode {
            known = Some((path, file, inode));
            break;
        }
        newer.push((path, file, inode));
    }
    let mut logs = Logs { lines: Vec::new(), position: *position };
    let known = known.map(|(path, file, inode)| (path, file, inode, position.offset));
    let newer = newer.into_iter().rev().map(|(path, file, inode)| (path, file, inode, 0));
    for (path, file, inode, offset) in known.into_iter().chain(newer) {
        let read = read_lines(file, offset, &mut logs.lines).map_err(|source| LogsError { path, source })?;
        logs.position = LogPosition { inode, offset: offset + read };
    }
    Ok(logs)
}

/// Appends the whole lines behind `offset` and says how many bytes they were.
fn read_lines(mut file: File, offset: u64, lines: &mut Vec<LogLine>) -> io::Result<u64> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    lines.extend(bytes[..whole].split(|byte| *byte == b'\n').filter_map(parse_line));
    Ok(whole as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LogStream;
    use std::fs;

    fn texts(logs: &Logs) -> Vec<&str> {
        logs.lines.iter().map(|line| line.text.as_str()).collect()
    }

    fn stage() -> (tempfile::TempDir, GroupName, PathBuf) {
        let data = tempfile::tempdir().unwrap();
        let group: GroupName = "web".parse().unwrap();
        let dir = log_dir(data.path(), &group);
        fs::create_dir_all(&dir).unwrap();
        (data, group, dir)
    }

    #[test]
    fn lines_that_nobody_wrote_whole_are_left_out() {
        let (data, group, dir) = stage();
        let text =
            "2026-01-01T00:00:00.000Z o one\nrubbish\n\n2026-01-01T00:00:01.000Z x y\n2026-01-01T00:00:01.500Z e two \n2026";
        fs::write(dir.join("current.log"), text).unwrap();
        let logs = read_logs(data.path(), &group, &LogQuery::default()).unwrap();
        assert_eq!(texts(&logs), ["one", "two "]);
        assert_eq!(logs.lines[1].stream, LogStream::Stderr);
    }

    #[test]
    fn since_and_tail_choose() {
        let (data, group, dir) = stage();
        fs::write(dir.join("older-1.log"), "2026-01-01T00:00:00.000Z o one\n").unwrap();
        fs::write(dir.join("current.log"), "2026-01-01T00:00:01.000Z o two\n2026-01-01T00:00:02.000Z o three\n").unwrap();
        let all = read_logs(data.path(), &group, &LogQuery::default()).unwrap();
        assert_eq!(texts(&all), ["one", "two", "three"]);
        let since = Some(all.lines[1].time);
        assert_eq!(texts(&read_logs(data.path(), &group, &LogQuery { since, tail: None }).unwrap()), ["two", "three"]);
        assert_eq!(texts(&read_logs(data.path(), &group, &LogQuery { since, tail: Some(1) }).unwrap()), ["three"]);
    }

    #[test]
    fn following_goes_on_over_a_rotation() {
        let (data, group, dir) = stage();
        let none = read_logs(data.path(), &group, &LogQuery::default()).unwrap();
        assert!(none.lines.is_empty());
        fs::write(dir.join("current.log"), "2026-01-01T00:00:00.000Z o one\n2026-01-01T00:00:00.000Z o tw").unwrap();
        let first = follow_logs(data.path(), &group, &none.position).unwrap();
        assert_eq!(texts(&first), ["one"]);
        let mut old = fs::OpenOptions::new().append(true).open(dir.join("current.log")).unwrap();
        io::Write::write_all(&mut old, b"o\n").unwrap();
        fs::rename(dir.join("current.log"), dir.join("older-1.log")).unwrap();
        fs::write(dir.join("current.log"), "2026-01-01T00:00:02.000Z o three\n").unwrap();
        let second = follow_logs(data.path(), &group, &first.position).unwrap();
        assert_eq!(texts(&second), ["two", "three"]);
        assert!(follow_logs(data.path(), &group, &second.position).unwrap().lines.is_empty());
    }
}
