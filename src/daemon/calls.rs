//! Calls of hooks: what one is made of, what is written down around it, what its commands run as. Decides nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::effects::{chain, not_recorded, run_command};
use crate::hooks::{ExecCheck, ExecRun, HookRun, Outside};
use crate::keeper::wire::{Command, Request};
use crate::model::{
    CheckResult, Digest, GroupName, HookAction, HookAnswer, HookCall, HookContext, HookFailed, HookFailure, HookInput, HookKind,
    HookMember, HookModule, HookOrder, Launch, Occasion, OwedChange, OwedHooks, OwedPostStop, PublicationId, Reason, Signal,
};
use crate::plan::{Failure, Outcome, settles};

/// A check by a module.
pub(super) async fn check(context: &Context, group: &GroupName, module: &Arc<HookModule>, timeout: Duration) -> CheckResult {
    let told = HookContext { reason: "interval".to_owned(), attempt: 1, ..HookContext::default() };
    let run = run(context, group, module, (HookInput::HealthCheck, told), timeout).await;
    run.answer.into_check()
}

/// Calls a hook and writes down what its answer settles.
pub(super) async fn call(context: &Arc<Context>, order: HookOrder) -> Outcome {
    let HookOrder { group, module, occasion, input, reason, mut attempt, extra, after } = order;
    let kind = module.kind;
    if kind == HookKind::PostStop {
        // Written down first: should this process end meanwhile, the next one knows that it has begun.
        match begun(context, &group).await {
            Ok(calls) => attempt = calls,
            Err(failure) => return Outcome::Failed(failure),
        }
    }
    let input = match (input, occasion) {
        (HookInput::Reconfigure { .. }, Occasion::Publication { publication, .. }) => {
            HookInput::Reconfigure { changed: changed(context, &group, publication).await }
        }
        (input, _) => input,
    };
    let told = HookContext { reason: reason.to_owned(), attempt, extra, ..HookContext::default() };
    let answer = checked(run(context, &group, &module, (input, told), module.timeout).await.answer);
    if !settles(kind, &answer) {
        return Outcome::Failed(failure(&answer));
    }
    // A signal or a restart is still to come.
    let acts = matches!(&answer, HookAnswer::Outcome { action: HookAction::Signal(_) | HookAction::Restart, .. });
    let change = after.filter(|_| !(acts && kind == HookKind::Reconfigure));
    if let Some(change) = &change
        && let Err(failure) = owe(context, group, change.clone()).await
    {
        return Outcome::Failed(failure);
    }
    Outcome::Called { kind, occasion, answer, change }
}

/// Sends the signal that a hook asked for; from then on it is owed no more.
pub(super) async fn signal(context: &Arc<Context>, group: GroupName, signal: Signal, after: OwedChange) -> Outcome {
    if let Err(error) = context.keeper.request(Request::Signal { group: group.clone(), signal }).await {
        return Outcome::Failed(Failure::new(Reason::HookFailed, chain(&error)));
    }
    owe(context, group, after).await.map_or_else(Outcome::Failed, Outcome::Owed)
}

/// Writes down what changes of what is owed to a group's hooks, and gives it back.
pub(super) async fn owe(context: &Arc<Context>, group: GroupName, change: OwedChange) -> Result<OwedChange, Failure> {
    let written = change.clone();
    owe_with(context, group, move |owed| owed.apply(written)).await.map(|_| change)
}

/// The same for any change; the whole of what is owed then is the answer.
async fn owe_with(
    context: &Arc<Context>,
    group: GroupName,
    change: impl FnOnce(&mut OwedHooks) + Send + 'static,
) -> Result<OwedHooks, Failure> {
    let context = context.clone();
    let written = tokio::task::spawn_blocking(move || {
        let mut whole = OwedHooks::default();
        let recorded = context.remember(|state| whole = state.owe(group, change));
        recorded.map(|()| whole).map_err(|error| not_recorded(&error))
    });
    let broken = |error| Failure::new(Reason::PublishFailed, format!("what is owed to hooks is not written down: {error}"));
    written.await.map_err(broken)?
}

/// Counts a call of `post-stop` that begins.
async fn begun(context: &Arc<Context>, group: &GroupName) -> Result<u32, Failure> {
    let counted = owe_with(context, group.clone(), |owed| {
        let post_stop = owed.post_stop.get_or_insert(OwedPostStop { after: None, calls: 0 });
        post_stop.calls = post_stop.calls.saturating_add(1);
    });
    Ok(counted.await?.post_stop.map_or(1, |owed| owed.calls))
}

