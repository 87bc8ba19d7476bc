//! `builtin:http`: one GET on a connection of its own. No redirects, no pool, no TLS.

use std::error::Error as _;
use std::pin::pin;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{critical, in_words, ok};
use crate::model::CheckResult;

/// So much of a body is read, to look for the wanted text.
const BODY_MAX_BYTES: usize = 64 * 1024;
/// So much of the head of an answer is taken.
const HEAD_MAX_BYTES: usize = 16 * 1024;
const DEFAULT_PORT: u16 = 80;

pub(super) async fn check(url: &str, status: Option<u16>, body: Option<&str>) -> CheckResult {
    match exchange(url, status, body).await {
        Ok(answer) => ok(format!("GET {url} {answer}")),
        Err(cause) => critical(format!("GET {url} {cause}")),
    }
}

/// One request and its answer; an error is the rest of the sentence that begins with the request.
async fn exchange(url: &str, status: Option<u16>, body: Option<&str>) -> Result<String, String> {
    let (uri, host, port) = parts(url)?;
    let refused = |error: std::io::Error| format!("could not connect: {}", in_words(&error));
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(refused)?;
    let builder = http1::Builder::new().max_buf_size(HEAD_MAX_BYTES).clone();
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let request = request(&uri)?;
    let mut answer = pin!(async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        judge(response, status, body).await
    });
    // The connection makes progress only while it is polled; where it ends first, what it has read is still to be judged.
    tokio::select! {
        answer = &mut answer => answer,
        _ended = connection => answer.await,
    }
}

fn parts(url: &str) -> Result<(Uri, String, u16), String> {
    let uri: Uri = url.parse().map_err(|error| format!("cannot be asked: not a URL ({error})"))?;
    if uri.scheme_str() != Some("http") {
        return Err("cannot be asked: only `http://` URLs can".to_owned());
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or("cannot be asked: the URL names no host")?;
    // An IPv6 address stands in brackets in a URL, and without them everywhere else.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
    Ok((uri, host, port))
}

fn request(uri: &Uri) -> Result<Request<Empty<Bytes>>, String> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    // Without a user name and password, which an authority may have.
    let host = uri.authority().map_or("", |authority| authority.as_str().rsplit('@').next().unwrap_or(""));
    Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("tagfall/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| format!("cannot be asked: {error}"))
}

async fn judge(response: Response<Incoming>, status: Option<u16>, body: Option<&str>) -> Result<String, String> {
    let found = response.status();
    let (fits, wanted) = match status {
        Some(status) => (found.as_u16() == status, status.to_string()),
        None => (found.is_success() || found.is_redirection(), "200-399".to_owned()),
    };
    let answered = answered(found);
    if !fits {
        return Err(format!("{answered}, wanted {wanted}"));
    }
    let Some(text) = body else { return Ok(answered) };
    let (content, whole) = read(response.into_body()).await.map_err(|error| failed(&error))?;
    // An empty text is in every body.
    if text.is_empty() || content.windows(text.len()).any(|window| window == text.as_bytes()) {
        return Ok(format!("{answered} with the wanted text"));
    }
    let part = if whole { "body" } else { "first 64 KiB of body" };
    Err(format!("{answered}, but its {part} lacks `{text}`"))
}

fn answered(status: StatusCode) -> String {
    format!("answered {}", status.as_u16())
}

/// The beginning of a body, and whether that is all of it.
async fn read(mut body: Incoming) -> Result<(Vec<u8>, bool), hyper::Error> {
    let mut content = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else { continue };
        let room = BODY_MAX_BYTES - content.len();
        content.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok((content, false));
        }
    }
    Ok((content, true))
}

fn failed(error: &hyper::Error) -> String {
    if error.is_parse() || error.is_parse_status() {
        return "gave an answer that is not HTTP".to_owned();
    }
    if error.is_incomplete_message() || error.is_canceled() {
        return "closed the connection before it had answered".to_owned();
    }
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.map_or_else(|| format!("failed: {error}"), |cause| format!("failed: {}", in_words(cause)))
}
