//! HTTP over the unix socket and loopback TCP: what a supervisor shows and takes.
//!
//! The wire types live in [`wire`]; the core's own types are not serialised. The supervisor stands behind [`Daemon`], so
//! this room never decides anything: it checks who asks ([`Door`]), asks the daemon, and writes down the answer. Nothing
//! here ticks; a connection that nobody uses costs no wake-up.
//!
//! To add a read: a variant of [`Query`] and of [`Answer`], its wire type, one handler in `routes.rs`, one line in the
//! router. To add a write: a variant of [`Command`] and a handler that takes the [`Caller`].

mod door;
mod events;
mod metrics;
mod port;
mod routes;
mod serve;
pub mod wire;

#[cfg(test)]
mod tests;

pub use door::{Door, DoorError, Peer, Token};
pub use port::{Answer, ApiError, Caller, Command, Daemon, Failure, LogQuery, Query, ReleaseVerb, ServiceVerb};
pub use routes::router;
pub use serve::{ServeError, UnixDoor, bind_tcp, bind_unix, default_socket, serve_tcp, serve_unix};
