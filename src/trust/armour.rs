//! Where in an object a signature stands, and which bytes it is over.
//!
//! The signed bytes of a tag are its raw bytes up to the first byte of the line that begins the signature: nothing is decoded,
//! normalised or trimmed. Git takes the last such line for the beginning, so that with two of them it would verify other bytes than
//! somebody who takes the first; a tag with two is refused. The signed bytes of a commit are its raw bytes without its
//! `gpgsig` lines.

use super::refuse;
use crate::model::{Reason, Refusal};

/// Longest armour that is read, in bytes: an RSA-16384 signature with its key has about eight thousand.
const ARMOUR_MAX_BYTES: usize = 32 << 10;

const SSH: (&str, &str) = ("-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----");
const OPENPGP: (&str, &str) = ("-----BEGIN PGP SIGNATURE-----", "-----END PGP SIGNATURE-----");
/// Forms that Git knows and nothing here verifies, by what people call them.
const REFUSED: [(&str, &str); 2] =
    [("-----BEGIN SIGNED MESSAGE-----", "X.509 (S/MIME)"), ("-----BEGIN PGP MESSAGE-----", "a PGP MESSAGE")];

/// Which kind of signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ssh,
    OpenPgp,
}

/// An object, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signed<'a> {
    pub(super) payload: std::borrow::Cow<'a, [u8]>,
    pub(super) armour: std::borrow::Cow<'a, [u8]>,
    pub(super) kind: Kind,
}

/// Takes a tag object apart. `what` names it in messages.
pub(super) fn of_tag<'a>(bytes: &'a [u8], what: &str) -> Result<Signed<'a>, Refusal> {
    let mut found = None;
    let mut offset = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if is_beginning(line) {
            if found.is_some() {
                let message = format!(
                    "{what} holds two signatures, and which bytes the second is over can be read in two ways; sign it once, and have \
                     others sign a tag of their own beside it (`cosign/TAG/NAME`)"
                );
                return Err(refuse(Reason::InvalidTagSignature, message));
            }
            found = Some(offset);
        }
        offset += line.len();
    }
    let Some(at) = found else {
        return Err(refuse(Reason::InvalidTagSignature, format!("{what} is not signed; make it with `git tag -s`")));
    };
    let (payload, armour) = bytes.split_at(at);
    Ok(Signed { payload: payload.into(), armour: armour.into(), kind: kind(armour, what)? })
}

/// Takes a commit object apart.
pub(super) fn of_commit<'a>(bytes: &[u8], what: &str) -> Result<Signed<'a>, Refusal> {
    let mut payload = Vec::with_capacity(bytes.len());
    let mut armour: Option<Vec<u8>> = None;
    let mut within = Within::Header;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if within == Within::Message {
            payload.extend_from_slice(line);
            continue;
        }
        if let Some(rest) = line.strip_prefix(b" ") {
            match (&within, &mut armour) {
                (Within::Signature, Some(armour)) => armour.extend_from_slice(rest),
                _ => payload.extend_from_slice(line),
            }
            continue;
        }
        within = Within::Header;
        if let Some(rest) = line.strip_prefix(b"gpgsig ") {
            if armour.is_some() {
                return Err(refuse(Reason::InvalidTagSignature, format!("{what} holds two signatures; sign it once")));
            }
            armour = Some(rest.to_vec());
            within = Within::Signature;
            continue;
        }
        if line == b"\n" {
            within = Within::Message;
        }
        payload.extend_from_slice(line);
    }
    let Some(armour) = armour else {
        let message = format!("{what} is not signed, and `commit = true` asks for it; make it with `git commit -S`");
        return Err(refuse(Reason::InvalidTagSignature, message));
    };
    let kind = kind(&armour, what)?;
    Ok(Signed { payload: payload.into(), armour: armour.into(), kind })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Header,
    Signature,
    Message,
}

fn is_beginning(line: &[u8]) -> bool {
    let begins = |marker: &str| line.starts_with(marker.as_bytes());
    begins(SSH.0) || begins(OPENPGP.0) || REFUSED.iter().any(|(marker, _)| begins(marker))
}

