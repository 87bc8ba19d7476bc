//! One certificate: whose it is, and which of its keys may sign when.
//!
//! Everything that a key says of itself counts only where its primary key has signed it, with a hash of today. The newest such
//! statement counts. A revocation counts whatever it says, whoever made it and however weak its hash is: a key that somebody wanted
//! to take away is gone.

use pgp::composed::{SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::ecc_curve::ECCCurve;
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{PublicKey, PublicSubkey, Signature, SignatureType};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, KeyVersion, PublicParams, SignedUser, Tag};

use crate::trust::{RSA_MIN_BITS, Window, shown};

/// A certificate of the keyring.
#[derive(Debug, Clone)]
pub(in crate::trust) struct Certificate {
    /// The names of one person: addresses of its user ids; the first is shown.
    pub(in crate::trust) names: Vec<String>,
    /// Of the primary key, in upper-case hexadecimal.
    pub(in crate::trust) fingerprint: String,
    pub(super) keys: Vec<Key>,
    /// The keyring that it is from.
    pub(in crate::trust) place: String,
}

/// One of its keys.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) material: Material,
    /// In upper-case hexadecimal.
    pub(super) fingerprint: String,
    pub(super) window: Window,
    /// Why nothing that it signs counts, whenever it was signed.
    pub(super) unfit: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Material {
    Primary(Box<PublicKey>),
    Sub(Box<PublicSubkey>),
}

impl Certificate {
    /// Works out what a parsed certificate means.
    pub(super) fn of(key: SignedPublicKey, place: &str) -> Self {
        let primary = &key.primary_key;
        let fingerprint = hex(&primary.fingerprint());
        let users: Vec<(&SignedUser, &Signature)> =
            key.details.users.iter().filter_map(|user| Some((user, own_statement(primary, user)?))).collect();
        let direct = key
            .details
            .direct_signatures
            .iter()
            .filter(|made| made.typ() == Some(SignatureType::Key) && is_strong(made) && made.verify_key(primary).is_ok());
        let statement = direct.chain(users.iter().map(|(_, made)| *made)).max_by_key(|made| made.created());
        let window = statement.map_or_else(Window::default, |made| window(primary, made));
        let revoked = key.details.revocation_signatures.first().map(|_| "its key is revoked".to_owned());
        let unfit = revoked.or_else(|| unfit(primary, primary.public_params())).or_else(|| {
            statement.is_none().then(|| "its key says nothing of itself that is signed with a hash of today".to_owned())
        });
        let own = statement.filter(|made| !made.key_flags().sign()).map(|_| "its key is not meant for signing".to_owned());
        let mut keys = vec![Key {
            material: Material::Primary(Box::new(primary.clone())),
            fingerprint: fingerprint.clone(),
            window,
            unfit: unfit.clone().or(own),
        }];
        for sub in &key.public_subkeys {
            keys.push(subkey(primary, sub, window, unfit.as_ref()));
        }
        let mut names: Vec<(bool, String)> = users.iter().map(|(user, made)| (!made.is_primary(), name(user))).collect();
        names.sort();
        let mut names: Vec<String> = names.into_iter().map(|(_, name)| name).collect();
        names.dedup();
        if names.is_empty() {
            names.push(fingerprint.clone());
        }
        Self { names, fingerprint, keys, place: place.to_owned() }
    }

    /// When its keys are valid.
    pub(in crate::trust) fn windows(&self) -> impl Iterator<Item = Window> {
        self.keys.iter().filter(|key| key.unfit.is_none()).map(|key| key.window)
    }
}

/// The newest statement of the primary key about one of its user ids, unless that was taken back since.
fn own_statement<'a>(primary: &PublicKey, user: &'a SignedUser) -> Option<&'a Signature> {
    let made_by_itself = |made: &&Signature| made.verify_certification(primary, Tag::UserId, &user.id).is_ok();
    let of = |revocations: bool| {
        let wanted = move |made: &&Signature| (made.typ() == Some(SignatureType::CertRevocation)) == revocations;
        user.signatures.iter().filter(wanted)
    };
    let statement = of(false).filter(|made| is_strong(made)).filter(made_by_itself).max_by_key(|made| made.created())?;
    let gone = of(true).filter(made_by_itself).any(|revocation| revocation.created() >= statement.created());
    (!gone).then_some(statement)
}

