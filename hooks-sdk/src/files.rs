//! Files below the folders, or the files themselves, of `allow.read` and `allow.write`. Paths are absolute.
//!
//! ```no_run
//! use tagfall_hooks::prelude::*;
//!
//! # fn pid() -> Result<()> {
//! let pid: u32 = files::read_text("/run/web/pid")?.trim().parse()?;
//! # Ok(()) }
//! ```

use serde::de::DeserializeOwned;

use crate::host::files;
use crate::{Error, Result};

/// The whole content, at most 1 MiB.
///
/// # Errors
/// `denied`, `not-found`, `too-large` or `other`; more may come.
pub fn read(path: impl AsRef<str>) -> Result<Vec<u8>> {
    files::read(path.as_ref()).map_err(Error::of_file)
}

/// The whole content as text.
///
/// # Errors
/// As [`read`], and `utf-8` where it is no text.
pub fn read_text(path: impl AsRef<str>) -> Result<String> {
    let path = path.as_ref();
    String::from_utf8(read(path)?).map_err(|error| Error::from(error).context(format_args!("`{path}`")))
}

/// The whole content as JSON, in its type.
///
/// # Errors
/// As [`read`], and `json` where it is none, or of another type.
pub fn read_json<T: DeserializeOwned>(path: impl AsRef<str>) -> Result<T> {
    let path = path.as_ref();
    serde_json::from_slice(&read(path)?).map_err(|error| Error::from(error).context(format_args!("`{path}`")))
}

/// The names in a folder, sorted, at most 4096; those of folders end in `/`.
///
/// # Errors
/// As [`read`].
pub fn list(folder: impl AsRef<str>) -> Result<Vec<String>> {
    files::list_dir(folder.as_ref()).map_err(Error::of_file)
}

/// Writes a new file or replaces a whole one, at most 1 MiB: readers see the old content or the new one.
///
/// # Errors
/// As [`read`].
pub fn write(path: impl AsRef<str>, content: impl AsRef<[u8]>) -> Result<()> {
    files::write(path.as_ref(), content.as_ref()).map_err(Error::of_file)
}

/// Removes a file.
///
/// # Errors
/// As [`read`].
pub fn remove(path: impl AsRef<str>) -> Result<()> {
    files::remove(path.as_ref()).map_err(Error::of_file)
}
