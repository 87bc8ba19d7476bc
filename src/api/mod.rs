//! HTTP over the unix socket and loopback TCP.
