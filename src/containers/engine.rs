//! What the engine can be asked for, each with its bound. Paths bear no version: the engine takes them as its own newest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::StatusCode;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::http::{Ask, Client, EngineError, encoded};
use super::labels::{self, DATA_DIR};

/// Longest wait for an answer that should come at once.
const CALL_MAX: Duration = Duration::from_secs(15);
/// Longest wait for a container to be made, started or removed: on a slow disk, its files are copied.
const CHANGE_MAX: Duration = Duration::from_secs(120);
/// Longest wait for an image.
const PULL_MAX: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Clone)]
pub(super) struct Engine {
    client: Client,
}

/// How a container stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) running: bool,
    pub(super) pid: Option<u32>,
    pub(super) exit_code: i32,
    pub(super) labels: Value,
}

/// How a command within a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exec {
    pub(super) running: bool,
    pub(super) pid: Option<u32>,
    pub(super) exit_code: i32,
}

fn parse(what: &'static str, bytes: &[u8]) -> Result<Value, EngineError> {
    serde_json::from_slice(bytes).map_err(|error| EngineError::Answer { what, message: error.to_string() })
}

fn number(value: &Value) -> i32 {
    value.as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or(-1)
}

fn pid(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0)
}

fn id(what: &'static str, value: &Value) -> Result<String, EngineError> {
    let id = value["Id"].as_str().map(str::to_owned);
    id.ok_or_else(|| EngineError::Answer { what, message: "it has no `Id`".to_owned() })
}

/// An error that only says that there is nothing to be done.
fn unless(status: &[StatusCode], error: EngineError) -> Result<(), EngineError> {
    if status.iter().any(|status| error.is(*status)) { Ok(()) } else { Err(error) }
}

