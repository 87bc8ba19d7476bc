//! What can go wrong with the durable state.

use std::io;
use std::path::{Path, PathBuf};

/// Why the state could not be read or written. What is on disk is as it was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another supervisor works in this data folder.
    #[error(
        "another supervisor{} works in this data folder (`{}` is locked); stop it, or give this one a `data_dir` of its own",
        .holder.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        path.display()
    )]
    InUse {
        /// The lock.
        path: PathBuf,
        /// Its process, as it noted itself.
        holder: Option<u32>,
    },
    /// Written by a later version of Tagfall, whose meaning this one cannot know. It is left untouched.
    #[error(
        "`{}` has format {found}, and this version reads up to {known}; it is left as it is: start the newer version again, or \
         set the folder aside",
        path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The file system, or a quota on it, is full.
    #[error("could not {step} `{}`: no space is left there; the state on disk is as it was; free space", path.display())]
    NoSpace {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file system takes no writes.
    #[error("could not {step} `{}`: the file system is read-only; the state on disk is as it was; mount it read-write", path.display())]
    ReadOnly {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The supervisor's user may not.
    #[error("could not {step} `{}`: the supervisor's user may not; give it the data folder, or set another `data_dir`", path.display())]
    Denied {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else that the kernel refused.
    #[error("could not {step} `{}`; the state on disk is as it was", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No random number for the member id.
    #[error("could not get random bytes for the member id")]
    Random(#[source] io::Error),
}

impl StoreError {
    /// Sorts a failed call by what a person has to do about it.
    pub(super) fn new(step: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        let kind = source.kind();
        if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::NoSpace { step, path, source }
        } else if kind == io::ErrorKind::ReadOnlyFilesystem {
            Self::ReadOnly { step, path, source }
        } else if kind == io::ErrorKind::PermissionDenied {
            Self::Denied { step, path, source }
        } else {
            Self::Io { step, path, source }
        }
    }
}
