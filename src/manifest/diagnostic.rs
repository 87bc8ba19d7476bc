//! Diagnostics and where they point. `Report` collects them over all sources; it may not print or decide what follows.
//! A new source (a file, a variable, an option) is added with [`Report::source`] before nodes can point into it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// So many diagnostics are listed per file; the last one says that there are more.
const PER_FILE_MAX: usize = 100;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The release, or the settings, are refused.
    Error,
    /// Worth a look; nothing is refused.
    Warning,
}

/// One thing that is wrong, where, and what may have been meant.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Path from the repository's root; a variable's or option's name where the text came from there.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    /// Two or three lines, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}\n  --> {}:{}:{}", self.message, self.file, self.line, self.column)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// A place in a source: small, so that every value can carry one. Line and column are worked out only when they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    /// Number of the source in its [`Report`].
    pub(crate) source: u32,
    /// Byte offset into its text.
    pub(crate) offset: u32,
}

struct Source {
    name: String,
    text: Arc<[u8]>,
    /// Byte offsets of line starts, once somebody asked.
    lines: Vec<usize>,
    /// Lines with a syntax error: what else is wrong on them follows from it and is not told.
    broken: BTreeSet<usize>,
    /// Lines whose syntax error was told: what the parser finds after it on the same line follows from it too.
    told_syntax: BTreeSet<usize>,
    told: usize,
}

impl Source {
    fn position(&mut self, offset: usize) -> (usize, usize) {
        if self.lines.is_empty() {
            self.lines.push(0);
            self.lines.extend(self.text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1));
        }
        let offset = offset.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        // Editors count no byte order mark.
        let before = before.strip_prefix("\u{feff}".as_bytes()).unwrap_or(before);
        (line.max(1), String::from_utf8_lossy(before).chars().count() + 1)
    }

    fn starts_with_bracket(&self, line: usize) -> bool {
        let start = line.checked_sub(1).and_then(|at| self.lines.get(at)).copied().unwrap_or(self.text.len());
        let rest = self.text.get(start..).unwrap_or_default();
        rest.iter().find(|byte| !matches!(byte, b' ' | b'\t')) == Some(&b'[')
    }

    /// Marks a line; of a broken table header, all keys below it too, since they fall to another table.
    fn break_line(&mut self, line: usize) {
        let mut last = line;
        if self.starts_with_bracket(line) {
            while last < self.lines.len() && !self.starts_with_bracket(last + 1) {
                last += 1;
            }
        }
        self.broken.extend(line..=last);
    }
}

/// All diagnostics of one run, each told once.
#[derive(Default)]
pub(crate) struct Report {
    sources: Vec<Source>,
    found: BTreeMap<(u32, usize, usize, Severity, String), Option<String>>,
    errors: usize,
}

impl Report {
    /// Adds a text that nodes may point into.
    pub(crate) fn source(&mut self, name: impl Into<String>, text: Arc<[u8]>) -> At {
        let source = u32::try_from(self.sources.len()).unwrap_or(u32::MAX);
        let (lines, broken, told_syntax) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        self.sources.push(Source { name: name.into(), text, lines, broken, told_syntax, told: 0 });
        At { source, offset: 0 }
    }

    /// Whether anything was found that refuses the whole.
    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// How many errors were found so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// An error without a hint.
    pub(crate) fn error(&mut self, at: At, message: impl Into<String>) {
        self.add(Severity::Error, at, message.into(), None);
    }

    /// An error with a hint, where there is one.
    pub(crate) fn error_with(&mut self, at: At, message: impl Into<String>, hint: Option<String>) {
        self.add(Severity::Error, at, message.into(), hint);
    }

    /// A warning.
    pub(crate) fn warning(&mut self, at: At, message: impl Into<String>, hint: Option<String>) {
        self.add(Severity::Warning, at, message.into(), hint);
    }

    /// A syntax error: silences what else is found on its line.
    pub(crate) fn syntax(&mut self, at: At, message: impl Into<String>) {
        let Some(source) = self.sources.get_mut(at.source as usize) else { return };
        let (line, _) = source.position(at.offset as usize);
        if !source.told_syntax.insert(line) {
            return;
        }
        source.broken.remove(&line);
        self.error(at, message);
        if let Some(source) = self.sources.get_mut(at.source as usize) {
            source.break_line(line);
        }
    }

    fn add(&mut self, severity: Severity, at: At, message: String, hint: Option<String>) {
        let Some(source) = self.sources.get_mut(at.source as usize) else { return };
        if severity == Severity::Error {
            self.errors += 1;
        }
        if source.told > PER_FILE_MAX {
            return;
        }
        let (line, column) = source.position(at.offset as usize);
        if source.broken.contains(&line) {
            return;
        }
        let key = (at.source, line, column, severity, message);
        if self.found.contains_key(&key) {
            return;
        }
        source.told += 1;
        match source.told > PER_FILE_MAX {
            true => {
                let more = format!("this file has more than {PER_FILE_MAX} errors; the others are not listed");
                self.found.insert((at.source, line, column, severity, more), None);
            }
            false => {
                self.found.insert(key, hint);
            }
        }
    }

    /// What was found, in order of file, line and column.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        let Self { sources, found, .. } = self;
        let told = found.into_iter().map(|((source, line, column, severity, message), hint)| {
            let file = sources.get(source as usize).map_or_else(String::new, |source| source.name.clone());
            Diagnostic { severity, file, line, column, message, hint }
        });
        let mut told: Vec<_> = told.collect();
        told.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        told
    }
}

/// The known name that is closest to what was written, where one is close enough to have been meant.
pub(crate) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = written.to_lowercase();
    let close = known.into_iter().map(|name| (strsim::damerau_levenshtein(&folded, &name.to_lowercase()), name));
    let allowed = (written.chars().count() / 3).clamp(1, 4);
    close.filter(|(distance, _)| *distance <= allowed).min().map(|(_, name)| name)
}

/// The hint that names the nearest known name.
pub(crate) fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, known).map(|name| format!("did you mean `{name}`?"))
}
