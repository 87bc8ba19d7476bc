//! Writes rendered files into a folder. Never through a symbolic link below it, so that nothing outside is touched.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::cli::CliError;
use crate::render::RenderedFile;

const FILE_MODE: u32 = 0o644;
const PROGRAM_MODE: u32 = 0o755;

/// Writes all files, with their folders; files of the same name are replaced.
pub(super) fn write(dir: &Path, files: &[RenderedFile]) -> Result<(), CliError> {
    let failed = |path: &Path, error| CliError::failed(format!("write `{}`", path.display()), error);
    fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
    for file in files {
        let path = dir.join(&file.path);
        write_one(dir, file).map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

fn write_one(dir: &Path, file: &RenderedFile) -> io::Result<()> {
    let mut place = dir.to_path_buf();
    let mut parts = file.path.split('/').peekable();
    while let Some(part) = parts.next() {
        place.push(part);
        let found = match fs::symlink_metadata(&place) {
            Ok(found) => Some(found.file_type()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let here = place.display();
        match (found, parts.peek()) {
            (Some(kind), _) if kind.is_symlink() => {
                return Err(io::Error::other(format!("`{here}` is a symbolic link: remove it, or name another folder")));
            }
            (Some(kind), Some(_)) if !kind.is_dir() => return Err(io::Error::other(format!("`{here}` is not a folder"))),
            (Some(kind), None) if !kind.is_file() => return Err(io::Error::other(format!("`{here}` is not a file"))),
            (None, Some(_)) => fs::create_dir(&place)?,
            (Some(_), _) | (None, None) => {}
        }
    }
    let mode = if file.executable { PROGRAM_MODE } else { FILE_MODE };
    let mut options = File::options();
    let mut out = options.write(true).create(true).truncate(true).mode(mode).custom_flags(libc::O_NOFOLLOW).open(&place)?;
    out.write_all(&file.bytes)?;
    out.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn file(path: &str, executable: bool) -> RenderedFile {
        RenderedFile { path: path.to_owned(), bytes: path.as_bytes().to_vec(), executable }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (out, outside) = (folder.path().join("a/b"), folder.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("x"), "kept").unwrap();
        write(&out, &[file("x", false), file("d/e/run", true)]).unwrap();
        assert_eq!(fs::read_to_string(out.join("d/e/run")).unwrap(), "d/e/run");
        assert_eq!(fs::metadata(out.join("d/e/run")).unwrap().permissions().mode() & 0o777, PROGRAM_MODE);
        write(&out, &[file("d/e/run", false)]).unwrap();
        assert_eq!(fs::metadata(out.join("d/e/run")).unwrap().permissions().mode() & 0o777, FILE_MODE);

        fs::remove_file(out.join("x")).unwrap();
        symlink(outside.join("x"), out.join("x")).unwrap();
        symlink(&outside, out.join("link")).unwrap();
        symlink(outside.join("nothing"), out.join("dangling")).unwrap();
        for path in ["x", "link/x", "dangling", "d", "d/e/run/below"] {
            assert!(write(&out, &[file(path, false)]).is_err(), "{path}");
        }
        assert_eq!(fs::read_to_string(outside.join("x")).unwrap(), "kept");
        assert!(!outside.join("nothing").exists());
    }
}
