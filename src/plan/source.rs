//! Which tag: look at the remote, examine the best candidate, record it, record that it is applied.

use crate::model::{Reason, RemoteTag, Wait};
use crate::release::{Candidate, Choice, Verdict, choose, is_of_trust};

use super::action::tag_key;
use super::{Action, Key, Turn, first_tags};

/// Comes last: whether the accepted release is applied shows from what the other questions asked for.
pub(super) fn plan(turn: &mut Turn<'_>) {
    mark_applied(turn);
    attest(turn);
    let observed = turn.observed;
    let source = &observed.source;
    if let Some(accepted) = &source.accepted
        && turn.desired.release.is_none()
    {
        // A lasting refusal stays what it is: asking again would be a loop without a pause. Another tag may still come. What its
        // signatures are worth now is another question: what runs, runs on.
        if let Some(Verdict::Refused(refusal)) = source.verdicts.get(&tag_key(&accepted.tag))
            && !is_of_trust(refusal.reason)
        {
            let message = format!("the accepted release `{}` is refused now: {}", accepted.tag.name, refusal.message);
            say(turn, refusal.reason, message);
        } else {
            say(turn, Reason::Fetching, format!("reading the accepted release `{}` from the store", accepted.tag.name));
            if examine(turn, &accepted.tag, &[]) {
                return;
            }
        }
    }
    if source.next_poll <= turn.now {
        turn.act(Key::Source, Action::List);
        return;
    }
    turn.wake(source.next_poll);
    let Some(candidates) = &source.candidates else {
        if turn.desired.release.is_none() {
            let message = source.trouble.as_ref().map_or("asking the remote for its tags", |trouble| &trouble.message);
            let reason = source.trouble.as_ref().map_or(Reason::Fetching, |trouble| trouble.reason);
            say(turn, reason, message.to_owned());
        }
        return;
    };
    match choice(turn, candidates) {
        Choice::Run(tag) => accept(turn, &tag, candidates),
        Choice::Examine(tag) => {
            say(turn, Reason::Fetching, format!("fetching and checking `{}`", tag.name));
            examine(turn, &tag, cosigned(candidates, &tag));
        }
        Choice::Nothing => nothing(turn, candidates),
    }
}

fn say(turn: &mut Turn<'_>, reason: Reason, message: String) {
    turn.plan.waits.push(Wait { reason, message });
}

/// Asks for the signatures of what is accepted, and of the heartbeat, to be looked at; what is chosen from is examined whole.
fn attest(turn: &mut Turn<'_>) {
    if !turn.desired.host.verify {
        return;
    }
    let source = &turn.observed.source;
    if let Some(accepted) = source.accepted.as_ref().filter(|_| source.attested.is_none()) {
        turn.act(Key::Trust, Action::Attest { tag: accepted.tag.clone(), accepted_at: accepted.accepted_at });
        return;
    }
    if let Some(tag) = source.heartbeat.unread(turn.now) {
        turn.act(Key::Trust, Action::ReadHeartbeat { tag: tag.clone() });
    } else if let Some((until, _)) = source.heartbeat.postponed.filter(|(until, _)| *until > turn.now) {
        turn.wake(until);
    }
}

/// The tags that say they sign this one as well.
fn cosigned<'a>(candidates: &'a [Candidate], tag: &RemoteTag) -> &'a [RemoteTag] {
    candidates.iter().find(|candidate| candidate.tag == *tag).map_or(&[], |candidate| &candidate.cosigned)
}

/// Asks for an examination unless it is postponed. True where it was asked for, or is under way.
fn examine(turn: &mut Turn<'_>, tag: &RemoteTag, cosigned: &[RemoteTag]) -> bool {
    let postponed = turn.observed.source.postponed.get(&tag_key(tag)).map(|(until, ..)| *until);
    match postponed {
        Some(until) if until > turn.now => {
            turn.wake(until);
            false
        }
        Some(_) | None => {
            turn.act(Key::Source, Action::Examine { tag: tag.clone(), cosigned: cosigned.to_vec() });
            true
        }
    }
}

