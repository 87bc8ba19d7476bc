//! `tagfall check`: needs no supervisor.
//!
//! Looks at everything that a supervisor would refuse a tag for: paths, manifests with every ring's overlay, templates of all
//! groups. It does not look at hosts: whether a program or a user is there, only the host can say.

mod templates;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::repository::{self, Reading, Unread};
use super::text::{BAD, DIM, GOOD, WARN};
use super::{CliError, Context, Exit, Form, place};
use crate::manifest::{Diagnostic, Severity};
use crate::model::{Group, GroupName, TreeFile};
use crate::plan::not_carried_out;
use crate::source::Tree;

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Shows every error at once, each with its file, line and column: of the paths, of every group.toml, of the \
    overlays of every ring, and of all templates, rendered with the config that Git holds. A `warning` refuses nothing; a \
    `note` names what this version reads and does not carry out. With `-o json` it is a list of `{severity, file, line, column, \
    message, hint}`. Exit codes: 0 no errors · 1 errors · 2 it could not look.\n\n\
    Examples:\n  tagfall check                          the folder as it stands, committed or not\n  \
    tagfall check . --tag v1.4.0           what a supervisor would make of this tag\n  \
    tagfall check . --ring staging -o json with the overlays of this ring alone, for a program"
)]
pub(super) struct Args {
    /// The configuration repository
    #[arg(value_name = "DIR", default_value = ".", value_hint = clap::ValueHint::DirPath)]
    pub(super) dir: PathBuf,
    /// Check the tree of this tag instead of the folder's files
    #[arg(long, value_name = "TAG")]
    pub(super) tag: Option<String>,
    /// With the overlays of this ring [default: without, then once with each]
    #[arg(long, value_name = "RING")]
    pub(super) ring: Option<String>,
    #[command(flatten)]
    pub(super) form: Form,
}

/// Everything there is to say of one tree.
#[derive(Default)]
struct Report {
    found: Vec<Diagnostic>,
    /// What this version does not carry out → where it is declared.
    notes: BTreeMap<String, Vec<String>>,
    groups: usize,
    files: usize,
}

/// A note in the form of a diagnostic.
#[derive(Serialize)]
struct Note<'a> {
    severity: &'static str,
    file: &'a str,
    line: usize,
    column: usize,
    message: &'a str,
    hint: Option<&'a str>,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let report = match repository::read(&args.dir, args.tag.as_deref()) {
        Ok(tree) => look(&tree, args.ring.as_deref()),
        Err(Unread::Refused(found)) => Report { found: vec![*found], ..Report::default() },
        Err(Unread::Failed(error)) => return Err(error),
    };
    if args.form.is_json() {
        context.out.bytes(&report.json()?)?;
    } else {
        context.out.text(&report.text())?;
    }
    Ok(if report.count(Severity::Error) == 0 { Exit::Done } else { Exit::Failed })
}

/// Looks at a tree: with one ring's overlays, or without any and then with each.
fn look(tree: &Tree, ring: Option<&str>) -> Report {
    let reading = Reading::of(&tree.files, ring);
    let folders = repository::folders(&tree.files);
    let mut found: Vec<Diagnostic> = reading.found.clone();
    found.extend(too_old(&reading, &tree.files));
    if folders.is_empty() && !reading.has_errors() {
        found.push(no_groups());
    }
    let templates = templates::Templates::new(tree, &folders);
    let mut told = BTreeSet::new();
    templates.check(&reading.groups, ring, &mut told, &mut found);
    if ring.is_none() {
        for ring in repository::rings(&tree.files) {
            let mut groups = Reading::of(&tree.files, Some(ring)).groups;
            let changed = |name: &GroupName| folders.get(name).is_some_and(|folder| has_overlay(&tree.files, folder, ring));
            groups.retain(|name, _| changed(name));
            templates.check(&groups, Some(ring), &mut told, &mut found);
        }
    }
    found.sort_by(|a, b| (&a.file, a.line, a.column, a.severity).cmp(&(&b.file, b.line, b.column, b.severity)));
    let notes = notes(reading.groups.values().map(AsRef::as_ref), &folders);
    Report { found, notes, groups: folders.len(), files: tree.files.len() }
}

