//! Turns each action into an effect and its end into an event. An effect has no choice left, and always answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::context::Context;
use super::{examine, stage};
use crate::hooks::{ExecCheck, ExecOutcome, ExecRun};
use crate::keeper::wire::Request;
use crate::model::{Check, CheckResult, FirstTag, GroupName, PublicationId, Reason, Timestamp};
use crate::plan::{Action, Event, Failure, Key, Outcome};
use crate::publish::PublishError;
use crate::store::{Accepted, PublishedAt};

/// Starts an effect; its answer comes as an event that carries `attempt`.
pub(super) fn start(
    context: &Arc<Context>,
    key: Key,
    attempt: u64,
    action: Action,
    wall: Timestamp,
    events: &UnboundedSender<Event>,
) {
    let context = context.clone();
    let events = events.clone();
    tokio::spawn(async move {
        let outcome = carry_out(&context, action, wall).await;
        // The loop is gone only when the process ends.
        let _ = events.send(Event::Done { key, attempt, outcome });
    });
}

async fn carry_out(context: &Arc<Context>, action: Action, wall: Timestamp) -> Outcome {
    match action {
        Action::List => Outcome::Listed(context.source.list().await),
        Action::Examine { tag } => {
            let result = examine::examine(context, &tag).await;
            Outcome::Examined { tag, result }
        }
        Action::Check { group, incarnation, check, timeout } => {
            let exec = Exec { context, group: &group };
            let result = check_once(&check, timeout, &exec).await;
            Outcome::Checked { incarnation, result }
        }
        Action::Run { .. }
        | Action::Amend { .. }
        | Action::Reload { .. }
        | Action::Restart { .. }
        | Action::MarkReady { .. }
        | Action::Stop { .. }
        | Action::Forget { .. } => ask_keeper(context, action).await,
        Action::Accept { .. }
        | Action::MarkApplied { .. }
        | Action::Stage { .. }
        | Action::Switch { .. }
        | Action::Verify { .. }
        | Action::Prune { .. }
        | Action::Withdraw { .. } => {
            let context = context.clone();
            let done = tokio::task::spawn_blocking(move || on_disk(&context, action, wall)).await;
            done.unwrap_or_else(|error| {
                Outcome::Failed(Failure::new(Reason::PublishFailed, format!("the effect broke off: {error}")))
            })
        }
    }
}

async fn check_once(check: &Check, timeout: std::time::Duration, exec: &Exec<'_>) -> CheckResult {
    crate::hooks::check(check, timeout, exec).await
}

async fn ask_keeper(context: &Context, action: Action) -> Outcome {
    let requests = match action {
        Action::Run { spec, restart } => {
            let group = spec.group.clone();
            let restart = restart.then_some(Request::Restart { group });
            std::iter::once(Request::Run(spec)).chain(restart).collect()
        }
        Action::Amend { spec } => {
            vec![Request::Amend { group: spec.group, revision: spec.revision, release: spec.release, policy: spec.policy }]
        }
        Action::Reload { group, view, signal } => vec![Request::Reload { group, view, signal }],
        Action::Restart { group } => vec![Request::Restart { group }],
        Action::MarkReady { group, incarnation } => vec![Request::MarkReady { group, incarnation }],
        Action::Stop { group } => vec![Request::Stop { group }],
        Action::Forget { group } => vec![Request::Forget { group }],
        Action::List
        | Action::Examine { .. }
        | Action::Accept { .. }
        | Action::MarkApplied { .. }
        | Action::Stage { .. }
        | Action::Switch { .. }
        | Action::Verify { .. }
        | Action::Prune { .. }
        | Action::Withdraw { .. }
        | Action::Check { .. } => Vec::new(),
    };
    for request in requests {
        if let Err(error) = context.keeper.request(request).await {
            return Outcome::Failed(Failure::new(Reason::StartFailed, chain(&error)));
        }
    }
    Outcome::Asked
}

fn on_disk(context: &Context, action: Action, wall: Timestamp) -> Outcome {
    let result = match action {
        Action::Accept { release, first_tags } => {
            accept(context, &release, &first_tags, wall).map(|()| Outcome::Accepted { release, first_tags })
        }
        Action::MarkApplied { tag, floor } => {
            mark_applied(context, &tag, floor.as_ref(), wall).map(|()| Outcome::Applied { tag })
        }
        Action::Stage { wanted, fresh_copy } => {
            let inputs = wanted.inputs;
            Ok(Outcome::Staged { inputs, result: stage::stage(context, &wanted, fresh_copy) })
        }
        Action::Switch { group, publication, mount_path, old_path } => {
            switch(context, &group, publication, &mount_path, old_path.as_deref())
                .map(|()| Outcome::Switched { publication, mount_path })
        }
        Action::Verify { group, publication } => verify(context, &group, publication),
        Action::Prune { group, keep, in_use } => context
            .publisher
            .prune(&group, keep as usize, &in_use)
            .and_then(|_| context.publisher.list(&group))
            .map(Outcome::Pruned)
            .map_err(|error| publish_failure(&error)),
        Action::Withdraw { group, mount_path } => withdraw(context, &group, mount_path.as_deref()).map(|()| Outcome::Withdrawn),
        Action::List
        | Action::Examine { .. }
        | Action::Run { .. }
        | Action::Amend { .. }
        | Action::Reload { .. }
        | Action::Restart { .. }
        | Action::MarkReady { .. }
        | Action::Stop { .. }
        | Action::Forget { .. }
        | Action::Check { .. } => Ok(Outcome::Asked),
    };
    result.unwrap_or_else(Outcome::Failed)
}

