//! Answers to questions, from a copy of the core: the loop goes on meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::context::Context;
use super::{diff, examine, secrets, stage};
use crate::api::{Answer, ApiError, Failure, Query, wire};
use crate::model::{
    Digest, Group, GroupName, ObjectId, PublicationId, Reason, Refusal, Release, Reload, RemoteTag, TagName, Timestamp,
};
use crate::plan::{Core, Overview};
use crate::render;

/// What the loop hands out for one question.
pub(super) struct Facts {
    pub(super) core: Core,
    pub(super) overview: Overview,
}

/// Answers.
pub(super) async fn answer(context: &Arc<Context>, facts: Facts, query: Query) -> Result<Answer, ApiError> {
    match query {
        Query::Config(group) => config(context, &facts, &group).map(Answer::Config),
        Query::Why(group) => Ok(Answer::Why(why(&facts, &group))),
        Query::Releases => Ok(Answer::Releases(releases(context, &facts))),
        Query::Verify(tag) => verify(context, &facts, &tag).await.map(Answer::Verification),
        Query::Trace(path) => trace(context, &facts, &path).map(Answer::Trace),
        Query::Plan(tag) => plan(context, &facts, tag).await.map(Answer::Plan),
        Query::Diff { from, to } => {
            let from = release(context, &facts, &from).await?;
            let to = match to {
                Some(to) => release(context, &facts, &to).await?,
                None => running(&facts)?,
            };
            let context = context.clone();
            let done = tokio::task::spawn_blocking(move || diff::diff(&context, &from, &to)).await;
            done.map(Answer::Diff).map_err(|error| ApiError::new(Failure::Internal, "DiffFailed", error.to_string()))
        }
    }
}

fn running(facts: &Facts) -> Result<Arc<Release>, ApiError> {
    let none = || ApiError::new(Failure::Conflict, "NoRelease", "no release runs here yet: name two tags");
    facts.core.desired().release.clone().ok_or_else(none)
}

fn releases(context: &Context, facts: &Facts) -> Vec<wire::Release> {
    let history: Vec<(TagName, ObjectId, ObjectId, Timestamp)> = context.state(|state| {
        let entries = state.history.iter().rev();
        entries.map(|old| (old.tag.clone(), old.tag_object, old.commit, old.accepted_at)).collect()
    });
    super::wire::releases(&facts.core, &facts.overview, &history)
}

/// A release by its tag: the one that runs, or examined for this question.
async fn release(context: &Arc<Context>, facts: &Facts, tag: &TagName) -> Result<Arc<Release>, ApiError> {
    if let Some(release) = facts.core.desired().release.as_ref().filter(|release| release.tag == *tag) {
        return Ok(release.clone());
    }
    let found = known_tag(context, &facts.core, tag)?;
    let listed = facts.core.observed().source.candidates.iter().flatten().find(|candidate| candidate.tag == found);
    let cosigned = listed.map(|candidate| candidate.cosigned.clone()).unwrap_or_default();
    let examined = examine::examine(context, &found, &cosigned).await;
    examined.map_err(|refusal| {
        let words = format!("tag `{tag}` would be refused: {}", refusal.message);
        ApiError::new(Failure::Conflict, format!("{:?}", refusal.reason), words)
    })
}

/// Whether a tag's signatures are enough, asked anew.
async fn verify(context: &Arc<Context>, facts: &Facts, tag: &TagName) -> Result<wire::Verification, ApiError> {
    let found = known_tag(context, &facts.core, tag)?;
    let listed = facts.core.observed().source.candidates.iter().flatten().find(|candidate| candidate.tag == found);
    let cosigned = listed.map(|candidate| candidate.cosigned.clone()).unwrap_or_default();
    let (commit, judged) = match examine::verify(context, &found, &cosigned).await {
        Ok((commit, signers)) => (Some(commit), Ok(signers)),
        Err(refusal) => (None, Err(refusal)),
    };
    Ok(verification(&found, commit, judged))
}

/// A judgement as it goes over the wire.
pub(crate) fn verification(
    tag: &RemoteTag,
    commit: Option<ObjectId>,
    judged: Result<Vec<String>, Refusal>,
) -> wire::Verification {
    let (verified, signers, refusal) = match judged {
        Ok(signers) => (true, signers, None),
        Err(refusal) => (false, Vec::new(), Some(refusal)),
    };
    wire::Verification {
        tag: tag.name.clone(),
        tag_object: tag.object,
        commit,
        verified,
        signers,
        reason: refusal.as_ref().map(|refusal| refusal.reason),
        message: refusal.map(|refusal| refusal.message).unwrap_or_default(),
    }
}

