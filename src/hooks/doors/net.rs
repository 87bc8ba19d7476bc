//! Connections, held against `allow.net`: what counts is the address that is connected to, not the name that led there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use tokio::net::{TcpStream, UnixStream};

use super::address::{canonical, off_limits};
use super::blocking;
use crate::hooks::wire::{Code, Target};

/// The name that never goes to a name server.
const LOCALHOST: &str = "localhost";
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Why there is no connection.
pub(super) enum Refused {
    /// `allow.net` would need this entry.
    NotGranted(String),
    /// It was allowed, and did not come about.
    Failed(Code, String),
}

/// A target as people write it.
pub(super) fn shown(to: &Target) -> String {
    match to {
        Target::Tcp { host, port } if host.contains(':') && !host.starts_with('[') => format!("[{}]:{port}", cut(host)),
        Target::Tcp { host, port } => format!("{}:{port}", cut(host)),
        Target::Unix { path } => format!("unix:{}", cut(path)),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(256).collect::<String>().escape_debug().to_string()
}

/// Connects, where the grants let it.
async fn connect(grants: &[String], to: &Target) -> Result<OwnedFd, Refused> {
    match to {
        Target::Tcp { host, port } => tcp(grants, host, *port, to).await,
        Target::Unix { path } => unix(grants, path, to).await,
    }
}

/// Connects, where the grants let it, or gives up.
pub(super) async fn connect_within(timeout: Duration, grants: &[String], to: &Target) -> Result<OwnedFd, Refused> {
    let late = || Refused::Failed(Code::Timeout, format!("no connection within {} ms", timeout.as_millis()));
    tokio::time::timeout(timeout, connect(grants, to)).await.unwrap_or_else(|_| Err(late()))
}

/// The entry of `allow.net` that is made for a target.
pub(super) fn grant(to: &Target) -> String {
    match to {
        Target::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Target::Tcp { host, port } => format!("{host}:{port}"),
        Target::Unix { path } => format!("unix:{path}"),
    }
}

/// An entry of `allow.net`.
enum Entry {
    Address(IpAddr),
    Name(String),
}

/// The entries for a port.
fn entries(grants: &[String], port: u16) -> Vec<Entry> {
    let of_port = grants.iter().filter(|grant| !grant.starts_with("unix:")).filter_map(|grant| {
        let (host, own) = grant.rsplit_once(':')?;
        (own.parse() == Ok(port)).then(|| entry(host))
    });
    of_port.collect()
}

fn entry(host: &str) -> Entry {
    match address(host) {
        Some(address) => Entry::Address(address),
        None => Entry::Name(name(host)),
    }
}

fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok().map(canonical)
}

