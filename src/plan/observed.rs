//! What is known to be so. Only [`Observed::begin`] and [`Observed::observe`] write it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    CheckResult, Digest, FirstTag, GroupName, HealthStatus, HookKind, HookModule, Moment, Now, ObjectId, PublicationId, Reason,
    Refusal, Release, RemoteTag, ServiceReport, ServiceState, TagName, Timestamp,
};
use crate::release::{Candidate, RefusedTag, Selection, Verdict, candidates, is_lasting, misnamed};

use super::action::{Action, Event, Failure, Key, Lane, Outcome, Prepared, TagKey, tag_key};
use super::hooks::{Called, HookFacts};

/// First delay after a failed effect.
const RETRY_MIN_MS: u64 = 200;
/// Longest delay after failed effects.
const RETRY_MAX_MS: u64 = 60_000;
/// Longest delay that a hook may ask for itself.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// An attempt under way.
#[derive(Debug, Clone)]
struct InFlight {
    attempt: u64,
}

/// How often an effect failed, and when it may be tried again.
#[derive(Debug, Clone)]
struct Retry {
    failures: u32,
    not_before: Moment,
    failure: Failure,
}

impl Retry {
    fn next(before: Option<&Self>, failure: Failure, now: Moment) -> Self {
        let failures = before.map_or(0, |retry| retry.failures) + 1;
        let delay = Duration::from_millis(RETRY_MIN_MS.saturating_mul(1 << (failures - 1).min(20)).min(RETRY_MAX_MS));
        let delay = failure.retry_after.map_or(delay, |wanted| wanted.clamp(delay, RETRY_AFTER_MAX));
        Self { failures, not_before: now.after(delay), failure }
    }
}

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
    /// Tags that were accepted once keep their object for ever.
    pub pins: BTreeMap<TagName, ObjectId>,
    /// The highest version that was applied whole: nothing lower is chosen.
    pub floor: Option<semver::Version>,
}

/// Whether published files were changed by hand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Drift {
    /// As written.
    #[default]
    None,
    /// Something moved; not compared yet.
    Suspected,
    /// These paths differ.
    Found(Vec<String>),
}

/// What stands on disk for a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskFacts {
    /// What the host shows.
    pub shown: Option<PublicationId>,
    /// Where our link is.
    pub link: Option<String>,
    /// No link stood there when this supervisor began: an orderly end takes it away, and so may a reboot.
    pub unlinked: bool,
    /// Publications on disk, newest first.
    pub copies: Vec<PublicationId>,
    /// How many the last clean-up left.
    pub kept: usize,
    /// Whether hand edits were found.
    pub drift: Drift,
    /// When a hand edit was last found and put back.
    pub mended: Option<(Timestamp, Vec<String>)>,
}

/// A finished staging.
#[derive(Debug, Clone, PartialEq)]
pub struct Staged {
    /// What it was made from.
    pub inputs: Digest,
    /// Which revision that was, and the first tag with it.
    pub first: FirstTag,
    /// What it made.
    pub prepared: Prepared,
    /// Digest of the prepared launch, worked out once: it is compared on every turn.
    pub launch: Option<Digest>,
}

/// What was prepared before another revision was: its hooks are asked before that one comes.
#[derive(Debug, Clone, PartialEq)]
pub struct Before {
    /// Which revision.
    pub revision: Digest,
    /// The first tag with it.
    pub tag: TagName,
    /// Its hooks.
    pub hooks: BTreeMap<HookKind, Arc<HookModule>>,
}

/// What is known of a group's health.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HealthFacts {
    /// The last answer and when.
    pub last: Option<(CheckResult, Timestamp)>,
    /// Of which process.
    pub incarnation: u64,
    /// How many checks that process has had.
    pub checks: u64,
    /// When the last check of that process ended.
    pub checked: Moment,
    /// Whether the check at a random point of the interval was made.
    pub splayed: bool,
    /// Critical answers in a row, counted once ready.
    pub criticals: u32,
    /// Whether that process has ever been ok.
    pub passed: bool,
}

/// What is known of one group.
#[derive(Debug, Clone, Default)]
pub struct GroupFacts {
    /// The newest finished staging.
    pub staged: Option<Staged>,
    /// The revision before that.
    pub before: Option<Before>,
    /// Files.
    pub disk: DiskFacts,
    /// The process.
    pub service: Option<ServiceReport>,
    /// Since when this process is there, by the planning clock.
    pub started: Moment,
    /// It is a container, by what was reported last.
    pub in_container: bool,
    /// An operator asked for a restart.
    pub restart_asked: bool,
    /// Health.
    pub health: HealthFacts,
    /// Other hooks.
    pub hooks: HookFacts,
}

