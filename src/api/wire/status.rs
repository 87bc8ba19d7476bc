//! `GET /v1/status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{
    Condition, ConditionKind, GroupName, HealthStatus, MemberId, MountMode, ObjectId, Reason, ServiceState, TagName, Timestamp,
    Truth, Wait, Word,
};

/// Everything that one supervisor says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Who speaks.
    pub supervisor: Supervisor,
    /// The release that was accepted and is driven towards; `null` before the first.
    pub release: Option<ActiveRelease>,
    /// Tags that were not taken, with the reason.
    pub refused: Vec<Refused>,
    /// The release that an operator wants to run instead of the highest; `null` where none is.
    #[serde(default)]
    pub pinned: Option<Pinned>,
    /// Tags that operators do not want to run.
    #[serde(default)]
    pub rejected: Vec<Rejected>,
    /// The newest statement that somebody who is trusted has signed; `null` where there is none, or verification is off.
    #[serde(default)]
    pub freshness: Option<Freshness>,
    /// Conditions of the supervisor as a whole.
    pub conditions: Vec<Condition>,
    /// Groups placed here, and those that are still going away, by name.
    pub groups: Vec<Group>,
    /// The ring, this member included.
    pub ring: Ring,
}

impl Status {
    /// One of the supervisor's conditions.
    pub fn condition(&self, kind: ConditionKind) -> Option<&Condition> {
        find(&self.conditions, kind)
    }

    /// A group that is here.
    pub fn group(&self, name: &GroupName) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == *name)
    }
}

fn find(conditions: &[Condition], kind: ConditionKind) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

/// The supervisor's processes and addresses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Supervisor {
    /// Its name.
    pub name: String,
    /// Its stable id.
    pub member_id: MemberId,
    /// Version of the program.
    pub version: String,
    /// What placement is decided by.
    pub labels: BTreeMap<String, String>,
    /// When this process started.
    pub started_at: Timestamp,
    /// This process.
    pub pid: u32,
    /// The keeper, while it is connected.
    pub keeper_pid: Option<u32>,
    /// The hook host, while there is one.
    pub hook_host_pid: Option<u32>,
    /// Where it listens.
    pub api: ApiAddresses,
}

/// Where the API listens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApiAddresses {
    /// Path of the unix socket.
    pub socket: String,
    /// Address of the TCP listener, where there is one.
    pub listen: Option<String>,
}

/// The accepted release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActiveRelease {
    /// Short name of its tag.
    pub tag: TagName,
    /// Its commit.
    pub commit: ObjectId,
    /// Its tag object.
    pub tag_object: ObjectId,
    /// Who signed; empty where verification is off.
    pub signers: Vec<String>,
    /// When it was accepted here.
    pub accepted_at: Timestamp,
    /// When this supervisor had converged on it; `null` until then.
    pub applied_at: Option<Timestamp>,
}

/// A tag that was not taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// Its short name.
    pub tag: TagName,
    /// What the ref points at.
    pub tag_object: ObjectId,
    /// The name of the cause.
    pub reason: Reason,
    /// The cause in words.
    pub message: String,
    /// Since when it is known.
    pub since: Timestamp,
}

/// A release that an operator has pinned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pinned {
    /// Its short name.
    pub tag: TagName,
    /// What it named when it was pinned.
    pub tag_object: ObjectId,
    /// By whom, why, since and until when.
    #[serde(flatten)]
    pub word: Word,
}

/// A tag that an operator has rejected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// Its short name.
    pub tag: TagName,
    /// By whom, why, since and until when.
    #[serde(flatten)]
    pub word: Word,
}

/// How new what is known of the remote is, by somebody's signed word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Freshness {
    /// When the newest statement was made, by its signer's word.
    pub signed_at: Timestamp,
    /// What it is: a tag, or the heartbeat.
    pub statement: String,
}

/// One service group on this supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// `SERVICE.GROUP`.
    pub name: GroupName,
    /// The revision that is driven towards, in hexadecimal; empty for a group that is going away.
    pub revision: String,
    /// The release that it runs; `null` before it runs any.
    pub release: Option<TagName>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// What holds it back; empty and `Ready` is `True` = converged.
    pub waits: Vec<Wait>,
    /// What it declares that this version does not carry out, and config layers that were left out.
    #[serde(default)]
    pub notices: Vec<String>,
    /// Its process; `null` for a group that only publishes.
    pub service: Option<Service>,
    /// What its last check found.
    pub health: Health,
    /// Its publication; `null` for a group without files.
    pub mount: Option<Mount>,
    /// How far its update is.
    pub rollout: Rollout,
}

impl Group {
    /// One of its conditions.
    pub fn condition(&self, kind: ConditionKind) -> Option<&Condition> {
        find(&self.conditions, kind)
    }

    /// Whether it is converged and healthy.
    pub fn is_ready(&self) -> bool {
        self.condition(ConditionKind::Ready).is_some_and(|condition| condition.status == Truth::True)
    }
}

/// A group's service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Where it stands.
    pub state: ServiceState,
    /// Its main process, while there is one.
    pub pid: Option<u32>,
    /// Restarts that were not asked for.
    pub restarts: u64,
    /// Since when the state is as it is.
    pub since: Timestamp,
    /// What the keeper has to say of it: why it could not be started, or what is not promised here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A group's health; also `GET /v1/groups/NAME/health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// The last answer.
    pub status: HealthStatus,
    /// The answer's words.
    pub message: String,
    /// When it was given; `null` before the first.
    pub checked_at: Option<Timestamp>,
}

/// A group's publication.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Where it is shown.
    pub path: String,
    /// Which publication stands there; `null` before the first.
    pub publication: Option<String>,
    /// How the service sees it.
    pub mode: MountMode,
}

/// A group's update across the ring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Where it stands.
    pub phase: Phase,
    /// Members that have the revision.
    pub updated: u32,
    /// Members in all.
    pub total: u32,
}

/// Phases of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It has not begun.
    Pending,
    /// Members take their turns.
    Progressing,
    /// It is held.
    Paused,
    /// Every member has it.
    Succeeded,
    /// A member failed, and it stays as it is.
    Failed,
    /// A member failed, and what ran before is back.
    RolledBack,
}

/// The ring as this member sees it; also `GET /v1/census`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ring {
    /// Its name; empty without `[ring]`.
    pub name: String,
    /// Its members, this one included.
    pub members: Vec<Member>,
}

/// One supervisor of a ring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its id.
    pub member_id: MemberId,
    /// Where peers reach it; empty without `[ring]`.
    pub address: String,
    /// `alive`, `suspect`, `down` or `departed`.
    pub state: String,
    /// The release that it runs.
    pub release: Option<TagName>,
}
