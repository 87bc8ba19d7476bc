//! A whole host simulated: Git, disk, keeper, processes, clock and crashes, around the very core that the daemon drives.
//!
//! One heap of events; faults first, then everything heals and progress is demanded. The world keeps its own truth apart
//! from what the supervisor believes, and checks the invariants against the truth at every step. The same seed gives the
//! same bytes. A failing seed is printed: add it to [`REGRESSIONS`] with the fix.
//!
//! `TAGFALL_SIM_SEEDS=N` runs N seeds; `TAGFALL_SIM_SEED=S` runs one and prints its trace.

mod checks;
mod faults;
mod git;
mod hooks;
mod host;
mod random;
mod seeds;
mod world;

use tagfall::model::HookKind;
use world::World;

/// Seeds of an ordinary run.
const SEEDS: u64 = 4_000;
/// Seeds that once found a bug.
const REGRESSIONS: [u64; 6] = [40, 282, 1089, 1258, 1292, 2206];

#[test]
fn every_seed_keeps_the_invariants_and_converges() {
    if let Some(seed) = seeds::alone() {
        let mut world = World::new(seed);
        world.print = true;
        world.run();
        return;
    }
    let count = seeds::wanted(SEEDS);
    let mut totals = world::Totals::default();
    let run = |seed| {
        let mut world = World::new(seed);
        world.run();
        world.totals
    };
    seeds::run_all(&REGRESSIONS, count, "cargo test --test sim", run, |run| totals.add(&run));
    eprintln!("{count} seeds: {totals:?}");
    assert!(
        totals.crashes > 0 && totals.refused > 0 && totals.reloads > 0 && totals.restarts > 0,
        "faults were not exercised: {totals:?}"
    );
    let called = HookKind::ALL.into_iter().filter(|kind| !matches!(kind, HookKind::HealthCheck | HookKind::FileUpdated));
    for kind in called {
        assert!(totals.calls[kind as usize] > 0, "`{}` was never called: {totals:?}", kind.name());
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    seeds::assert_repeats(|seed| {
        let mut world = World::new(seed);
        world.run();
        world.trace
    });
}
