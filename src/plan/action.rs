//! What can be asked for, and what can be learned.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Check, CheckResult, Digest, FirstTag, GroupName, HookAnswer, HookKind, HookModule, HookOrder, Launch, ObjectId, Occasion,
    OwedChange, PublicationId, Reason, Refusal, Release, RemoteTag, ServiceReport, ServiceSpec, Signal, Suspension, View,
};

use super::{Layers, Wanted};

/// What an action works on. At most one action is in flight per key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The remote.
    Source,
    /// The durable record of releases.
    Record,
    /// One side of one group.
    Group(GroupName, Lane),
}

/// The sides of a group that may work at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Files on disk.
    Publication,
    /// The process.
    Service,
    /// Its health check.
    Health,
    /// What is owed to its hooks, written down.
    Hooks,
    /// One of its other hooks: each waits for itself alone.
    Hook(HookKind),
}

/// One effect to carry out. It leaves its executor no choice.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Ask the remote for its tags.
    List,
    /// Bring in one tag and check it whole: objects, paths, manifest, templates.
    Examine {
        /// The tag.
        tag: RemoteTag,
    },
    /// Record a release durably as the one driven towards.
    Accept {
        /// The release.
        release: Arc<Release>,
        /// The first tag of every group's revision, this release counted in.
        first_tags: BTreeMap<GroupName, FirstTag>,
    },
    /// Record durably that the accepted release is applied: the floor rises to it.
    MarkApplied {
        /// The tag.
        tag: RemoteTag,
        /// The floor from then on: its version, or a higher one that was applied before.
        floor: Option<semver::Version>,
    },
    /// Render a group and write its publication, without showing it.
    Stage {
        /// What to render.
        wanted: Arc<Wanted>,
        /// Write a new copy even where one of the same content stands (it drifted).
        fresh_copy: bool,
    },
    /// Show a written publication at the mount path.
    Switch {
        /// Whose.
        group: GroupName,
        /// Which.
        publication: PublicationId,
        /// Where.
        mount_path: String,
        /// A link of ours at another path, to be taken away after.
        old_path: Option<String>,
    },
    /// Compare what is shown with what was written.
    Verify {
        /// Whose.
        group: GroupName,
        /// Which.
        publication: PublicationId,
    },
    /// Delete old publications.
    Prune {
        /// Whose.
        group: GroupName,
        /// So many older ones stay.
        keep: u32,
        /// These stay in any case.
        in_use: Vec<PublicationId>,
    },
    /// Take away link, view and publications of a group that is not here any more.
    Withdraw {
        /// Whose.
        group: GroupName,
        /// Where its link is.
        mount_path: Option<String>,
    },
    /// Make this the running specification; `restart` even where the same launch runs.
    Run {
        /// All that the keeper needs.
        spec: Box<ServiceSpec>,
        /// Replace a running process.
        restart: bool,
    },
    /// Take over what concerns no process: revision, release, policy.
    Amend {
        /// All that the keeper needs.
        spec: Box<ServiceSpec>,
    },
    /// Let the running process see another publication, and tell it.
    Reload {
        /// Whose.
        group: GroupName,
        /// What it is to see.
        view: View,
        /// How it is told; nothing where only a drifted copy is replaced.
        signal: Option<Signal>,
    },
    /// Replace the process by a new one of the same specification.
    Restart {
        /// Whose.
        group: GroupName,
    },
    /// Tell the keeper that the service is ready.
    MarkReady {
        /// Whose.
        group: GroupName,
        /// Of which process.
        incarnation: u64,
    },
    /// Stop the service; it stays known.
    Stop {
        /// Whose.
        group: GroupName,
    },
    /// Have the keeper forget a stopped service.
    Forget {
        /// Whose.
        group: GroupName,
    },
    /// Run the health check once.
    Check {
        /// Whose.
        group: GroupName,
        /// Of which process; 0 where there is none.
        incarnation: u64,
        /// What to check, rendered.
        check: Check,
        /// The module that checks, where one does.
        module: Option<Arc<HookModule>>,
        /// Its bound.
        timeout: Duration,
    },
    /// Call a hook.
    Call(Box<HookOrder>),
    /// Write down what is owed to a group's hooks.
    Owe {
        /// Whose.
        group: GroupName,
        /// What changes of it.
        change: OwedChange,
    },
    /// Send the main process a signal, as a hook wants it.
    Signal {
        /// Whose.
        group: GroupName,
        /// Which.
        signal: Signal,
        /// What changes of what is owed once it is sent.
        after: OwedChange,
    },
}

impl Action {
    /// Its name, for logs and traces.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Examine { .. } => "examine",
            Self::Accept { .. } => "accept",
            Self::MarkApplied { .. } => "mark-applied",
            Self::Stage { .. } => "stage",
            Self::Switch { .. } => "switch",
            Self::Verify { .. } => "verify",
            Self::Prune { .. } => "prune",
            Self::Withdraw { .. } => "withdraw",
            Self::Run { .. } => "run",
            Self::Amend { .. } => "amend",
            Self::Reload { .. } => "reload",
            Self::Restart { .. } => "restart",
            Self::MarkReady { .. } => "mark-ready",
            Self::Stop { .. } => "stop",
            Self::Forget { .. } => "forget",
            Self::Check { .. } => "check",
            Self::Call(_) => "call",
            Self::Owe { .. } => "owe",
            Self::Signal { .. } => "signal",
        }
    }

    /// Routine actions look; they change nothing that is declared.
    pub fn is_routine(&self) -> bool {
        matches!(self, Self::List | Self::Check { .. } | Self::Verify { .. } | Self::Prune { .. })
    }
}

