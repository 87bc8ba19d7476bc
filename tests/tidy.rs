//! The shape of this repository, as a test: who may import whom, how long things may get, which words a room may not use.
//!
//! The rules are the tables at the top; `tests/tidy/` holds the machinery, which knows none of them. A new room is a new row
//! of `IMPORTS`. Every rule has a small test below that shows it can fail.

use std::path::Path;

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/docs.rs"]
mod docs;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/scan.rs"]
mod scan;

use code::{Ban, Source};

/// Room → what it may import, beside itself.
const IMPORTS: &[imports::Row] = &[
    // Pure: values in, values out.
    ("model", &[]),
    ("manifest", &["model"]),
    ("release", &["model"]),
    ("render", &["model"]),
    ("plan", &["model", "release"]),
    ("rollout", &["model"]),
    ("ring", &["model"]),
    // Shells: one kind of effect each. They never import one another.
    ("sys", &["model"]),
    ("source", &["model", "release", "sys"]),
    ("publish", &["model", "render", "sys"]),
    ("store", &["model", "sys"]),
    ("keeper", &["model", "sys"]),
    ("process", &["model", "keeper::wire", "sys"]),
    // It plays the keeper's part for containers: by its rules, with its log files.
    ("containers", &["model", "keeper::state", "keeper::log", "keeper::wire", "sys"]),
    ("hooks", &["model", "sys"]),
    ("network", &["model", "sys"]),
    ("api", &["model", "plan", "sys"]),
    // What ties them together, and what people type.
    ("daemon", &["*", "-cli"]),
    ("cli", &["*"]),
];

const PURE: &[&str] = &["model", "manifest", "release", "render", "plan", "rollout", "ring"];

const BANS: &[Ban] = &[
    Ban {
        rooms: PURE,
        words: &["std::time::Instant", "Instant::now", "SystemTime::now"],
        reason: "a pure room is handed the time",
    },
    Ban {
        rooms: PURE,
        words: &[
            "tokio",
            "std::thread",
            "std::fs",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "ToSocketAddrs",
            "std::os",
            "std::process",
            "std::env",
            "println!",
            "eprintln!",
        ],
        reason: "a pure room has no effects; a shell carries them out",
    },
    Ban {
        rooms: PURE,
        words: &["HashMap", "HashSet", "rand"],
        reason: "a pure room gives the same bytes on every run; use `BTreeMap` or `BTreeSet`, or be handed the number",
    },
    Ban {
        rooms: &["keeper"],
        words: &["tokio", "serde", "toml", "tracing", "git2", "axum", "handlebars"],
        reason: "the keeper stays small: what it does not link cannot take it down",
    },
    Ban {
        rooms: &["api", "containers", "daemon", "hooks", "process", "publish", "source", "store"],
        words: &["std::process::exit"],
        reason: "only `cli` ends the process",
    },
];

/// Folders of files that a tool made, in its own style: a test holds each against what the tool makes, so nobody edits them.
const GENERATED: &[&str] = &["hooks-sdk/src/generated/"];

const TOP_LEVEL: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "deny.toml",
    "examples",
    "hooks-sdk",
    "rustfmt.toml",
    "site",
    "src",
    "tests",
    "wit",
];

fn read(root: &Path, name: &str) -> String {
    std::fs::read_to_string(root.join(name)).unwrap_or_else(|error| panic!("{name} cannot be read: {error}"))
}

#[test]
fn the_repository_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut findings = Vec::new();
    let mut sources = 0;
    let ours = |name: &String| !GENERATED.iter().any(|folder| name.starts_with(folder));
    for name in ["src", "tests", "hooks-sdk"].iter().flat_map(|folder| docs::files_below(root, folder, ".rs")).filter(ours) {
        let text = read(root, &name);
        sources += 1;
        findings.extend(Source::new(&name, &text).findings(BANS));
        if name.starts_with("src/") {
            findings.extend(imports::findings(IMPORTS, &name, &text));
        }
    }
    assert!(sources > 20, "only {sources} source files were found below {}: the check looks in the wrong place", root.display());

    let exists = |path: &str| root.join(path).exists();
    let pages = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md"].map(str::to_owned);
    for page in pages.into_iter().chain(docs::files_below(root, "site", ".md")).chain(docs::files_below(root, "examples", ".md"))
    {
        findings.extend(docs::broken_links(&page, &read(root, &page), &exists));
    }
    findings.extend(docs::missing_files("ARCHITECTURE.md", &read(root, "ARCHITECTURE.md"), &exists));

    let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    findings.extend(docs::top_level(&entries.collect::<Vec<_>>(), TOP_LEVEL));
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// What the import rules say about `text` in `file`.
fn imports_of(file: &str, text: &str) -> Vec<String> {
    imports::findings(IMPORTS, file, text)
}

