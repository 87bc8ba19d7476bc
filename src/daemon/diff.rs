//! What differs between two releases on this supervisor: effective config, rendered files, the rest in words. No secret is shown.

use std::collections::BTreeMap;

use serde_json::Value;

use super::context::Context;
use super::{secrets, stage};
use crate::api::wire::{ConfigChange, Diff, FileChange, GroupChange};
use crate::model::{Group, Release};
use crate::render::{self, RenderedFile};

/// Lines of context in a text diff.
const CONTEXT_LINES: usize = 3;

/// Compares what two releases ask for here.
pub(super) fn diff(context: &Context, from: &Release, to: &Release) -> Diff {
    let mut groups = Vec::new();
    let names: std::collections::BTreeSet<_> = from.groups.keys().chain(to.groups.keys()).collect();
    for name in names {
        let side = |release: &Release| release.groups.get(name).map(|group| Side::new(context, release, group));
        let change = match (from.groups.get(name), to.groups.get(name)) {
            (Some(old), Some(new)) if old.revision == new.revision => continue,
            (Some(_), Some(_)) => "changed",
            (None, _) => "added",
            (_, None) => "removed",
        };
        let empty = Side::default();
        let (old, new) = (side(from), side(to));
        let (old, new) = (old.as_ref().unwrap_or(&empty), new.as_ref().unwrap_or(&empty));
        let hidden: Vec<String> = old.secrets.iter().chain(&new.secrets).cloned().collect();
        groups.push(GroupChange {
            name: name.clone(),
            change: change.to_owned(),
            config: config_changes(&old.config, &new.config),
            files: file_changes(&old.files, &new.files, &hidden),
            other: other_changes(from.groups.get(name).map(AsRef::as_ref), to.groups.get(name).map(AsRef::as_ref)),
        });
    }
    Diff { from: from.tag.clone(), to: to.tag.clone(), groups }
}

#[derive(Default)]
struct Side {
    config: BTreeMap<String, Value>,
    files: BTreeMap<String, RenderedFile>,
    secrets: Vec<String>,
}

impl Side {
    fn new(context: &Context, release: &Release, group: &Group) -> Self {
        let (config, _) = render::effective(group, &context.layers(&group.name));
        let mut hidden = Vec::new();
        secrets::values("", &config.values, &mut hidden);
        let leaf = |key: &String| (key.clone(), super::answers::lookup(&config.values, key).cloned().unwrap_or(Value::Null));
        // A file that does not render has no content to compare; the release would be refused for it.
        let files = stage::render_here(context, group, (&release.tag, &release.commit)).map(|rendered| rendered.files);
        let files = files.unwrap_or_default().into_iter().map(|file| (file.path.clone(), file)).collect();
        Self { config: config.origins.keys().map(leaf).collect(), files, secrets: hidden }
    }
}

fn config_changes(old: &BTreeMap<String, Value>, new: &BTreeMap<String, Value>) -> Vec<ConfigChange> {
    let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let shown = |key: &str, side: &BTreeMap<String, Value>| match side.get(key) {
        Some(_) if secrets::is_secret(key) => Value::from(secrets::HIDDEN),
        Some(value) => value.clone(),
        None => Value::Null,
    };
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| ConfigChange { key: key.clone(), from: shown(key, old), to: shown(key, new) })
        .collect()
}

fn file_changes(
    old: &BTreeMap<String, RenderedFile>,
    new: &BTreeMap<String, RenderedFile>,
    hidden: &[String],
) -> Vec<FileChange> {
    let paths: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let mut out = Vec::new();
    for path in paths {
        let (before, after) = (old.get(path), new.get(path));
        let change = match (before, after) {
            (Some(one), Some(two)) if one.bytes == two.bytes && one.executable == two.executable => continue,
            (Some(_), Some(_)) => "changed",
            (None, _) => "added",
            (_, None) => "removed",
        };
        let text = |file: Option<&RenderedFile>| {
            let bytes = file.map(|file| file.bytes.as_slice()).unwrap_or_default();
            std::str::from_utf8(bytes).ok().map(|text| secrets::hide(text, hidden))
        };
        let diff = text(before).zip(text(after)).map(|(one, two)| unified(&one, &two));
        out.push(FileChange { path: path.clone(), change: change.to_owned(), diff });
    }
    out
}

fn unified(old: &str, new: &str) -> String {
    similar::TextDiff::from_lines(old, new).unified_diff().context_radius(CONTEXT_LINES).to_string()
}

/// What differs beside config and files, by the name of its table.
fn other_changes(old: Option<&Group>, new: Option<&Group>) -> Vec<String> {
    let (Some(old), Some(new)) = (old, new) else { return Vec::new() };
    let parts = [
        ("[placement]", old.placement != new.placement),
        ("[service]", old.service != new.service),
        ("[mount]", old.mount != new.mount),
        ("[exports]", old.exports != new.exports),
        ("[binds]", old.binds != new.binds),
        ("[topology]", old.topology != new.topology),
        ("[update]", old.update != new.update),
        ("[hooks]", old.hooks != new.hooks),
        ("hooks/", old.modules != new.modules),
    ];
    parts.iter().filter(|(_, differs)| *differs).map(|(name, _)| format!("{name} differs")).collect()
}
