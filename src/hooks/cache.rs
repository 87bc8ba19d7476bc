//! Compiled modules on disk: `MODULE.ENGINE.cwasm` beside a record of what it is, and remembered refusals.
//!
//! Compiled code is native code, so it is compared with the digest in its record before it is handed over; the record carries a
//! checksum of its own. What does not agree is deleted and compiled anew. The folder is the supervisor's alone (0700): against
//! somebody who may write there as the supervisor, nothing here helps. Blocks: call it where that does no harm.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::Digest as _;

use super::wire::Form;
use crate::model::Digest;

/// Compiled modules, bytes of them, and refusals that are kept; the ones unused for longest go first.
const ENTRIES_MAX: usize = 256;
const BYTES_MAX: u64 = 2 << 30;
const REFUSALS_MAX: usize = 256;
const RECORD_MAX_BYTES: u64 = 16 << 10;
/// A new file so old is nobody's: compiling takes a minute at most.
const LEFT_BEHIND: Duration = Duration::from_secs(600);
/// Read at a time.
const PART_BYTES: usize = 256 << 10;

/// The folder.
pub(super) struct Cache {
    folder: PathBuf,
    /// What was compared already, as the kernel describes it: a file that was written since has another change time.
    compared: Mutex<HashMap<PathBuf, Identity>>,
    temporary: AtomicU64,
}

type Identity = (u64, u64, u64, i64, i64);

/// What is written down of a compiled module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    form: Form,
    code: Digest,
    bytes: u64,
}

/// A compiled module, ready to be mapped.
pub(super) struct Compiled {
    pub(super) form: Form,
    pub(super) file: File,
}

impl Cache {
    /// Opens or makes the folder.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let cache = Self { folder: folder.to_owned(), compared: Mutex::default(), temporary: AtomicU64::new(0) };
        // Left behind by a process that ended in the middle.
        for (modified, path, _) in by_age(cache.paths(".new")) {
            if modified.elapsed().is_ok_and(|age| age > LEFT_BEHIND) {
                let _ = fs::remove_file(path);
            }
        }
        Ok(cache)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn place(&self, module: &Digest, engine: &Digest, ending: &str) -> PathBuf {
        self.folder.join(format!("{module}.{}.{ending}", engine.short()))
    }

    /// A compiled module, where it is there and whole. What is not is deleted, and said.
    pub(super) fn find(&self, module: &Digest, engine: &Digest) -> (Option<Compiled>, Option<String>) {
        let (code, record) = (self.place(module, engine, "cwasm"), self.place(module, engine, "json"));
        if !record.exists() && !code.exists() {
            return (None, None);
        }
        match self.compare(&code, &record) {
            Ok(found) => (Some(found), None),
            Err(why) => {
                let _ = fs::remove_file(&code);
                let _ = fs::remove_file(&record);
                (
                    None,
                    Some(format!(
                        "compiled code of module {} is not what was written down ({why}): it is deleted",
                        module.short()
                    )),
                )
            }
        }
    }

    fn compare(&self, code: &Path, place: &Path) -> io::Result<Compiled> {
        let record: Record = read_record(place)?;
        let mut file = File::open(code)?;
        let before = identity(&file)?;
        let known = self.compared.lock().unwrap_or_else(PoisonError::into_inner).get(code) == Some(&before);
        if !known {
            let found = digest(&mut file)?;
            if before.2 != record.bytes || found != record.code {
                return Err(io::Error::other("its digest is another"));
            }
            self.compared.lock().unwrap_or_else(PoisonError::into_inner).insert(code.to_owned(), before);
        }
        // The one unused for longest goes first.
        let _ = File::open(place).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(Compiled { form: record.form, file })
    }

    /// A new file for the compiler to write to.
    pub(super) fn begin(&self) -> io::Result<(PathBuf, File)> {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{}-{number}.new", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok((path, file))
    }

    /// Keeps what the compiler wrote.
    pub(super) fn keep(&self, new: &Path, mut file: File, module: &Digest, engine: &Digest, form: Form) -> io::Result<Compiled> {
        file.rewind()?;
        let code = digest(&mut file)?;
        let record = Record { form, code, bytes: file.metadata()?.len() };
        // Read by the hook host, which is another user and gets it by its descriptor alone.
        file.set_permissions(fs::Permissions::from_mode(0o444))?;
        let place = self.place(module, engine, "cwasm");
        fs::rename(new, &place)?;
        self.write_record(&self.place(module, engine, "json"), &record)?;
        self.prune(&place);
        // For reading only.
        let file = File::open(&place)?;
        self.compared.lock().unwrap_or_else(PoisonError::into_inner).insert(place, identity(&file)?);
        Ok(Compiled { form, file })
    }

    /// Why a module was refused before, under the same rules.
    pub(super) fn refused(&self, module: &Digest, rules: &Digest) -> Option<String> {
        read_record(&self.place(module, rules, "refused")).ok()
    }

