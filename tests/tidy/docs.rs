//! What the documents claim and the disk can confirm: relative links, named files, the entries of the top level.

use std::path::Path;

/// Relative links of a Markdown page that lead nowhere. `exists` answers for paths from the repository's root.
pub(crate) fn broken_links(page: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut out = Vec::new();
    for (line, target) in link_targets(text) {
        let path = target.split('#').next().unwrap_or_default();
        if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
            continue;
        }
        let full = join(folder, path);
        if !full.as_deref().is_some_and(exists) {
            out.push(format!("{page}:{line}: the link to `{target}` leads nowhere"));
        }
    }
    out
}

/// Targets of `[text](target)` outside code, with their line.
fn link_targets(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second piece between backticks is code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("");
        for piece in prose.split("](").skip(1) {
            let target = piece.split(')').next().unwrap_or_default();
            out.push((index + 1, target.split_whitespace().next().unwrap_or_default().to_owned()));
        }
    }
    out
}

/// `folder` + `path` with `.` and `..` resolved; `None` where it leaves the repository.
fn join(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Files that ARCHITECTURE.md names in backticks and that are not there.
pub(crate) fn missing_files(page: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut out = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for name in line.split('`').skip(1).step_by(2).filter(|name| looks_like_a_file(name)) {
            if !exists(name.trim_end_matches('/')) {
                out.push(format!("{page}:{}: names `{name}`, which is not there", index + 1));
            }
        }
    }
    out
}

/// A path into one of the repository's folders, without blanks or placeholders.
fn looks_like_a_file(name: &str) -> bool {
    let rooted = ["src/", "tests/", "site/", "examples/", "wit/", "hooks-sdk/", ".ci/"].iter().any(|root| name.starts_with(root));
    rooted && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "/._-".contains(c))
}

/// Entries of the top level that are not on the list, and names on the list that are missing.
pub(crate) fn top_level(entries: &[String], wanted: &[&str]) -> Vec<String> {
    let visible = |name: &&String| !name.starts_with('.') && name.as_str() != "target";
    let extra = entries.iter().filter(visible).filter(|name| !wanted.contains(&name.as_str()));
    let missing = wanted.iter().filter(|name| !entries.iter().any(|entry| entry == *name));
    let extra = extra.map(|name| format!("`{name}` does not belong at the top level: see the list in tests/tidy.rs"));
    extra.chain(missing.map(|name| format!("`{name}` is missing at the top level"))).collect()
}

/// All files below `folder` whose name ends in `ending`, as paths from `root`, sorted. Dot-folders and `target` are left out.
pub(crate) fn files_below(root: &Path, folder: &str, ending: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if !is_folder && name.ends_with(ending) {
                out.push(path);
            }
        }
    }
    out.sort();
    out
}
