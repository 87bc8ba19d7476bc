//! One call of a module, and its answer: what the planner asks for and observes. How a module is run is no question here.

use std::sync::Arc;
use std::time::Duration;

use super::{
    CheckResult, Digest, Exit, Grants, GroupName, HealthStatus, HookKind, Launch, ObjectId, Probes, PublicationId, TagName,
};

/// A hook of a group that is a module, ready to be called: everything that is the same for all of its calls.
#[derive(Debug, Clone, PartialEq)]
pub struct HookModule {
    /// Which hook.
    pub kind: HookKind,
    /// SHA-256 of the module.
    pub module: Digest,
    /// `args`, rendered, as a JSON object.
    pub args_json: Arc<str>,
    /// What templates see, as a JSON object.
    pub config_json: Arc<str>,
    /// What it may reach; templates rendered.
    pub grants: Arc<Grants>,
    /// What is asked before a command begins; templates rendered.
    pub probes: Arc<Probes>,
    /// Values of `allow.env`.
    pub env: Arc<[(String, String)]>,
    /// What its service is started with; its commands are run alike.
    pub launch: Option<Arc<Launch>>,
    /// Of one call.
    pub timeout: Duration,
    /// Bytes of memory.
    pub memory: u64,
    /// The release that it belongs to.
    pub release: TagName,
    /// Its commit.
    pub commit: ObjectId,
}

/// A call that the planner wants: the module, what it is about, and what it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct HookOrder {
    /// Whose hook.
    pub group: GroupName,
    /// What runs.
    pub module: Arc<HookModule>,
    /// What it is about; the answer carries it.
    pub occasion: Occasion,
    /// What it is told beside the context. Of `reconfigure`, the names of the files are found out by whoever carries it out.
    pub input: HookInput,
    /// What led to the call: a word of `context.reason` in wit/.
    pub reason: &'static str,
    /// From 1. Of `post-stop`, what is written down counts instead: it outlives whoever was calling.
    pub attempt: u32,
    /// `context.extra`.
    pub extra: Vec<(String, String)>,
    /// What its answer changes of what is owed.
    pub after: Option<OwedChange>,
}

/// What a call is about. A hook is called once for each, where it is to be called once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The start that follows this process, from what was made of these inputs.
    Start {
        /// 0 for the first.
        after: u64,
        /// Digest of what was rendered from.
        inputs: Digest,
    },
    /// One process.
    Process(u64),
    /// The end of a process that is asked for.
    Stop {
        /// Of which process.
        incarnation: u64,
        /// Who asked for it and why, as a digest: asked again by another, it is another end.
        cause: Digest,
    },
    /// After the end of a process.
    Stopped,
    /// Another publication, seen by a process (0: there is none).
    Publication {
        /// By which.
        incarnation: u64,
        /// Which.
        publication: PublicationId,
    },
    /// Another revision.
    Revision(Digest),
}

/// What must not be forgotten of a group's hooks, whatever ends meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct OwedHooks {
    /// A process has been, or is about to be, for whose end `post-stop` is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_stop: Option<OwedPostStop>,
    /// The process for which `post-run` was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_run: Option<u64>,
    /// What is shown was changed, and `reconfigure` has not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconfigure: Option<OwedReconfigure>,
    /// The tag before an update, for which `post-update` has not said yet that it went well. Empty where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_update: Option<String>,
}

/// One change of what is owed. Calls of a group's hooks go on side by side, so none hands over more than its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of `OwedHooks`, set and cleared")]
pub enum OwedChange {
    PostStop(Option<OwedPostStop>),
    PostRun(u64),
    Reconfigure(Option<OwedReconfigure>),
    PostUpdate(Option<String>),
    /// Nothing is owed any more.
    Nothing,
}

impl OwedHooks {
    /// Takes a change over.
    pub fn apply(&mut self, change: OwedChange) {
        match change {
            OwedChange::PostStop(owed) => self.post_stop = owed,
            OwedChange::PostRun(process) => self.post_run = Some(process),
            OwedChange::Reconfigure(owed) => self.reconfigure = owed,
            OwedChange::PostUpdate(owed) => self.post_update = owed,
            OwedChange::Nothing => *self = Self::default(),
        }
    }

