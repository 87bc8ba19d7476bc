//! From what is wanted and what is observed to actions and waits.
