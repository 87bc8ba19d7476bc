//! Output of containers: from the engine's frames into the log files that every service has.

use std::path::{Path, PathBuf};

use http_body_util::BodyExt as _;
use tokio::task::JoinHandle;

use super::engine::Engine;
use crate::keeper::log::LogFile;
use crate::keeper::wire::{LOG_FILES, LOG_LINE_MAX_BYTES, log_dir, parse_line, stream_letter};
use crate::model::{GroupName, LogStream, Timestamp};

/// From where on output is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// All of it: the container is new.
    Start,
    /// What came after the last line on disk.
    Last,
}

/// Bytes of a frame's head: the stream, three zeros, the length.
const HEAD_BYTES: usize = 8;

/// Follows the output of a container to its end. The end of the engine is its end, too: it is begun again with the engine.
pub(super) fn follow(engine: &Engine, id: &str, data_dir: &Path, group: &GroupName, from: From) -> JoinHandle<()> {
    let (engine, id, data_dir, group) = (engine.clone(), id.to_owned(), data_dir.to_owned(), group.clone());
    tokio::spawn(async move {
        if let Err(error) = run(&engine, &id, data_dir, group.clone(), from).await {
            tracing::warn!(%group, error, "its output cannot be followed");
        }
    })
}

async fn run(engine: &Engine, id: &str, data_dir: PathBuf, group: GroupName, from: From) -> Result<(), String> {
    let (folder, wanted) = (log_dir(&data_dir, &group), from == From::Last);
    let last = tokio::task::spawn_blocking(move || wanted.then(|| last_lines(&folder)).flatten()).await;
    let last = last.map_err(|error| error.to_string())?;
    let since = last.map(|(time, _)| format!("{}.{:03}", time.0 / 1000, time.0 % 1000));
    let mut body = engine.logs(id, since.as_deref()).await.map_err(|error| super::chain(&error))?;
    let mut reader = Reader::new(last);
    let mut file = LogFile::new(&data_dir, &group);
    loop {
        let frame = body.frame().await;
        let last = frame.is_none();
        match frame {
            Some(frame) => {
                let frame = frame.map_err(|error| super::chain(&error))?;
                reader.push(frame.data_ref().map_or(&[], |data| data));
            }
            None => reader.finish(),
        }
        let Some((text, lines, time)) = reader.take() else {
            if last {
                return Ok(());
            }
            continue;
        };
        let written = tokio::task::spawn_blocking(move || {
            file.append(&text, lines, time);
            file
        });
        file = written.await.map_err(|error| error.to_string())?;
    }
}

/// The time of the last line on disk, and how many lines have it: so many of the engine's are known.
fn last_lines(folder: &Path) -> Option<(Timestamp, usize)> {
    let bytes = LOG_FILES.iter().find_map(|name| std::fs::read(folder.join(name)).ok().filter(|bytes| !bytes.is_empty()))?;
    let mut times = bytes.split(|byte| *byte == b'\n').rev().filter_map(parse_line).map(|line| line.time);
    let last = times.next()?;
    Some((last, 1 + times.take_while(|time| *time == last).count()))
}

/// Takes frames apart into lines.
struct Reader {
    bytes: Vec<u8>,
    /// Output of each stream whose line is not whole.
    partial: [Vec<u8>; 2],
    /// Lines of this time are known already, so many.
    known: Option<(Timestamp, usize)>,
    out: Vec<u8>,
    lines: u64,
    time: Timestamp,
}

impl Reader {
    fn new(known: Option<(Timestamp, usize)>) -> Self {
        Self { bytes: Vec::new(), partial: [Vec::new(), Vec::new()], known, out: Vec::new(), lines: 0, time: Timestamp(0) }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(head) = self.bytes.get(at..at + HEAD_BYTES) {
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let stream = if head[0] == 2 { LogStream::Stderr } else { LogStream::Stdout };
            let Some(content) = self.bytes.get(at + HEAD_BYTES..at + HEAD_BYTES + length) else { break };
            let content = content.to_vec();
            at += HEAD_BYTES + length;
            self.content(stream, &content);
        }
        self.bytes.drain(..at);
    }

