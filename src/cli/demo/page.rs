//! How the demo looks: numbered steps, facts, events in columns. It decides nothing.

use super::CliError;
use crate::api::wire::{Event, EventKind, Status};
use crate::cli::text::{Cell, DIM, GOOD, NAME, Out, PLAIN, WARN, columns, now, word};
use crate::model::Timestamp;

/// Stands before everything below a title.
const INDENT: &str = "   ";
/// Widths of the columns of events: the longest name and the longest reason that the demo causes.
const WHEN_CHARS: usize = 12;
const OBJECT_CHARS: usize = 15;
const REASON_CHARS: usize = 10;

/// When something happened.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    /// So long after this.
    Since(Timestamp),
    /// By the clock.
    Clock,
}

/// Writes the demo's text.
#[derive(Debug)]
pub(super) struct Page {
    out: Out,
}

impl Page {
    pub(super) fn new(out: Out) -> Self {
        Self { out }
    }

    /// A line of text.
    pub(super) fn say(&self, text: &str) -> Result<(), CliError> {
        self.out.text(&format!("{text}\n"))
    }

    /// The beginning of a step.
    pub(super) fn step(&self, number: u8, title: &str) -> Result<(), CliError> {
        self.out.text(&format!("\n{GOOD}{number}{GOOD:#}  {NAME}{title}{NAME:#}\n"))
    }

    /// Text below a title.
    pub(super) fn text(&self, text: &str) -> Result<(), CliError> {
        self.out.text(&text.lines().map(|line| format!("{}\n", format!("{INDENT}{line}").trim_end())).collect::<String>())
    }

    /// Something to remember, by its name.
    pub(super) fn facts(&self, facts: &[(&str, String)]) -> Result<(), CliError> {
        let row = |(name, value): &(&str, String)| vec![Cell((*name).to_owned(), DIM), Cell(value.clone(), PLAIN)];
        self.text(&columns(&facts.iter().map(row).collect::<Vec<_>>(), None))
    }

    /// Lines to type.
    pub(super) fn commands(&self, lines: &[String]) -> Result<(), CliError> {
        self.text(&lines.iter().map(|line| format!("{GOOD}{line}{GOOD:#}\n")).collect::<String>())
    }

    /// Lines to type, and what each is for.
    pub(super) fn explained(&self, lines: &[(String, &str)]) -> Result<(), CliError> {
        let row = |(line, why): &(String, &str)| vec![Cell(line.clone(), GOOD), Cell(format!("  {why}"), DIM)];
        self.text(&columns(&lines.iter().map(row).collect::<Vec<_>>(), None))
    }

    /// A command whose output follows.
    pub(super) fn prompt(&self, line: &str) -> Result<(), CliError> {
        self.text(&format!("{DIM}$ {line}{DIM:#}"))
    }

    /// The status, as the command shows it.
    pub(super) fn status(&self, status: &Status) -> Result<(), CliError> {
        let width = Out::width().map(|width| width.saturating_sub(INDENT.len()));
        self.text(&crate::cli::status::all(status, now(), width))
    }

    /// What happened.
    pub(super) fn event(&self, when: When, event: &Event) -> Result<(), CliError> {
        let style = match event.kind {
            EventKind::Normal => GOOD,
            EventKind::Warning => WARN,
        };
        self.row(when, event.time, &event.object, Cell(word(&event.reason), style), &event.message)
    }

    /// What the service answers.
    pub(super) fn answer(&self, when: When, time: Timestamp, address: &str, text: &str) -> Result<(), CliError> {
        self.row(when, time, address, Cell("answers".to_owned(), NAME), text)
    }

    fn row(&self, when: When, time: Timestamp, object: &str, reason: Cell, message: &str) -> Result<(), CliError> {
        let when = match when {
            When::Since(begun) => format!("+{} ms", time.0.saturating_sub(begun.0)),
            // The time of day of an RFC 3339 time.
            When::Clock => time.to_string().chars().skip_while(|c| *c != 'T').skip(1).take(WHEN_CHARS).collect(),
        };
        let Cell(reason, style) = reason;
        let width = Out::width().map(|width| width.saturating_sub(INDENT.len()));
        let cells = [
            Cell(format!("{when:>WHEN_CHARS$} "), DIM),
            Cell(format!("{object:OBJECT_CHARS$}"), NAME),
            Cell(format!("{reason:REASON_CHARS$}"), style),
            Cell(message.to_owned(), PLAIN),
        ];
        self.text(&columns(&[cells.into()], width))
    }

    /// Something beside the show, on standard error.
    pub(super) fn aside(&self, text: &str) {
        self.out.talk(&format!("{text}\n"));
    }
}
