//! Who may come in: decided once per request, before any handler sees it.
//!
//! The unix socket knows its caller from the kernel. TCP knows nothing, so writing needs the token, reading needs it on
//! anything but loopback, and the `Host` header must be one that a web page under a foreign name cannot make a browser send.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::extract::{Request, State};
use axum::http::{Method, header, uri::Authority};
use axum::middleware::Next;
use axum::response::Response;

use super::port::{ApiError, Caller, Failure};
use crate::model::Digest;

/// Shortest token that is taken, in bytes: below it guessing is feasible.
const TOKEN_MIN_BYTES: usize = 16;
/// Longest token file that is read, in bytes.
const TOKEN_MAX_BYTES: u64 = 4096;

/// One way in, and its rule.
#[derive(Debug, Clone)]
pub enum Door {
    /// The unix socket: root and this user may do everything, nobody else anything.
    Unix {
        /// The supervisor's own user.
        owner: u32,
    },
    /// A TCP listener.
    Tcp {
        /// What writing needs.
        token: Option<Token>,
        /// Whether the listener can be reached from this host alone.
        loopback: bool,
        /// Names, beside `localhost` and addresses, that a `Host` header may carry.
        hosts: Vec<String>,
    },
}

/// The other end of a connection, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A process on this host.
    Process {
        /// Its user.
        uid: u32,
        /// Its id.
        pid: Option<i32>,
    },
    /// An address.
    Address(SocketAddr),
}

/// Why a door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Everybody on the network could read.
    #[error("`[api] listen = \"{0}\"` can be reached from other hosts: set `[api] token_file`, or listen on 127.0.0.1")]
    TokenNeeded(SocketAddr),
    /// The token file is not there or not readable.
    #[error("cannot read the API token file `{path}`")]
    TokenRead {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others can read it.
    #[error("the API token file `{0}` can be read by every user of this host: `chmod 600` it and change the token")]
    TokenExposed(PathBuf),
    /// It is no token.
    #[error("the API token file `{0}` must hold one line of {TOKEN_MIN_BYTES} or more printable characters without spaces")]
    TokenForm(PathBuf),
}