fn accept(
    context: &Context,
    release: &crate::model::Release,
    first_tags: &BTreeMap<GroupName, FirstTag>,
    wall: Timestamp,
) -> Result<(), Failure> {
    let accepted = Accepted {
        tag: release.tag.clone(),
        tag_object: release.tag_object,
        commit: release.commit,
        signers: release.signers.clone(),
        accepted_at: wall,
        applied_at: None,
    };
    let recorded = context.remember(|state| {
        state.pins.insert(release.tag.clone(), release.tag_object);
        state.accept(accepted);
        state.first_tags.clone_from(first_tags);
    });
    recorded.map_err(|error| Failure::new(Reason::PublishFailed, chain(&error)))
}

fn mark_applied(
    context: &Context,
    tag: &crate::model::RemoteTag,
    floor: Option<&semver::Version>,
    wall: Timestamp,
) -> Result<(), Failure> {
    let recorded = context.remember(|state| {
        if let Some(accepted) = state.accepted.as_mut().filter(|accepted| accepted.tag == tag.name) {
            accepted.applied_at = Some(wall);
        }
        state.floor = floor.map(ToString::to_string);
    });
    recorded.map_err(|error| Failure::new(Reason::PublishFailed, chain(&error)))
}

fn switch(context: &Context, group: &GroupName, id: PublicationId, path: &str, old: Option<&str>) -> Result<(), Failure> {
    if let Some(message) = context.outside_roots(path) {
        return Err(Failure::new(Reason::MountFailed, format!("{message}; nothing is shown there")));
    }
    // Written down before the link is made: a link that nobody remembers would never be taken away.
    let published = PublishedAt { mount_path: path.to_owned() };
    let record = context.remember(|state| {
        state.published.insert(group.clone(), published);
    });
    record.map_err(|error| Failure::new(Reason::PublishFailed, chain(&error)))?;
    context.publisher.switch(group, id, path).map_err(|error| publish_failure(&error))?;
    if let Some(old) = old {
        context.publisher.unlink(group, old).map_err(|error| publish_failure(&error))?;
    }
    if let Err(error) = context.drift.watch(&context.publisher, group, id, path) {
        tracing::warn!(group = %group, error = chain(&error), "published files cannot be watched: hand edits are noticed later");
    }
    Ok(())
}

fn verify(context: &Context, group: &GroupName, id: PublicationId) -> Result<Outcome, Failure> {
    let mut drifted = context.publisher.verify(group, id).map_err(|error| publish_failure(&error))?;
    let path = context.state(|state| state.published.get(group).map(|published| published.mount_path.clone()));
    let shown = context.publisher.current(group).map_err(|error| publish_failure(&error))?;
    if shown != Some(id) {
        drifted.push("the view's link".to_owned());
    }
    if let Some(path) = path
        && context.publisher.link_ok(group, &path) != crate::publish::LinkState::Ours
    {
        drifted.push(path);
    }
    Ok(Outcome::Verified { publication: id, drifted })
}

fn withdraw(context: &Context, group: &GroupName, mount_path: Option<&str>) -> Result<(), Failure> {
    context.drift.unwatch(group);
    if let Some(path) = mount_path {
        context.publisher.withdraw(group, path).map_err(|error| publish_failure(&error))?;
    }
    context.publisher.prune(group, 0, &[]).map_err(|error| publish_failure(&error))?;
    let forgotten = context.remember(|state| {
        state.published.remove(group);
    });
    forgotten.map_err(|error| Failure::new(Reason::PublishFailed, chain(&error)))
}

pub(super) fn publish_failure(error: &PublishError) -> Failure {
    let reason = if matches!(error, PublishError::MountOccupied { .. }) { Reason::MountOccupied } else { Reason::PublishFailed };
    Failure::new(reason, chain(error))
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Declared commands of checks are run by the keeper, as the service's user and in its namespace.
struct Exec<'a> {
    context: &'a Context,
    group: &'a GroupName,
}

impl ExecCheck for Exec<'_> {
    fn run<'a>(&'a self, command: &'a str, timeout: std::time::Duration) -> ExecRun<'a> {
        Box::pin(async move {
            let argv = self.context.command(self.group, command).ok_or_else(|| "`allow.exec` does not name it".to_owned())?;
            let command = crate::keeper::wire::Command { group: Some(self.group.clone()), argv, timeout, ..Default::default() };
            let outcome = self.context.keeper.exec(command).await.map_err(|error| chain(&error))?;
            if outcome.timed_out {
                return Err(format!("it did not end within {} and was killed", humantime::format_duration(timeout)));
            }
            Ok(ExecOutcome { exit: outcome.exit, output: outcome.output })
        })
    }
}
