//! Writes publications, switches them in, watches for drift.
