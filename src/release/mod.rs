//! Which tag runs: candidates, verdicts, choice.
