//! Disks that are full or cannot be written.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{LONG, SHORT, Skipped, Supervisor, wait_for};

use crate::host::{Host, tagfall};

/// Size of the small disk.
const DISK_KIB: u64 = 24 * 1024;
/// What the big release publishes in all: more than is left, of which Git stores next to nothing.
const BIG_FILES: usize = 12;
const BIG_FILE_BYTES: usize = 512 * 1024;
/// What is left for the repository, the state and the logs.
const LEFT_KIB: u64 = 3 * 1024;

/// A small disk, taken away with the test.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Result<Self, Skipped> {
        common::need_root()?;
        common::rights_to_mount()?;
        fs::create_dir_all(at).unwrap();
        let size = format!("size={DISK_KIB}k,mode=755");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tagfall-test"]).arg(at));
        Ok(Self(at.to_owned()))
    }

    fn remount(&self, how: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0));
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Fills it up to so many bytes.
    fn fill(&self, left_kib: u64) {
        let block = vec![7; 1024];
        let mut file = fs::File::create(self.filler()).unwrap();
        while file.write_all(&block).is_ok() {}
        let filled = file.metadata().unwrap().len();
        file.set_len(filled.saturating_sub(left_kib * 1024)).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

fn run(command: &mut Command) {
    assert!(command.status().is_ok_and(|status| status.success()), "{command:?}");
}

/// A host whose data folder is a small disk.
fn host() -> Result<(Host, Disk), Skipped> {
    let mut host = Host::bare(|settings| settings);
    host.supervisor_pid();
    host.stop();
    let disk = Disk::mount(&host.path("data"))?;
    host.start_again();
    host.release("v1.0.0");
    host.supervisor.wait_ready("v1.0.0");
    Ok((host, disk))
}

#[test]
fn a_disk_that_is_full_while_publishing_leaves_what_runs_alone() {
    let Ok((host, disk)) = host() else { return };
    let before = host.untouched();
    host.write("v1.1.0");
    for number in 0..BIG_FILES {
        host.repo.write(&format!("groups/web/config/big{number}"), &"x".repeat(BIG_FILE_BYTES));
    }
    disk.fill(LEFT_KIB);
    host.repo.release("v1.1.0");
    let message = host.said("PublishFailed");
    assert!(message.contains("No space left") && message.contains("publications/web.default"), "{message}");
    assert_eq!(host.untouched(), before);
    let left = || {
        let names = fs::read_dir(host.path("data/publications/web.default")).unwrap().flatten();
        let names: Vec<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.into_iter().filter(|name| name.starts_with(".tmp")).collect::<Vec<_>>()
    };
    wait_for("what was half written is removed", SHORT, || if left().is_empty() { Ok(()) } else { Err(format!("{:?}", left())) });

    fs::remove_file(disk.filler()).unwrap();
    host.wait_applied("v1.1.0", 1);
}

#[test]
fn a_disk_without_any_room_is_named_and_used_again_once_it_has_some() {
    let Ok((host, disk)) = host() else { return };
    let before = host.untouched();
    disk.fill(0);
    host.release("v1.1.0");
    let message = wait_for("the disk is named", LONG, || {
        let status = host.supervisor.status()?.to_string();
        if status.contains("No space left") { Ok(status) } else { Err(format!("{status}\n{}", host.supervisor.log())) }
    });
    assert!(message.contains("GitOperationFailed") || message.contains("PublishFailed"), "{message}");
    assert_eq!(host.untouched(), before);
    // A new supervisor on a full disk takes the services over as well.
    let pid = host.supervisor_pid();
    Supervisor::signal(pid, "KILL");
    wait_for("the next one answers", LONG, || {
        let now = crate::host::supervisor_pid(&host.supervisor.status()?)?;
        if now == pid { Err("still the old one".to_owned()) } else { Ok(()) }
    });
    wait_for("what runs is left alone", LONG, || {
        let web = crate::host::group_of(&host.supervisor.status()?, "web.default")?;
        if web["service"]["state"] == "running" { Ok(()) } else { Err(format!("{web:#}\n{}", host.supervisor.log())) }
    });
    assert_eq!(host.untouched(), before);
    fs::remove_file(disk.filler()).unwrap();
    host.wait_applied("v1.1.0", 1);
}

/// Folders that nobody may write to as long as it lives: read-only mounts of them over themselves.
struct ReadOnly(Vec<PathBuf>);

impl ReadOnly {
    fn over(folders: Vec<PathBuf>) -> Self {
        let made = Self(folders);
        for folder in &made.0 {
            run(Command::new("mount").arg("--bind").args([folder, folder]));
            run(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(folder));
        }
        made
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        for folder in &self.0 {
            drop(Command::new("umount").arg("--lazy").arg(folder).status());
        }
    }
}

/// Read-only folders while it runs: named, nothing stops, and the update goes on once they can be written again.
fn read_only_while_running(folders: &[&str], reason: &str) {
    let Ok(()) = common::need_root().and_then(|()| common::rights_to_mount()) else { return };
    let host = Host::start();
    let before = host.untouched();
    let read_only = ReadOnly::over(folders.iter().map(|folder| host.path("data").join(folder)).collect());
    host.release("v1.1.0");
    let status = wait_for("the disk is named", LONG, || {
        let status = host.supervisor.status()?.to_string();
        if status.contains("Read-only file system") { Ok(status) } else { Err(format!("{status}\n{}", host.supervisor.log())) }
    });
    assert!(status.contains(reason), "{reason}: {status}");
    assert_eq!(host.untouched(), before);
    drop(read_only);
    host.wait_applied("v1.1.0", 1);
}

#[test]
fn a_store_that_becomes_read_only_holds_up_updates_only() {
    read_only_while_running(&["git"], "GitOperationFailed");
}

#[test]
fn publications_that_become_read_only_hold_up_updates_only() {
    read_only_while_running(&["publications", "view"], "PublishFailed");
}

#[test]
fn a_state_that_becomes_read_only_holds_up_updates_only() {
    read_only_while_running(&["state"], "PublishFailed");
}

#[test]
fn a_read_only_data_folder_at_the_start_is_refused_by_name() {
    let dir = common::temp_dir();
    let Ok(disk) = Disk::mount(&dir.path().join("data")) else { return };
    disk.remount("ro");
    let settings = Supervisor::settings(dir.path(), "/nowhere", "{}");
    let mut supervisor = Supervisor::start_with(&tagfall(), dir.path(), &settings, &[]);
    let code = wait_for("it ends", LONG, || supervisor.ended().ok_or_else(|| supervisor.log()));
    assert_eq!(code, Some(2), "{}", supervisor.log());
    let log = supervisor.log();
    assert!(log.contains("Read-only file system") && log.contains(&disk.0.display().to_string()), "{log}");
}
