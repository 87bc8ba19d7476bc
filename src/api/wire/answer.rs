//! Everything but the status: events, releases, and the answers to a person's questions.

use serde::{Deserialize, Serialize};

use crate::model::{GroupName, ObjectId, Reason, TagName, Timestamp};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Rises by one with each event, from 1, over restarts of the supervisor.
    pub id: u64,
    /// When.
    pub time: Timestamp,
    /// Whether somebody should look.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Why, as a name that programs may rely on.
    pub reason: Reason,
    /// What it is about: a group, a tag, or the supervisor's name.
    pub object: String,
    /// What happened, for a person.
    pub message: String,
}

/// Whether somebody should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// All as wanted.
    Normal,
    /// Worth a look.
    Warning,
}

/// One tag that this supervisor knows of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// Its short name.
    pub tag: TagName,
    /// What the ref points at.
    pub tag_object: ObjectId,
    /// Its commit; `null` where the tag was refused before that was known.
    pub commit: Option<ObjectId>,
    /// Where it stands.
    pub state: ReleaseState,
    /// Why, where there is a cause.
    pub reason: Option<Reason>,
    /// The cause in words; empty where there is none.
    pub message: String,
    /// Who signed.
    pub signers: Vec<String>,
    /// Since when it is in this state.
    pub since: Timestamp,
}

/// Where a release stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseState {
    /// Every group here runs what it asks for.
    Running,
    /// Chosen, on its way.
    Accepted,
    /// It did not pass a check.
    Refused,
    /// A newer one took its place.
    Superseded,
    /// Rolled back; never chosen again until accepted.
    Rejected,
}

/// `GET /v1/groups/NAME/config`: effective values and the layer of each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigView {
    /// Whose it is.
    pub group: GroupName,
    /// Each value that is not a table, in the order of its key.
    pub values: Vec<ConfigValue>,
}

/// One effective value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigValue {
    /// Dotted path.
    pub key: String,
    /// The value; a secret is replaced before it comes here.
    pub value: serde_json::Value,
    /// The layer that set it, as a path or a name that a person can go to.
    pub origin: String,
}

/// `GET /v1/groups/NAME/why`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// Whose it is.
    pub group: GroupName,
    /// Whether anything holds it back.
    pub ready: bool,
    /// What does, each with its own causes; empty where nothing does.
    pub because: Vec<Cause>,
}

/// One link of a chain of reasons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// What it is about: a group, a tag, a path.
    pub object: String,
    /// The name of the cause.
    pub reason: Reason,
    /// The cause in words.
    pub message: String,
    /// What lies behind it.
    #[serde(default)]
    pub because: Vec<Cause>,
}

/// `GET /v1/plan`: what would change here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// The release that runs.
    pub from: Option<TagName>,
    /// The release that was asked about.
    pub to: Option<TagName>,
    /// What would be done, in order; empty = nothing.
    pub steps: Vec<PlanStep>,
}

/// One thing that would be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    /// To which group.
    pub group: GroupName,
    /// What: `start`, `stop`, `restart`, `reload`, `publish`, `remove`, …
    pub action: String,
    /// Why, and what it means.
    pub message: String,
}

/// `GET /v1/diff`: effective config and files of two releases. Secrets are replaced before they come here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Diff {
    /// The older side.
    pub from: TagName,
    /// The newer side.
    pub to: TagName,
    /// Groups that differ; empty = none.
    pub groups: Vec<GroupChange>,
}

/// How one group differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupChange {
    /// Its name.
    pub name: GroupName,
    /// `added`, `removed` or `changed`.
    pub change: String,
    /// Effective config values that differ.
    pub config: Vec<ConfigChange>,
    /// Published files that differ.
    pub files: Vec<FileChange>,
    /// Other differences, in words (`[service] exec`, `[update]`, …).
    pub other: Vec<String>,
}

/// One value that differs; `null` = not there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// Dotted path.
    pub key: String,
    /// Before.
    pub from: serde_json::Value,
    /// After.
    pub to: serde_json::Value,
}

/// One file that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileChange {
    /// Its path below the mount.
    pub path: String,
    /// `added`, `removed` or `changed`.
    pub change: String,
    /// A unified diff of the rendered text; `null` where it is not text.
    pub diff: Option<String>,
}

/// `GET /v1/trace`: where a published file comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The path that was asked about.
    pub path: String,
    /// Whose it is.
    pub group: GroupName,
    /// Path in the configuration repository.
    pub file: String,
    /// Its blob.
    pub blob: ObjectId,
    /// Whether it was rendered from a template.
    pub template: bool,
    /// The publication that it is part of.
    pub publication: String,
    /// The release's commit.
    pub commit: ObjectId,
    /// The release's tag.
    pub tag: TagName,
    /// The release's tag object.
    pub tag_object: ObjectId,
    /// Who signed; empty where verification is off.
    pub signers: Vec<String>,
    /// Whether what stands there now is what was published.
    pub intact: bool,
}

/// Body of `POST /v1/groups/NAME/service/{start|stop|restart}`; may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceRequest {
    /// Why, shown in the status.
    pub reason: Option<String>,
    /// Until when a stop holds.
    pub until: Option<Timestamp>,
}

/// Body of `POST /v1/releases/TAG/{pin|unpin|reject|accept}`; may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Why, shown in the status.
    pub reason: Option<String>,
    /// Until when it holds.
    pub until: Option<Timestamp>,
}

/// `GET /v1/releases/TAG/verify`: whether a tag's signatures are enough.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// Its short name.
    pub tag: TagName,
    /// What the ref points at.
    pub tag_object: ObjectId,
    /// Its commit; `null` where it was refused before that was known.
    pub commit: Option<ObjectId>,
    /// Whether they are.
    pub verified: bool,
    /// Who signed; empty where they are not.
    pub signers: Vec<String>,
    /// Why not.
    pub reason: Option<Reason>,
    /// Why not, in words; empty where they are.
    pub message: String,
}

/// What every failed request answers with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The failure.
    pub error: ErrorDetail,
}

/// A failure's name and words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// As a name that programs may rely on.
    pub reason: String,
    /// For a person: what could not be done, and what to do.
    pub message: String,
}
