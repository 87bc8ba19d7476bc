//! What is known of the remote: its tags, what was found out about them, what operators said of them, and the trust in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Moment, Now, ObjectId, Pin, Reason, Refusal, Release, RemoteTag, TagName, Timestamp, Word};
use crate::release::{Candidate, RefusedTag, Rules, Selection, Verdict, candidates, is_lasting, is_of_trust, misnamed};

use super::action::{Heartbeat, Listing, TagKey, tag_key};
use super::observed::{RETRY_MAX_MS, RETRY_MIN_MS};

/// The durable record of the release driven towards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The tag.
    pub tag: RemoteTag,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When everything of it ran; `None` until then.
    pub applied_at: Option<Timestamp>,
}

/// What is known of the remote and its tags.
#[derive(Debug, Clone, Default)]
pub struct SourceFacts {
    /// Tags that name a version in range, highest first; `None` before the first answer.
    pub candidates: Option<Vec<Candidate>>,
    /// Tags that would be candidates but for their names; a few at most.
    pub misnamed: Vec<RefusedTag>,
    /// How many tags the remote has.
    pub tags: usize,
    /// When the remote last answered.
    pub listed_at: Option<Now>,
    /// Whether the remote still has the accepted release's tag.
    pub listed_accepted: bool,
    /// Why it did not answer last time.
    pub trouble: Option<Refusal>,
    /// When to look again.
    pub next_poll: Moment,
    /// What was found out about tags.
    pub verdicts: BTreeMap<TagKey, Verdict>,
    /// Tags whose examination failed for a passing reason.
    pub postponed: BTreeMap<TagKey, (Moment, u32, Refusal)>,
    /// The release driven towards, as recorded.
    pub accepted: Option<Accepted>,
    /// A release that was examined and passed: content in memory.
    pub examined: Option<Arc<Release>>,
    /// The highest version that was applied whole: nothing lower is chosen.
    pub floor: Option<semver::Version>,
    /// What an operator wants to run instead of the highest.
    pub pin: Option<Pin>,
    /// What operators do not want to run.
    pub rejected: BTreeMap<TagName, Word>,
    /// Counts changes of trust.
    pub trust: u64,
    /// Why nothing can be verified.
    pub trust_error: Option<String>,
    /// Who signed the accepted release, or why that does not hold, by the trust of now; `None` until it was looked at.
    pub attested: Option<Result<Vec<String>, Refusal>>,
    /// The heartbeat.
    pub heartbeat: HeartbeatFacts,
}

/// What is known of the heartbeat.
#[derive(Debug, Clone, Default)]
pub struct HeartbeatFacts {
    /// As the remote lists it.
    pub listed: Option<RemoteTag>,
    /// Which object was looked at last.
    pub looked_at: Option<ObjectId>,
    /// The newest that counts.
    pub last: Option<Heartbeat>,
    /// Why the one that was looked at last does not.
    pub trouble: Option<Refusal>,
    /// Until when another look waits, after so many that failed for a passing reason.
    pub postponed: Option<(Moment, u32)>,
}