    /// Every process that it speaks of is gone, and their numbers are given anew.
    pub fn outlived(&mut self) {
        (self.post_run, self.reconfigure) = (None, None);
        if let Some(owed) = &mut self.post_stop {
            owed.after = None;
        }
    }
}

/// The end of a process that is to be followed by a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OwedPostStop {
    /// The process before the one that is meant; as long as it is still the last one, nothing has begun. `None` = the one
    /// that is meant is of an earlier boot.
    pub after: Option<u64>,
    /// Calls that have begun.
    pub calls: u32,
}

/// A process that runs on and sees other files than it was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OwedReconfigure {
    /// Which process; 0 for a group without one.
    pub incarnation: u64,
    /// What it saw before: the content's digest. `None` = nothing was shown.
    pub from: Option<Digest>,
}

/// One call of a module.
#[derive(Debug, Clone, PartialEq)]
pub struct HookCall {
    /// The group whose hook it is.
    pub group: GroupName,
    /// SHA-256 of the module.
    pub module: Digest,
    /// Which hook, with what that one is told beside the context.
    pub input: HookInput,
    /// What every hook is told.
    pub context: HookContext,
    /// `args`, rendered, as a JSON object.
    pub args_json: Arc<str>,
    /// What templates see, as a JSON object.
    pub config_json: Arc<str>,
    /// Who else is there.
    pub members: Arc<[HookMember]>,
    /// What it may reach; templates rendered.
    pub grants: Arc<Grants>,
    /// What is asked before a command begins; templates rendered.
    pub probes: Arc<Probes>,
    /// Values of `allow.env`.
    pub env: Arc<[(String, String)]>,
    /// Of the whole call.
    pub timeout: Duration,
    /// Bytes of memory.
    pub memory: u64,
}

impl HookCall {
    /// Which hook.
    pub fn kind(&self) -> HookKind {
        self.input.kind()
    }
}

/// What a hook of one kind is told beside the context.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "named as in group.toml and wit/")]
pub enum HookInput {
    HealthCheck,
    Init,
    PostRun { pid: Option<u32> },
    Reconfigure { changed: Vec<String> },
    FileUpdated { paths: Vec<String> },
    Suitability,
    PreUpdate { next: String },
    PostUpdate { previous: String },
    PreStop,
    PostStop { code: Option<i32>, signal: Option<String> },
}

impl HookInput {
    /// Which hook it is for.
    pub const fn kind(&self) -> HookKind {
        match self {
            Self::HealthCheck => HookKind::HealthCheck,
            Self::Init => HookKind::Init,
            Self::PostRun { .. } => HookKind::PostRun,
            Self::Reconfigure { .. } => HookKind::Reconfigure,
            Self::FileUpdated { .. } => HookKind::FileUpdated,
            Self::Suitability => HookKind::Suitability,
            Self::PreUpdate { .. } => HookKind::PreUpdate,
            Self::PostUpdate { .. } => HookKind::PostUpdate,
            Self::PreStop => HookKind::PreStop,
            Self::PostStop { .. } => HookKind::PostStop,
        }
    }

    /// What a hook is told where nothing is known: for trying it.
    pub fn empty(kind: HookKind) -> Self {
        match kind {
            HookKind::HealthCheck => Self::HealthCheck,
            HookKind::Init => Self::Init,
            HookKind::PostRun => Self::PostRun { pid: None },
            HookKind::Reconfigure => Self::Reconfigure { changed: Vec::new() },
            HookKind::FileUpdated => Self::FileUpdated { paths: Vec::new() },
            HookKind::Suitability => Self::Suitability,
            HookKind::PreUpdate => Self::PreUpdate { next: String::new() },
            HookKind::PostUpdate => Self::PostUpdate { previous: String::new() },
            HookKind::PreStop => Self::PreStop,
            HookKind::PostStop => Self::PostStop { code: None, signal: None },
        }
    }

