//! One OpenPGP signature over the bytes of an object.

use pgp::composed::{Deserializable, DetachedSignature};
use pgp::packet::{Signature, SignatureType, SignatureVersion, SubpacketData};
use pgp::types::KeyDetails;

use super::certificate::{Certificate, Key, Material, hex, is_strong};
use crate::model::{Reason, Refusal, Timestamp};
use crate::trust::refuse;

/// A signature that says of itself whose it is; not verified yet.
#[derive(Debug)]
pub(in crate::trust) struct Claim {
    signature: Signature,
    /// When it was made, in seconds since 1970, by the signer's word.
    pub(in crate::trust) made_s: u64,
}

/// Reads the armour.
pub(in crate::trust) fn read(armour: &[u8], what: &str) -> Result<Claim, Refusal> {
    let fail = |message: String| refuse(Reason::InvalidTagSignature, message);
    let unreadable = |error: pgp::errors::Error| fail(format!("the OpenPGP signature of {what} cannot be read: {error}"));
    let (found, _) = DetachedSignature::from_armor_many_buf(armour).map_err(unreadable)?;
    let mut found: Vec<DetachedSignature> = found.take(2).collect::<Result<_, _>>().map_err(unreadable)?;
    let (Some(one), true) = (found.pop(), found.is_empty()) else {
        return Err(fail(format!("the armour of {what} holds none or several signatures; sign it once")));
    };
    let signature = one.signature;
    if !matches!(signature.version(), SignatureVersion::V4 | SignatureVersion::V6) {
        return Err(fail(format!("{what} is signed in a version of OpenPGP that does not count any more")));
    }
    if signature.typ() != Some(SignatureType::Binary) {
        return Err(fail(format!("the signature of {what} is not one over bytes as they are (as `gpg --detach-sign` makes it)")));
    }
    let Some(made) = signature.created() else {
        return Err(fail(format!("the signature of {what} does not say when it was made")));
    };
    let notes = signature.config().into_iter().flat_map(|config| config.hashed_subpackets());
    let strange = |data: &SubpacketData| {
        matches!(data, SubpacketData::Notation(_) | SubpacketData::Other(..) | SubpacketData::Experimental(..))
    };
    if notes.into_iter().any(|note| note.is_critical && strange(&note.data)) {
        return Err(fail(format!("the signature of {what} carries a critical note that is not known here")));
    }
    let made_s = u64::from(made.as_secs());
    Ok(Claim { signature, made_s })
}

impl Claim {
    /// The key that it says it is of: its certificate, and which of the keys.
    pub(in crate::trust) fn find<'a>(&self, certificates: &'a [Certificate]) -> Option<(usize, &'a Certificate, Found<'a>)> {
        let (fingerprints, ids) = (self.signature.issuer_fingerprint(), self.signature.issuer_key_id());
        let is = |key: &Key| match &key.material {
            Material::Primary(key) => named(&fingerprints, &ids, key.as_ref()),
            Material::Sub(key) => named(&fingerprints, &ids, key.as_ref()),
        };
        let of = |(at, certificate): (usize, &'a Certificate)| {
            certificate.keys.iter().find(|key| is(key)).map(|key| (at, certificate, Found(key)))
        };
        certificates.iter().enumerate().find_map(of)
    }

    /// Whom it names, for messages.
    pub(in crate::trust) fn issuer(&self) -> String {
        let fingerprint = self.signature.issuer_fingerprint().first().map(|fingerprint| hex(fingerprint));
        let id = || self.signature.issuer_key_id().first().map(|id| id.to_string().to_uppercase());
        fingerprint.or_else(id).unwrap_or_else(|| "somebody whom it does not name".to_owned())
    }

    /// Verifies it over the signed bytes.
    pub(in crate::trust) fn verify(&self, key: &Found<'_>, payload: &[u8], now_s: u64, what: &str) -> Result<(), Refusal> {
        let fail = |message: String| Err(refuse(Reason::InvalidTagSignature, message));
        if !is_strong(&self.signature) {
            let hash = self.signature.hash_alg().map(|hash| hash.to_string()).unwrap_or_default();
            return fail(format!("{what} is signed over a {hash} hash, which is too weak; SHA-256 or better counts"));
        }
        let lasts = self.signature.signature_expiration_time().map(|span| u64::from(span.as_secs())).filter(|span| *span > 0);
        if let Some(end) = lasts.map(|span| self.made_s.saturating_add(span)).filter(|end| now_s >= *end) {
            return fail(format!("the signature of {what} expired at {}", Timestamp(end.saturating_mul(1000))));
        }
        let verified = match &key.0.material {
            Material::Primary(key) => self.signature.verify(key.as_ref(), payload),
            Material::Sub(key) => self.signature.verify(key.as_ref(), payload),
        };
        match verified {
            Ok(()) => Ok(()),
            Err(_) => fail(format!(
                "the signature of {what} by {} does not hold: it is over other bytes, or damaged",
                key.0.fingerprint
            )),
        }
    }
}

/// A key that a signature names.
pub(in crate::trust) struct Found<'a>(&'a Key);

impl Found<'_> {
    pub(in crate::trust) fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    pub(in crate::trust) fn unfit(&self) -> Option<&str> {
        self.0.unfit.as_deref()
    }

    pub(in crate::trust) fn window(&self) -> crate::trust::Window {
        self.0.window
    }
}

fn named(fingerprints: &[&pgp::types::Fingerprint], ids: &[&pgp::types::KeyId], key: &impl KeyDetails) -> bool {
    // A fingerprint says more than an id of eight bytes, of which two keys can be made that share it.
    match fingerprints {
        [] => ids.iter().any(|id| **id == key.legacy_key_id()),
        named => named.iter().any(|fingerprint| **fingerprint == key.fingerprint()),
    }
}
