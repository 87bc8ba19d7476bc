//! Many at once: ends of hundreds in one moment, none lost, none stuck.

use std::collections::BTreeSet;

use tagfall::keeper::wire::Request;
use tagfall::model::{ServiceKind, ServiceSpec, ServiceState};

use crate::stage::{Stage, alive, shell, signal, wait_until};

/// So many services.
const CROWD: usize = 200;

#[test]
fn two_hundred_that_die_in_one_moment_are_all_back() {
    let mut stage = Stage::new();
    let specs: Vec<ServiceSpec> = (0..CROWD).map(|number| shell(&format!("crowd{number}"), "exec sleep 1000")).collect();
    for spec in &specs {
        stage.run(spec);
    }
    let first: BTreeSet<u32> =
        specs.iter().map(|spec| stage.wait_state(&spec.group, ServiceState::Running).pid.unwrap()).collect();
    for pid in &first {
        signal(*pid, rustix::process::Signal::KILL);
    }
    for spec in &specs {
        let report = stage.wait_for(&spec.group, |report| report.incarnation == 2 && report.state == ServiceState::Running);
        assert_eq!(report.restarts, 1);
        assert!(!first.contains(&report.pid.unwrap()));
    }
    assert!(!first.iter().any(|pid| alive(*pid)));
}

#[test]
fn two_hundred_that_exit_at_once_lose_no_exit() {
    let mut stage = Stage::new();
    let task = |number: usize| {
        let mut spec = shell(&format!("task{number}"), if number.is_multiple_of(2) { "exit 0" } else { "exit 125" });
        spec.policy.kind = ServiceKind::Task;
        spec
    };
    let specs: Vec<ServiceSpec> = (0..CROWD).map(task).collect();
    // Without waiting for an answer in between.
    let sent: Vec<u64> = specs.iter().map(|spec| stage.send(&Request::Run(Box::new(spec.clone())))).collect();
    for attempt in sent {
        stage.reply_to(attempt).unwrap();
    }
    for (number, spec) in specs.iter().enumerate() {
        let end = if number.is_multiple_of(2) { ServiceState::Done } else { ServiceState::Failed };
        let report = stage.wait_state(&spec.group, end);
        assert_eq!((report.incarnation, report.pid), (1, None));
    }
    wait_until("no child is left but the supervisor", || (common::children(stage.keeper.id()).len() == 1).then_some(()));
}