/// A tag by its name, with the object that it named first.
pub(super) fn known_tag(context: &Context, core: &Core, tag: &TagName) -> Result<RemoteTag, ApiError> {
    let first = context.first_seen(tag).map(|object| RemoteTag { name: tag.clone(), object });
    let listed = || core.observed().source.candidates.iter().flatten().find(|known| known.tag.name == *tag);
    first.or_else(|| listed().map(|candidate| candidate.tag.clone())).ok_or_else(|| {
        let words = format!("tag `{tag}` is not known: the remote does not list it as a version in range");
        ApiError::new(Failure::NotFound, "NoSuchTag", words)
    })
}

fn group<'a>(facts: &'a Facts, name: &GroupName) -> Result<&'a Arc<crate::plan::Wanted>, ApiError> {
    let going = || ApiError::new(Failure::Conflict, "NotPlaced", format!("{name} is not placed here any more"));
    facts.core.desired().groups.get(name).ok_or_else(going)
}

fn config(context: &Context, facts: &Facts, name: &GroupName) -> Result<wire::ConfigView, ApiError> {
    let wanted = group(facts, name)?;
    let layers = context.layers(name);
    let (config, _) = render::effective(&wanted.group, &layers);
    let leaf = |(key, origin): (&String, &render::Origin)| {
        let value = if secrets::is_secret(key) {
            Value::from(secrets::HIDDEN)
        } else {
            lookup(&config.values, key).cloned().unwrap_or(Value::Null)
        };
        wire::ConfigValue { key: key.clone(), value, origin: origin.to_string() }
    };
    Ok(wire::ConfigView { group: name.clone(), values: config.origins.iter().map(leaf).collect() })
}

/// A value by its dotted path; keys with dots in them are tried as well.
pub(super) fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(found) = value.get(path) {
        return Some(found);
    }
    let dots = path.match_indices('.').map(|(at, _)| at);
    dots.into_iter().find_map(|at| lookup(value.get(&path[..at])?, &path[at + 1..]))
}

fn why(facts: &Facts, name: &GroupName) -> wire::Why {
    let status = facts.overview.groups.get(name);
    let waits = status.map(|status| status.waits.clone()).unwrap_or_default();
    let mut because: Vec<wire::Cause> = waits
        .iter()
        .map(|wait| {
            let behind = if wait.reason == Reason::KeeperAway { Vec::new() } else { behind(facts, name, wait.reason) };
            wire::Cause { object: name.to_string(), reason: wait.reason, message: wait.message.clone(), because: behind }
        })
        .collect();
    let supervisor = facts.overview.waits.iter().map(|wait| wire::Cause {
        object: "source".to_owned(),
        reason: wait.reason,
        message: wait.message.clone(),
        because: refused(facts),
    });
    let ready = because.is_empty();
    because.extend(supervisor);
    if ready && because.is_empty() {
        // Converged, but perhaps not on what was pushed last.
        because.extend(refused(facts));
    }
    wire::Why { group: name.clone(), ready, because }
}

fn refused(facts: &Facts) -> Vec<wire::Cause> {
    let cause = |refused: &crate::plan::RefusedTag| wire::Cause {
        object: refused.tag.name.to_string(),
        reason: refused.reason,
        message: refused.message.clone(),
        because: Vec::new(),
    };
    facts.overview.refused.iter().map(cause).collect()
}

/// What lies behind a wait: the last end of the process, the last answer of the check.
fn behind(facts: &Facts, name: &GroupName, reason: Reason) -> Vec<wire::Cause> {
    let Some(status) = facts.overview.groups.get(name) else { return Vec::new() };
    let cause = |reason, message: String| wire::Cause { object: name.to_string(), reason, message, because: Vec::new() };
    let mut out = Vec::new();
    if matches!(reason, Reason::Backoff | Reason::ServiceFailed | Reason::Starting)
        && let Some(exit) = status.service.as_ref().and_then(|report| report.last_exit)
    {
        out.push(cause(
            Reason::ServiceFailed,
            format!("its last process ended with {exit}; `tagfall service logs {name}` shows its output"),
        ));
    }
    if matches!(reason, Reason::Starting | Reason::HealthCritical | Reason::StartFailed) && !status.health_message.is_empty() {
        out.push(cause(Reason::HealthCritical, format!("its check said: {}", status.health_message)));
    }
    out
}

fn trace(context: &Context, facts: &Facts, path: &str) -> Result<wire::Trace, ApiError> {
    let desired = facts.core.desired();
    let found = desired.groups.values().find_map(|wanted| {
        let mount = wanted.group.mount.as_ref()?;
        let inner = path.strip_prefix(&mount.path)?.strip_prefix('/')?;
        let file = wanted.group.files.iter().find(|file| file.target().0 == inner)?;
        Some((wanted, file))
    });
    let Some((wanted, file)) = found else {
        return Err(ApiError::new(
            Failure::NotFound,
            "NotPublished",
            format!("`{path}` is not a file that a group here publishes"),
        ));
    };
    let release = running(facts)?;
    let name = &wanted.group.name;
    let shown = context.publisher.current(name).ok().flatten();
    let intact = shown.is_some_and(|id| context.publisher.verify(name, id).is_ok_and(|drifted| drifted.is_empty()));
    Ok(wire::Trace {
        path: path.to_owned(),
        group: name.clone(),
        file: format!("groups/{}/config/{}", folder(name), file.path),
        blob: file.blob,
        template: file.target().1,
        publication: shown.map(|id| id.to_string()).unwrap_or_default(),
        commit: release.commit,
        tag: release.tag.clone(),
        tag_object: release.tag_object,
        signers: release.signers.clone(),
        intact,
    })
}

