//! One keeper per data folder.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::error::KeeperError;

/// Most bytes of the lock file that are looked at: a process id and a newline.
const HOLDER_MAX_BYTES: u64 = 32;

/// Takes the lock, which is given back when the file is closed. The folder is made where it is missing, so that every
/// service can reach what is meant for it inside.
pub(super) fn take(data_dir: &Path) -> Result<File, KeeperError> {
    let path = data_dir.join("lock");
    let failed = |source: io::Error| KeeperError::DataDir { path: path.clone(), source };
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(data_dir)
        .map_err(|source| KeeperError::DataDir { path: data_dir.to_owned(), source })?;
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = (&mut file).take(HOLDER_MAX_BYTES).read_to_string(&mut text);
            let pid: Option<u32> = read.ok().and_then(|_| text.trim().parse().ok());
            let holder = pid.map_or_else(|| "another supervisor".to_owned(), |pid| format!("the supervisor of process {pid}"));
            return Err(KeeperError::InUse { path: data_dir.to_owned(), holder });
        }
        Err(error) => return Err(failed(error.into())),
    }
    file.set_len(0).map_err(failed)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_was_first() {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().join("made/here");
        let first = take(&dir).unwrap();
        let error = take(&dir).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        take(&dir).unwrap();
    }
}
