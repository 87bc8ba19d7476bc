//! Rights: what the supervisor is left with where root starts it, that all works so, and what is said where it does not.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use common::{LONG, SHORT, Skipped, Supervisor, wait_for};
use serde_json::Value;

use crate::host::{Host, WEB, tagfall, text};

/// The user that a supervisor gets where the host has none for it, and `nobody`.
const NAMELESS: u32 = 60_963;
const NOBODY: u32 = 65_534;

/// A field of /proc/PID/status.
fn field(pid: u64, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn ids(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o7777)
}

fn as_root() -> Result<(), Skipped> {
    common::need_root()?;
    // Where a user `tagfall` exists, it is that one.
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    common::need(!users.lines().any(|line| line.starts_with("tagfall:")), "this host has a user `tagfall`")
}

/// Everything below a folder.
fn all_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            let inner = if path.is_dir() && !path.is_symlink() { all_below(&path) } else { Vec::new() };
            inner.into_iter().chain([path])
        })
        .collect()
}

fn condition(status: &Value, kind: &str) -> Option<Value> {
    status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == kind).cloned()
}

#[test]
fn root_gives_the_supervisor_a_user_of_its_own_and_files_to_their_readers() {
    let Ok(()) = as_root() else { return };
    let host = Host::start();
    let (supervisor, keeper) = (host.supervisor_pid(), u64::from(host.supervisor.keeper_pid()));
    let ids_of = |pid| field(pid, "Uid").split(' ').map(|id| id.parse().unwrap()).collect::<Vec<u32>>();
    assert_eq!((ids_of(keeper), ids_of(supervisor)), (vec![0; 4], vec![NAMELESS; 4]));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(supervisor, set), "0000000000000000", "{set}");
    }
    assert_eq!((field(supervisor, "NoNewPrivs"), field(supervisor, "Seccomp")), ("1".to_owned(), "2".to_owned()));
    let status = host.supervisor.status().unwrap();
    assert_eq!((text(&status["supervisor"]["user"]), condition(&status, "Confined")), (NAMELESS.to_string(), None), "{status:#}");

    // Everybody may read, since the service runs as whoever started all this.
    let files = fs::canonicalize(host.mount()).unwrap();
    assert_eq!((ids(&files), ids(&files.join("a.conf"))), ((NAMELESS, NAMELESS, 0o555), (NAMELESS, NAMELESS, 0o444)));
    assert_eq!(ids(&host.mount()).0, 0, "the link is the keeper's");
    // With a user of its own, only that one's group may.
    host.write("v1.1.0");
    let service = "[service]\nexec = [\"/bin/sh\", \"-c\", \"cat MOUNT/a.conf; exec sleep 1000000\"]\nuser = \"nobody\"\n";
    let service = service.replace("MOUNT", &host.mount().display().to_string());
    host.repo.write(WEB, &host.group_with(&service, "v1.1.0")).release("v1.1.0");
    host.supervisor.wait_ready("v1.1.0");
    let files = fs::canonicalize(host.mount()).unwrap();
    assert_eq!((ids(&files), ids(&files.join("a.conf"))), ((NAMELESS, NOBODY, 0o550), (NAMELESS, NOBODY, 0o440)));
    assert_eq!(ids(&files.with_file_name("manifest")), (NAMELESS, NOBODY, 0o440));
    let logs = wait_for("the service has read its file", SHORT, || {
        let logs = host.supervisor.client(&["service", "logs", "web"]);
        if logs.stdout.contains("version = v1.1.0") { Ok(logs) } else { Err(format!("{logs:?}")) }
    });
    assert_eq!(logs.code, Some(0));
    for (part, wanted) in [("keeper", 0), ("state", NAMELESS), ("git", NAMELESS), ("user", 0), ("logs", 0)] {
        assert_eq!(ids(&host.path("data").join(part)).0, wanted, "{part}");
    }
}

#[test]
fn an_ordinary_users_supervisor_is_shut_in_as_far_as_that_goes() {
    let Ok(host) = crate::drift::as_nobody() else { return };
    let pid = host.supervisor_pid();
    assert_eq!((field(pid, "NoNewPrivs"), field(pid, "Seccomp")), ("1".to_owned(), "2".to_owned()));
    let status = host.supervisor.status().unwrap();
    assert_eq!((text(&status["supervisor"]["user"]), condition(&status, "Confined")), ("nobody".to_owned(), None), "{status:#}");
    assert_eq!(host.files(), ["version = v1.0.0\n"; 2]);
}

#[test]
fn user_root_opts_out_and_the_status_says_so() {
    let Ok(()) = as_root() else { return };
    let host = Host::with(|settings| format!("user = \"root\"\n{settings}"));
    let pid = host.supervisor_pid();
    assert_eq!((field(pid, "NoNewPrivs"), field(pid, "Seccomp")), ("0".to_owned(), "0".to_owned()));
    let status = host.supervisor.status().unwrap();
    assert_eq!(text(&status["supervisor"]["user"]), "root");
    let confined = condition(&status, "Confined").unwrap();
    assert_eq!((text(&confined["status"]), text(&confined["reason"])), ("False".to_owned(), "NotConfined".to_owned()));
    let shown = host.supervisor.client(&["status"]).stdout;
    assert!(shown.contains("not confined: the supervisor runs as root"), "{shown}");
    host.release("v1.1.0");
    host.wait_applied("v1.1.0", 1);
}

