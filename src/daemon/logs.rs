//! A service's output for one reader: what is kept, then what comes, noticed through the folder of the log.

use std::path::{Path, PathBuf};

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::api::{ApiError, Failure, LogQuery};
use crate::keeper::wire::log_dir;
use crate::model::LogLine;
use crate::process::{LogPosition, follow_logs};

/// Lines on their way to a reader; a slow one holds up its own reading only.
const LINES_BUFFERED: usize = 64;

/// Below which the logs of containers lie.
pub(super) fn of_containers(data_dir: &Path) -> PathBuf {
    data_dir.join("containers")
}

/// Opens the output of a service.
pub(super) async fn open(data_dir: &Path, query: LogQuery) -> Result<mpsc::Receiver<LogLine>, ApiError> {
    let (lines, reader) = mpsc::channel(LINES_BUFFERED);
    let data_dir = data_dir.to_owned();
    // Watched before the first look: a line in between is seen by one of them.
    let watch = if query.follow { Some(watch(&data_dir, &query)?) } else { None };
    let (kept, position) = read(&data_dir, &query, LogPosition::default()).await?;
    let kept = query.select(kept);
    tokio::spawn(async move {
        for line in kept {
            if lines.send(line).await.is_err() {
                return;
            }
        }
        if let Some((_watcher, changes)) = watch {
            follow(&data_dir, &query, position, changes, &lines).await;
        }
    });
    Ok(reader)
}

async fn follow(
    data_dir: &Path,
    query: &LogQuery,
    mut position: LogPosition,
    mut changes: mpsc::Receiver<()>,
    lines: &mpsc::Sender<LogLine>,
) {
    loop {
        tokio::select! {
            change = changes.recv() => if change.is_none() { return },
            () = lines.closed() => return,
        }
        let Ok((new, next)) = read(data_dir, query, position).await else { return };
        position = next;
        for line in new.into_iter().filter(|line| query.matches(line)) {
            if lines.send(line).await.is_err() {
                return;
            }
        }
    }
}

type Watching = (notify::RecommendedWatcher, mpsc::Receiver<()>);

fn watch(data_dir: &Path, query: &LogQuery) -> Result<Watching, ApiError> {
    let failed = |error: &dyn std::error::Error| ApiError::new(Failure::Internal, "LogsUnreadable", super::effects::chain(error));
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

async fn read(data_dir: &Path, query: &LogQuery, position: LogPosition) -> Result<(Vec<LogLine>, LogPosition), ApiError> {
    let (data_dir, group) = (data_dir.to_owned(), query.group.clone());
    let read = tokio::task::spawn_blocking(move || follow_logs(&data_dir, &group, &position)).await;
    let failed = |text: String| ApiError::new(Failure::Internal, "LogsUnreadable", text);
    let logs = read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(super::effects::chain(&error)))?;
    Ok((logs.lines, logs.position))
}
