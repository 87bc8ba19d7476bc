//! What the process does: run, replace, reload, amend, stop.

use crate::model::{
    Digest, Group, GroupName, HookKind, Launch, LogPolicy, Policy, PublicationId, Ready, Reason, Reload, Service, ServiceKind,
    ServiceReport, ServiceSpec, ServiceState, Topology, View,
};

use super::hooks::{self, Reconfigured};
use super::{Action, GroupFacts, Key, Lane, Staged, Turn, Wanted};

/// True where the process is up and belongs to what is wanted, so that its health says something about it.
pub(super) fn plan(turn: &mut Turn<'_>, name: &GroupName, wanted: &Wanted, facts: &GroupFacts, staged: Option<&Staged>) -> bool {
    let Some(service) = &wanted.group.service else {
        let Some(staged) = staged.filter(|_| without_service(turn, name, facts)) else { return false };
        hooks::reconfigure(turn, name, staged, facts, facts.disk.shown);
        return true;
    };
    if !turn.observed.keeper_ready {
        turn.wait(name, Reason::KeeperAway, "the keeper has not told yet what runs");
        return false;
    }
    if service.container.is_some() && super::container::engine_away(turn, name) {
        return false;
    }
    if let Some(hold) = &wanted.suspended {
        let until = hold.until.map(|until| format!(" (until {until})")).unwrap_or_default();
        turn.wait(name, Reason::StoppedByOperator, format!("stopped by {}: {}{until}", hold.who, hold.reason));
        match facts.service.as_ref().map(|report| report.state) {
            Some(state) if is_up(state) => {
                if hooks::before_stop(turn, name, facts, &format!("hold {}", hold.since.0)) {
                    turn.act(key(name), Action::Stop { group: name.clone() });
                }
            }
            Some(ServiceState::Stopping) => {}
            Some(_) | None => drop(hooks::after_stop(turn, name, facts)),
        }
        return false;
    }
    let Some(staged) = staged else { return false };
    if super::container::leave_other(turn, name, service, facts) {
        return false;
    }
    let Some(aim) = Aim::new(wanted, service, staged) else { return false };
    let Some(report) = &facts.service else {
        start(turn, name, &aim, facts);
        return false;
    };
    converge(turn, name, &aim, report, facts)
}

fn key(name: &GroupName) -> Key {
    Key::Group(name.clone(), Lane::Service)
}

fn is_up(state: ServiceState) -> bool {
    match state {
        ServiceState::Starting
        | ServiceState::Running
        | ServiceState::Reloading
        | ServiceState::Backoff
        | ServiceState::Waiting
        | ServiceState::Unknown
        | ServiceState::Stuck => true,
        ServiceState::Stopping | ServiceState::Stopped | ServiceState::Done | ServiceState::Failed => false,
    }
}

/// A failed request to the keeper is said beside what it was for.
fn said_failure(turn: &mut Turn<'_>, name: &GroupName) {
    if let Some(failure) = turn.observed.failure(&key(name)) {
        turn.wait(name, failure.reason, failure.message.clone());
    }
}

/// A group that only publishes: a process left over from before must go.
fn without_service(turn: &mut Turn<'_>, name: &GroupName, facts: &GroupFacts) -> bool {
    let Some(report) = &facts.service else { return true };
    turn.wait(name, Reason::Stopping, "its [service] is gone: stopping");
    if is_up(report.state) {
        if hooks::before_stop(turn, name, facts, "no service") {
            turn.act(key(name), Action::Stop { group: name.clone() });
        }
    } else if report.state != ServiceState::Stopping && hooks::after_stop(turn, name, facts) {
        turn.act(key(name), Action::Forget { group: name.clone() });
    }
    false
}

/// What the process is to be. Compared piece by piece; put together as a spec only where something is to be done about it.
struct Aim<'a> {
    wanted: &'a Wanted,
    group: &'a Group,
    service: &'a Service,
    release: &'a crate::model::TagName,
    launch: &'a Launch,
    launch_digest: Digest,
    publication: Option<PublicationId>,
    staged: &'a Staged,
}

impl<'a> Aim<'a> {
    fn new(wanted: &'a Wanted, service: &'a Service, staged: &'a Staged) -> Option<Self> {
        Some(Self {
            wanted,
            group: &wanted.group,
            service,
            release: &wanted.first.tag,
            launch: staged.prepared.launch.as_ref()?,
            launch_digest: staged.launch?,
            publication: staged.prepared.publication,
            staged,
        })
    }

    fn policy(&self, turn: &Turn<'_>) -> Policy {
        let service = self.service;
        Policy {
            kind: service.kind,
            stop_signal: service.stop_signal,
            stop_timeout: service.stop_timeout,
            backoff: service.backoff,
            ready_when_started: match service.ready {
                Ready::Started => true,
                Ready::Health => !self.group.hooks.contains_key(&HookKind::HealthCheck),
                // It says so itself, and the keeper hears it; of a container nobody would.
                Ready::Notify | Ready::Fd => service.container.is_some(),
            },
            ready: service.ready,
            watchdog: service.watchdog,
            logs: service.logs.over(&turn.desired.host.logs),
            starts_when_asked: hooks::come_first(self.group),
        }
    }

