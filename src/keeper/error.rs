//! Why the keeper cannot begin, or go on.

use std::io;
use std::path::PathBuf;

/// The keeper cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The data folder cannot be used.
    #[error("data folder `{}` cannot be used; nothing was started", .path.display())]
    DataDir {
        /// Which part of it.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another supervisor has it.
    #[error(
        "data folder `{}` is in use by {holder}; nothing was started here: stop that one first, or give this one a `data_dir` of its own",
        .path.display()
    )]
    InUse {
        /// The data folder.
        path: PathBuf,
        /// Who has it, as far as it is known.
        holder: String,
    },
    /// A newer program has kept the services.
    #[error(
        "the services' records in `{}` were written by a newer tagfall (version {version}, this one knows {known}); nothing was \
         touched and services run on: start the newer one again",
        .path.display()
    )]
    Newer {
        /// The folder of records.
        path: PathBuf,
        /// Their version.
        version: u64,
        /// The newest that this program reads.
        known: u64,
    },
    /// The supervisor was to run as a user that this process cannot become.
    #[error(
        "the supervisor cannot run as user `{name}`, as `user` in supervisor.toml wants it; nothing was started: start it with the \
         rights to change users and owners (CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_FOWNER, CAP_FSETID, CAP_DAC_OVERRIDE), or write `user = \"root\"`"
    )]
    NoUser {
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The data folder holds what another user wrote.
    #[error("{0}")]
    NotOurs(String),
    /// The kernel refused something that the keeper cannot do without.
    #[error("the keeper cannot {step}")]
    Setup {
        /// What could not be done.
        step: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl KeeperError {
    /// For `map_err`: which step failed.
    pub(super) fn setup<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Setup { step, source: source.into() }
    }
}
