//! What the process tests share: needs that a machine may not meet, bounded waits, free ports, repositories, processes, the
//! program itself.
//!
//! A crate of its own, so that each test uses what it needs without the rest being reported as dead. It holds no expectations
//! about the product: those stand in the tests. A new fixture gets a file of its own.

pub mod module;
mod needs;
mod net;
mod process;
mod repo;
mod supervisor;
mod tool;
mod wait;

pub use needs::{Skipped, is_root, need, need_root, need_tool, rights_to_mount};
pub use net::{free_port, http_get, redis};
pub use process::{children, memory_kib, number_of, threads, zombies};
pub use repo::{Repo, copy_tree, git};
pub use supervisor::{Output, SOCKET, Supervisor, Tagfall};
pub use tool::compile;
pub use wait::{LONG, SHORT, holds_for, wait_for, wait_until};

/// A folder that goes away with the test. Short paths, because a unix socket's may have 108 bytes. Others may pass through and
/// look, as a supervisor does that root starts.
///
/// # Panics
/// Where no folder can be made.
pub fn temp_dir() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("tf").tempdir_in("/tmp").expect("a folder can be made below /tmp");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).expect("a folder of one's own can be opened");
    dir
}
