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
mod host;
mod random;
mod trust;
mod world;

use world::World;

/// Seeds of an ordinary run.
const SEEDS: u64 = 4_000;
/// Seeds that once found a bug.
const REGRESSIONS: [u64; 6] = [40, 282, 1089, 1258, 1292, 2206];

fn seeds() -> u64 {
    std::env::var("TAGFALL_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn every_seed_keeps_the_invariants_and_converges() {
    if let Some(seed) = std::env::var("TAGFALL_SIM_SEED").ok().and_then(|text| text.parse().ok()) {
        let mut world = World::new(seed);
        world.print = true;
        world.run();
        return;
    }
    let mut totals = world::Totals::default();
    for seed in REGRESSIONS.into_iter().chain(1..=seeds()) {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run();
            world.totals
        });
        match outcome {
            Ok(run) => totals.add(&run),
            Err(_) => panic!("seed {seed} failed: TAGFALL_SIM_SEED={seed} cargo test --test sim shows its trace"),
        }
    }
    eprintln!("{} seeds: {totals:?}", seeds());
    assert!(
        totals.crashes > 0
            && totals.refused > 0
            && totals.reloads > 0
            && totals.restarts > 0
            && totals.trust > 0
            && totals.moved > 0
            && totals.words > 0,
        "faults were not exercised: {totals:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 1..=20 {
        let trace = |seed| {
            let mut world = World::new(seed);
            world.run();
            world.trace
        };
        let (one, two) = (trace(seed), trace(seed));
        assert!(one == two, "seed {seed} gave two different traces");
    }
}
