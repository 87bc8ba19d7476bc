//! What a service writes: its lines, how they are kept and passed on, and how many were lost.
//!
//! A line has two written forms, text and JSON; both are written by the keeper and read here, so that neither side can drift
//! from the other. Every byte of a line but its newline can be had back from either form.

use std::fmt;
use std::str::FromStr;

use super::{GroupName, Timestamp};

/// Which of its outputs a service wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// As JSON and status write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Its letter in a line of text.
    pub const fn letter(self) -> char {
        match self {
            Self::Stdout => 'o',
            Self::Stderr => 'e',
        }
    }
}

/// One line of a service's output, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogLine {
    /// When it was read.
    pub time: Timestamp,
    /// Who wrote it.
    pub group: GroupName,
    /// Where it was written.
    pub stream: LogStream,
    /// Without its newline; what is not UTF-8 is replaced, and then `bytes` has all of it.
    pub line: String,
    /// Base64 of the line as it was written, where that is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// Whether the line was too long and goes on in the next one of its stream.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Follows the letter of the stream in a line of text that goes on.
const MORE: &str = "+";

impl LogLine {
    /// A line as it was written.
    pub fn new(time: Timestamp, group: GroupName, stream: LogStream, raw: &[u8]) -> Self {
        let line = String::from_utf8_lossy(raw);
        let bytes = matches!(line, std::borrow::Cow::Owned(_)).then(|| base64(raw));
        Self { time, group, stream, line: line.into_owned(), bytes, more: false }
    }

    /// What stands before a line of text: `TIME o|e `, with a `+` behind the letter where the line goes on.
    pub fn text_head(time: Timestamp, stream: LogStream, more: bool) -> String {
        format!("{time} {}{} ", stream.letter(), if more { MORE } else { "" })
    }

    /// What stands before the line itself in its JSON.
    pub fn json_head(time: Timestamp, group: &GroupName, stream: LogStream) -> String {
        // Neither a time nor a group's name has anything that JSON would escape.
        format!("{{\"time\":\"{time}\",\"group\":\"{group}\",\"stream\":\"{}\",\"line\":\"", stream.name())
    }

    /// What stands behind the line in its JSON, which has no newline of its own.
    pub fn json_tail(bytes: Option<&str>, more: bool) -> String {
        let bytes = bytes.map(|bytes| format!(",\"bytes\":\"{bytes}\"")).unwrap_or_default();
        format!("\"{bytes}{}}}", if more { ",\"more\":true" } else { "" })
    }

    /// Reads a line of a log file without its newline, in either form. `None` for what the keeper did not write.
    pub fn parse(group: &GroupName, line: &[u8]) -> Option<Self> {
        if line.first() == Some(&b'{') {
            return serde_json::from_slice(line).ok();
        }
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let (time, stream, raw) = (words.next()?, words.next()?, words.next()?);
        let time = humantime::parse_rfc3339(std::str::from_utf8(time).ok()?).ok()?;
        let time = time.duration_since(std::time::UNIX_EPOCH).ok()?;
        let time = Timestamp(u64::try_from(time.as_millis()).ok()?);
        let (stream, more) = match stream {
            b"o" => (LogStream::Stdout, false),
            b"e" => (LogStream::Stderr, false),
            b"o+" => (LogStream::Stdout, true),
            b"e+" => (LogStream::Stderr, true),
            _ => return None,
        };
        Some(Self { more, ..Self::new(time, group.clone(), stream, raw) })
    }
}

/// Bytes as text that every program can read back (RFC 4648, with padding).
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * at) & 63) as usize];
            text.push(if at > three.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

/// Which of a service's lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogFilter {
    /// Only so many of those that match, the last ones that are kept; `None` = all of them.
    pub lines: Option<usize>,
    /// Not older than this.
    pub since: Option<Timestamp>,
    /// Only with this text in them, as it stands.
    pub grep: Option<String>,
}

impl LogFilter {
    /// Whether a line is wanted, its place among the last ones aside.
    pub fn matches(&self, line: &LogLine) -> bool {
        self.since.is_none_or(|since| line.time >= since) && self.grep.as_ref().is_none_or(|text| line.line.contains(text))
    }
}

/// How the lines of a service are kept and passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPolicy {
    /// A file is closed before it grows beyond so many bytes.
    pub max_size: u64,
    /// How many files there are, the one being written included.
    pub files: u32,
    /// How lines are written.
    pub format: LogFormat,
    /// Who gets them as well.
    pub forward: LogForward,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self { max_size: 1 << 20, files: 3, format: LogFormat::Text, forward: LogForward::None }
    }
}

/// What a file says of [`LogPolicy`]; what it leaves out is taken from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogSettings {
    /// See [`LogPolicy::max_size`].
    pub max_size: Option<u64>,
    /// See [`LogPolicy::files`].
    pub files: Option<u32>,
    /// See [`LogPolicy::format`].
    pub format: Option<LogFormat>,
    /// See [`LogPolicy::forward`].
    pub forward: Option<LogForward>,
}

