//! What takes time: making, signalling and removing a container. Each job answers with one message.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::engine::{Container, Engine};
use super::http::EngineError;
use crate::model::{Exit, Signal};

/// After SIGKILL, how long the end of a container is waited for; then it is tried again, and called stuck after a while.
const KILL_MAX: Duration = Duration::from_secs(10);
/// How long the rest of the output may take to come before a container is removed with it.
const LOGS_MAX: Duration = Duration::from_secs(3);

/// How a job went.
pub(super) enum Done {
    /// A container was made and started.
    Spawned(Container),
    /// It could not be.
    SpawnFailed(EngineError),
    /// The image is not there.
    ImageMissing,
    /// The signal was sent, or there was nobody to send it to.
    Signalled(Result<(), EngineError>),
    /// Nothing is left, and how it ended.
    Cleared(Option<Exit>),
    /// Something may be left.
    ClearFailed(EngineError),
}

/// Makes and starts a container. What an earlier try of ours left under the name is taken away first.
pub(super) async fn spawn(engine: &Engine, name: &str, body: Value) -> Done {
    match try_spawn(engine, name, body).await {
        Ok(Some(container)) => Done::Spawned(container),
        Ok(None) => Done::ImageMissing,
        Err(error) => Done::SpawnFailed(error),
    }
}

async fn try_spawn(engine: &Engine, name: &str, body: Value) -> Result<Option<Container>, EngineError> {
    engine.remove(name).await?;
    let id = match engine.create(name, body).await {
        Ok(id) => id,
        Err(error) if error.is(StatusCode::NOT_FOUND) => return Ok(None),
        Err(error) => return Err(error),
    };
    if let Err(error) = engine.start(&id).await {
        // What cannot be removed now is removed before the next try.
        let _ = engine.remove(&id).await;
        return Err(error);
    }
    let what = "inspect a container";
    let gone = || EngineError::Answer { what, message: "it was removed as soon as it was started".to_owned() };
    engine.inspect(&id).await?.ok_or_else(gone).map(Some)
}

pub(super) async fn signal(engine: &Engine, id: Option<&str>, signal: Signal) -> Done {
    let Some(id) = id else { return Done::Signalled(Ok(())) };
    Done::Signalled(engine.kill(id, signal.0).await)
}

/// Kills what is left, lets the output come to its end, and removes the container, unless it stays to tell how it ended.
pub(super) async fn clear(engine: &Engine, name: &str, logs: Option<JoinHandle<()>>, stays: bool) -> Done {
    match try_clear(engine, name, logs, stays).await {
        Ok(exit) => Done::Cleared(exit),
        Err(error) => Done::ClearFailed(error),
    }
}

async fn try_clear(engine: &Engine, name: &str, logs: Option<JoinHandle<()>>, stays: bool) -> Result<Option<Exit>, EngineError> {
    engine.kill(name, Signal::KILL.0).await?;
    let exit = engine.wait(name, KILL_MAX).await?.map(Exit::Code);
    if let Some(mut logs) = logs
        && tokio::time::timeout(LOGS_MAX, &mut logs).await.is_err()
    {
        logs.abort();
    }
    if !stays {
        engine.remove(name).await?;
    }
    Ok(exit)
}
