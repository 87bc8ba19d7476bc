//! Hooks that are modules: whether a release's may be taken, and what a call of one is made of. Runs none itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::effects::{Exec, chain};
use super::stage::Rendered;
use crate::hooks::{NotAdmitted, Outside, missing_grants};
use crate::model::{
    Check, CheckResult, ConfigFile, Digest, Grants, Group, GroupName, HealthStatus, Hook, HookCall, HookContext, HookInput,
    HookKind, HookMember, ObjectId, Reason, Refusal, Release, TagName,
};

/// Modules by their hook.
pub(super) type Modules = BTreeMap<HookKind, Arc<Prepared>>;

/// A hook that is a module, ready to be called.
pub(super) struct Prepared {
    module: Digest,
    grants: Arc<Grants>,
    args: Arc<str>,
    config: Arc<str>,
    env: Arc<[(String, String)]>,
    memory: u64,
    release: TagName,
    commit: ObjectId,
}

impl Prepared {
    pub(super) fn module(&self) -> Digest {
        self.module
    }
}

/// Modules of a group, each with its hook and file.
fn declared(group: &Group) -> impl Iterator<Item = (HookKind, &Hook, &ConfigFile)> {
    group.hooks.iter().filter_map(|(kind, hook)| match &hook.check {
        Check::Module(path) => group.modules.iter().find(|file| file.path == *path).map(|file| (*kind, hook, file)),
        Check::Http { .. } | Check::Tcp { .. } | Check::File { .. } | Check::Exec { .. } => None,
    })
}

/// What the calls of a group's modules will be made of. Blocks for reading those that were not read before.
pub(super) fn prepare(
    context: &Context,
    group: &Group,
    rendered: &Rendered,
    release: (&TagName, &ObjectId),
) -> Result<Modules, String> {
    let mut modules = Modules::new();
    for (kind, hook, file) in declared(group) {
        let Some(own) = rendered.hooks.get(&kind) else { continue };
        let value = |name: &String| Some((name.clone(), context.env.get(name)?.clone()));
        let prepared = Prepared {
            module: context.module(file.blob)?,
            grants: Arc::new(own.grants.clone()),
            args: own.args.to_string().into(),
            config: rendered.snapshot.as_str().into(),
            env: hook.allow.env.iter().filter_map(value).collect(),
            memory: hook.memory,
            release: release.0.clone(),
            commit: *release.1,
        };
        modules.insert(kind, Arc::new(prepared));
    }
    Ok(modules)
}

/// Checks by a module.
pub(super) async fn check(context: &Context, group: &GroupName, timeout: Duration) -> CheckResult {
    let Some(prepared) = context.hook(group, HookKind::HealthCheck) else {
        return CheckResult::new(HealthStatus::Unknown, "its module was not read yet");
    };
    let call = call(context, group, &prepared, HookInput::HealthCheck, timeout);
    let run = context.hooks.call(&call, &Exec { context, group }).await;
    for line in &run.log {
        tracing::debug!(group = %group, hook = "health-check", level = line.level.name(), "{}", line.message);
    }
    run.answer.into_check()
}

fn call(context: &Context, group: &GroupName, prepared: &Prepared, input: HookInput, timeout: Duration) -> HookCall {
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
        module: prepared.module,
        input,
        context: HookContext {
            release: prepared.release.to_string(),
            commit: prepared.commit.to_string(),
            reason: "interval".to_owned(),
            attempt: 1,
            trace_id: format!("{group}-{number}"),
            extra: Vec::new(),
        },
        args_json: prepared.args.clone(),
        config_json: prepared.config.clone(),
        members: Arc::new([me]),
        grants: prepared.grants.clone(),
        env: prepared.env.clone(),
        timeout,
        memory: prepared.memory,
    }
}

impl Outside for Exec<'_> {
    fn read_module(&self, module: &Digest) -> Result<Vec<u8>, String> {
        let blob = self.context.blob_of(module).ok_or_else(|| "no release that is known here has this module".to_owned())?;
        self.context.source.read_blob(blob).map_err(|error| chain(&error))
    }
}

/// Compiles and looks at every module of the groups that are placed here. All that is wrong is listed.
pub(super) async fn admit(context: &Arc<Context>, release: &Release) -> Result<(), Refusal> {
    let mut errors = Vec::new();
    let here = |group: &Group| group.placement.iter().all(|(key, value)| context.labels.get(key) == Some(value));
    for group in release.groups.values().filter(|group| here(group)) {
        for (kind, hook, file) in declared(group) {
            let words = |message: String| format!("{}: hook `{}` (`{}`): {message}", group.name, kind.name(), file.path);
            let (reader, blob) = (context.clone(), file.blob);
            let read = tokio::task::spawn_blocking(move || reader.source.read_blob(blob).map_err(|error| chain(&error)));
            let wasm = read.await.map_err(|error| error.to_string()).and_then(|read| read).map_err(|why| passing(words(why)))?;
            match context.hooks.admit(&wasm).await {
                Ok(inspected) if inspected.hooks.contains(&kind) => {
                    errors.extend(missing_grants(kind, &inspected, &hook.allow).into_iter().map(words));
                }
                Ok(_) => errors.push(words(format!("it does not export `tagfall:hooks/{}@0.1.0`", kind.name()))),
                Err(NotAdmitted::Refused(why)) => errors.push(words(why)),
                Err(NotAdmitted::Failed(why)) => return Err(passing(words(why))),
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Refusal { reason: Reason::InvalidHook, message: errors.join("; ") }) }
}

/// Something that may be otherwise the next time.
fn passing(message: String) -> Refusal {
    Refusal { reason: Reason::HookHostAway, message: format!("{message}; it is tried again") }
}
