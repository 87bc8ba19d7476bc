//! One config layer of its own: a user's TOML file, or the environment's TOML or JSON.

use std::sync::Arc;

use super::diagnostic::{At, Diagnostic, Report};
use super::node;

/// Reads a layer above the repository's: a TOML table, or (for the environment) a JSON object, told by its first
/// character. Whether its keys are those of the default layer is asked where layers are merged.
pub fn parse_config_layer(file: &str, text: &str) -> Result<serde_json::Value, Vec<Diagnostic>> {
    let mut report = Report::default();
    let bytes: Arc<[u8]> = text.as_bytes().into();
    let start = report.source(file, bytes.clone());
    let value = if text.trim_start().starts_with('{') {
        json(&mut report, start, text)
    } else {
        let parsed = node::parse(&mut report, start, &bytes);
        parsed.map(|node| {
            node.check_data(&mut report);
            node.to_json()
        })
    };
    match value {
        Some(value) if !report.has_errors() => Ok(value),
        _ => Err(report.finish()),
    }
}

fn json(report: &mut Report, start: At, text: &str) -> Option<serde_json::Value> {
    match serde_json::from_str(text) {
        Ok(value) => {
            if has_null(&value) {
                report.error(start, "`null` has no meaning in a config layer; leave the key out");
            }
            Some(value)
        }
        Err(error) => {
            let line_start = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
            let offset = u32::try_from(line_start + error.column().saturating_sub(1)).unwrap_or(u32::MAX);
            report.syntax(At { offset, ..start }, format!("invalid JSON: {}", plain(&error)));
            None
        }
    }
}

/// The error's words without its place, which the diagnostic has.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(words, _)| words.to_owned())
}

fn has_null(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::Array(items) => items.iter().any(has_null),
        serde_json::Value::Object(keys) => keys.values().any(has_null),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) | serde_json::Value::String(_) => false,
    }
}
