//! What a source is opened with.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything a [`Source`](super::Source) needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// Path, `file://`, `http://`, `https://`, `ssh://`, `git://` or `user@host:path`.
    pub url: String,
    /// How to sign in, and whom to trust.
    pub credentials: Credentials,
    /// Bounds of everything that a remote decides about.
    pub limits: Limits,
    /// Folder of the object store, ours alone: a bare repository.
    pub store: PathBuf,
    /// The program whose `fetch-child` does the work: this very binary, even after an upgrade replaced its file.
    pub program: PathBuf,
}

impl SourceConfig {
    /// This binary, as the kernel holds it.
    pub const THIS_PROGRAM: &'static str = "/proc/self/exe";

    /// A source with no credentials and the default limits.
    pub fn new(url: impl Into<String>, store: impl Into<PathBuf>) -> Self {
        Self {
            url: url.into(),
            credentials: Credentials::default(),
            limits: Limits::default(),
            store: store.into(),
            program: PathBuf::from(Self::THIS_PROGRAM),
        }
    }
}

/// How to sign in. Secrets stay in their files: only the child reads them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Credentials {
    /// User name; else the one of the address, else `git`.
    pub username: Option<String>,
    /// File with the token or password for http(s).
    pub token_file: Option<PathBuf>,
    /// Private key for ssh, without passphrase.
    pub ssh_key_file: Option<PathBuf>,
    /// Known host keys for ssh; else `~/.ssh/known_hosts`, else `/etc/ssh/ssh_known_hosts`.
    pub known_hosts_file: Option<PathBuf>,
    /// Certificate authorities for https, instead of the host's.
    pub ca_file: Option<PathBuf>,
}

/// Bounds, each with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of one received pack.
    pub pack_bytes: u64,
    /// Bytes of one file of a release.
    pub file_bytes: u64,
    /// Bytes of all files of a release together.
    pub tree_bytes: u64,
    /// Objects of a pack, and names in the tree of a release.
    pub objects: u64,
    /// Files of a release.
    pub files: u64,
    /// Tags of the remote.
    pub tags: u64,
    /// Seconds of one listing or fetch, as a whole.
    pub seconds: u64,
    /// Bytes of a file's path.
    pub path_bytes: u64,
    /// Folders within folders.
    pub path_depth: u64,
    /// Bytes of address space of the child.
    pub memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pack_bytes: 256 << 20,
            file_bytes: 32 << 20,
            tree_bytes: 256 << 20,
            objects: 200_000,
            files: 100_000,
            tags: 100_000,
            seconds: 60,
            path_bytes: 1024,
            path_depth: 32,
            memory_bytes: 1 << 30,
        }
    }
}
