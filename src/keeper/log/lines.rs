//! What was read from a service, cut into lines and formatted: text or JSON.
//!
//! Nothing is copied but into the one buffer that is written, and the time is put into words once for all lines of a read.

use std::io::BufRead as _;

use super::super::wire::LOG_LINE_MAX_BYTES;
use super::Sink;
use crate::model::{GroupName, LogFormat, LogLine, LogPolicy, LogStream, Timestamp, base64};

/// Formatted lines are written once so many bytes have come together.
const WRITE_BYTES: usize = 256 * 1024;

/// A partial line's buffer larger than this is given back once it is empty.
const KEPT_BYTES: usize = 512;

/// How the lines of one stream look at one time.
pub(super) struct Form {
    format: LogFormat,
    head: String,
    head_of_more: String,
}

impl Form {
    pub(super) fn new(policy: &LogPolicy, group: &GroupName, stream: LogStream, time: Timestamp) -> Self {
        let head = |more| match policy.format {
            LogFormat::Text => LogLine::text_head(time, stream, more),
            LogFormat::Json => LogLine::json_head(time, group, stream),
        };
        Self { format: policy.format, head: head(false), head_of_more: head(true) }
    }

    /// Appends a line, or a part of one that goes on.
    pub(super) fn line(&self, out: &mut Vec<u8>, raw: &[u8], more: bool) {
        out.extend_from_slice(if more { &self.head_of_more } else { &self.head }.as_bytes());
        match self.format {
            // As it is: whoever reads it sees what the service wrote.
            LogFormat::Text => out.extend_from_slice(raw),
            LogFormat::Json => json(out, raw, more),
        }
        out.push(b'\n');
    }
}

fn json(out: &mut Vec<u8>, raw: &[u8], more: bool) {
    if is_plain(raw) {
        out.extend_from_slice(raw);
        out.extend_from_slice(if more { b"\",\"more\":true}" } else { b"\"}" });
        return;
    }
    let text = String::from_utf8_lossy(raw);
    let bytes = matches!(text, std::borrow::Cow::Owned(_)).then(|| base64(raw));
    escape(out, text.as_bytes());
    out.extend_from_slice(LogLine::json_tail(bytes.as_deref(), more).as_bytes());
}

/// Whether it stands in JSON as it is. Looks at every byte, which compilers do many at a time.
fn is_plain(raw: &[u8]) -> bool {
    raw.iter().fold(true, |plain, byte| plain & (0x20..0x80).contains(byte) & (*byte != b'"') & (*byte != b'\\'))
}

fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
}

/// Lines on their way to where they are kept, written together.
pub(super) struct Lines<'a> {
    sink: &'a mut Sink,
    text: &'a mut Vec<u8>,
    form: Form,
    stream: LogStream,
    time: Timestamp,
    /// So many are known already.
    pub(super) known: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn new(sink: &'a mut Sink, text: &'a mut Vec<u8>, stream: LogStream, time: Timestamp) -> Self {
        let form = Form::new(&sink.file.policy, &sink.group, stream, time);
        Self { sink, text, form, stream, time, known: 0 }
    }

    /// Takes whole lines, and of one that has no end yet, all but what may become one part. With `all`, the rest as well: it
    /// waits in `partial` for its end. Says how many bytes were taken.
    pub(super) fn take(&mut self, partial: &mut Vec<u8>, bytes: &[u8], all: bool) -> usize {
        let mut rest = bytes;
        while let Some(end) = end_of_line(rest) {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            if partial.is_empty() {
                self.split(line, true);
            } else {
                let mut whole = std::mem::take(partial);
                whole.extend_from_slice(line);
                self.split(&whole, true);
                if whole.capacity() <= KEPT_BYTES {
                    whole.clear();
                    *partial = whole;
                }
            }
            rest = after;
        }
        if all || !partial.is_empty() {
            partial.extend_from_slice(rest);
            rest = &[];
            let taken = self.split(partial, false);
            partial.drain(..taken);
        } else {
            rest = &rest[self.split(rest, false)..];
        }
        bytes.len() - rest.len()
    }

    /// Logs one line in parts of bounded length; of one that goes on, only the full parts. Says how much was taken.
    fn split(&mut self, line: &[u8], whole: bool) -> usize {
        let mut rest = line;
        while rest.len() > LOG_LINE_MAX_BYTES {
            // Not within a character: at most three bytes of UTF-8 follow its first.
            let back = (0..4).find(|back| rest[LOG_LINE_MAX_BYTES - back] & 0xc0 != 0x80).unwrap_or(0);
            let (part, after) = rest.split_at(LOG_LINE_MAX_BYTES - back);
            self.line(part, true);
            rest = after;
        }
        if whole {
            self.line(rest, false);
            rest = &[];
        }
        line.len() - rest.len()
    }

    pub(super) fn line(&mut self, line: &[u8], more: bool) {
        if self.known > 0 {
            self.known -= 1;
            return;
        }
        self.form.line(self.text, line, more);
        if let Some(forward) = &mut self.sink.forward {
            forward.line(self.stream, line, more, self.time);
        }
        if self.text.len() >= WRITE_BYTES {
            self.write();
        }
    }

    /// Writes what has come together.
    pub(super) fn write(&mut self) {
        if !self.text.is_empty() {
            self.sink.file.append(self.text, self.time);
            self.text.clear();
        }
        if let Some(forward) = &mut self.sink.forward {
            forward.flush(self.time);
        }
    }
}

/// Where the next newline is.
pub(super) fn end_of_line(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let passed = rest.skip_until(b'\n').ok().filter(|passed| *passed > 0)?;
    (bytes[passed - 1] == b'\n').then_some(passed - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(format: LogFormat, raw: &[u8], more: bool) -> Vec<u8> {
        let group: GroupName = "web".parse().unwrap();
        let policy = LogPolicy { format, ..LogPolicy::default() };
        let mut out = Vec::new();
        Form::new(&policy, &group, LogStream::Stderr, Timestamp(1_767_225_600_000)).line(&mut out, raw, more);
        out
    }

    #[test]
    fn every_byte_can_be_had_back_from_both_forms() {
        let group: GroupName = "web".parse().unwrap();
        let every: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
        let texts = [&b""[..], b"plain", b"\xc3\xa4 \"\\\x7f\t\x01\0", b" two  spaces ", &every];
        for (raw, more) in texts.into_iter().flat_map(|raw| [(raw, false), (raw, true)]) {
            let wanted = LogLine { more, ..LogLine::new(Timestamp(1_767_225_600_000), group.clone(), LogStream::Stderr, raw) };
            for format in [LogFormat::Text, LogFormat::Json] {
                let written = lines(format, raw, more);
                let line = written.strip_suffix(b"\n").unwrap();
                assert!(!line.contains(&b'\n'));
                assert_eq!(LogLine::parse(&group, line).as_ref(), Some(&wanted), "{format:?}");
            }
            assert_eq!(lines(LogFormat::Json, raw, more), [serde_json::to_vec(&wanted).unwrap(), b"\n".to_vec()].concat());
            assert!(lines(LogFormat::Text, raw, more).windows(raw.len().max(1)).any(|part| part == raw) || raw.is_empty());
        }
    }

    #[test]
    fn an_end_is_found_wherever_it_is() {
        assert_eq!(end_of_line(b""), None);
        assert_eq!(end_of_line(b"abc"), None);
        assert_eq!(end_of_line(b"\nabc"), Some(0));
        assert_eq!(end_of_line(b"abc\n"), Some(3));
    }
}