    /// After the last process of a service.
    pub fn post_stop(exit: Exit) -> Self {
        match exit {
            Exit::Code(code) => Self::PostStop { code: Some(code), signal: None },
            Exit::Signal(signal) => Self::PostStop { code: None, signal: Some(signal.to_string()) },
            Exit::OutOfMemory { .. } => Self::PostStop { code: None, signal: Some("SIGKILL".to_owned()) },
            Exit::Unknown => Self::PostStop { code: None, signal: None },
        }
    }
}

/// What every hook is told.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct HookContext {
    /// Tag of the release.
    pub release: String,
    /// Its commit.
    pub commit: String,
    /// What led to the call: `boot`, `interval`, `update`, ….
    pub reason: String,
    /// From 1.
    pub attempt: u32,
    /// The same in all that is said about the call.
    pub trace_id: String,
    /// More, by name.
    pub extra: Vec<(String, String)>,
}

/// A member of a group, as hooks see it.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "as in wit/")]
pub struct HookMember {
    pub id: String,
    pub group: String,
    pub address: String,
    pub alive: bool,
    pub healthy: bool,
    pub leader: bool,
    pub suitability: u64,
    /// Whether it is the one that runs the hook.
    pub is_me: bool,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum HookAnswer {
    /// A check's answer.
    Health {
        /// What was found.
        status: HealthStatus,
        /// In one sentence.
        message: String,
    },
    /// What is to be done next.
    Outcome {
        /// With the service.
        action: HookAction,
        /// In one sentence, or nothing.
        message: String,
    },
    /// How well this member would lead.
    Rank(u64),
    /// No answer.
    Failed(HookFailure),
}

impl HookAnswer {
    /// Why it is no success: it failed, or a check said neither `ok` nor `warning`.
    pub fn trouble(&self) -> Option<HookFailure> {
        match self {
            Self::Failed(failure) => Some(failure.clone()),
            Self::Health { status: HealthStatus::Ok | HealthStatus::Warning, .. } | Self::Outcome { .. } | Self::Rank(_) => None,
            Self::Health { status, message } => {
                let word = if *status == HealthStatus::Critical { "critical" } else { "unknown" };
                Some(HookFailure::new(HookFailed::Said, format!("{word}: {message}")))
            }
        }
    }

    /// Whether the call was cut off by the end of the process that runs modules, so that nobody knows how far it got.
    pub fn is_cut_off(&self) -> bool {
        matches!(self, Self::Failed(HookFailure { reason: HookFailed::HostGone, .. }))
    }

    /// As the answer of a check: what failed cannot be told.
    pub fn into_check(self) -> CheckResult {
        match self {
            Self::Health { status, message } => CheckResult::new(status, message),
            Self::Failed(failure) => CheckResult::new(HealthStatus::Unknown, failure.message),
            Self::Outcome { message, .. } => CheckResult::new(HealthStatus::Ok, message),
            Self::Rank(rank) => CheckResult::new(HealthStatus::Ok, rank.to_string()),
        }
    }
}

/// What a hook wants done with the service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum HookAction {
    /// Nothing.
    Done,
    /// This signal, by its name.
    Signal(String),
    /// A restart.
    Restart,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HookFailure {
    /// As a name.
    pub reason: HookFailed,
    /// For a person.
    pub message: String,
    /// Not worth trying again before.
    pub retry_after: Option<Duration>,
}

impl HookFailure {
    /// A failure that may be tried again at any time.
    pub fn new(reason: HookFailed, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None }
    }
}

/// The ways to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookFailed {
    /// The hook itself says that it could not do what it is for.
    Said,
    /// It broke off: an unreachable instruction, a bad address, a stack that ran over.
    Trap,
    /// It took longer than its timeout.
    Timeout,
    /// It wanted more memory than its limit.
    Memory,
    /// It failed after something was refused to it that `allow` does not name.
    Denied,
    /// The process that runs modules ended, or could not be started.
    HostGone,
    /// The module cannot be run, or gave an answer that none is.
    Invalid,
}
