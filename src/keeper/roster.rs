//! The services by name, and which of them something is due for: a turn of the loop costs what has changed, not what there is.
//!
//! What is due follows from the entries alone, by [`Due::of`]. Whoever gets an entry to change it marks it as touched by that, and
//! what is due for it is found anew before anybody asks. To add something that can be due: a [`Mark`], and its row there.

use std::collections::{BTreeMap, BTreeSet};

use super::services::Entry;
use crate::model::{GroupName, Moment};

/// What can be due for a service beside a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// The supervisor has not been told how it is.
    Unreported,
    /// The journal may have to tell something new of it.
    Unsaved,
    /// Only what its main process has left is waited for.
    Clearing,
    /// A process of it has not become the program yet.
    Spawning,
    /// Something of it runs or will, and waiting for its end makes sense.
    Restless,
}

const MARKS: usize = 5;

/// What is due for one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Due {
    at: Option<Moment>,
    marks: [bool; MARKS],
}

impl Due {
    fn of(entry: &Entry) -> Self {
        let service = &entry.service;
        let mut due = Self { at: service.deadline(), marks: [false; MARKS] };
        for (mark, is) in [
            (Mark::Unreported, entry.dirty),
            (Mark::Unsaved, entry.unsaved),
            (Mark::Clearing, service.clearing()),
            (Mark::Spawning, service.spawning()),
            (Mark::Restless, !service.at_rest() && !service.stuck()),
        ] {
            due.marks[mark as usize] = is;
        }
        due
    }
}

struct Slot {
    entry: Entry,
    /// As it is filed in the roster's sets.
    due: Due,
    touched: bool,
}

/// All services.
#[derive(Default)]
pub(super) struct Roster {
    slots: BTreeMap<GroupName, Slot>,
    touched: Vec<GroupName>,
    moments: BTreeSet<(Moment, GroupName)>,
    marked: [BTreeSet<GroupName>; MARKS],
}

impl Roster {
    pub(super) fn get(&self, group: &GroupName) -> Option<&Entry> {
        self.slots.get(group).map(|slot| &slot.entry)
    }

    /// To change it: what is due for it is found anew.
    pub(super) fn get_mut(&mut self, group: &GroupName) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(group)?;
        if !std::mem::replace(&mut slot.touched, true) {
            self.touched.push(group.clone());
        }
        Some(&mut slot.entry)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn contains_key(&self, group: &GroupName) -> bool {
        self.slots.contains_key(group)
    }

    pub(super) fn insert(&mut self, group: GroupName, entry: Entry) {
        self.remove(&group);
        self.touched.push(group.clone());
        self.slots.insert(group, Slot { entry, due: Due::default(), touched: true });
    }

