//! HTTP/1.1 to a unix socket, one connection per request: what is slow or streams holds nothing else up.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// So much of an answer is taken; an inspection has a few KiB.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The engine did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nobody there, or no right to ask.
    #[error("the container engine at `{}` cannot be reached", .socket.display())]
    Connect {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The supervisor's user may not.
    #[error(
        "the container engine at `{}` is closed to the supervisor's user ({user}): add it to the socket's group (`usermod -aG docker \
         NAME`) and start `tagfall supervise` anew; whoever may use an engine of root's is as mighty as root", .socket.display()
    )]
    Closed {
        /// Its socket.
        socket: PathBuf,
        /// The user's id.
        user: u32,
    },
    /// It broke off.
    #[error("the container engine broke off when asked to {what}")]
    Exchange {
        /// What was asked.
        what: &'static str,
        /// Why.
        source: hyper::Error,
    },
    /// It is silent.
    #[error("the container engine did not {what} within {} s", .bound.as_secs())]
    TimedOut {
        /// What was asked.
        what: &'static str,
        /// How long it had.
        bound: Duration,
    },
    /// It says no.
    #[error("the container engine refuses to {what}: {message}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// It says what this program does not understand.
    #[error("the container engine's answer to {what} is not understood: {message}")]
    Answer {
        /// What was asked.
        what: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

impl EngineError {
    /// Whether it was refused with this status.
    pub(super) fn is(&self, status: StatusCode) -> bool {
        matches!(self, Self::Refused { status: found, .. } if *found == status.as_u16())
    }
}

/// A question: what for (as errors say it), how, where.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) what: &'static str,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
}

impl Ask {
    pub(super) fn get(what: &'static str, path: String) -> Self {
        Self { what, method: Method::GET, path, body: None }
    }

    pub(super) fn post(what: &'static str, path: String, body: Option<Value>) -> Self {
        Self { what, method: Method::POST, path, body }
    }

    pub(super) fn delete(what: &'static str, path: String) -> Self {
        Self { what, method: Method::DELETE, path, body: None }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks and takes the whole answer, within a bound.
    pub(super) async fn call(&self, ask: Ask, bound: Duration) -> Result<Bytes, EngineError> {
        let what = ask.what;
        let exchange = async {
            let answer = self.open(ask).await?;
            let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
            let body = body.map_err(|error| EngineError::Answer { what, message: error.to_string() })?;
            Ok(body.to_bytes())
        };
        tokio::time::timeout(bound, exchange).await.unwrap_or(Err(EngineError::TimedOut { what, bound }))
    }

    /// Asks within a bound, and hands out an answer that goes on.
    pub(super) async fn stream(&self, ask: Ask, bound: Duration) -> Result<Incoming, EngineError> {
        let what = ask.what;
        let opened = tokio::time::timeout(bound, self.open(ask)).await;
        Ok(opened.unwrap_or(Err(EngineError::TimedOut { what, bound }))?.into_body())
    }

    async fn open(&self, ask: Ask) -> Result<Response<Incoming>, EngineError> {
        let Ask { what, method, path, body } = ask;
        let connect = |source: io::Error| {
            let socket = self.socket.clone();
            if source.kind() == io::ErrorKind::PermissionDenied {
                EngineError::Closed { socket, user: rustix::process::geteuid().as_raw() }
            } else {
                EngineError::Connect { socket, source }
            }
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(connect)?;
        let exchange = |source| EngineError::Exchange { what, source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(exchange)?;
        // It ends when the answer has been read or dropped.
        tokio::spawn(connection);
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "engine")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| EngineError::Answer { what, message: error.to_string() })?;
        let answer = sender.send_request(request).await.map_err(exchange)?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let said = serde_json::from_slice::<Value>(&body).ok();
        let message = said.and_then(|said| said["message"].as_str().map(str::to_owned));
        let message = message.unwrap_or_else(|| status.to_string());
        Err(EngineError::Refused { what, status: status.as_u16(), message })
    }
}

/// A value within a query.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encoded("a b/c:1?&=%"), "a%20b%2Fc%3A1%3F%26%3D%25");
    }

    #[tokio::test]
    async fn nobody_at_the_socket_is_away_and_named() {
        let client = Client::new(PathBuf::from("/nonexistent/engine.sock"));
        let error = client.call(Ask::get("list", "/".to_owned()), Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/engine.sock"), "{error}");
    }
}
