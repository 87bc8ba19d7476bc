//! What must go: groups that run or are published here and are not wanted any more.

use crate::model::{GroupName, Reason, ServiceState};

use super::{Action, DiskFacts, GroupFacts, Key, Lane, Turn, hooks};

/// Nothing is taken away before a release says what is wanted: an empty wish is not a wish for nothing.
pub(super) fn plan(turn: &mut Turn<'_>) {
    if turn.desired.release.is_none() {
        return;
    }
    let observed = turn.observed;
    for (name, facts) in &observed.groups {
        if !turn.desired.groups.contains_key(name) {
            remove(turn, name, facts);
        }
    }
}

fn remove(turn: &mut Turn<'_>, name: &GroupName, facts: &GroupFacts) {
    let service = Key::Group(name.clone(), Lane::Service);
    match facts.service.as_ref().map(|report| report.state) {
        Some(ServiceState::Stopped | ServiceState::Done | ServiceState::Failed) => {
            turn.wait(name, Reason::Stopping, "not placed here any more: stopped, to be forgotten");
            if !hooks::last_stop(turn, name, facts) {
                return;
            }
            turn.act(service, Action::Forget { group: name.clone() });
        }
        Some(ServiceState::Stopping) => turn.wait(name, Reason::Stopping, "not placed here any more: stopping"),
        Some(
            ServiceState::Waiting
            | ServiceState::Starting
            | ServiceState::Running
            | ServiceState::Reloading
            | ServiceState::Backoff
            | ServiceState::Stuck
            | ServiceState::Unknown,
        ) => {
            turn.wait(name, Reason::Stopping, "not placed here any more: stopping");
            if hooks::before_stop(turn, name, facts, "removed") {
                turn.act(service, Action::Stop { group: name.clone() });
            }
        }
        None if !turn.observed.keeper_ready => {
            turn.wait(name, Reason::KeeperAway, "not placed here any more; the keeper is away")
        }
        None if !hooks::last_stop(turn, name, facts) => {}
        None if facts.disk != DiskFacts::default() => {
            turn.wait(name, Reason::Stopping, "not placed here any more: its files are taken away");
            let action = Action::Withdraw { group: name.clone(), mount_path: facts.disk.link.clone() };
            turn.act(Key::Group(name.clone(), Lane::Publication), action);
        }
        None => {}
    }
}