/// What the rules for one file say about `text`, given its head.
fn code_of(file: &str, text: &str) -> Vec<String> {
    Source::new(file, &format!("//! Head.\n{text}")).findings(BANS)
}

#[test]
fn an_import_against_the_direction_is_found_however_it_is_written() {
    for text in [
        "use crate::daemon::Loop;",
        "use crate::{model::Group, daemon};",
        "use crate::{\n    model::{Group, GroupName},\n    daemon::{Loop},\n};",
        "use super::daemon::Loop;",
        "use super::{daemon as model};",
        "fn f() { crate::daemon::run(); }",
        "fn f(x: &super::daemon::Loop) {}",
        "mod inner { use super::super::daemon::Loop; }",
        "mod a { mod b { fn f() { super::super::super::daemon::run(); } } }",
        "#[cfg(test)]\nmod tests { use crate::daemon::Loop; }",
        "use tagfall::daemon::Loop;",
        "use ::tagfall::daemon::Loop;",
        "macro_rules! m { () => { $crate::daemon::run() } }",
        "use self::super::daemon::Loop;",
        "fn f() { let c = '\"'; crate::daemon::run(); let d = '\"'; }",
    ] {
        let found = imports_of("src/plan/mod.rs", text);
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
    }
    let nested = imports_of("src/plan/service.rs", "use super::super::daemon::Loop;");
    assert_eq!(
        nested,
        ["src/plan/service.rs:1: `super::super::daemon::Loop`: `plan` may import `model`, `release`, not `daemon`"]
    );
}

#[test]
fn the_whole_crate_or_an_unknown_room_is_no_import() {
    for text in ["use crate::*;", "use crate as all;", "use crate::{self as all};", "use super::*;", "use super as all;"] {
        assert_eq!(imports_of("src/plan/mod.rs", text).len(), 1, "{text:?}");
    }
    assert_eq!(imports_of("src/plan/mod.rs", "use crate::shortcut::Group;").len(), 1);
    assert_eq!(imports_of("src/cellar/mod.rs", "").len(), 1);
}

#[test]
fn imports_along_the_direction_are_left_alone() {
    for (file, text) in [
        ("src/plan/mod.rs", "use crate::model::Group; pub(crate) mod a {} pub(super) fn f() {}"),
        ("src/plan/a.rs", "use super::b::C; use super::*; use crate::{model::{self, Group}, release::Choice};"),
        ("src/plan/a.rs", "mod tests { use super::*; use super::super::b::C; }"),
        ("src/plan/a.rs", "// use crate::daemon::Loop;\n/* crate::daemon */ const X: &str = \"crate::daemon::x\";"),
        ("src/plan/a.rs", "const X: &str = r#\"crate::\"daemon\"::x\"#;"),
        ("src/process/mod.rs", "use crate::keeper::wire::Order;"),
        ("src/daemon/mod.rs", "use crate::source::Fetch;"),
        ("src/lib.rs", "pub use daemon::Loop;"),
        ("src/main.rs", "fn main() { tagfall::cli::main() }"),
    ] {
        assert_eq!(imports_of(file, text), [""; 0], "{file}: {text:?}");
    }
    assert_eq!(imports_of("src/process/mod.rs", "use crate::keeper::table::Table;").len(), 1);
    assert_eq!(imports_of("src/daemon/mod.rs", "use crate::cli::Args;").len(), 1);
}

#[test]
fn words_that_a_room_may_not_use_are_found() {
    for text in [
        "use std::time::{Duration, Instant};",
        "fn f() { std::time::SystemTime::now(); }",
        "fn f() { println!(\"x\"); }",
        "use std::collections::{BTreeMap, HashMap as Map};",
        "fn f() { std::fs::read(path); }",
        "use std::{env, fmt};",
        "async fn f() { tokio::spawn(async {}); }",
    ] {
        let found = code_of("src/plan/service.rs", text);
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        assert_eq!(code_of("src/daemon/mod.rs", text), [""; 0], "{text:?}");
        let in_test = format!("#[cfg(test)]\nmod tests {{ {text} }}");
        assert_eq!(code_of("src/plan/service.rs", &in_test), [""; 0], "{text:?}");
    }
    assert_eq!(code_of("src/keeper/mod.rs", "#[derive(serde::Serialize)]\nstruct S;").len(), 1);
    assert_eq!(
        code_of("src/plan/mod.rs", "use std::time::Duration; // HashMap, std::fs\nconst X: &str = \"tokio::x\";"),
        [""; 0]
    );
}