/// A group's folder as people write it.
fn folder(name: &GroupName) -> String {
    if name.group() == GroupName::DEFAULT_GROUP { name.service().to_owned() } else { name.to_string() }
}

async fn plan(context: &Arc<Context>, facts: &Facts, tag: Option<TagName>) -> Result<wire::PlanView, ApiError> {
    let from = facts.core.desired().release.as_ref().map(|release| release.tag.clone());
    let newest = || {
        let known = |tag: &RemoteTag| !facts.overview.refused.iter().any(|refused| refused.tag == *tag);
        let candidates = facts.core.observed().source.candidates.iter().flatten();
        candidates.map(|candidate| &candidate.tag).find(|tag| known(tag)).map(|tag| tag.name.clone())
    };
    let Some(to) = tag.or_else(newest).or_else(|| from.clone()) else {
        return Ok(wire::PlanView { from, to: None, steps: Vec::new() });
    };
    let release = release(context, facts, &to).await?;
    let observed = facts.core.observed().clone();
    let placed: BTreeMap<GroupName, Arc<Group>> = release
        .groups
        .iter()
        .filter(|(_, group)| facts.core.desired().is_placed(group))
        .map(|(name, group)| (name.clone(), group.clone()))
        .collect();
    let context = context.clone();
    let steps = tokio::task::spawn_blocking(move || {
        let mut steps = Vec::new();
        for (name, facts) in &observed.groups {
            if !placed.contains_key(name) && (facts.service.is_some() || facts.disk.shown.is_some()) {
                steps.push(step(name, "remove", "not placed here by this release: stopped, its files taken away"));
            }
        }
        for (name, group) in &placed {
            let known = observed.groups.get(name);
            let rendered = stage::render_here(&context, group, (&release.tag, &release.commit));
            let shown = known.and_then(|facts| facts.disk.shown);
            let runs = known.and_then(|facts| facts.service.as_ref());
            let runs = runs.map(|report| Runs { launch: report.launch, revision: report.revision });
            steps.extend(group_steps(name, group, rendered, shown, runs));
        }
        steps
    });
    let steps = steps.await.map_err(|error| ApiError::new(Failure::Internal, "PlanFailed", error.to_string()))?;
    Ok(wire::PlanView { from, to: Some(to), steps })
}

fn step(group: &GroupName, action: &str, message: impl Into<String>) -> wire::PlanStep {
    wire::PlanStep { group: group.clone(), action: action.to_owned(), message: message.into() }
}

/// What matters of a service that is there already.
pub(crate) struct Runs {
    /// [`Launch::digest`](crate::model::Launch::digest) of what it was started with.
    pub(crate) launch: Digest,
    /// The revision in force.
    pub(crate) revision: Digest,
}

/// What one group would go through, from what it would be and what stands now.
pub(crate) fn group_steps(
    name: &GroupName,
    group: &Group,
    rendered: Result<stage::Rendered, Vec<String>>,
    shown: Option<PublicationId>,
    runs: Option<Runs>,
) -> Vec<wire::PlanStep> {
    let rendered = match rendered {
        Ok(rendered) => rendered,
        Err(errors) => return vec![step(name, "refuse", errors.join("; "))],
    };
    let mut steps = Vec::new();
    let content = render::content_digest(&rendered.files);
    let files = group.mount.as_ref().filter(|_| shown.map(|id| id.content) != Some(content));
    if let Some(mount) = files {
        let (count, path) = (rendered.files.len(), &mount.path);
        steps.push(step(name, "publish", format!("{count} file{} at `{path}`", if count == 1 { "" } else { "s" })));
    }
    let (Some(declared), Some(launch)) = (&group.service, &rendered.launch) else { return steps };
    match runs {
        None => steps.push(step(name, "start", format!("`{}`", launch.argv.join(" ")))),
        Some(runs) if runs.launch != launch.digest() => {
            steps.push(step(name, "restart", "what it is started with changes"));
        }
        Some(_) if files.is_some() => match declared.reload {
            Reload::Restart => steps.push(step(name, "restart", "its files change, and `reload_signal` is `restart`")),
            Reload::Signal(signal) => steps.push(step(name, "reload", format!("its files change: told by {signal}"))),
        },
        Some(runs) if runs.revision != group.revision => {
            steps.push(step(name, "amend", "only what touches no process changes"));
        }
        Some(_) => {}
    }
    steps
}
