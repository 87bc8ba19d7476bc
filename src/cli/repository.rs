//! What the commands without a supervisor share: a tree as manifests mean it, groups beside broken ones, and the facts that
//! stand in for a host. It prints nothing and decides no exit code; a new command begins with [`read`] or [`Reading::of`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::CliError;
use crate::manifest::{Diagnostic, Parsed, Severity, parse_release};
use crate::model::{Group, GroupName, ObjectId, Reason, Refusal, TagName, TreeFile};
use crate::render::Host;
use crate::source::{self, Tree};

/// So many times a tree is read anew without the folders that are broken: each time fewer are left that need one of them.
const READINGS_MAX: usize = 8;

/// A group that declares nothing.
const EMPTY_GROUP: &str = "format = 1\n[placement]\n";

/// The tag that templates show where no tag is there yet.
pub(super) const NO_TAG: &str = "v0.0.0";

/// Why a tree could not be read.
pub(super) enum Unread {
    /// It breaks a rule of every release.
    Refused(Box<Diagnostic>),
    /// It is not there, or out of reach.
    Failed(CliError),
}

/// Reads a folder as it stands, or a tag of the repository there.
pub(super) fn read(dir: &Path, tag: Option<&str>) -> Result<Tree, Unread> {
    let read = match tag {
        Some(tag) => source::read_repository(dir, tag),
        None => source::read_folder(dir),
    };
    let tree = read.map_err(|refusal| unread(dir, tag, refusal))?;
    if tag.is_none() && tree.files.is_empty() && !dir.join("groups").is_dir() {
        let message = format!("`{}` has neither a folder `groups` nor a file `tagfall.toml`", dir.display());
        let hint = "DIR names the root of a configuration repository; `tagfall init DIR` makes one";
        return Err(Unread::Failed(CliError::usage(message, hint)));
    }
    Ok(tree)
}

fn unread(dir: &Path, tag: Option<&str>, refusal: Refusal) -> Unread {
    if matches!(refusal.reason, Reason::GitOperationFailed | Reason::AuthenticationFailed) {
        let what = tag.map_or_else(|| "the folder".to_owned(), |tag| format!("`{tag}` of"));
        return Unread::Failed(CliError::could_not_run(format!("read {what} `{}`", dir.display()), Words(refusal.message)));
    }
    let quoted = refusal.message.split('`').skip(1).step_by(2);
    let path = quoted.into_iter().find(|text| text.starts_with("groups/") || *text == "tagfall.toml");
    let file = path.or(tag).unwrap_or(".").to_owned();
    let Refusal { message, .. } = refusal;
    Unread::Refused(Box::new(Diagnostic { severity: Severity::Error, file, line: 1, column: 1, message, hint: None }))
}

/// Words from another room, as an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Words(pub(super) String);

/// What files mean for one ring: everything that is wrong, and the groups that can be looked at all the same.
pub(super) struct Reading {
    /// Errors and warnings of the manifests, of every ring's overlay.
    pub(super) found: Vec<Diagnostic>,
    /// Every group, or those that nothing is wrong with.
    pub(super) groups: BTreeMap<GroupName, Arc<Group>>,
    /// `min_version`, where it could be read.
    pub(super) min_version: Option<semver::Version>,
}

impl Reading {
    /// Reads all manifests. Where some are broken, the others are read without them.
    pub(super) fn of(files: &[TreeFile], ring: Option<&str>) -> Self {
        let found = match parse_release(files, ring) {
            Ok(parsed) => return Self::whole(parsed),
            Err(found) => found,
        };
        let mut broken = broken(&found);
        for _ in 0..READINGS_MAX {
            match parse_release(&without(files, &broken), ring) {
                Ok(Parsed { mut groups, min_version, .. }) => {
                    let folders = folders(files);
                    groups.retain(|name, _| folders.get(name).is_some_and(|folder| !broken.contains(folder)));
                    return Self { found, groups, min_version };
                }
                Err(more) => broken.extend(self::broken(&more)),
            }
        }
        Self { found, groups: BTreeMap::new(), min_version: None }
    }

    fn whole(parsed: Parsed) -> Self {
        Self { found: parsed.warnings, groups: parsed.groups, min_version: parsed.min_version }
    }

