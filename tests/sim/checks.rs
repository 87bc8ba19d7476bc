//! The invariants, checked against the world's own truth.

use crate::host::content_of;
use crate::world::{HEAL_AT_MS, START_TIMEOUT_MS, World};
use tagfall::model::ServiceState;

impl World {
    pub(crate) fn check_truth(&self) {
        for (group, disk) in &self.host.disks {
            if let Some(shown) = disk.shown {
                assert!(disk.written.contains(&shown), "{group}: what is shown was deleted");
            }
            if let Some(seen) = self.host.procs.get(group).filter(|proc| proc.pid.is_some()).and_then(|proc| proc.sees) {
                assert!(disk.written.contains(&seen), "{group}: what a process sees was deleted");
            }
        }
        if let (Some(accepted), Some(floor)) = (&self.host.record.accepted, &self.host.record.floor) {
            let version = self.tags.iter().find(|tag| tag.tag == accepted.tag).map(|tag| tag.version);
            assert!(version.is_some_and(|version| version >= floor.minor), "below the floor");
        }
    }

    /// A process is only replaced for a reason.
    pub(crate) fn check_restart(&mut self, spec: &tagfall::model::ServiceSpec, restart: bool) {
        let Some(proc) = self.host.procs.get(&spec.group).filter(|proc| proc.pid.is_some()) else { return };
        if !restart && proc.launch == spec.launch.digest() {
            return;
        }
        self.totals.restarts += 1;
        let wanted = spec.view.as_ref().map(|view| view.publication.content);
        let same_files = proc.sees.map(|seen| seen.content) == wanted;
        let same = proc.launch == spec.launch.digest() && same_files;
        // An operator's hold that was taken back, and a start that took too long, are reasons too.
        let late = proc.state == ServiceState::Starting && self.now_ms >= proc.started_ms + START_TIMEOUT_MS;
        let asked = self.host.hooks.get(&spec.group).is_some_and(|hooks| hooks.restart);
        assert!(!same || late || asked || proc.state == ServiceState::Stopping, "{}: restarted without a reason", spec.group);
    }

    /// The newest good tag is recorded, and the world is as it says.
    pub(crate) fn is_done(&self) -> bool {
        let Some(core) = &self.core else { return false };
        let converged = core.plan(self.now()).is_converged() && core.observed().busy().next().is_none();
        let newest = self.tags.iter().rev().find(|tag| tag.content.is_ok()).map(|tag| &tag.tag);
        let accepted = self.host.record.accepted.as_ref();
        let applied = accepted.is_some_and(|accepted| accepted.applied_at.is_some() && Some(&accepted.tag) == newest);
        let held = !core.suspended().is_empty() || newest.is_none();
        if converged && applied {
            self.check_applied();
        }
        (converged && applied) || (held && self.now_ms > HEAL_AT_MS + 120_000)
    }

    /// The truth is as the release says: nothing less and nothing more.
    pub(crate) fn check_applied(&self) {
        let Some(core) = &self.core else { return };
        let wanted = &core.desired().groups;
        for (name, wanted) in wanted {
            let disk = self.host.disks.get(name);
            if wanted.group.mount.is_some() {
                let shown = disk.and_then(|disk| disk.shown).map(|id| id.content);
                assert_eq!(shown, Some(content_of(wanted)), "{name}: converged, but other files are shown");
            }
            let told = self.host.hooks.get(name).is_none_or(crate::hooks::Truth::is_told);
            assert!(told || self.host.record.suspended.contains_key(name), "{name}: converged, but not told of its files");
            let Some(service) = &wanted.group.service else { continue };
            if self.host.record.suspended.contains_key(name) {
                continue;
            }
            let proc = self.host.procs.get(name).unwrap_or_else(|| panic!("{name}: converged, but nothing runs"));
            let up = matches!(proc.state, ServiceState::Running | ServiceState::Done | ServiceState::Backoff);
            assert!(up, "{name}: converged in state {:?}", proc.state);
            let argv = proc.spec.launch.argv.clone();
            assert_eq!(argv, service.exec, "{name}: converged, but another launch runs");
        }
        for (name, live) in &self.host.live {
            assert!(live.is_empty() || wanted.contains_key(name), "{name}: converged, but what is not wanted runs");
        }
    }
}