impl LogSettings {
    /// Laid over what holds where they say nothing.
    pub fn over(&self, below: &LogPolicy) -> LogPolicy {
        LogPolicy {
            max_size: self.max_size.unwrap_or(below.max_size),
            files: self.files.unwrap_or(below.files),
            format: self.format.unwrap_or(below.format),
            forward: self.forward.clone().unwrap_or_else(|| below.forward.clone()),
        }
    }
}

/// `format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// `TIME o|e LINE`.
    Text,
    /// One JSON object per line.
    Json,
}

/// `forward`: who gets each line as well, and at which socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogForward {
    /// Nobody.
    None,
    /// journald, by its native protocol.
    Journald(String),
    /// A syslog daemon, as programs of this host reach it.
    Syslog(String),
}

impl LogForward {
    /// Where journald listens.
    pub const JOURNALD: &str = "/run/systemd/journal/socket";
    /// Where a syslog daemon listens.
    pub const SYSLOG: &str = "/dev/log";

    /// Longest path of a socket in bytes.
    const PATH_MAX_BYTES: usize = 107;
}

impl FromStr for LogForward {
    type Err = ();

    /// `none`, or `journald` or `syslog`, with `:PATH` where the socket is not at its usual place.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (name, path) = text.split_once(':').map_or((text, None), |(name, path)| (name, Some(path)));
        let fits = |path: &&str| path.starts_with('/') && path.len() <= Self::PATH_MAX_BYTES && !path.contains(char::is_control);
        if path.is_some_and(|path| !fits(&path)) {
            return Err(());
        }
        match (name, path) {
            ("none", None) => Ok(Self::None),
            ("journald", path) => Ok(Self::Journald(path.unwrap_or(Self::JOURNALD).to_owned())),
            ("syslog", path) => Ok(Self::Syslog(path.unwrap_or(Self::SYSLOG).to_owned())),
            _ => Err(()),
        }
    }
}

impl fmt::Display for LogForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Journald(path) => write!(f, "journald:{path}"),
            Self::Syslog(path) => write!(f, "syslog:{path}"),
        }
    }
}

/// What of a service's lines got lost, since its keeper began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogLosses {
    /// Lines that are on no disk.
    pub lines: u64,
    /// Bytes of these lines, as they would have been written.
    pub bytes: u64,
    /// Lines that were not forwarded.
    pub unforwarded: u64,
    /// What goes wrong now; empty where nothing does.
    pub trouble: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupName {
        "web".parse().unwrap()
    }

    #[test]
    fn text_reads_back_and_rubbish_does_not() {
        let parse = |line: &[u8]| LogLine::parse(&group(), line);
        let line = parse(b"2026-01-01T00:00:00.000Z o one  two ").unwrap();
        assert_eq!((line.line.as_str(), line.stream, line.bytes, line.more), ("one  two ", LogStream::Stdout, None, false));
        let line = parse(b"2026-01-01T00:00:00.001Z e+ a\0\xffb").unwrap();
        assert_eq!((line.line.as_str(), line.stream, line.more), ("a\0\u{fffd}b", LogStream::Stderr, true));
        assert_eq!(line.bytes.as_deref(), Some("YQD/Yg=="));
        for bad in ["", "rubbish", "2026-01-01T00:00:00.000Z x y", "2026-01-01T00:00:00.000Z o", "{\"time\":1}", "{"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn json_is_written_as_serde_writes_it() {
        for (raw, more) in [(&b"plain"[..], false), (b"", true), (b"\xff\xfe\0", true)] {
            let line = LogLine { more, ..LogLine::new(Timestamp(7), group(), LogStream::Stderr, raw) };
            let head = LogLine::json_head(line.time, &line.group, line.stream);
            let tail = LogLine::json_tail(line.bytes.as_deref(), line.more);
            let text = serde_json::to_string(&line.line).unwrap();
            let written = format!("{head}{}{tail}", &text[1..text.len() - 1]);
            assert_eq!(written, serde_json::to_string(&line).unwrap());
            assert_eq!(LogLine::parse(&"other".parse().unwrap(), written.as_bytes()), Some(line));
        }
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        let pairs = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(pairs, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn a_destination_reads_back() {
        let read = |text: &str| text.parse::<LogForward>();
        assert_eq!(read("journald"), Ok(LogForward::Journald(LogForward::JOURNALD.to_owned())));
        assert_eq!(read("syslog:/run/x"), Ok(LogForward::Syslog("/run/x".to_owned())));
        for text in ["none", "journald:/a/b", "syslog:/dev/log"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        for bad in ["", "Journald", "none:/x", "syslog:", "syslog:relative", "journald:/a\nb"] {
            assert_eq!(read(bad), Err(()), "{bad:?}");
        }
        assert_eq!(read(&format!("syslog:/{}", "x".repeat(107))), Err(()));
    }

    #[test]
    fn what_is_not_said_is_taken_from_below() {
        let below = LogPolicy { files: 9, ..LogPolicy::default() };
        let settings = LogSettings { max_size: Some(5), ..LogSettings::default() };
        assert_eq!(settings.over(&below), LogPolicy { max_size: 5, ..below });
    }
}