/// Files are sorted by path.
fn has_overlay(files: &[TreeFile], folder: &str, ring: &str) -> bool {
    let path = format!("{folder}/rings/{ring}.toml");
    files.binary_search_by(|file| file.path.as_str().cmp(&path)).is_ok()
}

fn too_old(reading: &Reading, files: &[TreeFile]) -> Option<Diagnostic> {
    let needed = reading.too_old()?;
    let file = "tagfall.toml";
    let text = files.iter().find(|entry| entry.path == file).and_then(|entry| entry.content.as_deref());
    let place = text.and_then(|text| place::of(std::str::from_utf8(text).ok()?, "min_version", None));
    let (line, column) = place.map_or((1, 1), |place| (place.line, place.column));
    let message = format!("this repository needs Tagfall {needed}, and this is {}", env!("CARGO_PKG_VERSION"));
    let hint = Some("check it with a newer `tagfall`; older supervisors refuse it".to_owned());
    Some(Diagnostic { severity: Severity::Error, file: file.to_owned(), line, column, message, hint })
}

fn no_groups() -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        file: "groups".to_owned(),
        line: 1,
        column: 1,
        message: "there is no group: a supervisor that takes this tree stops and removes all that it runs".to_owned(),
        hint: Some("each group is a folder `groups/NAME` with a `group.toml`".to_owned()),
    }
}

/// What groups declare that this version does not carry out, each once with all its groups.
fn notes<'a>(groups: impl Iterator<Item = &'a Group>, folders: &BTreeMap<GroupName, String>) -> BTreeMap<String, Vec<String>> {
    let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for group in groups {
        let mut said = not_carried_out(group);
        if group.service.is_some() && group.mount.is_some() && group.files.len() > 1 {
            said.push(
                "without the right to mount, a service may read old and new files together while they are switched: a reload \
                 or restart follows"
                    .to_owned(),
            );
        }
        let folder = folders.get(&group.name).cloned().unwrap_or_else(|| group.name.to_string());
        for words in said {
            notes.entry(words).or_default().push(folder.clone());
        }
    }
    notes
}

/// So many groups are named in a note.
const NAMED_MAX: usize = 3;
const NOTE: Style = AnsiColor::Cyan.on_default();

impl Report {
    fn count(&self, severity: Severity) -> usize {
        self.found.iter().filter(|found| found.severity == severity).count()
    }

    fn json(&self) -> Result<Vec<u8>, CliError> {
        let failed = |error| CliError::could_not_run("put the findings into JSON", error);
        let mut list = Vec::new();
        for found in &self.found {
            list.push(serde_json::to_value(found).map_err(failed)?);
        }
        for (message, folders) in &self.notes {
            for folder in folders {
                let file = &format!("{folder}/group.toml");
                let note = Note { severity: "note", file, line: 1, column: 1, message, hint: None };
                list.push(serde_json::to_value(note).map_err(failed)?);
            }
        }
        let mut bytes = serde_json::to_vec_pretty(&list).map_err(failed)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn text(&self) -> String {
        let mut out: String = self.found.iter().map(shown).collect();
        for (message, folders) in &self.notes {
            let mut named: Vec<&str> = folders.iter().take(NAMED_MAX).map(String::as_str).collect();
            let more = format!("{} more", folders.len() - named.len());
            if folders.len() > NAMED_MAX {
                named.push(&more);
            }
            out.push_str(&format!("{NOTE}note{NOTE:#}: {message} {DIM}({}){DIM:#}\n", named.join(", ")));
        }
        out.push_str(&self.summary());
        out
    }

    fn summary(&self) -> String {
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        let warned = if warnings == 0 { String::new() } else { format!(", {}", counted(warnings, "warning")) };
        if errors > 0 {
            let errors = counted(errors, "error");
            return format!("{errors}{warned}. This tree would be refused whole; a running release would stay.\n");
        }
        let (groups, files) = (counted(self.groups, "group"), counted(self.files, "file"));
        format!("{GOOD}no errors{GOOD:#}{warned}: {groups}, {files}\n")
    }
}

fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// A diagnostic with the colour of its severity.
pub(super) fn shown(found: &Diagnostic) -> String {
    let style = match found.severity {
        Severity::Error => BAD,
        Severity::Warning => WARN,
    };
    let text = found.to_string();
    let (word, rest) = text.split_once(':').unwrap_or(("", &text));
    format!("{style}{word}{style:#}:{rest}\n")
}
