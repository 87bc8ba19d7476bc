//! Every kind of OpenPGP key that gpg makes, and what a keyring says of them.

use std::fmt::Write as _;

use common::{Gpg, Repo};
use tagfall::model::{Reason, Refusal, Timestamp};
use tagfall::trust::{Evidence, File, Files, Policy, Statement, Trust};

/// When the keys of these tests were made, when they sign, and when they are judged.
const MADE_S: u64 = 1_700_000_000;
const SIGNED_S: u64 = MADE_S + 1000;
const NOW_S: u64 = MADE_S + 2000;

const PAYLOAD: &[u8] = b"object 0123456789abcdef0123456789abcdef01234567\ntype commit\ntag v1.0.0\n\nwords\n";

fn trust(keyring: &[u8], revoked: &str) -> Trust {
    let files = Files {
        openpgp_keyring: Some(File { name: "ring", bytes: keyring }),
        revoked_keys: Some(File { name: "revoked", bytes: revoked.as_bytes() }),
        ..Files::default()
    };
    Trust::read(&files, Policy { threshold: 1, commit: false }).unwrap()
}

fn judge(trust: &Trust, armour: &str, now_s: u64) -> Result<Vec<String>, Refusal> {
    let bytes = [PAYLOAD, armour.as_bytes()].concat();
    let tag = Statement { what: "tag `v1.0.0`", bytes: &bytes, made_s: SIGNED_S };
    trust.judge(&Evidence { tag, commit: None, cosigned: &[] }, Timestamp(now_s * 1000))
}

fn reason(trust: &Trust, armour: &str) -> (Reason, String) {
    let refusal = judge(trust, armour, NOW_S).unwrap_err();
    (refusal.reason, refusal.message)
}

/// The description of a key that signs by itself.
fn plain(kind: &str, name: &str) -> String {
    let mut text = format!("{kind}\nKey-Usage: sign\nName-Real: {name}\n");
    let _ = write!(text, "Name-Email: {name}@example.com\nExpire-Date: 0");
    text
}

#[test]
fn keys_of_every_kind_that_gpg_makes_verify_or_are_refused_by_name() {
    let gpg = Gpg::new();
    let kinds = [
        ("Key-Type: RSA\nKey-Length: 2048", None),
        ("Key-Type: RSA\nKey-Length: 3072", None),
        ("Key-Type: RSA\nKey-Length: 4096", None),
        ("Key-Type: EDDSA\nKey-Curve: ed25519", None),
        ("Key-Type: ECDSA\nKey-Curve: nistp256", None),
        ("Key-Type: ECDSA\nKey-Curve: nistp384", None),
        ("Key-Type: ECDSA\nKey-Curve: nistp521", None),
        ("Key-Type: RSA\nKey-Length: 1024", Some("1024 bits")),
        ("Key-Type: DSA\nKey-Length: 2048", Some("DSA")),
        ("Key-Type: ECDSA\nKey-Curve: brainpoolP256r1", Some("do not count")),
        ("Key-Type: ECDSA\nKey-Curve: secp256k1", Some("do not count")),
    ];
    for (number, (kind, refused)) in kinds.iter().enumerate() {
        let name = format!("key{number}");
        gpg.generate(Some(MADE_S), &plain(kind, &name)).unwrap_or_else(|said| panic!("{kind}: {said}"));
        let mail = format!("{name}@example.com");
        let armour = gpg.sign(Some(SIGNED_S), &mail, &[], PAYLOAD);
        let binary = gpg.run(None, &["--export", &mail]);
        for ring in [gpg.export(&mail).into_bytes(), binary] {
            let trusted = trust(&ring, "");
            match refused {
                None => {
                    assert_eq!(judge(&trusted, &armour, NOW_S), Ok(vec![mail.clone()]), "{kind}");
                    let other = armour.replace("v1.0.0", "v1.0.1");
                    assert_eq!(judge(&trusted, &other, NOW_S).is_ok(), other == armour, "{kind}");
                    let tampered = [b"x", PAYLOAD, armour.as_bytes()].concat();
                    let tag = Statement { what: "t", bytes: &tampered, made_s: SIGNED_S };
                    let judged = trusted.judge(&Evidence { tag, commit: None, cosigned: &[] }, Timestamp(NOW_S * 1000));
                    assert_eq!(judged.unwrap_err().reason, Reason::InvalidTagSignature, "{kind}");
                }
                Some(words) => {
                    let (found, message) = reason(&trusted, &armour);
                    assert_eq!(found, Reason::SignerNotTrusted, "{kind}: {message}");
                    assert!(message.contains(words), "{kind}: {message}");
                }
            }
        }
    }
    // All of them in one file, of which one is asked for.
    let all: String = (0..7).map(|number| gpg.export(&format!("key{number}@example.com"))).collect();
    let armour = gpg.sign(Some(SIGNED_S), "key3@example.com", &[], PAYLOAD);
    assert_eq!(judge(&trust(all.as_bytes(), ""), &armour, NOW_S), Ok(vec!["key3@example.com".to_owned()]));
    let (found, message) = reason(&trust(gpg.export("key4@example.com").as_bytes(), ""), &armour);
    assert_eq!(found, Reason::SignerNotTrusted);
    assert!(message.contains("does not name"), "{message}");
}

