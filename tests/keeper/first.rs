//! The keeper as the first process of a process namespace, as in a container, without an engine: it collects whatever loses
//! its parent, and signals reach it as ever.

use std::time::Duration;

use common::{memory_kib, zombies};
use tagfall::keeper::wire::{Message, Request};
use tagfall::model::ServiceState;

use crate::stage::{Setting, Stage, shell, signal, wait_until};

/// Orphans that end in one moment, and how often.
const ORPHANS: u32 = 1_000;
const TIMES: u32 = 10;

/// By how much the keeper's own memory may grow for that, in KiB: nothing per orphan.
const GROWTH_MAX_KIB: u64 = 512;

/// A keeper that is number 1.
fn stage() -> Result<Stage, common::Skipped> {
    common::need_root()?;
    common::need_tool("unshare")?;
    let through = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"].map(str::to_owned).to_vec();
    let stage = Stage::with(Setting { through, ..Setting::default() });
    assert_eq!(stage.hello.as_ref().map(|hello| hello.keeper_pid), Some(1));
    Ok(stage)
}

/// The keeper's number out here.
fn outside(stage: &Stage) -> u32 {
    common::number_of(stage.keeper.id(), 1).unwrap()
}

#[test]
fn ten_thousand_orphans_are_collected_and_cost_nothing() {
    let Ok(mut stage) = stage() else { return };
    let Ok(tool) = common::compile("box", stage.data.parent().unwrap(), &["-static"]) else { return };
    let keeper = outside(&stage);
    let steady = shell("steady", "exec sleep 1000");
    stage.run(&steady);
    stage.wait_state(&steady.group, ServiceState::Running);
    // Once before, so that what the keeper needs for it at all is there.
    for (name, times) in [("warm", 1), ("orphans", TIMES)] {
        let before = memory_kib(keeper).unwrap();
        let spec = shell(name, &format!("exec '{}' orphans {times} {ORPHANS}", tool.display()));
        stage.run(&spec);
        stage.wait_line(&spec.group, |line| line == "done");
        wait_until("no zombie is left", || (zombies(keeper) == 0).then_some(()));
        let after = memory_kib(keeper).unwrap();
        assert!(name == "warm" || after <= before + GROWTH_MAX_KIB, "{before} KiB became {after} KiB");
    }
    assert_eq!(stage.reports[&steady.group].restarts, 0);
    // What it looks after is looked after as ever.
    let group = steady.group.clone();
    stage.ask(&Request::Restart { group: group.clone() }).unwrap();
    stage.wait_for(&group, |report| report.incarnation == 2 && report.state == ServiceState::Running);
}

#[test]
fn every_signal_that_asks_for_an_end_is_heard_and_others_do_nothing() {
    use rustix::process::Signal;
    for end in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let Ok(mut stage) = stage() else { return };
        let mut spec = shell("one", "trap 'echo told; exit 0' TERM; echo up; while :; do sleep 0.1; done");
        spec.policy.stop_timeout = Duration::from_secs(20);
        stage.run(&spec);
        stage.wait_line(&spec.group, |line| line == "up");
        let keeper = outside(&stage);
        for harmless in [Signal::USR1, Signal::USR2, Signal::ALARM, Signal::PIPE] {
            signal(keeper, harmless);
        }
        signal(keeper, end);
        stage.next_where("word of the end", |message| matches!(message, Message::Shutdown).then_some(()));
        stage.send(&Request::Finished);
        assert_eq!(stage.wait_end().code(), Some(0), "{end:?}");
        stage.wait_line(&spec.group, |line| line == "told");
    }
}

#[test]
fn it_becomes_another_program_and_stays_the_first_process() {
    let Ok(mut stage) = stage() else { return };
    let spec = shell("one", "exec sleep 1000");
    stage.run(&spec);
    let before = stage.wait_state(&spec.group, ServiceState::Running);
    signal(outside(&stage), rustix::process::Signal::HUP);
    stage.connect();
    assert_eq!(stage.hello.as_ref().map(|hello| hello.keeper_pid), Some(1));
    assert_eq!(stage.reports[&spec.group].pid, before.pid);
    // Its children are its own as before.
    signal(outside_of(&stage, before.pid.unwrap()), rustix::process::Signal::KILL);
    stage.wait_for(&spec.group, |report| report.incarnation == 2 && report.state == ServiceState::Running);
    // It still ends with whoever has started it, if that was asked for.
    let keeper = outside(&stage);
    signal(stage.keeper.id(), rustix::process::Signal::KILL);
    let ended = || std::fs::read_to_string(format!("/proc/{keeper}/stat")).map_or(true, |stat| stat.contains(") Z "));
    wait_until("the keeper ends with its parent", || ended().then_some(()));
}

/// The number out here of a process that has another one in there.
fn outside_of(stage: &Stage, inside: u32) -> u32 {
    common::number_of(stage.keeper.id(), inside).unwrap()
}
