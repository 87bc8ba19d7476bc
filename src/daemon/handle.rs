//! The loop as the API sees it: snapshots to read, a channel to ask through.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{broadcast, mpsc, oneshot};

use super::context::Context;
use super::{answers, logs};
use crate::api::{self, Answer, ApiError, Caller, Command, Failure, LogQuery, Query, wire};
use crate::model::LogLine;
use crate::store::Events;

/// Events that a slow reader may be behind before it has to catch up from the log.
pub(super) const EVENTS_BUFFERED: usize = 256;

/// A command on its way into the loop.
pub(super) struct Asked {
    pub(super) command: Command,
    pub(super) caller: Caller,
    pub(super) answer: oneshot::Sender<Result<(), ApiError>>,
}

/// A question on its way into the loop: answered from a copy of the core.
pub(super) type Question = oneshot::Sender<answers::Facts>;

/// What the loop hears from the API.
pub(super) enum Request {
    Command(Asked),
    Facts(Question),
}

/// What the loop shows.
pub(super) struct Shown {
    status: Mutex<Arc<wire::Status>>,
    pub(super) log: Events,
    pub(super) events: broadcast::Sender<wire::Event>,
}

impl Shown {
    pub(super) fn new(status: wire::Status, log: Events) -> Self {
        Self { status: Mutex::new(Arc::new(status)), log, events: broadcast::channel(EVENTS_BUFFERED).0 }
    }

    pub(super) fn set(&self, status: wire::Status) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(status);
    }
}

/// A handle for the API.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) shown: Arc<Shown>,
    pub(super) context: Arc<Context>,
    pub(super) requests: mpsc::Sender<Request>,
}

fn gone() -> ApiError {
    ApiError::new(Failure::Unavailable, "ShuttingDown", "the supervisor is shutting down")
}

impl api::Daemon for Handle {
    fn status(&self) -> Arc<wire::Status> {
        self.shown.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn events_since(&self, id: u64) -> Vec<wire::Event> {
        let kept = self.shown.log.read_since(id).unwrap_or_else(|error| {
            tracing::warn!(error = super::effects::chain(&error), "the event log cannot be read");
            Vec::new()
        });
        kept.into_iter().filter_map(super::turning::wire_event).collect()
    }

    fn last_event(&self) -> u64 {
        self.shown.log.last_id()
    }

    fn events(&self) -> broadcast::Receiver<wire::Event> {
        self.shown.events.subscribe()
    }

    async fn ask(&self, query: Query) -> Result<Answer, ApiError> {
        let (answer, facts) = oneshot::channel();
        self.requests.send(Request::Facts(answer)).await.map_err(|_| gone())?;
        let facts = facts.await.map_err(|_| gone())?;
        answers::answer(&self.context, facts, query).await
    }

    async fn logs(&self, query: LogQuery) -> Result<mpsc::Receiver<LogLine>, ApiError> {
        let data_dir = &self.context.data_dir;
        let folder = if self.context.containers.owns(&query.group) { logs::of_containers(data_dir) } else { data_dir.clone() };
        logs::open(&folder, query).await
    }

    async fn command(&self, command: Command, caller: Caller) -> Result<(), ApiError> {
        let (answer, done) = oneshot::channel();
        self.requests.send(Request::Command(Asked { command, caller, answer })).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }
}