#[test]
fn a_signing_subkey_signs_and_another_does_not() {
    let gpg = Gpg::new();
    let description = "Key-Type: EDDSA\nKey-Curve: ed25519\nKey-Usage: cert\nSubkey-Type: EDDSA\nSubkey-Curve: ed25519\n\
                       Subkey-Usage: sign\nName-Real: Sub\nName-Email: sub@example.com\nExpire-Date: 0";
    gpg.generate(Some(MADE_S), description).unwrap();
    let armour = gpg.sign(Some(SIGNED_S), "sub@example.com", &[], PAYLOAD);
    let trusted = trust(gpg.export("sub@example.com").as_bytes(), "");
    assert_eq!(judge(&trusted, &armour, NOW_S), Ok(vec!["sub@example.com".to_owned()]));
    // The fingerprint of the primary key takes its subkeys along.
    let ring = gpg.export("sub@example.com");
    let listed = trust(ring.as_bytes(), &format!("{}\n", gpg.fingerprint("sub@example.com")));
    assert!(reason(&listed, &armour).1.contains("revoked"));
    gpg.edit(MADE_S + 1500, "sub@example.com", "key 1\nrevkey\ny\n0\n\ny\nsave\n");
    let (found, message) = reason(&trust(gpg.export("sub@example.com").as_bytes(), ""), &armour);
    assert_eq!(found, Reason::SignerNotTrusted);
    assert!(message.contains("subkey is revoked"), "{message}");
}

#[test]
fn a_subkey_that_does_not_acknowledge_its_key_does_not_sign() {
    // Somebody else's subkey, bound to a key of one's own, would let one claim what the other signs. gpg makes no such key: an
    // encryption subkey, which needs no acknowledgement, stands for it when its flags are changed.
    let gpg = Gpg::new();
    let description = "Key-Type: EDDSA\nKey-Curve: ed25519\nKey-Usage: cert\nSubkey-Type: RSA\nSubkey-Length: 2048\n\
                       Subkey-Usage: encrypt\nName-Real: Enc\nName-Email: enc@example.com\nExpire-Date: 0";
    gpg.generate(Some(MADE_S), description).unwrap();
    let before = trust(gpg.export("enc@example.com").as_bytes(), "");
    assert_eq!(before.keys(), (0, 1));
    gpg.edit(MADE_S + 10, "enc@example.com", "key 1\nchange-usage\nS\nQ\nsave\n");
    let armour = gpg.sign(Some(SIGNED_S), "enc@example.com", &[], PAYLOAD);
    let trusted = trust(gpg.export("enc@example.com").as_bytes(), "");
    // gpg adds the acknowledgement where it makes a subkey one that signs: then it counts.
    match judge(&trusted, &armour, NOW_S) {
        Ok(signers) => assert_eq!(signers, ["enc@example.com"]),
        Err(refusal) => assert!(refusal.message.contains("back-signature"), "{refusal:?}"),
    }
}

#[test]
fn a_key_that_is_not_meant_for_signing_does_not_count() {
    let gpg = Gpg::new();
    let description = "Key-Type: RSA\nKey-Length: 2048\nKey-Usage: sign\nName-Real: A\nName-Email: a@example.com\nExpire-Date: 0";
    gpg.generate(Some(MADE_S), description).unwrap();
    let armour = gpg.sign(Some(SIGNED_S), "a@example.com", &[], PAYLOAD);
    assert!(judge(&trust(gpg.export("a@example.com").as_bytes(), ""), &armour, NOW_S).is_ok());
    gpg.edit(MADE_S + 1500, "a@example.com", "change-usage\nS\nQ\nsave\n");
    let (found, message) = reason(&trust(gpg.export("a@example.com").as_bytes(), ""), &armour);
    assert_eq!(found, Reason::SignerNotTrusted, "{message}");
    assert!(message.contains("not meant for signing"), "{message}");
}

