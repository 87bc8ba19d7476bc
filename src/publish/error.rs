//! What can go wrong with a publication, and what each failure leaves behind.

use std::io;
use std::path::{Path, PathBuf};

use crate::model::{GroupName, PublicationId};

/// Why a publication could not be written, shown, checked or removed. Whatever was shown before is still shown.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The file system, or a quota on it, is full. Nothing of the unfinished publication is left.
    #[error("could not {step} `{}`: no space is left there; what was published stays; free space, or lower `keep`", path.display())]
    NoSpace {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file system takes no writes.
    #[error("could not {step} `{}`: the file system is read-only; what was published stays; mount it read-write", path.display())]
    ReadOnly {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The supervisor's user may not.
    #[error("could not {step} `{}`: the supervisor's user may not; what was published stays; grant the right, or start it as another user", path.display())]
    Denied {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The keeper did not do it, and says why not.
    #[error("could not {step} `{}`: {message}; what was published stays", path.display())]
    Refused {
        /// What was to be done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        message: String,
    },
    /// Anything else that the kernel refused.
    #[error("could not {step} `{}`; what was published stays", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something that Tagfall did not make stands where the link belongs. It is left as it is.
    #[error("`{}` is {what}, which Tagfall did not make and leaves as it is; move it away, or choose another mount path", path.display())]
    MountOccupied {
        /// Where.
        path: PathBuf,
        /// What stands there.
        what: String,
    },
    /// A mount path that cannot be one. Nothing was changed.
    #[error("`{path}` cannot be a mount path: {rule}")]
    BadMountPath {
        /// As it was given.
        path: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// A file's path would leave the publication, or cannot be a file there. Nothing was written.
    #[error("`{path}` cannot be published: {rule}")]
    UnsafePath {
        /// As it was given.
        path: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// There is no such publication on disk; what was shown stays.
    #[error("publication `{id}` of `{group}` is not on disk; publish it again")]
    Unwritten {
        /// Whose.
        group: GroupName,
        /// Which.
        id: PublicationId,
    },
    /// A publication's record does not say what it was written with.
    #[error("the record of publication `{id}` of `{group}` is {what}; a new copy mends it")]
    Damaged {
        /// Whose.
        group: GroupName,
        /// Which.
        id: PublicationId,
        /// `missing`, `damaged`, …
        what: &'static str,
    },
}

impl PublishError {
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
