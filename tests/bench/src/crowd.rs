//! A hundred services, and a thousand: how long until all of them run, until one that was killed is there again, until all of
//! them have ended, beside other supervisors in the same run.
//!
//! All of them run at the same time with the same small program, and what is measured of them takes turns, so that whatever
//! else the machine does meets all alike. To add a supervisor: see `crowds.rs`.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tagfall::keeper::wire::Request;
use tagfall::model::ServiceState;

use crate::Failure;
use crate::clock::{ms_between, now_ns, pause};
use crate::crowds::{self, Crowd};
use crate::direct::{Direct, service};
use crate::program::Ear;
use crate::stage::small_service;
use crate::table::{Row, Sample};

const FEW: usize = 100;
const MANY: usize = 1_000;
const KILLS: usize = 200;
/// supervisord notices an end once a second.
const KILLS_OF_SLOW: usize = 20;
/// All have run for so long before the first is killed: what starting thousands of processes leaves to be done (supervisord's
/// first looks at each, what the file system writes back) is over by then.
const BEGUN: Duration = Duration::from_secs(15);
/// One has run for so long before it is killed again: s6 and runit start none twice within a second.
const SETTLED: Duration = Duration::from_millis(2_000);
const BETWEEN: Duration = Duration::from_millis(10);
const BOUND: Duration = Duration::from_secs(60);
const WANTED_MS: (f64, f64) = (4.0, 20.0);
const WANTED_ALL_MS: f64 = 3_000.0;
/// In a run whose noise is that of the machine, a tenth more is no more.
const NO_WORSE: f64 = 1.1;

/// One supervisor with its services.
struct Lane {
    name: &'static str,
    who: Who,
    ear: Ear,
    pids: Vec<u32>,
    /// Until all ran, and until all had ended, in milliseconds.
    started: f64,
    stopped: f64,
    back: Vec<f64>,
    kills: usize,
}

enum Who {
    Us(Box<Direct>),
    Other(Crowd),
}

pub(crate) fn measure_few() -> Result<Vec<Row>, Failure> {
    series(FEW)
}

pub(crate) fn measure_many() -> Result<Vec<Row>, Failure> {
    series(MANY)
}

fn series(services: usize) -> Result<Vec<Row>, Failure> {
    let dir = common::temp_dir();
    let mut rows = Vec::new();
    let mut lanes = vec![ours(dir.path(), services)?];
    for name in crowds::NAMES {
        match other(name, &dir.path().join(name.replace(' ', "")), services) {
            Ok(lane) => lanes.push(lane),
            Err(error) => rows.push(Row::told(format!("{name}, {services} services"), format!("does not run here: {error}"))),
        }
    }
    pause(BEGUN);
    kill_in_turns(&mut lanes)?;
    for lane in &mut lanes {
        stop(lane)?;
    }
    rows.extend(judge(lanes, services));
    Ok(rows)
}

fn ours(dir: &std::path::Path, services: usize) -> Result<Lane, Failure> {
    let mut ear = Ear::new(&dir.join("ear"))?;
    let mut direct = Direct::start(dir, &[])?;
    let (program, fifo) = (small_service()?, ear.path.display().to_string());
    let specs = (0..services).map(|number| service(&format!("bench{number}"), &[&program, "serve", &fifo]));
    let requests = specs.map(|spec| Ok(Request::Run(Box::new(spec?)))).collect::<Result<Vec<_>, Failure>>()?;
    let begun = now_ns();
    direct.order(requests)?;
    direct.until("all run", BOUND, |direct| direct.count(ServiceState::Running) == services)?;
    let known = now_ns();
    let (pids, last) = begin(&mut ear, services)?;
    let started = ms_between(begun, known.max(last));
    let who = Who::Us(Box::new(direct));
    Ok(Lane { name: "Tagfall", who, ear, pids, started, stopped: f64::NAN, back: Vec::new(), kills: KILLS })
}

fn other(name: &'static str, dir: &std::path::Path, services: usize) -> Result<Lane, Failure> {
    let begun = now_ns();
    let mut crowd = crowds::start(name, dir, services)?;
    let mut ear = std::mem::replace(&mut crowd.ear, Ear::new(&dir.join("none"))?);
    let (pids, last) = begin(&mut ear, services)?;
    let kills = if name == "supervisord" { KILLS_OF_SLOW } else { KILLS };
    let started = ms_between(begun, last);
    Ok(Lane { name, who: Who::Other(crowd), ear, pids, started, stopped: f64::NAN, back: Vec::new(), kills })
}

