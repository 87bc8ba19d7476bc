//! The loop: events in, plan, effects out.