/// Names are the same in any case, and with a dot at their end.
fn name(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

async fn tcp(grants: &[String], host: &str, port: u16, to: &Target) -> Result<OwnedFd, Refused> {
    let entries = entries(grants, port);
    let granted_address = |wanted: IpAddr| entries.iter().any(|entry| matches!(entry, Entry::Address(own) if *own == wanted));
    let granted_name = |wanted: &str| entries.iter().any(|entry| matches!(entry, Entry::Name(own) if own == wanted));
    let not_granted = || Refused::NotGranted(shown(to));
    if let Some(address) = address(host) {
        return if granted_address(address) { one(SocketAddr::new(address, port)).await } else { Err(not_granted()) };
    }
    let wanted = name(host);
    let by_name = granted_name(&wanted);
    let addresses = if wanted == LOCALHOST {
        vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
    } else if by_name {
        resolve(&wanted, port).await?
    } else {
        // Not even looked up: a name that is asked for is a message to whoever answers for it.
        return Err(not_granted());
    };
    let mut last = not_granted();
    for address in addresses.into_iter().map(canonical).take(ADDRESSES_MAX) {
        let may = granted_address(address) || by_name && (wanted == LOCALHOST || off_limits(address).is_none());
        if !may {
            if by_name {
                let place = shown(&Target::Tcp { host: address.to_string(), port });
                last = Refused::NotGranted(place);
            }
            continue;
        }
        match one(SocketAddr::new(address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(refused) => last = refused,
        }
    }
    Err(last)
}

async fn resolve(name: &str, port: u16) -> Result<Vec<IpAddr>, Refused> {
    let gone = |error: &dyn std::fmt::Display| Refused::Failed(Code::Dns, format!("`{}` has no address: {error}", cut(name)));
    let wanted = name.to_owned();
    let look_up = move || (wanted.as_str(), port).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect());
    let found: io::Result<Vec<IpAddr>> = blocking(look_up).await.map_err(|why| gone(&why))?;
    let found = found.map_err(|error| gone(&error))?;
    if found.is_empty() { Err(gone(&"none was found")) } else { Ok(found) }
}

async fn one(address: SocketAddr) -> Result<OwnedFd, Refused> {
    let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
    stream.into_std().map(OwnedFd::from).map_err(|error| failed(&error))
}

fn failed(error: &io::Error) -> Refused {
    let named = [
        (io::ErrorKind::ConnectionRefused, Code::ConnectionRefused),
        (io::ErrorKind::TimedOut, Code::Timeout),
        (io::ErrorKind::NotFound, Code::NotFound),
    ];
    let code = named.into_iter().find(|(kind, _)| *kind == error.kind()).map_or(Code::Other, |(_, code)| code);
    Refused::Failed(code, crate::hooks::in_words(error))
}

async fn unix(grants: &[String], path: &str, to: &Target) -> Result<OwnedFd, Refused> {
    if !grants.iter().any(|grant| grant.strip_prefix("unix:") == Some(path)) {
        return Err(Refused::NotGranted(shown(to)));
    }
    // Where /var/run is still a link, it is everybody's way to /run.
    let real = path.strip_prefix("/var/run/").map_or_else(|| path.to_owned(), |rest| format!("/run/{rest}"));
    // No link on the way: whoever may write in one of the folders would choose which socket it is.
    let opened = rustix::fs::openat2(CWD, &real, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    let socket = opened.map_err(|error| match error {
        rustix::io::Errno::LOOP => Refused::Failed(Code::Denied, format!("there is a link on the way to `{}`", cut(path))),
        error => failed(&error.into()),
    })?;
    let kind = rustix::fs::fstat(&socket).map(|found| FileType::from_raw_mode(found.st_mode));
    if kind != Ok(FileType::Socket) {
        return Err(Refused::Failed(Code::Denied, format!("`{}` is not a socket", cut(path))));
    }
    let stream = UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await.map_err(|error| failed(&error))?;
    stream.into_std().map(OwnedFd::from).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, UnixListener};

    use super::*;

    async fn ask(grants: &[&str], to: Target) -> Result<(), String> {
        let grants: Vec<String> = grants.iter().map(|grant| (*grant).to_owned()).collect();
        let done = tokio::time::timeout(Duration::from_secs(10), connect(&grants, &to)).await.unwrap();
        done.map(drop).map_err(|refused| match refused {
            Refused::NotGranted(entry) => format!("needs {entry}"),
            Refused::Failed(code, _) => code.word().to_owned(),
        })
    }

    fn tcp_to(host: &str, port: u16) -> Target {
        Target::Tcp { host: host.to_owned(), port }
    }

    #[tokio::test]
    async fn an_address_is_reached_by_any_spelling_and_no_other_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let grant = format!("127.0.0.1:{port}");
        for host in ["127.0.0.1", "::ffff:127.0.0.1", "[::ffff:7f00:1]", "localhost", "LOCALHOST."] {
            assert_eq!(ask(&[&grant], tcp_to(host, port)).await, Ok(()), "{host}");
        }
        for (host, needs) in [
            ("127.0.0.2", format!("needs 127.0.0.2:{port}")),
            ("::1", format!("needs [::1]:{port}")),
            ("0.0.0.0", format!("needs 0.0.0.0:{port}")),
            ("example.com", format!("needs example.com:{port}")),
            ("2130706433", format!("needs 2130706433:{port}")),
            ("127.1", format!("needs 127.1:{port}")),
            ("", format!("needs :{port}")),
        ] {
            assert_eq!(ask(&[&grant], tcp_to(host, port)).await, Err(needs), "{host}");
        }
        let other = if port == 1 { 2 } else { port - 1 };
        assert_eq!(ask(&[&grant], tcp_to("127.0.0.1", other)).await, Err(format!("needs 127.0.0.1:{other}")));
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_host_needs_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Numbers that only getaddrinfo takes for addresses: names that lead to loopback wherever this runs.
        for name in ["127.1", "2130706433", "0x7f.1"] {
            let grant = format!("{name}:{port}");
            assert_eq!(ask(&[&grant], tcp_to(name, port)).await, Err(format!("needs 127.0.0.1:{port}")), "{name}");
            let both = format!("127.0.0.1:{port}");
            assert_eq!(ask(&[&grant, &both], tcp_to(name, port)).await, Ok(()), "{name}");
        }
        assert_eq!(ask(&[&format!("localhost:{port}")], tcp_to("localhost", port)).await, Ok(()));
        assert_eq!(ask(&[&format!("nowhere.invalid:{port}")], tcp_to("nowhere.invalid", port)).await, Err("dns".to_owned()));
    }

    #[tokio::test]
    async fn a_unix_socket_is_reached_by_its_own_path_without_links() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let _listener = UnixListener::bind(at("real.sock")).unwrap();
        std::os::unix::fs::symlink(at("real.sock"), at("link.sock")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        let granted = |name: &str| format!("unix:{}", at(name));
        for (name, wanted) in [
            ("real.sock", Ok(())),
            ("link.sock", Err("denied".to_owned())),
            ("file", Err("denied".to_owned())),
            ("gone", Err("not-found".to_owned())),
        ] {
            assert_eq!(ask(&[&granted(name)], Target::Unix { path: at(name) }).await, wanted, "{name}");
        }
        let refused = ask(&[&granted("other")], Target::Unix { path: at("real.sock") }).await;
        assert_eq!(refused, Err(format!("needs {}", granted("real.sock"))));
    }
}
