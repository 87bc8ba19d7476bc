//! The core's overview as the API's status.

use crate::api::wire;
use crate::model::{Condition, ConditionKind, MountMode, ObjectId, Reason, TagName, Timestamp, Truth};
use crate::plan::{Core, GroupStatus, Overview};

/// What the status says of the supervisor itself and never changes while it runs.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) supervisor: wire::Supervisor,
    pub(super) ring_name: String,
    /// What this process should be shut in with and is not; empty = nothing.
    pub(super) lacks: String,
    /// The same of the process that runs hooks, as soon as there is one.
    pub(super) hooks_lack: String,
}

/// Puts everything together.
pub(super) fn status(identity: &Identity, keeper_pid: Option<u32>, core: &Core, overview: &Overview) -> wire::Status {
    let release = core.desired().release.as_ref();
    let accepted = core.observed().source.accepted.as_ref();
    let active = release.zip(accepted).filter(|(release, accepted)| release.tag_object == accepted.tag.object);
    let active = active.map(|(release, accepted)| wire::ActiveRelease {
        tag: release.tag.clone(),
        commit: release.commit,
        tag_object: release.tag_object,
        signers: release.signers.clone(),
        accepted_at: accepted.accepted_at,
        applied_at: accepted.applied_at,
    });
    let running = active.as_ref().map(|active| active.tag.clone());
    let refused = overview.refused.iter().map(|refused| wire::Refused {
        tag: refused.tag.name.clone(),
        tag_object: refused.tag.object,
        reason: refused.reason,
        message: refused.message.clone(),
        since: refused.since,
    });
    let refused = refused.collect();
    let mut supervisor = identity.supervisor.clone();
    supervisor.keeper_pid = keeper_pid;
    let member = wire::Member {
        name: supervisor.name.clone(),
        member_id: supervisor.member_id.clone(),
        address: String::new(),
        state: "alive".to_owned(),
        release: running.clone(),
    };
    wire::Status {
        supervisor,
        release: active,
        refused,
        conditions: overview.conditions.iter().cloned().chain(open(identity)).collect(),
        groups: overview.groups.iter().map(|(name, status)| group(name, status, running.as_ref())).collect(),
        ring: wire::Ring { name: identity.ring_name.clone(), members: vec![member] },
    }
}

/// Said for as long as it is so.
fn open(identity: &Identity) -> Option<Condition> {
    let hooks = Some(&identity.hooks_lack).filter(|words| !words.is_empty()).map(|words| format!("the hook host: {words}"));
    let own = Some(identity.lacks.clone()).filter(|words| !words.is_empty());
    let message = own.into_iter().chain(hooks).collect::<Vec<_>>().join("; ");
    let since = identity.supervisor.started_at;
    (!message.is_empty()).then_some(Condition {
        kind: ConditionKind::Confined,
        status: Truth::False,
        reason: Reason::NotConfined,
        message,
        since,
    })
}

fn group(name: &crate::model::GroupName, status: &GroupStatus, release: Option<&TagName>) -> wire::Group {
    let wanted = status.wanted.as_ref();
    let has = wanted.is_some_and(|wanted| {
        let runs = status.service.as_ref().map(|report| report.revision);
        runs == Some(wanted.group.revision) || (wanted.group.service.is_none() && status.waits.is_empty())
    });
    let notices = status.notices.clone();
    let service = status.service.as_ref().map(|report| wire::Service {
        state: report.state,
        pid: report.pid,
        restarts: report.restarts,
        since: report.since,
        message: report.message.clone(),
        logs: wire::Logs {
            lost_lines: report.logs.lines,
            lost_bytes: report.logs.bytes,
            unforwarded_lines: report.logs.unforwarded,
            message: report.logs.trouble.clone(),
        },
    });
    let declared = wanted.and_then(|wanted| wanted.group.mount.as_ref());
    let mount = match (&status.mount, declared) {
        (Some((path, publication, mode)), _) => {
            Some(wire::Mount { path: path.clone(), publication: Some(publication.clone()), mode: *mode })
        }
        (None, Some(mount)) => Some(wire::Mount { path: mount.path.clone(), publication: None, mode: MountMode::Symlink }),
        (None, None) => None,
    };
    let phase = if has { wire::Phase::Succeeded } else { wire::Phase::Progressing };
    wire::Group {
        name: name.clone(),
        revision: wanted.map(|wanted| wanted.group.revision.to_string()).unwrap_or_default(),
        release: if has { release.cloned() } else { None },
        conditions: status.conditions.clone(),
        waits: status.waits.clone(),
        notices,
        service,
        health: wire::Health { status: status.health, message: status.health_message.clone(), checked_at: status.checked_at },
        mount,
        rollout: wire::Rollout { phase, updated: u32::from(has), total: 1 },
    }
}

/// Every tag that is known, highest first.
pub(super) fn releases(
    core: &Core,
    overview: &Overview,
    history: &[(TagName, ObjectId, ObjectId, Timestamp)],
) -> Vec<wire::Release> {
    let source = &core.observed().source;
    let accepted = source.accepted.as_ref();
    let mut out: Vec<wire::Release> = Vec::new();
    if let (Some(release), Some(accepted)) = (core.desired().release.as_ref(), accepted) {
        let state = if accepted.applied_at.is_some() { wire::ReleaseState::Running } else { wire::ReleaseState::Accepted };
        out.push(wire::Release {
            tag: release.tag.clone(),
            tag_object: release.tag_object,
            commit: Some(release.commit),
            state,
            reason: None,
            message: String::new(),
            signers: release.signers.clone(),
            since: accepted.applied_at.unwrap_or(accepted.accepted_at),
        });
    }
    for refused in &overview.refused {
        out.push(wire::Release {
            tag: refused.tag.name.clone(),
            tag_object: refused.tag.object,
            commit: None,
            state: wire::ReleaseState::Refused,
            reason: Some(refused.reason),
            message: refused.message.clone(),
            signers: Vec::new(),
            since: refused.since,
        });
    }
    for (tag, tag_object, commit, since) in history {
        if out.iter().any(|known| known.tag == *tag && known.tag_object == *tag_object) {
            continue;
        }
        out.push(wire::Release {
            tag: tag.clone(),
            tag_object: *tag_object,
            commit: Some(*commit),
            state: wire::ReleaseState::Superseded,
            reason: None,
            message: String::new(),
            signers: Vec::new(),
            since: *since,
        });
    }
    let version = |tag: &TagName| core.desired().host.version_of(tag);
    out.sort_by_key(|release| std::cmp::Reverse(version(&release.tag)));
    out
}
