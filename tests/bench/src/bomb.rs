//! A bomb of three hundred processes, each in a session of its own and with its parent gone: how long its stop takes, where
//! the kernel keeps groups of processes and where it does not.

use std::path::Path;
use std::time::Duration;

use tagfall::keeper::wire::Request;
use tagfall::model::{GroupName, ServiceState};

use crate::Failure;
use crate::clock::{ms_between, now_ns, pause};
use crate::direct::{Direct, service};
use crate::stage::small_service;
use crate::table::{Row, Sample};

const PROCESSES: usize = 300;
const ROUNDS: usize = 10;
const POLLS: u32 = 3_000;
const POLL: Duration = Duration::from_millis(10);
const BOUND: Duration = Duration::from_secs(60);
const WANTED_MS: f64 = 500.0;

/// A mount namespace in which no cgroup can be reached.
const WITHOUT_CGROUPS: [&str; 5] = ["unshare", "--mount", "sh", "-c", "umount -R -l /sys/fs/cgroup && exec \"$0\" \"$@\""];

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let mut rows = series(&[])?;
    match series(&WITHOUT_CGROUPS) {
        Ok(more) => rows.extend(more),
        Err(error) => rows.push(Row::told("a bomb without cgroups", format!("cannot be tried here: {error}"))),
    }
    Ok(rows)
}

fn series(by: &[&str]) -> Result<Vec<Row>, Failure> {
    let dir = common::temp_dir();
    let mut direct = Direct::start(dir.path(), by)?;
    let (mut took, mut left, mut how) = (Vec::new(), 0, "in cgroups");
    for round in 0..ROUNDS {
        let places = dir.path().join(format!("places{round}"));
        let (program, count, path) = (small_service()?, PROCESSES.to_string(), places.display().to_string());
        let spec = service("bomb", &[&program, "bomb", &path, &count])?;
        let group: GroupName = spec.group.clone();
        direct.order([Request::Run(Box::new(spec))])?;
        direct.until("it runs", BOUND, |direct| direct.count(ServiceState::Running) == 1)?;
        wait_for_all(&places)?;
        if direct.reports.get(&group).is_some_and(|report| report.message.contains("no cgroup")) {
            how = "without cgroups";
        }
        let begun = now_ns();
        direct.order([Request::Stop { group }])?;
        direct.until("it is stopped", BOUND, |direct| direct.count(ServiceState::Stopped) == 1)?;
        took.push(ms_between(begun, now_ns()));
        left += alive(&places);
    }
    let took = Sample::new(took);
    let met = took.max() <= WANTED_MS && left == 0;
    let what = format!("stop of a bomb of {PROCESSES} processes in sessions of their own, {how}");
    Ok(vec![Row::new(what, "<= 500 ms, none left", format!("{}; {left} left", took.words("ms")), met)])
}

fn wait_for_all(places: &Path) -> Result<(), Failure> {
    for _ in 0..POLLS {
        if alive(places) >= PROCESSES {
            return Ok(());
        }
        pause(POLL);
    }
    Err(format!("it has only {} processes", alive(places)).into())
}

/// How many processes have this path among their arguments and have not ended.
fn alive(places: &Path) -> usize {
    let places = places.display().to_string();
    let is_of_it = |entry: &std::fs::DirEntry| {
        let path = entry.path();
        let words = std::fs::read(path.join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == places.as_bytes())
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter(is_of_it).count()
}