/// Waits until all have begun, and says when the last one did.
fn begin(ear: &mut Ear, services: usize) -> Result<(Vec<u32>, u64), Failure> {
    let (mut pids, mut last) = (Vec::new(), 0);
    while pids.len() < services {
        let line = ear.wait(BOUND, |line| line.kind == "main").ok_or_else(|| format!("only {} began", pids.len()))?;
        pids.push(line.pid);
        last = last.max(line.at);
    }
    Ok((pids, last))
}

fn kill_in_turns(lanes: &mut [Lane]) -> Result<(), Failure> {
    for round in 0..KILLS {
        for lane in lanes.iter_mut().filter(|lane| round < lane.kills) {
            if round > 0 && round % lane.pids.len() == 0 {
                pause(SETTLED);
            }
            // A stride that meets each of them once before it meets one again, in no order that anybody started them in.
            let at = round * 37 % lane.pids.len();
            let id = i32::try_from(lane.pids[at]).ok().and_then(Pid::from_raw).ok_or("no process id")?;
            let killed = now_ns();
            kill_process(id, Signal::KILL)?;
            let line = lane.ear.wait(BOUND, |line| line.kind == "main");
            let line = line.ok_or_else(|| format!("{} did not start its service again", lane.name))?;
            lane.pids[at] = line.pid;
            lane.back.push(ms_between(killed, line.at));
            pause(BETWEEN);
        }
    }
    Ok(())
}

fn stop(lane: &mut Lane) -> Result<(), Failure> {
    let held = lane.pids.iter().filter_map(|pid| {
        let id = i32::try_from(*pid).ok().and_then(Pid::from_raw)?;
        pidfd_open(id, PidfdFlags::empty()).ok()
    });
    let held: Vec<OwnedFd> = held.collect();
    let begun = now_ns();
    match &mut lane.who {
        Who::Us(direct) => {
            let services = direct.reports.len();
            let groups: Vec<_> = direct.reports.keys().cloned().collect();
            direct.order(groups.into_iter().map(|group| Request::Stop { group }))?;
            direct.until("all are stopped", BOUND, |direct| direct.count(ServiceState::Stopped) == services)?;
        }
        Who::Other(crowd) => crowd.tell_to_end(),
    }
    for pidfd in &held {
        if poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&Timespec::try_from(BOUND)?))? == 0 {
            return Err(format!("{} does not end its services", lane.name).into());
        }
    }
    lane.stopped = ms_between(begun, now_ns());
    Ok(())
}

fn judge(lanes: Vec<Lane>, services: usize) -> Vec<Row> {
    let (mut rows, mut ours) = (Vec::new(), None);
    for lane in lanes {
        let back = Sample::new(lane.back);
        let what = format!("SIGKILL of one of {services} → main() of its successor: {}", lane.name);
        let (p50, p99) = (back.percentile(50), back.percentile(99));
        match lane.who {
            Who::Us(mut direct) => {
                drop(direct.end());
                rows.push(Row::new(what, "p50 <= 4, p99 <= 20 ms", back.words("ms"), p50 <= WANTED_MS.0 && p99 <= WANTED_MS.1));
                for (word, took) in [("start", lane.started), ("stop", lane.stopped)] {
                    let met = took <= WANTED_ALL_MS;
                    rows.push(Row::new(
                        format!("{word} of {services} services: Tagfall"),
                        "<= 3000 ms",
                        format!("{took:.0} ms"),
                        met,
                    ));
                }
                ours = Some(p50);
            }
            Who::Other(crowd) => {
                drop(crowd);
                if let Some(ours) = ours.filter(|_| lane.name == "s6") {
                    rows.push(Row::new(what, "no better than Tagfall", back.words("ms"), ours <= p50 * NO_WORSE));
                } else {
                    rows.push(Row::told(what, back.words("ms")));
                }
                let words = format!("start {:.0} ms, stop {:.0} ms", lane.started, lane.stopped);
                rows.push(Row::told(format!("{services} services: {}", lane.name), words));
            }
        }
    }
    rows
}