    /// Remembers why.
    pub(super) fn refuse(&self, module: &Digest, rules: &Digest, why: &str) -> io::Result<()> {
        self.write_record(&self.place(module, rules, "refused"), &why)?;
        for (_, path, _) in by_age(self.paths(".refused")).iter().rev().skip(REFUSALS_MAX) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn write_record(&self, place: &Path, record: &impl Serialize) -> io::Result<()> {
        let line = serde_json::to_string(record)?;
        let (new, mut file) = self.begin()?;
        io::Write::write_all(&mut file, format!("{line}\n{}\n", Digest::of(line.as_bytes())).as_bytes())?;
        fs::rename(new, place)
    }

    fn paths(&self, ending: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with(ending)).collect()
    }

    fn prune(&self, newest: &Path) {
        let (mut count, mut bytes) = (0, 0);
        for (_, record, _) in by_age(self.paths(".json")).into_iter().rev() {
            let code = record.with_extension("cwasm");
            count += 1;
            bytes += code.metadata().map_or(0, |found| found.len());
            if (count > ENTRIES_MAX || bytes > BYTES_MAX) && code != newest {
                // What is mapped stays mapped.
                let _ = fs::remove_file(code);
                let _ = fs::remove_file(record);
            }
        }
    }
}

fn by_age(paths: Vec<PathBuf>) -> Vec<(SystemTime, PathBuf, u64)> {
    let dated = |path: PathBuf| path.metadata().ok().and_then(|found| Some((found.modified().ok()?, path, found.len())));
    let mut dated: Vec<_> = paths.into_iter().filter_map(dated).collect();
    dated.sort();
    dated
}

fn identity(file: &File) -> io::Result<Identity> {
    let found = file.metadata()?;
    Ok((found.dev(), found.ino(), found.len(), found.ctime(), found.ctime_nsec()))
}

fn digest(file: &mut File) -> io::Result<Digest> {
    let mut sum = sha2::Sha256::new();
    let mut part = vec![0; PART_BYTES];
    loop {
        let count = file.read(&mut part)?;
        if count == 0 {
            return Ok(Digest::from_bytes(sum.finalize().into()));
        }
        sum.update(&part[..count]);
    }
}

fn read_record<T: DeserializeOwned>(place: &Path) -> io::Result<T> {
    let mut text = String::new();
    File::open(place)?.take(RECORD_MAX_BYTES).read_to_string(&mut text)?;
    let (line, sum) = text.trim_end().split_once('\n').ok_or_else(|| io::Error::other("its record is cut off"))?;
    if Digest::of(line.as_bytes()).to_string() != sum {
        return Err(io::Error::other("its record is damaged"));
    }
    Ok(serde_json::from_str(line)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn kept(cache: &Cache, content: &[u8]) -> PathBuf {
        let (new, mut file) = cache.begin().unwrap();
        file.write_all(content).unwrap();
        drop(cache.keep(&new, file, &Digest::of(b"module"), &Digest::of(b"engine"), Form::Command).unwrap());
        cache.place(&Digest::of(b"module"), &Digest::of(b"engine"), "cwasm")
    }

    fn find(cache: &Cache) -> (Option<Compiled>, Option<String>) {
        cache.find(&Digest::of(b"module"), &Digest::of(b"engine"))
    }

    #[test]
    fn what_was_kept_is_found_and_what_was_changed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let damage: [fn(&Path); 5] = [
            |code| fs::write(code, b"compilee").unwrap(),
            |code| fs::write(code, b"compile").unwrap(),
            |code| fs::remove_file(code).unwrap(),
            |code| fs::remove_file(code.with_extension("json")).unwrap(),
            |code| fs::write(code.with_extension("json"), "{\"form\":\"command\"}\nno sum\n").unwrap(),
        ];
        for (at, damage) in damage.into_iter().enumerate() {
            // Damaged under a cache that has compared it before, and under a new one.
            for anew in [false, true] {
                let mut cache = Cache::open(folder.path()).unwrap();
                assert!(find(&cache).0.is_none());
                let code = kept(&cache, b"compiled");
                assert_eq!(find(&cache).0.map(|found| found.form), Some(Form::Command));
                fs::set_permissions(&code, fs::Permissions::from_mode(0o644)).unwrap();
                damage(&code);
                if anew {
                    cache = Cache::open(folder.path()).unwrap();
                }
                let (found, why) = find(&cache);
                assert!(found.is_none() && why.is_some(), "damage {at}");
                assert!(!code.exists() && !code.with_extension("json").exists());
            }
        }
    }

    #[test]
    fn refusals_are_remembered_under_their_rules_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let (module, rules) = (Digest::of(b"m"), Digest::of(b"rules"));
        cache.refuse(&module, &rules, "too large").unwrap();
        assert_eq!(cache.refused(&module, &rules).as_deref(), Some("too large"));
        assert_eq!(cache.refused(&module, &Digest::of(b"others")), None);
        for number in 0..REFUSALS_MAX + 10 {
            cache.refuse(&Digest::of(&number.to_le_bytes()), &rules, "x").unwrap();
        }
        assert_eq!(cache.paths(".refused").len(), REFUSALS_MAX);
    }
}
