//! Where a URL or an address leads, as hooks and probes name it: pure.

use hyper::Uri;

use super::wire::{Code, Target};

const DEFAULT_PORT: u16 = 80;

fn invalid(message: impl Into<String>) -> (Code, String) {
    (Code::Invalid, message.into())
}

impl Target {
    /// A URL, as far as it is one.
    pub(super) fn url(text: &str) -> Result<Uri, (Code, String)> {
        text.parse().map_err(|cause| invalid(format!("`{text}`: {cause}")))
    }

    /// Where a URL leads.
    pub(super) fn of_url(uri: &Uri) -> Result<Self, (Code, String)> {
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err((Code::Tls, "there is no TLS here: only `http://` URLs can be asked".to_owned())),
            _ => return Err(invalid("only `http://` URLs can be asked")),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("the URL names no host"))?;
        // An IPv6 address stands in brackets in a URL, and without them everywhere else.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self::Tcp { host, port: uri.port_u16().unwrap_or(DEFAULT_PORT) })
    }

    /// Where `HOST:PORT` or `unix:/PATH` leads.
    pub(super) fn of_address(text: &str) -> Result<Self, (Code, String)> {
        let wrong = || invalid(format!("`{}` is neither `HOST:PORT` nor `unix:/PATH`", text.escape_debug()));
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix { path: path.to_owned() }) } else { Err(wrong()) };
        }
        let (host, port) = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self::Tcp { host, port: port.parse().map_err(|_| wrong())? })
    }
}
