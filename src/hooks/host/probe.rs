//! `probe` of `wit/`: HTTP, TCP and unix exchanges over connections that the supervisor makes and hands over. Whatever a server
//! answers is read here, in the process that has nothing to lose.

use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::bindings::tagfall::hooks::probe;
use super::guest::Guest;
use crate::hooks::wire::{Answer, Ask, BODY_MAX_BYTES, Code, Target};

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;
/// So much of the head of an answer is taken.
const HEAD_MAX_BYTES: usize = 32 << 10;

pub(super) type Error = probe::ProbeError;

fn refused((code, message): (Code, String)) -> Error {
    error(code, message)
}

fn error(code: Code, message: impl Into<String>) -> Error {
    Error { code: code.word().to_owned(), message: message.into() }
}

impl probe::Host for Guest {
    async fn http(&mut self, request: probe::Request) -> wasmtime::Result<Result<probe::Response, Error>> {
        let bound = self.left(request.timeout_ms);
        let done = tokio::time::timeout(bound, http(self, request)).await;
        Ok(done.unwrap_or_else(|_| Err(late(bound))))
    }

    async fn tcp(
        &mut self,
        host: String,
        port: u16,
        send: Vec<u8>,
        until: u32,
        timeout_ms: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        let bound = self.left(timeout_ms);
        let until_time = Instant::now() + bound;
        Ok(match self.connect(Target::Tcp { host, port }, bound).await {
            Ok(stream) => match tcp_stream(stream) {
                Ok(stream) => exchange(stream, &send, bytes(until), until_time).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        })
    }

    async fn unix(
        &mut self,
        path: String,
        send: Vec<u8>,
        until: u32,
        timeout_ms: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        let bound = self.left(timeout_ms);
        let until_time = Instant::now() + bound;
        Ok(match self.connect(Target::Unix { path }, bound).await {
            Ok(stream) => match UnixStream::from_std(stream.into()) {
                Ok(stream) => exchange(stream, &send, bytes(until), until_time).await,
                Err(cause) => Err(error(Code::Other, cause.to_string())),
            },
            Err(error) => Err(error),
        })
    }
}

impl Guest {
    async fn connect(&mut self, to: Target, bound: Duration) -> Result<OwnedFd, Error> {
        let timeout_ms = u32::try_from(bound.as_millis()).unwrap_or(u32::MAX);
        match self.line.ask(Ask::Connect { to, timeout_ms }).await {
            (Answer::Done, Some(stream)) => Ok(stream),
            (Answer::Refused { code, message }, _) => Err(error(code, message)),
            (Answer::Done | Answer::Exit { .. } | Answer::Probe { .. }, _) => Err(error(Code::Other, "nothing was connected")),
        }
    }
}

fn late(bound: Duration) -> Error {
    error(Code::Timeout, format!("no answer within {} ms", bound.as_millis()))
}

fn bytes(until: u32) -> (usize, usize) {
    let wanted = (until as usize).min(BODY_MAX_BYTES);
    (wanted, wanted)
}

pub(super) fn tcp_stream(stream: OwnedFd) -> Result<TcpStream, Error> {
    TcpStream::from_std(stream.into()).map_err(|cause| error(Code::Other, cause.to_string()))
}

/// Sends, then reads until there is enough: so many bytes, of which no more than the second number are taken.
pub(super) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    send: &[u8],
    (enough, most): (usize, usize),
    until_time: Instant,
) -> Result<Vec<u8>, Error> {
    let mut got = Vec::new();
    let talk = async {
        stream.write_all(send).await?;
        let mut part = [0; 4096];
        while got.len() < enough {
            let room = part.len().min(most - got.len());
            let count = stream.read(&mut part[..room]).await?;
            if count == 0 {
                break;
            }
            got.extend_from_slice(&part[..count]);
        }
        Ok::<(), std::io::Error>(())
    };
    match tokio::time::timeout_at(until_time.into(), talk).await {
        Ok(Ok(())) => Ok(got),
        Ok(Err(cause)) => Err(error(Code::Other, cause.to_string())),
        Err(_) if !got.is_empty() => Ok(got),
        Err(_) => Err(error(Code::Timeout, "nothing was answered in time")),
    }
}

