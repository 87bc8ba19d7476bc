//! What people and bad luck do to a host.

use tagfall::model::Suspension;
use tagfall::plan::Event;

use crate::host::Later;
use crate::world::World;

impl World {
    pub(crate) fn push(&mut self) {
        for _ in 0..1 + self.random.below(3) {
            self.draft.edit(&mut self.random);
        }
        let version = self.tags.len() as u64 + 1;
        let tag = self.draft.tag(version, &mut self.random);
        self.say(format_args!("push {} {}", tag.tag.name, if tag.content.is_ok() { "good" } else { "bad" }));
        self.tags.push(tag);
        if self.random.chance(80) {
            self.deliver(Event::LookNow);
        }
    }

    pub(crate) fn edit(&mut self) {
        let Some((group, disk)) = self.host.disks.iter_mut().find(|(_, disk)| disk.shown.is_some()) else { return };
        disk.drifted = true;
        self.totals.drifts += 1;
        let group = group.clone();
        self.say(format_args!("{group} edited by hand"));
        self.deliver(Event::DriftHint(group));
    }

    pub(crate) fn kill(&mut self) {
        let groups: Vec<_> = self
            .host
            .procs
            .iter()
            .filter(|(_, proc)| proc.pid.is_some())
            .map(|(name, proc)| (name.clone(), proc.incarnation))
            .collect();
        if groups.is_empty() {
            return;
        }
        let (group, incarnation) = groups[self.random.below(groups.len() as u64) as usize].clone();
        self.later(&Later::Exit { group, incarnation });
    }

    pub(crate) fn operator(&mut self) {
        let groups: Vec<_> = self.host.procs.keys().cloned().collect();
        if groups.is_empty() || self.core.is_none() {
            return;
        }
        let group = groups[self.random.below(groups.len() as u64) as usize].clone();
        let now = self.now();
        let hold =
            Suspension { who: "sim".to_owned(), reason: "maintenance".to_owned(), since: now.wall, until: None, revision: None };
        let suspension = if self.random.chance(50) { Some(hold) } else { None };
        match &suspension {
            Some(hold) => self.host.record.suspended.insert(group.clone(), hold.clone()),
            None => self.host.record.suspended.remove(&group),
        };
        self.say(format_args!("operator: {group} {}", if suspension.is_some() { "stop" } else { "start" }));
        self.deliver(Event::Suspended { group, suspension });
    }
}
