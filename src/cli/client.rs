//! HTTP to a supervisor, over its unix socket or TCP: one connection a request, bounds on waiting and on size.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use super::error::CliError;
use super::text::Out;
use crate::api::wire::ErrorBody;

/// By when a connection stands.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// By when an answer is whole; longer than the supervisor gives itself (30 s), so that its own words arrive.
const ANSWER_MAX: Duration = Duration::from_secs(40);
/// Longest answer that is taken, in bytes.
const ANSWER_MAX_BYTES: usize = 256 * 1024 * 1024;
/// Longest line of a stream, in bytes.
const LINE_MAX_BYTES: usize = 1024 * 1024;
/// Port of `[api] listen`, where a URL names none.
const DEFAULT_PORT: u16 = 9631;

/// Where a supervisor listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    /// Host (brackets of IPv6 taken off) and port.
    Tcp(String, u16),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host, port) if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "http://{host}:{port}"),
        }
    }
}

impl Address {
    /// Reads `unix:PATH` or `http://HOST[:PORT]`.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        let wrong = |why: &str| {
            let hint = "it takes `unix:PATH` or `http://HOST:PORT`, for example `unix:/run/tagfall/supervisor.sock`";
            CliError::usage(format!("`{text}` is not the address of a supervisor: {why}"), hint)
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(wrong("the path is missing")) } else { Ok(Self::Unix(path.into())) };
        }
        let Some(rest) = text.strip_prefix("http://") else {
            let why = if text.starts_with("https:") { "this version does not speak TLS to a supervisor" } else { "unknown form" };
            return Err(wrong(why));
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let authority: axum::http::uri::Authority = authority.parse().map_err(|_| wrong("no host and port"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(wrong("no host and port"));
        }
        Ok(Self::Tcp(host.to_owned(), authority.port_u16().unwrap_or(DEFAULT_PORT)))
    }
}

/// A way to one supervisor.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) address: Address,
    pub(crate) token: Option<String>,
    /// Where each request is said, with `-v`.
    pub(crate) talk: Option<Out>,
}

impl Client {
    /// The whole answer to a read.
    pub(crate) async fn get(&self, path: &str) -> Result<Vec<u8>, CliError> {
        self.whole(Method::GET, path, Vec::new()).await
    }

    /// The whole answer to a command.
    pub(crate) async fn post<T: serde::Serialize>(&self, path: &str, body: &T) -> Result<Vec<u8>, CliError> {
        let body = serde_json::to_vec(body).map_err(|error| CliError::could_not_run("write the request", error))?;
        self.whole(Method::POST, path, body).await
    }

    /// An answer that comes line by line.
    pub(crate) async fn lines(&self, path: &str) -> Result<Lines, CliError> {
        let (status, body) = self.bounded(self.send(Method::GET, path, Vec::new())).await?;
        if status.is_success() {
            return Ok(Lines { body, buffer: Vec::new(), address: self.address.to_string() });
        }
        Err(refusal(status, &self.bounded(self.collect(body)).await?))
    }

    async fn whole(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Vec<u8>, CliError> {
        let answer = async {
            let (status, body) = self.send(method, path, body).await?;
            Ok((status, self.collect(body).await?))
        };
        let (status, bytes) = self.bounded(answer).await?;
        if status.is_success() { Ok(bytes) } else { Err(refusal(status, &bytes)) }
    }

    async fn bounded<T>(&self, answer: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        let late = |_| self.away(format!("no answer within {} s", ANSWER_MAX.as_secs()));
        tokio::time::timeout(ANSWER_MAX, answer).await.map_err(late)?
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(StatusCode, Incoming), CliError> {
        if let Some(out) = self.talk {
            out.talk(&format!("{method} {path} at {}\n", self.address));
        }
        let late = |_| self.away(format!("no connection within {} s", CONNECT_MAX.as_secs()));
        let connected = async {
            match &self.address {
                Address::Unix(path) => handshake(UnixStream::connect(path).await).await,
                Address::Tcp(host, port) => handshake(TcpStream::connect((host.as_str(), *port)).await).await,
            }
        };
        let connected = tokio::time::timeout(CONNECT_MAX, connected).await.map_err(late)?;
        let mut sender = connected.map_err(|error| self.away(error))?;
        let host = match &self.address {
            Address::Unix(_) => "localhost".to_owned(),
            Address::Tcp(..) => self.address.to_string().replacen("http://", "", 1),
        };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| CliError::could_not_run("write the request", error))?;
        let response = sender.send_request(request).await.map_err(|error| self.away(error))?;
        Ok((response.status(), response.into_body()))
    }

    async fn collect(&self, body: Incoming) -> Result<Vec<u8>, CliError> {
        let whole = Limited::new(body, ANSWER_MAX_BYTES).collect().await.map_err(|error| self.away(error))?;
        Ok(whole.to_bytes().into())
    }

    fn away(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CliError {
        CliError::NoSupervisor { address: self.address.to_string(), source: source.into() }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn handshake<S>(stream: std::io::Result<S>) -> Result<http1::SendRequest<Full<Bytes>>, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream?)).await?;
    // Its end shows in the body or the answer; there is nothing more to learn from it.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

fn refusal(status: StatusCode, body: &[u8]) -> CliError {
    let status = status.as_u16();
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error }) => CliError::Api { status, reason: error.reason, message: error.message },
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            let message = format!("the answer is not one of a supervisor: {}", text.trim());
            CliError::Api { status, reason: format!("Http{status}"), message }
        }
    }
}

/// Lines of an answer, as they come.
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    address: String,
}

impl Lines {
    /// The next line without its newline; `None` where the supervisor ended the answer.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, CliError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > LINE_MAX_BYTES {
                let message = format!("a line of the answer exceeds {LINE_MAX_BYTES} bytes");
                return Err(CliError::Api { status: 500, reason: "LineTooLong".to_owned(), message });
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(CliError::WentAway { address: self.address.clone(), source: error.into() }),
                None => return Ok(None),
            }
        }
    }
}

/// A piece of a path or a query, with everything that could be taken for syntax written as `%XX`.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unix_paths_or_plain_http() {
        for bad in ["", "unix:", "https://x", "ftp://x", "http://", "http://u@h:1", "/run/x.sock", "http://h:1/path"] {
            assert!(Address::parse(bad).is_err(), "{bad:?} was accepted");
        }
        let read = |text| Address::parse(text).unwrap().to_string();
        assert_eq!(read("unix:/run/x.sock"), "unix:/run/x.sock");
        assert_eq!(read("unix:///run/x.sock"), "unix:/run/x.sock");
        assert_eq!(read("http://[::1]:80/"), "http://[::1]:80");
        assert_eq!(read("http://host"), "http://host:9631");
    }

    #[test]
    fn what_a_person_types_cannot_change_the_path() {
        assert_eq!(encoded("a/../b?c=d&e é"), "a%2F..%2Fb%3Fc%3Dd%26e%20%C3%A9");
    }
}
