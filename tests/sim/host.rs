//! The virtual host: disk, durable record and keeper. This is the truth; the supervisor only ever hears of it.

use std::collections::{BTreeMap, BTreeSet};

use tagfall::model::{
    Digest, Exit, GroupName, HookKind, MountMode, PublicationId, ServiceKind, ServiceReport, ServiceSpec, ServiceState, Signal,
    Timestamp, View,
};
use tagfall::plan::{Prepared, Remembered, Wanted};

use crate::hooks::Truth;

/// One group's files.
#[derive(Default, Clone)]
pub(crate) struct Disk {
    pub(crate) written: BTreeSet<PublicationId>,
    pub(crate) shown: Option<PublicationId>,
    pub(crate) link: Option<String>,
    pub(crate) drifted: bool,
}

/// One service as the keeper knows it.
#[derive(Clone)]
pub(crate) struct Proc {
    pub(crate) spec: ServiceSpec,
    pub(crate) state: ServiceState,
    pub(crate) pid: Option<u32>,
    pub(crate) incarnation: u64,
    pub(crate) restarts: u64,
    pub(crate) sees: Option<PublicationId>,
    /// What the live process was started with.
    pub(crate) launch: Digest,
    pub(crate) start_after_stop: bool,
    /// Forked, but not in its program yet.
    pub(crate) settling: bool,
    pub(crate) started_ms: u64,
    pub(crate) last_exit: Option<Exit>,
}

#[derive(Default)]
pub(crate) struct Host {
    pub(crate) disks: BTreeMap<GroupName, Disk>,
    pub(crate) procs: BTreeMap<GroupName, Proc>,
    pub(crate) record: Remembered,
    /// Live processes by group: the truth behind "never two".
    pub(crate) live: BTreeMap<GroupName, Vec<u32>>,
    /// The truth about hooks.
    pub(crate) hooks: BTreeMap<GroupName, Truth>,
    next_pid: u32,
    pub(crate) now_ms: u64,
}

/// What the keeper has to do later.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Later {
    Exit { group: GroupName, incarnation: u64 },
    Settle { group: GroupName, incarnation: u64 },
    Start { group: GroupName, incarnation: u64 },
}

pub(crate) fn content_of(wanted: &Wanted) -> Digest {
    Digest::of(format!("{} {}", wanted.group.name, wanted.group.config).as_bytes())
}

impl Host {
    /// Writes a publication. Half of a crash's mischief happens between this and the answer.
    pub(crate) fn stage(&mut self, wanted: &Wanted, fresh_copy: bool) -> Prepared {
        let disk = self.disks.entry(wanted.group.name.clone()).or_default();
        let content = content_of(wanted);
        let publication = wanted.group.mount.as_ref().map(|_| {
            let copies = disk.written.iter().filter(|id| id.content == content);
            let newest = copies.map(|id| id.copy).max();
            let copy = match newest {
                Some(copy) if fresh_copy => copy + 1,
                Some(copy) => copy,
                None => 0,
            };
            let id = PublicationId { content, copy };
            disk.written.insert(id);
            id
        });
        let launch = wanted.group.service.as_ref().map(|service| tagfall::model::Launch {
            argv: service.exec.clone(),
            working_dir: "/var".to_owned(),
            ..tagfall::model::Launch::default()
        });
        let check = wanted.group.hooks.get(&HookKind::HealthCheck).map(|hook| hook.check.clone());
        let copies = disk.written.iter().rev().copied().collect();
        self.hooks.entry(wanted.group.name.clone()).or_default().staged(wanted);
        Prepared { publication, launch, check, hooks: crate::hooks::modules(wanted), copies, notices: Vec::new() }
    }

    pub(crate) fn switch(&mut self, group: &GroupName, publication: PublicationId, path: &str) {
        let disk = self.disks.entry(group.clone()).or_default();
        assert!(disk.written.contains(&publication), "{group}: switched to a publication that is not on disk");
        let other = disk.shown.map(|shown| shown.content) != Some(publication.content);
        disk.shown = Some(publication);
        disk.link = Some(path.to_owned());
        disk.drifted = false;
        if !self.procs.contains_key(group) {
            self.hooks.entry(group.clone()).or_default().shown(other);
        }
    }

