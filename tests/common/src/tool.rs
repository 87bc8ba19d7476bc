//! Small C programs and libraries of `tests/tools`, compiled where a test needs one.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::needs::{Skipped, need_tool};

/// Compiles `tests/tools/NAME.c` into `dir`, with these arguments of the compiler.
///
/// # Errors
/// [`Skipped`], where there is no compiler.
///
/// # Panics
/// Where it does not compile.
pub fn compile(name: &str, dir: &Path, arguments: &[&str]) -> Result<PathBuf, Skipped> {
    let cc = need_tool("cc")?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools").join(name).with_extension("c");
    let tool = dir.join(name);
    let built = Command::new(cc).args(["-Wall", "-Werror", "-O1", "-o"]).arg(&tool).arg(source).args(arguments).status();
    assert!(built.is_ok_and(|status| status.success()), "`{name}` does not compile");
    Ok(tool)
}