#[test]
fn unsafe_code_has_one_home() {
    assert_eq!(code_of("src/keeper/mod.rs", "fn f() { unsafe { g() } }").len(), 1);
    assert_eq!(code_of("src/sys.rs", "fn f() { unsafe { g() } }"), [""; 0]);
}

#[test]
fn a_file_without_a_head_is_found() {
    assert_eq!(Source::new("src/plan/mod.rs", "\nfn f() {}\n").findings(BANS).len(), 1);
}

#[test]
fn long_files_and_functions_are_found() {
    let lines = |count: usize| "    x();\n".repeat(count);
    let function = |count: usize| format!("fn f(a: [u8; 2]) -> bool {{\n{}}}\n", lines(count - 2));
    assert_eq!(code_of("src/plan/mod.rs", &function(code::FUNCTION_MAX_LINES)), [""; 0]);
    assert_eq!(code_of("src/plan/mod.rs", &function(code::FUNCTION_MAX_LINES + 1)).len(), 1);
    let commented = format!("fn f() {{\n{}\n    // why\n\n}}\n", lines(code::FUNCTION_MAX_LINES - 2));
    assert_eq!(code_of("src/plan/mod.rs", &commented), [""; 0]);

    let consts = |count: usize| "const A: u8 = 1;\n".repeat(count);
    assert_eq!(code_of("src/plan/mod.rs", &consts(code::FILE_MAX_LINES)), [""; 0]);
    assert_eq!(code_of("src/plan/mod.rs", &consts(code::FILE_MAX_LINES + 1)).len(), 1);
    assert_eq!(code_of("tests/a.rs", &consts(code::FILE_MAX_LINES + 1)).len(), 1);
    let tested = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", consts(code::FILE_MAX_LINES), consts(100));
    assert_eq!(code_of("src/plan/mod.rs", &tested), [""; 0]);
}

#[test]
fn bare_allowances_sleeps_and_ignored_tests_are_found() {
    for text in [
        "#[allow(dead_code)]\nfn f() {}",
        "#![allow(dead_code)]",
        "#[cfg_attr(test, allow(dead_code))]\nfn f() {}",
        "#[expect(dead_code)]\nfn f() {}",
        "#[cfg(test)]\nmod tests { #[test] #[ignore] fn f() {} }",
        "#[cfg(test)]\nmod tests { #[test] #[ignore = \"slow\"] fn f() {} }",
        "#[cfg(test)]\nmod tests { #[test] fn f() { std::thread::sleep(ms(1)); } }",
        "#[cfg(test)]\nmod tests { async fn f() { tokio::time::sleep(ms(1)).await; } }",
    ] {
        let found = code_of("src/daemon/mod.rs", text);
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
    }
    assert_eq!(code_of("tests/a.rs", "fn f() { std::thread::sleep(ms(1)); }").len(), 1);
    assert_eq!(code_of("src/daemon/mod.rs", "#[expect(dead_code, reason = \"x\")]\nfn f() { tokio::time::sleep(x); }"), [""; 0]);
}

#[test]
fn links_that_lead_nowhere_are_found() {
    let exists = |path: &str| matches!(path, "site/src/a.md" | "README.md");
    let broken = |text: &str| docs::broken_links("site/src/b.md", text, &exists);
    assert_eq!(broken("[a](a.md) [a](./a.md#part) [r](../../README.md) [x](https://x.test/y) [p](#part)"), [""; 0]);
    assert_eq!(broken("```\n[a](gone.md)\n```\n`[a](gone.md)`"), [""; 0]);
    assert_eq!(broken("[a](a.md) and [b](gone.md)"), ["site/src/b.md:1: the link to `gone.md` leads nowhere"]);
    assert_eq!(broken("[a](../../../out.md)").len(), 1);
}

#[test]
fn files_that_are_named_and_gone_are_found() {
    let exists = |path: &str| path == "src/plan";
    let text = "`src/plan/` decides; `src/magic.rs` is gone; `plan(&Desired)`, `src/NAME.rs` and `tests/*.rs` name no file";
    assert_eq!(docs::missing_files("A.md", text, &exists), ["A.md:1: names `src/magic.rs`, which is not there"]);
}

#[test]
fn the_top_level_is_a_closed_list() {
    let entries = ["src", "notes.txt", ".gitignore", "target"].map(str::to_owned);
    let found = docs::top_level(&entries, &["src", "LICENSE"]);
    assert_eq!(found.len(), 2, "{found:?}");
}
