//! Where the demo lies, and how all of it goes away. It removes nothing that the demo did not make.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::CliError;

/// Longest path of a unix socket, in bytes (the kernel's 108 with a zero at the end).
const SOCKET_MAX_BYTES: usize = 107;
/// Names that are tried for a temporary folder.
const NAMES_MAX: u32 = 100;
/// Looks at a folder in which somebody else still writes, before it is said.
const REMOVALS_MAX: u32 = 3;

const BARE: &str = "config.git";
const CLONE: &str = "config";
const DATA: &str = "data";
const ETC: &str = "etc";
const KEYS: &str = "keys";
const SETTINGS: &str = "supervisor.toml";
const LOG: &str = "supervisor.log";
const SOCKET: &str = "api.sock";
/// Everything that lies in the folder.
const ALL: [&str; 8] = [BARE, CLONE, DATA, ETC, KEYS, SETTINGS, LOG, SOCKET];

/// The demo's folder.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// Made here, so it goes whole; else only what was put into it.
    whole: bool,
}

impl Folder {
    /// Makes the folder that was asked for, or a temporary one.
    pub(super) fn make(dir: Option<&Path>) -> Result<Self, CliError> {
        match dir {
            None => Self::temporary(),
            Some(dir) => Self::at(dir),
        }
    }

    fn temporary() -> Result<Self, CliError> {
        let base = canonical(&std::env::temp_dir())?;
        for count in 0..NAMES_MAX {
            let root = base.join(format!("tagfall-demo-{}", u64::from(std::process::id()) + u64::from(count) * 1_000_000));
            check(&root)?;
            // Nobody else's business, and never a folder that somebody else has prepared.
            match DirBuilder::new().mode(0o700).create(&root) {
                Ok(()) => return Ok(Self { root, whole: true }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(could_not_make(&root, error)),
            }
        }
        Err(CliError::usage(format!("`{}` is full of demos", base.display()), "name a folder: `tagfall demo --dir DIR`"))
    }

    fn at(dir: &Path) -> Result<Self, CliError> {
        let dir = std::path::absolute(dir).map_err(|error| could_not_make(dir, error))?;
        let whole = match fs::create_dir(&dir) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => false,
            Err(error) => return Err(could_not_make(&dir, error)),
        };
        let folder = Self { root: canonical(&dir)?, whole };
        if let Err(error) = check(&folder.root) {
            let _ = if whole { fs::remove_dir(&dir) } else { Ok(()) };
            return Err(error);
        }
        match ALL.iter().find(|name| fs::symlink_metadata(folder.root.join(name)).is_ok()) {
            Some(name) => Err(CliError::usage(
                format!("`{}` already holds `{name}`", dir.display()),
                "name a folder that is empty or not there yet",
            )),
            None => Ok(folder),
        }
    }

    /// The folder itself.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The repository that the supervisor follows.
    pub(super) fn bare(&self) -> PathBuf {
        self.root.join(BARE)
    }

    /// The clone in which a person works.
    pub(super) fn clone_dir(&self) -> PathBuf {
        self.root.join(CLONE)
    }

    /// What the supervisor remembers.
    pub(super) fn data(&self) -> PathBuf {
        self.root.join(DATA)
    }

    /// Below which files are published.
    pub(super) fn etc(&self) -> PathBuf {
        self.root.join(ETC)
    }

    /// The key that tags are signed with, and the trust in it.
    pub(super) fn keys(&self) -> PathBuf {
        self.root.join(KEYS)
    }

    /// The supervisor's own file.
    pub(super) fn settings(&self) -> PathBuf {
        settings(&self.root)
    }

    /// What the supervisor says.
    pub(super) fn log(&self) -> PathBuf {
        self.root.join(LOG)
    }

    /// Where the supervisor is asked.
    pub(super) fn socket(&self) -> PathBuf {
        self.root.join(SOCKET)
    }

    /// Takes away what was made.
    pub(super) fn remove(&self) -> Result<(), CliError> {
        let all = if self.whole { vec![self.root.clone()] } else { ALL.map(|name| self.root.join(name)).to_vec() };
        all.iter().try_for_each(|path| {
            let mut result = clear(path);
            for _ in 1..REMOVALS_MAX {
                if result.is_err() {
                    result = clear(path);
                }
            }
            result.map_err(|error| CliError::failed(format!("remove `{}`", path.display()), error))
        })
    }
}

/// The supervisor's own file in a demo's folder.
pub(super) fn settings(root: &Path) -> PathBuf {
    root.join(SETTINGS)
}

fn could_not_make(path: &Path, error: io::Error) -> CliError {
    CliError::could_not_run(format!("make the folder `{}`", path.display()), error)
}

/// With links followed: paths that are published and traced are compared as they are.
fn canonical(path: &Path) -> Result<PathBuf, CliError> {
    path.canonicalize().map_err(|error| CliError::could_not_run(format!("find the folder `{}`", path.display()), error))
}

fn check(root: &Path) -> Result<(), CliError> {
    let hint = "name another folder: `tagfall demo --dir DIR`";
    let wrong = |why: &str| Err(CliError::usage(format!("the demo cannot lie in `{}`: {why}", root.display()), hint));
    match root.to_str() {
        None => wrong("its name is not UTF-8"),
        // The text of a group is a template.
        Some(text) if text.contains("{{") => wrong("its name holds `{{`"),
        Some(text) if text.chars().any(char::is_control) => wrong("its name holds a control character"),
        Some(_) if root.join(SOCKET).as_os_str().len() > SOCKET_MAX_BYTES => wrong("its path is too long for a socket"),
        Some(_) => Ok(()),
    }
}

/// Removes a tree, published folders too, which nobody may write to. Links are removed, not followed.
fn clear(path: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {
            if found.permissions().mode() & 0o700 != 0o700 {
                fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            }
            for entry in fs::read_dir(path)? {
                clear(&entry?.path())?;
            }
            gone(fs::remove_dir(path))
        }
        Ok(_) => gone(fs::remove_file(path)),
        Err(error) => gone(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_folder_loses_only_what_the_demo_made() {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("mine"), "x").unwrap();
        let folder = Folder::make(Some(outer.path())).unwrap();
        let published = folder.data().join("publications/1");
        fs::create_dir_all(&published).unwrap();
        fs::write(published.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(outer.path().join("mine"), published.join("link")).unwrap();
        fs::set_permissions(&published, fs::Permissions::from_mode(0o555)).unwrap();
        folder.remove().unwrap();
        let left: Vec<_> = fs::read_dir(outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["mine"]);
    }

    #[test]
    fn a_folder_of_its_own_goes_whole() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("demo");
        let folder = Folder::make(Some(&dir)).unwrap();
        fs::write(dir.join("note"), "x").unwrap();
        folder.remove().unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn folders_that_cannot_serve_are_refused_and_left_as_they_were() {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("api.sock"), "x").unwrap();
        for bad in
            [outer.path().to_owned(), outer.path().join("a/b"), outer.path().join("x".repeat(100)), outer.path().join("{{x")]
        {
            let error = Folder::make(Some(&bad)).unwrap_err();
            assert_eq!(error.exit(), crate::cli::Exit::Usage, "{error}");
        }
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}
