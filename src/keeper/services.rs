//! Carrying out what the state table says, and telling it what came of it.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::process::{PidfdFlags, pidfd_open};

use super::adopt::Found;
use super::engine::{Engine, Owner, now, say};
use super::hold;
use super::journal::Record;
use super::leftovers::{self, Remains};
use super::listen::Held;
use super::log::Output;
use super::mounts;
use super::notify::Voice;
use super::outputs::OutputTokens;
use super::poller::{Source, Token};
use super::proc::{self, Marks};
use super::reserve::lasting;
use super::roster::Mark;
use super::spawn::{FIRST_HANDED_FD, Failure, Handed, Order, Plan, READY_FD_ENV, prepare};
use super::state::{Action, Event, Service};
use crate::model::{Exit, GroupName, LogStream, MountMode, PublicationId, ServiceSpec, Signal, View};
use crate::sys::process::pidfd_signal;

/// A main process, as long as it is not waited for.
pub(super) struct Process {
    pub(super) pidfd: OwnedFd,
    pub(super) record: Record,
    /// On which it reports a failed step, until it has become the program.
    status: Option<(OwnedFd, Token)>,
    what: String,
    notes: Vec<String>,
    view: Option<PublicationId>,
    pub(super) namespace: bool,
    /// Registration of a process that is not our child.
    pub(super) foreign: Option<Token>,
}

/// A service and what belongs to it.
pub(super) struct Entry {
    pub(super) service: Service,
    pub(super) process: Option<Process>,
    pub(super) marks: Option<Marks>,
    /// Whether what is left of it descends from an earlier keeper, not from this one; then, the start of its main process.
    was_foreign: Option<u64>,
    pub(super) output: Option<Output>,
    pub(super) output_tokens: OutputTokens,
    /// Something has changed since the last report.
    pub(super) dirty: bool,
    /// Something has changed that the journal may have to tell.
    pub(super) unsaved: bool,
    pub(super) show_failed: Option<String>,
    /// Why it goes without a mount namespace although there are rights to make one.
    without_namespace: Option<String>,
    /// Where it says that it is ready.
    pub(super) voice: Option<Voice>,
    /// Held for it over its restarts.
    pub(super) sockets: Vec<Held>,
}

impl Entry {
    fn new(service: Service) -> Self {
        Self {
            service,
            process: None,
            marks: None,
            was_foreign: None,
            output: None,
            output_tokens: OutputTokens::default(),
            dirty: true,
            unsaved: true,
            show_failed: None,
            without_namespace: None,
            voice: None,
            sockets: Vec::new(),
        }
    }

    /// A service whose process of an earlier keeper lives, in a mount namespace of its own where that is named.
    pub(super) fn adopted(service: Service, found: Found, namespace: Option<String>) -> Self {
        let Found { record, pidfd, token } = found;
        let variable = variable(&service.spec.group);
        let marks = Marks { session: Some(record.pid), namespace: namespace.clone(), variable };
        let was_foreign = token.is_some().then_some(record.started);
        let process = Process {
            pidfd,
            record,
            status: None,
            what: String::new(),
            notes: Vec::new(),
            view: None,
            namespace: namespace.is_some(),
            foreign: token,
        };
        Self { process: Some(process), marks: Some(marks), was_foreign, ..Self::new(service) }
    }

    /// A service without a live process; of what an earlier keeper may have left of it, only cgroup and lock tell.
    pub(super) fn left_behind(service: Service, marks: Marks) -> Self {
        Self { marks: Some(marks), ..Self::new(service) }
    }

    /// Who its main process is.
    pub(super) fn held(&self) -> Option<(&OwnedFd, &Record)> {
        self.process.as_ref().map(|process| (&process.pidfd, &process.record))
    }

    /// Its output, for whoever goes on with it.
    pub(super) fn output(&mut self) -> Option<&mut Output> {
        self.output.as_mut()
    }
}