    /// Whether a release of these files would be refused.
    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|found| found.severity == Severity::Error)
    }

    /// The newer version that the repository asks for, where this one is too old.
    pub(super) fn too_old(&self) -> Option<&semver::Version> {
        let own = semver::Version::parse(env!("CARGO_PKG_VERSION")).unwrap_or(semver::Version::new(0, 0, 0));
        self.min_version.as_ref().filter(|needed| **needed > own)
    }
}

/// What must be left out for an error to go away: a group's folder, or a file of the root.
fn broken(found: &[Diagnostic]) -> BTreeSet<String> {
    let errors = found.iter().filter(|found| found.severity == Severity::Error);
    errors.map(|error| unit(&error.file).to_owned()).collect()
}

/// The files with an empty group for each broken folder, so that those that bind it can be looked at.
fn without(files: &[TreeFile], broken: &BTreeSet<String>) -> Vec<TreeFile> {
    let mut rest: Vec<TreeFile> = files.iter().filter(|file| !broken.contains(unit(&file.path))).cloned().collect();
    let empty: Arc<[u8]> = EMPTY_GROUP.as_bytes().into();
    for folder in folders(files).into_values().filter(|folder| broken.contains(folder)) {
        let path = format!("{folder}/group.toml");
        let size = EMPTY_GROUP.len() as u64;
        rest.push(TreeFile { path, blob: no_commit(), executable: false, size, content: Some(empty.clone()) });
    }
    rest
}

/// `groups/web` of `groups/web/config/x`.
fn unit(path: &str) -> &str {
    let inner = path.strip_prefix("groups/").and_then(|rest| rest.split('/').next());
    inner.map_or(path, |name| &path[..name.len() + "groups/".len()])
}

/// The folder of each group, as it is written.
pub(super) fn folders(files: &[TreeFile]) -> BTreeMap<GroupName, String> {
    let manifests = files.iter().filter_map(|file| file.path.strip_suffix("/group.toml"));
    manifests.filter_map(|folder| Some((folder.strip_prefix("groups/")?.parse().ok()?, folder.to_owned()))).collect()
}

/// Every ring that some group has an overlay for.
pub(super) fn rings(files: &[TreeFile]) -> BTreeSet<&str> {
    let ring = |file: &'_ TreeFile| -> Option<usize> {
        let (_, name) = file.path.strip_prefix("groups/")?.split_once("/rings/")?;
        Some(name.strip_suffix(".toml")?.len())
    };
    let name = |file| {
        let length = ring(file)?;
        let end = file.path.len() - ".toml".len();
        file.path.get(end - length..end)
    };
    files.iter().filter_map(name).collect()
}

/// Facts of no host in particular: the same wherever a command runs.
pub(super) fn host(ring: Option<&str>) -> Host {
    Host {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        member_id: "0".repeat(32),
        ip: "127.0.0.1".to_owned(),
        hostname: "localhost".to_owned(),
        gossip_ip: "127.0.0.1".to_owned(),
        gossip_port: 9638,
        http_gateway_ip: "127.0.0.1".to_owned(),
        http_gateway_port: 9631,
        data_dir: crate::manifest::ROOT_DATA_DIR.to_owned(),
        ring: ring.map(str::to_owned),
        user: "root".to_owned(),
        user_group: "root".to_owned(),
    }
}

/// What templates show as the release: of a tag its own, else stand-ins.
pub(super) fn release(tree: &Tree) -> (TagName, ObjectId) {
    let tag = tree.tag.as_ref().map_or_else(|| TagName::new(NO_TAG), |tag| tag.name.clone());
    (tag, tree.commit.unwrap_or_else(no_commit))
}

/// A commit that is none.
pub(super) fn no_commit() -> ObjectId {
    ObjectId::from_bytes([0; 20])
}

/// How alike a name must be to have been meant: 1 is the same.
const MEANT_MIN: f64 = 0.8;

/// The hint for a dotted name that the data does not have: the nearest that it has at that place.
pub(super) fn meant(data: &serde_json::Value, name: &str) -> Option<String> {
    let mut table = data.as_object()?;
    let mut known = String::new();
    for part in name.split('.') {
        match table.get(part) {
            Some(value) => {
                table = value.as_object()?;
                known.push_str(part);
                known.push('.');
            }
            None => {
                let alike = |key: &&String| strsim::jaro_winkler(part, key);
                let near = table.keys().filter(|key| alike(key) > MEANT_MIN).max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
                return Some(format!("did you mean `{known}{near}`?"));
            }
        }
    }
    None
}
