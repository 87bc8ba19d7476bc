//! The pure heart as one value: what is wanted, what is known, and the only ways to change either.
//!
//! The daemon's loop and the simulator both drive exactly this: [`Core::observe`] an event, [`Core::plan`], then
//! [`Core::begin`] every action of the plan and carry it out.

use std::collections::BTreeMap;

use crate::model::{GroupName, Now, OwedHooks, Refusal, RemoteTag};
use crate::release::{Verdict, is_lasting};

use super::{
    Accepted, Action, Census, Desired, DiskFacts, Event, FirstTag, Host, Key, Layers, Observed, Outcome, Plan, Suspension, plan,
};

/// What outlives a restart of the supervisor.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// The release driven towards.
    pub accepted: Option<Accepted>,
    /// Accepted tags and their objects.
    pub pins: BTreeMap<crate::model::TagName, crate::model::ObjectId>,
    /// Tags that were refused for good, by rules that still hold.
    pub refused: Vec<(RemoteTag, Refusal)>,
    /// The highest version applied whole.
    pub floor: Option<semver::Version>,
    /// First tags of revisions.
    pub first_tags: BTreeMap<GroupName, FirstTag>,
    /// Operators' holds.
    pub suspended: BTreeMap<GroupName, Suspension>,
    /// Layers above the release.
    pub layers: BTreeMap<GroupName, Layers>,
    /// What stands on disk.
    pub disk: BTreeMap<GroupName, DiskFacts>,
    /// What is owed to hooks.
    pub owed: BTreeMap<GroupName, OwedHooks>,
}

/// Desired and observed state, and what desired state is made of.
#[derive(Debug, Clone)]
pub struct Core {
    desired: Desired,
    observed: Observed,
    census: Census,
    layers: BTreeMap<GroupName, Layers>,
    suspended: BTreeMap<GroupName, Suspension>,
}

impl Core {
    /// A supervisor that has just started.
    pub fn new(host: Host, remembered: Remembered) -> Self {
        let mut observed = Observed::default();
        observed.source.accepted = remembered.accepted;
        observed.source.pins = remembered.pins;
        observed.source.floor = remembered.floor;
        for (tag, refusal) in remembered.refused.into_iter().filter(|(_, refusal)| is_lasting(refusal.reason)) {
            observed.source.verdicts.insert((tag.name, tag.object), Verdict::Refused(refusal));
        }
        for (name, disk) in remembered.disk {
            observed.groups.entry(name).or_default().disk = disk;
        }
        for (name, owed) in remembered.owed {
            observed.groups.entry(name).or_default().hooks.owed = owed;
        }
        let mut desired = Desired::new(host);
        desired.first_tags = remembered.first_tags;
        let census = Census::default();
        Self { desired, observed, census, layers: remembered.layers, suspended: remembered.suspended }
    }

    /// What is wanted.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What is known.
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Operators' holds.
    pub fn suspended(&self) -> &BTreeMap<GroupName, Suspension> {
        &self.suspended
    }

    /// Decides.
    pub fn plan(&self, now: Now) -> Plan {
        plan(&self.desired, &self.observed, &self.census, now.moment)
    }

    /// Notes an action as under way; its answer must carry the number that is returned.
    pub fn begin(&mut self, key: &Key, action: &Action) -> u64 {
        self.observed.begin(key, action)
    }

    /// Takes in one event, and works out anew what is wanted where the event bears on it.
    pub fn observe(&mut self, event: Event, now: Now) {
        let mut first_tags = None;
        match &event {
            Event::Done { outcome: Outcome::Accepted { first_tags: recorded, .. }, .. } => first_tags = Some(recorded.clone()),
            Event::LayersChanged { group, layers } => {
                self.layers.insert(group.clone(), layers.clone());
            }
            Event::Suspended { group, suspension: Some(hold) } => {
                self.suspended.insert(group.clone(), hold.clone());
            }
            Event::Suspended { group, suspension: None } => {
                self.suspended.remove(group);
            }
            Event::Done { .. }
            | Event::Service(_)
            | Event::Container(_)
            | Event::Engine(_)
            | Event::ServiceGone(_)
            | Event::KeeperSpeaks(_)
            | Event::KeeperReady
            | Event::KeeperLost
            | Event::LookNow
            | Event::DriftHint(_)
            | Event::LayersHint(_)
            | Event::RestartAsked(_) => {}
        }
        let redo = first_tags.is_some() || matches!(&event, Event::LayersChanged { .. } | Event::Suspended { .. });
        let host = &self.desired.host;
        self.observed.observe(event, &host.selection, host.poll, now);
        self.settle(first_tags, redo);
    }

    /// The accepted release becomes what is wanted once its content is in memory.
    fn settle(&mut self, first_tags: Option<BTreeMap<GroupName, FirstTag>>, redo: bool) {
        let source = &self.observed.source;
        let accepted = source.accepted.as_ref().map(|accepted| accepted.tag.object);
        let examined = source.examined.as_ref().filter(|release| Some(release.tag_object) == accepted);
        let held = self.desired.release.as_ref().map(|release| release.tag_object);
        let release = match examined {
            Some(release) if held != accepted => Some(release.clone()),
            Some(_) | None if redo => self.desired.release.clone(),
            Some(_) | None => return,
        };
        let first_tags = first_tags.unwrap_or_else(|| self.desired.first_tags.clone());
        self.desired.set(release, &first_tags, &self.layers, &self.suspended);
    }
}
