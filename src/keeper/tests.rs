//! The keeper in a simulated kernel: its state table, its search for leftovers and its journal, with everything around them made
//! up: processes that fork away, lie, hang and get each other's numbers, a keeper that is killed between any two things that it
//! does, records that are lost, a supervisor that goes and comes.
//!
//! One heap of events; faults first, then everything heals and progress is demanded. The kernel keeps the truth apart from what
//! the keeper believes, and the invariants are held against the truth after each event. The same seed gives the same bytes. A
//! failing seed is printed: add it to [`REGRESSIONS`] with the fix.
//!
//! `TAGFALL_SIM_SEEDS=N` runs N seeds; `TAGFALL_SIM_SEED=S` runs one and prints its trace.

mod asks;
mod checks;
mod kernel;
mod life;
#[path = "../../tests/sim/random.rs"]
mod random;
#[path = "../../tests/sim/seeds.rs"]
mod seeds;
mod shell;
mod world;

use world::{Totals, World};

/// Seeds of an ordinary run.
const SEEDS: u64 = 500;

/// Seeds that once found a bug.
const REGRESSIONS: [u64; 0] = [];

#[test]
fn every_seed_keeps_the_invariants_and_ends_as_it_is_wanted() {
    if let Some(seed) = seeds::alone() {
        let mut world = World::new(seed);
        world.print = true;
        world.run();
        return;
    }
    let count = seeds::wanted(SEEDS);
    let mut totals = Totals::default();
    let run = |seed| {
        let mut world = World::new(seed);
        world.run();
        world.totals
    };
    seeds::run_all(&REGRESSIONS, count, "cargo test --lib keeper::tests", run, |run| totals.add(&run));
    println!("{count} seeds: {totals:?}");
    let Totals { deaths, exchanges, adopted, starts, stuck, unknown, damaged, silent, renamed, events: _ } = totals;
    let all = [deaths, exchanges, adopted, starts, stuck, unknown, damaged, silent, renamed];
    assert!(all.iter().all(|count| *count > 0) || count < SEEDS, "something was not exercised: {totals:?}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    seeds::assert_repeats(|seed| {
        let mut world = World::new(seed);
        world.run();
        world.trace
    });
}
