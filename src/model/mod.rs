//! The nouns of the domain: ids, time, digests, groups, releases, services, conditions.
//!
//! Pure data with the rules that always hold for it. Knows nothing of files, processes, clocks, Git or the network.
//! A new noun gets a file of its own when it has rules; plain records stand beside what they describe.

mod bounds;
mod condition;
mod group;
mod hook;
mod id;
mod logs;
mod release;
mod service;
mod time;

pub use bounds::{CAPABILITIES, is_below_or_same, may_be_published};
pub use condition::{Condition, ConditionKind, Reason, Truth};
pub use group::{
    Backoff, Bind, BindMode, Check, ConfigFile, Container, Count, Grants, Group, Hardening, Hook, HookKind, Limits, Mount,
    OnFailure, OnUnhealthy, Probe, Probes, Ready, Reload, Service, ServiceKind, Strategy, Templates, Topology, Update,
};
pub use hook::{
    HookAction, HookAnswer, HookCall, HookContext, HookFailed, HookFailure, HookInput, HookMember, HookModule, HookOrder,
    Occasion, OwedChange, OwedHooks, OwedPostStop, OwedReconfigure,
};
pub use id::{Digest, DigestBuilder, GroupName, InvalidName, MemberId, ObjectId, TagName};
pub use logs::{LogFilter, LogFormat, LogForward, LogLine, LogLosses, LogPolicy, LogSettings, LogStream, base64};
pub use release::{FirstTag, Refusal, Release, RemoteTag, Suspension, TreeFile};
pub use service::{
    CheckResult, ContainerLaunch, Exit, HealthStatus, Launch, MountMode, Policy, PublicationId, ServiceReport, ServiceSpec,
    ServiceState, Signal, View, Wait,
};
pub use time::{Moment, Now, Timestamp};