    fn content(&mut self, stream: LogStream, content: &[u8]) {
        for piece in content.split_inclusive(|byte| *byte == b'\n') {
            let partial = &mut self.partial[usize::from(stream == LogStream::Stderr)];
            partial.extend_from_slice(piece);
            if partial.last() == Some(&b'\n') || partial.len() > LOG_LINE_MAX_BYTES {
                let line = std::mem::take(partial);
                self.line(stream, line.strip_suffix(b"\n").unwrap_or(&line));
            }
        }
    }

    /// `TIME TEXT`, as the engine hands it out; the rest of a long line has no time of its own.
    fn line(&mut self, stream: LogStream, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let timed = line.split_once(' ').and_then(|(time, text)| Some((parse_time(time)?, text)));
        let text = match timed {
            Some((time, text)) => {
                self.time = time;
                text
            }
            None => line.as_ref(),
        };
        if let Some((time, left)) = &mut self.known {
            if self.time <= *time && *left > 0 {
                *left -= 1;
                return;
            }
            self.known = None;
        }
        let head = format!("{} {} ", self.time, stream_letter(stream));
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'\n');
        self.lines += 1;
    }

    /// Whoever wrote is gone: what has no newline is a line all the same.
    fn finish(&mut self) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let partial = std::mem::take(&mut self.partial[usize::from(stream == LogStream::Stderr)]);
            if !partial.is_empty() {
                self.line(stream, &partial);
            }
        }
    }

    /// Formatted lines, how many, and of when.
    fn take(&mut self) -> Option<(Vec<u8>, u64, Timestamp)> {
        let lines = std::mem::take(&mut self.lines);
        (lines > 0).then(|| (std::mem::take(&mut self.out), lines, self.time))
    }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let time = humantime::parse_rfc3339(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(time.as_millis()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0][..], &length, text.as_bytes()].concat()
    }

    fn read(reader: &mut Reader) -> String {
        reader.take().map(|(text, _, _)| String::from_utf8(text).unwrap()).unwrap_or_default()
    }

    #[test]
    fn frames_become_lines_wherever_they_are_cut() {
        let frames = [
            frame(1, "2026-01-01T00:00:00.123456789Z one\n"),
            frame(2, "2026-01-01T00:00:01.000000000Z two\n"),
            frame(1, "2026-01-01T00:00:02.000000000Z \n"),
        ];
        let bytes = frames.concat();
        for cut in 0..bytes.len() {
            let mut reader = Reader::new(None);
            reader.push(&bytes[..cut]);
            reader.push(&bytes[cut..]);
            let wanted = "2026-01-01T00:00:00.123Z o one\n2026-01-01T00:00:01.000Z e two\n2026-01-01T00:00:02.000Z o \n";
            assert_eq!(read(&mut reader), wanted, "{cut}");
        }
    }

    #[test]
    fn the_last_line_needs_no_newline() {
        let mut reader = Reader::new(None);
        reader.push(&frame(2, "2026-01-01T00:00:00.000000000Z help"));
        assert_eq!(read(&mut reader), "");
        reader.finish();
        assert_eq!(read(&mut reader), "2026-01-01T00:00:00.000Z e help\n");
    }

    #[test]
    fn lines_that_are_on_disk_are_not_written_twice() {
        let mut reader = Reader::new(Some((Timestamp(1_767_225_600_123), 2)));
        for text in ["one", "two", "three"] {
            reader.push(&frame(1, &format!("2026-01-01T00:00:00.123456789Z {text}\n")));
        }
        assert_eq!(read(&mut reader), "2026-01-01T00:00:00.123Z o three\n");
    }
}