    pub(super) fn remove(&mut self, group: &GroupName) -> Option<Entry> {
        let slot = self.slots.remove(group)?;
        self.file(group, slot.due, Due::default());
        Some(slot.entry)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&GroupName, &Entry)> {
        self.slots.iter().map(|(group, slot)| (group, &slot.entry))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &GroupName> {
        self.slots.keys()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Entry> {
        self.slots.values().map(|slot| &slot.entry)
    }

    /// All of them, to change them: what is due for each is found anew.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&GroupName, &mut Entry)> {
        self.touched = self.slots.keys().cloned().collect();
        self.slots.iter_mut().map(|(group, slot)| {
            slot.touched = true;
            (group, &mut slot.entry)
        })
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.iter_mut().map(|(_, entry)| entry)
    }

    /// When time itself is the next event of any.
    pub(super) fn next_moment(&mut self) -> Option<Moment> {
        self.settle();
        self.moments.first().map(|(moment, _)| *moment)
    }

    /// For whom that time has come.
    pub(super) fn due_by(&mut self, now: Moment) -> Vec<GroupName> {
        self.settle();
        self.moments.iter().take_while(|(moment, _)| *moment <= now).map(|(_, group)| group.clone()).collect()
    }

    /// Who is marked so.
    pub(super) fn marked(&mut self, mark: Mark) -> Vec<GroupName> {
        self.settle();
        self.marked[mark as usize].iter().cloned().collect()
    }

    /// The first who is marked so.
    pub(super) fn first_marked(&mut self, mark: Mark) -> Option<GroupName> {
        self.settle();
        self.marked[mark as usize].first().cloned()
    }

    fn settle(&mut self) {
        while let Some(group) = self.touched.pop() {
            // One that was removed since is filed nowhere.
            let Some(slot) = self.slots.get_mut(&group) else { continue };
            slot.touched = false;
            let (before, after) = (slot.due, Due::of(&slot.entry));
            slot.due = after;
            self.file(&group, before, after);
        }
    }

    fn file(&mut self, group: &GroupName, before: Due, after: Due) {
        if before.at != after.at {
            if let Some(moment) = before.at {
                self.moments.remove(&(moment, group.clone()));
            }
            if let Some(moment) = after.at {
                self.moments.insert((moment, group.clone()));
            }
        }
        for (set, (was, is)) in self.marked.iter_mut().zip(before.marks.into_iter().zip(after.marks)) {
            match (was, is) {
                (true, false) => drop(set.remove(group)),
                (false, true) => drop(set.insert(group.clone())),
                (true, true) | (false, false) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::engine::now;
    use crate::keeper::state::{Context, Event, Service};
    use crate::model::{Backoff, Digest, Launch, Policy, Ready, ServiceKind, ServiceSpec, Signal};
    use std::time::Duration;

    const ALL: [Mark; MARKS] = [Mark::Unreported, Mark::Unsaved, Mark::Clearing, Mark::Spawning, Mark::Restless];

    fn spec(name: &str) -> ServiceSpec {
        let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(1), reset_after: Duration::from_secs(60) };
        ServiceSpec {
            group: name.parse().unwrap(),
            revision: Digest::of(b"1"),
            release: String::new(),
            launch: Launch::default(),
            policy: Policy {
                kind: ServiceKind::Daemon,
                stop_signal: Signal::TERM,
                stop_timeout: Duration::from_secs(8),
                backoff,
                ready_when_started: true,
                ready: Ready::Started,
                watchdog: None,
                logs: crate::model::LogPolicy::default(),
                starts_when_asked: false,
            },
            view: None,
        }
    }

    /// What is filed is what follows from looking at all.
    fn check(roster: &mut Roster) {
        roster.settle();
        let all: Vec<(GroupName, Due)> = roster.iter().map(|(group, entry)| (group.clone(), Due::of(entry))).collect();
        let moments: BTreeSet<_> = all.iter().filter_map(|(group, due)| Some((due.at?, group.clone()))).collect();
        assert_eq!(roster.moments, moments);
        for mark in ALL {
            let marked: Vec<_> = all.iter().filter(|(_, due)| due.marks[mark as usize]).map(|(group, _)| group.clone()).collect();
            assert_eq!(roster.marked(mark), marked, "{mark:?}");
            assert_eq!(roster.first_marked(mark).as_ref(), marked.first(), "{mark:?}");
        }
    }

    #[test]
    fn what_is_due_is_what_follows_from_looking_at_all() {
        let mut roster = Roster::default();
        let context = Context { now: now(), roll: 0 };
        let names: Vec<GroupName> = ["a", "b", "c"].iter().map(|name| name.parse().unwrap()).collect();
        for name in &names {
            let spec = spec(name.service());
            roster.insert(name.clone(), Entry::left_behind(Service::new(spec, None, 0, now()), marks(name)));
            check(&mut roster);
        }
        let events = [
            Event::Run(Box::new(spec("a"))),
            Event::SpawnFailed { why: "no".to_owned() },
            Event::Run(Box::new(spec("a"))),
            Event::Restart,
            Event::Spawned { pid: 7 },
            Event::Stop,
            Event::Exited(crate::model::Exit::Code(0)),
            Event::Cleared,
        ];
        for event in events {
            roster.get_mut(&names[0]).unwrap().service.on(event.clone(), context);
            check(&mut roster);
            if let Some(moment) = roster.next_moment() {
                assert_eq!(roster.due_by(moment), [names[0].clone()], "{event:?}");
                assert!(roster.due_by(Moment(moment.0 - 1)).is_empty());
            }
        }
        for entry in roster.values_mut() {
            (entry.dirty, entry.unsaved) = (false, false);
        }
        check(&mut roster);
        assert_eq!(roster.first_marked(Mark::Unreported), None);
        roster.get_mut(&names[1]).unwrap().service.on(Event::Restart, context);
        roster.remove(&names[1]);
        check(&mut roster);
        roster.insert(names[0].clone(), Entry::left_behind(Service::new(spec("a"), None, 0, now()), marks(&names[0])));
        check(&mut roster);
        assert_eq!((roster.keys().count(), roster.contains_key(&names[1])), (2, false));
    }

    fn marks(group: &GroupName) -> crate::keeper::proc::Marks {
        crate::keeper::services::marks_without_process(group)
    }
}
