//! One tag, examined whole: objects, paths and limits by the source, then manifest and templates. What does not pass is refused
//! by name; what runs is not touched.

use std::sync::Arc;

use super::context::Context;
use super::{layers, modules, stage};
use crate::manifest::{Diagnostic, parse_release};
use crate::model::{Group, ObjectId, Reason, Refusal, Release, RemoteTag};
use crate::source::Fetched;

/// So many errors are written out in a refusal; `tagfall check --tag` lists them all.
const ERRORS_SHOWN_MAX: usize = 8;

/// Brings a tag in and checks it.
pub(super) async fn examine(context: &Arc<Context>, tag: &RemoteTag) -> Result<Arc<Release>, Refusal> {
    let have: Vec<ObjectId> = context.state(|state| state.accepted.iter().map(|accepted| accepted.tag_object).collect());
    let fetched = context.source.fetch(tag, &have).await?;
    let known = context.state(|state| state.accepted.as_ref().map(|accepted| accepted.tag_object));
    let checker = context.clone();
    let admitted = tokio::task::spawn_blocking(move || admit(&checker, &fetched)).await;
    let release = admitted.unwrap_or_else(|error| {
        Err(Refusal { reason: Reason::GitOperationFailed, message: format!("checking it broke off: {error}; tried again") })
    })?;
    // Modules last: compiling is what costs most. Those of what was accepted once are compiled when they are called.
    if known != Some(release.tag_object) {
        modules::admit(context, &release).await?;
    }
    Ok(release)
}

fn admit(context: &Context, fetched: &Fetched) -> Result<Arc<Release>, Refusal> {
    let parsed = parse_release(&fetched.files, context.ring.as_deref()).map_err(|errors| invalid(&errors))?;
    if let Some(needed) = parsed.min_version.filter(|needed| *needed > own_version()) {
        let message = format!("it needs Tagfall {needed}, this is {}: upgrade this supervisor", own_version());
        return Err(Refusal { reason: Reason::InvalidConfiguration, message });
    }
    for warning in &parsed.warnings {
        tracing::warn!(tag = %fetched.tag.name, "{warning}");
    }
    let release = Release {
        tag: fetched.tag.name.clone(),
        tag_object: fetched.tag.object,
        commit: fetched.commit,
        signers: Vec::new(),
        groups: parsed.groups,
    };
    // What was accepted once is only read again: what this host's settings or layers no longer allow of it is said by its groups.
    let accepted = context.state(|state| state.accepted.as_ref().map(|accepted| accepted.tag_object));
    if accepted != Some(release.tag_object) {
        check_here(context, &release)?;
    }
    Ok(Arc::new(release))
}

/// Looks at every group that is placed here: one that may not publish where it wants to, or whose templates print a missing
/// name (rendered once, into nothing), refuses the release whole.
fn check_here(context: &Context, release: &Release) -> Result<(), Refusal> {
    let here = |group: &Group| group.placement.iter().all(|(key, value)| context.labels.get(key) == Some(value));
    let mut errors = Vec::new();
    for group in release.groups.values().filter(|group| here(group)) {
        let words = |message: String| format!("{}: {message}", group.name);
        errors.extend(group.mount.iter().filter_map(|mount| context.outside_roots(&mount.path)).map(words));
        if !context.has_layers(&group.name) {
            // A group that is new here: what stands above the release belongs to its first trial as well.
            layers::read(context, &group.name);
        }
        if let Err(found) = stage::render_here(context, group, (&release.tag, &release.commit)) {
            errors.extend(found.into_iter().map(words));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(refusal(&errors)) }
}

fn own_version() -> semver::Version {
    semver::Version::parse(env!("CARGO_PKG_VERSION")).unwrap_or(semver::Version::new(0, 0, 0))
}

fn invalid(errors: &[Diagnostic]) -> Refusal {
    let line = |error: &Diagnostic| {
        let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{}:{}:{}: {}{hint}", error.file, error.line, error.column, error.message)
    };
    refusal(&errors.iter().map(line).collect::<Vec<_>>())
}

fn refusal(errors: &[String]) -> Refusal {
    let mut message = errors.iter().take(ERRORS_SHOWN_MAX).cloned().collect::<Vec<_>>().join("; ");
    if errors.len() > ERRORS_SHOWN_MAX {
        message.push_str(&format!("; and {} more: `tagfall check --tag` lists them all", errors.len() - ERRORS_SHOWN_MAX));
    }
    Refusal { reason: Reason::InvalidConfiguration, message }
}
