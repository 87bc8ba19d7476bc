//! The answers to a command's `probes`: asked before it begins, all at once, over connections that the supervisor made. Whatever
//! comes of one is said in the command's input; none of it is a failure of the hook.

use std::os::fd::OwnedFd;
use std::time::Instant;

use hyper::body::Bytes;
use hyper::{Method, Response, header};
use serde_json::{Map, Value, json};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::hooks::host::guest::Guest;
use crate::hooks::host::probe::{Error, Taken, exchange, one, tcp_stream};
use crate::hooks::wire::{Answer, Ask, Code, Target};
use crate::model::Probe;

/// Bytes of one answer's body or data that a command is told.
const ANSWER_MAX_BYTES: usize = 64 << 10;
/// Probes may take this part of what is left of a call's time; the rest is the command's.
const SHARE_OF_TIME: u32 = 2;

/// Asks all probes of a call; the answers by their names.
pub(super) async fn answers(guest: &mut Guest) -> Map<String, Value> {
    let begun = Instant::now();
    let bound = guest.left(0) / SHARE_OF_TIME;
    let until = begun + bound;
    let timeout_ms = u32::try_from(bound.as_millis()).unwrap_or(u32::MAX);
    let nothing = failed(Code::Other.word(), "there is no answer");
    let mut answers: Map<String, Value> = guest.call.probes.keys().map(|name| (name.clone(), nothing.clone())).collect();
    let mut talks = JoinSet::new();
    for _ in 0..guest.call.probes.len() {
        match guest.line.ask(Ask::Probe { timeout_ms }).await {
            (Answer::Probe { name, failed: None }, Some(stream)) => {
                let Some(probe) = guest.call.probes.get(&name).cloned() else { continue };
                talks.spawn(async move {
                    let told = talk(&probe, stream, until).await.unwrap_or_else(|error| failed(&error.code, &error.message));
                    (name, timed(told, begun))
                });
            }
            (Answer::Probe { name, failed: Some((code, message)) }, _) => {
                answers.insert(name, timed(failed(code.word(), &message), begun));
            }
            (Answer::Refused { .. } | Answer::Done | Answer::Exit { .. } | Answer::Probe { .. }, _) => break,
        }
    }
    while let Some(done) = talks.join_next().await {
        if let Ok((name, told)) = done {
            answers.insert(name, told);
        }
    }
    answers
}

fn failed(code: &str, message: &str) -> Value {
    json!({ "error": { "code": code, "message": message } })
}

/// With the time from the beginning of all probes.
fn timed(mut told: Value, begun: Instant) -> Value {
    told["elapsed_us"] = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX).into();
    told
}

/// Puts one question.
async fn talk(probe: &Probe, stream: OwnedFd, until: Instant) -> Result<Value, Error> {
    let late = |_| Error { code: Code::Timeout.word().to_owned(), message: "nothing was answered in time".to_owned() };
    match probe {
        Probe::Http { url } => tokio::time::timeout_at(until.into(), http(url, stream)).await.map_err(late)?,
        Probe::Stream { address, send, until: wanted } => {
            let enough = wanted.map_or(usize::from(!send.is_empty()), |wanted| wanted as usize).min(ANSWER_MAX_BYTES);
            let bytes = (enough, if wanted.is_some() { enough } else { ANSWER_MAX_BYTES });
            let got = if address.starts_with("unix:") {
                let stream = UnixStream::from_std(stream.into());
                let other = |cause: std::io::Error| Error { code: Code::Other.word().to_owned(), message: cause.to_string() };
                exchange(stream.map_err(other)?, send.as_bytes(), bytes, until).await?
            } else {
                exchange(tcp_stream(stream)?, send.as_bytes(), bytes, until).await?
            };
            Ok(json!({ "data": String::from_utf8_lossy(&got) }))
        }
    }
}

async fn http(url: &str, stream: OwnedFd) -> Result<Value, Error> {
    let invalid = |(code, message): (Code, String)| Error { code: code.word().to_owned(), message };
    let uri = Target::url(url).map_err(invalid)?;
    let agent = (header::USER_AGENT.to_string(), concat!("tagfall/", env!("CARGO_PKG_VERSION")).to_owned());
    let headers = [agent, (header::ACCEPT.to_string(), "*/*".to_owned())];
    let taken = Taken { most: ANSWER_MAX_BYTES, cut: true };
    let (response, cut) = one(tcp_stream(stream)?, &Method::GET, &uri, &headers, Bytes::new(), taken).await?;
    Ok(told(&response, cut))
}

/// An answer as a command reads it. Values of a header that stands there several times are one, as HTTP has it.
fn told(response: &Response<Bytes>, cut: bool) -> Value {
    let mut headers = Map::new();
    for (name, value) in response.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        let whole = match headers.get(name.as_str()).and_then(Value::as_str) {
            Some(before) => format!("{before}, {value}"),
            None => value.into_owned(),
        };
        headers.insert(name.to_string(), whole.into());
    }
    json!({
        "status": response.status().as_u16(),
        "headers": headers,
        "body": String::from_utf8_lossy(response.body()),
        "cut": cut,
    })
}