impl Engine {
    /// Adds a service that is not known yet.
    pub(super) fn add_service(&mut self, spec: &ServiceSpec) {
        let group = spec.group.clone();
        let entry = match self.find_by_lock(spec, 0) {
            Some(entry) => entry,
            None => {
                let service = Service::new(spec.clone(), self.done.remove(&group), 0, now());
                Entry::left_behind(service, marks_without_process(&group))
            }
        };
        self.services.insert(group, entry);
    }

    /// Gives a service an event, and carries out what follows until nothing does.
    pub(super) fn feed(&mut self, group: &GroupName, event: Event) {
        self.journal_due = true;
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let context = self.context();
            let Some(entry) = self.services.get_mut(group) else { return };
            (entry.dirty, entry.unsaved) = (true, true);
            for action in entry.service.on(event, context) {
                events.extend(self.carry_out(group, action));
            }
            if self.services.get(group).is_some_and(|entry| entry.service.at_rest()) {
                self.cgroups.remove(group);
            }
        }
        self.set_output_rules(group);
        self.close_unused(group);
    }

    fn carry_out(&mut self, group: &GroupName, action: Action) -> Option<Event> {
        match action {
            // Nothing of ours is left when it comes to a start: only what an earlier keeper could not tell of.
            Action::Spawn if self.cgroups.kill(group) => Some(Event::InTheWay {
                why: "something of an earlier keeper's was still in its cgroup, and is killed first".to_owned(),
            }),
            Action::Spawn => {
                self.write_intent(group);
                Some(match self.spawn(group) {
                    Ok(pid) => Event::Spawned { pid },
                    Err(why) => Event::SpawnFailed { why },
                })
            }
            Action::Signal(signal) => {
                if let Err(why) = self.signal(group, signal) {
                    say(&why);
                }
                None
            }
            Action::Clear => self.clear(group).then_some(Event::Cleared),
            Action::Show(view, signal) => Some(self.show(group, &view, signal)),
        }
    }

    /// Before a process is made: a keeper that dies before it has written down which leaves it to be looked for.
    fn write_intent(&mut self, group: &GroupName) {
        if let Some(entry) = self.services.get(group) {
            // Where this fails, so does the record that follows, and that says so.
            let _ = self.journal.write(&entry.service, None);
        }
    }

    fn spawn(&mut self, group: &GroupName) -> Result<u32, String> {
        let plan = self.plan_start(group)?;
        let spawned = plan.spawn(&self.one_thread)?;
        let pid = spawned.pid;
        self.children.insert(pid, Owner::Service(group.clone()));
        let Some(entry) = self.services.get_mut(group) else { return Err("it is no longer known".to_owned()) };
        let view = entry.service.spec.view.as_ref().map(|view| view.publication);
        // It is our child and not yet waited for, so the number means this process and no other.
        let pidfd = proc::pid_of(pid)
            .ok_or_else(|| "its process has no usable number".to_owned())
            .and_then(|id| pidfd_open(id, PidfdFlags::empty()).map_err(|error| format!("its process cannot be held: {error}")));
        let pidfd = match pidfd {
            Ok(pidfd) => lasting(pidfd),
            Err(why) => {
                abandon(pid);
                self.children.remove(&pid);
                return Err(why);
            }
        };
        let status = match self.poller.add(&spawned.status, Source::Status(group.clone())) {
            Ok(token) => Some((spawned.status, token)),
            Err(_) => None,
        };
        entry.marks = Some(Marks { session: Some(pid), namespace: None, variable: variable(group) });
        entry.was_foreign = None;
        let record = Record { pid, started: proc::stat(pid).map_or(0, |stat| stat.started) };
        let namespace = plan.has_namespace();
        let (what, notes) = (plan.what(), plan.notes);
        entry.process = Some(Process { pidfd, record, status, what, notes, view, namespace, foreign: None });
        Ok(pid)
    }

    fn plan_start(&mut self, group: &GroupName) -> Result<Plan, String> {
        self.open_output(group)?;
        let (mut fds, listen_env) = self.open_sockets(group)?;
        let means = self.open_voice(group)?;
        let Some(entry) = self.services.get(group) else { return Err("it is no longer known".to_owned()) };
        let Some(output) = &entry.output else { return Err("its output has no place to go".to_owned()) };
        let failed = |error: std::io::Error| format!("its output cannot be connected: {error}");
        let null =
            rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty());
        let stdio = [
            null.map_err(|error| failed(error.into()))?,
            output.service_end(LogStream::Stdout).map_err(failed)?,
            output.service_end(LogStream::Stderr).map_err(failed)?,
        ];
        let spec = &entry.service.spec;
        // Once more: a spec of an earlier keeper was checked by that one's lists.
        self.config.grants.check_spec(spec, &self.config.data_dir)?;
        let why_not = self.rights.namespaces.as_ref().err().or(entry.without_namespace.as_ref());
        let view = spec.view.as_ref().filter(|_| why_not.is_none());
        let mut env = own_variables(spec);
        let listening = !listen_env.is_empty();
        env.extend(listen_env.into_iter().chain(means.env));
        if let Some(pipe) = means.pipe {
            env.push((READY_FD_ENV.to_owned(), (FIRST_HANDED_FD + fds.len()).to_string()));
            fds.push(pipe);
        }
        let handed = Handed { fds, listening };
        let order =
            Order { launch: &spec.launch, env, view, beside: None, stdio, service: true, may_mount: why_not.is_none(), handed };
        let limit = self.config.grants.capability_limit();
        let mut plan = prepare(order, &self.rights, limit, &self.config.data_dir)?;
        let lock = hold::prepare(&self.config.data_dir, group).map_err(|error| format!("its lock cannot be made: {error}"))?;
        plan.lock = Some(lock);
        let (place, notes) = self.cgroups.place(group, &spec.launch.limits)?;
        plan.place = place;
        plan.notes.extend(notes);
        if let (Some(why), true) = (why_not, spec.view.is_some()) {
            plan.notes.push(format!("{why}, so it sees its publication through the host's link"));
        }
        Ok(plan)
    }

    /// A new process has become the program, or has said why not.
    pub(super) fn read_status(&mut self, group: &GroupName) {
        let Some(entry) = self.services.get_mut(group) else { return };
        let Some(process) = &mut entry.process else { return };
        let Some((pipe, token)) = &process.status else { return };
        let Ok(outcome) = Failure::read(pipe) else { return };
        self.poller.remove(pipe, *token);
        process.status = None;
        let event = match outcome {
            Some(failure) => {
                if failure.for_lack_of_mounts() {
                    entry.without_namespace = Some(failure.to_string());
                }
                let mut why = Plan::explain(&process.what, &failure);
                if failure.for_a_second_copy() {
                    let pids = hold::holders(&self.config.data_dir, group);
                    why.push_str(&format!(" (processes {:?})", pids.iter().map(|(pid, _)| *pid).collect::<Vec<_>>()));
                }
                Event::SpawnFailed { why }
            }
            None => {
                let mode = if process.namespace { MountMode::Namespace } else { MountMode::Symlink };
                if process.namespace
                    && let Some(marks) = &mut entry.marks
                {
                    marks.namespace = proc::mount_namespace(process.record.pid);
                }
                Event::Started { mode, publication: process.view, notes: process.notes.join("; ") }
            }
        };
        self.feed(group, event);
    }

    /// A main process was waited for.
    pub(super) fn service_ended(&mut self, group: &GroupName, exit: Exit) {
        // What it said last comes first, so that a program that ends at once has been started.
        self.read_status(group);
        self.forget_process(group);
        self.drain_output(group);
        let exit = self.cgroups.explained(group, exit);
        self.feed(group, Event::Exited(exit));
    }

    fn forget_process(&mut self, group: &GroupName) {
        let Some(process) = self.services.get_mut(group).and_then(|entry| entry.process.take()) else { return };
        if let Some(token) = process.foreign {
            self.poller.remove(&process.pidfd, token);
        }
        if let Some((pipe, token)) = process.status {
            self.poller.remove(&pipe, token);
        }
    }

    /// Sends a signal to the main process itself, never to a number.
    pub(super) fn signal(&mut self, group: &GroupName, signal: Signal) -> Result<(), String> {
        let process = self.services.get(group).and_then(|entry| entry.process.as_ref());
        let Some(process) = process else { return Err(format!("`{group}` has no process to send {signal} to")) };
        pidfd_signal(process.pidfd.as_fd(), signal.0)
            .map_err(|error| format!("{signal} cannot be sent to process {} of `{group}`: {error}", process.record.pid))
    }

    /// Kills all that is left of a service and says whether that is nothing.
    fn clear(&mut self, group: &GroupName) -> bool {
        let Some(entry) = self.services.get(group) else { return true };
        let Some(marks) = entry.marks.clone() else { return entry.process.is_none() };
        let remains = Remains {
            group: group.clone(),
            marks,
            main: entry.process.as_ref().map(|process| process.record.pid),
            was_foreign: entry.was_foreign,
            patient: entry.service.just_clearing(now().moment),
        };
        leftovers::clear(self, &remains)
    }

    /// After children were collected: is anything gone that was waited for?
    pub(super) fn look_after_clearing(&mut self) {
        for group in self.services.marked(Mark::Clearing) {
            if self.clear(&group) {
                self.feed(&group, Event::Cleared);
            }
        }
    }

    fn show(&mut self, group: &GroupName, view: &View, signal: Option<Signal>) -> Event {
        let publication = view.publication;
        let Some(process) = self.services.get(group).and_then(|entry| entry.process.as_ref()) else {
            return Event::Shown { publication, failed: Some(format!("`{group}` has no process")) };
        };
        let aside = self.aside();
        let viewer = mounts::Viewer {
            one_thread: &self.one_thread,
            home: self.home.as_ref(),
            pidfd: process.pidfd.as_fd(),
            pid: process.record.pid,
            aside: &aside,
        };
        let switched = if process.namespace { viewer.show(view) } else { Ok(None) };
        let mut shown = switched.map(|left| self.asides.extend(left));
        if shown.is_ok()
            && let Some(signal) = signal
        {
            shown = self.signal(group, signal);
        }
        if let Some(entry) = self.services.get_mut(group) {
            entry.show_failed = shown.clone().err();
        }
        Event::Shown { publication, failed: shown.err() }
    }

    /// Where publications lie that a switch has put aside: in the namespace of their service, over a folder of the keeper's.
    fn aside(&self) -> PathBuf {
        self.config.data_dir.join("keeper")
    }

    /// Unmounts what switches have put aside.
    pub(super) fn unmount_asides(&mut self) {
        // Where no child can be made, they wait for another turn.
        if !self.asides.is_empty() && mounts::unmount_aside(&self.one_thread, &self.asides, &self.aside()).is_ok() {
            self.asides.clear();
        }
    }

    /// Drops all that is known of a service which is at rest.
    pub(super) fn forget_service(&mut self, group: &GroupName) {
        self.close_voice(group);
        let Some(mut entry) = self.services.remove(group) else { return };
        self.cgroups.remove(group);
        self.journal.forget(group);
        hold::forget(&self.config.data_dir, group);
        entry.close_output(&mut self.poller, &mut self.buffer);
        if let Some(link) = &mut self.link {
            link.gone(group.clone());
        }
    }
}

/// By what is recognised that a service has left behind whose process is gone: never by a number, which may be another's.
pub(super) fn marks_without_process(group: &GroupName) -> Marks {
    Marks { session: None, namespace: None, variable: variable(group) }
}

/// The mark in the environment of all that a service starts.
pub(super) fn variable(group: &GroupName) -> String {
    format!("TAGFALL_GROUP={group}")
}

/// Variables that a service gets beside those that are declared.
pub(super) fn own_variables(spec: &ServiceSpec) -> Vec<(String, String)> {
    let release = ("TAGFALL_RELEASE".to_owned(), spec.release.clone());
    vec![("TAGFALL_GROUP".to_owned(), spec.group.to_string()), release]
}

/// Ends a child that cannot be held by a pidfd. It is ours and not yet waited for, so the number is its own.
pub(super) fn abandon(pid: u32) {
    if let Some(id) = proc::pid_of(pid) {
        let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
    }
}
