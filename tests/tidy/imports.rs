//! The direction of imports: which room a path leads to, and whether the table allows it.

use super::scan::{self, Path};

/// A room and what it may import: `*` = everything; `room::part` = only that part of a room; `-room` = not that one.
pub(crate) type Row = (&'static str, &'static [&'static str]);

/// Every import of one file of `src/` that the table does not allow.
pub(crate) fn findings(table: &[Row], file: &str, text: &str) -> Vec<String> {
    let module = module_of(file);
    let Some(room) = module.first() else { return Vec::new() };
    let Some((_, allowed)) = table.iter().find(|(name, _)| name == room) else {
        return vec![format!(
            "{file}: `{room}` is no room of the table in tests/tidy.rs: add a row that says what it may import"
        )];
    };
    let mut out = Vec::new();
    for path in scan::paths(&scan::tokens(&scan::mask(text))) {
        let Some(target) = resolve(&module, &path) else { continue };
        let written = path.parts.join("::");
        let wrong = match target.first().map(String::as_str) {
            None | Some("*") => Some("takes the whole crate: name what is needed".to_owned()),
            Some(to) if to == room => None,
            Some(to) if !table.iter().any(|(name, _)| *name == to) => Some(format!("`{to}` is no room")),
            Some(to) if !allows(allowed, &target) => Some(format!("`{room}` may import {}, not `{to}`", words(allowed))),
            Some(_) => None,
        };
        out.extend(wrong.map(|wrong| format!("{file}:{}: `{written}`: {wrong}", path.line)));
    }
    out
}

/// `src/plan/hooks.rs` → `plan::hooks`; the roots of library and program are nobody's room.
fn module_of(file: &str) -> Vec<String> {
    let inner = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    if matches!(inner, "lib" | "main") { Vec::new() } else { parts }
}

/// The path from the crate's root; `None` where it begins elsewhere (another crate, a local name) or names nothing
/// (`pub(crate)`, `self.field`).
fn resolve(module: &[String], path: &Path) -> Option<Vec<String>> {
    let mut at: Vec<String> = module.iter().chain(&path.inside).cloned().collect();
    let mut parts = path.parts.iter().peekable();
    match parts.peek().map(|part| part.as_str())? {
        "crate" | "tagfall" => {
            parts.next();
            at.clear();
        }
        "self" | "super" => {
            while let Some(part) = parts.next_if(|part| matches!(part.as_str(), "self" | "super")) {
                if part == "super" {
                    at.pop();
                }
            }
        }
        _ => return None,
    }
    if parts.peek().is_none() && !path.imported {
        return None;
    }
    at.extend(parts.cloned());
    Some(at)
}

fn allows(allowed: &[&str], target: &[String]) -> bool {
    if allowed.iter().any(|entry| entry.strip_prefix('-') == target.first().map(String::as_str)) {
        return false;
    }
    allowed
        .iter()
        .any(|entry| *entry == "*" || entry.split("::").enumerate().all(|(i, part)| target.get(i).is_some_and(|t| t == part)))
}

fn words(allowed: &[&str]) -> String {
    if allowed.is_empty() {
        return "no other room".to_owned();
    }
    let words: Vec<String> = allowed.iter().map(|entry| format!("`{entry}`")).collect();
    words.join(", ")
}
