//! HTTP/1.1 requests to addresses of `allow.net`. There is no TLS in this version.
//!
//! ```no_run
//! use std::time::Duration;
//! use tagfall_hooks::prelude::*;
//!
//! # fn ask() -> Result<()> {
//! let answer = http::get("http://127.0.0.1:8080/healthz")?;
//! let status = answer.status;
//!
//! let request = http::Request::new("POST", "http://127.0.0.1:8080/query").header("accept", "application/json");
//! let answer = request.json(&["one", "two"])?.timeout(Duration::from_millis(500)).send()?;
//! let found: Vec<u64> = answer.json()?;
//! # Ok(()) }
//! ```
//!
//! A server that refuses the connection or lets the time pass is an error whose [`is_unanswered`](crate::Error::is_unanswered) is
//! true: in a check, `?` makes it `critical`. Any status is an answer.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host::probe;
use crate::{Error, Result, clock};

/// A request on its way to be sent.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until `send`"]
pub struct Request(probe::Request);

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// At most 1 MiB; more is the error `too-large`.
    pub body: Vec<u8>,
    /// From the first byte of the connection's making to the last of the body.
    pub elapsed: Duration,
}

/// Gets `url`, in all the time that is left.
///
/// # Errors
/// Where there is no answer: see [`Request::send`].
pub fn get(url: impl Into<String>) -> Result<Response> {
    Request::new("GET", url).send()
}

/// Posts `body` to `url`, in all the time that is left.
///
/// # Errors
/// Where there is no answer: see [`Request::send`].
pub fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Result<Response> {
    Request::new("POST", url).body(body).send()
}

impl Request {
    /// A request of a method, `GET`, `HEAD`, `POST`, …, to `http://HOST[:PORT]/PATH`.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        let (method, url) = (method.into(), url.into());
        Self(probe::Request { method, url, headers: Vec::new(), body: None, timeout_ms: clock::timeout(None) })
    }

    /// With one more header. `host`, `content-length` and `connection` are Tagfall's own.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.headers.push((name.into(), value.into()));
        self
    }

    /// With this body, of at most 1 MiB.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.0.body = Some(body.into());
        self
    }

    /// With this value as its body, as JSON, and the header that says so.
    ///
    /// # Errors
    /// Where the value is nothing that JSON can express.
    pub fn json(self, value: &impl Serialize) -> Result<Self> {
        Ok(self.header("content-type", "application/json").body(serde_json::to_vec(value)?))
    }

    /// In so much time, instead of all that is left.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.0.timeout_ms = clock::timeout(Some(time));
        self
    }

    /// Sends it on a connection of its own. At most 5 redirects are followed, only of GET and HEAD, and only where `allow.net`
    /// lets them go.
    ///
    /// # Errors
    /// Where there is no answer: `denied`, `timeout`, `refused`, `dns`, `tls`, `too-large`, `invalid` or `other`; more may come.
    pub fn send(self) -> Result<Response> {
        let answer = probe::http(&self.0).map_err(Error::of_probe)?;
        let probe::Response { status, headers, body, elapsed_us } = answer;
        Ok(Response { status, headers, body, elapsed: Duration::from_micros(elapsed_us) })
    }
}

impl Response {
    /// Whether the status is one of 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    ///
    /// # Errors
    /// Where it is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body).map_err(|error| Error::from(error).context("the answer is no text"))
    }

    /// The body as JSON, in its type.
    ///
    /// # Errors
    /// Where it is not JSON, or of another type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| Error::from(error).context("the answer does not fit"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &[u8]) -> Response {
        let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
        Response { status, headers, body: body.to_vec(), elapsed: Duration::ZERO }
    }

    #[test]
    fn a_request_has_all_that_was_said() {
        let request = Request::new("PUT", "http://h/").header("a", "b").json(&[1]).unwrap().timeout(Duration::from_secs(1)).0;
        assert_eq!((request.method.as_str(), request.url.as_str(), request.timeout_ms), ("PUT", "http://h/", 1_000));
        assert_eq!(request.headers.len(), 2);
        assert_eq!(request.body.as_deref(), Some(b"[1]".as_slice()));
        assert_eq!(get("http://h/").unwrap_err().code(), "outside");
    }

    #[test]
    fn an_answer_is_read_in_its_type() {
        assert!(answer(204, b"").is_success() && !answer(302, b"").is_success());
        assert_eq!(answer(200, b"7").json::<u8>(), Ok(7));
        assert_eq!(answer(200, b"{}").header("Content-Type"), Some("text/plain"));
        assert_eq!(answer(200, b"\xff").text().unwrap_err().code(), "utf-8");
        let error = answer(200, b"<html>").json::<u8>().unwrap_err();
        assert_eq!(error.message(), "the answer does not fit: expected value at line 1 column 1");
    }
}
