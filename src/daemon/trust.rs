//! The trust files of this host: read with their permissions checked, watched, and asked for a judgement.
//!
//! A file that cannot be used is no trust: nothing is verified until it can, and what runs goes on. Files are looked at when one of
//! them moves, with every look at the remote (so that a watch that was lost costs a poll and no more), and when the clock passes a
//! moment at which some key becomes valid or ceases to be.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{RecursiveMode, Watcher};

use crate::manifest::{Settings, Verify, VerifyMode};
use crate::model::{Digest, DigestBuilder, ObjectId, Reason, Refusal, RemoteTag, TagName, Timestamp};
use crate::release::COSIGN_PREFIX;
use crate::release::object::{parse_cosignature, parse_tag};
use crate::source::Signed;
use crate::trust::{self, Evidence, Policy, Statement, Trust};

/// Others may write neither the file nor the folder that it lies in.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In a folder with this bit, only owners rename and remove.
const STICKY: u32 = 0o1000;

/// Which files trust is made of, and how much is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrustPaths {
    pub(crate) allowed_signers: Option<PathBuf>,
    pub(crate) openpgp_keyring: Option<PathBuf>,
    pub(crate) revoked_keys: Option<PathBuf>,
    pub(crate) heartbeat_signers: Option<PathBuf>,
    pub(crate) policy: Policy,
}

impl TrustPaths {
    /// As the settings say; `None` where nothing is verified.
    pub(crate) fn of(settings: &Settings) -> Option<Self> {
        let verify = &settings.source.verify;
        (verify.mode == VerifyMode::Required).then(|| Self::of_section(verify))
    }

    /// As the section says, whatever its mode.
    pub(crate) fn of_section(verify: &Verify) -> Self {
        Self {
            allowed_signers: verify.allowed_signers.clone(),
            openpgp_keyring: verify.openpgp_keyring.clone(),
            revoked_keys: verify.revoked_keys.clone(),
            heartbeat_signers: verify.heartbeat.as_ref().and_then(|heartbeat| heartbeat.allowed_signers.clone()),
            policy: Policy { threshold: verify.threshold, commit: verify.commit },
        }
    }

    fn all(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.allowed_signers, &self.openpgp_keyring, &self.revoked_keys, &self.heartbeat_signers];
        files.into_iter().flatten().map(PathBuf::as_path)
    }

    /// What the file system says of the files: while it stays the same, so do they.
    fn print(&self) -> Digest {
        let note = |digest: DigestBuilder, path: &Path| {
            let found = fs::metadata(path).map(|found| {
                let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
                format!("{} {} {} {} {times:?}", found.dev(), found.ino(), found.size(), found.mode())
            });
            digest.field(found.unwrap_or_else(|error| format!("{:?}", error.kind())).as_bytes())
        };
        self.all().fold(DigestBuilder::new("trust files"), note).finish()
    }
}

/// What was read of the files.
#[derive(Debug)]
pub(crate) struct Loaded {
    paths: Option<TrustPaths>,
    trust: Result<Trust, String>,
    heartbeat: Option<Result<Trust, String>>,
    print: Digest,
    epoch: usize,
}

impl Loaded {
    /// Nothing is verified.
    pub(crate) fn off() -> Self {
        let print = Digest::of(b"off");
        Self { paths: None, trust: Err("verification is off".to_owned()), heartbeat: None, print, epoch: 0 }
    }

    /// Reads the files. Blocks for the time of reading.
    pub(crate) fn read(paths: TrustPaths, now: Timestamp) -> Self {
        // Before the files: what changes meanwhile is seen by the next look.
        let print = paths.print();
        let trust = read(&paths);
        let heartbeat = paths.heartbeat_signers.as_ref().map(|signers| {
            let own = TrustPaths {
                allowed_signers: Some(signers.clone()),
                openpgp_keyring: None,
                policy: Policy { threshold: 1, commit: false },
                ..paths.clone()
            };
            read(&own)
        });
        let mut loaded = Self { paths: Some(paths), trust, heartbeat, print, epoch: 0 };
        loaded.epoch = loaded.epoch_at(now);
        loaded
    }

    /// The same files, read again.
    pub(super) fn again(&self, now: Timestamp) -> Self {
        self.paths.clone().map_or_else(Self::off, |paths| Self::read(paths, now))
    }

    fn epoch_at(&self, now: Timestamp) -> usize {
        let of = |trust: &Result<Trust, String>| trust.as_ref().map_or(0, |trust| trust.epoch(now));
        of(&self.trust) + self.heartbeat.as_ref().map_or(0, of)
    }

    /// Whether the files, or what the clock says of the keys in them, may be another now.
    pub(super) fn is_stale(&self, now: Timestamp) -> bool {
        self.paths.as_ref().is_some_and(|paths| paths.print() != self.print || self.epoch_at(now) != self.epoch)
    }

    /// Whether two readings judge alike.
    pub(super) fn judges_as(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }

