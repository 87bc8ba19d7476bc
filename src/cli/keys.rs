//! A signing key for `init` and `demo`: a real one, as ssh-keygen would make it, so that Git signs tags with it from then on.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{HashAlg, LineEnding, PrivateKey};

use super::CliError;

const PRIVATE_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o700;
/// Bytes of an Ed25519 seed.
const SEED_BYTES: usize = 32;

/// A key, and the trust in it.
#[derive(Debug)]
pub(super) struct Keys {
    folder: PathBuf,
    key: PrivateKey,
}

impl Keys {
    /// Makes a key of `principal` in a folder of its own, which must not be there yet.
    pub(super) fn make(folder: &Path, principal: &str) -> Result<Self, CliError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            CliError::failed(format!("make a signing key in `{}`", folder.display()), error)
        };
        let key = generate(principal).map_err(failed)?;
        let keys = Self { folder: folder.to_owned(), key };
        keys.write(principal).map_err(failed)?;
        Ok(keys)
    }

    fn write(&self, principal: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        DirBuilder::new().mode(FOLDER_MODE).create(&self.folder)?;
        let public = self.key.public_key().to_openssh()?;
        write_new(&self.private(), PRIVATE_MODE, &self.key.to_openssh(LineEnding::LF)?)?;
        write_new(&self.folder.join("signing_key.pub"), PUBLIC_MODE, &format!("{public}\n"))?;
        let trusted = format!(
            "# Whose signatures make a tag a release: one key a line, as `git config gpg.ssh.allowedSignersFile` takes it.\n{principal} namespaces=\"git\" {public}\n"
        );
        write_new(&self.allowed_signers(), PUBLIC_MODE, &trusted)?;
        Ok(())
    }

    /// The private key.
    pub(super) fn private(&self) -> PathBuf {
        self.folder.join("signing_key")
    }

    /// The file that trusts it.
    pub(super) fn allowed_signers(&self) -> PathBuf {
        self.folder.join("allowed_signers")
    }

    /// Git's settings to sign with it: name and value.
    pub(super) fn settings(&self) -> [(&'static str, String); 3] {
        [
            ("gpg.format", "ssh".to_owned()),
            ("user.signingkey", self.private().display().to_string()),
            ("gpg.ssh.allowedsignersfile", self.allowed_signers().display().to_string()),
        ]
    }

    /// Signs the bytes of an object as Git does; gives the armour.
    pub(super) fn sign(&self, payload: &[u8]) -> Result<String, ssh_key::Error> {
        let armour = self.key.sign("git", HashAlg::Sha512, payload)?.to_pem(LineEnding::LF)?;
        Ok(format!("{}\n", armour.trim_end()))
    }
}

/// Who works here, as others may call them: `USER@HOST`.
pub(super) fn principal() -> String {
    let user = crate::sys::process::user_by_id(rustix::process::geteuid().as_raw()).ok().flatten();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let plain = |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect::<String>();
    let (user, host) = (plain(user.as_ref().map_or("somebody", |user| user.name.as_str())), plain(&host));
    format!("{user}@{host}")
}

fn generate(comment: &str) -> Result<PrivateKey, Box<dyn std::error::Error + Send + Sync>> {
    let mut seed = [0_u8; SEED_BYTES];
    let mut filled = 0;
    while filled < seed.len() {
        filled += rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    let pair = Ed25519Keypair::from_seed(&seed);
    Ok(PrivateKey::new(KeypairData::Ed25519(pair), comment)?)
}

fn write_new(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    // Whatever the umask took away or left.
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::trust::{Evidence, File, Files, Policy, Statement, Trust};

    #[test]
    fn what_it_signs_is_trusted_by_the_file_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::make(&folder.path().join("keys"), "me@here").unwrap();
        assert!(Keys::make(&folder.path().join("keys"), "me@here").is_err(), "a key is never written over");
        let trusted = fs::read(keys.allowed_signers()).unwrap();
        let files = Files { allowed_signers: Some(File { name: "f", bytes: &trusted }), ..Files::default() };
        let trust = Trust::read(&files, Policy { threshold: 1, commit: false }).unwrap();
        let payload = b"object x\n\nwords\n";
        let signed = [&payload[..], keys.sign(payload).unwrap().as_bytes()].concat();
        let judge = |bytes: &[u8]| {
            let tag = Statement { what: "tag `v1`", bytes, made_s: 0 };
            trust.judge(&Evidence { tag, commit: None, cosigned: &[] }, Timestamp(0))
        };
        assert_eq!(judge(&signed), Ok(vec!["me@here".to_owned()]));
        let mut other = signed.clone();
        other[0] ^= 1;
        assert!(judge(&other).unwrap_err().message.contains("does not hold"));
    }
}
