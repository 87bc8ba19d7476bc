//! Keys that count for nothing: one a line, as a public key (`ssh-ed25519 AAAA… comment`), as its fingerprint (`SHA256:…`), or as
//! the fingerprint of an OpenPGP key or subkey (40 or 64 hexadecimal digits, spaces allowed).

use std::collections::BTreeSet;

use ssh_key::{HashAlg, PublicKey};

use super::{FILE_MAX_BYTES, File, TrustError, shown};

/// How a binary revocation list of OpenSSH begins.
const KRL_MAGIC: &[u8] = b"SSHKRL\n\0";

/// Fingerprints of revoked keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Revoked {
    /// `SHA256:…`
    ssh: BTreeSet<String>,
    /// Upper-case hexadecimal.
    openpgp: BTreeSet<String>,
}

impl Revoked {
    pub(super) fn has_ssh(&self, fingerprint: &str) -> bool {
        self.ssh.contains(fingerprint)
    }

    pub(super) fn has_openpgp(&self, fingerprint: &str) -> bool {
        self.openpgp.contains(fingerprint)
    }
}

/// Reads the list; what is wrong goes to `errors`, with its line.
pub(super) fn read(file: File<'_>, errors: &mut Vec<TrustError>) -> Revoked {
    let mut revoked = Revoked::default();
    let mut fail = |place: String, message: &str| errors.push(TrustError { place, message: message.to_owned() });
    if file.bytes.starts_with(KRL_MAGIC) {
        let message = "it is a binary revocation list (KRL), which is not read here: write the revoked keys or their fingerprints, one a line";
        fail(file.name.to_owned(), message);
        return revoked;
    }
    if file.bytes.len() > FILE_MAX_BYTES {
        fail(file.name.to_owned(), &format!("it has more than {FILE_MAX_BYTES} bytes"));
        return revoked;
    }
    for (number, line) in file.bytes.split(|byte| *byte == b'\n').enumerate() {
        let place = || format!("{}:{}", file.name, number + 1);
        let Ok(line) = std::str::from_utf8(line).map(str::trim) else {
            fail(place(), "the line is not UTF-8");
            continue;
        };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(fingerprint) = line.split_whitespace().next().filter(|word| word.starts_with("SHA256:")) {
            match fingerprint.parse::<ssh_key::Fingerprint>() {
                Ok(fingerprint) => drop(revoked.ssh.insert(fingerprint.to_string())),
                Err(_) => fail(place(), "this is no fingerprint as `ssh-keygen -l` prints it"),
            }
            continue;
        }
        let digits: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        if matches!(digits.len(), 40 | 64) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            revoked.openpgp.insert(digits.to_ascii_uppercase());
            continue;
        }
        match PublicKey::from_openssh(line) {
            Ok(key) => drop(revoked.ssh.insert(key.fingerprint(HashAlg::Sha256).to_string())),
            Err(_) => fail(place(), &format!("`{}` is neither a public key nor a fingerprint (`SHA256:…`)", shown(line))),
        }
    }
    revoked
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdhvLOTzbgT8GvFTwpnkTsK9/k7ewxjgXdc5KnvoJn2 a b";
    const FINGERPRINT: &str = "SHA256:";

    fn list(bytes: &[u8]) -> (Revoked, Vec<String>) {
        let mut errors = Vec::new();
        let revoked = read(File { name: "r", bytes }, &mut errors);
        (revoked, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn keys_and_fingerprints_are_read() {
        let own = PublicKey::from_openssh(KEY).unwrap().fingerprint(HashAlg::Sha256).to_string();
        let pgp = "0123 4567 89AB CDEF 0123  4567 89ab cdef 0123 4567";
        let text = format!("# gone\n\n{KEY}\n{pgp}\n");
        let (revoked, errors) = list(text.as_bytes());
        assert_eq!(errors, [""; 0]);
        assert!(own.starts_with(FINGERPRINT) && revoked.has_ssh(&own));
        assert!(revoked.has_openpgp("0123456789ABCDEF0123456789ABCDEF01234567"));
        let (revoked, _) = list(format!("{own} comment\n").as_bytes());
        assert!(revoked.has_ssh(&own) && !revoked.has_ssh("SHA256:x"));
    }

    #[test]
    fn what_is_neither_is_an_error_with_its_line() {
        for bad in ["nonsense", "SHA256:short", "ssh-ed25519 AAAA", "0123456789abcdef"] {
            let (_, errors) = list(format!("#\n{bad}\n").as_bytes());
            assert!(errors.len() == 1 && errors[0].starts_with("r:2: "), "{bad}: {errors:?}");
        }
        assert!(list(b"SSHKRL\n\0\0\0").1[0].contains("KRL"));
        assert!(list(b"\xff\n").1[0].contains("UTF-8"));
    }
}
