//! The little languages inside strings: durations, sizes, addresses, paths. Each function answers with what the text means
//! or with what it should have been; none knows where the text stood. A new one becomes a variant of `shape::Text` or
//! `shape::Kind`.

use std::time::Duration;

use crate::model::{Count, may_be_published};

/// Longest path below a mount or of a file, as Linux takes it (PATH_MAX less the final NUL).
const PATH_MAX_BYTES: usize = 4095;

/// Whether a text is rendered before it is used, so that only its form after that can be judged.
pub(crate) fn is_template(text: &str) -> bool {
    text.contains("{{")
}

/// Milliseconds of each unit, longest names first so that `ms` is not taken for `m`.
const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `250ms`, `30s`, `5m`, `1h30m`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = rest.get(..letters)?;
        let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.checked_mul(*factor)?)?;
        rest = rest.get(letters..)?;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

/// A duration as it would be written.
pub(crate) fn duration_text(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit = DURATION_UNITS.iter().rev().find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor));
    let (name, factor) = unit.unwrap_or(&DURATION_UNITS[0]);
    format!("{}{name}", ms / factor)
}

const SIZE_UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// `512MiB`, `64KiB`, `2GB`.
pub(crate) fn size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// `25%`, 1 to 100.
pub(crate) fn percent(text: &str) -> Option<Count> {
    let number: u8 = text.strip_suffix('%')?.parse().ok()?;
    (1..=100).contains(&number).then_some(Count::Percent(number))
}

/// What is wrong with an absolute path, if anything.
pub(crate) fn absolute_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("an absolute path");
    }
    if path.len() > PATH_MAX_BYTES || path.chars().any(char::is_control) {
        return Err("a path of at most 4095 bytes without control characters");
    }
    let normal = path == "/" || path[1..].split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if !normal {
        return Err("a path without `//`, `.`, `..` and without `/` at its end");
    }
    Ok(())
}

/// What is wrong with a path to publish at, if anything: the words after "must be".
pub(crate) fn mount_path(path: &str) -> Result<(), String> {
    absolute_path(path)?;
    if is_template(path) {
        return Err("a path as it stands, without templates".to_owned());
    }
    if path.split('/').skip(1).any(|part| part.len() > 255) {
        return Err("a path whose parts have at most 255 bytes each".to_owned());
    }
    may_be_published(path)
}

/// `HOST:PORT`, an IPv6 address in brackets.
pub(crate) fn host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_fine = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host_name(host),
    };
    host_is_fine && port_number(port)
}

/// `unix:/PATH`.
pub(crate) fn unix_path(text: &str) -> bool {
    text.strip_prefix("unix:").is_some_and(|path| absolute_path(path).is_ok() && path.len() < 108)
}

/// A port that can be connected to.
pub(crate) fn port_number(text: &str) -> bool {
    !text.starts_with('+') && text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn host_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed)
}

/// `http://HOST[:PORT][/PATH]`.
pub(crate) fn http_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://") else { return false };
    if rest.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return false;
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    host_port(authority) || host_port(&format!("{authority}:80"))
}

/// `tcp://IP:PORT`, `udp://IP:PORT`, `unix:///PATH`.
pub(crate) fn socket(text: &str) -> bool {
    let inet = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("udp://"));
    match inet {
        Some(address) => address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.port() > 0),
        None => text.strip_prefix("unix://").is_some_and(|path| absolute_path(path).is_ok() && path.len() < 108),
    }
}

/// `HOST:CONTAINER`, `IP:HOST:CONTAINER`, each with `/tcp` or `/udp` at its end where wanted.
pub(crate) fn port_mapping(text: &str) -> bool {
    let plain = text.strip_suffix("/tcp").or_else(|| text.strip_suffix("/udp")).unwrap_or(text);
    let Some((host, container)) = plain.rsplit_once(':') else { return false };
    let host_is_fine = match host.rsplit_once(':') {
        Some((address, port)) => {
            let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
            address.parse::<std::net::IpAddr>().is_ok() && port_number(port)
        }
        None => port_number(host),
    };
    host_is_fine && port_number(container)
}

/// Names of binds, exports and commands: what can stand in a template's path.
pub(crate) fn identifier(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Names of environment variables.
pub(crate) fn variable(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Names of rings, users and the like: short, printable, no path and no option.
pub(crate) fn plain_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    first && text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// Keys and values of labels.
pub(crate) fn label(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_what_they_print() {
        for (text, ms) in [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h30m", 5_400_000), ("0s", 0), ("2d", 172_800_000)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(duration(&duration_text(Duration::from_millis(ms))), Some(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "5", "s", "5 s", "-1s", "1.5s", "5x", "5S", "99999999999999999999s", "9999999999999999d", "1s ", "٣s"] {
            assert_eq!(duration(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes_need_a_unit_that_is_known() {
        for (text, bytes) in [("512MiB", 512 << 20), ("64KiB", 64 << 10), ("1GB", 1_000_000_000), ("7B", 7), ("2 GiB", 2 << 30)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "512", "MiB", "1.5GiB", "-1B", "5mib", "99999999999TiB"] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn addresses_and_urls_are_told_from_what_only_looks_like_them() {
        for good in ["127.0.0.1:80", "db:5432", "[::1]:80"] {
            assert!(host_port(good), "{good}");
        }
        for bad in ["", ":80", "host", "host:", "host:0", "host:65536", "a b:1", "::1:80", "[::1]", "[x]:1", "host:+80"] {
            assert!(!host_port(bad), "{bad}");
        }
        for good in ["http://a", "http://a:80/x?y", "http://[::1]:80/", "http://[::1]/"] {
            assert!(http_url(good), "{good}");
        }
        for bad in ["https://a/", "http://", "http:///x", "ftp://a", "http://a b/", "http://a:b/", "a/b"] {
            assert!(!http_url(bad), "{bad}");
        }
        for bad in ["tcp://host:1", "tcp://0.0.0.0", "0.0.0.0:80", "unix://run/x", "tcp://0.0.0.0:0"] {
            assert!(!socket(bad), "{bad}");
        }
        assert!(socket("tcp://0.0.0.0:80") && socket("udp://[::]:53") && socket("unix:///run/x.sock"));
        assert!(port_mapping("8080:80") && port_mapping("127.0.0.1:8080:80/tcp") && port_mapping("[::1]:1:2/udp"));
        assert!(!port_mapping("8080") && !port_mapping("x:80") && !port_mapping("80:80/sctp"));
    }

    #[test]
    fn a_mount_path_is_a_folder_of_the_groups_own() {
        for good in ["/etc/guestbook", "/var/lib/app", "/srv/a/b/c", "/run/app", "/usr/local/etc/app", "/devices/x"] {
            assert_eq!(mount_path(good), Ok(()), "{good}");
        }
        let bad = [
            "",
            "etc/x",
            "/",
            "/etc",
            "/srv",
            "/etc/",
            "/etc//x",
            "/etc/./x",
            "/etc/../x",
            "/proc/x",
            "/sys/x/y",
            "/dev/shm",
            "/boot/x",
            "/run/tagfall",
            "/run/tagfall/x",
            "/var/lib",
            "/usr/bin",
            "/a/b\n",
            "/etc/ssh",
        ];
        for bad in bad {
            assert!(mount_path(bad).is_err(), "{bad:?}");
        }
    }
}