#[test]
fn an_expired_key_approves_nothing_new_and_what_was_accepted_stays() {
    let gpg = Gpg::new();
    let description = plain("Key-Type: EDDSA\nKey-Curve: ed25519", "exp").replace("Expire-Date: 0", "Expire-Date: seconds=5000");
    gpg.generate(Some(MADE_S), &description).unwrap();
    let trusted = trust(gpg.export("exp@example.com").as_bytes(), "");
    let armour = gpg.sign(Some(SIGNED_S), "exp@example.com", &[], PAYLOAD);
    assert!(judge(&trusted, &armour, NOW_S).is_ok());
    let late = judge(&trusted, &armour, MADE_S + 6000).unwrap_err();
    assert_eq!(late.reason, Reason::SignerNotTrusted);
    assert!(late.message.contains("expired") && late.message.contains("this host's clock"), "{late:?}");
    let early = judge(&trusted, &armour, MADE_S - 10).unwrap_err();
    assert!(early.message.contains("valid from"), "{early:?}");
    // Its bounds are where judgements may change.
    let epochs: Vec<usize> =
        [MADE_S - 1, MADE_S, MADE_S + 4999, MADE_S + 5000].map(|at| trusted.epoch(Timestamp(at * 1000))).to_vec();
    assert_eq!(epochs, [0, 1, 1, 2]);
}

#[test]
fn a_revoked_key_counts_for_nothing() {
    let gpg = Gpg::new();
    gpg.generate(Some(MADE_S), &plain("Key-Type: EDDSA\nKey-Curve: ed25519", "rev")).unwrap();
    let armour = gpg.sign(Some(SIGNED_S), "rev@example.com", &[], PAYLOAD);
    let fingerprint = gpg.fingerprint("rev@example.com");
    let before = trust(gpg.export("rev@example.com").as_bytes(), "");
    assert!(judge(&before, &armour, NOW_S).is_ok());
    let listed = trust(gpg.export("rev@example.com").as_bytes(), &format!("{fingerprint}\n"));
    assert!(reason(&listed, &armour).1.contains("revoked"));
    // gpg writes a revocation for every key that it makes; a colon keeps it from being used by accident.
    let path = gpg.home().join(format!("openpgp-revocs.d/{fingerprint}.rev"));
    let text = std::fs::read_to_string(&path).unwrap().replace(":-----BEGIN", "-----BEGIN");
    std::fs::write(&path, text).unwrap();
    gpg.run(Some(NOW_S), &["--import", &path.display().to_string()]);
    let after = trust(gpg.export("rev@example.com").as_bytes(), "");
    let (found, message) = reason(&after, &armour);
    assert_eq!(found, Reason::SignerNotTrusted);
    assert!(message.contains("revoked"), "{message}");
}

#[test]
fn weak_hashes_are_refused() {
    let gpg = Gpg::new();
    gpg.generate(Some(MADE_S), &plain("Key-Type: RSA\nKey-Length: 2048", "weak")).unwrap();
    let trusted = trust(gpg.export("weak@example.com").as_bytes(), "");
    for (hash, counts) in
        [("SHA1", false), ("SHA224", false), ("RIPEMD160", false), ("SHA256", true), ("SHA384", true), ("SHA512", true)]
    {
        let options = ["--digest-algo", hash, "--allow-weak-digest-algos"];
        let armour = gpg.sign(Some(SIGNED_S), "weak@example.com", &options, PAYLOAD);
        let judged = judge(&trusted, &armour, NOW_S);
        assert_eq!(judged.is_ok(), counts, "{hash}: {judged:?}");
        if let Err(refusal) = judged {
            assert_eq!(refusal.reason, Reason::InvalidTagSignature);
            assert!(refusal.message.contains("too weak"), "{hash}: {refusal:?}");
        }
    }
}