fn kind(armour: &[u8], what: &str) -> Result<Kind, Refusal> {
    let fail = |message: String| Err(refuse(Reason::InvalidTagSignature, message));
    if let Some((_, name)) = REFUSED.iter().find(|(marker, _)| armour.starts_with(marker.as_bytes())) {
        return fail(format!("{what} is signed as {name}, which is not verified here; sign with an SSH or OpenPGP key"));
    }
    let (kind, (_, end)) = if armour.starts_with(SSH.0.as_bytes()) { (Kind::Ssh, SSH) } else { (Kind::OpenPgp, OPENPGP) };
    if !armour.starts_with(if kind == Kind::Ssh { SSH.0 } else { OPENPGP.0 }.as_bytes()) {
        return fail(format!("the signature of {what} is of no kind that is known here"));
    }
    if armour.len() > ARMOUR_MAX_BYTES {
        return fail(format!("the signature of {what} has {} bytes, more than the {ARMOUR_MAX_BYTES} allowed", armour.len()));
    }
    let trimmed = armour.trim_ascii_end();
    let ends = trimmed.ends_with(end.as_bytes()) && trimmed[..trimmed.len() - end.len()].ends_with(b"\n");
    if !ends {
        return fail(format!("the signature of {what} has no end, or something stands behind it"));
    }
    Ok(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARMOUR: &str = "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n";

    fn reason(bytes: &[u8]) -> String {
        let refusal = of_tag(bytes, "tag `v1`").unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidTagSignature);
        refusal.message
    }

    #[test]
    fn the_bytes_before_the_armour_are_signed_as_they_are() {
        let tag = format!("object x\n\nwords \r\n\n{ARMOUR}");
        let signed = of_tag(tag.as_bytes(), "t").unwrap();
        assert_eq!(&*signed.payload, b"object x\n\nwords \r\n\n");
        assert_eq!((&*signed.armour, signed.kind), (ARMOUR.as_bytes(), Kind::Ssh));
        let empty = of_tag(ARMOUR.as_bytes(), "t").unwrap();
        assert!(empty.payload.is_empty());
    }

    #[test]
    fn what_git_could_read_in_another_way_is_refused() {
        assert!(reason(b"object x\n\nwords\n").contains("not signed"));
        assert!(reason(format!("m\n{ARMOUR}{ARMOUR}").as_bytes()).contains("two signatures"));
        let quoted = ARMOUR.replace("SSH", "PGP");
        assert!(reason(format!("m\n{quoted}{ARMOUR}").as_bytes()).contains("two signatures"));
        assert!(reason(format!("m\n{ARMOUR}more\n").as_bytes()).contains("stands behind"));
        assert!(reason(b"m\n-----BEGIN SSH SIGNATURE-----\nAAAA\n").contains("no end"));
        assert!(reason(b"m\n-----BEGIN SSH SIGNATURE-----\nAAAA-----END SSH SIGNATURE-----").contains("no end"));
        assert!(reason(b"m\n-----BEGIN SIGNED MESSAGE-----\nx\n-----END SIGNED MESSAGE-----\n").contains("X.509"));
        let long = ARMOUR.replace("AAAA", &"A".repeat(ARMOUR_MAX_BYTES));
        assert!(reason(format!("m\n{long}").as_bytes()).contains("more than"));
        // Not at the beginning of a line: words.
        assert!(reason(format!("m {}", ARMOUR.replace("\n-----END", " -----END")).as_bytes()).contains("not signed"));
    }

    #[test]
    fn a_commit_is_signed_without_its_own_signature_lines() {
        let lines = ARMOUR.trim_end().replace('\n', "\n ");
        let commit = format!("tree x\nauthor a\ncommitter c\ngpgsig {lines}\nencoding y\n z\n\nm\n gpgsig no\ngpgsig no\n");
        let signed = of_commit(commit.as_bytes(), "commit").unwrap();
        assert_eq!(&*signed.payload, b"tree x\nauthor a\ncommitter c\nencoding y\n z\n\nm\n gpgsig no\ngpgsig no\n");
        assert_eq!(String::from_utf8_lossy(&signed.armour), ARMOUR);
        assert!(of_commit(b"tree x\n\nm\n", "commit").unwrap_err().message.contains("not signed"));
        let twice = format!("tree x\ngpgsig {lines}\ngpgsig {lines}\n\nm\n");
        assert!(of_commit(twice.as_bytes(), "commit").unwrap_err().message.contains("two signatures"));
    }
}
