//! The supervisor's side of the keeper's socket.