#[test]
fn forms_that_could_be_read_in_two_ways_are_refused() {
    let gpg = Gpg::new();
    for name in ["one", "two"] {
        gpg.generate(Some(MADE_S), &plain("Key-Type: EDDSA\nKey-Curve: ed25519", name)).unwrap();
    }
    let ring = format!("{}{}", gpg.export("one@example.com"), gpg.export("two@example.com"));
    let trusted = trust(ring.as_bytes(), "");
    let both = gpg.sign(Some(SIGNED_S), "one@example.com", &["--local-user", "two@example.com"], PAYLOAD);
    assert!(reason(&trusted, &both).1.contains("several signatures"));
    let text = gpg.sign(Some(SIGNED_S), "one@example.com", &["--textmode"], PAYLOAD);
    assert!(reason(&trusted, &text).1.contains("bytes as they are"));
    let noted = gpg.sign(Some(SIGNED_S), "one@example.com", &["--sig-notation", "!x@example.com=y"], PAYLOAD);
    assert!(reason(&trusted, &noted).1.contains("critical"));
    let short = gpg.sign(Some(SIGNED_S), "one@example.com", &["--default-sig-expire", "seconds=100"], PAYLOAD);
    let (found, message) = reason(&trusted, &short);
    assert_eq!(found, Reason::InvalidTagSignature);
    assert!(message.contains("expired"), "{message}");
}

#[test]
fn a_tag_that_git_signs_with_gpg_verifies() {
    let dir = common::temp_dir();
    let repo = Repo::new(dir.path());
    repo.write("tagfall.toml", "format = 1\n").commit("one");
    let gpg = Gpg::new();
    gpg.generate(None, &plain("Key-Type: EDDSA\nKey-Curve: ed25519", "git")).unwrap();
    repo.run(&["config", "user.signingkey", "git@example.com"]);
    let mut command = repo.git(&["tag", "--sign", "--message", "one", "v1.0.0"]);
    assert!(command.env("GNUPGHOME", gpg.home()).status().unwrap().success());
    let bytes = crate::ssh::tag_bytes(&repo, "v1.0.0");
    let trusted = trust(gpg.export("git@example.com").as_bytes(), "");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let tag = Statement { what: "tag `v1.0.0`", bytes: &bytes, made_s: now };
    let judged = trusted.judge(&Evidence { tag, commit: None, cosigned: &[] }, Timestamp((now + 5) * 1000));
    assert_eq!(judged, Ok(vec!["git@example.com".to_owned()]));
}

#[test]
fn an_ssh_key_and_an_openpgp_key_of_one_address_are_one_person() {
    let dir = common::temp_dir();
    let gpg = Gpg::new();
    gpg.generate(Some(MADE_S), &plain("Key-Type: EDDSA\nKey-Curve: ed25519", "same")).unwrap();
    let ssh = common::SshKey::make(dir.path(), "same", &["-t", "ed25519"]);
    let (line, ring) = (ssh.allowed("same@example.com", ""), gpg.export("same@example.com"));
    let files = Files {
        allowed_signers: Some(File { name: "allowed", bytes: line.as_bytes() }),
        openpgp_keyring: Some(File { name: "ring", bytes: ring.as_bytes() }),
        revoked_keys: None,
    };
    let errors = Trust::read(&files, Policy { threshold: 2, commit: false }).unwrap_err();
    assert!(errors[0].message.contains("more people than the 1"), "{errors:?}");
}

#[test]
fn damaged_keyrings_and_signatures_are_refused_and_end_nothing() {
    let gpg = Gpg::new();
    gpg.generate(Some(MADE_S), &plain("Key-Type: EDDSA\nKey-Curve: ed25519", "a")).unwrap();
    let ring = gpg.run(None, &["--export", "a@example.com"]);
    let armour = gpg.sign(Some(SIGNED_S), "a@example.com", &[], PAYLOAD);
    let trusted = trust(&ring, "");
    let policy = Policy { threshold: 1, commit: false };
    for at in 0..ring.len() {
        for flip in [1, 0x80, 0xff] {
            let mut other = ring.clone();
            other[at] ^= flip;
            for bytes in [&other[..], &ring[..at]] {
                let files = Files { openpgp_keyring: Some(File { name: "ring", bytes }), ..Files::default() };
                // Whatever is read of it, it never vouches for what nobody signed.
                if let Ok(trust) = Trust::read(&files, policy) {
                    let forged = [b"x", PAYLOAD, armour.as_bytes()].concat();
                    let tag = Statement { what: "t", bytes: &forged, made_s: SIGNED_S };
                    assert!(trust.judge(&Evidence { tag, commit: None, cosigned: &[] }, Timestamp(NOW_S * 1000)).is_err());
                }
            }
        }
    }
    for at in 0..armour.len() {
        for flip in [1, 2, 0x10] {
            let mut other = armour.clone().into_bytes();
            other[at] ^= flip;
            let bytes = [PAYLOAD, &other].concat();
            let tag = Statement { what: "t", bytes: &bytes, made_s: SIGNED_S };
            drop(trusted.judge(&Evidence { tag, commit: None, cosigned: &[] }, Timestamp(NOW_S * 1000)));
        }
    }
}
