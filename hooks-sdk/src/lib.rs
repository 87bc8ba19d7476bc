//! Write Tagfall hooks in Rust.