    /// What judgements depend on.
    pub(super) fn digest(&self) -> Digest {
        let of = |trust: &Result<Trust, String>| match trust {
            Ok(trust) => trust.digest(),
            Err(error) => Digest::of(error.as_bytes()),
        };
        let digest = DigestBuilder::new("trust").field(of(&self.trust).as_bytes()).field(&self.epoch.to_le_bytes());
        digest.field(self.heartbeat.as_ref().map(of).as_ref().map_or(&[][..], |digest| digest.as_bytes())).finish()
    }

    /// Why nothing can be verified, where something should be.
    pub(crate) fn error(&self) -> Option<String> {
        self.paths.as_ref().and(self.trust.as_ref().err().cloned())
    }

    /// Whether tags must be signed.
    pub(super) fn is_on(&self) -> bool {
        self.paths.is_some()
    }

    /// So many people must have signed.
    pub(crate) fn threshold(&self) -> u32 {
        self.paths.as_ref().map_or(0, |paths| paths.policy.threshold)
    }

    /// Who signed a tag; nobody is asked for where verification is off.
    pub(crate) fn judge(&self, signed: &Signed, cosigned: &[Vec<u8>], now: Timestamp) -> Result<Vec<String>, Refusal> {
        self.judge_with(signed, cosigned, |trust, evidence| trust.judge(evidence, now))
    }

    /// The same, as if one person were enough.
    pub(super) fn judge_alone(&self, signed: &Signed, now: Timestamp) -> Result<Vec<String>, Refusal> {
        self.judge_with(signed, &[], |trust, evidence| trust.judge_alone(evidence, now))
    }

    fn judge_with(
        &self,
        signed: &Signed,
        cosigned: &[Vec<u8>],
        judge: impl FnOnce(&Trust, &Evidence<'_>) -> Result<Vec<String>, Refusal>,
    ) -> Result<Vec<String>, Refusal> {
        if self.paths.is_none() {
            return Ok(Vec::new());
        }
        let trust = usable(&self.trust)?;
        let (tag, commit) = (format!("tag `{}`", signed.tag.name), format!("commit {}", signed.commit));
        let cosigned: Vec<Cosignature<'_>> = cosigned.iter().filter_map(|bytes| cosignature(&signed.tag, bytes)).collect();
        let cosigned: Vec<Statement<'_>> =
            cosigned.iter().map(|(what, made_s, bytes)| Statement { what, bytes, made_s: *made_s }).collect();
        let evidence = Evidence {
            tag: Statement { what: &tag, bytes: &signed.bytes, made_s: signed.tagged_at_s },
            commit: Some(Statement { what: &commit, bytes: &signed.commit_bytes, made_s: signed.committed_at_s }),
            cosigned: &cosigned,
        };
        judge(trust, &evidence)
    }

    /// Whether a co-signature could count: its form, and its signature by somebody who is trusted.
    pub(crate) fn check_cosignature(&self, of: ObjectId, tag: &TagName, bytes: &[u8], now: Timestamp) -> Result<String, Refusal> {
        let made_s = parse_cosignature(bytes, tag, of)?;
        let what = format!("tag `{tag}`");
        usable(&self.trust)?.signed_by(&Statement { what: &what, bytes, made_s }, now)
    }

    /// Who signed the heartbeat, and when.
    pub(super) fn hear(&self, tag: &TagName, bytes: &[u8], now: Timestamp) -> Result<(String, Timestamp), Refusal> {
        let trust = usable(self.heartbeat.as_ref().unwrap_or(&self.trust))?;
        let made_s = parse_tag(bytes, tag)?.tagged_at_s;
        let what = format!("heartbeat `{tag}`");
        let by = trust.signed_by(&Statement { what: &what, bytes, made_s }, now)?;
        Ok((by, Timestamp(made_s.saturating_mul(1000))))
    }
}

fn usable(trust: &Result<Trust, String>) -> Result<&Trust, Refusal> {
    trust
        .as_ref()
        .map_err(|error| Refusal { reason: Reason::SignerNotTrusted, message: format!("nothing can be verified: {error}") })
}

type Cosignature<'a> = (String, u64, &'a [u8]);

/// A co-signature by the name that it gives itself, which was compared with its ref when it came.
fn cosignature<'a>(of: &RemoteTag, bytes: &'a [u8]) -> Option<Cosignature<'a>> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let name = lines.find_map(|line| line.strip_prefix(b"tag ")).and_then(|name| std::str::from_utf8(name).ok())?;
    let rest = name.strip_prefix(COSIGN_PREFIX)?.strip_prefix(of.name.as_str())?.strip_prefix('/')?;
    if rest.is_empty() || rest.contains('/') {
        return None;
    }
    let made_s = parse_cosignature(bytes, &TagName::new(name), of.object).ok()?;
    Some((format!("tag `{name}`"), made_s, bytes))
}

