//! The `tagfall` program.

fn main() {}
