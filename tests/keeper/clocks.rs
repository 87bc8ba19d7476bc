//! Clocks that jump, a machine that sleeps, a keeper that is stopped: nothing is restarted, and no deadline is lost or met twice.

use std::time::Duration;

use tagfall::model::{Exit, GroupName, Ready, ServiceReport, ServiceSpec, ServiceState, Signal};

use crate::fixture::doing;
use crate::shim::Shim;
use crate::stage::{Stage, shell, signal, wait_until};

/// A year in seconds.
const YEAR_S: i64 = 365 * 24 * 60 * 60;

/// An hour in seconds.
const HOUR_S: i64 = 60 * 60;

/// Long for a service that says that it lives every few milliseconds, short for a test; a busy machine must not be taken for
/// a silent service.
const WATCHDOG: Duration = Duration::from_secs(4);

/// One that is watched, and lives.
fn watched(name: &str, steps: &[&str]) -> ServiceSpec {
    let mut spec = doing(name, steps);
    spec.policy.ready_when_started = false;
    (spec.policy.ready, spec.policy.watchdog) = (Ready::Notify, Some(WATCHDOG));
    spec.policy.stop_timeout = Duration::from_millis(300);
    spec
}

/// A stage whose keeper has the shim, with one service that is watched and one that always fails.
struct Scene {
    shim: Shim,
    stage: Stage,
    alive: GroupName,
    failing: GroupName,
}

impl Scene {
    fn new() -> Result<Self, common::Skipped> {
        let shim = Shim::new()?;
        let mut stage = Stage::with(shim.setting());
        shim.need_clocks()?;
        let (alive, failing) = (watched("alive", &["say READY=1", "beat"]), shell("failing", "exit 1"));
        for spec in [&alive, &failing] {
            stage.run(spec);
        }
        stage.wait_state(&alive.group, ServiceState::Running);
        stage.wait_for(&failing.group, |report| report.restarts >= 2);
        Ok(Self { shim, stage, alive: alive.group, failing: failing.group })
    }

    fn report(&self, group: &GroupName) -> &ServiceReport {
        &self.stage.reports[group]
    }

    /// Waits until it has been tried again so often.
    fn tried_again(&mut self, times: u64) {
        let before = self.report(&self.failing).restarts;
        let failing = self.failing.clone();
        self.stage.wait_for(&failing, |report| report.restarts >= before + times);
    }
}

fn stop(pid: u32) {
    signal(pid, rustix::process::Signal::STOP);
    wait_until("it is stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')).then_some(())
    });
}

#[test]
fn a_wall_clock_that_is_a_year_off_restarts_nothing_and_loses_no_deadline() {
    let Ok(mut scene) = Scene::new() else { return };
    let alive = scene.alive.clone();
    let before = scene.report(&alive).clone();
    for shift in [YEAR_S, -YEAR_S, 0] {
        scene.shim.shift_wall(shift);
        // Deadlines of restarts and of stops come as ever.
        scene.tried_again(2);
        let deaf = {
            let mut spec = shell(&format!("deaf{}", shift.signum()), "trap '' TERM; echo deaf; while :; do sleep 1000; done");
            spec.policy.stop_timeout = Duration::from_millis(200);
            spec
        };
        scene.stage.run(&deaf);
        scene.stage.wait_line(&deaf.group, |line| line == "deaf");
        scene.stage.ask(&tagfall::keeper::wire::Request::Stop { group: deaf.group.clone() }).unwrap();
        let stopped = scene.stage.wait_state(&deaf.group, ServiceState::Stopped);
        assert_eq!(stopped.last_exit, Some(Exit::Signal(Signal::KILL)));
        // The shift is really there.
        let year = i64::try_from(stopped.since.0 / 1000).unwrap() - i64::try_from(before.since.0 / 1000).unwrap() - shift;
        assert!(year.abs() < HOUR_S, "{year} seconds beside {shift}");
        // A successor by that clock takes over all the same.
        scene.stage.replace_keeper();
        let after = scene.report(&alive);
        assert_eq!((after.pid, after.restarts), (before.pid, before.restarts), "{}", after.message);
    }
}

#[test]
fn a_machine_that_slept_ends_no_service_for_its_silence_and_no_later_silence_is_missed() {
    let Ok(mut scene) = Scene::new() else { return };
    let alive = scene.alive.clone();
    let before = scene.report(&alive).clone();
    for hours in 1..=3 {
        scene.shim.sleep(hours * HOUR_S);
        scene.tried_again(1);
    }
    let pid = before.pid.unwrap();
    assert_eq!((scene.report(&alive).pid, scene.report(&alive).restarts), (Some(pid), 0), "{}", scene.report(&alive).message);
    stop(pid);
    let again = scene.stage.wait_for(&alive, |report| report.incarnation == 2 && report.state == ServiceState::Running);
    assert_eq!(again.restarts, 1);
}

#[test]
fn a_keeper_that_was_stopped_does_what_it_missed_once() {
    let Ok(mut scene) = Scene::new() else { return };
    let crashing = shell("crashing", "exec sleep 1000");
    scene.stage.run(&crashing);
    let first = scene.stage.wait_state(&crashing.group, ServiceState::Running);
    let (alive, failing) = (scene.alive.clone(), scene.failing.clone());
    let tried = scene.stage.wait_state(&failing, ServiceState::Backoff).restarts;
    let keeper = scene.stage.keeper.id();
    stop(keeper);
    signal(first.pid.unwrap(), rustix::process::Signal::KILL);
    scene.shim.sleep(HOUR_S);
    signal(keeper, rustix::process::Signal::CONT);
    scene.stage.wait_for(&crashing.group, |report| report.incarnation == 2 && report.state == ServiceState::Running);
    // As often as it fits into the time since then, not into an hour.
    let report = scene.stage.wait_for(&failing, |report| report.restarts > tried);
    assert!(report.restarts <= tried + 5, "{} after {tried}", report.restarts);
    assert_eq!((scene.report(&alive).restarts, scene.report(&crashing.group).restarts), (0, 1));
}