fn subkey(primary: &PublicKey, sub: &SignedPublicSubKey, outer: Window, outer_unfit: Option<&String>) -> Key {
    let bound = |made: &&Signature| {
        made.typ() == Some(SignatureType::SubkeyBinding)
            && is_strong(made)
            && made.verify_subkey_binding(primary, &sub.key).is_ok()
    };
    let binding = sub.signatures.iter().filter(bound).max_by_key(|made| made.created());
    let revoked = sub.signatures.iter().any(|made| made.typ() == Some(SignatureType::SubkeyRevocation));
    let answers = |binding: &Signature| {
        let back = binding.embedded_signature();
        back.is_some_and(|back| is_strong(back) && back.verify_primary_key_binding(&sub.key, primary).is_ok())
    };
    let words = |text: &str| Some(text.to_owned());
    let unfit = match binding {
        _ if outer_unfit.is_some() => outer_unfit.cloned(),
        _ if revoked => words("its subkey is revoked"),
        None => words("its subkey is not bound to its key with a hash of today"),
        Some(binding) if !binding.key_flags().sign() => words("its subkey is not meant for signing"),
        Some(binding) if !answers(binding) => words("its subkey does not acknowledge its key (no back-signature)"),
        Some(_) => unfit(&sub.key, sub.key.public_params()),
    };
    let own = binding.map_or_else(Window::default, |binding| window(&sub.key, binding));
    let until_s = [outer.until_s, own.until_s].into_iter().flatten().min();
    let window = Window { from_s: outer.from_s.max(own.from_s), until_s };
    let fingerprint = hex(&sub.key.fingerprint());
    Key { material: Material::Sub(Box::new(sub.key.clone())), fingerprint, window, unfit }
}

/// From its creation to the end that the statement sets.
fn window(key: &impl KeyDetails, statement: &Signature) -> Window {
    let from_s = u64::from(key.created_at().as_secs());
    // Zero means no end, too.
    let lasts = statement.key_expiration_time().map(|span| u64::from(span.as_secs())).filter(|seconds| *seconds > 0);
    Window { from_s, until_s: lasts.map(|seconds| from_s.saturating_add(seconds)) }
}

/// Hashes that nobody makes collisions of.
pub(super) fn is_strong(signature: &Signature) -> bool {
    use HashAlgorithm::{Sha3_256, Sha3_512, Sha256, Sha384, Sha512};
    matches!(signature.hash_alg(), Some(Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512))
}

/// Why the key itself cannot count.
fn unfit(key: &impl KeyDetails, params: &PublicParams) -> Option<String> {
    if !matches!(key.version(), KeyVersion::V4 | KeyVersion::V6) {
        return Some("its key is of a version of OpenPGP that does not count any more".to_owned());
    }
    if let PublicParams::RSA(rsa) = params {
        // The modulus is written first, and before it its length in bits.
        let mut bytes = Vec::new();
        let written = rsa.to_writer(&mut bytes).is_ok() && bytes.len() > 1;
        let bits = if written { usize::from(u16::from_be_bytes([bytes[0], bytes[1]])) } else { 0 };
        return (bits < RSA_MIN_BITS).then(|| format!("its RSA key has {bits} bits, and {RSA_MIN_BITS} are needed"));
    }
    if let PublicParams::ECDSA(ecdsa) = params {
        let curve = ecdsa.curve();
        let known = matches!(curve, ECCCurve::P256 | ECCCurve::P384 | ECCCurve::P521);
        return (!known).then(|| format!("keys of the curve {} do not count here", shown(&curve.to_string())));
    }
    if matches!(params, PublicParams::DSA(_)) {
        return Some("DSA keys are too weak to count".to_owned());
    }
    let known = matches!(params, PublicParams::Ed25519(_) | PublicParams::Ed448(_) | PublicParams::EdDSALegacy(_));
    (!known).then(|| format!("keys of the kind {:?} do not sign here", key.algorithm()))
}

/// The address of a user id; the whole of it where it has none.
fn name(user: &SignedUser) -> String {
    let text = String::from_utf8_lossy(user.id.id());
    let address = text.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(address, _)| address);
    shown(address.filter(|address| !address.is_empty()).unwrap_or(&text))
}

pub(super) fn hex(fingerprint: &pgp::types::Fingerprint) -> String {
    fingerprint.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect()
}
