//! What the engine tells unasked: ends of containers. Also how a connection begins: first the events, then the list, so that
//! an end in between is seen by one of them.

use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::mpsc;

use super::chain;
use super::engine::{Container, Engine, Lines};
use super::http::EngineError;
use super::labels::{self, GROUP};
use super::room::Message;
use crate::model::{Exit, GroupName};

/// Connects, tells what is there and what happens, and ends when the engine does: with [`Message::Lost`].
pub(super) async fn follow(engine: Engine, data_dir: String, room: mpsc::UnboundedSender<Message>) {
    let why = match run(&engine, &data_dir, &room).await {
        Ok(()) => format!("the container engine at `{}` has ended the connection", engine.socket().display()),
        Err(why) => why,
    };
    // The room ends with the process only.
    let _ = room.send(Message::Lost(why));
}

async fn run(engine: &Engine, data_dir: &str, room: &mpsc::UnboundedSender<Message>) -> Result<(), String> {
    let mut body = engine.events(data_dir).await.map_err(|error| chain(&error))?;
    let found: Vec<Container> = engine.ours(data_dir).await.map_err(|error| chain(&error))?;
    let _ = room.send(Message::Connected(found));
    let mut lines = Lines::default();
    while let Some(frame) = body.frame().await {
        let what = "tell of events";
        let frame = frame.map_err(|source| chain(&EngineError::Exchange { what, source }))?;
        lines.push(frame.data_ref().map_or(&[], |data| data));
        while let Some(line) = lines.next_line() {
            if let Some(message) = message(&line) {
                let _ = room.send(message);
            }
        }
    }
    Ok(())
}

/// One event; `None` for what says nothing to us.
fn message(line: &[u8]) -> Option<Message> {
    let event: Value = serde_json::from_slice(line).ok()?;
    let attributes = &event["Actor"]["Attributes"];
    let group: GroupName = labels::get(attributes, GROUP)?.parse().ok()?;
    let id = event["Actor"]["ID"].as_str()?.to_owned();
    match event["Action"].as_str()? {
        "die" => {
            // Docker says `exitCode`, Podman `containerExitCode`.
            let code = ["exitCode", "containerExitCode"].into_iter().find_map(|name| labels::get(attributes, name));
            let exit = code.and_then(|code| code.parse().ok()).map_or(Exit::Unknown, Exit::Code);
            Some(Message::Died { group, id, exit })
        }
        "oom" => Some(Message::OutOfMemory { group, id }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_with_their_code() {
        let line = br#"{"Action":"die","Actor":{"ID":"ab","Attributes":{"exitCode":"3","tagfall.group":"web.default"}}}"#;
        let Some(Message::Died { group, id, exit }) = message(line) else { panic!("no end") };
        assert_eq!((group.to_string().as_str(), id.as_str(), exit), ("web.default", "ab", Exit::Code(3)));
        for nothing in ["", "{}", r#"{"Action":"die","Actor":{"ID":"ab","Attributes":{}}}"#, "[1]"] {
            assert!(message(nothing.as_bytes()).is_none(), "{nothing}");
        }
    }
}