impl GroupFacts {
    /// The process is up and ready.
    pub fn is_running(&self) -> bool {
        self.service.as_ref().is_some_and(|report| matches!(report.state, ServiceState::Running | ServiceState::Reloading))
    }
}

/// All that is known.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The remote.
    pub source: SourceFacts,
    /// Groups, those that are to go included.
    pub groups: BTreeMap<GroupName, GroupFacts>,
    /// Whether the keeper has told of everything it runs.
    pub keeper_ready: bool,
    /// Minor version of the keeper's protocol: what it understands of a policy.
    pub keeper_minor: u64,
    /// What is known of the container engine.
    pub engine: super::Engine,
    in_flight: BTreeMap<Key, InFlight>,
    retries: BTreeMap<Key, Retry>,
    attempts: u64,
}

impl Observed {
    /// Whether an action for the key is under way.
    pub fn is_busy(&self, key: &Key) -> bool {
        self.in_flight.contains_key(key)
    }

    /// Keys with an action under way.
    pub fn busy(&self) -> impl Iterator<Item = &Key> {
        self.in_flight.keys()
    }

    /// When a key may be worked on again after a failure.
    pub fn not_before(&self, key: &Key) -> Option<Moment> {
        self.retries.get(key).map(|retry| retry.not_before)
    }

    /// The last failure of a key that has not worked since.
    pub fn failure(&self, key: &Key) -> Option<&Failure> {
        self.retries.get(key).map(|retry| &retry.failure)
    }

    /// How often a key has failed since it last worked.
    pub fn failures(&self, key: &Key) -> u32 {
        self.retries.get(key).map_or(0, |retry| retry.failures)
    }

    /// Notes that an action is under way and names the attempt that its answer must carry.
    pub fn begin(&mut self, key: &Key, action: &Action) -> u64 {
        self.attempts += 1;
        self.in_flight.insert(key.clone(), InFlight { attempt: self.attempts });
        match (key, action) {
            (Key::Group(name, _), Action::Run { .. }) => self.group(name).restart_asked = false,
            // Nothing may count on files that are being taken away, should the group be wanted again meanwhile.
            (Key::Group(name, _), Action::Withdraw { .. }) => {
                let facts = self.group(name);
                facts.staged = None;
                facts.disk.shown = None;
            }
            _ => {}
        }
        self.attempts
    }

    /// Takes in one event. Answers to attempts that are no longer under way are dropped.
    pub fn observe(&mut self, event: Event, selection: &Selection, poll: Duration, now: Now) {
        match event {
            Event::Done { key, attempt, outcome } => {
                if self.in_flight.get(&key).is_some_and(|flight| flight.attempt == attempt) {
                    self.in_flight.remove(&key);
                    self.done(key, outcome, selection, poll, now);
                }
            }
            Event::Service(report) => {
                self.group(&report.group).in_container = false;
                self.service(*report, now);
            }
            Event::Container(report) => {
                self.group(&report.group).in_container = true;
                self.service(*report, now);
            }
            Event::Engine(engine) => self.engine = engine,
            Event::ServiceGone(group) => {
                if let Some(facts) = self.groups.get_mut(&group) {
                    facts.service = None;
                    facts.health = HealthFacts::default();
                    // Its next process is counted anew.
                    facts.hooks.owed.post_run = None;
                    facts.hooks.calls.clear();
                }
            }
            Event::KeeperSpeaks(minor) => self.keeper_minor = minor,
            Event::KeeperReady => self.keeper_ready = true,
            Event::KeeperLost => self.keeper_ready = false,
            Event::LookNow => {
                self.source.next_poll = now.moment;
                self.retries.remove(&Key::Source);
            }
            Event::DriftHint(group) => {
                let drift = &mut self.group(&group).disk.drift;
                if *drift == Drift::None {
                    *drift = Drift::Suspected;
                }
            }
            Event::LayersHint(_) => {}
            Event::LayersChanged { group, .. } => {
                // What was refused for a missing name may have it now.
                let stands = |verdict: &Verdict| !matches!(verdict, Verdict::Refused(refusal) if refusal.reason == Reason::InvalidConfiguration);
                self.source.verdicts.retain(|_, verdict| stands(verdict));
                self.retries.remove(&Key::Group(group, Lane::Publication));
            }
            Event::Suspended { group, .. } => {
                // What was prepared for a start is too old for one that comes after a hold.
                self.group(&group).hooks.calls.remove(&HookKind::Init);
                self.retries.remove(&Key::Group(group.clone(), Lane::Hook(HookKind::Init)));
                self.retries.remove(&Key::Group(group, Lane::Service));
            }
            Event::RestartAsked(group) => {
                self.retries.remove(&Key::Group(group.clone(), Lane::Hook(HookKind::Init)));
                self.group(&group).restart_asked = true;
            }
        }
    }

