//! Who may say that a tag is a release: trusted keys, signatures, and how many people must have signed.
//!
//! Pure: it is handed the texts of the trust files, the raw bytes of objects and the time, and answers with names or with a
//! refusal. It knows nothing of repositories, files, tags' versions or what a release means. One file per question:
//!
//! | file | question |
//! | --- | --- |
//! | `signers.rs`, `dates.rs` | what `allowed_signers` says |
//! | `revoked.rs` | which keys count for nothing |
//! | `armour.rs` | which bytes of an object are signed, and where the signature stands |
//! | `ssh.rs`, `openpgp/` | whether one signature holds, and whose it is |
//! | `judge.rs` | whether that is enough |
//!
//! A new kind of signature is a file with one function from payload and armour to a key, and an arm in `judge.rs`. What is
//! not understood is refused by its name; nothing is ever skipped.
//!
//! # Which time counts
//! A key must have been valid by two clocks: this host's, when it judges, and the signer's own word in the object. The word
//! alone would let a stolen key that has expired date its tags back; this host's clock alone would let a key vouch for what
//! it was never meant for. What was accepted once is judged by the moment at which it was accepted, so that a key that
//! merely expires takes nothing back; one that is revoked or removed does.

mod armour;
mod dates;
mod judge;
mod openpgp;
mod revoked;
mod signers;
mod ssh;

use crate::model::{Digest, DigestBuilder, Reason, Refusal, Timestamp};

pub use judge::{Evidence, Statement};

/// Longest trust file that is read, in bytes: some ten thousand keys.
pub const FILE_MAX_BYTES: usize = 4 << 20;

/// The namespace that Git signs in.
const NAMESPACE: &str = "git";
/// Shortest RSA modulus that counts, in bits.
const RSA_MIN_BITS: usize = 2048;

/// One trust file as it was read.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// What messages call it: its path.
    pub name: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
}

/// All that trust is made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files<'a> {
    /// OpenSSH's `allowed_signers`.
    pub allowed_signers: Option<File<'a>>,
    /// OpenPGP certificates, armoured or binary.
    pub openpgp_keyring: Option<File<'a>>,
    /// Keys that count for nothing, whatever the others say.
    pub revoked_keys: Option<File<'a>>,
}

/// How much is asked of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// So many different people.
    pub threshold: u32,
    /// Whether the commit must be signed as well.
    pub commit: bool,
}

/// What is wrong with a trust file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct TrustError {
    /// File and line, or the file and the key.
    pub place: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Trusted keys, and what is asked of a tag.
#[derive(Debug, Clone)]
pub struct Trust {
    policy: Policy,
    signers: Vec<signers::Signer>,
    certificates: Vec<openpgp::Certificate>,
    revoked: revoked::Revoked,
    /// The person behind each signer, then behind each certificate: keys that share a name are one person's.
    people: Vec<usize>,
    /// Where a stranger's key would have to be added.
    listed_in: String,
    digest: Digest,
}

impl Trust {
    /// Reads the trust files. A file with an error in it is no trust at all: what its other lines say may be what its
    /// author meant to take away.
    ///
    /// # Errors
    /// Everything that is wrong, with its place.
    pub fn read(files: &Files<'_>, policy: Policy) -> Result<Self, Vec<TrustError>> {
        let mut errors = Vec::new();
        let revoked = files.revoked_keys.map_or_else(revoked::Revoked::default, |file| revoked::read(file, &mut errors));
        let signers = files.allowed_signers.map_or_else(Vec::new, |file| signers::read(file, &mut errors));
        let certificates = files.openpgp_keyring.map_or_else(Vec::new, |file| openpgp::read(file, &mut errors));
        if errors.is_empty() && signers.is_empty() && certificates.is_empty() {
            let place = listed_in(files);
            errors.push(TrustError { place, message: "no key is named there, so no tag can be verified".to_owned() });
        }
        let names = signers.iter().map(|signer| &signer.principals[..]);
        let people = people(names.chain(certificates.iter().map(|certificate| &certificate.names[..])));
        if !errors.is_empty() {
            return Err(errors);
        }
        let trust =
            Self { policy, signers, certificates, revoked, people, listed_in: listed_in(files), digest: digest(files, policy) };
        let persons = trust.people.iter().collect::<std::collections::BTreeSet<_>>().len();
        if (policy.threshold as usize) > persons {
            let message = format!(
                "`threshold = {}` asks for more people than the {persons} whose keys are there: add their keys, or lower it",
                policy.threshold
            );
            return Err(vec![TrustError { place: trust.listed_in, message }]);
        }
        Ok(trust)
    }

    /// Says whether two trusts are the same.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What is asked of a tag.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// How many keys there are: of SSH, and OpenPGP certificates.
    pub fn keys(&self) -> (usize, usize) {
        (self.signers.len(), self.certificates.len())
    }

