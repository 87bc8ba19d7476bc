//! How far `hardening = "strict"` shuts a service in.

/// What the fixture tries.
pub(crate) fn probe(_what: &str) {}