/// What staging made.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// What is written; `None` for a group without files.
    pub publication: Option<PublicationId>,
    /// What is to be started, rendered; `None` without a service.
    pub launch: Option<Launch>,
    /// The health check, rendered.
    pub check: Option<Check>,
    /// Hooks that are modules.
    pub hooks: BTreeMap<HookKind, Arc<HookModule>>,
    /// Publications of the group on disk, newest first.
    pub copies: Vec<PublicationId>,
    /// Layers or keys of layers that were left out, and why.
    pub notices: Vec<String>,
}

/// Why an effect could not be carried out. It left what was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The name of the cause.
    pub reason: Reason,
    /// In words.
    pub message: String,
    /// Not worth trying again before.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure with its words.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None }
    }
}

/// The answer to one action.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Of `List`.
    Listed(Result<Vec<RemoteTag>, Refusal>),
    /// Of `Examine`.
    Examined {
        /// The tag.
        tag: RemoteTag,
        /// The release, whole, or why not.
        result: Result<Arc<Release>, Refusal>,
    },
    /// Of `Accept`.
    Accepted {
        /// What was recorded.
        release: Arc<Release>,
        /// What was recorded with it.
        first_tags: BTreeMap<GroupName, FirstTag>,
    },
    /// Of `MarkApplied`.
    Applied {
        /// The tag.
        tag: RemoteTag,
    },
    /// Of `Stage`.
    Staged {
        /// What it was rendered from.
        inputs: Digest,
        /// Which revision that was, and the first tag with it.
        first: FirstTag,
        /// What it made.
        result: Result<Box<Prepared>, Failure>,
    },
    /// Of `Switch`.
    Switched {
        /// Which is shown now.
        publication: PublicationId,
        /// Where.
        mount_path: String,
    },
    /// Of `Verify`: paths that differ.
    Verified {
        /// Which.
        publication: PublicationId,
        /// What differs; empty where all is as written.
        drifted: Vec<String>,
    },
    /// Of `Prune`: what is left, newest first.
    Pruned(Vec<PublicationId>),
    /// Of `Withdraw`.
    Withdrawn,
    /// Of what the keeper was asked for; the effect itself comes as a report.
    Asked,
    /// Of `Check`.
    Checked {
        /// Of which process.
        incarnation: u64,
        /// The answer.
        result: CheckResult,
    },
    /// Of `Call`.
    Called {
        /// Which hook.
        kind: HookKind,
        /// What it was about.
        occasion: Occasion,
        /// What came of it.
        answer: HookAnswer,
        /// What has changed of what is owed.
        change: Option<OwedChange>,
    },
    /// Of `Owe` and `Signal`: what has changed of what is owed.
    Owed(OwedChange),
    /// Any of them could not be carried out; tried again after a while.
    Failed(Failure),
}

/// One thing learned.
#[derive(Debug, Clone)]
pub enum Event {
    /// An action's answer.
    Done {
        /// What it worked on.
        key: Key,
        /// Which attempt it answers; late news is dropped by it.
        attempt: u64,
        /// The answer.
        outcome: Outcome,
    },
    /// The keeper says how a service stands.
    Service(Box<ServiceReport>),
    /// How a service stands that is a container.
    Container(Box<ServiceReport>),
    /// What is known of the container engine.
    Engine(super::Engine),
    /// The keeper, or the container engine, knows a service no more.
    ServiceGone(GroupName),
    /// The keeper has said hello, in this minor version of its protocol.
    KeeperSpeaks(u64),
    /// The keeper has told of all services since (re)connecting.
    KeeperReady,
    /// The connection to the keeper is lost.
    KeeperLost,
    /// Something says that the remote may have changed: look now.
    LookNow,
    /// Something moved below a published path: compare.
    DriftHint(GroupName),
    /// A file with a layer may be another now: the loop reads it and makes [`Event::LayersChanged`] of it.
    LayersHint(GroupName),
    /// A layer above the release changed.
    LayersChanged {
        /// Whose.
        group: GroupName,
        /// The new ones.
        layers: Layers,
    },
    /// An operator stopped a service (`Some`), or lets it start again.
    Suspended {
        /// Whose.
        group: GroupName,
        /// By whom and why.
        suspension: Option<Suspension>,
    },
    /// An operator asks for a restart.
    RestartAsked(GroupName),
}

/// A tag's identity: what verdicts are about.
pub(super) type TagKey = (crate::model::TagName, ObjectId);

/// The identity of a tag as a remote lists it.
pub(super) fn tag_key(tag: &RemoteTag) -> TagKey {
    (tag.name.clone(), tag.object)
}
