//! The commands that need no supervisor, with the real program: `check`, `render`, `init`, `plan --repo`, and the small web
//! server that `init` gives a first group. One file per command; `folder.rs` is where each test happens.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod check;
mod folder;
mod init;
mod plan;
mod render;

use folder::Folder;

#[test]
fn help_has_examples() {
    let folder = Folder::new();
    for command in ["check", "render", "init", "plan"] {
        let help = folder.run(&[command, "--help"]);
        assert!(help.starts_with("exit 0\n") && help.contains("Examples:"), "{help}");
    }
}