    fn view(&self, turn: &Turn<'_>) -> Option<View> {
        let (data_dir, name) = (&turn.desired.host.data_dir, &self.group.name);
        self.publication.map(|publication| View {
            publication,
            source: format!("{data_dir}/publications/{name}/{publication}"),
            point: format!("{data_dir}/view/{name}"),
        })
    }

    fn spec(&self, turn: &Turn<'_>) -> Box<ServiceSpec> {
        Box::new(ServiceSpec {
            group: self.group.name.clone(),
            revision: self.group.revision,
            release: self.release.to_string(),
            launch: self.launch.clone(),
            policy: self.policy(turn),
            view: self.view(turn),
        })
    }
}

fn converge(turn: &mut Turn<'_>, name: &GroupName, aim: &Aim<'_>, report: &ServiceReport, facts: &GroupFacts) -> bool {
    let other_launch = report.launch != aim.launch_digest;
    let other_revision = report.revision != aim.group.revision;
    match report.state {
        ServiceState::Stopping => turn.wait(name, Reason::Stopping, "stopping"),
        ServiceState::Done if aim.service.kind == ServiceKind::Task && !other_revision && !facts.restart_asked => {
            return hooks::after_stop(turn, name, facts);
        }
        ServiceState::Failed if !other_revision && !other_launch && !facts.restart_asked => {
            turn.wait(name, Reason::ServiceFailed, failed_words(report));
            hooks::after_stop(turn, name, facts);
        }
        ServiceState::Stopped | ServiceState::Done | ServiceState::Failed | ServiceState::Waiting => {
            start(turn, name, aim, facts);
        }
        ServiceState::Unknown | ServiceState::Stuck => turn.wait(name, Reason::ServiceFailed, report.message.clone()),
        ServiceState::Backoff => {
            if other_launch || other_revision || facts.restart_asked {
                start(turn, name, aim, facts);
            } else if hooks::after_stop(turn, name, facts) {
                // A container's start may fail long after its last end.
                let said = report.last_exit.filter(|_| !facts.in_container);
                let cause = said.map_or_else(|| report.message.clone(), |exit| format!("it ended with {exit}"));
                let due = report.next_try.map(|at| format!("; next try at {at}")).unwrap_or_default();
                turn.wait(name, Reason::Backoff, format!("{cause}{due}"));
            }
        }
        ServiceState::Starting | ServiceState::Running | ServiceState::Reloading => {
            return up(turn, name, aim, report, facts);
        }
    }
    false
}

fn failed_words(report: &ServiceReport) -> String {
    match report.last_exit {
        Some(exit) => format!("it ended with {exit} and is not restarted; a new revision or `tagfall service restart` starts it"),
        None => report.message.clone(),
    }
}

/// Starts what does not run, once the hooks that come before have answered.
fn start(turn: &mut Turn<'_>, name: &GroupName, aim: &Aim<'_>, facts: &GroupFacts) {
    if hooks::after_stop(turn, name, facts) && hooks::before_start(turn, name, aim.staged, facts) {
        let rests = facts.service.as_ref().is_some_and(|report| report.state != ServiceState::Backoff);
        run(turn, name, aim, rests && facts.restart_asked);
    }
}

/// Replaces what runs, once its hook has answered. `cause` tells what for.
fn replace(turn: &mut Turn<'_>, name: &GroupName, aim: &Aim<'_>, (facts, restart): (&GroupFacts, bool), cause: &str) {
    if hooks::before_stop(turn, name, facts, cause) && hooks::before_amend(turn, name, aim.staged, facts) {
        run(turn, name, aim, restart);
    }
}

fn run(turn: &mut Turn<'_>, name: &GroupName, aim: &Aim<'_>, restart: bool) {
    turn.wait(name, if restart { Reason::Restarting } else { Reason::Starting }, "being started");
    said_failure(turn, name);
    turn.act(key(name), Action::Run { spec: aim.spec(turn), restart });
}

