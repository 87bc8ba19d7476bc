//! What a test needs of the machine, and how it says that it is skipped: one line in the file that `TAGFALL_TEST_SKIPS` names,
//! which `tests/run` prints and, with `CI=true`, takes as a failure.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The test cannot run here; it was written down, the test returns.
#[derive(Debug)]
pub struct Skipped;

/// Goes on where `met`; else writes down that the running test is skipped, and why.
///
/// # Errors
/// [`Skipped`], where the machine does not meet the need.
pub fn need(met: bool, why: &str) -> Result<(), Skipped> {
    if met {
        return Ok(());
    }
    // The harness names each test's thread after the test.
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("skipped: {test} because {why}\n");
    let written = std::env::var_os("TAGFALL_TEST_SKIPS").map(|path| append(&PathBuf::from(path), &line));
    match written {
        Some(Ok(())) => {}
        Some(Err(error)) => panic!("the skip of {test} cannot be written down: {error}"),
        None => drop(std::io::stderr().write_all(line.as_bytes())),
    }
    Err(Skipped)
}

fn append(path: &PathBuf, line: &str) -> std::io::Result<()> {
    // One write of one line with O_APPEND: tests of several processes do not mix.
    OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
}

/// Needs to be root.
///
/// # Errors
/// [`Skipped`], where it is not.
pub fn need_root() -> Result<(), Skipped> {
    need(is_root(), "it needs root")
}

/// Needs to mount: CAP_SYS_ADMIN over a mount namespace of its own.
///
/// # Errors
/// [`Skipped`], where it may not.
pub fn rights_to_mount() -> Result<(), Skipped> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    need(unshare.status().is_ok_and(|status| status.success()), "it needs the right to mount (CAP_SYS_ADMIN)")
}

/// Finds a program in PATH and where Debian keeps servers.
///
/// # Errors
/// [`Skipped`], where it is not installed.
pub fn need_tool(name: &str) -> Result<PathBuf, Skipped> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    need(found.is_some(), &format!("`{name}` is not installed"))?;
    found.ok_or(Skipped)
}

/// Whether this test runs as root.
pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