impl Engine {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { client: Client::new(socket) }
    }

    /// Where it is asked.
    pub(super) fn socket(&self) -> &Path {
        self.client.socket()
    }

    /// All containers of a data directory, running or not.
    pub(super) async fn ours(&self, data_dir: &str) -> Result<Vec<Container>, EngineError> {
        let what = "list containers";
        let filters = json!({ "label": [format!("{DATA_DIR}={data_dir}")] }).to_string();
        let path = format!("/containers/json?all=true&filters={}", encoded(&filters));
        let listed = parse(what, &self.client.call(Ask::get(what, path), CALL_MAX).await?)?;
        let mut found = Vec::new();
        for listed in listed.as_array().into_iter().flatten() {
            // One that went in between is no trouble.
            if let Some(container) = self.inspect(&id(what, listed)?).await? {
                found.push(container);
            }
        }
        Ok(found)
    }

    /// `None` where there is none.
    pub(super) async fn inspect(&self, name: &str) -> Result<Option<Container>, EngineError> {
        let what = "inspect a container";
        let answer = match self.client.call(Ask::get(what, format!("/containers/{name}/json")), CALL_MAX).await {
            Ok(answer) => parse(what, &answer)?,
            Err(error) if error.is(StatusCode::NOT_FOUND) => return Ok(None),
            Err(error) => return Err(error),
        };
        let state = &answer["State"];
        Ok(Some(Container {
            id: id(what, &answer)?,
            running: state["Running"] == true,
            pid: pid(&state["Pid"]),
            exit_code: number(&state["ExitCode"]),
            labels: answer["Config"]["Labels"].clone(),
        }))
    }

    pub(super) async fn create(&self, name: &str, body: Value) -> Result<String, EngineError> {
        let what = "create a container";
        let path = format!("/containers/create?name={}", encoded(name));
        let answer = self.client.call(Ask::post(what, path, Some(body)), CHANGE_MAX).await?;
        id(what, &parse(what, &answer)?)
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), EngineError> {
        let ask = Ask::post("start a container", format!("/containers/{id}/start"), None);
        self.client.call(ask, CHANGE_MAX).await.map(drop)
    }

    /// Sends a signal; one that has ended needs none.
    pub(super) async fn kill(&self, id: &str, signal: i32) -> Result<(), EngineError> {
        let ask = Ask::post("signal a container", format!("/containers/{id}/kill?signal={signal}"), None);
        let gone = [StatusCode::NOT_FOUND, StatusCode::CONFLICT];
        self.client.call(ask, CALL_MAX).await.map(drop).or_else(|error| unless(&gone, error))
    }

    /// Waits for the end of one; `None` where it is gone.
    pub(super) async fn wait(&self, id: &str, bound: Duration) -> Result<Option<i32>, EngineError> {
        let what = "wait for the end of a container";
        match self.client.call(Ask::post(what, format!("/containers/{id}/wait"), None), bound).await {
            Ok(answer) => Ok(Some(number(&parse(what, &answer)?["StatusCode"]))),
            Err(error) if error.is(StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes one with its anonymous volumes, running or not.
    pub(super) async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let ask = Ask::delete("remove a container", format!("/containers/{name}?force=true&v=true"));
        self.client.call(ask, CHANGE_MAX).await.map(drop).or_else(|error| unless(&[StatusCode::NOT_FOUND], error))
    }

    /// Fetches an image. The engine answers 200 at once and tells of failures in the stream.
    pub(super) async fn pull(&self, image: &str) -> Result<(), EngineError> {
        let what = "fetch an image";
        // Without a tag or digest, the engine would fetch all tags.
        let last = image.rsplit('/').next().unwrap_or(image);
        let tag = if last.contains(':') || image.contains('@') { "" } else { "&tag=latest" };
        let path = format!("/images/create?fromImage={}{tag}", encoded(image));
        let mut body = self.client.stream(Ask::post(what, path, None), PULL_MAX).await?;
        let read = async {
            let mut lines = Lines::default();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|source| EngineError::Exchange { what, source })?;
                lines.push(frame.data_ref().map_or(&[], |data| data));
                while let Some(line) = lines.next_line() {
                    let said: Value = serde_json::from_slice(&line).unwrap_or_default();
                    if let Some(message) = said["error"].as_str() {
                        return Err(EngineError::Refused { what, status: 0, message: message.to_owned() });
                    }
                }
            }
            Ok(())
        };
        tokio::time::timeout(PULL_MAX, read).await.unwrap_or(Err(EngineError::TimedOut { what, bound: PULL_MAX }))
    }

    /// Lines of JSON, one for each end of a container of a data directory, and for each that ran out of memory.
    pub(super) async fn events(&self, data_dir: &str) -> Result<Incoming, EngineError> {
        let label = format!("{DATA_DIR}={data_dir}");
        let filters = json!({ "type": ["container"], "event": ["die", "oom"], "label": [label] }).to_string();
        let ask = Ask::get("tell of events", format!("/events?filters={}", encoded(&filters)));
        self.client.stream(ask, CALL_MAX).await
    }

    /// Output from a moment on (seconds since 1970, with a fraction), and all that follows, in frames.
    pub(super) async fn logs(&self, id: &str, since: Option<&str>) -> Result<Incoming, EngineError> {
        let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
        let path = format!("/containers/{id}/logs?follow=true&stdout=true&stderr=true&timestamps=true{since}");
        self.client.stream(Ask::get("hand out a container's output", path), CALL_MAX).await
    }

    /// Prepares a command within a container.
    pub(super) async fn exec_create(&self, id_of_container: &str, argv: &[String]) -> Result<String, EngineError> {
        let what = "prepare a command";
        let body = json!({ "AttachStdout": true, "AttachStderr": true, "Cmd": argv });
        let ask = Ask::post(what, format!("/containers/{id_of_container}/exec"), Some(body));
        id(what, &parse(what, &self.client.call(ask, CALL_MAX).await?)?)
    }

    /// Starts a prepared command; its output comes in frames and ends with it.
    pub(super) async fn exec_start(&self, exec: &str) -> Result<Incoming, EngineError> {
        let body = json!({ "Detach": false, "Tty": false });
        self.client.stream(Ask::post("run a command", format!("/exec/{exec}/start"), Some(body)), CALL_MAX).await
    }

    pub(super) async fn exec_inspect(&self, exec: &str) -> Result<Exec, EngineError> {
        let what = "tell of a command";
        let answer = parse(what, &self.client.call(Ask::get(what, format!("/exec/{exec}/json")), CALL_MAX).await?)?;
        Ok(Exec { running: answer["Running"] == true, pid: pid(&answer["Pid"]), exit_code: number(&answer["ExitCode"]) })
    }
}

impl Container {
    /// The label, where it is there.
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        labels::get(&self.labels, name)
    }
}

/// Bytes that come in pieces, taken line by line.
#[derive(Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
}

/// No line of the engine's own is that long.
const LINE_MAX_BYTES: usize = 1024 * 1024;

impl Lines {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > LINE_MAX_BYTES {
            self.bytes.clear();
        }
    }

    pub(super) fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
        let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
        line.pop();
        Some(line)
    }
}
