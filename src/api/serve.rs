//! Sockets: opened, and served with bounds on everything a caller can make us hold.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::door::Peer;

/// Connections of one listener at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 128;
/// By when a request's head must be there, also on a connection that is kept open between requests.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// Longest head of a request, in bytes (hyper's smallest buffer is 8 KiB).
const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Pause after a failed accept (out of descriptors), so that it never spins.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// How long written bytes may stay unacknowledged before a TCP connection counts as dead.
const TCP_DEAD: Duration = Duration::from_secs(60);
/// Silence on a TCP connection before the kernel asks whether the other end still lives.
const TCP_ASK_AFTER: Duration = Duration::from_secs(60);

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody answers there.
    #[error("another supervisor answers at `{0}`: stop it first, or give this one a socket of its own with `[api] socket`")]
    Alive(PathBuf),
    /// Something is there that is no socket.
    #[error("`{0}` is there already and is not a socket: it is left as it is; choose another path with `[api] socket`")]
    Occupied(PathBuf),
    /// The supervisor's user may not.
    #[error(
        "the supervisor's user ({user}) may not make a socket in `{}`: leave `socket` of [api] out, name a folder that is not there yet \
         (it is made and given to that user when `tagfall supervise` starts), or `chown` this one", .folder.display()
    )]
    Closed {
        /// The folder of the socket.
        folder: PathBuf,
        /// The user's id.
        user: u32,
    },
    /// A step failed.
    #[error("cannot {step} `{at}`, so the API is not served there")]
    Step {
        /// What was tried.
        step: &'static str,
        /// On what.
        at: String,
        /// Why it failed.
        source: io::Error,
    },
}

fn step<'a>(step: &'static str, at: &'a Path) -> impl FnOnce(io::Error) -> ServeError + 'a {
    move |source| ServeError::Step { step, at: at.display().to_string(), source }
}

/// The unix listener. Dropping it takes its file away, unless another supervisor's stands there by then.
#[derive(Debug)]
pub struct UnixDoor {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for UnixDoor {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Where a supervisor of the present user listens, unless its file says otherwise.
pub fn default_socket() -> PathBuf {
    let user = rustix::process::geteuid();
    let runtime = if user.is_root() {
        PathBuf::from("/run")
    } else {
        let given = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
        given.map_or_else(|| PathBuf::from(format!("/run/user/{}", user.as_raw())), PathBuf::from)
    };
    runtime.join("tagfall/supervisor.sock")
}

/// Opens the unix socket: makes its folder, replaces what a dead supervisor left, refuses where one lives.
///
/// The socket is bound under another name, given its mode, and renamed: nobody can connect before the mode is right.
pub fn bind_unix(path: &Path) -> Result<UnixDoor, ServeError> {
    let parent = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let closed = |error: &io::Error| {
        let folder = parent.filter(|_| error.kind() == io::ErrorKind::PermissionDenied)?.to_owned();
        Some(ServeError::Closed { folder, user: rustix::process::geteuid().as_raw() })
    };
    if let Some(folder) = parent {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
        made.map_err(|error| closed(&error).unwrap_or_else(|| step("make the folder", folder)(error)))?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(ServeError::Occupied(path.to_owned())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => return Err(ServeError::Alive(path.to_owned())),
        Ok(_) | Err(_) => {}
    }
    let fresh = path.with_extension("new");
    if let Err(source) = std::fs::remove_file(&fresh)
        && source.kind() != io::ErrorKind::NotFound
    {
        return Err(step("take away the left-over", &fresh)(source));
    }
    let bound = UnixListener::bind(&fresh);
    let listener = bound.map_err(|error| closed(&error).unwrap_or_else(|| step("listen on", &fresh)(error)))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o660)).map_err(step("set the mode of", &fresh))?;
    std::fs::rename(&fresh, path).map_err(step("put the socket to", path))?;
    let found = std::fs::symlink_metadata(path).map_err(step("look at", path))?;
    Ok(UnixDoor { listener, path: path.to_owned(), inode: (found.dev(), found.ino()) })
}

/// Opens the TCP listener. The address it really has (port 0 is chosen by the kernel) is the listener's `local_addr`.
pub async fn bind_tcp(listen: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Step { step: "listen on", at: listen.to_string(), source };
    TcpListener::bind(listen).await.map_err(failed)
}

/// Serves the unix socket until the future is dropped; its connections end with it.
pub async fn serve_unix(door: UnixDoor, router: Router) {
    serve(door, router).await;
}

/// Serves a TCP listener until the future is dropped; its connections end with it.
pub async fn serve_tcp(listener: TcpListener, router: Router) {
    serve(listener, router).await;
}

/// Something that takes connections and knows who is at their other end.
trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Accept for UnixDoor {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.listener.accept().await?;
        let peer = stream.peer_cred()?;
        Ok((stream, Peer::Process { uid: peer.uid(), pid: peer.pid() }))
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = TcpListener::accept(self).await?;
        // The kernel's timers: a reader that vanished frees its place without a wake-up of ours. A connection that is gone
        // already refuses them, which its first read will tell.
        let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
        let _ = rustix::net::sockopt::set_tcp_keepidle(&stream, TCP_ASK_AFTER);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, u32::try_from(TCP_DEAD.as_millis()).unwrap_or(u32::MAX));
        Ok((stream, Peer::Address(address)))
    }
}

async fn serve(listener: impl Accept, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, peer)| (stream, peer, place))
        };
        tokio::select! {
            accepted = next => match accepted {
                Ok((stream, peer, place)) => {
                    let router = router.clone();
                    connections.spawn(async move {
                        connection(stream, peer, router).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the API");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection, whatever it runs over.
async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, peer: Peer, router: Router) {
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        hyper::service::Service::call(&router, request)
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_MAX_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}
