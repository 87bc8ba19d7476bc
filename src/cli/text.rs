//! Text for people: columns, colours by meaning, time that has passed.

use std::io::{IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use super::error::CliError;
use crate::model::{ObjectId, Timestamp};

/// As it should be.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// On its way, or worth a look.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// Somebody must act.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// Beside the point.
pub(crate) const DIM: Style = Style::new().dimmed();
/// What a line is about.
pub(crate) const NAME: Style = Style::new().bold();
/// Nothing special.
pub(crate) const PLAIN: Style = Style::new();

/// Digits of a commit that are shown, as Git does.
const COMMIT_DIGITS: usize = 7;
/// Narrowest last column that is worth wrapping into.
const WRAP_MIN_CHARS: usize = 20;

/// Standard output: data, and nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    /// When colours are written.
    pub(crate) color: ColorChoice,
}

impl Out {
    /// Writes text; colours are taken out where they are not wanted.
    pub(crate) fn text(self, text: &str) -> Result<(), CliError> {
        let mut stream = AutoStream::new(std::io::stdout(), self.color);
        stream.write_all(text.as_bytes()).and_then(|()| stream.flush()).map_err(CliError::Output)
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stream = std::io::stdout();
        stream.write_all(bytes).and_then(|()| stream.flush()).map_err(CliError::Output)
    }

    /// Says something on standard error.
    pub(crate) fn talk(self, text: &str) {
        let mut stream = AutoStream::new(std::io::stderr(), self.color);
        let _ = stream.write_all(text.as_bytes());
    }

    /// Whether a person reads along.
    pub(crate) fn is_terminal() -> bool {
        std::io::stdout().is_terminal()
    }

    /// Columns of the terminal; `None` where there is none, and lines are as long as they are.
    pub(crate) fn width() -> Option<usize> {
        Self::is_terminal().then(terminal_size::terminal_size)?.map(|(width, _)| usize::from(width.0))
    }
}

/// One cell of a table.
pub(crate) struct Cell(pub(crate) String, pub(crate) Style);

/// A cell in plain text.
pub(crate) fn cell(text: impl Into<String>) -> Cell {
    Cell(text.into(), PLAIN)
}

/// Rows as aligned columns. The last cell of a row is free text: wrapped below itself where the terminal is narrower.
pub(crate) fn columns(rows: &[Vec<Cell>], width: Option<usize>) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; count];
    for row in rows {
        let aligned = row.len().saturating_sub(1);
        for (at, Cell(text, _)) in row.iter().take(aligned).enumerate() {
            widths[at] = widths[at].max(text.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut indent = 0;
        let mut line = String::new();
        for (at, Cell(text, style)) in row.iter().enumerate() {
            if at + 1 < row.len() {
                let pad = widths[at] - text.chars().count();
                line.push_str(&format!("{style}{text}{style:#}{:pad$} ", ""));
                indent += widths[at] + 1;
            } else {
                let room = width.map(|width| width.saturating_sub(indent)).filter(|room| *room >= WRAP_MIN_CHARS);
                let lines = wrap(text, room).join(&format!("\n{:indent$}", ""));
                line.push_str(&format!("{style}{lines}{style:#}"));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn wrap(text: &str, room: Option<usize>) -> Vec<String> {
    let Some(room) = room else {
        return vec![text.to_owned()];
    };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let fresh = lines.last().is_some_and(|line| !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room);
        if fresh {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long ago, in one unit; `None` for less than a second, or for a time to come.
pub(crate) fn elapsed(since: Timestamp, now: Timestamp) -> Option<String> {
    let seconds = now.0.saturating_sub(since.0) / 1000;
    match seconds {
        0 => None,
        1..=119 => Some(format!("{seconds}s")),
        120..=7_199 => Some(format!("{}m", seconds / 60)),
        7_200..=172_799 => Some(format!("{}h", seconds / 3600)),
        _ => Some(format!("{}d", seconds / 86_400)),
    }
}

/// ` (3s)`, or nothing.
pub(crate) fn in_brackets(since: Timestamp, now: Timestamp) -> String {
    elapsed(since, now).map(|passed| format!(" ({passed})")).unwrap_or_default()
}

/// A time for people: to the second, in UTC.
pub(crate) fn second(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => text,
    }
}

/// The first digits of a commit.
pub(crate) fn commit(id: &ObjectId) -> String {
    id.to_string().chars().take(COMMIT_DIGITS).collect()
}

/// A name as the wire writes it.
pub(crate) fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_column_wraps_below_itself_and_only_on_a_terminal() {
        let rows = || vec![vec![cell("name"), cell("one two three four five six")], vec![cell("n"), cell("x")]];
        insta::assert_snapshot!(columns(&rows(), Some(26)), @r"
        name one two three four
             five six
        n    x
        ");
        assert_eq!(columns(&rows(), None), "name one two three four five six\nn    x\n");
    }

    #[test]
    fn a_clock_that_went_back_shows_no_time_passed() {
        assert_eq!(elapsed(Timestamp(5_000), Timestamp(1_000)), None);
        assert_eq!(elapsed(Timestamp(1_000), Timestamp(4_000)).as_deref(), Some("3s"));
        assert_eq!(elapsed(Timestamp(0), Timestamp(10 * 86_400_000)).as_deref(), Some("10d"));
    }
}
