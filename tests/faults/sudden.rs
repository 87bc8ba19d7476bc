//! SIGKILL of the supervisor at random moments, while somebody reads what is published all the time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Supervisor, wait_for};

use crate::host::{Host, WEB, one_version, supervisor_pid};

const ROUNDS: u32 = 20;
/// From SIGKILL to the next supervisor's first answer.
const API_BACK_MAX: Duration = Duration::from_secs(2);
/// An update on an idle machine takes less; a kill after it hits a supervisor at rest, which is a moment too.
const MOMENT_MAX_US: u64 = 150_000;
/// Printed with a failure: the same seed gives the same moments.
const SEED: u64 = 20_261_121;

/// Numbers that look random (a linear congruential generator, Knuth's constants).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What the readers looked at.
#[derive(Default)]
struct Reads {
    stop: AtomicBool,
    service: AtomicU64,
    host: AtomicU64,
    inside: AtomicU64,
}

/// Reads both files as the host and as the service sees them, until told to stop. `one_version` panics where they differ.
fn read_all_the_time(mount: &Path, reads: &Reads) {
    while !reads.stop.load(Ordering::Relaxed) {
        one_version(mount).unwrap_or_else(|error| panic!("the host's path was not readable: {error}"));
        reads.host.fetch_add(1, Ordering::Relaxed);
        let pid = reads.service.load(Ordering::Relaxed);
        let seen = PathBuf::from(format!("/proc/{pid}/root")).join(mount.strip_prefix("/").unwrap_or(mount));
        // A process that was replaced meanwhile has no view any more.
        if one_version(&seen).is_ok() {
            reads.inside.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn killed_at_random_moments_restarts_nothing_and_ends_on_the_newest_release() {
    let host = Host::start();
    let reads = Reads::default();
    reads.service.store(host.pid(), Ordering::Relaxed);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_all_the_time(&host.mount(), &reads));
        // Ends the reader also where a round fails.
        let stop = StopOnDrop(&reads);
        rounds(&host, &reads);
        drop(stop);
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let (outside, inside) = (reads.host.load(Ordering::Relaxed), reads.inside.load(Ordering::Relaxed));
    println!("{ROUNDS} kills; {outside} reads of the host's path and {inside} of the service's, none torn");
    assert!(outside > 100 && inside > 100, "{outside} and {inside} reads");
}

struct StopOnDrop<'a>(&'a Reads);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

fn rounds(host: &Host, reads: &Reads) {
    let mut dice = Dice(SEED);
    let mut starts = 1;
    let mut mark = "one".to_owned();
    let mut slowest = Duration::ZERO;
    for round in 1..=ROUNDS {
        let version = format!("v1.1.{round}");
        host.write(&version);
        if dice.below(2) == 1 {
            mark.clone_from(&version);
            starts += 1;
        }
        host.repo.write(WEB, &host.group_with(&host.service(&mark), &version));
        let supervisor = host.supervisor_pid();
        let moment = Duration::from_micros(dice.below(MOMENT_MAX_US));
        host.repo.release(&version);
        // The moment itself is what is tried here: nothing is waited for.
        std::thread::park_timeout(moment);
        Supervisor::signal(supervisor, "KILL");
        let begun = Instant::now();
        wait_for(&format!("seed {SEED}, round {round}: the API is back"), API_BACK_MAX, || {
            let pid = supervisor_pid(&host.supervisor.status()?)?;
            if pid == supervisor { Err("still the old one".to_owned()) } else { Ok(()) }
        });
        slowest = slowest.max(begun.elapsed());
        host.wait_applied(&version, starts);
        assert_eq!(host.web()["service"]["restarts"], 0, "seed {SEED}, round {round} after {moment:?}");
        reads.service.store(host.pid(), Ordering::Relaxed);
    }
    println!("the API was back after {slowest:?} at most");
}
