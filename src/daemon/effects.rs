//! Turns each action into an effect and its end into an event. An effect has no choice left, and always answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use semver::Version;
use tokio::sync::mpsc::UnboundedSender;

use super::context::Context;
use super::{calls, examine, stage};
use crate::hooks::{ExecCheck, ExecOutcome, ExecRun};
use crate::keeper::wire::{Command, Request};
use crate::model::{FirstTag, GroupName, ObjectId, PublicationId, Reason, Release, RemoteTag, ServiceSpec, Timestamp};
use crate::plan::{Action, Event, Failure, Key, Outcome};
use crate::publish::PublishError;
use crate::store::{Accepted, PublishedAt, StoreError};

/// So many releases before the accepted one stay in the store, for `diff` and for going back.
const RELEASES_KEPT: usize = 10;

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
        Action::Check { group, incarnation, module: Some(module), timeout, .. } => {
            let result = calls::check(context, &group, &module, timeout).await;
            Outcome::Checked { incarnation, result }
        }
        Action::Check { group, incarnation, check, timeout, .. } => {
            let result = crate::hooks::check(&check, timeout, &Exec { context, group: &group }).await;
            Outcome::Checked { incarnation, result }
        }
        Action::Call(order) => calls::call(context, *order).await,
        Action::Owe { group, change } => calls::owe(context, group, change).await.map_or_else(Outcome::Failed, Outcome::Owed),
        Action::Signal { group, signal, after } => calls::signal(context, group, signal, after).await,
        Action::Run { spec, restart } if spec.launch.container.is_some() => asked(context.containers.run(spec, restart).await),
        Action::Amend { spec } if spec.launch.container.is_some() => asked(context.containers.amend(spec).await),
        Action::Restart { group } if context.containers.owns(&group) => asked(context.containers.restart(group).await),
        Action::MarkReady { group, incarnation } if context.containers.owns(&group) => {
            asked(context.containers.mark_ready(group, incarnation).await)
        }
        Action::Stop { group } if context.containers.owns(&group) => asked(context.containers.stop(group).await),
        Action::Forget { group } if context.containers.owns(&group) => asked(context.containers.forget(group).await),
        Action::Run { spec, restart } => {
            let again = restart.then(|| Request::Restart { group: spec.group.clone() });
            ask_keeper(context, std::iter::once(Request::Run(spec)).chain(again)).await
        }
        Action::Amend { spec } => {
            let ServiceSpec { group, revision, release, policy, .. } = *spec;
            ask_keeper(context, [Request::Amend { group, revision, release, policy }]).await
        }
        Action::Reload { group, view, signal } => ask_keeper(context, [Request::Reload { group, view, signal }]).await,
        Action::Restart { group } => ask_keeper(context, [Request::Restart { group }]).await,
        Action::MarkReady { group, incarnation } => ask_keeper(context, [Request::MarkReady { group, incarnation }]).await,
        Action::Stop { group } => ask_keeper(context, [Request::Stop { group }]).await,
        Action::Forget { group } => ask_keeper(context, [Request::Forget { group }]).await,
        Action::Accept { release, first_tags } => {
            on_disk(context, move |context| accept(context, release, first_tags, wall)).await
        }
        Action::MarkApplied { tag, floor } => {
            let done = on_disk(context, move |context| mark_applied(context, tag, floor.as_ref(), wall)).await;
            forget_old(context).await;
            done
        }
        Action::Stage { wanted, fresh_copy } => {
            let stage = move |context: &Context| {
                let result = stage::stage(context, &wanted, fresh_copy).map(Box::new);
                Ok(Outcome::Staged { inputs: wanted.inputs, first: wanted.first.clone(), result })
            };
            on_disk(context, stage).await
        }
        Action::Switch { group, publication, mount_path, old_path } => {
            on_disk(context, move |context| switch(context, &group, publication, mount_path, old_path.as_deref())).await
        }
        Action::Verify { group, publication } => on_disk(context, move |context| verify(context, &group, publication)).await,
        Action::Prune { group, keep, in_use } => on_disk(context, move |context| prune(context, &group, keep, &in_use)).await,
        Action::Withdraw { group, mount_path } => {
            on_disk(context, move |context| withdraw(context, &group, mount_path.as_deref())).await
        }
    }
}

fn asked(result: Result<(), String>) -> Outcome {
    result.map_or_else(|why| Outcome::Failed(Failure::new(Reason::StartFailed, why)), |()| Outcome::Asked)
}

async fn ask_keeper(context: &Context, requests: impl IntoIterator<Item = Request>) -> Outcome {
    for request in requests {
        if let Err(error) = context.keeper.request(request).await {
            return Outcome::Failed(Failure::new(Reason::StartFailed, chain(&error)));
        }
    }
    Outcome::Asked
}

/// Runs what blocks on a thread of its own.
async fn on_disk(context: &Arc<Context>, work: impl FnOnce(&Context) -> Result<Outcome, Failure> + Send + 'static) -> Outcome {
    let context = context.clone();
    match tokio::task::spawn_blocking(move || work(&context)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(failure)) => Outcome::Failed(failure),
        Err(error) => Outcome::Failed(Failure::new(Reason::PublishFailed, format!("the effect broke off: {error}"))),
    }
}

