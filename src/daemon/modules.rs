//! Hooks that are modules: whether a release's may be taken, and what is the same for all calls of one. Runs none itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::context::Context;
use super::effects::chain;
use super::stage::Rendered;
use crate::hooks::{NotAdmitted, missing_grants, unread_probes};
use crate::model::{Check, ConfigFile, Group, Hook, HookKind, HookModule, ObjectId, Reason, Refusal, Release, TagName};

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
) -> Result<BTreeMap<HookKind, Arc<HookModule>>, String> {
    let mut modules = BTreeMap::new();
    let config: Arc<str> = rendered.snapshot.as_str().into();
    let launch = rendered.launch.clone().map(Arc::new);
    for (kind, hook, file) in declared(group) {
        let Some(own) = rendered.hooks.get(&kind) else { continue };
        let value = |name: &String| Some((name.clone(), context.env.get(name)?.clone()));
        let module = HookModule {
            kind,
            module: context.module(file.blob)?,
            args_json: own.args.to_string().into(),
            config_json: config.clone(),
            grants: Arc::new(own.grants.clone()),
            probes: Arc::new(own.probes.clone()),
            env: hook.allow.env.iter().filter_map(value).collect(),
            launch: launch.clone(),
            timeout: hook.timeout,
            memory: hook.memory,
            release: release.0.clone(),
            commit: *release.1,
        };
        modules.insert(kind, Arc::new(module));
    }
    Ok(modules)
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
                    errors.extend(unread_probes(kind, &inspected, &hook.probes).map(words));
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
