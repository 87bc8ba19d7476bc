//! SSH signatures, as `ssh-keygen -Y sign` makes them.

use ssh_key::public::KeyData;
use ssh_key::{Algorithm, HashAlg, PublicKey, SshSig};

use super::{NAMESPACE, refuse, shown};
use crate::model::{Reason, Refusal};

/// Set in a security key's answer when somebody touched it.
const USER_PRESENT: u8 = 1;
/// Flags and counter at the end of a security key's signature.
const SECURITY_KEY_TAIL_BYTES: usize = 5;

/// A signature that says of itself whose it is; not verified yet.
#[derive(Debug)]
pub(super) struct Claim {
    signature: SshSig,
    /// `SHA256:…`
    pub(super) fingerprint: String,
}

/// Reads the armour.
pub(super) fn read(armour: &[u8], what: &str) -> Result<Claim, Refusal> {
    let fail = |message: String| refuse(Reason::InvalidTagSignature, message);
    let signature = SshSig::from_pem(armour.trim_ascii_end()).map_err(|error| {
        fail(format!(
            "the SSH signature of {what} cannot be read ({error}); certificates and unknown kinds of key do not count here"
        ))
    })?;
    if signature.namespace() != NAMESPACE {
        let namespace = shown(signature.namespace());
        return Err(fail(format!("{what} is signed in the namespace `{namespace}`, and tags are signed in `{NAMESPACE}`")));
    }
    let fingerprint = signature.public_key().fingerprint(HashAlg::Sha256).to_string();
    Ok(Claim { signature, fingerprint })
}

impl Claim {
    pub(super) fn key(&self) -> &KeyData {
        self.signature.public_key()
    }

    /// Verifies it over the signed bytes.
    pub(super) fn verify(&self, payload: &[u8], what: &str) -> Result<(), Refusal> {
        let fail = |message: String| Err(refuse(Reason::InvalidTagSignature, message));
        let method = self.signature.algorithm();
        if matches!(method, Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256) {
            let bytes = self.signature.signature_bytes();
            let flags = bytes.len().checked_sub(SECURITY_KEY_TAIL_BYTES).map_or(0, |at| bytes[at]);
            if flags & USER_PRESENT == 0 {
                return fail(format!(
                    "{what} is signed by a security key that nobody touched; make the key without `no-touch-required`"
                ));
            }
        } else if !matches!(method, Algorithm::Rsa { hash: Some(_) } | Algorithm::Ed25519 | Algorithm::Ecdsa { .. }) {
            return fail(format!("{what} is signed by the weak method `{}`", shown(method.as_str())));
        }
        let key = PublicKey::from(self.key().clone());
        match key.verify(NAMESPACE, payload, &self.signature) {
            Ok(()) => Ok(()),
            Err(_) => {
                fail(format!("the signature of {what} by {} does not hold: it is over other bytes, or damaged", self.fingerprint))
            }
        }
    }
}
