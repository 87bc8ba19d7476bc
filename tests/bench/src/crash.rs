//! SIGKILL of a ready service → `main` of its successor, beside other supervisors in the same run.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::Failure;
use crate::clock::{ms_between, now_ns, pause};
use crate::peers::{self, Peer};
use crate::program::Ear;
use crate::stage::{Stage, group};
use crate::table::{Row, Sample};

const KILLS: usize = 200;
/// A service is killed once it ran for so long: s6 and runit start none twice within a second, and Tagfall was told that one
/// that was ready for a second is well again.
const ROUND: Duration = Duration::from_millis(1_300);
const BOUND: Duration = Duration::from_secs(10);

/// Somebody's service.
struct Lane {
    name: String,
    ear: Ear,
    pid: u32,
    took: Vec<f64>,
    ours: bool,
    peer: Option<Peer>,
}

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let mut stage = Stage::new();
    let mut lanes = ours(&mut stage)?;
    let (peers, missing) = peers::start(stage.dir.path())?;
    for mut peer in peers {
        let ear = std::mem::replace(&mut peer.ear, Ear::new(&stage.path(&format!("none-{}", peer.name)))?);
        lanes.push(Lane { name: peer.name.to_owned(), ear, pid: 0, took: Vec::new(), ours: false, peer: Some(peer) });
    }
    for lane in &mut lanes {
        let line = lane.ear.wait(BOUND, |line| line.kind == "main").ok_or_else(|| format!("{} started nothing", lane.name))?;
        lane.pid = line.pid;
    }
    for _ in 0..KILLS {
        let begun = now_ns();
        pause(ROUND / 2);
        for lane in &mut lanes {
            kill_once(lane)?;
            pause(Duration::from_millis(20));
        }
        let took = Duration::from_nanos(now_ns() - begun);
        pause(ROUND.saturating_sub(took));
    }
    Ok(rows(lanes, &missing))
}

/// Two services of ours: one that sees its files in a mount namespace of its own, and one without files.
fn ours(stage: &mut Stage) -> Result<Vec<Lane>, Failure> {
    let mut lanes = Vec::new();
    for (name, words) in [("mounted", "Tagfall, with its own mount namespace"), ("plain", "Tagfall, without files")] {
        let ear = Ear::new(&stage.path(name))?;
        let mount = (name == "mounted").then(|| stage.path("mount"));
        stage.repo.write(&format!("groups/{name}/group.toml"), &group(name, &ear.path, mount.as_deref(), "")?);
        if mount.is_some() {
            stage.repo.write(&format!("groups/{name}/config/app.conf.hbs"), "{{cfg.version}}\n");
        }
        lanes.push(Lane { name: words.to_owned(), ear, pid: 0, took: Vec::new(), ours: true, peer: None });
    }
    stage.repo.release("v1.0.0");
    stage.supervise()?;
    stage.wait_applied("v1.0.0")?;
    Ok(lanes)
}

fn kill_once(lane: &mut Lane) -> Result<(), Failure> {
    let pid = i32::try_from(lane.pid).ok().and_then(Pid::from_raw).ok_or("no process id")?;
    let killed = now_ns();
    kill_process(pid, Signal::KILL)?;
    let line = lane.ear.wait(BOUND, |line| line.kind == "main");
    let line = line.ok_or_else(|| format!("{} did not start its service again", lane.name))?;
    lane.pid = line.pid;
    lane.took.push(ms_between(killed, line.at));
    Ok(())
}

fn rows(lanes: Vec<Lane>, missing: &[&str]) -> Vec<Row> {
    let mut rows = Vec::new();
    for lane in lanes {
        let took = Sample::new(lane.took);
        let what = format!("SIGKILL of a service → main() of its successor: {}", lane.name);
        rows.push(if lane.ours {
            let met = took.percentile(50) <= 5.0 && took.percentile(99) <= 50.0;
            Row::new(what, "p50 <= 5, p99 <= 50 ms", took.words("ms"), met)
        } else {
            Row::told(what, took.words("ms"))
        });
        if let Some(peer) = lane.peer {
            peer.end(lane.pid);
        }
    }
    for name in missing {
        rows.push(Row::told(format!("{name}, in the same run"), "not installed: `apt-get install s6 runit supervisor`"));
    }
    rows
}
