//! What a ring's overlay may set: anything but `format`, and of `[config]` only what the default layer has.

use super::diagnostic::{Report, did_you_mean};
use super::node::{Node, Table};
use super::read::Fields;

/// Checks an overlay's `format` and `[config]` against the group's own manifest.
pub(crate) fn check(report: &mut Report, alone: Fields<'_>, over: &Table) {
    if let Some(entry) = over.0.get("format") {
        report.error(entry.key, "`format` stands in `group.toml` only");
    }
    let Some(config) = over.get("config").and_then(Node::table) else { return };
    let listed = over.get("config_open").or(alone.node("config_open"));
    let open: Vec<&str> = listed.and_then(Node::list).unwrap_or_default().iter().filter_map(Node::text).collect();
    let empty = Table::default();
    let default = alone.node("config").and_then(Node::table).unwrap_or(&empty);
    layer(report, default, config, &open, "");
}

fn layer(report: &mut Report, default: &Table, over: &Table, open: &[&str], prefix: &str) {
    for (key, entry) in &over.0 {
        let path = format!("{prefix}{key}");
        let Some(below) = default.get(key) else {
            let hint = did_you_mean(key, default.0.keys().map(String::as_str));
            let hint = hint.unwrap_or_else(|| "give it a default in `group.toml`, or name its table in `config_open`".to_owned());
            report.error_with(entry.key, format!("`{path}` is not in [config] of `group.toml`"), Some(hint));
            continue;
        };
        let (wanted, written) = (below.value.kind(), entry.node.value.kind());
        match (below.table(), entry.node.table()) {
            _ if wanted != written => {
                report.error(entry.node.at, format!("`{path}` must be {wanted}, as in [config] of `group.toml`, not {written}"));
            }
            (Some(_), Some(_)) if open.contains(&path.as_str()) => {}
            (Some(below), Some(above)) => layer(report, below, above, open, &format!("{path}.")),
            (None, _) | (_, None) => {}
        }
    }
}
