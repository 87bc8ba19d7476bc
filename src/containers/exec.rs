//! Commands of health checks, run within a container by the engine.

use std::time::Duration;

use http_body_util::BodyExt as _;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::chain;
use super::engine::Engine;
use super::http::EngineError;
use crate::keeper::wire::EXEC_OUTPUT_MAX_BYTES;
use crate::model::Exit;

/// Bytes of a frame's head: the stream, three zeros, the length.
const HEAD_BYTES: usize = 8;
/// So much is read beyond what is kept before the front is dropped.
const SLACK_BYTES: usize = 64 * 1024;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How; `None` where its time was up.
    pub exit: Option<Exit>,
    /// The last of what it wrote; invalid UTF-8 replaced.
    pub output: String,
}

pub(super) async fn run(engine: &Engine, container: &str, argv: &[String], timeout: Duration) -> Result<Outcome, String> {
    let exec = engine.exec_create(container, argv).await.map_err(|error| chain(&error))?;
    let mut output = Vec::new();
    match tokio::time::timeout(timeout, read(engine, &exec, &mut output)).await {
        Ok(Ok(())) => {
            let ended = engine.exec_inspect(&exec).await.map_err(|error| chain(&error))?;
            Ok(Outcome { exit: Some(Exit::Code(ended.exit_code)), output: text(&output) })
        }
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => {
            end(engine, &exec).await;
            Ok(Outcome { exit: None, output: text(&output) })
        }
    }
}

async fn read(engine: &Engine, exec: &str, output: &mut Vec<u8>) -> Result<(), EngineError> {
    let mut body = engine.exec_start(exec).await?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| EngineError::Exchange { what: "run a command", source })?;
        output.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        drop_front(output);
    }
    Ok(())
}

/// Drops whole frames from the front, as long as enough is kept.
fn drop_front(output: &mut Vec<u8>) {
    while output.len() > EXEC_OUTPUT_MAX_BYTES + SLACK_BYTES {
        let Some(head) = output.get(..HEAD_BYTES) else { return };
        let length = HEAD_BYTES + u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length > output.len() {
            return;
        }
        output.drain(..length);
    }
}

/// The last of what stands in frames.
fn text(output: &[u8]) -> String {
    let mut content = Vec::new();
    let mut rest = output;
    while let Some((head, after)) = rest.split_at_checked(HEAD_BYTES) {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (piece, next) = after.split_at(length.min(after.len()));
        content.extend_from_slice(piece);
        rest = next;
    }
    let from = content.len().saturating_sub(EXEC_OUTPUT_MAX_BYTES);
    String::from_utf8_lossy(&content[from..]).into_owned()
}

/// The engine cannot end a command. Where its process is in sight and ours to signal, it is killed; identity is asked after
/// the descriptor is there, so that nobody else is meant.
async fn end(engine: &Engine, exec: &str) {
    let Ok(before) = engine.exec_inspect(exec).await else { return };
    let pid = before.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let Some(Ok(process)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return };
    let after = engine.exec_inspect(exec).await;
    if after.is_ok_and(|after| after.running && after.pid == before.pid) {
        // It may have ended meanwhile.
        let _ = pidfd_send_signal(&process, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_off_and_the_last_is_kept() {
        let frame = |text: &[u8]| {
            let length = u32::try_from(text.len()).unwrap().to_be_bytes();
            [&[1, 0, 0, 0][..], &length, text].concat()
        };
        assert_eq!(text(&[frame(b"one "), frame(b"two")].concat()), "one two");
        let mut output = Vec::new();
        for _ in 0..100 {
            output.extend(frame(&[b'x'; 4000]));
            drop_front(&mut output);
        }
        output.extend(frame(b"end"));
        assert!(output.len() < EXEC_OUTPUT_MAX_BYTES + SLACK_BYTES + 8000);
        assert!(text(&output).ends_with("xend") && text(&output).len() == EXEC_OUTPUT_MAX_BYTES);
    }
}