impl SourceFacts {
    /// What bounds the choice of a tag.
    pub fn rules(&self) -> Rules<'_> {
        Rules { floor: self.floor.as_ref(), pin: self.pin.as_ref(), rejected: Some(&self.rejected) }
    }

    pub(super) fn listed(&mut self, listing: &Listing, selection: &Selection, poll: Duration, now: Now) {
        let candidates = candidates(&listing.tags, selection);
        self.forget_short(&candidates);
        self.refuse_moved(&candidates, &listing.moved);
        self.candidates = Some(candidates);
        self.misnamed = misnamed(&listing.tags, selection);
        self.tags = listing.tags.len();
        let accepted = self.accepted.as_ref().map(|accepted| &accepted.tag.name);
        self.listed_accepted = accepted.is_some_and(|name| listing.tags.iter().any(|tag| tag.name == *name));
        let heartbeat = selection.heartbeat.as_ref();
        self.heartbeat.listed = heartbeat.and_then(|name| listing.tags.iter().find(|tag| tag.name == *name).cloned());
        self.unchanged(poll, now);
    }

    /// The remote answers as it did before: what is known of its tags holds.
    pub(super) fn unchanged(&mut self, poll: Duration, now: Now) {
        self.listed_at = Some(now);
        self.trouble = None;
        self.next_poll = now.moment.after(poll);
    }

    /// A tag that too few had signed may have found others since.
    fn forget_short(&mut self, candidates: &[Candidate]) {
        let before = self.candidates.iter().flatten();
        let before: BTreeMap<TagKey, &[RemoteTag]> = before.map(|old| (tag_key(&old.tag), &old.cosigned[..])).collect();
        for candidate in candidates.iter().filter(|candidate| !candidate.cosigned.is_empty()) {
            let key = tag_key(&candidate.tag);
            let short =
                matches!(self.verdicts.get(&key), Some(Verdict::Refused(refusal)) if refusal.reason == Reason::ThresholdNotMet);
            if short && before.get(&key) != Some(&&candidate.cosigned[..]) {
                self.verdicts.remove(&key);
            }
        }
    }

    /// A name that once named another object is never applied.
    fn refuse_moved(&mut self, candidates: &[Candidate], moved: &BTreeMap<TagName, ObjectId>) {
        for tag in candidates.iter().map(|candidate| &candidate.tag) {
            let Some(first) = moved.get(&tag.name).filter(|first| **first != tag.object) else { continue };
            let message = format!(
                "tag `{}` named {first} when it was first seen here and now names {}: the remote or somebody with push rights moved \
                 it; it is not applied; push a new tag name",
                tag.name, tag.object
            );
            let refusal = Refusal { reason: Reason::TagMoved, message };
            self.verdicts.insert(tag_key(tag), Verdict::Refused(refusal));
        }
    }

    pub(super) fn examined(&mut self, tag: &RemoteTag, result: Result<Arc<Release>, Refusal>, now: Now) {
        let key = tag_key(tag);
        match result {
            Ok(release) => {
                self.postponed.remove(&key);
                // What was accepted once is read without its signatures; what those are worth stands beside it.
                let doubted = self.is_accepted(tag) && matches!(self.attested, Some(Err(_)));
                if !doubted {
                    self.verdicts.insert(key, Verdict::Accepted);
                }
                self.examined = Some(release);
            }
            Err(refusal) if !is_lasting(refusal.reason) => {
                let tries = self.postponed.get(&key).map_or(0, |(_, tries, _)| *tries) + 1;
                self.postponed.insert(key, (later(now.moment, tries), tries, refusal));
            }
            Err(refusal) => {
                self.postponed.remove(&key);
                self.verdicts.insert(key, Verdict::Refused(refusal));
            }
        }
    }

    fn is_accepted(&self, tag: &RemoteTag) -> bool {
        self.accepted.as_ref().is_some_and(|accepted| accepted.tag == *tag)
    }

    /// The accepted release was judged again. Where it does not hold, it is no choice any more; it runs on all the same, for
    /// nothing below the floor takes its place.
    pub(super) fn attested(&mut self, tag: &RemoteTag, result: Result<Vec<String>, Refusal>) {
        if !self.is_accepted(tag) {
            return;
        }
        let verdict = match &result {
            Ok(_) => Verdict::Accepted,
            Err(refusal) => Verdict::Refused(refusal.clone()),
        };
        self.verdicts.insert(tag_key(tag), verdict);
        self.attested = Some(result);
    }

    /// Everything that trust has a part in is asked for again.
    pub(super) fn trust_changed(&mut self, error: Option<String>) {
        self.trust += 1;
        self.trust_error = error;
        self.attested = None;
        let accepted = self.accepted.as_ref().map(|accepted| tag_key(&accepted.tag));
        let stands = |key: &TagKey, verdict: &Verdict| match verdict {
            Verdict::Refused(refusal) => !is_of_trust(refusal.reason),
            Verdict::Accepted => Some(key) == accepted.as_ref(),
        };
        self.verdicts.retain(|key, verdict| stands(key, verdict));
        self.postponed.clear();
        self.heartbeat.looked_at = None;
        self.heartbeat.last = None;
        self.heartbeat.postponed = None;
    }
}

impl HeartbeatFacts {
    /// The tag that is to be looked at.
    pub(super) fn unread(&self, now: Moment) -> Option<&RemoteTag> {
        let waits = self.postponed.is_some_and(|(until, _)| until > now);
        self.listed.as_ref().filter(|tag| !waits && self.looked_at != Some(tag.object))
    }

    pub(super) fn heard(&mut self, tag: &RemoteTag, result: Result<Heartbeat, Refusal>, now: Moment) {
        match result {
            Ok(heartbeat) => {
                // An older one that is pushed again takes nothing back.
                if self.last.as_ref().is_none_or(|last| last.made_at < heartbeat.made_at) {
                    self.last = Some(heartbeat);
                }
                (self.looked_at, self.trouble, self.postponed) = (Some(tag.object), None, None);
            }
            Err(refusal) if !is_lasting(refusal.reason) => {
                let tries = self.postponed.map_or(0, |(_, tries)| tries) + 1;
                self.postponed = Some((later(now, tries), tries));
                self.trouble = Some(refusal);
            }
            Err(refusal) => {
                (self.looked_at, self.trouble, self.postponed) = (Some(tag.object), Some(refusal), None);
            }
        }
    }
}

fn later(now: Moment, tries: u32) -> Moment {
    let delay = RETRY_MIN_MS.saturating_mul(1 << tries.min(20)).min(RETRY_MAX_MS);
    now.after(Duration::from_millis(delay))
}
