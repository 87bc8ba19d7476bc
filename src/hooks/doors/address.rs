//! Which addresses a name may not lead to: pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address that is written as an IPv6 one reaches the same host.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
    }
}

/// The IPv4 address inside: mapped (`::ffff:0:0/96`), compatible (`::/96`, but not `::` and `::1`), or behind NAT64
/// (`64:ff9b::/96`).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = address.segments();
    let inner = || {
        let [h0, h1] = high.to_be_bytes();
        let [l0, l1] = low.to_be_bytes();
        Ipv4Addr::new(h0, h1, l0, l1)
    };
    let zero = [a, b, c, d, e] == [0; 5];
    let mapped = zero && f == 0xffff;
    let compatible = zero && f == 0 && high != 0;
    let nat64 = [a, b, c, d, e, f] == [0x64, 0xff9b, 0, 0, 0, 0];
    (mapped || compatible || nat64).then(inner)
}

/// Why a name may not lead there: who controls the name would choose a place that only this host can reach. `None` where it
/// may.
pub(super) fn off_limits(address: IpAddr) -> Option<&'static str> {
    let address = canonical(address);
    if address.is_loopback() {
        return Some("loopback");
    }
    if address.is_unspecified() {
        return Some("unspecified");
    }
    if address.is_multicast() {
        return Some("multicast");
    }
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if link_local {
        return Some("link-local");
    }
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0);
    broadcast.then_some("reserved")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_only_this_host_reaches_are_off_limits_however_they_are_written() {
        for (text, why) in [
            ("127.0.0.1", "loopback"),
            ("127.8.9.1", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::127.0.0.1", "loopback"),
            ("64:ff9b::7f00:1", "loopback"),
            ("169.254.169.254", "link-local"),
            ("::ffff:169.254.169.254", "link-local"),
            ("64:ff9b::a9fe:a9fe", "link-local"),
            ("fe80::1", "link-local"),
            ("0.0.0.0", "unspecified"),
            ("::", "unspecified"),
            ("::ffff:0.0.0.0", "unspecified"),
            ("0.1.2.3", "reserved"),
            ("255.255.255.255", "reserved"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
        ] {
            assert_eq!(off_limits(text.parse().unwrap()), Some(why), "{text}");
        }
        for text in ["10.0.0.1", "192.168.1.1", "93.184.216.34", "2001:db8::1", "fd00::1", "::ffff:10.0.0.1"] {
            assert_eq!(off_limits(text.parse().unwrap()), None, "{text}");
        }
    }
}