    fn group(&mut self, name: &GroupName) -> &mut GroupFacts {
        self.groups.entry(name.clone()).or_default()
    }

    fn done(&mut self, key: Key, outcome: Outcome, selection: &Selection, poll: Duration, now: Now) {
        if let Outcome::Failed(failure) = outcome {
            self.failed(key, failure, now.moment);
            return;
        }
        self.retries.remove(&key);
        match (key, outcome) {
            (_, Outcome::Listed(result)) => self.listed(result, selection, poll, now),
            (_, Outcome::Examined { tag, result }) => self.examined(&tag, result, now),
            (_, Outcome::Accepted { release, .. }) => {
                let tag = RemoteTag { name: release.tag.clone(), object: release.tag_object };
                self.source.pins.insert(tag.name.clone(), tag.object);
                self.source.accepted = Some(Accepted { tag, accepted_at: now.wall, applied_at: None });
                self.retries.retain(|key, _| !matches!(key, Key::Group(..)));
            }
            (_, Outcome::Applied { tag }) => {
                if let Some(accepted) = self.source.accepted.as_mut().filter(|accepted| accepted.tag == tag) {
                    accepted.applied_at = Some(now.wall);
                }
                let version = super::desired::version_of(selection, &tag.name);
                self.source.floor = version.into_iter().chain(self.source.floor.take()).max();
            }
            (Key::Group(name, _), outcome) => self.group_done(&name, outcome, now),
            (Key::Source | Key::Record, _) => {}
        }
    }

    fn failed(&mut self, key: Key, failure: Failure, now: Moment) {
        let retry = Retry::next(self.retries.get(&key), failure, now);
        self.retries.insert(key, retry);
    }

    fn listed(&mut self, result: Result<Vec<RemoteTag>, Refusal>, selection: &Selection, poll: Duration, now: Now) {
        let source = &mut self.source;
        match result {
            Ok(tags) => {
                let candidates = candidates(&tags, selection);
                source.refuse_moved(&candidates);
                source.candidates = Some(candidates);
                source.misnamed = misnamed(&tags, selection);
                source.tags = tags.len();
                source.listed_at = Some(now);
                source.trouble = None;
                source.next_poll = now.moment.after(poll);
            }
            Err(refusal) => {
                let failure = Failure::new(refusal.reason, refusal.message.clone());
                let retry = Retry::next(self.retries.get(&Key::Source), failure, now.moment);
                source.next_poll = now.moment.after(poll).min(retry.not_before);
                source.trouble = Some(refusal);
            }
        }
    }

    fn examined(&mut self, tag: &RemoteTag, result: Result<Arc<Release>, Refusal>, now: Now) {
        let key = tag_key(tag);
        let source = &mut self.source;
        match result {
            Ok(release) => {
                source.postponed.remove(&key);
                source.verdicts.insert(key, Verdict::Accepted);
                source.examined = Some(release);
            }
            Err(refusal) if !is_lasting(refusal.reason) => {
                let tries = source.postponed.get(&key).map_or(0, |(_, tries, _)| *tries) + 1;
                let delay = RETRY_MIN_MS.saturating_mul(1 << tries.min(20)).min(RETRY_MAX_MS);
                source.postponed.insert(key, (now.moment.after(Duration::from_millis(delay)), tries, refusal));
            }
            Err(refusal) => {
                source.postponed.remove(&key);
                source.verdicts.insert(key, Verdict::Refused(refusal));
            }
        }
    }

