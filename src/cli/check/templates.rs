//! Renders everything of every group that is a template, and tells each error with its place in the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::{place, repository};
use crate::manifest::{Diagnostic, Severity};
use crate::model::{ConfigFile, Group, GroupName, ObjectId, Probe, TagName, Templates as Mode, TreeFile};
use crate::render::{self, RenderError};
use crate::source::Tree;

/// What was told already: the same error in another ring is the same error.
type Told = BTreeSet<(String, usize, usize, String)>;

/// The templates of one tree.
pub(super) struct Templates<'a> {
    files: BTreeMap<&'a str, &'a TreeFile>,
    contents: BTreeMap<ObjectId, &'a Arc<[u8]>>,
    folders: &'a BTreeMap<GroupName, String>,
    release: (TagName, ObjectId),
}

impl<'a> Templates<'a> {
    pub(super) fn new(tree: &'a Tree, folders: &'a BTreeMap<GroupName, String>) -> Self {
        let files = tree.files.iter().map(|file| (file.path.as_str(), file)).collect();
        let contents = tree.files.iter().filter_map(|file| Some((file.blob, file.content.as_ref()?))).collect();
        Self { files, contents, folders, release: repository::release(tree) }
    }

    /// Renders groups as a ring has them; what was not told before is added.
    pub(super) fn check(
        &self,
        groups: &BTreeMap<GroupName, Arc<Group>>,
        ring: Option<&str>,
        told: &mut Told,
        found: &mut Vec<Diagnostic>,
    ) {
        let host = repository::host(ring);
        for group in groups.values() {
            let (config, _) = render::effective(group, &[]);
            let data = render::data(&host, group, &config, (&self.release.0, &self.release.1));
            for (severity, error) in self.render(group, &data) {
                let mut diagnostic = self.diagnostic(group, ring, (severity, error), &data);
                let key = (diagnostic.file.clone(), diagnostic.line, diagnostic.column, diagnostic.message.clone());
                if !told.insert(key) {
                    continue;
                }
                if let Some(ring) = ring {
                    diagnostic.message.push_str(&format!(" in ring `{ring}`"));
                }
                found.push(diagnostic);
            }
        }
    }

    /// Everything that a lenient group would print and does not have is a warning.
    fn render(&self, group: &Group, data: &Value) -> Vec<(Severity, RenderError)> {
        let errors = self.errors(group, data).into_iter().map(|error| (Severity::Error, error));
        match group.templates {
            Mode::Strict => errors.collect(),
            Mode::Lenient => {
                let strict = Group { templates: Mode::Strict, ..group.clone() };
                let missing = self.errors(&strict, data).into_iter().filter(|error| error.name.is_some());
                errors.chain(missing.map(|error| (Severity::Warning, error))).collect()
            }
        }
    }

    fn errors(&self, group: &Group, data: &Value) -> Vec<RenderError> {
        // What is copied byte for byte cannot be wrong.
        let mut read = |file: &ConfigFile| match self.contents.get(&file.blob) {
            Some(content) => Ok(content.to_vec()),
            None if file.target().1 => Err("this template was listed and could not be read".to_owned()),
            None => Ok(Vec::new()),
        };
        let mut errors = render::render_files(group, &mut read, data).err().unwrap_or_default();
        if let Some(service) = &group.service {
            errors.extend(render::render_launch(group, service, data).err().unwrap_or_default());
        }
        for (kind, hook) in &group.hooks {
            let key = format!("hooks.{}", kind.name());
            let allow = &hook.allow;
            let granted = json!({ "net": allow.net, "read": allow.read, "write": allow.write, "exec": allow.exec });
            let asked = hook.probes.iter().map(|(name, probe)| (name.clone(), probe_texts(probe))).collect();
            for (name, value) in [("args", &hook.args), ("allow", &granted), ("probes", &Value::Object(asked))] {
                let done = render::render_value(&format!("{key}.{name}"), value, data, group.templates);
                errors.extend(done.err().unwrap_or_default());
            }
        }
        errors
    }

    fn diagnostic(&self, group: &Group, ring: Option<&str>, found: (Severity, RenderError), data: &Value) -> Diagnostic {
        let folder = self.folders.get(&group.name).cloned().unwrap_or_else(|| format!("groups/{}", group.name));
        let (severity, RenderError { file, line, column, message, name }) = found;
        let (file, line, column) = if file.starts_with("config/") {
            (format!("{folder}/{file}"), line.max(1), column.max(1))
        } else {
            self.key(&folder, ring, &file, (line, column))
        };
        let meant = name.and_then(|name| repository::meant(data, &name));
        let hint = match severity {
            Severity::Warning => meant.or_else(|| Some("it prints nothing, because `templates` is \"lenient\"".to_owned())),
            Severity::Error => meant,
        };
        Diagnostic { severity, file, line, column, message, hint }
    }

    /// The place of a key: the overlay, the group's own file, or the repository's defaults.
    fn key(&self, folder: &str, ring: Option<&str>, key: &str, at: (usize, usize)) -> (String, usize, usize) {
        let own = format!("{folder}/group.toml");
        let overlay = ring.map(|ring| format!("{folder}/rings/{ring}.toml"));
        let candidates = [
            overlay.map(|file| (file, key.to_owned())),
            Some((own.clone(), key.to_owned())),
            Some(("tagfall.toml".to_owned(), format!("defaults.{key}"))),
        ];
        for (file, key) in candidates.into_iter().flatten() {
            let content = self.files.get(file.as_str()).and_then(|found| found.content.as_deref());
            let Some(text) = content.and_then(|content| std::str::from_utf8(content).ok()) else { continue };
            let within = Some(at.1).filter(|column| at.0 == 1 && *column > 0);
            if let Some(place) = place::of(text, &key, within) {
                return (file, place.line, place.column);
            }
        }
        (own, 1, 1)
    }
}

/// What of a probe may be a template, under its keys.
fn probe_texts(probe: &Probe) -> Value {
    match probe {
        Probe::Http { url } => json!({ "url": url }),
        Probe::Stream { address, send, until: _ } => json!({ "address": address, "send": send }),
    }
}
