//! Published files and links that somebody changes by hand.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use common::{LONG, SHORT, Skipped, Tagfall, wait_for, wait_until};

use crate::host::{Host, text};

/// Nobody's ids on Debian and most others.
const NOBODY: &str = "65534";

/// Edits a published file as an editor does: a new one takes its name, in one step.
///
/// The read-only folder stays as it is (both tests are run by root): whoever changes its mode first
/// is put back for that, and edits a copy that is no longer in use.
fn edit(host: &Host, name: &str) {
    let folder = fs::canonicalize(host.mount()).unwrap();
    let written = host.path("edited");
    fs::write(&written, "edited\n").unwrap();
    fs::rename(&written, folder.join(name)).unwrap();
}

/// A hand edit of `a.conf` is told and put back, and the process does not notice.
fn edited_and_put_back(host: &Host) {
    let (before, pid) = (host.files(), host.pid());
    edit(host, "a.conf");
    wait_for("the edit is put back", LONG, || {
        let now = host.files();
        if now == before { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let told = wait_for("the drift is told", SHORT, || {
        let events = host.events("DriftDetected")?;
        events.last().cloned().ok_or_else(|| host.supervisor.log())
    });
    assert!(told.contains("a.conf"), "{told}");
    host.wait_applied("v1.0.0", 1);
    assert_eq!(host.pid(), pid);
    wait_until("the service sees whole files again", SHORT, || host.seen_by(pid) == before[0]);
}

/// A host whose supervisor runs as nobody: it may not mount, so services see the host's links.
pub(crate) fn as_nobody() -> Result<Host, Skipped> {
    common::need_root()?;
    let setpriv = common::need_tool("setpriv")?.display().to_string();
    let mut host = Host::bare(|settings| settings);
    host.supervisor_pid();
    host.stop();
    host.write("v1.0.0");
    host.repo.release("v1.0.0");
    let dir = host.dir.path().display().to_string();
    let given = Command::new("chown").args(["-R", &format!("{NOBODY}:{NOBODY}"), &dir]).status();
    assert!(given.is_ok_and(|status| status.success()), "{dir} cannot be given away");
    // The program may lie where nobody may not go.
    let program = host.path("tagfall");
    fs::copy(env!("CARGO_BIN_EXE_tagfall"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let through = [setpriv.as_str(), "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];
    host.supervisor.start_again(&Tagfall::new(program), &host.settings, &through);
    host.supervisor.wait_ready("v1.0.0");
    Ok(host)
}

#[test]
fn an_edit_is_put_back_where_services_have_a_view_of_their_own() {
    let Ok(()) = common::need_root().and_then(|()| common::rights_to_mount()) else { return };
    let host = Host::start();
    assert_eq!(host.web()["mount"]["mode"], "namespace");
    edited_and_put_back(&host);
}

#[test]
fn an_edit_is_put_back_where_services_see_the_host() {
    let Ok(host) = as_nobody() else { return };
    assert_eq!(host.web()["mount"]["mode"], "symlink");
    edited_and_put_back(&host);
}

#[test]
fn a_link_that_is_removed_by_hand_is_put_back() {
    let host = Host::start();
    let pid = host.pid();
    fs::remove_file(host.mount()).unwrap();
    wait_until("the link is back", LONG, || host.mount().join("a.conf").exists());
    host.wait_applied("v1.0.0", 1);
    assert_eq!(host.pid(), pid);
}

#[test]
fn a_folder_put_in_the_place_of_a_link_is_kept_and_named_until_it_is_gone() {
    let host = Host::start();
    let (before, mount) = (host.untouched(), host.mount());
    fs::remove_file(&mount).unwrap();
    // The link may be put back at once: whoever wants the place has to insist.
    wait_until("the folder stands", SHORT, || {
        let _ = fs::remove_file(&mount);
        fs::create_dir(&mount).is_ok()
    });
    fs::write(mount.join("mine"), "somebody's work\n").unwrap();
    let message = host.said("MountOccupied");
    assert!(message.contains(&mount.display().to_string()), "{message}");
    let web = host.web();
    let stalled = web["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == "Stalled").cloned();
    assert_eq!(stalled.map(|condition| text(&condition["status"])), Some("True".to_owned()), "{web:#}");
    assert_eq!(fs::read_to_string(mount.join("mine")).unwrap(), "somebody's work\n");
    assert_eq!(host.starts().len(), 1, "the service runs on");

    fs::remove_dir_all(&mount).unwrap();
    host.wait_applied("v1.0.0", 1);
    assert_eq!(host.pid(), web["service"]["pid"].as_u64().unwrap());
    assert_eq!(host.files(), before.files());
}

#[test]
fn an_orderly_restart_is_no_edit() {
    let mut host = Host::start();
    let files = fs::canonicalize(host.mount()).unwrap();
    host.stop();
    assert!(!host.mount().exists(), "an orderly end takes the link away");
    host.start_again();
    host.wait_applied("v1.0.0", 2);
    assert_eq!(host.events("DriftDetected").unwrap(), Vec::<String>::new());
    assert_eq!(fs::canonicalize(host.mount()).unwrap(), files, "no other copy was needed");
}
