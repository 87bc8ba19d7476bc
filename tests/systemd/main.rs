//! The units of `examples/systemd`: what systemd says of them without running them, and how they do under a systemd of the test's
//! own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod left;
mod run;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::need_tool;

/// What systemd may count of the whole, and of what the supervisor is left with, in tenths.
const WHOLE_MAX: u32 = 60;
const SUPERVISOR_MAX: u32 = 20;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/systemd").join(name)
}

#[test]
fn the_exposure_of_both_is_bounded() {
    let Ok(tool) = need_tool("systemd-analyze") else { return };
    for (name, most) in [("tagfall.service", WHOLE_MAX), ("supervisor.described.service", SUPERVISOR_MAX)] {
        let analyze = |threshold: u32| {
            let mut command = Command::new(&tool);
            command.args(["security", "--offline=true", "--no-pager", &format!("--threshold={threshold}")]).arg(example(name));
            command.output().unwrap()
        };
        let output = analyze(most);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("Overall exposure level"), "{said}");
        // It is really compared.
        assert!(!analyze(1).status.success());
    }
}

#[test]
fn systemd_understands_every_line() {
    let Ok(tool) = need_tool("systemd-analyze") else { return };
    let dir = tempfile::tempdir().unwrap();
    for name in ["tagfall.service", "supervisor.described.service"] {
        let text = std::fs::read_to_string(example(name)).unwrap();
        let text = text.replace("/usr/bin/tagfall", env!("CARGO_BIN_EXE_tagfall"));
        let unit = dir.path().join(name);
        std::fs::write(&unit, text).unwrap();
        let output = Command::new(&tool).args(["verify", "--man=no"]).arg(&unit).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // One key is newer than what some systems have; they say that they leave it out.
        let complaints = said.lines().filter(|line| line.contains(name) && !line.contains("'DelegateSubgroup'"));
        assert_eq!(complaints.collect::<Vec<_>>(), [""; 0]);
        assert!(output.status.success(), "{said}");
    }
}

#[test]
fn the_user_of_the_supervisor_can_be_made() {
    if common::need_root().is_err() {
        return;
    }
    let Ok(tool) = need_tool("systemd-sysusers") else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    let root = format!("--root={}", dir.path().display());
    let file = std::fs::File::open(example("tagfall.sysusers")).unwrap();
    let output = Command::new(tool).args([&root, "-"]).stdin(file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let users = std::fs::read_to_string(dir.path().join("etc/passwd")).unwrap();
    assert!(users.lines().any(|line| line.starts_with("tagfall:") && line.contains(":/var/lib/tagfall:")), "{users}");
}
