//! One tag, examined whole: signatures before anything else, objects, paths and limits by the source, then manifest and templates.
//! What does not pass is refused by name; what runs is not touched.

use std::sync::Arc;

use super::clock::now;
use super::context::Context;
use super::stage;
use super::trust::Loaded;
use crate::manifest::{Diagnostic, parse_release};
use crate::model::{Group, ObjectId, Reason, Refusal, Release, RemoteTag, Timestamp};
use crate::plan::Heartbeat;
use crate::release::is_lasting;
use crate::source::{Fetched, Signed};

/// So many errors are written out in a refusal; `tagfall check --tag` lists them all.
const ERRORS_SHOWN_MAX: usize = 8;

/// A heartbeat may be so far ahead of this host's clock, in milliseconds, before it says nothing.
const AHEAD_MAX_MS: u64 = 10 * 60 * 1000;

/// Brings a tag in and checks it: first who signed it, from its own bytes, then all the rest.
pub(super) async fn examine(context: &Arc<Context>, tag: &RemoteTag, cosigned: &[RemoteTag]) -> Result<Arc<Release>, Refusal> {
    let have: Vec<ObjectId> = context.state(|state| state.accepted.iter().map(|accepted| accepted.tag_object).collect());
    // What was accepted once is only read again here; what its signatures are worth is asked for apart, and takes nothing away.
    let is_accepted =
        have.contains(&tag.object) && context.state(|state| state.accepted.as_ref().is_some_and(|old| old.tag == tag.name));
    let trust = if is_accepted { Arc::new(Loaded::off()) } else { context.trust() };
    let (fetched, signers) = bring(context, &trust, tag, cosigned, &have).await?;
    let context = context.clone();
    let admitted = tokio::task::spawn_blocking(move || admit(&context, &fetched, signers)).await;
    admitted.unwrap_or_else(|error| {
        Err(Refusal { reason: Reason::GitOperationFailed, message: format!("checking it broke off: {error}; tried again") })
    })
}

/// Who signed a tag, by the trust of now: brings in what is needed for that, and looks at nothing else.
pub(super) async fn verify(
    context: &Arc<Context>,
    tag: &RemoteTag,
    cosigned: &[RemoteTag],
) -> Result<(ObjectId, Vec<String>), Refusal> {
    let trust = context.trust();
    if !trust.is_on() {
        let message = "nothing is verified here: [source.verify] mode is `off`".to_owned();
        return Err(Refusal { reason: Reason::Unverified, message });
    }
    let have: Vec<ObjectId> = context.state(|state| state.accepted.iter().map(|accepted| accepted.tag_object).collect());
    let (fetched, signers) = bring(context, &trust, tag, cosigned, &have).await?;
    Ok((fetched.commit, signers))
}

/// Brings a tag in that one person who is trusted has signed, and then, where more have to, what others say of it: small then, for
/// it points at what is here already.
async fn bring(
    context: &Arc<Context>,
    trust: &Arc<Loaded>,
    tag: &RemoteTag,
    cosigned: &[RemoteTag],
    have: &[ObjectId],
) -> Result<(Fetched, Vec<String>), Refusal> {
    let alone = Arc::clone(trust);
    let judge = move |signed: &Signed| alone.judge_alone(signed, now().wall);
    let (fetched, signers) = context.source.fetch_judged(tag, have, judge).await?;
    if trust.threshold() < 2 {
        return Ok((fetched, signers));
    }
    let Gathered { statements, passing } = gather(context, trust, tag, cosigned).await;
    let (source, trust, tag) = (context.source.clone(), Arc::clone(trust), tag.clone());
    let judged = tokio::task::spawn_blocking(move || trust.judge(&source.load_signed(&tag)?, &statements, now().wall));
    let judged = judged.await.unwrap_or_else(|error| {
        Err(Refusal { reason: Reason::GitOperationFailed, message: format!("judging it broke off: {error}; tried again") })
    });
    match (judged, passing) {
        (Ok(signers), _) => Ok((fetched, signers)),
        // The signature that is missing may be the one that could not be fetched: it is tried again.
        (Err(refusal), Some(passing)) if refusal.reason == Reason::ThresholdNotMet => Err(passing),
        (Err(refusal), _) => Err(refusal),
    }
}