/// A process is there: is it the right one, and does it see the right files?
fn up(turn: &mut Turn<'_>, name: &GroupName, aim: &Aim<'_>, report: &ServiceReport, facts: &GroupFacts) -> bool {
    let other_launch = report.launch != aim.launch_digest;
    if other_launch || facts.restart_asked {
        // Another launch replaces the process by itself; asking for a restart beside it would start it twice in a row.
        let cause = if other_launch { format!("launch {}", aim.launch_digest) } else { "asked".to_owned() };
        replace(turn, name, aim, (facts, !other_launch), &cause);
        return false;
    }
    let starting = report.state == ServiceState::Starting;
    let wanted = aim.publication;
    if report.publication != wanted {
        let same_content = report.publication.map(|id| id.content) == wanted.map(|id| id.content);
        match (aim.service.reload, aim.view(turn)) {
            // Bound when it was made, for ever.
            _ if aim.service.container.is_some() => replace(turn, name, aim, (facts, true), "files"),
            // Only another copy of what it sees: nothing to tell.
            (_, Some(view)) if same_content => reload(turn, name, view, None),
            // Its hook decides what comes of it.
            (_, Some(view)) if !starting && aim.staged.prepared.hooks.contains_key(&HookKind::Reconfigure) => {
                if hooks::before_shown(turn, name, facts, report.publication) {
                    reload(turn, name, view, None);
                }
            }
            // A process that is not ready may not have installed its handler yet: a signal could end it.
            (Reload::Signal(signal), Some(view)) if !starting => reload(turn, name, view, Some(signal)),
            (Reload::Signal(_) | Reload::Restart, _) => replace(turn, name, aim, (facts, true), "files"),
        }
        return false;
    }
    if !hooks::before_amend(turn, name, aim.staged, facts) {
        return true;
    }
    if report.revision != aim.group.revision || !follows(turn, aim, report, facts) {
        turn.wait(name, Reason::Reloading, "taking over what touches no process");
        said_failure(turn, name);
        turn.act(key(name), Action::Amend { spec: aim.spec(turn) });
        return true;
    }
    if hooks::reconfigure(turn, name, aim.staged, facts, report.publication) == Reconfigured::Restart {
        replace(turn, name, aim, (facts, true), "reconfigure");
        return false;
    }
    hooks::while_up(turn, name, aim.wanted, aim.staged, facts);
    if starting {
        not_ready(turn, name, aim, (report, facts));
    }
    true
}

/// Whether it is treated as it should be, as far as that is understood by whoever treats it.
fn follows(turn: &Turn<'_>, aim: &Aim<'_>, report: &ServiceReport, facts: &GroupFacts) -> bool {
    let wanted = aim.policy(turn);
    // A container is looked after by this same program. A keeper may be older, until it is exchanged.
    let minor = if facts.in_container { u64::MAX } else { turn.observed.keeper_minor };
    report.policy == wanted.known_by(minor)
}

fn reload(turn: &mut Turn<'_>, name: &GroupName, view: View, signal: Option<crate::model::Signal>) {
    turn.wait(name, Reason::Reloading, "being told of its new files");
    said_failure(turn, name);
    turn.act(key(name), Action::Reload { group: name.clone(), view, signal });
}

fn not_ready(turn: &mut Turn<'_>, name: &GroupName, aim: &Aim<'_>, (report, facts): (&ServiceReport, &GroupFacts)) {
    let bound = report.start_extended.map_or(aim.service.start_timeout, |more| more.max(aim.service.start_timeout));
    let late = facts.started.after(bound);
    let said = match (&facts.health.last, aim.service.ready) {
        (Some((result, _)), Ready::Health) => format!(": {}", result.message),
        (_, Ready::Notify | Ready::Fd) if !report.message.is_empty() => format!(": {}", report.message),
        (Some(_) | None, _) => String::new(),
    };
    if late <= turn.now {
        let bound = humantime::format_duration(bound);
        turn.wait(name, Reason::StartFailed, format!("not ready within {bound}, started again{said}"));
        if hooks::before_stop(turn, name, facts, "not ready") {
            turn.act(key(name), Action::Run { spec: aim.spec(turn), restart: true });
        }
        return;
    }
    turn.wake(late);
    turn.wait(name, Reason::Starting, format!("started, not ready yet{said}"));
}

/// What a group asks for that a keeper which is older does not do.
pub(super) fn not_understood(core: &super::Core, wanted: &Wanted, facts: &GroupFacts) -> Option<String> {
    let rules = wanted.group.service.as_ref()?.logs.over(&core.desired().host.logs);
    let observed = core.observed();
    if !observed.keeper_ready || facts.in_container || facts.service.is_none() {
        return None;
    }
    let minor = observed.keeper_minor;
    let what = if !Policy::has_logs(minor) && rules != LogPolicy::default() {
        "[service.logs] is not carried out yet"
    } else if !Policy::waits_for_hooks(minor) && hooks::come_first(&wanted.group) {
        "hooks `init` and `post-stop` are not called where a service ends by itself"
    } else {
        return None;
    };
    Some(format!("{what}: the keeper is older than the supervisor; SIGHUP to it exchanges it, and no service notices"))
}

/// What a group declares that this version parses and checks but does not carry out.
pub fn not_carried_out(group: &Group) -> Vec<String> {
    let mut out = hooks::not_called(group);
    if group.topology == Topology::Leader {
        out.push("topology `leader`: this version elects nobody; a supervisor alone leads".to_owned());
    }
    for (bind, declared) in &group.binds {
        out.push(format!("bind `{bind}` to {}: this version neither waits for it nor shows its members", declared.group));
    }
    if let Some(service) = group.service.as_ref().filter(|service| service.container.is_some()) {
        out.extend(super::container::not_carried_out(service));
    }
    out
}
