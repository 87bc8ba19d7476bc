//! Output of containers: from the engine's frames into the log files that every service has.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::engine::Engine;
use crate::keeper::log::Log;
use crate::keeper::wire::{LOG_FILES_MAX, LOG_LINE_MAX_BYTES, log_dir, log_file};
use crate::model::{GroupName, LogLine, LogLosses, LogPolicy, LogStream, ServiceSpec, Timestamp};

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

/// So much of a log file's end is looked through for the last lines.
const TAIL_BYTES: u64 = 1 << 20;

/// So long the rules of a container that was taken up again are waited for; then it goes by those of no file.
const RULES_WAIT: Duration = Duration::from_secs(10);

/// By which rules a container's lines are kept, and what got lost.
pub(super) struct Kept {
    rules: watch::Sender<Rules>,
    losses: Arc<Mutex<LogLosses>>,
}

/// Policy and release; `None` of a container that was taken up again, until the plan has told them.
type Rules = Option<(LogPolicy, String)>;

impl Kept {
    pub(super) fn new(spec: Option<&ServiceSpec>) -> Self {
        let rules = spec.map(|spec| (spec.policy.logs.clone(), spec.release.clone()));
        Self { rules: watch::Sender::new(rules), losses: Arc::default() }
    }

    /// Takes other rules over, for what is written from now on.
    pub(super) fn set(&self, spec: &ServiceSpec) {
        self.rules.send_replace(Some((spec.policy.logs.clone(), spec.release.clone())));
    }

    pub(super) fn losses(&self) -> LogLosses {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows the output of a container to its end. The end of the engine is its end, too: it is begun again with the engine.
    pub(super) fn follow(&self, engine: &Engine, id: &str, data_dir: &Path, group: &GroupName, from: From) -> JoinHandle<()> {
        let (engine, id, data_dir, group) = (engine.clone(), id.to_owned(), data_dir.to_owned(), group.clone());
        let (rules, losses) = (self.rules.subscribe(), Arc::clone(&self.losses));
        tokio::spawn(async move {
            if let Err(error) = run(&engine, &id, (data_dir, &group), (rules, losses), from).await {
                tracing::warn!(%group, error, "its output cannot be followed");
            }
        })
    }
}

type Watched = (watch::Receiver<Rules>, Arc<Mutex<LogLosses>>);

async fn run(
    engine: &Engine,
    id: &str,
    (data_dir, group): (PathBuf, &GroupName),
    (mut rules, losses): Watched,
    from: From,
) -> Result<(), String> {
    let (folder, wanted, whose) = (log_dir(&data_dir, group), from == From::Last, group.clone());
    let last = tokio::task::spawn_blocking(move || wanted.then(|| last_lines(&folder, &whose)).flatten()).await;
    let last = last.map_err(|error| error.to_string())?;
    let since = last.map(|(time, _)| format!("{}.{:03}", time.0 / 1000, time.0 % 1000));
    let mut body = engine.logs(id, since.as_deref()).await.map_err(|error| super::chain(&error))?;
    let mut reader = Reader::new(last);
    // Fewer files than it should have would be kept by other rules. The engine keeps the output meanwhile.
    let _ = tokio::time::timeout(RULES_WAIT, rules.wait_for(Option::is_some)).await;
    let (policy, release) = rules.borrow_and_update().clone().unwrap_or_default();
    let mut log = Log::new(&data_dir, group, &policy, &release);
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
        if rules.has_changed().unwrap_or(false) {
            let (policy, release) = rules.borrow_and_update().clone().unwrap_or_default();
            log.set_policy(&policy, &release);
        }
        let lines = std::mem::take(&mut reader.out);
        if lines.is_empty() && !last {
            continue;
        }
        let written = tokio::task::spawn_blocking(move || {
            for line in lines {
                log.line(line.stream, line.time, &line.raw, line.more);
            }
            log
        });
        log = written.await.map_err(|error| error.to_string())?;
        *losses.lock().unwrap_or_else(PoisonError::into_inner) = log.losses();
        if last {
            return Ok(());
        }
    }
}

/// The time of the last line on disk, and how many lines have it: so many of the engine's are known.
fn last_lines(folder: &Path, group: &GroupName) -> Option<(Timestamp, usize)> {
    let tail = |age| {
        let mut file = std::fs::File::open(folder.join(log_file(age))).ok()?;
        let begin = file.metadata().ok()?.len().saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(begin)).ok()?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
        Some(bytes).filter(|bytes| !bytes.is_empty())
    };
    let bytes = (0..LOG_FILES_MAX).find_map(tail)?;
    // Parts of one line were one line to the engine.
    let lines = bytes.split(|byte| *byte == b'\n').rev().filter_map(|line| LogLine::parse(group, line));
    let mut times = lines.filter(|line| !line.more).map(|line| line.time);
    let last = times.next()?;
    Some((last, 1 + times.take_while(|time| *time == last).count()))
}

/// One line of a container, or a part of one.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    time: Timestamp,
    stream: LogStream,
    raw: Vec<u8>,
    more: bool,
}

/// Takes frames apart into lines.
struct Reader {
    bytes: Vec<u8>,
    /// Output of each stream whose line is not whole.
    partial: [Vec<u8>; 2],
    /// Lines of this time are known already, so many.
    known: Option<(Timestamp, usize)>,
    out: Vec<Line>,
    time: Timestamp,
}

impl Reader {
    fn new(known: Option<(Timestamp, usize)>) -> Self {
        Self { bytes: Vec::new(), partial: [Vec::new(), Vec::new()], known, out: Vec::new(), time: Timestamp(0) }
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
            let partial = &mut self.partial[stream as usize];
            partial.extend_from_slice(piece);
            if partial.last() == Some(&b'\n') || partial.len() > LOG_LINE_MAX_BYTES {
                let line = std::mem::take(partial);
                match line.strip_suffix(b"\n") {
                    Some(whole) => self.line(stream, whole, false),
                    None => self.line(stream, &line, true),
                }
            }
        }
    }

    /// `TIME TEXT`, as the engine hands it out; the rest of a long line has no time of its own.
    fn line(&mut self, stream: LogStream, line: &[u8], more: bool) {
        let space = line.iter().position(|byte| *byte == b' ');
        let timed = space.and_then(|at| Some((parse_time(std::str::from_utf8(&line[..at]).ok()?)?, &line[at + 1..])));
        let raw = match timed {
            Some((time, raw)) => {
                self.time = time;
                raw
            }
            None => line,
        };
        if let Some((time, left)) = &mut self.known {
            if self.time <= *time && *left > 0 {
                *left -= usize::from(!more);
                return;
            }
            self.known = None;
        }
        self.out.push(Line { time: self.time, stream, raw: raw.to_vec(), more });
    }

    /// Whoever wrote is gone: what has no newline is a line all the same.
    fn finish(&mut self) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let partial = std::mem::take(&mut self.partial[stream as usize]);
            if !partial.is_empty() {
                self.line(stream, &partial, false);
            }
        }
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
        let line = |line: Line| {
            let head = LogLine::text_head(line.time, line.stream, line.more);
            format!("{head}{}\n", String::from_utf8(line.raw).unwrap())
        };
        std::mem::take(&mut reader.out).into_iter().map(line).collect()
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
