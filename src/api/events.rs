//! Events as server-sent events: what is kept, then what comes, none lost and none twice.
//!
//! No keep-alive is sent: the kernel's own (set on TCP connections) finds dead readers without waking this process.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use super::port::Daemon;
use super::wire::Event;

struct Follower<D> {
    daemon: D,
    receiver: broadcast::Receiver<Event>,
    pending: VecDeque<Event>,
    last: u64,
    _place: OwnedSemaphorePermit,
}

impl<D: Daemon> Follower<D> {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            match self.pending.pop_front() {
                // Subscribing comes before reading what is kept, so an event may be in both.
                Some(event) if event.id <= self.last => {}
                Some(event) => {
                    self.last = event.id;
                    return Some((Ok(frame(&event)), self));
                }
                None => match self.receiver.recv().await {
                    Ok(event) => self.pending.push_back(event),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.pending.extend(self.daemon.events_since(self.last)),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            }
        }
    }
}

fn frame(event: &Event) -> Bytes {
    let json = serde_json::to_string(event).unwrap_or_default();
    Bytes::from(format!("id: {}\ndata: {json}\n\n", event.id))
}

/// Answers with events after `since`, and all that follow; `place` is given back when the reader goes.
pub(super) fn follow<D: Daemon>(daemon: D, since: u64, place: OwnedSemaphorePermit) -> Response {
    let receiver = daemon.events();
    let pending = VecDeque::from(daemon.events_since(since));
    let follower = Follower { daemon, receiver, pending, last: since, _place: place };
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(stream::unfold(follower, Follower::next))).into_response()
}

/// Places for readers that stay.
pub(super) type Places = Arc<tokio::sync::Semaphore>;