/// The highest tag that stands, passing over those that are postponed. While one is, nothing below the accepted release is taken.
fn choice(turn: &mut Turn<'_>, candidates: &[Candidate]) -> Choice {
    let source = &turn.observed.source;
    let accepted = source.accepted.as_ref().and_then(|accepted| turn.desired.host.version_of(&accepted.tag.name));
    let waiting = |candidate: &Candidate| {
        source.postponed.get(&tag_key(&candidate.tag)).map(|(until, ..)| *until).filter(|until| *until > turn.now)
    };
    if source.postponed.is_empty() {
        return choose(candidates, &source.verdicts, source.rules()).0;
    }
    let wake = candidates.iter().filter_map(waiting).min();
    let open: Vec<Candidate> = candidates
        .iter()
        .filter(|candidate| waiting(candidate).is_none() && accepted.as_ref().is_none_or(|version| candidate.version >= *version))
        .cloned()
        .collect();
    let choice = choose(&open, &source.verdicts, source.rules()).0;
    if let Some(moment) = wake {
        turn.wake(moment);
    }
    choice
}

/// A tag that passed: recorded unless it is the one driven towards already.
fn accept(turn: &mut Turn<'_>, tag: &RemoteTag, candidates: &[Candidate]) {
    let source = &turn.observed.source;
    if source.accepted.as_ref().is_some_and(|accepted| accepted.tag == *tag) {
        return;
    }
    match not_recorded(turn) {
        Some(wait) => turn.plan.waits.push(wait),
        None => say(turn, Reason::Fetching, format!("accepting `{}`", tag.name)),
    }
    match source.examined.as_ref().filter(|release| release.tag == tag.name && release.tag_object == tag.object) {
        Some(release) => {
            let first_tags = first_tags(&turn.desired.first_tags, release);
            turn.act(Key::Record, Action::Accept { release: release.clone(), first_tags });
        }
        None => {
            examine(turn, tag, cosigned(candidates, tag));
        }
    }
}

fn nothing(turn: &mut Turn<'_>, candidates: &[Candidate]) {
    if turn.desired.release.is_some() {
        return;
    }
    let source = &turn.observed.source;
    if let Some(pin) = &source.pin {
        let message = format!("`{}` is pinned ({}) and cannot be taken; `tagfall release list` says why", pin.tag.name, pin.word);
        return say(turn, Reason::Pinned, message);
    }
    let prefix = &turn.desired.host.selection.prefix;
    let message = match (source.tags, candidates.len()) {
        (0, _) => {
            format!("the repository has no tags: push an annotated one, `git tag -a {prefix}0.1.0 -m … && git push --tags`")
        }
        (tags, 0) => format!("none of the {tags} tags is `{prefix}` and a semantic version in range"),
        (_, found) => format!("none of the {found} tags in range can be taken; `tagfall release list` says why"),
    };
    say(turn, Reason::NoMatchingTag, message);
}

/// The accepted release is applied once nothing is waited for and nothing is to be done.
fn mark_applied(turn: &mut Turn<'_>) {
    let Some(accepted) = &turn.observed.source.accepted else { return };
    let Some(release) = &turn.desired.release else { return };
    let busy = turn.observed.busy().any(|key| !matches!(key, Key::Source));
    if accepted.applied_at.is_some() || release.tag_object != accepted.tag.object || busy || !turn.plan.is_converged() {
        return;
    }
    let version = turn.desired.host.version_of(&accepted.tag.name);
    let floor = version.into_iter().chain(turn.observed.source.floor.clone()).max();
    turn.act(Key::Record, Action::MarkApplied { tag: accepted.tag.clone(), floor });
    turn.plan.waits.extend(not_recorded(turn));
}

/// What could not be written down the last time, while it is tried again.
fn not_recorded(turn: &Turn<'_>) -> Option<Wait> {
    let failure = turn.observed.failure(&Key::Record)?;
    Some(Wait { reason: failure.reason, message: failure.message.clone() })
}