/// An answer that names a signal which there is not is none.
fn checked(answer: HookAnswer) -> HookAnswer {
    match &answer {
        HookAnswer::Outcome { action: HookAction::Signal(name), .. } if name.parse::<Signal>().is_err() => {
            let known: Vec<&str> = Signal::names().collect();
            let message = format!("it asks for the signal {name:?}, which there is not; there are {}", known.join(", "));
            HookAnswer::Failed(HookFailure::new(HookFailed::Invalid, message))
        }
        HookAnswer::Outcome { .. } | HookAnswer::Health { .. } | HookAnswer::Rank(_) | HookAnswer::Failed(_) => answer,
    }
}

fn failure(answer: &HookAnswer) -> Failure {
    let trouble = answer.trouble().unwrap_or_else(|| HookFailure::new(HookFailed::Invalid, "no answer"));
    let reason = if trouble.reason == HookFailed::HostGone { Reason::HookHostAway } else { Reason::HookFailed };
    Failure { reason, message: trouble.message, retry_after: trouble.retry_after }
}

/// Names of the files that differ between what a group's process was last told of and what it sees now.
async fn changed(context: &Arc<Context>, group: &GroupName, to: PublicationId) -> Vec<String> {
    let from = context.state(|state| state.hooks.get(group)?.reconfigure?.from);
    let (context, group) = (context.clone(), group.clone());
    let found = tokio::task::spawn_blocking(move || {
        let files = |id| context.publisher.manifest(&group, id).map(|manifest| manifest.files).unwrap_or_default();
        let before = from.map(|content| files(PublicationId { content, copy: 0 })).unwrap_or_default();
        let after = files(to);
        let differs = |path: &&String| before.get(*path) != after.get(*path);
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).filter(differs).collect();
        names.into_iter().cloned().collect()
    });
    found.await.unwrap_or_default()
}

/// Runs a module once, and says in the log what it said.
async fn run(
    context: &Context,
    group: &GroupName,
    module: &Arc<HookModule>,
    (input, told): (HookInput, HookContext),
    timeout: Duration,
) -> HookRun {
    let kind = module.kind;
    let call = made(context, group, module, (input, told), timeout);
    let run = context.hooks.call(&call, &Commands { context, group, module }).await;
    for line in &run.log {
        tracing::debug!(group = %group, hook = kind.name(), level = line.level.name(), "{}", line.message);
    }
    let took_us = u64::try_from(run.took.as_micros()).unwrap_or(u64::MAX);
    match run.answer.trouble() {
        Some(trouble) if kind != HookKind::HealthCheck => {
            tracing::warn!(group = %group, hook = kind.name(), trace_id = call.context.trace_id, took_us, "{}", trouble.message);
        }
        Some(_) | None => {
            tracing::debug!(group = %group, hook = kind.name(), trace_id = call.context.trace_id, took_us, "answered");
        }
    }
    run
}

fn made(
    context: &Context,
    group: &GroupName,
    module: &HookModule,
    (input, told): (HookInput, HookContext),
    timeout: Duration,
) -> HookCall {
    let number = context.next_call();
    let me = HookMember {
        id: context.host.member_id.clone(),
        group: group.to_string(),
        address: context.host.ip.clone(),
        alive: true,
        healthy: true,
        leader: true,
        suitability: 0,
        is_me: true,
    };
    HookCall {
        group: group.clone(),
        module: module.module,
        input,
        context: HookContext {
            release: module.release.to_string(),
            commit: module.commit.to_string(),
            trace_id: format!("{group}-{number}"),
            ..told
        },
        args_json: module.args_json.clone(),
        config_json: module.config_json.clone(),
        members: Arc::new([me]),
        grants: module.grants.clone(),
        probes: module.probes.clone(),
        env: module.env.clone(),
        timeout,
        memory: module.memory,
    }
}

/// What a module's call needs of the supervisor.
struct Commands<'a> {
    context: &'a Context,
    group: &'a GroupName,
    module: &'a HookModule,
}

impl ExecCheck for Commands<'_> {
    fn run<'a>(&'a self, command: &'a str, timeout: Duration) -> ExecRun<'a> {
        Box::pin(async move {
            let argv = self.module.grants.exec.get(command).ok_or_else(|| "`allow.exec` does not name it".to_owned())?;
            let launch = self.module.launch.as_deref().map(|launch| Launch { argv: Vec::new(), ..launch.clone() });
            let release = ("TAGFALL_RELEASE".to_owned(), self.module.release.to_string());
            let env = vec![("TAGFALL_GROUP".to_owned(), self.group.to_string()), release];
            let command = Command { argv: argv.clone(), env, launch, timeout, ..Command::default() };
            run_command(self.context, self.group, command).await
        })
    }
}

impl Outside for Commands<'_> {
    fn read_module(&self, module: &Digest) -> Result<Vec<u8>, String> {
        let blob = self.context.blob_of(module).ok_or_else(|| "no release that is known here has this module".to_owned())?;
        self.context.source.read_blob(blob).map_err(|error| chain(&error))
    }
}
