//! A release's files, sorted into the folders of groups. It looks at names only; what stands in files is read elsewhere.

use std::collections::BTreeMap;

use crate::model::{ConfigFile, GroupName, TreeFile};

use super::diagnostic::{At, Report, did_you_mean};
use super::text;

/// Longest name of one file or folder (NAME_MAX) and longest path below a mount that leaves room for the mount path.
const NAME_MAX_BYTES: usize = 255;
const CONFIG_PATH_MAX_BYTES: usize = 1024;

/// What may stand directly in a group's folder.
const KNOWN: [&str; 4] = ["group.toml", "config", "hooks", "rings"];

/// One group's files.
pub(crate) struct Folder<'a> {
    pub(crate) path: String,
    pub(crate) manifest: Option<&'a TreeFile>,
    /// Paths below `config/`.
    pub(crate) config: Vec<ConfigFile>,
    /// Paths below the folder: `hooks/…`.
    pub(crate) hooks: Vec<ConfigFile>,
    /// By ring.
    pub(crate) rings: BTreeMap<&'a str, &'a TreeFile>,
    strays: Vec<&'a str>,
}

/// The whole tree, as far as it concerns groups.
#[derive(Default)]
pub(crate) struct Tree<'a> {
    pub(crate) repository: Option<&'a TreeFile>,
    pub(crate) groups: BTreeMap<GroupName, Folder<'a>>,
}

/// Sorts the files; reports folders and names that have no meaning.
pub(crate) fn sort<'a>(report: &mut Report, files: &'a [TreeFile]) -> Tree<'a> {
    let mut files: Vec<&TreeFile> = files.iter().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut tree = Tree::default();
    let mut folders: BTreeMap<&str, Folder<'a>> = BTreeMap::new();
    for file in files {
        if file.path == "tagfall.toml" {
            tree.repository = Some(file);
        } else if let Some(rest) = file.path.strip_prefix("groups/") {
            match rest.split_once('/') {
                Some((name, rest)) => place(report, folders.entry(name).or_insert_with(|| Folder::new(name)), rest, file),
                None if is_remark(rest) => {}
                None => {
                    let at = report.source(&file.path, [].into());
                    let hint = Some("each group is a folder below `groups/`".to_owned());
                    report.warning(at, format!("`{rest}` is a file in `groups/` and is ignored"), hint);
                }
            }
        }
    }
    let mut taken: BTreeMap<GroupName, &str> = BTreeMap::new();
    for (name, mut folder) in folders {
        folder.check(report);
        let at = |report: &mut Report| report.source(format!("{}/group.toml", folder.path), [].into());
        match name.parse::<GroupName>() {
            Err(error) => {
                let at = at(report);
                report.error(at, format!("the folder's name is the group's, and {error}"));
            }
            Ok(group) => match taken.insert(group.clone(), name) {
                Some(other) => {
                    let at = at(report);
                    let message = format!("the folders `{other}` and `{name}` are the same group, `{group}`");
                    report.error_with(
                        at,
                        message,
                        Some("`.default` may be left out of a folder's name; keep one of them".to_owned()),
                    );
                }
                None => {
                    folder.hooks.sort_by(|a, b| a.path.cmp(&b.path));
                    tree.groups.insert(group, folder);
                }
            },
        }
    }
    tree
}

fn is_remark(name: &str) -> bool {
    name.starts_with('.') || name.starts_with("x-") || name.to_ascii_uppercase().starts_with("README")
}

fn place<'a>(report: &mut Report, folder: &mut Folder<'a>, rest: &'a str, file: &'a TreeFile) {
    let named = |path: &str| ConfigFile { path: path.to_owned(), blob: file.blob, executable: file.executable, size: file.size };
    if let Some(path) = rest.strip_prefix("config/") {
        let too_long = path.len() > CONFIG_PATH_MAX_BYTES || path.split('/').any(|part| part.len() > NAME_MAX_BYTES);
        if too_long {
            let at = report.source(&file.path, [].into());
            let limits = format!("{CONFIG_PATH_MAX_BYTES} bytes below `config/`, {NAME_MAX_BYTES} for each part");
            report.error(at, format!("this path is longer than can be published: at most {limits}"));
        }
        folder.config.push(named(path));
    } else if rest.starts_with("hooks/") {
        folder.hooks.push(named(rest));
    } else if let Some(path) = rest.strip_prefix("rings/") {
        place_ring(report, folder, path, file);
    } else if rest == "group.toml" {
        folder.manifest = Some(file);
    } else {
        let name = rest.split('/').next().unwrap_or(rest);
        if !is_remark(name) && folder.strays.last() != Some(&name) {
            folder.strays.push(name);
        }
    }
}

fn place_ring<'a>(report: &mut Report, folder: &mut Folder<'a>, path: &'a str, file: &'a TreeFile) {
    match path.strip_suffix(".toml") {
        Some(ring) if text::plain_name(ring) => {
            folder.rings.insert(ring, file);
        }
        _ if is_remark(path) => {}
        Some(ring) => {
            let at = report.source(&file.path, [].into());
            report.error(at, format!("`{ring}` is not a ring's name: it must be {}", super::shape::Text::Name.wanted()));
        }
        None => {
            let at = report.source(&file.path, [].into());
            let hint = Some("an overlay is `rings/RING.toml`".to_owned());
            report.warning(at, format!("`rings/{path}` is not an overlay and is ignored"), hint);
        }
    }
}

impl<'a> Folder<'a> {
    fn new(name: &str) -> Self {
        Self {
            path: format!("groups/{name}"),
            manifest: None,
            config: Vec::new(),
            hooks: Vec::new(),
            rings: BTreeMap::new(),
            strays: Vec::new(),
        }
    }

    /// Rules of names that need no manifest.
    fn check(&mut self, report: &mut Report) {
        for name in &self.strays {
            let at = report.source(format!("{}/{name}", self.path), [].into());
            let known = did_you_mean(name, KNOWN);
            report.warning(at, format!("`{name}` has no meaning in a group's folder and is ignored"), known);
        }
        if self.manifest.is_none() {
            let at = report.source(format!("{}/group.toml", self.path), [].into());
            let hint = self.strays.iter().find(|name| super::diagnostic::nearest(name, ["group.toml"]).is_some());
            let hint = hint.map(|name| format!("rename `{name}` to `group.toml`"));
            report.error_with(at, format!("`{}` has no `group.toml`", self.path), hint);
        }
        self.config.sort_by(|a, b| a.path.cmp(&b.path));
        self.check_targets(report);
    }

    /// No two files of `config/` may be published under one name, or one as the folder of the other.
    fn check_targets(&self, report: &mut Report) {
        let mut targets: BTreeMap<&str, &str> = BTreeMap::new();
        let mut report_at = |path: &str, message: String| {
            let at: At = report.source(format!("{}/config/{path}", self.path), [].into());
            report.error(at, message);
        };
        for file in &self.config {
            let (target, _) = file.target();
            if target.is_empty() || target.ends_with('/') {
                report_at(
                    &file.path,
                    "a template's name is that of the file it makes, and nothing is left of this one".to_owned(),
                );
            }
            if let Some(other) = targets.insert(target, &file.path) {
                report_at(&file.path, format!("`{other}` and `{}` would both be published as `{target}`", file.path));
            }
        }
        for (target, path) in &targets {
            let folders = target.match_indices('/').map(|(end, _)| &target[..end]);
            for folder in folders {
                if let Some(file) = targets.get(folder) {
                    report_at(file, format!("`{file}` would be published as `{folder}`, which is the folder of `{path}`"));
                }
            }
        }
    }
}
