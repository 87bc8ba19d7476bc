//! Tests of the whole room: bad input first.