    fn group_done(&mut self, name: &GroupName, outcome: Outcome, now: Now) {
        let facts = self.group(name);
        match outcome {
            Outcome::Staged { inputs, first, result: Ok(prepared) } => {
                facts.disk.copies.clone_from(&prepared.copies);
                let launch = prepared.launch.as_ref().map(crate::model::Launch::digest);
                let revision = first.revision;
                let before = facts.staged.replace(Staged { inputs, first, prepared: *prepared, launch });
                if let Some(before) = before.filter(|before| before.first.revision != revision) {
                    let FirstTag { revision, tag, .. } = before.first;
                    facts.before = Some(Before { revision, tag, hooks: before.prepared.hooks });
                }
            }
            Outcome::Staged { result: Err(failure), .. } => {
                self.failed(Key::Group(name.clone(), Lane::Publication), failure, now.moment);
            }
            Outcome::Switched { publication, mount_path } => {
                facts.disk.shown = Some(publication);
                facts.disk.link = Some(mount_path);
                facts.disk.unlinked = false;
                if let Drift::Found(paths) = std::mem::take(&mut facts.disk.drift) {
                    facts.disk.mended = Some((now.wall, paths));
                }
            }
            Outcome::Verified { publication, drifted } if facts.disk.shown == Some(publication) => {
                facts.disk.drift = if drifted.is_empty() { Drift::None } else { Drift::Found(drifted) };
            }
            Outcome::Pruned(copies) => {
                facts.disk.kept = copies.len();
                facts.disk.copies = copies;
            }
            Outcome::Withdrawn => {
                facts.disk = DiskFacts::default();
                facts.staged = None;
                if facts.service.is_none() {
                    self.groups.remove(name);
                }
            }
            Outcome::Checked { incarnation, result } => facts.checked(incarnation, result, now),
            Outcome::Called { kind, occasion, answer, change } => {
                if let Some(change) = change {
                    facts.hooks.owed.apply(change);
                }
                facts.hooks.calls.insert(kind, Called { occasion, answer, at: now.wall });
            }
            Outcome::Owed(change) => facts.hooks.owed.apply(change),
            Outcome::Verified { .. }
            | Outcome::Asked
            | Outcome::Listed(_)
            | Outcome::Examined { .. }
            | Outcome::Accepted { .. }
            | Outcome::Applied { .. }
            | Outcome::Failed(_) => {}
        }
    }

    fn service(&mut self, report: ServiceReport, now: Now) {
        let facts = self.group(&report.group.clone());
        let same = facts.service.as_ref().is_some_and(|known| known.incarnation == report.incarnation);
        if !same {
            facts.started = now.moment;
        }
        if matches!(report.state, ServiceState::Stopped | ServiceState::Done | ServiceState::Failed) {
            // Numbers of processes are given anew where a keeper forgets one that is at rest.
            facts.hooks.owed.post_run = None;
        }
        facts.service = Some(report);
    }
}

impl SourceFacts {
    /// A tag that was accepted once and now names another object is never applied.
    fn refuse_moved(&mut self, candidates: &[Candidate]) {
        for tag in candidates.iter().map(|candidate| &candidate.tag) {
            let Some(pin) = self.pins.get(&tag.name).filter(|pin| **pin != tag.object) else { continue };
            let message = format!(
                "tag `{}` was accepted as {pin} and now names {}: the remote or somebody with push rights moved it; \
                 it is not applied; push a new tag name",
                tag.name, tag.object
            );
            let refusal = Refusal { reason: Reason::TagMoved, message };
            self.verdicts.insert(tag_key(tag), Verdict::Refused(refusal));
        }
    }
}

impl GroupFacts {
    fn checked(&mut self, incarnation: u64, result: CheckResult, now: Now) {
        let current = self.service.as_ref().map_or(0, |report| report.incarnation);
        if incarnation != current {
            return;
        }
        let ready = self.service.is_none() || self.is_running();
        let health = &mut self.health;
        if health.incarnation != incarnation {
            *health = HealthFacts { incarnation, ..HealthFacts::default() };
        }
        health.checks += 1;
        health.splayed |= ready && health.checks > 1;
        health.checked = now.moment;
        match result.status {
            HealthStatus::Ok | HealthStatus::Warning => {
                health.passed = true;
                health.criticals = 0;
            }
            HealthStatus::Critical if ready => health.criticals = health.criticals.saturating_add(1),
            HealthStatus::Critical | HealthStatus::Unknown => {}
        }
        health.last = Some((result, now.wall));
    }
}
