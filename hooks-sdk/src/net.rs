//! A few bytes to a server and what it says to them, by TCP or through a unix socket. Addresses are written as in `allow.net`:
//! `HOST:PORT`, `[IPV6]:PORT`, `unix:/PATH`.
//!
//! ```no_run
//! use tagfall_hooks::prelude::*;
//!
//! # fn ping() -> Result<()> {
//! let answer = net::ask("127.0.0.1:6379", "PING\r\n", 7)?;
//! if answer != b"+PONG\r\n" {
//!     return Err("this is no redis".into());
//! }
//! net::connect("unix:/run/web.sock")?;
//! # Ok(()) }
//! ```

use std::time::Duration;

use crate::host::probe;
use crate::{Error, Result, clock};

/// Where a server listens.
#[derive(Debug, PartialEq, Eq)]
enum Address<'a> {
    Tcp { host: &'a str, port: u16 },
    Unix(&'a str),
}

/// Connects, sends, and reads until there are `until` bytes or the stream ends, in all the time that is left.
///
/// # Errors
/// Where there is no connection or no answer: `denied`, `timeout`, `refused`, `dns`, `invalid` or `other`; more may come.
pub fn ask(address: &str, send: impl AsRef<[u8]>, until: u32) -> Result<Vec<u8>> {
    put(address, send.as_ref(), until, clock::timeout(None))
}

/// The same in so much time. What was read until then is the answer; only nothing at all is the error `timeout`.
///
/// # Errors
/// As [`ask`].
pub fn ask_within(time: Duration, address: &str, send: impl AsRef<[u8]>, until: u32) -> Result<Vec<u8>> {
    put(address, send.as_ref(), until, clock::timeout(Some(time)))
}

/// Connects and says nothing: whether somebody listens.
///
/// # Errors
/// As [`ask`].
pub fn connect(address: &str) -> Result<()> {
    put(address, &[], 0, clock::timeout(None)).map(drop)
}

fn put(address: &str, send: &[u8], until: u32, timeout_ms: u32) -> Result<Vec<u8>> {
    let answer = match parse(address)? {
        Address::Tcp { host, port } => probe::tcp(host, port, send, until, timeout_ms),
        Address::Unix(path) => probe::unix(path, send, until, timeout_ms),
    };
    answer.map_err(Error::of_probe)
}

fn parse(address: &str) -> Result<Address<'_>> {
    let wrong = || Error::new("invalid", format!("`{address}` is no address: write `HOST:PORT` or `unix:/PATH`"));
    if let Some(path) = address.strip_prefix("unix:") {
        return if path.starts_with('/') { Ok(Address::Unix(path)) } else { Err(wrong()) };
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(ipv6) => ipv6,
        None if host.contains(':') => return Err(wrong()),
        None => host,
    };
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() { Err(wrong()) } else { Ok(Address::Tcp { host, port }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_in_allow_net() {
        assert_eq!(parse("localhost:80"), Ok(Address::Tcp { host: "localhost", port: 80 }));
        assert_eq!(parse("[::1]:6379"), Ok(Address::Tcp { host: "::1", port: 6379 }));
        assert_eq!(parse("unix:/run/a:b.sock"), Ok(Address::Unix("/run/a:b.sock")));
        for wrong in ["", "localhost", ":80", "[]:80", "::1:80", "h:port", "h:65536", "unix:run", "unix:"] {
            assert_eq!(parse(wrong).unwrap_err().code(), "invalid", "{wrong}");
        }
    }
}
