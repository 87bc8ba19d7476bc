//! What the keeper weighs: its memory with no service and with a thousand, what the kernel holds for each, and what it does at
//! rest.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tagfall::keeper::wire::Request;
use tagfall::model::ServiceState;

use crate::Failure;
use crate::clock::pause;
use crate::direct::{Direct, service};
use crate::program::Ear;
use crate::rest::{Counters, kib};
use crate::stage::small_service;
use crate::table::Row;

const SERVICES: u32 = 1_000;
const SETTLE: Duration = Duration::from_secs(5);
const WINDOW_S: u32 = 60;
const BOUND: Duration = Duration::from_secs(60);
const WANTED_EMPTY_MB: f64 = 3.0;
const WANTED_EACH_KIB: f64 = 150.0;
const WANTED_WAKEUPS: f64 = 1.0;
const WANTED_CORE: f64 = 0.0001;

/// What the kernel holds beside pages of processes and files, in /proc/meminfo.
const OF_KERNEL: [&str; 4] = ["Slab:", "KernelStack:", "PageTables:", "Percpu:"];

/// Memory of the keeper, in KiB.
struct Weight {
    rss: f64,
    anonymous: f64,
    pss: f64,
    descriptors: usize,
}

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let bare = bare_kernel_kib()?;
    let dir = common::temp_dir();
    let mut ear = Ear::new(&dir.path().join("ear"))?;
    let mut direct = Direct::start(dir.path(), &[])?;
    pause(SETTLE);
    let empty = weigh(direct.keeper_pid());
    let kernel = kernel_kib();
    let (program, fifo) = (small_service()?, ear.path.display().to_string());
    let specs = (0..SERVICES).map(|number| service(&format!("bench{number}"), &[&program, "serve", &fifo]));
    let requests = specs.map(|spec| Ok(Request::Run(Box::new(spec?)))).collect::<Result<Vec<_>, Failure>>()?;
    direct.order(requests)?;
    direct.until("all run", BOUND, |direct| direct.count(ServiceState::Running) == SERVICES as usize)?;
    for _ in 0..SERVICES {
        ear.wait(BOUND, |line| line.kind == "main").ok_or("not all began")?;
    }
    pause(SETTLE);
    let full = weigh(direct.keeper_pid());
    let kernel = kernel_kib() - kernel - bare;
    let (wakeups, core) = at_rest(direct.keeper_pid());
    let mb = |kib: f64| kib * 1024.0 / 1e6;
    let words = |weight: &Weight| {
        let (rss, own, pss) = (mb(weight.rss), mb(weight.anonymous), mb(weight.pss));
        format!("{rss:.2} MB ({own:.2} anonymous; PSS {pss:.2}), {} descriptors", weight.descriptors)
    };
    let each = |after: f64, before: f64| (after - before) / f64::from(SERVICES);
    let (rss, pss) = (each(full.rss, empty.rss), each(full.pss, empty.pss));
    let (kernel, all) = (kernel / f64::from(SERVICES), rss + kernel.max(0.0) / f64::from(SERVICES));
    let descriptors = each(full.descriptors as f64, empty.descriptors as f64);
    let parts = format!("{all:.1} KiB: RSS {rss:.1} (PSS {pss:.1}), kernel {kernel:.1}; {descriptors:.1} descriptors");
    Ok(vec![
        Row::new("RSS of the keeper, no service", "<= 3 MB", words(&empty), mb(empty.rss) <= WANTED_EMPTY_MB),
        Row::told(format!("RSS of the keeper, {SERVICES} services"), words(&full)),
        Row::new("each service, beside what a process costs the kernel anyway", "<= 150 KiB", parts, all <= WANTED_EACH_KIB),
        Row::new(
            format!("wakeups of the keeper at rest, {SERVICES} services"),
            "<= 1 /s",
            format!("{wakeups:.3} /s over {WINDOW_S} s"),
            wakeups <= WANTED_WAKEUPS,
        ),
        Row::new(
            format!("its processor time, {SERVICES} services"),
            "<= 0.01 % of a core",
            format!("{:.5} %", core * 100.0),
            core <= WANTED_CORE,
        ),
    ])
}

fn weigh(pid: u32) -> Weight {
    Weight {
        rss: kib(pid, "status", "VmRSS:"),
        anonymous: kib(pid, "status", "RssAnon:"),
        pss: kib(pid, "smaps_rollup", "Pss:"),
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
    }
}

fn kernel_kib() -> f64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |line: &str| line.split_whitespace().nth(1).and_then(|number| number.parse::<f64>().ok());
    text.lines().filter(|line| OF_KERNEL.iter().any(|key| line.starts_with(key))).filter_map(value).sum()
}

/// What the kernel takes for as many processes that nobody looks after.
fn bare_kernel_kib() -> Result<f64, Failure> {
    let dir = common::temp_dir();
    let mut ear = Ear::new(&dir.path().join("ear"))?;
    let before = kernel_kib();
    let mut children = Bare(Vec::new());
    for _ in 0..SERVICES {
        let mut command = Command::new(small_service()?);
        command.arg("serve").arg(&ear.path).stdin(Stdio::null()).stdout(Stdio::null());
        children.0.push(command.spawn()?);
    }
    for _ in 0..SERVICES {
        ear.wait(BOUND, |line| line.kind == "main").ok_or("not all began")?;
    }
    pause(SETTLE);
    Ok(kernel_kib() - before)
}

struct Bare(Vec<Child>);

impl Drop for Bare {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn at_rest(pid: u32) -> (f64, f64) {
    let mut counters = Counters::default();
    for _ in 0..=WINDOW_S {
        counters.look(pid);
        pause(Duration::from_secs(1));
    }
    counters.per_second(WINDOW_S)
}
