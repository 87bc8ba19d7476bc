//! Log files on disk: their names and their lines. The keeper writes them, the supervisor reads them.

use std::path::{Path, PathBuf};

use crate::model::{GroupName, LogLine, LogStream, Timestamp};

/// A service's log files by age, the one being written first.
pub const LOG_FILES: [&str; 3] = ["current.log", "older-1.log", "older-2.log"];

/// Longest text of one line in bytes; a longer one is continued on the next.
pub const LOG_LINE_MAX_BYTES: usize = 16 * 1024;

/// Where a service's log files are.
pub fn log_dir(data_dir: &Path, group: &GroupName) -> PathBuf {
    data_dir.join("logs").join(group.to_string())
}

/// The letter of a stream in a line.
pub fn stream_letter(stream: LogStream) -> char {
    match stream {
        LogStream::Stdout => 'o',
        LogStream::Stderr => 'e',
    }
}

/// Reads one line without its newline: `TIME o|e TEXT`. `None` for what the keeper did not write.
pub fn parse_line(line: &[u8]) -> Option<LogLine> {
    let line = String::from_utf8_lossy(line);
    let (time, rest) = line.split_once(' ')?;
    let (letter, text) = rest.split_once(' ')?;
    let stream = match letter {
        "o" => LogStream::Stdout,
        "e" => LogStream::Stderr,
        _ => return None,
    };
    let time = humantime::parse_rfc3339(time).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let time = Timestamp(u64::try_from(time.as_millis()).ok()?);
    Some(LogLine { time, stream, text: text.to_owned() })
}
