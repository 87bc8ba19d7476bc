//! What is different for a container: its engine may be away, and a group may change from a process to a container and back.

use crate::model::{GroupName, Ready, Reason, Service, ServiceState};

use super::{Action, GroupFacts, Key, Lane, Turn, hooks};

/// What is known of the container engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Engine {
    /// Nobody has asked it yet.
    #[default]
    Unasked,
    /// It has told of every container that is ours.
    Ready,
    /// It does not answer, and why.
    Away(String),
}

/// While the engine is away nothing is known of its containers, so nothing is asked for either.
pub(super) fn engine_away(turn: &mut Turn<'_>, name: &GroupName) -> bool {
    let message = match &turn.observed.engine {
        Engine::Ready => return false,
        Engine::Unasked => "the container engine has not told yet what runs".to_owned(),
        Engine::Away(why) => format!("{why}; its containers are as they are, and are taken up again when it answers"),
    };
    turn.wait(name, Reason::EngineAway, message);
    true
}

/// A group that was a process and is to be a container, or the other way round: the one must be gone before the other comes.
pub(super) fn leave_other(turn: &mut Turn<'_>, name: &GroupName, service: &Service, facts: &GroupFacts) -> bool {
    let Some(report) = facts.service.as_ref().filter(|_| facts.in_container != service.container.is_some()) else {
        return false;
    };
    let what = if facts.in_container { "container" } else { "process" };
    turn.wait(name, Reason::Restarting, format!("its {what} must go first"));
    let key = Key::Group(name.clone(), Lane::Service);
    match report.state {
        ServiceState::Stopped | ServiceState::Done | ServiceState::Failed => {
            if hooks::after_stop(turn, name, facts) {
                turn.act(key, Action::Forget { group: name.clone() });
            }
        }
        ServiceState::Stopping => {}
        ServiceState::Waiting
        | ServiceState::Starting
        | ServiceState::Running
        | ServiceState::Reloading
        | ServiceState::Backoff
        | ServiceState::Stuck
        | ServiceState::Unknown => {
            if hooks::before_stop(turn, name, facts, "replaced") {
                turn.act(key, Action::Stop { group: name.clone() });
            }
        }
    }
    true
}

/// What a container's group declares and does not get.
pub(super) fn not_carried_out(service: &Service) -> Vec<String> {
    let mut out = Vec::new();
    match service.ready {
        Ready::Notify | Ready::Fd => out.push("ready by message: of a container, the start is taken for readiness".to_owned()),
        Ready::Health | Ready::Started => {}
    }
    if !service.listen.is_empty() {
        out.push("`listen`: no sockets are held for a container".to_owned());
    }
    out
}