/// The API token. Only its digest is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Digest);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// Reads a token file: one line; not readable by every user.
    pub fn read(path: &Path) -> Result<Self, DoorError> {
        let unreadable = |source| DoorError::TokenRead { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if metadata.permissions().mode() & 0o004 != 0 {
            return Err(DoorError::TokenExposed(path.to_owned()));
        }
        if metadata.len() > TOKEN_MAX_BYTES {
            return Err(DoorError::TokenForm(path.to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text).ok_or_else(|| DoorError::TokenForm(path.to_owned()))
    }

    /// Takes a token's text, white space around it aside.
    pub fn parse(text: &str) -> Option<Self> {
        let token = text.trim();
        let printable = token.bytes().all(|byte| byte.is_ascii_graphic());
        (token.len() >= TOKEN_MIN_BYTES && printable).then(|| Self(Digest::of(token.as_bytes())))
    }

    /// Whether this is it; takes as long for a wrong one as for the right one.
    fn is(&self, shown: &[u8]) -> bool {
        let shown = Digest::of(shown);
        let difference = self.0.as_bytes().iter().zip(shown.as_bytes()).fold(0, |acc, (a, b)| acc | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl Door {
    /// The unix socket of a supervisor that runs as the present user.
    pub fn unix() -> Self {
        Self::Unix { owner: rustix::process::geteuid().as_raw() }
    }

    /// A TCP listener; `hosts` are the names that it may be called by. Refused where a network could read without a token.
    pub fn tcp(listen: SocketAddr, token: Option<Token>, hosts: Vec<String>) -> Result<Self, DoorError> {
        let loopback = listen.ip().is_loopback();
        if !loopback && token.is_none() {
            return Err(DoorError::TokenNeeded(listen));
        }
        Ok(Self::Tcp { token, loopback, hosts })
    }

    fn admit(&self, peer: Option<Peer>, request: &Request) -> Result<Caller, ApiError> {
        match (self, peer) {
            (Self::Unix { owner }, Some(Peer::Process { uid, pid })) => {
                if uid == 0 || uid == *owner {
                    return Ok(Caller::Local { uid, pid });
                }
                let words =
                    format!("user {uid} may not use this socket: it is for root and user {owner}, who runs the supervisor");
                Err(ApiError::new(Failure::Refused, "CallerNotAllowed", words))
            }
            (Self::Tcp { token, loopback, hosts }, Some(Peer::Address(address))) => {
                check_host(request, hosts)?;
                let shown = check_token(request, token.as_ref())?;
                let reads = matches!(*request.method(), Method::GET | Method::HEAD);
                let free = reads && (*loopback || request.uri().path() == "/livez");
                if shown || free {
                    return Ok(Caller::Remote { address, token: shown });
                }
                let words = match token {
                    Some(_) => "this needs the API token: send `Authorization: Bearer TOKEN`",
                    None => "writing over TCP needs a token: set `[api] token_file`, or use the unix socket",
                };
                Err(ApiError::new(Failure::Unauthorized, "TokenNeeded", words))
            }
            (Self::Unix { .. } | Self::Tcp { .. }, _) => {
                Err(ApiError::new(Failure::Refused, "CallerUnknown", "the caller of this connection is not known"))
            }
        }
    }
}

/// Whether the token was shown. A wrong one is an error even where none is needed: its owner should hear of it.
fn check_token(request: &Request, token: Option<&Token>) -> Result<bool, ApiError> {
    let Some(header) = request.headers().get(header::AUTHORIZATION) else {
        return Ok(false);
    };
    let bytes = header.as_bytes();
    let shown = match bytes.split_at_checked("Bearer ".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"Bearer ") => rest.trim_ascii(),
        _ => return Err(ApiError::new(Failure::Unauthorized, "TokenNeeded", "`Authorization` takes the form `Bearer TOKEN`")),
    };
    match token {
        Some(token) if token.is(shown) => Ok(true),
        Some(_) => Err(ApiError::new(Failure::Unauthorized, "TokenWrong", "that is not the API token of this supervisor")),
        None => Err(ApiError::new(Failure::Unauthorized, "TokenNeeded", "this supervisor has no `[api] token_file`")),
    }
}

/// Refuses a `Host` that is a name not ours: a page on a rebound name (DNS rebinding) cannot send an address instead.
fn check_host(request: &Request, hosts: &[String]) -> Result<(), ApiError> {
    let header = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let given = header.and_then(|value| value.parse::<Authority>().ok());
    let known = |authority: &Authority| {
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<std::net::IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
    };
    if given.as_ref().is_some_and(known) && request.uri().authority().is_none_or(known) {
        return Ok(());
    }
    let words =
        "the `Host` header names a host that is not this supervisor: use its address, `localhost`, or the name it listens on";
    Err(ApiError::new(Failure::Refused, "HostNotAllowed", words))
}

/// The middleware: nothing passes without a [`Caller`].
pub(super) async fn guard(State(door): State<Door>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let peer = request.extensions().get::<Peer>().copied();
    let caller = door.admit(peer, &request)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn ask(door: &Door, peer: Peer, method: &str, headers: &[(&str, &str)]) -> Result<Caller, String> {
        let mut request = Request::builder().method(method).uri("/v1/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        door.admit(Some(peer), &request.body(Body::empty()).unwrap()).map_err(|error| error.reason)
    }

    fn here() -> Peer {
        Peer::Address("127.0.0.1:40000".parse().unwrap())
    }

    #[test]
    fn the_socket_is_for_root_and_the_supervisors_user() {
        let door = Door::Unix { owner: 1000 };
        let process = |uid| Peer::Process { uid, pid: Some(7) };
        for method in ["GET", "POST"] {
            assert_eq!(ask(&door, process(1001), method, &[]), Err("CallerNotAllowed".to_owned()));
            assert_eq!(ask(&door, process(0), method, &[]), Ok(Caller::Local { uid: 0, pid: Some(7) }));
            assert!(ask(&door, process(1000), method, &[]).is_ok());
        }
        assert_eq!(ask(&door, here(), "GET", &[]), Err("CallerUnknown".to_owned()));
    }

    #[test]
    fn writing_over_tcp_needs_the_token_and_reading_only_from_afar() {
        let token = || Token::parse("0123456789abcdef");
        let local = |token| Door::tcp("127.0.0.1:9631".parse().unwrap(), token, Vec::new()).unwrap();
        let wide = Door::tcp("0.0.0.0:9631".parse().unwrap(), token(), Vec::new()).unwrap();
        let host = ("host", "127.0.0.1:9631");
        let right = ("authorization", "Bearer 0123456789abcdef");
        let wrong = ("authorization", "Bearer 0123456789abcdeX");
        for (door, method, headers, want) in [
            (local(None), "GET", &[host][..], None),
            (local(None), "POST", &[host], Some("TokenNeeded")),
            (local(None), "POST", &[host, right], Some("TokenNeeded")),
            (local(token()), "GET", &[host], None),
            (local(token()), "GET", &[host, wrong], Some("TokenWrong")),
            (local(token()), "POST", &[host], Some("TokenNeeded")),
            (local(token()), "POST", &[host, ("authorization", "Basic eDp5")], Some("TokenNeeded")),
            (local(token()), "POST", &[host, right], None),
            (wide.clone(), "GET", &[host], Some("TokenNeeded")),
            (wide.clone(), "GET", &[host, right], None),
            (wide, "POST", &[host, right], None),
        ] {
            assert_eq!(ask(&door, here(), method, headers).err().as_deref(), want, "{door:?} {method} {headers:?}");
        }
        let open = Door::tcp("0.0.0.0:9631".parse().unwrap(), None, Vec::new());
        assert!(matches!(open, Err(DoorError::TokenNeeded(_))));
    }

    #[test]
    fn a_foreign_name_in_host_is_refused() {
        let door = Door::tcp("127.0.0.1:9631".parse().unwrap(), None, vec!["ams-1.example.com".to_owned()]).unwrap();
        for good in ["127.0.0.1:9631", "localhost", "LOCALHOST:1", "[::1]:9631", "10.0.0.5:9631", "AMS-1.example.com"] {
            assert!(ask(&door, here(), "GET", &[("host", good)]).is_ok(), "{good} was refused");
        }
        for bad in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "a b"] {
            let found = ask(&door, here(), "GET", &[("host", bad)]);
            assert_eq!(found, Err("HostNotAllowed".to_owned()), "{bad:?} was accepted");
        }
        assert!(ask(&door, here(), "GET", &[]).is_err(), "no host at all was accepted");
    }

    #[test]
    fn a_token_file_is_long_enough_and_not_for_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Token::read(&path)
        };
        assert!(matches!(Token::read(&folder.path().join("none")), Err(DoorError::TokenRead { .. })));
        assert!(matches!(read("0123456789abcdef\n", 0o644), Err(DoorError::TokenExposed(_))));
        for bad in ["", "short", "0123456789 abcdef", "0123456789abcdef\nmore", &"x".repeat(5000)] {
            assert!(matches!(read(bad, 0o600), Err(DoorError::TokenForm(_))), "{bad:?} was accepted");
        }
        assert_eq!(read("0123456789abcdef\n", 0o640).unwrap(), Token::parse("0123456789abcdef").unwrap());
    }
}
