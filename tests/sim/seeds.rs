//! Many seeds, each shut off from the next one's failure; the first that fails says how it is seen alone.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A number that an environment variable gives.
pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// The one seed that is to be seen, with its trace.
pub(crate) fn alone() -> Option<u64> {
    number("TAGFALL_SIM_SEED")
}

/// How many seeds are to be run.
pub(crate) fn wanted(usual: u64) -> u64 {
    number("TAGFALL_SIM_SEEDS").unwrap_or(usual)
}

/// Runs these, and first those that once found a bug; `tests` is the command that runs them.
pub(crate) fn run_all<T>(regressions: &[u64], seeds: u64, tests: &str, run: impl Fn(u64) -> T, mut add: impl FnMut(T)) {
    for seed in regressions.iter().copied().chain(1..=seeds) {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(outcome) => add(outcome),
            Err(_) => panic!("seed {seed} failed: TAGFALL_SIM_SEED={seed} {tests} shows its trace"),
        }
    }
}

/// Whether the same seed gives the same bytes, whenever it is run.
pub(crate) fn assert_repeats(trace: impl Fn(u64) -> String) {
    for seed in 1..=20 {
        assert!(trace(seed) == trace(seed), "seed {seed} gave two different traces");
    }
}
