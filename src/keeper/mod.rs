//! The small process that owns all services.
