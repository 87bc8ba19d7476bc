//! What is published: stage, switch, compare, mend, prune.

use crate::model::{GroupName, HookKind, PublicationId, Reason, ServiceState};

use super::{Action, Drift, GroupFacts, Key, Lane, Staged, Turn, Wanted, hooks};

/// The prepared group, not shown to anybody. `None` while it is being prepared.
pub(super) fn staged<'a>(
    turn: &mut Turn<'_>,
    name: &GroupName,
    wanted: &std::sync::Arc<Wanted>,
    facts: &'a GroupFacts,
) -> Option<&'a Staged> {
    let staged = facts.staged.as_ref().filter(|staged| staged.inputs == wanted.inputs);
    if staged.is_none() {
        stage(turn, name, wanted, false);
    }
    staged
}

/// What the service may rely on: the prepared group, once its files are shown. `None` while anything of it is missing; what
/// ran before goes on as it is.
pub(super) fn plan<'a>(
    turn: &mut Turn<'_>,
    name: &GroupName,
    wanted: &std::sync::Arc<Wanted>,
    facts: &'a GroupFacts,
    staged: &'a Staged,
) -> Option<&'a Staged> {
    let prepared = &staged.prepared;
    let (Some(publication), Some(mount)) = (prepared.publication, &wanted.group.mount) else {
        // A process that was started with files keeps them until it is replaced.
        if facts.disk.link.is_some() && is_at_rest(turn, name, facts, None) {
            turn.act(key(name), Action::Withdraw { group: name.clone(), mount_path: facts.disk.link.clone() });
        }
        return Some(staged);
    };
    let told_by_hook = wanted.group.service.is_none() && prepared.hooks.contains_key(&HookKind::Reconfigure);
    let other = facts.disk.shown.map(|shown| shown.content) != Some(publication.content);
    if told_by_hook && other && !hooks::before_shown(turn, name, facts, facts.disk.shown) {
        return None;
    }
    if facts.disk.shown != Some(publication) || facts.disk.link.as_deref() != Some(&mount.path) || facts.disk.unlinked {
        switch(turn, name, publication, &mount.path, facts);
        return None;
    }
    match &facts.disk.drift {
        Drift::Found(paths) => {
            let first = paths.first().map_or("", String::as_str);
            turn.wait(name, Reason::DriftDetected, format!("putting back {} changed by hand, first `{first}`", paths.len()));
            turn.act(key(name), Action::Stage { wanted: wanted.clone(), fresh_copy: true });
        }
        Drift::Suspected => turn.act(key(name), Action::Verify { group: name.clone(), publication }),
        Drift::None => prune(turn, name, facts, mount.keep),
    }
    Some(staged)
}

fn key(name: &GroupName) -> Key {
    Key::Group(name.clone(), Lane::Publication)
}

fn stage(turn: &mut Turn<'_>, name: &GroupName, wanted: &std::sync::Arc<Wanted>, fresh_copy: bool) {
    match turn.observed.failure(&key(name)) {
        Some(failure) => turn.wait(name, failure.reason, failure.message.clone()),
        None => turn.wait(name, Reason::Publishing, "rendering its config"),
    }
    turn.act(key(name), Action::Stage { wanted: wanted.clone(), fresh_copy });
}

fn switch(turn: &mut Turn<'_>, name: &GroupName, publication: PublicationId, path: &str, facts: &GroupFacts) {
    match turn.observed.failure(&key(name)) {
        Some(failure) => turn.wait(name, failure.reason, failure.message.clone()),
        None => turn.wait(name, Reason::Publishing, format!("switching `{path}` to its new publication")),
    }
    let old_path = facts.disk.link.clone().filter(|old| old != path);
    let action = Action::Switch { group: name.clone(), publication, mount_path: path.to_owned(), old_path };
    turn.act(key(name), action);
}

/// Whether no process is or is about to be on other files than `files`: the keeper may be starting one that no report names yet.
fn is_at_rest(turn: &Turn<'_>, name: &GroupName, facts: &GroupFacts, files: Option<PublicationId>) -> bool {
    let resting = facts.service.as_ref().is_none_or(|report| match report.state {
        ServiceState::Running => report.publication == files,
        ServiceState::Done | ServiceState::Stopped | ServiceState::Failed => true,
        ServiceState::Waiting
        | ServiceState::Starting
        | ServiceState::Reloading
        | ServiceState::Stopping
        | ServiceState::Backoff
        | ServiceState::Stuck
        | ServiceState::Unknown => false,
    });
    resting && turn.observed.keeper_ready && !turn.observed.is_busy(&Key::Group(name.clone(), Lane::Service))
}

/// A publication goes once `keep` newer ones exist. What a round could not delete is not tried again before another is added.
fn prune(turn: &mut Turn<'_>, name: &GroupName, facts: &GroupFacts, keep: u32) {
    let most = (keep as usize).max(facts.disk.kept);
    if facts.disk.copies.len() > most && is_at_rest(turn, name, facts, facts.disk.shown) {
        let in_use = facts.disk.shown.into_iter().collect();
        turn.act(key(name), Action::Prune { group: name.clone(), keep, in_use });
    }
}
