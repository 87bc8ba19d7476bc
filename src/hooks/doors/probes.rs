//! Connections of declared probes: all are made at once, and handed over in the order in which they come about. That a probe is
//! declared opens its own address and no other, by the rules of `allow.net`.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::task::JoinSet;

use super::net::{self, Refused};
use crate::hooks::wire::{Code, Target};
use crate::model::{Probe, Probes};

/// The probes of one call that are still connecting.
pub(super) struct Probing(JoinSet<Probed>);

/// A probe that has its connection, or will have none.
pub(super) struct Probed {
    pub(super) name: String,
    /// Where it leads, in words.
    pub(super) to: String,
    pub(super) outcome: Result<OwnedFd, Refused>,
}

impl Probing {
    /// Begins all; `net` is what is granted beside.
    pub(super) fn begin(probes: &Probes, net: &[String], timeout: Duration) -> Self {
        let mut set = JoinSet::new();
        for (name, probe) in probes {
            let (name, target, mut grants) = (name.clone(), target(probe), net.to_vec());
            set.spawn(async move {
                match target {
                    Ok(to) => {
                        grants.push(net::grant(&to));
                        let outcome = net::connect_within(timeout, &grants, &to).await;
                        Probed { name, to: net::shown(&to), outcome }
                    }
                    Err((code, message)) => {
                        Probed { name, to: "nowhere".to_owned(), outcome: Err(Refused::Failed(code, message)) }
                    }
                }
            });
        }
        Self(set)
    }

    /// The next one; `None` where there is no more.
    pub(super) async fn next(&mut self) -> Option<Probed> {
        loop {
            // One that broke off has no answer, as whoever waits for it finds.
            if let Ok(probed) = self.0.join_next().await? {
                return Some(probed);
            }
        }
    }
}

fn target(probe: &Probe) -> Result<Target, (Code, String)> {
    match probe {
        Probe::Http { url } => Target::of_url(&Target::url(url)?),
        Probe::Stream { address, .. } => Target::of_address(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_leads_where_it_says_or_nowhere() {
        let tcp = |host: &str, port| Target::Tcp { host: host.to_owned(), port };
        let http = |url: &str| target(&Probe::Http { url: url.to_owned() }).map_err(|(code, _)| code);
        assert_eq!(http("http://a:81/x?y"), Ok(tcp("a", 81)));
        assert_eq!(http("http://user:word@a/x"), Ok(tcp("a", 80)));
        assert_eq!(http("http://[::1]:8/"), Ok(tcp("::1", 8)));
        assert_eq!(http("https://a/"), Err(Code::Tls));
        for url in ["", "a", "/x", "ftp://a/", "http://", "http://a b/"] {
            assert_eq!(http(url), Err(Code::Invalid), "{url}");
        }
        let stream = |address: &str| {
            let probe = Probe::Stream { address: address.to_owned(), send: String::new(), until: None };
            target(&probe).map_err(|(code, _)| code)
        };
        assert_eq!(stream("a:81"), Ok(tcp("a", 81)));
        assert_eq!(stream("[::1]:8"), Ok(tcp("::1", 8)));
        assert_eq!(stream("unix:/run/x.sock"), Ok(Target::Unix { path: "/run/x.sock".to_owned() }));
        for address in ["", "a", "a:", ":80", "a:http", "a:70000", "unix:x.sock"] {
            assert_eq!(stream(address), Err(Code::Invalid), "{address}");
        }
        let to = http("http://[::1]:8/").unwrap();
        assert_eq!((net::grant(&to), net::grant(&tcp("a", 1))), ("[::1]:8".to_owned(), "a:1".to_owned()));
    }
}