/// Drops the objects of releases that nobody can ask about any more. What cannot be dropped now is dropped after the next.
async fn forget_old(context: &Context) {
    let keep: Vec<ObjectId> = context.state(|state| {
        let older = state.history.iter().rev().take(RELEASES_KEPT).map(|old| old.tag_object);
        state.accepted.iter().map(|accepted| accepted.tag_object).chain(older).collect()
    });
    if let Err(error) = context.source.forget(&keep).await {
        tracing::warn!(error = chain(&error), "objects of old releases stay in the store");
    }
}

type FirstTags = BTreeMap<GroupName, FirstTag>;

pub(super) fn not_recorded(error: &StoreError) -> Failure {
    Failure::new(Reason::PublishFailed, chain(error))
}

fn accept(context: &Context, release: Arc<Release>, first_tags: FirstTags, wall: Timestamp) -> Result<Outcome, Failure> {
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
        state.first_tags.clone_from(&first_tags);
    });
    recorded.map_err(|error| not_recorded(&error))?;
    Ok(Outcome::Accepted { release, first_tags })
}

fn mark_applied(context: &Context, tag: RemoteTag, floor: Option<&Version>, wall: Timestamp) -> Result<Outcome, Failure> {
    let recorded = context.remember(|state| {
        if let Some(accepted) = state.accepted.as_mut().filter(|accepted| accepted.tag == tag.name) {
            accepted.applied_at = Some(wall);
        }
        state.floor = floor.map(ToString::to_string);
    });
    recorded.map_err(|error| not_recorded(&error))?;
    Ok(Outcome::Applied { tag })
}

fn switch(
    context: &Context,
    group: &GroupName,
    publication: PublicationId,
    mount_path: String,
    old: Option<&str>,
) -> Result<Outcome, Failure> {
    let path = mount_path.as_str();
    if let Some(message) = context.outside_roots(path) {
        return Err(Failure::new(Reason::MountFailed, format!("{message}; nothing is shown there")));
    }
    // Written down before the link is made: a link that nobody remembers would never be taken away.
    let published = PublishedAt { mount_path: path.to_owned() };
    let record = context.remember(|state| {
        state.published.insert(group.clone(), published);
    });
    record.map_err(|error| not_recorded(&error))?;
    context.publisher.switch(group, publication, path).map_err(|error| publish_failure(&error))?;
    if let Some(old) = old {
        context.publisher.unlink(group, old).map_err(|error| publish_failure(&error))?;
    }
    if let Err(error) = context.drift.watch(&context.publisher, group, publication, path) {
        tracing::warn!(group = %group, error = chain(&error), "published files cannot be watched: hand edits are noticed later");
    }
    Ok(Outcome::Switched { publication, mount_path })
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

fn prune(context: &Context, group: &GroupName, keep: u32, in_use: &[PublicationId]) -> Result<Outcome, Failure> {
    let pruned = context.publisher.prune(group, keep as usize, in_use).and_then(|_| context.publisher.list(group));
    pruned.map(Outcome::Pruned).map_err(|error| publish_failure(&error))
}

fn withdraw(context: &Context, group: &GroupName, mount_path: Option<&str>) -> Result<Outcome, Failure> {
    context.drift.unwatch(group);
    if let Some(path) = mount_path {
        context.publisher.withdraw(group, path).map_err(|error| publish_failure(&error))?;
    }
    context.publisher.prune(group, 0, &[]).map_err(|error| publish_failure(&error))?;
    let forgotten = context.remember(|state| {
        state.published.remove(group);
    });
    forgotten.map_err(|error| not_recorded(&error))?;
    Ok(Outcome::Withdrawn)
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
pub(super) struct Exec<'a> {
    pub(super) context: &'a Context,
    pub(super) group: &'a GroupName,
}

impl ExecCheck for Exec<'_> {
    fn run<'a>(&'a self, command: &'a str, timeout: std::time::Duration) -> ExecRun<'a> {
        Box::pin(async move {
            let argv = self.context.command(self.group, command).ok_or_else(|| "`allow.exec` does not name it".to_owned())?;
            run_command(self.context, self.group, Command { argv, timeout, ..Command::default() }).await
        })
    }
}

/// Runs a command for a group: in its container, or by the keeper, as its process is run or (its `launch`) is to be started.
pub(super) async fn run_command(context: &Context, group: &GroupName, command: Command) -> Result<ExecOutcome, String> {
    let timeout = command.timeout;
    let late = || format!("it did not end within {}", humantime::format_duration(timeout));
    if context.containers.owns(group) {
        let outcome = context.containers.exec(group, &command.argv, timeout).await?;
        return Ok(ExecOutcome { exit: outcome.exit.ok_or_else(late)?, output: outcome.output });
    }
    let outcome = context.keeper.exec(Command { group: Some(group.clone()), ..command }).await.map_err(|error| chain(&error))?;
    if outcome.timed_out {
        return Err(format!("{} and was killed", late()));
    }
    Ok(ExecOutcome { exit: outcome.exit, output: outcome.output })
}
