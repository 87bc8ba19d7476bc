//! The invariants, held against what there really is.

use super::kernel::Proc;
use super::world::World;
use crate::model::{GroupName, ServiceKind, ServiceState};

/// Whether the keeper has the means to find it: where there is no cgroup, one that has given up its lock may be lost.
fn can_be_found(proc: &Proc) -> bool {
    proc.grouped || proc.locks
}

impl World {
    pub(super) fn check(&self) {
        let seed = self.seed;
        assert!(self.kernel.wrongs.is_empty(), "seed {seed}: {:?}", self.kernel.wrongs);
        for group in self.wanted.keys() {
            let mains = self.mains(group);
            assert!(mains.len() < 2, "seed {seed}: {group} lives twice: {mains:?}");
            let Some(held) = self.keeper.services.get(group).filter(|_| self.kernel.keeper_lives()) else { continue };
            if held.service.expects_nobody() {
                // Of one whose records were lost, a start finds in its cgroup what the lock does not tell of.
                let lost = self.hurt.contains(group);
                let found = |proc: &Proc| if lost { proc.locks } else { can_be_found(proc) };
                let live = |proc: &Proc| proc.lives() && proc.is_of(group) && found(proc);
                let left = self.kernel.procs.iter().find(|(_, proc)| live(proc));
                assert!(left.is_none(), "seed {seed}: {group} is said to be at rest, and {left:?} lives");
            }
        }
    }

    /// The live main processes of a service, but for those that nothing can tell of any more: without a cgroup and a lock, the
    /// records alone know of them, and these were lost.
    fn mains(&self, group: &GroupName) -> Vec<u32> {
        let mut mains = self.kernel.mains(group);
        let lost = self.hurt.contains(group);
        let held = self.keeper.services.get(group).and_then(|held| held.service.pid());
        mains.retain(|pid| !lost || held == Some(*pid) || self.kernel.procs.get(pid).is_some_and(can_be_found));
        mains
    }

    /// A process has become the program: nothing of an earlier start may be there.
    pub(super) fn check_alone(&self, group: &GroupName, incarnation: u64, pid: u32) {
        let earlier = |proc: &Proc| {
            let of = proc.of.as_ref().is_some_and(|(of, start)| of == group && *start != incarnation);
            of && proc.lives() && can_be_found(proc)
        };
        let found = self.kernel.procs.iter().find(|(other, proc)| **other != pid && earlier(proc));
        assert!(found.is_none(), "seed {}: {group} is started beside {found:?}", self.seed);
    }

    /// What is wanted runs once, as it is wanted, and nothing else does.
    pub(super) fn is_done(&self) -> bool {
        self.kernel.keeper_lives() && self.wanted.keys().all(|group| self.is_right(group))
    }

    fn is_right(&self, group: &GroupName) -> bool {
        let mains = self.mains(group);
        let held = self.keeper.services.get(group);
        let Some(spec) = self.wanted.get(group).and_then(Option::as_ref) else {
            let live = |proc: &Proc| proc.lives() && proc.is_of(group) && can_be_found(proc);
            // Of one whose records were lost, nobody but its lock knows any more, and nobody asks for it.
            return held.is_none() && (self.hurt.contains(group) || !self.kernel.procs.values().any(live));
        };
        let Some(held) = held else { return false };
        let state = held.service.state();
        if spec.policy.kind == ServiceKind::Task && state == ServiceState::Done {
            return true;
        }
        let launch = |pid: &u32| self.kernel.procs.get(pid).and_then(|proc| proc.launch);
        let stale = self.is_stale(group, held.service.pid());
        matches!(state, ServiceState::Running | ServiceState::Reloading)
            && (mains.len() == 1 || mains.is_empty() && stale)
            && mains.iter().all(|pid| launch(pid) == Some(spec.launch.digest()))
            && (held.service.pid() == mains.first().copied() || stale)
    }

    /// The newest record was lost, which named another process of the service as its main one.
    fn is_stale(&self, group: &GroupName, pid: Option<u32>) -> bool {
        let proc = pid.and_then(|pid| self.kernel.procs.get(&pid));
        self.hurt.contains(group) && proc.is_some_and(|proc| proc.lives() && proc.is_of(group))
    }

    pub(super) fn complain(&self) -> ! {
        let wrong: Vec<_> = self.wanted.keys().filter(|group| !self.is_right(group)).collect();
        let belief: Vec<_> = self.keeper.services.iter().map(|(group, held)| (group, held.service.phase)).collect();
        let of: Vec<_> = self.kernel.procs.iter().filter(|(_, proc)| proc.of.is_some()).collect();
        panic!("seed {}: not as wanted long after all faults: {wrong:?}; believed {belief:?}; there are {of:#?}", self.seed);
    }
}
