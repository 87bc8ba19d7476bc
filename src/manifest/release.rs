//! All files of a release → all groups as this supervisor's ring sees them. Every ring's overlay of the tree is checked, so
//! that a tag cannot be good for one ring and broken for the next; only the own ring's is applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Group, GroupName, TreeFile};

use super::check::{self, Missing};
use super::diagnostic::{At, Diagnostic, Report, Severity};
use super::folder::{self, Folder};
use super::group::{self, Built, Written};
use super::group_keys::{GROUP, REPOSITORY};
use super::node::{self, Node, Table, Value};
use super::read::Fields;
use super::{binds, mounts, overlay};

/// What a release's tree means for one ring.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// Every group, placed here or not, with the ring's overlay applied.
    pub groups: BTreeMap<GroupName, Arc<Group>>,
    /// Worth a look; nothing is refused.
    pub warnings: Vec<Diagnostic>,
    /// `min_version` of `tagfall.toml`: whether this build is new enough is the caller's question.
    pub min_version: Option<semver::Version>,
}

/// One ring's groups: those that it changes, over those that every ring has.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    base: &'a BTreeMap<GroupName, Built>,
    changed: Option<&'a BTreeMap<GroupName, Built>>,
    /// Every group folder, readable or not.
    known: &'a BTreeMap<GroupName, Folder<'a>>,
}

impl<'a> View<'a> {
    pub(crate) fn get(&self, name: &GroupName) -> Option<&'a Built> {
        self.changed.and_then(|changed| changed.get(name)).or_else(|| self.base.get(name))
    }

    /// Whether there is such a folder, even if it could not be read.
    pub(crate) fn is_known(&self, name: &GroupName) -> bool {
        self.known.contains_key(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'a GroupName> {
        self.known.keys()
    }
}

/// Reads a whole release: `files` are all of its tree, `ring` is the name of this supervisor's ring.
/// Either everything is fine, perhaps with warnings, or all diagnostics are returned, in order of file and line.
pub fn parse_release(files: &[TreeFile], ring: Option<&str>) -> Result<Parsed, Vec<Diagnostic>> {
    let mut report = Report::default();
    let tree = folder::sort(&mut report, files);
    let (defaults, min_version) = repository(&mut report, tree.repository);
    let mut base: BTreeMap<GroupName, Built> = BTreeMap::new();
    let mut rings: BTreeMap<&str, BTreeMap<GroupName, Built>> = BTreeMap::new();
    for (name, folder) in &tree.groups {
        let Some((manifest, broken)) = manifest(&mut report, folder, &defaults) else { continue };
        let built = group::build(&mut report, name, folder, Written { manifest, alone: None, overlay: None, broken });
        for (ring, file) in &folder.rings {
            let Some((over, over_broken)) = ring_overlay(&mut report, file, &built.manifest) else { continue };
            let alone = &built.manifest;
            let broken = broken || over_broken;
            let written = Written { manifest: merged(alone, &over), alone: Some(alone), overlay: Some(&over), broken };
            let changed = group::build(&mut report, name, folder, written);
            rings.entry(ring).or_default().insert(name.clone(), changed);
        }
        base.insert(name.clone(), built);
    }
    let view = View { base: &base, changed: None, known: &tree.groups };
    mounts::check(&mut report, &base);
    binds::check(&mut report, view, base.keys());
    let paths = mounts::by_path(base.values());
    for changed in rings.values() {
        let view = View { changed: Some(changed), ..view };
        mounts::check_ring(&mut report, changed, &paths);
        binds::check(&mut report, view, changed.keys());
    }
    drop(paths);
    if report.has_errors() {
        return Err(report.finish());
    }
    let own = ring.and_then(|ring| rings.remove(ring)).unwrap_or_default();
    base.extend(own);
    let groups = base.into_iter().map(|(name, built)| (name, Arc::new(built.group))).collect();
    let warnings = report.finish().into_iter().filter(|found| found.severity == Severity::Warning).collect();
    Ok(Parsed { groups, warnings, min_version })
}

/// Reads one file; also says whether it has syntax errors.
fn read(report: &mut Report, file: &TreeFile) -> Option<(At, Node, bool)> {
    let Some(content) = &file.content else {
        let at = report.source(&file.path, [].into());
        report.error(at, "this file was listed and could not be read");
        return None;
    };
    let at = report.source(&file.path, content.clone());
    let before = report.errors();
    let node = node::parse(report, at, content)?;
    Some((at, node, report.errors() > before))
}

/// `tagfall.toml`: the defaults for every group, and the oldest version.
fn repository(report: &mut Report, file: Option<&TreeFile>) -> (Table, Option<semver::Version>) {
    let nothing = (Table::default(), None);
    let Some((at, node, broken)) = file.and_then(|file| read(report, file)) else { return nothing };
    let Some(table) = node.table() else { return nothing };
    check::table(report, &REPOSITORY, at, table, if broken { Missing::Allow } else { Missing::Report });
    let fields = Fields::new(&REPOSITORY, Some(&node));
    let defaults = fields.node("defaults").and_then(Node::table).cloned().unwrap_or_default();
    (defaults, fields.get("min_version"))
}

/// `group.toml` over the repository's defaults.
fn manifest(report: &mut Report, folder: &Folder<'_>, defaults: &Table) -> Option<(Node, bool)> {
    let (at, node, broken) = read(report, folder.manifest?)?;
    let table = node.table()?;
    check::table(report, &GROUP, at, table, if broken { Missing::Allow } else { Missing::Report });
    let mut merged = Table::default();
    for (key, entry) in &defaults.0 {
        // Defaults of [service] make no service.
        if key == "update" || (key == "service" && table.get("service").is_some()) {
            merged.0.insert(key.clone(), entry.clone());
        }
    }
    if merged.0.is_empty() {
        return Some((node, broken));
    }
    merged.merge(table);
    Some((Node { at, value: Value::Table(merged) }, broken))
}

/// An overlay laid over the group's own manifest.
fn merged(alone: &Node, over: &Node) -> Node {
    let mut whole = alone.table().cloned().unwrap_or_default();
    whole.merge(over.table().unwrap_or(&Table::default()));
    Node { at: alone.at, value: Value::Table(whole) }
}

/// One ring's overlay, checked against the group's own manifest.
fn ring_overlay(report: &mut Report, file: &TreeFile, alone: &Node) -> Option<(Node, bool)> {
    let (at, node, broken) = read(report, file)?;
    let table = node.table()?;
    check::table(report, &GROUP, at, table, Missing::Allow);
    overlay::check(report, Fields::new(&GROUP, Some(alone)), table);
    Some((node, broken))
}
