//! Conditions and the reasons behind them, as status, events and metrics name them.

use super::Timestamp;

/// What is known of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told now.
    Unknown,
}

/// The kinds of condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum ConditionKind {
    /// Always there: converged and healthy.
    Ready,
    /// Work is under way.
    Reconciling,
    /// Only a person can get it further.
    Stalled,
    /// The running release's signatures hold.
    SourceVerified,
    /// The service's checks pass.
    Healthy,
    /// Somebody changed published files by hand.
    DriftDetected,
    /// An operator holds it back.
    Suspended,
    /// An operator, or a failed gate, holds the rollout.
    RolloutPaused,
    /// The supervisor's process has the rights that it needs, and no more.
    Confined,
}

/// One statement about a supervisor or a group.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: Truth,
    /// Why, as a name that programs may rely on.
    pub reason: Reason,
    /// Why, for a person.
    pub message: String,
    /// Since when the status has been as it is.
    pub since: Timestamp,
}

/// Why something is as it is: one closed list for status, events and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[expect(missing_docs, reason = "the names are the documentation; the site's table of reasons explains each")]
pub enum Reason {
    // Why a tag is not taken (CONTRACT: which release runs).
    TagMoved,
    TagNameMismatch,
    NotAnnotated,
    InvalidTagSignature,
    SignerNotTrusted,
    ThresholdNotMet,
    DowngradeRefused,
    RevisionRejected,
    InvalidGitObject,
    UnsafePath,
    LimitExceeded,
    InvalidConfiguration,
    GitOperationFailed,
    AuthenticationFailed,
    Equivocation,
    FreezeSuspected,
    InvalidHook,
    // Source.
    NoRelease,
    NoMatchingTag,
    Fetching,
    Unverified,
    // Groups.
    Converged,
    Waiting,
    RenderFailed,
    Publishing,
    PublishFailed,
    MountOccupied,
    MountFailed,
    DriftDetected,
    Starting,
    Stopping,
    Reloading,
    Restarting,
    Backoff,
    StartFailed,
    ServiceFailed,
    KeeperAway,
    EngineAway,
    HookHostAway,
    HookFailed,
    StoppedByOperator,
    NotCarriedOut,
    HealthCritical,
    HealthUnknown,
    HealthOk,
    BindUnsatisfied,
    StateRestored,
    NotConfined,
}
