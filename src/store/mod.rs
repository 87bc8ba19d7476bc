//! Durable state of the supervisor.