fn read(paths: &TrustPaths) -> Result<Trust, String> {
    let load = |path: &Option<PathBuf>| -> Result<Option<(String, Vec<u8>)>, String> {
        path.as_ref().map(|path| read_file(path).map(|bytes| (path.display().to_string(), bytes))).transpose()
    };
    let signers = load(&paths.allowed_signers)?;
    let keyring = load(&paths.openpgp_keyring)?;
    let revoked = load(&paths.revoked_keys)?;
    fn file(read: &Option<(String, Vec<u8>)>) -> Option<trust::File<'_>> {
        read.as_ref().map(|(name, bytes)| trust::File { name, bytes })
    }
    let files = trust::Files { allowed_signers: file(&signers), openpgp_keyring: file(&keyring), revoked_keys: file(&revoked) };
    Trust::read(&files, paths.policy).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// A trust file that nobody but root and this user can change.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let fail = |error: std::io::Error| format!("the trust file `{}` cannot be read: {error}", path.display());
    // Links are followed here, and what they lead to is looked at: the open file, not the name.
    let file = fs::File::open(path).map_err(fail)?;
    let found = file.metadata().map_err(fail)?;
    if !found.is_file() {
        return Err(format!("the trust file `{}` is not a file", path.display()));
    }
    check_owner(&found, &path.display().to_string())?;
    let real = fs::canonicalize(path).map_err(fail)?;
    if let Some(folder) = real.parent() {
        let found = fs::metadata(folder).map_err(fail)?;
        let guarded = found.mode() & STICKY != 0 && found.mode() & WRITABLE_BY_OTHERS != 0;
        if !guarded {
            check_owner(&found, &folder.display().to_string())?;
        }
    }
    let mut bytes = Vec::new();
    file.take(trust::FILE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

fn check_owner(found: &Metadata, shown: &str) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != own {
        return Err(format!("`{shown}` belongs to user {}, who could trust anybody: give it to root", found.uid()));
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(format!("`{shown}` can be written by others, who could trust anybody: `chmod go-w {shown}`"));
    }
    Ok(())
}

/// Watches the folders of the files, and those of what links lead to: `changed` is called when something moved there.
pub(super) fn watch(
    loaded: &Arc<Loaded>,
    changed: impl Fn() + Send + 'static,
) -> notify::Result<Option<notify::RecommendedWatcher>> {
    let Some(paths) = &loaded.paths else { return Ok(None) };
    let mut folders = BTreeSet::new();
    for path in paths.all() {
        let real = fs::canonicalize(path).ok();
        folders.extend([Some(path.to_owned()), real].into_iter().flatten().filter_map(|path| path.parent().map(Path::to_owned)));
    }
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error may have swallowed something.
        if event.map_or(true, |event| !event.kind.is_access()) {
            changed();
        }
    })?;
    for folder in folders {
        if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
            tracing::warn!(folder = %folder.display(), %error, "trust files there are looked at with every poll alone");
        }
    }
    Ok(Some(watcher))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const KEY: &str = "a@b ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdhvLOTzbgT8GvFTwpnkTsK9/k7ewxjgXdc5KnvoJn2\n";

    fn paths(file: &Path) -> TrustPaths {
        TrustPaths {
            allowed_signers: Some(file.to_owned()),
            openpgp_keyring: None,
            revoked_keys: None,
            heartbeat_signers: None,
            policy: Policy { threshold: 1, commit: false },
        }
    }

    #[test]
    fn a_file_that_others_can_change_is_no_trust() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("allowed_signers");
        let read = |mode| {
            fs::write(&file, KEY).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            Loaded::read(paths(&file), Timestamp(0))
        };
        assert_eq!(read(0o644).error(), None);
        assert_eq!(read(0o600).error(), None);
        for mode in [0o664, 0o646, 0o666] {
            assert!(read(mode).error().unwrap().contains("written by others"), "{mode:o}");
        }
        assert_eq!(read(0o644).error(), None);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(read(0o644).error().unwrap().contains("written by others"), "whoever may write there may exchange the file");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::remove_file(&file).unwrap();
        assert!(Loaded::read(paths(&file), Timestamp(0)).error().unwrap().contains("cannot be read"));
    }

    #[test]
    fn another_content_is_another_judge_and_the_same_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("allowed_signers");
        fs::write(&file, KEY).unwrap();
        let first = Loaded::read(paths(&file), Timestamp(0));
        assert!(!first.is_stale(Timestamp(0)));
        fs::write(&file, format!("# words\n{KEY}")).unwrap();
        assert!(first.is_stale(Timestamp(0)));
        let second = first.again(Timestamp(0));
        assert!(!first.judges_as(&second) && !second.is_stale(Timestamp(0)));
        fs::write(&file, KEY).unwrap();
        assert!(second.again(Timestamp(0)).judges_as(&first));
    }

    #[test]
    fn the_clock_makes_another_judge_when_it_passes_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("allowed_signers");
        fs::write(&file, KEY.replace(" ssh", " valid-after=\"19700101000010\",valid-before=\"19700101000020\" ssh")).unwrap();
        let loaded = Loaded::read(paths(&file), Timestamp(12_000));
        for (seconds, stale) in [(10, false), (19, false), (9, true), (21, true)] {
            assert_eq!(loaded.is_stale(Timestamp(seconds * 1000)), stale, "{seconds}");
        }
        assert!(!loaded.again(Timestamp(30_000)).judges_as(&loaded));
    }
}
