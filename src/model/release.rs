//! Tags, releases and refusals.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Digest, Group, GroupName, ObjectId, Reason, TagName, Timestamp};

/// A tag as a remote lists it: its name and what the ref points at (the tag object where it is annotated).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct RemoteTag {
    /// Short name.
    pub name: TagName,
    /// The id that the ref holds.
    pub object: ObjectId,
}

/// One tag that passed every check, and what it asks for on this supervisor. Always whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// Short name of the tag.
    pub tag: TagName,
    /// Id of the annotated tag object.
    pub tag_object: ObjectId,
    /// Id of the commit.
    pub commit: ObjectId,
    /// Who signed, as the trust file names them; empty where verification is off.
    pub signers: Vec<String>,
    /// When the tag was made, by its maker's word.
    pub tagged_at: Timestamp,
    /// Every group of the tree, with this ring's overlay applied, placed here or not.
    pub groups: BTreeMap<GroupName, Arc<Group>>,
}

/// Why a tag was not taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refusal {
    /// The name of the cause.
    pub reason: Reason,
    /// What is wrong, where, and what to do.
    pub message: String,
}

/// One file of a release's tree, as walked from checked Git objects (or from a working folder, for `check`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// Path from the repository's root, `/`-separated, UTF-8, safe by construction (no `..`, no `.git`, no control characters).
    pub path: String,
    /// The blob's id.
    pub blob: ObjectId,
    /// Whether the tree marks it executable.
    pub executable: bool,
    /// Bytes of the blob.
    pub size: u64,
    /// The content, read for `*.toml` and `*.hbs`; everything else stays in the store until it is published.
    pub content: Option<Arc<[u8]>>,
}

/// The first tag that was accepted with a revision: what `release.tag` shows in templates and `TAGFALL_RELEASE` in services.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FirstTag {
    /// The revision.
    pub revision: Digest,
    /// The tag.
    pub tag: TagName,
    /// Its commit.
    pub commit: ObjectId,
}

/// An operator's word that a service is to stay stopped. Lasts until he takes it back or the revision changes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Suspension {
    /// Who said so.
    pub who: String,
    /// Why.
    pub reason: String,
    /// When.
    pub since: Timestamp,
    /// When it ends by itself, by the wall clock.
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// The revision it was said of.
    pub revision: Option<Digest>,
}

/// What an operator said, with who and when.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Word {
    /// Who said so.
    pub who: String,
    /// Why.
    pub reason: String,
    /// When.
    pub since: Timestamp,
    /// When it ends by itself, by the wall clock.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

impl std::fmt::Display for Word {
    /// `WHO: WHY`, and its end where it has one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.who, self.reason)?;
        self.until.map_or(Ok(()), |until| write!(f, " (until {until})"))
    }
}

/// An operator's word that one tag is to run, whatever its version.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pin {
    /// The tag, with the object that it named when it was pinned.
    pub tag: RemoteTag,
    /// By whom and why.
    #[serde(flatten)]
    pub word: Word,
}
