//! What goes over the wire, as JSON: the shapes that users may rely on.
//!
//! Names and nesting are the contract. A field may be added; none is renamed, removed or given another meaning. Ids, times,
//! conditions and reasons are written as the model's nouns write themselves.

mod answer;
mod status;

pub use answer::{
    Cause, ConfigChange, ConfigValue, ConfigView, Diff, ErrorBody, ErrorDetail, Event, EventKind, FileChange, GroupChange,
    PlanStep, PlanView, Release, ReleaseRequest, ReleaseState, ServiceRequest, Trace, Verification, Why,
};
pub use status::{
    ActiveRelease, ApiAddresses, Freshness, Group, Health, Member, Mount, Phase, Pinned, Refused, Rejected, Ring, Rollout,
    Service, Status, Supervisor,
};
