//! OpenPGP certificates and signatures.
//!
//! The `pgp` crate parses and does the arithmetic; it judges nothing. What counts is decided here: which keys of a certificate
//! may sign, from when to when (`certificate.rs`), and what a signature must be like (`signature.rs`).

mod certificate;
mod signature;

use pgp::composed::{Deserializable, SignedPublicKey};

pub(super) use certificate::Certificate;
pub(super) use signature::read as read_signature;

use super::{FILE_MAX_BYTES, File, TrustError};

const BLOCK_BEGINS: &str = "-----BEGIN PGP ";
const PUBLIC_BLOCK: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
/// Where the name of GnuPG's own format of keyrings stands in such a file.
const KEYBOX_MAGIC: (std::ops::Range<usize>, &[u8]) = (8..12, b"KBXf");

/// Reads a keyring: what `gpg --export` prints, armoured or not. What is wrong goes to `errors`.
pub(super) fn read(file: File<'_>, errors: &mut Vec<TrustError>) -> Vec<Certificate> {
    let mut fail = |message: String| errors.push(TrustError { place: file.name.to_owned(), message });
    if file.bytes.len() > FILE_MAX_BYTES {
        fail(format!("it has more than {FILE_MAX_BYTES} bytes"));
        return Vec::new();
    }
    if file.bytes.get(KEYBOX_MAGIC.0) == Some(KEYBOX_MAGIC.1) {
        fail("it is a keybox of GnuPG, which is not read here: write `gpg --armor --export NAME` into the file".to_owned());
        return Vec::new();
    }
    let keys = if file.bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
        SignedPublicKey::from_bytes_many(file.bytes).and_then(Iterator::collect)
    } else {
        match blocks(file.bytes) {
            Ok(blocks) => {
                let read = |block: &&[u8]| -> pgp::errors::Result<Vec<SignedPublicKey>> {
                    SignedPublicKey::from_armor_many_buf(*block).and_then(|(keys, _)| keys.collect())
                };
                blocks.iter().map(read).collect::<Result<Vec<_>, _>>().map(|keys| keys.into_iter().flatten().collect())
            }
            Err(message) => {
                fail(message);
                return Vec::new();
            }
        }
    };
    match keys {
        Ok(keys) => {
            let keys: Vec<SignedPublicKey> = keys;
            if keys.is_empty() {
                fail("it holds no public key".to_owned());
            }
            keys.into_iter().map(|key| Certificate::of(key, file.name)).collect()
        }
        Err(error) => {
            fail(format!("it cannot be read as OpenPGP public keys: {error}"));
            Vec::new()
        }
    }
}

/// The armoured blocks of a text, each from its first line on.
fn blocks(bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut begins = Vec::new();
    let mut offset = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(BLOCK_BEGINS.as_bytes()) {
            if !line.starts_with(PUBLIC_BLOCK.as_bytes()) {
                let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
                return Err(format!("`{}` does not belong into a keyring: only public keys do", super::shown(&line)));
            }
            begins.push(offset);
        }
        offset += line.len();
    }
    if begins.is_empty() {
        return Err("it holds no OpenPGP public key: write `gpg --armor --export NAME` into the file".to_owned());
    }
    let ends = begins.iter().skip(1).copied().chain([bytes.len()]);
    Ok(begins.iter().copied().zip(ends).map(|(from, to)| &bytes[from..to]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(bytes: &[u8]) -> String {
        let mut errors = Vec::new();
        assert!(read(File { name: "ring", bytes }, &mut errors).is_empty());
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_is_no_keyring_is_named() {
        assert!(errors(b"").contains("no OpenPGP public key"));
        assert!(errors(b"words\n").contains("no OpenPGP public key"));
        assert!(errors(b"\0\0\0\x20\x01\x01\0\x02KBXf\0\0").contains("keybox"));
        assert!(errors(b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nAAAA\n").contains("PRIVATE"));
        assert!(
            errors(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!!\n-----END PGP PUBLIC KEY BLOCK-----\n")
                .contains("cannot be read")
        );
        assert!(errors(&[0x99, 1, 2, 3]).contains("cannot be read"));
    }
}