    /// Counts the moments, of those at which some key becomes valid or ceases to be, that have passed. While it stays the same,
    /// so does every judgement.
    pub fn epoch(&self, now: Timestamp) -> usize {
        let now_s = now.0 / 1000;
        let windows = self.signers.iter().map(|signer| signer.window);
        let windows = windows.chain(self.certificates.iter().flat_map(openpgp::Certificate::windows));
        windows
            .map(|window| usize::from(now_s >= window.from_s) + usize::from(window.until_s.is_some_and(|end| now_s >= end)))
            .sum()
    }
}

/// When a key is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Window {
    from_s: u64,
    /// From this second on it is not; `None` = for ever.
    until_s: Option<u64>,
}

impl Window {
    /// Checks a moment; `whose` says by which clock it was read.
    fn check(self, at_s: u64, whose: &str) -> Result<(), String> {
        let told = |seconds: u64| Timestamp(seconds.saturating_mul(1000));
        if at_s < self.from_s {
            return Err(format!("is valid from {} on, and it is {} by {whose}", told(self.from_s), told(at_s)));
        }
        match self.until_s.filter(|end| at_s >= *end) {
            Some(end) => Err(format!("expired at {}, and it is {} by {whose}", told(end), told(at_s))),
            None => Ok(()),
        }
    }

    /// Checks both moments that count.
    fn check_both(self, times: Times) -> Result<(), String> {
        self.check(times.now_s, "this host's clock").and_then(|()| self.check(times.claimed_s, "the signer's word"))
    }
}

/// The moments that a key must have been valid at, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// By this host's clock.
    now_s: u64,
    /// By the signer's word.
    claimed_s: u64,
}

/// Numbers people: names in common make keys one person's, over any number of steps.
fn people<'a>(names: impl Iterator<Item = &'a [String]>) -> Vec<usize> {
    let names: Vec<&[String]> = names.collect();
    let mut person: Vec<usize> = (0..names.len()).collect();
    let mut first = std::collections::BTreeMap::new();
    for (at, own) in names.iter().enumerate() {
        for name in *own {
            let other = *first.entry(name.as_str()).or_insert(at);
            let (keep, drop) = (person[other].min(person[at]), person[other].max(person[at]));
            for number in &mut person {
                if *number == drop {
                    *number = keep;
                }
            }
        }
    }
    person
}

fn listed_in(files: &Files<'_>) -> String {
    let names = [files.allowed_signers, files.openpgp_keyring].into_iter().flatten().map(|file| file.name);
    names.collect::<Vec<_>>().join(" and ")
}

fn digest(files: &Files<'_>, policy: Policy) -> Digest {
    let mut digest = DigestBuilder::new("trust").field(&policy.threshold.to_le_bytes()).field(&[u8::from(policy.commit)]);
    for file in [files.allowed_signers, files.openpgp_keyring, files.revoked_keys] {
        digest = digest.field(&[u8::from(file.is_some())]).field(file.map_or(&[][..], |file| file.bytes));
    }
    digest.finish()
}

fn refuse(reason: Reason, message: impl Into<String>) -> Refusal {
    Refusal { reason, message: message.into() }
}

/// Text of a stranger, fit to be shown.
fn shown(text: &str) -> String {
    text.escape_debug().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_share_a_name_are_one_persons() {
        let list = |names: &[&[&str]]| names.iter().map(|own| own.iter().map(|name| (*name).to_owned()).collect()).collect();
        let number = |names: &[&[&str]]| {
            let names: Vec<Vec<String>> = list(names);
            people(names.iter().map(Vec::as_slice))
        };
        assert_eq!(number(&[&["a"], &["b"], &["a"]]), [0, 1, 0]);
        assert_eq!(number(&[&["a"], &["c"], &["b"], &["a", "b"], &["c"]]), [0, 1, 0, 0, 1]);
        assert_eq!(number(&[]), [0; 0]);
    }

    #[test]
    fn a_window_has_two_ends() {
        let window = Window { from_s: 10, until_s: Some(20) };
        let held = |now_s, claimed_s| window.check_both(Times { now_s, claimed_s }).is_ok();
        assert!(held(10, 19));
        for (now, claimed) in [(9, 15), (20, 15), (15, 9), (15, 20)] {
            assert!(!held(now, claimed), "{now} {claimed}");
        }
    }

    #[test]
    fn no_key_at_all_is_an_error() {
        let nothing = File { name: "/etc/allowed", bytes: b"# nobody\n" };
        let files = Files { allowed_signers: Some(nothing), ..Files::default() };
        let errors = Trust::read(&files, Policy { threshold: 1, commit: false }).unwrap_err();
        assert!(errors[0].to_string().starts_with("/etc/allowed: "), "{errors:?}");
    }
}
