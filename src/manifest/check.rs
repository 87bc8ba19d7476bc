//! The walker: a table as written against its [`Shape`]. It reports unknown keys with the nearest known name, wrong types,
//! ranges and syntaxes, and looks at everything before it stops. What values mean together is not its question.

use super::diagnostic::{At, Report, did_you_mean, nearest};
use super::node::{Node, Table, Value};
use super::shape::{Key, Kind, Shape, Text};
use super::text;
use crate::model::Signal;

/// Whether keys that must be there are asked for: an overlay or a broken file may leave them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Report,
    Allow,
}

/// Free keys begin so, in every table with known keys.
const FREE_PREFIX: &str = "x-";

/// Longer strings are not repeated in messages.
const SHOWN_MAX_BYTES: usize = 80;

/// Checks a table against its shape; `at` is where a missing key is reported.
pub(crate) fn table(report: &mut Report, shape: &'static Shape, at: At, table: &Table, missing: Missing) {
    for (name, entry) in &table.0 {
        match shape.key(name) {
            Some(key) => value(report, shape, key, &entry.node, missing),
            None if name.starts_with(FREE_PREFIX) => {}
            None => report.error_with(entry.key, unknown(shape, name), meant(shape, name)),
        }
    }
    if missing == Missing::Allow {
        return;
    }
    for key in shape.keys.iter().filter(|key| key.required && !table.0.contains_key(key.name)) {
        let message = match (&key.kind, shape.name) {
            (Kind::Table(below), _) => format!("{} is missing", below.name),
            (_, "") => format!("`{}` is missing", key.name),
            (_, name) => format!("`{}` is missing in {name}", key.name),
        };
        report.error_with(at, message, Some(key.doc.to_owned()));
    }
}

fn unknown(shape: &Shape, name: &str) -> String {
    match shape.name {
        "" => format!("unknown key `{name}`"),
        place => format!("unknown key `{name}` in {place}"),
    }
}

/// The key that was meant: by another tool's name for it, or by likeness.
fn meant(shape: &Shape, name: &str) -> Option<String> {
    let folded = name.to_lowercase().replace('-', "_");
    let known = shape.keys.iter().find(|key| key.also.contains(&folded.as_str()) || key.name == folded).map(|key| key.name);
    let known = known.or_else(|| nearest(name, shape.keys.iter().map(|key| key.name)));
    let known = known.or_else(|| {
        let also = nearest(&folded, shape.keys.iter().flat_map(|key| key.also).copied())?;
        shape.keys.iter().find(|key| key.also.contains(&also)).map(|key| key.name)
    });
    known.map(|name| format!("did you mean `{name}`?"))
}

fn value(report: &mut Report, shape: &'static Shape, key: &'static Key, node: &Node, missing: Missing) {
    let place = shape.place(key.name);
    kind(report, &place, &key.kind, node, missing);
}

/// Checks one value; `place` names it in messages.
fn kind(report: &mut Report, place: &str, wanted: &'static Kind, node: &Node, missing: Missing) {
    match (wanted, &node.value) {
        (Kind::Table(shape), Value::Table(below)) => table(report, shape, node.at, below, missing),
        (Kind::Data, Value::Table(_)) => node.check_data(report),
        (Kind::Map { keys, of }, Value::Table(below)) => {
            for (name, entry) in &below.0 {
                if !keys.accepts(name) {
                    report.error(entry.key, format!("the key `{}` in {place} must be {}", name.escape_debug(), keys.wanted()));
                }
                kind(report, &format!("`{name}` of {place}"), of, &entry.node, missing);
            }
        }
        (Kind::List { of, min }, Value::List(items)) => {
            if items.len() < *min {
                report.error(node.at, format!("{place} must be {}", wanted.wanted()));
            }
            for item in items {
                kind(report, &format!("each item of {place}"), of, item, missing);
            }
        }
        _ if wanted.accepts(node) => {}
        _ => mismatch(report, place, wanted, node),
    }
}

fn mismatch(report: &mut Report, place: &str, wanted: &'static Kind, node: &Node) {
    let written = match &node.value {
        Value::Text(text) if text.len() > SHOWN_MAX_BYTES => format!("a string of {} bytes", text.len()),
        // Quotes are shown where they may be the mistake.
        Value::Text(text) if wanted.is_text() => format!("`{}`", text.escape_debug()),
        Value::Text(text) => format!("`\"{}\"`", text.escape_debug()),
        Value::Integer(number) if accepts_numbers(wanted) => number.to_string(),
        Value::Float(number) if matches!(wanted, Kind::Number { .. }) => number.to_string(),
        Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Datetime(_) | Value::List(_) | Value::Table(_) => {
            node.value.kind().to_owned()
        }
    };
    let hint = node.text().and_then(|text| hint_for(wanted, text));
    let wanted = match (wanted, node.text()) {
        (Kind::Text(Text::MountPath), Some(path)) => text::mount_path(path).err().unwrap_or_else(|| wanted.wanted()),
        _ => wanted.wanted(),
    };
    report.error_with(node.at, format!("{place} must be {wanted}, not {written}"), hint);
}

fn accepts_numbers(wanted: &Kind) -> bool {
    matches!(wanted, Kind::Integer { .. } | Kind::Number { .. } | Kind::Count)
}

fn hint_for(wanted: &'static Kind, written: &str) -> Option<String> {
    match wanted {
        Kind::Choice(names) => did_you_mean(written, names.iter().copied()),
        Kind::Signal { or_restart } => {
            let restart = or_restart.then_some("restart");
            let full = format!("SIG{}", written.to_uppercase());
            let known: Vec<_> = Signal::names().chain(restart).collect();
            match known.iter().find(|name| **name == full) {
                Some(name) => Some(format!("did you mean `{name}`?")),
                None => did_you_mean(written, known),
            }
        }
        Kind::Bool if matches!(written, "true" | "false") => Some(format!("write {written} without quotes")),
        Kind::Integer { .. } | Kind::Number { .. } if written.parse::<f64>().is_ok() => {
            Some(format!("write {written} without quotes"))
        }
        Kind::List { .. } => Some("write a list: [\"…\", \"…\"]".to_owned()),
        Kind::Duration { .. } if text::duration(written).is_none() => {
            Some("units are ms, s, m, h and d; write 1500ms for one and a half seconds".to_owned())
        }
        Kind::Size { .. } if text::size(written).is_none() => Some("units are B, KiB, MiB, GiB, TiB, KB, MB and GB".to_owned()),
        Kind::Text(_)
        | Kind::Bool
        | Kind::Integer { .. }
        | Kind::Number { .. }
        | Kind::Count
        | Kind::Duration { .. }
        | Kind::Size { .. }
        | Kind::Map { .. }
        | Kind::Table(_)
        | Kind::Data => None,
    }
}