    pub(crate) fn prune(&mut self, group: &GroupName, keep: u32, in_use: &[PublicationId]) -> Vec<PublicationId> {
        let disk = self.disks.entry(group.clone()).or_default();
        let old: Vec<PublicationId> = disk.written.iter().copied().filter(|id| !in_use.contains(id)).collect();
        let surplus = (old.len() + 1).saturating_sub(keep as usize);
        for id in old.into_iter().take(surplus) {
            disk.written.remove(&id);
        }
        disk.written.iter().rev().copied().collect()
    }

    pub(crate) fn report(&self, group: &GroupName, now: u64) -> Option<ServiceReport> {
        let proc = self.procs.get(group)?;
        Some(ServiceReport {
            group: group.clone(),
            state: proc.state,
            pid: proc.pid,
            incarnation: proc.incarnation,
            restarts: proc.restarts,
            since: Timestamp(now),
            next_try: None,
            launch: proc.launch,
            policy: proc.spec.policy.clone(),
            revision: proc.spec.revision,
            publication: proc.sees,
            mount_mode: MountMode::Namespace,
            last_exit: proc.last_exit,
            message: String::new(),
            start_extended: None,
            logs: tagfall::model::LogLosses::default(),
        })
    }

    /// `Run`: starts, or replaces what runs. Returns what must happen later.
    pub(crate) fn run(&mut self, spec: &ServiceSpec, restart: bool) -> Option<Later> {
        let group = spec.group.clone();
        let Some(proc) = self.procs.get_mut(&group) else {
            let proc = Proc {
                spec: spec.clone(),
                state: ServiceState::Waiting,
                pid: None,
                incarnation: 0,
                restarts: 0,
                sees: None,
                launch: spec.launch.digest(),
                start_after_stop: false,
                settling: false,
                started_ms: 0,
                last_exit: None,
            };
            self.procs.insert(group.clone(), proc);
            return self.start(&group);
        };
        let other = proc.launch != spec.launch.digest();
        proc.spec = spec.clone();
        match proc.state {
            ServiceState::Stopping => {
                proc.start_after_stop = true;
                None
            }
            ServiceState::Starting | ServiceState::Running if other || restart => {
                proc.state = ServiceState::Stopping;
                proc.start_after_stop = true;
                Some(Later::Exit { group, incarnation: proc.incarnation })
            }
            ServiceState::Starting | ServiceState::Running => None,
            ServiceState::Waiting
            | ServiceState::Reloading
            | ServiceState::Stopped
            | ServiceState::Backoff
            | ServiceState::Done
            | ServiceState::Failed
            | ServiceState::Stuck
            | ServiceState::Unknown => self.start(&group),
        }
    }

    pub(crate) fn start(&mut self, group: &GroupName) -> Option<Later> {
        let proc = self.procs.get_mut(group)?;
        self.next_pid += 1;
        proc.pid = Some(self.next_pid);
        proc.incarnation += 1;
        proc.launch = proc.spec.launch.digest();
        proc.sees = proc.spec.view.as_ref().map(|view| view.publication);
        proc.start_after_stop = false;
        proc.settling = true;
        proc.started_ms = self.now_ms;
        proc.state = ServiceState::Starting;
        let live = self.live.entry(group.clone()).or_default();
        live.push(self.next_pid);
        assert!(live.len() == 1, "{group}: two live copies");
        if let Some(seen) = proc.sees {
            let disk = self.disks.get(group).map(|disk| disk.written.contains(&seen));
            assert_eq!(disk, Some(true), "{group}: started on a publication that is not on disk");
        }
        let (incarnation, asked) = (proc.incarnation, proc.spec.policy.starts_when_asked);
        self.hooks.entry(group.clone()).or_default().started(group, proc.spec.revision, asked);
        Some(Later::Settle { group: group.clone(), incarnation })
    }

