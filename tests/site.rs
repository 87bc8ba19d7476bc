//! The site against the code: no key, reason, state or condition that the program has may be missing in the reference, and
//! every page is in the table of contents.

use std::path::Path;

use serde_json::Value;
use tagfall::manifest::{group_schema, supervisor_schema};
use tagfall::model::HookKind;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names that a page does not have between backticks.
fn missing(page: &str, names: &[String]) -> Vec<String> {
    let words: Vec<&str> = page.split('`').skip(1).step_by(2).flat_map(|code| code.split(['"', ' ', ','])).collect();
    names.iter().filter(|name| !words.contains(&name.as_str())).cloned().collect()
}

/// All property names of a schema, at any depth.
fn keys(schema: &Value, out: &mut Vec<String>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        out.extend(properties.keys().cloned());
    }
    match schema {
        Value::Object(entries) => entries.values().for_each(|inner| keys(inner, out)),
        Value::Array(items) => items.iter().for_each(|inner| keys(inner, out)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The variants of an enum, read from its source: the list is not to be kept a second time.
fn variants(file: &str, name: &str) -> Vec<String> {
    let text = read(file);
    let (_, body) = text.split_once(&format!("pub enum {name} {{")).unwrap_or_else(|| panic!("{file} has no enum `{name}`"));
    let body = body.split("\n}").next().unwrap_or_default();
    let lines = body.lines().map(str::trim).filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    lines.map(|line| line.trim_end_matches(',').to_owned()).collect()
}

#[test]
fn every_key_of_both_files_is_explained() {
    for (page, schema, few) in
        [("site/src/reference/group.md", group_schema(), 40), ("site/src/reference/supervisor.md", supervisor_schema(), 30)]
    {
        let mut names = Vec::new();
        keys(&schema, &mut names);
        assert!(names.len() >= few, "only {} keys were found in the schema for {page}", names.len());
        assert_eq!(missing(&read(page), &names), [""; 0], "keys that {page} does not explain");
    }
    let hooks: Vec<String> = HookKind::ALL.iter().map(|kind| kind.name().to_owned()).collect();
    assert_eq!(missing(&read("site/src/reference/group.md"), &hooks), [""; 0]);
}

#[test]
fn every_reason_condition_and_state_is_explained() {
    let page = read("site/src/reference/status.md");
    for (file, name, few) in [
        ("src/model/condition.rs", "Reason", 40),
        ("src/model/condition.rs", "ConditionKind", 8),
        ("src/model/service.rs", "ServiceState", 11),
    ] {
        let mut names = variants(file, name);
        assert!(names.len() >= few, "only {names:?} were found in {file}");
        if name == "ServiceState" {
            names.iter_mut().for_each(|name| name.make_ascii_lowercase());
        }
        assert_eq!(missing(&page, &names), [""; 0], "of `{name}`, not on the status page");
    }
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let contents = read("site/src/SUMMARY.md");
    let mut folders = vec![String::new()];
    let mut pages = 0;
    while let Some(folder) = folders.pop() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("site/src").join(&folder);
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{folder}{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                folders.push(format!("{name}/"));
            } else if name.ends_with(".md") && name != "SUMMARY.md" {
                pages += 1;
                assert!(contents.contains(&format!("]({name})")), "{name} is not in SUMMARY.md");
            }
        }
    }
    assert!(pages > 10, "only {pages} pages were found");
}

#[test]
fn what_is_not_explained_is_found() {
    let names = ["exec", "stop", "CPU"].map(str::to_owned);
    assert_eq!(missing("| `exec` | `stop_signal`, `\"stop\"` |", &names), ["CPU"]);
}