#[test]
fn a_data_folder_changes_its_owner_with_the_supervisors_user() {
    let Ok(()) = as_root() else { return };
    let mut host = Host::with(|settings| format!("user = \"root\"\n{settings}"));
    let own = host.settings.clone();
    let other = own.replace("user = \"root\"\n", "");
    let mut starts = 1;
    for (number, (settings, owner)) in [(&other, NAMELESS), (&own, 0), (&other, NAMELESS)].into_iter().enumerate() {
        host.stop();
        host.settings.clone_from(settings);
        // Made for the user before; a folder that is there is not given away.
        fs::remove_dir(host.path("run")).unwrap();
        host.start_again();
        let version = format!("v1.1.{number}");
        host.release(&version);
        starts += 1;
        host.wait_applied(&version, starts);
        for part in ["git", "publications", "view", "state"] {
            for path in all_below(&host.path("data").join(part)) {
                assert_eq!(ids(&path).0, owner, "{}", path.display());
            }
        }
    }
}

#[test]
fn what_root_puts_among_published_files_goes_in_the_end() {
    let Ok(()) = as_root() else { return };
    let host = Host::start();
    let folder = fs::canonicalize(host.mount()).unwrap();
    fs::create_dir_all(folder.join("by-hand/deep")).unwrap();
    fs::write(folder.join("by-hand/deep/file"), "x").unwrap();
    fs::set_permissions(folder.join("by-hand"), fs::Permissions::from_mode(0o700)).unwrap();
    wait_for("another copy is shown", LONG, || {
        let now = fs::canonicalize(host.mount()).map_err(|error| error.to_string())?;
        if now == folder { Err(host.supervisor.log()) } else { Ok(()) }
    });
    for number in 1..=5 {
        let version = format!("v1.1.{number}");
        host.release(&version);
        host.wait_applied(&version, 1);
    }
    wait_for("the old one is removed", LONG, || {
        let names: Vec<PathBuf> =
            fs::read_dir(host.path("data/publications/web.default")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let left = names.iter().any(|path| folder.starts_with(path) || path.to_string_lossy().contains(".tmp"));
        if left { Err(format!("{names:?}\n{}", host.supervisor.log())) } else { Ok(()) }
    });
}

#[test]
fn what_a_list_of_the_operators_refuses_is_told() {
    let Ok(()) = as_root() else { return };
    let host = Host::bare(|settings| format!("{settings}\n[keeper]\nusers = [\"nobody\"]\n"));
    host.release("v1.0.0");
    wait_for("the refusal is told", LONG, || {
        let waits = host.web()["waits"].to_string();
        let told = waits.contains("StartFailed") && waits.contains("nothing as user `root`");
        if told { Ok(()) } else { Err(waits) }
    });
    let why = host.supervisor.client(&["why", "web"]);
    assert!(why.stdout.contains("`users` in [keeper]"), "{why:?}");
    assert_eq!(host.starts().len(), 0);
}

#[test]
fn a_root_that_may_not_change_users_goes_without_and_says_so_unless_one_was_chosen() {
    let Ok(()) = as_root() else { return };
    let Ok(setpriv) = common::need_tool("setpriv") else { return };
    let dir = common::temp_dir();
    let settings = Supervisor::settings(dir.path(), "/nowhere", "{}");
    let through = [setpriv.to_str().unwrap(), "--bounding-set=-setuid"];
    let supervisor = Supervisor::start_with(&tagfall(), dir.path(), &settings, &through);
    let confined = wait_for("it is said", LONG, || {
        let status = supervisor.status().map_err(|error| format!("{error}\n{}", supervisor.log()))?;
        condition(&status, "Confined").ok_or_else(|| format!("{status:#}"))
    });
    assert!(text(&confined["message"]).contains("cannot become user"), "{confined:#}");
    let settings = format!("user = \"nobody\"\n{settings}");
    drop(supervisor);
    let mut supervisor = Supervisor::start_with(&tagfall(), dir.path(), &settings, &through);
    let code = wait_for("it ends", LONG, || supervisor.ended().ok_or_else(|| supervisor.log()));
    assert_eq!(code, Some(2), "{}", supervisor.log());
    assert!(supervisor.log().contains("cannot run as user `nobody`"), "{}", supervisor.log());
}

/// What `tagfall supervise` says as it refuses to begin.
fn refused(change: impl FnOnce(&Path, String) -> String) -> String {
    let dir = common::temp_dir();
    let settings = change(dir.path(), Supervisor::settings(dir.path(), "/nowhere", "{}"));
    let mut supervisor = Supervisor::start_with(&tagfall(), dir.path(), &settings, &["env", "NO_COLOR=1"]);
    let code = wait_for("it ends", LONG, || supervisor.ended().ok_or_else(|| supervisor.log()));
    assert_eq!(code, Some(2), "{}", supervisor.log());
    supervisor.log()
}

#[test]
fn a_file_that_is_closed_to_the_supervisors_user_is_named_with_what_to_do() {
    let Ok(()) = as_root() else { return };
    let log = refused(|dir, settings| {
        fs::write(dir.join("token"), "secret-token-of-many-letters\n").unwrap();
        fs::set_permissions(dir.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
        format!("{settings}token_file = \"{}\"\n", dir.join("token").display())
    });
    assert!(log.contains("/token") && log.contains(&format!("`chgrp {NAMELESS} ")), "{log}");
    let log = refused(|dir, settings| {
        fs::create_dir(dir.join("closed")).unwrap();
        settings.replace(common::SOCKET, "closed/api.sock")
    });
    assert!(log.contains("may not make a socket in") && log.contains("/closed"), "{log}");
    let log = refused(|_, settings| format!("user = \"no-such-user\"\n{settings}"));
    assert!(log.contains("`no-such-user`") && log.contains("does not exist"), "{log}");
}
