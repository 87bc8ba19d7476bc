//! Supervisor and keeper at rest with a hundred services: memory, processor time, wakeups.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use crate::Failure;
use crate::clock::pause;
use crate::program::Ear;
use crate::stage::{Stage, group};
use crate::table::Row;

const SERVICES: u32 = 100;
const SETTLE: Duration = Duration::from_secs(15);
const WINDOW_S: u32 = 60;
/// Clock ticks of /proc per second.
const TICKS_PER_S: f64 = 100.0;

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let mut rows = series("no health checks", "", true)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream);
        }
    });
    let check =
        format!("[hooks.health-check]\nmodule = \"builtin:tcp\"\ninterval = \"10s\"\nargs = {{ address = \"{address}\" }}\n");
    rows.extend(series("builtin:tcp every 10 s", &check, false)?);
    Ok(rows)
}

fn series(words: &str, more: &str, held: bool) -> Result<Vec<Row>, Failure> {
    let mut stage = Stage::new();
    let ear = Ear::new(&stage.path("fifo"))?;
    for number in 0..SERVICES {
        let name = format!("web{number}");
        let text = group(&name, &ear.path, Some(&stage.path(&format!("mount-{name}"))), more)?;
        stage.repo.write(&format!("groups/{name}/group.toml"), &text);
        stage.repo.write(&format!("groups/{name}/config/app.conf.hbs"), "{{cfg.version}}\n");
    }
    stage.repo.release("v1.0.0");
    stage.supervise()?;
    let status = stage.wait_applied("v1.0.0")?;
    let supervisor = u32::try_from(status["supervisor"]["pid"].as_u64().ok_or("no pid in the status")?)?;
    let pids = [stage.keeper_pid(), supervisor];
    pause(SETTLE);
    let before = pids.map(ticks);
    let mut counters = Counters::default();
    for _ in 0..=WINDOW_S {
        for pid in pids {
            counters.look(pid);
        }
        pause(Duration::from_secs(1));
    }
    let ticks: Vec<f64> = pids.iter().zip(before).map(|(pid, before)| ticks(*pid) - before).collect();
    let share = ticks.iter().sum::<f64>() / TICKS_PER_S / f64::from(WINDOW_S) * 100.0;
    let (wakeups, busy) = counters.per_second(WINDOW_S);
    let memory = pids.map(|pid| (kib(pid, "status", "VmRSS:"), kib(pid, "smaps_rollup", "Pss:")));
    let rss = (memory[0].0 + memory[1].0) * 1024.0 / 1e6;
    let pss = (memory[0].1 + memory[1].1) * 1024.0 / 1e6;
    let parts = format!(
        "{rss:.1} MB (keeper {:.1}, supervisor {:.1}; PSS {pss:.1})",
        memory[0].0 * 1024.0 / 1e6,
        memory[1].0 * 1024.0 / 1e6
    );
    let cpu = format!("{share:.3} % over {WINDOW_S} s ({:.4} % by schedstat)", busy * 100.0);
    let woken = format!("{wakeups:.2} /s");
    let what = |figure: &str| format!("{figure}, {SERVICES} services, {words}");
    Ok(if held {
        vec![
            Row::new(what("RSS of keeper and supervisor"), "<= 25 MB", parts, rss <= 25.0),
            Row::new(what("CPU"), "<= 0.05 % of a core", cpu, share.min(busy * 100.0) <= 0.05),
            Row::new(what("wakeups"), "<= 2 /s", woken, wakeups <= 2.0),
        ]
    } else {
        vec![
            Row::told(what("RSS of keeper and supervisor"), parts),
            Row::told(what("CPU"), cpu),
            Row::told(what("wakeups"), woken),
        ]
    })
}

/// Processor time of a process, ended threads counted in.
pub(crate) fn ticks(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| rest.split_whitespace().collect());
    // Fields 14 and 15 of the whole line; the third is the first here.
    [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum()
}

pub(crate) fn kib(pid: u32, file: &str, key: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// Counters of threads by pid and tid: first and last seen, as threads come and go.
#[derive(Default)]
pub(crate) struct Counters {
    threads: BTreeMap<(u32, String), [(f64, f64); 2]>,
    looks: u32,
}

impl Counters {
    pub(crate) fn look(&mut self, pid: u32) {
        self.looks += 1;
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return };
        for task in tasks.flatten() {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let status = read("status");
            let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let switches = switches.and_then(|number| number.trim().parse().ok()).unwrap_or(0.0);
            let busy = read("schedstat").split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0.0);
            // A thread that was not there at the first look began at zero.
            let new = if self.looks <= 2 { [switches, busy] } else { [0.0, 0.0] };
            let key = (pid, task.file_name().to_string_lossy().into_owned());
            let known = self.threads.entry(key).or_insert([(new[0], 0.0), (new[1], 0.0)]);
            known[0].1 = switches;
            known[1].1 = busy;
        }
    }

    /// Wakeups per second, and the share of a core, where it was looked at once a second.
    pub(crate) fn per_second(&self, window_s: u32) -> (f64, f64) {
        let sum = |at: usize| self.threads.values().map(|counts| (counts[at].1 - counts[at].0).max(0.0)).sum::<f64>();
        (sum(0) / f64::from(window_s), sum(1) / 1e9 / f64::from(window_s))
    }
}