async fn http(guest: &mut Guest, request: probe::Request) -> Result<probe::Response, Error> {
    let begun = Instant::now();
    let method: Method = request.method.parse().map_err(|_| error(Code::Invalid, "the method is none"))?;
    let body = request.body.unwrap_or_default();
    if body.len() > BODY_MAX_BYTES {
        return Err(error(Code::TooLarge, format!("a body of {} bytes is more than {BODY_MAX_BYTES}", body.len())));
    }
    let body = Bytes::from(body);
    let mut uri = Target::url(&request.url).map_err(refused)?;
    for _ in 0..=REDIRECTS_MAX {
        let to = Target::of_url(&uri).map_err(refused)?;
        let bound = guest.left(request.timeout_ms);
        // Each hop is asked for anew: the supervisor holds it against the grants like the first.
        let stream = tcp_stream(guest.connect(to, bound).await?)?;
        let (response, _) = one(stream, &method, &uri, &request.headers, body.clone(), WHOLE).await?;
        let goes_on = matches!(method, Method::GET | Method::HEAD) && response.status().is_redirection();
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        match location.filter(|_| goes_on) {
            Some(location) => uri = follow(&uri, location)?,
            None => return taken(response, begun).await,
        }
    }
    Err(error(Code::Other, format!("it redirects more than {REDIRECTS_MAX} times")))
}

/// Where a redirect leads: an absolute URL, or a path on the same host.
fn follow(from: &Uri, location: &str) -> Result<Uri, Error> {
    let bad = || error(Code::Invalid, "it redirects to what is no URL");
    let to: Uri = location.parse().map_err(|_| bad())?;
    if to.scheme().is_some() {
        return Ok(to);
    }
    let authority = from.authority().cloned().ok_or_else(bad)?;
    let path = if location.starts_with('/') { location.to_owned() } else { format!("/{location}") };
    Uri::builder().scheme("http").authority(authority).path_and_query(path).build().map_err(|_| bad())
}

/// How much of a body is taken.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    pub(super) most: usize,
    /// Whether more is left unread, and not an error.
    pub(super) cut: bool,
}

const WHOLE: Taken = Taken { most: BODY_MAX_BYTES, cut: false };

/// One request and its answer, and whether that was cut.
pub(super) async fn one(
    stream: TcpStream,
    method: &Method,
    uri: &Uri,
    headers: &[(String, String)],
    body: Bytes,
    taken: Taken,
) -> Result<(Response<Bytes>, bool), Error> {
    let builder = http1::Builder::new().max_buf_size(HEAD_MAX_BYTES).clone();
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|cause| failed(&cause))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    // Without a user name and password, which an authority may have.
    let host = uri.authority().map_or("", |authority| authority.as_str().rsplit('@').next().unwrap_or(""));
    let mut request = Request::builder().method(method.clone()).uri(path).header(header::HOST, host);
    for (name, value) in headers {
        if !["host", "content-length", "connection", "transfer-encoding"].contains(&name.to_ascii_lowercase().as_str()) {
            request = request.header(name, value);
        }
    }
    let request = request.header(header::CONNECTION, "close").body(Full::new(body));
    let request = request.map_err(|cause| error(Code::Invalid, cause.to_string()))?;
    let mut answer = pin!(async {
        let response = sender.send_request(request).await.map_err(|cause| failed(&cause))?;
        whole(response, taken).await
    });
    // The connection makes progress only while it is polled.
    tokio::select! {
        answer = &mut answer => answer,
        _ended = connection => answer.await,
    }
}

async fn whole(response: Response<Incoming>, taken: Taken) -> Result<(Response<Bytes>, bool), Error> {
    let (head, mut body) = response.into_parts();
    let (mut content, mut cut) = (Vec::new(), false);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|cause| failed(&cause))?;
        let Some(data) = frame.data_ref() else { continue };
        let room = taken.most - content.len();
        if data.len() > room && !taken.cut {
            return Err(error(Code::TooLarge, format!("the answer is longer than {} bytes", taken.most)));
        }
        content.extend_from_slice(&data[..data.len().min(room)]);
        cut = data.len() > room;
        if cut {
            break;
        }
    }
    Ok((Response::from_parts(head, Bytes::from(content)), cut))
}

async fn taken(response: Response<Bytes>, begun: Instant) -> Result<probe::Response, Error> {
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let headers = headers.collect();
    let elapsed_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(probe::Response { status: response.status().as_u16(), headers, body: response.into_body().to_vec(), elapsed_us })
}

fn failed(cause: &hyper::Error) -> Error {
    if cause.is_parse() {
        return error(Code::Other, "it gave an answer that is not HTTP");
    }
    if cause.is_incomplete_message() || cause.is_canceled() {
        return error(Code::Other, "it closed the connection before it had answered");
    }
    error(Code::Other, cause.to_string())
}
