//! A service's output for one reader: what is kept, then what comes, noticed through the folder of the log. However much that
//! is, one read of it is in memory at a time.

use std::path::{Path, PathBuf};

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::api::{ApiError, Failure, LogQuery};
use crate::keeper::wire::log_dir;
use crate::model::LogLine;
use crate::process::{LogReader, LogsError};

/// Lines on their way to a reader; a slow one holds up its own reading only.
const LINES_BUFFERED: usize = 64;

/// Below which the logs of containers lie.
pub(super) fn of_containers(data_dir: &Path) -> PathBuf {
    data_dir.join("containers")
}

/// Opens the output of a service.
pub(super) async fn open(data_dir: &Path, query: LogQuery) -> Result<mpsc::Receiver<LogLine>, ApiError> {
    let (lines, wanted) = mpsc::channel(LINES_BUFFERED);
    let data_dir = data_dir.to_owned();
    // Watched before the first look: a line in between is seen by one of them.
    let watch = if query.follow { Some(watch(&data_dir, &query)?) } else { None };
    let LogQuery { group, filter, .. } = query;
    let reader = off(move || LogReader::open(&data_dir, &group, filter)).await?;
    tokio::spawn(async move {
        let mut reader = kept(reader, &lines).await;
        let Some((_watcher, mut changes)) = watch else { return };
        while let Some(standing) = reader {
            tokio::select! {
                change = changes.recv() => if change.is_none() { return },
                () = lines.closed() => return,
            }
            reader = kept(standing, &lines).await;
        }
    });
    Ok(wanted)
}

/// Hands on what there is by now. `None`: it cannot be read, or nobody wants it any more.
async fn kept(mut reader: LogReader, lines: &mpsc::Sender<LogLine>) -> Option<LogReader> {
    loop {
        let read = off(move || {
            let some = reader.read()?;
            Ok((reader, some))
        });
        let some;
        (reader, some) = read.await.inspect_err(|error| tracing::warn!(error = error.message, "lines cannot be read")).ok()?;
        let Some(some) = some else { return Some(reader) };
        for line in some {
            lines.send(line).await.ok()?;
        }
    }
}

type Watching = (notify::RecommendedWatcher, mpsc::Receiver<()>);

fn watch(data_dir: &Path, query: &LogQuery) -> Result<Watching, ApiError> {
    let failed = |error: &dyn std::error::Error| unreadable(super::effects::chain(error));
    let (wake, changes) = mpsc::channel(1);
    let folder = log_dir(data_dir, &query.group);
    std::fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // Full means that a look is due already.
            let _ = wake.try_send(());
        }
    })
    .map_err(|error| failed(&error))?;
    watcher.watch(&folder, RecursiveMode::NonRecursive).map_err(|error| failed(&error))?;
    Ok((watcher, changes))
}

fn unreadable(text: String) -> ApiError {
    ApiError::new(Failure::Internal, "LogsUnreadable", text)
}

/// Reads away from the loop.
async fn off<T: Send + 'static>(read: impl FnOnce() -> Result<T, LogsError> + Send + 'static) -> Result<T, ApiError> {
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(|error| unreadable(error.to_string()))?.map_err(|error| unreadable(super::effects::chain(&error)))
}