    /// The process is in its program.
    pub(crate) fn settle(&mut self, group: &GroupName, incarnation: u64) -> Option<Later> {
        let proc = self.procs.get_mut(group).filter(|proc| proc.incarnation == incarnation && proc.settling)?;
        proc.settling = false;
        if proc.state == ServiceState::Starting && proc.spec.policy.ready_when_started {
            proc.state = ServiceState::Running;
        }
        (proc.spec.policy.kind == ServiceKind::Task).then(|| Later::Exit { group: group.clone(), incarnation })
    }

    pub(crate) fn stop(&mut self, group: &GroupName) -> Option<Later> {
        let proc = self.procs.get_mut(group)?;
        proc.start_after_stop = false;
        match proc.state {
            ServiceState::Starting | ServiceState::Running => {
                proc.state = ServiceState::Stopping;
                Some(Later::Exit { group: group.clone(), incarnation: proc.incarnation })
            }
            ServiceState::Stopping => None,
            ServiceState::Waiting
            | ServiceState::Reloading
            | ServiceState::Stopped
            | ServiceState::Backoff
            | ServiceState::Done
            | ServiceState::Failed
            | ServiceState::Stuck
            | ServiceState::Unknown => {
                proc.state = ServiceState::Stopped;
                None
            }
        }
    }

    /// A process ends: because it was told to, or by itself.
    pub(crate) fn exit(&mut self, group: &GroupName, incarnation: u64) -> Option<Later> {
        let proc = self.procs.get_mut(group)?;
        if proc.incarnation != incarnation || proc.pid.is_none() {
            return None;
        }
        let pid = proc.pid.take();
        proc.settling = false;
        self.live.entry(group.clone()).or_default().retain(|live| Some(*live) != pid);
        let owed = self.record.owed.get(group).is_some_and(|owed| owed.post_stop.is_some());
        self.hooks.entry(group.clone()).or_default().ended(proc.spec.revision, owed);
        match proc.state {
            ServiceState::Stopping if proc.start_after_stop && proc.spec.policy.starts_when_asked => {
                proc.state = ServiceState::Waiting;
                proc.sees = None;
                None
            }
            ServiceState::Stopping if proc.start_after_stop => self.start(group),
            ServiceState::Stopping => {
                proc.state = ServiceState::Stopped;
                proc.sees = None;
                None
            }
            _ if proc.spec.policy.kind == ServiceKind::Task => {
                proc.state = ServiceState::Done;
                None
            }
            ServiceState::Waiting
            | ServiceState::Starting
            | ServiceState::Running
            | ServiceState::Reloading
            | ServiceState::Stopped
            | ServiceState::Backoff
            | ServiceState::Done
            | ServiceState::Failed
            | ServiceState::Stuck
            | ServiceState::Unknown => {
                proc.state = ServiceState::Backoff;
                proc.last_exit = Some(Exit::Signal(Signal::KILL));
                proc.restarts += 1;
                Some(Later::Start { group: group.clone(), incarnation })
            }
        }
    }

    pub(crate) fn backoff_over(&mut self, group: &GroupName, incarnation: u64) -> Option<Later> {
        let proc = self.procs.get_mut(group)?;
        if proc.state != ServiceState::Backoff || proc.incarnation != incarnation {
            return None;
        }
        if proc.spec.policy.starts_when_asked {
            proc.state = ServiceState::Waiting;
            return None;
        }
        self.start(group)
    }

    pub(crate) fn reload(&mut self, group: &GroupName, view: &View) {
        if let Some(proc) = self.procs.get_mut(group) {
            proc.spec.view = Some(view.clone());
            if proc.pid.is_some() {
                let other = proc.sees.map(|seen| seen.content) != Some(view.publication.content);
                proc.sees = Some(view.publication);
                self.hooks.entry(group.clone()).or_default().shown(other);
            }
        }
    }
}