/// What others say of a tag, as far as it counts, and what kept one of them from being fetched this time.
#[derive(Default)]
struct Gathered {
    statements: Vec<Vec<u8>>,
    passing: Option<Refusal>,
}

/// Gathers what others say of a tag: each tag object of theirs that counts is kept beside the release. One that does not is left
/// out: it stops nobody.
async fn gather(context: &Arc<Context>, trust: &Loaded, tag: &RemoteTag, cosigned: &[RemoteTag]) -> Gathered {
    let kept = context.source.statements(tag.object);
    let missing = cosigned.iter().filter(|other| !kept.iter().any(|(id, _)| *id == other.object));
    let mut gathered = Gathered { statements: kept.iter().map(|(_, bytes)| bytes.clone()).collect(), passing: None };
    for other in missing {
        let read = context.source.statement(other).await;
        let counts = |bytes: &Vec<u8>| trust.check_cosignature(tag.object, &other.name, bytes, now().wall).map(|_| ());
        match read.and_then(|bytes| counts(&bytes).map(|()| bytes)) {
            Ok(bytes) => {
                if let Err(error) = context.source.keep_statement(tag.object, &bytes) {
                    tracing::warn!(tag = %other.name, error = super::effects::chain(&error), "a co-signature is not kept");
                }
                gathered.statements.push(bytes);
            }
            Err(refusal) => {
                let (name, reason) = (&other.name, refusal.reason);
                tracing::info!(tag = %name, ?reason, "a co-signature does not count: {}", refusal.message);
                if !is_lasting(reason) {
                    gathered.passing = Some(refusal);
                }
            }
        }
    }
    gathered
}

/// Judges the accepted release again, by the trust of now and the moment at which it was accepted. Blocks for the time of reading.
pub(super) fn attest(context: &Context, tag: &RemoteTag, accepted_at: Timestamp) -> Result<Vec<String>, Refusal> {
    let signed = context.source.load_signed(tag)?;
    let statements: Vec<Vec<u8>> = context.source.statements(tag.object).into_iter().map(|(_, bytes)| bytes).collect();
    context.trust().judge(&signed, &statements, accepted_at)
}

/// Looks at the heartbeat.
pub(super) async fn hear(context: &Arc<Context>, tag: &RemoteTag) -> Result<Heartbeat, Refusal> {
    let bytes = context.source.statement(tag).await?;
    let at = now().wall;
    let (by, made_at) = context.trust().hear(&tag.name, &bytes, at)?;
    if made_at.0 > at.0.saturating_add(AHEAD_MAX_MS) {
        let message =
            format!("heartbeat `{}` says that it was made at {made_at}, and here it is {at}: it says nothing", tag.name);
        return Err(Refusal { reason: Reason::FreezeSuspected, message });
    }
    Ok(Heartbeat { by, made_at })
}

fn admit(context: &Context, fetched: &Fetched, signers: Vec<String>) -> Result<Arc<Release>, Refusal> {
    let parsed = parse_release(&fetched.files, context.ring.as_deref()).map_err(|errors| invalid(&errors))?;
    if let Some(needed) = parsed.min_version.filter(|needed| *needed > own_version()) {
        let message = format!("it needs Tagfall {needed}, this is {}: upgrade this supervisor", own_version());
        return Err(Refusal { reason: Reason::InvalidConfiguration, message });
    }
    for warning in &parsed.warnings {
        tracing::warn!(tag = %fetched.tag.name, "{warning}");
    }
    let accepted = context.state(|state| state.accepted.clone().filter(|accepted| accepted.tag_object == fetched.tag.object));
    let release = Release {
        tag: fetched.tag.name.clone(),
        tag_object: fetched.tag.object,
        commit: fetched.commit,
        signers: accepted.as_ref().map_or(signers, |accepted| accepted.signers.clone()),
        tagged_at: Timestamp(fetched.tagged_at_s.saturating_mul(1000)),
        groups: parsed.groups,
    };
    // What was accepted once is only read again: what this host's settings or layers no longer allow of it is said by its groups.
    if accepted.is_none() {
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
