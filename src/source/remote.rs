//! Addresses of remotes, read as Git reads them.

use std::fmt;
use std::path::{Path, PathBuf};

/// Schemes that libgit2 speaks here.
const SCHEMES: [&str; 4] = ["http", "https", "ssh", "git"];

/// Where the configuration repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remote {
    /// A repository on this host: an absolute path.
    Local(PathBuf),
    /// An address for libgit2, as written.
    Network(String),
}

impl Remote {
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if url.is_empty() || url.contains(char::is_control) {
            return Err("it is empty or has control characters in it".to_owned());
        }
        if let Some(rest) = url.strip_prefix("file://") {
            let path = rest.strip_prefix("localhost").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(format!("`{url}` names another host; write `file:///PATH`"));
            }
            return Ok(Self::Local(percent_decoded(path)?));
        }
        if let Some((scheme, rest)) = url.split_once("://") {
            if !SCHEMES.contains(&scheme) {
                return Err(format!("`{scheme}://` is not spoken; use a path, file://, https://, http://, ssh:// or git://"));
            }
            let host = rest.split('/').next().unwrap_or_default();
            let host = host.rsplit('@').next().unwrap_or_default();
            if host.is_empty() || host.starts_with(':') || host.starts_with('-') {
                return Err(format!("`{}` names no host", redacted(url)));
            }
            return Ok(Self::Network(url.to_owned()));
        }
        if url.contains("::") && !url.starts_with(['/', '[']) {
            return Err(format!("`{url}` names a helper program, and none is ever run"));
        }
        if is_scp_like(url) {
            return if url.starts_with('-') { Err(format!("`{url}` names no host")) } else { Ok(Self::Network(url.to_owned())) };
        }
        std::path::absolute(Path::new(url)).map(Self::Local).map_err(|error| format!("`{url}`: {error}"))
    }

    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Network(url) => f.write_str(&redacted(url)),
        }
    }
}

/// `user@host:path`: a colon before the first slash.
fn is_scp_like(url: &str) -> bool {
    url.split_once(':').is_some_and(|(host, _)| !host.is_empty() && !host.contains('/'))
}

/// The address without a password.
pub(super) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    match authority.rsplit_once('@') {
        None => url.to_owned(),
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:***@{host}{path}"),
            // A token is often written as the user: https://TOKEN@host.
            None if scheme.starts_with("http") => format!("{scheme}://***@{host}{path}"),
            None => url.to_owned(),
        },
    }
}

fn percent_decoded(path: &str) -> Result<PathBuf, String> {
    use std::os::unix::ffi::OsStringExt;
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            decoded.push(bytes[at]);
            at += 1;
            continue;
        }
        let digits = path.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|byte| *byte != 0);
        decoded.push(byte.ok_or_else(|| format!("`file://{path}` has a malformed `%`"))?);
        at += 3;
    }
    Ok(PathBuf::from(std::ffi::OsString::from_vec(decoded)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_git_reads_them() {
        let local = |path: &str| Some(Remote::Local(PathBuf::from(path)));
        let network = |url: &str| Some(Remote::Network(url.to_owned()));
        let cases = [
            ("/srv/x.git", local("/srv/x.git")),
            ("/srv/a:b", local("/srv/a:b")),
            ("file:///srv/x%20y.git", local("/srv/x y.git")),
            ("file://localhost/srv/x", local("/srv/x")),
            ("file://other/srv/x", None),
            ("file:///srv/%zz", None),
            ("file:///srv/%00", None),
            ("https://h/x", network("https://h/x")),
            ("ssh://git@h:22/x", network("ssh://git@h:22/x")),
            ("git@h:x/y.git", network("git@h:x/y.git")),
            ("h:x", network("h:x")),
            ("-oProxyCommand=x:y", None),
            ("ssh://-x/y", None),
            ("https:///x", None),
            ("ext::sh -c x", None),
            ("ftp://h/x", None),
            ("", None),
            ("a\nb", None),
        ];
        for (url, wanted) in cases {
            assert_eq!(Remote::parse(url).ok(), wanted, "{url}");
        }
        assert_eq!(Remote::parse("x/y").unwrap(), Remote::Local(std::env::current_dir().unwrap().join("x/y")));
    }

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("https://u:secret@h/x", "https://u:***@h/x"),
            ("https://secret@h/x", "https://***@h/x"),
            ("https://u:se@cret@h/x", "https://u:***@h/x"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("git@h:x", "git@h:x"),
        ] {
            assert_eq!(Remote::parse(url).unwrap().to_string(), shown);
        }
    }
}
