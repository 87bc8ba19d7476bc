//! What the supervisor is left with, as the kernel says of one that runs, against its description in systemd's words.

use std::collections::BTreeMap;

use common::{LONG, Repo, Supervisor, Tagfall, need_root, wait_for};

/// Directives of the description by name, the last one of each.
fn described() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(crate::example("supervisor.described.service")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_description_agrees_with_what_the_kernel_says_of_the_supervisor() {
    if need_root().is_err() {
        return;
    }
    let dir = common::temp_dir();
    // Another user has to get through.
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let repo = Repo::new(dir.path());
    let supervisor = Supervisor::start(&Tagfall::new(env!("CARGO_BIN_EXE_tagfall")), dir.path(), repo.bare(), "{}");
    let pid = wait_for("the supervisor's pid", LONG, || {
        let status = supervisor.status().map_err(|error| format!("{error}\n{}", supervisor.log()))?;
        status["supervisor"]["pid"].as_u64().ok_or_else(|| format!("{status:#}"))
    });
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let facts: BTreeMap<&str, Vec<&str>> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.split_whitespace().collect()))
        .collect();
    let described = described();

    // `User=`: one and the same everywhere, and not root.
    assert!(!described["User"].is_empty() && described["User"] != "root");
    for ids in ["Uid", "Gid"] {
        assert!(facts[ids].iter().all(|id| *id == facts[ids][0] && *id != "0"), "{ids}: {:?}", facts[ids]);
    }
    assert_eq!((described["CapabilityBoundingSet"].as_str(), described["AmbientCapabilities"].as_str()), ("", ""));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(facts[set], ["0000000000000000"], "{set}");
    }
    assert_eq!((described["NoNewPrivileges"].as_str(), facts["NoNewPrivs"].as_slice()), ("yes", ["1"].as_slice()));
    assert!(described.contains_key("SystemCallFilter"));
    assert_eq!(facts["Seccomp"], ["2"], "its system calls are filtered");
}
