//! Every kind of SSH key that ssh-keygen makes, and tags that git signs with them.

use std::fs;
use std::path::Path;

use common::{Repo, SshKey};
use tagfall::model::{Reason, Refusal, Timestamp};
use tagfall::trust::{Evidence, File, Files, Policy, Statement, Trust};

/// When the fixtures' tags were made, and a while later.
pub(crate) const MADE_S: u64 = 1_767_323_045;
pub(crate) const NOW: Timestamp = Timestamp((MADE_S + 1000) * 1000);
const ONE: Policy = Policy { threshold: 1, commit: false };

/// Trust in what a list of allowed signers says.
pub(crate) fn trust(signers: &str) -> Result<Trust, String> {
    let files = Files { allowed_signers: Some(File { name: "allowed", bytes: signers.as_bytes() }), ..Files::default() };
    Trust::read(&files, ONE).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

pub(crate) fn judge(trust: &Trust, bytes: &[u8]) -> Result<Vec<String>, Refusal> {
    let tag = Statement { what: "tag `v1.0.0`", bytes, made_s: MADE_S };
    trust.judge(&Evidence { tag, commit: None, cosigned: &[] }, NOW)
}

/// The raw bytes of a tag object.
pub(crate) fn tag_bytes(repo: &Repo, tag: &str) -> Vec<u8> {
    let output = repo.git(&["cat-file", "tag", tag]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn repo(dir: &Path) -> Repo {
    let repo = Repo::new(dir);
    repo.write("tagfall.toml", "format = 1\n").commit("one");
    repo
}

#[test]
fn tags_signed_by_git_with_every_kind_of_key_verify_and_no_other_bytes_do() {
    let dir = common::temp_dir();
    let repo = repo(dir.path());
    let kinds: &[&[&str]] = &[
        &["-t", "ed25519"],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "rsa", "-b", "3072"],
        &["-t", "rsa", "-b", "4096"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
    ];
    for (number, kind) in kinds.iter().enumerate() {
        let key = SshKey::make(dir.path(), &format!("key{number}"), kind);
        let trusted = trust(&key.allowed("a@example.com", "")).unwrap();
        let stranger = trust(&SshKey::make(dir.path(), &format!("other{number}"), kind).allowed("b@example.com", "")).unwrap();
        let tag = format!("v1.0.{number}");
        repo.sign_with(&key).tag_signed(&tag, "HEAD");
        let bytes = tag_bytes(&repo, &tag);
        assert_eq!(judge(&trusted, &bytes), Ok(vec!["a@example.com".to_owned()]), "{kind:?}");
        assert_eq!(judge(&stranger, &bytes).unwrap_err().reason, Reason::SignerNotTrusted, "{kind:?}");
        let end = bytes.windows(11).position(|window| window == b"-----BEGIN ").unwrap();
        for at in (0..end).step_by(7) {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_eq!(judge(&trusted, &other).unwrap_err().reason, Reason::InvalidTagSignature, "{kind:?}: byte {at}");
        }
        // Wherever the armour is flipped, nothing is taken that was not signed.
        for at in (end..bytes.len()).step_by(13) {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let judged = judge(&trusted, &other);
            assert!(judged.is_err() || other[..end] == bytes[..end], "{kind:?}: byte {at}");
        }
    }
}

#[test]
fn weak_and_unknown_kinds_of_key_are_refused_by_name() {
    let dir = common::temp_dir();
    let cases: [(&[&str], &str); 2] = [(&["-t", "dsa"], "DSA"), (&["-t", "rsa", "-b", "1024"], "1024 bits")];
    for (number, (kind, words)) in cases.iter().enumerate() {
        // Newer versions of ssh-keygen do not make them any more.
        let Ok(key) = SshKey::try_make(dir.path(), &format!("weak{number}"), kind) else { continue };
        let error = trust(&key.allowed("a@example.com", "")).unwrap_err();
        assert!(error.starts_with("allowed:1: ") && error.contains(words), "{error}");
    }
    let ca = SshKey::make(dir.path(), "ca", &["-t", "ed25519"]);
    let error = trust(&ca.allowed("*@example.com", "cert-authority")).unwrap_err();
    assert!(error.contains("pattern"), "{error}");
    let error = trust(&ca.allowed("a@example.com", "cert-authority")).unwrap_err();
    assert!(error.contains("cert-authority"), "{error}");
}

#[test]
fn a_certificate_does_not_sign() {
    let dir = common::temp_dir();
    let repo = repo(dir.path());
    let (ca, key) = (SshKey::make(dir.path(), "ca", &["-t", "ed25519"]), SshKey::make(dir.path(), "key", &["-t", "ed25519"]));
    let public = key.path().with_extension("pub");
    let mut command = std::process::Command::new("ssh-keygen");
    command.args(["-q", "-I", "id", "-n", "a@example.com", "-s"]).arg(ca.path()).arg(&public);
    assert!(command.status().unwrap().success());
    let certificate = dir.path().join("key-cert.pub");
    let line = format!("a@example.com {}", fs::read_to_string(&certificate).unwrap());
    assert!(trust(&line).unwrap_err().contains("certificate"));
    // ssh-keygen signs with the certificate where it is named in place of the key.
    repo.run(&["config", "gpg.format", "ssh"]);
    repo.run(&["config", "user.signingkey", &certificate.display().to_string()]);
    repo.tag_signed("v1.0.0", "HEAD");
    let trusted = trust(&key.allowed("a@example.com", "")).unwrap();
    let refusal = judge(&trusted, &tag_bytes(&repo, "v1.0.0")).unwrap_err();
    assert_eq!(refusal.reason, Reason::InvalidTagSignature);
    assert!(refusal.message.contains("certificates"), "{refusal:?}");
}

/// What a security key answers, made here because no machine of the tests has one.
mod security_key {
    use ssh_key::private::Ed25519Keypair;
    use ssh_key::public::{KeyData, SkEd25519};
    use ssh_key::{Algorithm, HashAlg, LineEnding, PublicKey, Signature, SshSig};

    pub(super) fn key() -> (Ed25519Keypair, PublicKey) {
        let pair = Ed25519Keypair::from_seed(&[7; 32]);
        (pair.clone(), PublicKey::from(KeyData::SkEd25519(SkEd25519::new(pair.public, "ssh:"))))
    }

    /// Signs as the token does: over digests of the application and of the message, with flags and a counter between.
    pub(super) fn sign(pair: &Ed25519Keypair, public: &PublicKey, flags: u8, payload: &[u8]) -> String {
        use sha2::Digest as _;
        use signature::Signer as _;
        let message = SshSig::signed_data("git", HashAlg::Sha512, payload).unwrap();
        let counter = 5_u32.to_be_bytes();
        let mut signed = sha2::Sha256::digest(b"ssh:").to_vec();
        signed.push(flags);
        signed.extend_from_slice(&counter);
        signed.extend_from_slice(&sha2::Sha256::digest(&message));
        let inner: Signature = pair.try_sign(&signed).unwrap();
        let mut bytes = inner.as_bytes().to_vec();
        bytes.push(flags);
        bytes.extend_from_slice(&counter);
        let signature = Signature::new(Algorithm::SkEd25519, bytes).unwrap();
        let armour = SshSig::new(public.key_data().clone(), "git", HashAlg::Sha512, signature).unwrap();
        format!("{}\n", armour.to_pem(LineEnding::LF).unwrap().trim_end())
    }
}

#[test]
fn a_security_key_must_have_been_touched() {
    let dir = common::temp_dir();
    let repo = repo(dir.path());
    let (pair, public) = security_key::key();
    let line = format!("a@example.com {}\n", public.to_openssh().unwrap());
    let trusted = trust(&line).unwrap();
    let text = repo.tag_text("v1.0.0", "words");
    let signed = |flags| [text.as_bytes(), security_key::sign(&pair, &public, flags, text.as_bytes()).as_bytes()].concat();
    assert_eq!(judge(&trusted, &signed(1)), Ok(vec!["a@example.com".to_owned()]));
    assert_eq!(judge(&trusted, &signed(5)), Ok(vec!["a@example.com".to_owned()]), "verified, too");
    let refusal = judge(&trusted, &signed(0)).unwrap_err();
    assert!(refusal.message.contains("nobody touched"), "{refusal:?}");
    let mut other = signed(1);
    other[0] ^= 1;
    assert!(judge(&trusted, &other).is_err());
    // ssh-keygen agrees that this is what a security key makes.
    fs::write(dir.path().join("allowed"), &line).unwrap();
    fs::write(dir.path().join("sig"), &signed(1)[text.len()..]).unwrap();
    let mut command = std::process::Command::new("ssh-keygen");
    command.args(["-Y", "verify", "-n", "git", "-I", "a@example.com"]).arg("-f").arg(dir.path().join("allowed"));
    command.arg("-s").arg(dir.path().join("sig")).stdin(fs::File::open(write(dir.path(), &text)).unwrap());
    assert!(command.status().unwrap().success());
}

fn write(dir: &Path, text: &str) -> std::path::PathBuf {
    let path = dir.join("payload");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn one_of_several_lines_for_a_key_is_enough() {
    let dir = common::temp_dir();
    let repo = repo(dir.path());
    let key = SshKey::make(dir.path(), "key", &["-t", "ed25519"]);
    repo.sign_with(&key).tag_signed("v1.0.0", "HEAD");
    let lines = [key.allowed("a@example.com", "valid-before=\"20200101\""), key.allowed("a@example.com", "namespaces=\"git\"")];
    let bytes = tag_bytes(&repo, "v1.0.0");
    assert_eq!(judge(&trust(&lines.concat()).unwrap(), &bytes), Ok(vec!["a@example.com".to_owned()]));
    let refusal = judge(&trust(&lines[0]).unwrap(), &bytes).unwrap_err();
    assert!(refusal.message.contains("expired") && refusal.message.contains("allowed:1"), "{refusal:?}");
    // Its own word dates it before the key was valid, whatever the clock says.
    let late = trust(&key.allowed("a@example.com", "valid-after=\"20260102030406Z\"")).unwrap();
    let refusal = judge(&late, &bytes).unwrap_err();
    assert!(refusal.message.contains("signer's word"), "{refusal:?}");
}
