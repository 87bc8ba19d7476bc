//! Whether a service is healthy: when to check next, what the answers lead to.
//!
//! The first check comes at once, the second at a point of the interval that differs from member to member, then every
//! interval. Until a service is ready it is asked more often, so that readiness is noticed soon.

use std::time::Duration;

use crate::model::{GroupName, HealthStatus, Hook, HookKind, Moment, OnUnhealthy, Ready, Reason, ServiceState};

use super::{Action, GroupFacts, HealthFacts, Key, Lane, Staged, Turn, Wanted, hooks};

/// Between the first checks of a service that is not ready; doubles up to the hook's interval.
const PROBE_MIN_MS: u64 = 50;

/// Plans the next check, readiness, and a restart where an unhealthy service is to have one.
pub(super) fn plan(
    turn: &mut Turn<'_>,
    name: &GroupName,
    wanted: &Wanted,
    facts: &GroupFacts,
    staged: Option<&Staged>,
    up: bool,
) {
    let Some(hook) = wanted.group.hooks.get(&HookKind::HealthCheck) else { return };
    let check = staged.and_then(|staged| staged.prepared.check.as_ref());
    let Some(check) = check else { return };
    let report = facts.service.as_ref();
    if !up || report.is_some_and(|report| report.state == ServiceState::Done) {
        return;
    }
    let incarnation = report.map_or(0, |report| report.incarnation);
    let nothing = HealthFacts::default();
    let known = if facts.health.incarnation == incarnation { &facts.health } else { &nothing };
    let starting = report.is_some_and(|report| report.state == ServiceState::Starting);
    // One that says itself when it is ready is not contradicted by a check that already passes.
    let says_itself = wanted.group.service.as_ref().is_some_and(|service| matches!(service.ready, Ready::Notify | Ready::Fd));
    if starting && known.passed && !says_itself {
        turn.act(Key::Group(name.clone(), Lane::Service), Action::MarkReady { group: name.clone(), incarnation });
    }
    let due = due(turn, wanted, hook, known, starting, incarnation);
    if due <= turn.now {
        let module = staged.and_then(|staged| staged.prepared.hooks.get(&HookKind::HealthCheck)).cloned();
        let action = Action::Check { group: name.clone(), incarnation, check: check.clone(), module, timeout: hook.timeout };
        turn.act(Key::Group(name.clone(), Lane::Health), action);
    } else {
        turn.wake(due);
    }
    if known.criticals >= hook.failures {
        unhealthy(turn, name, wanted, known, facts);
    }
}

/// When the next check is due. A pause of the supervisor leads to one check, not to those that were missed.
fn due(turn: &Turn<'_>, wanted: &Wanted, hook: &Hook, known: &HealthFacts, starting: bool, incarnation: u64) -> Moment {
    match known.checks {
        0 => turn.now,
        checks if starting => {
            let wait = Duration::from_millis(PROBE_MIN_MS.saturating_mul(1 << (checks - 1).min(20)));
            known.checked.after(wait.min(hook.interval))
        }
        _ if known.splayed => known.checked.after(hook.interval),
        _ => known.checked.after(splay(wanted, hook.interval, incarnation)),
    }
}

/// How far each next process of a service is from the one before, as a share of 2³²: by the golden ratio, so that however many
/// there have been, they lie apart.
const NEXT_PROCESS: u32 = 0x9e37_79b9;

/// A point of the interval: even over members, groups and processes, the same for the same arguments.
fn splay(wanted: &Wanted, interval: Duration, incarnation: u64) -> Duration {
    let bytes = incarnation.to_le_bytes();
    let count = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let share = wanted.phase.wrapping_add(count.wrapping_mul(NEXT_PROCESS));
    interval.mul_f64(f64::from(share) / f64::from(u32::MAX))
}

fn unhealthy(turn: &mut Turn<'_>, name: &GroupName, wanted: &Wanted, known: &HealthFacts, facts: &GroupFacts) {
    let said = known.last.as_ref().map(|(result, _)| result.message.clone()).unwrap_or_default();
    turn.wait(name, Reason::HealthCritical, format!("{} critical answers in a row: {said}", known.criticals));
    let restart = wanted.group.service.as_ref().is_some_and(|service| service.on_unhealthy == OnUnhealthy::Restart);
    if restart {
        turn.wait(name, Reason::Restarting, "restarted because it is unhealthy");
        if hooks::before_stop(turn, name, facts, "unhealthy") {
            turn.act(Key::Group(name.clone(), Lane::Service), Action::Restart { group: name.clone() });
        }
    }
}

/// How a group's health reads: `ok` without a check while the process is up.
pub(super) fn status(facts: &GroupFacts, hook: Option<&Hook>) -> (HealthStatus, String) {
    let report = facts.service.as_ref();
    let incarnation = report.map_or(0, |report| report.incarnation);
    match hook {
        Some(_) => match &facts.health.last {
            Some((result, _)) if facts.health.incarnation == incarnation => (result.status, result.message.clone()),
            Some(_) | None => (HealthStatus::Unknown, "not checked yet".to_owned()),
        },
        None => match report.map(|report| report.state) {
            None | Some(ServiceState::Running | ServiceState::Reloading | ServiceState::Done) => {
                (HealthStatus::Ok, String::new())
            }
            Some(
                ServiceState::Waiting
                | ServiceState::Starting
                | ServiceState::Stopping
                | ServiceState::Stopped
                | ServiceState::Backoff
                | ServiceState::Failed
                | ServiceState::Stuck
                | ServiceState::Unknown,
            ) => (HealthStatus::Critical, "the process is not up".to_owned()),
        },
    }
}
