//! The state folder wiped, taken back, cut and flipped: what was seen is remembered as far as it can be, and what cannot is said.

use std::fs;
use std::path::{Path, PathBuf};

use common::{LONG, Supervisor, wait_for};

use crate::host::{Host, tagfall};

impl Host {
    /// Ends everything, does something, and starts anew.
    fn between(&mut self, act: impl FnOnce(&Path)) {
        assert_eq!(self.supervisor.terminate(), Some(0), "{}", self.supervisor.log());
        act(&self.path("data/state"));
        self.supervisor.start_again(&tagfall(), &self.settings, &[]);
    }

    /// Moves a tag to another object that is signed as well.
    fn move_tag(&self, tag: &str) {
        self.write("moved");
        self.repo.commit("moved");
        self.repo.run(&["tag", "--delete", tag]);
        self.repo.tag_signed(tag, "HEAD");
        self.push();
    }
}

fn copied(folder: &Path, to: &Path) {
    common::copy_tree(folder, to);
}

fn slots(folder: &Path) -> [PathBuf; 2] {
    ["state.a", "state.b"].map(|name| folder.join(name))
}

#[test]
fn an_older_state_document_is_noticed_and_the_floor_stays() {
    let mut host = Host::start();
    let aside = host.path("aside");
    copied(&host.path("data/state"), &aside);
    host.release("v1.1.0");
    host.wait_applied("v1.1.0");
    host.between(|folder| {
        for slot in slots(folder) {
            fs::copy(aside.join(slot.file_name().unwrap()), &slot).unwrap();
        }
        // And the remote shows only what is older.
    });
    host.event("StateRestored", "1.1.0 counts");
    common::git(host.repo.bare()).args(["update-ref", "-d", "refs/tags/v1.1.0"]).status().unwrap();
    host.supervisor.wait_ready("v1.1.0");
    host.release("v1.2.0");
    host.wait_applied("v1.2.0");
}

#[test]
fn an_older_log_of_tags_is_noticed() {
    let mut host = Host::start();
    let aside = host.path("aside");
    copied(&host.path("data/state"), &aside);
    host.release("v1.1.0");
    host.wait_applied("v1.1.0");
    host.between(|folder| drop(fs::copy(aside.join("seen.log"), folder.join("seen.log")).unwrap()));
    host.event("StateRestored", "is older than the state beside it");
    host.supervisor.wait_ready("v1.1.0");
    host.release("v1.2.0");
    host.wait_applied("v1.2.0");
}

#[test]
fn a_moved_tag_is_noticed_though_the_state_documents_are_gone() {
    let mut host = Host::start();
    host.between(|folder| slots(folder).iter().for_each(|slot| fs::remove_file(slot).unwrap_or_default()));
    host.event("StateRestored", "what they named first are remembered");
    host.move_tag("v1.0.0");
    assert_eq!(
        wait_for("it is refused", LONG, || {
            let (reason, message) = host.refused("v1.0.0");
            if reason == "TagMoved" { Ok(reason) } else { Err(message) }
        }),
        "TagMoved"
    );
    host.release("v1.1.0");
    host.wait_applied("v1.1.0");
}

#[test]
fn a_damaged_log_of_tags_is_named_and_the_next_good_tag_is_applied() {
    let mut host = Host::start();
    let damages: [(&str, fn(Vec<u8>) -> Vec<u8>); 4] = [
        ("truncated", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("emptied", |_| Vec::new()),
        ("zeroed", |bytes| vec![0; bytes.len()]),
        ("with a flipped bit", |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes
        }),
    ];
    for (number, (name, damage)) in damages.into_iter().enumerate() {
        let told = told(&host);
        host.between(|folder| {
            let path = folder.join("seen.log");
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, damage(bytes)).unwrap();
        });
        wait_for(name, LONG, || if self::told(&host) > told { Ok(()) } else { Err(host.supervisor.log()) });
        let tag = format!("v1.{}.0", number + 1);
        host.release(&tag);
        host.wait_applied(&tag);
    }
}

fn told(host: &Host) -> usize {
    let events = host.supervisor.client(&["events", "-o", "json"]).stdout;
    events.matches("StateRestored").count()
}

#[test]
fn a_wiped_state_is_begun_anew_from_signed_tags_alone() {
    let mut host = Host::start();
    host.write("x");
    host.repo.commit("x");
    host.repo.tag_annotated("v1.1.0");
    host.push();
    host.refused("v1.1.0");
    host.between(|folder| fs::remove_dir_all(folder).unwrap());
    host.wait_applied("v1.0.0");
    assert_eq!(host.refused("v1.1.0").0, "InvalidTagSignature");
    host.release("v1.2.0");
    host.wait_applied("v1.2.0");
}

#[test]
fn the_log_of_tags_is_on_disk_before_a_tag_is_applied() {
    let host = Host::start();
    let log = fs::read(host.path("data/state/seen.log")).unwrap();
    host.release("v1.1.0");
    host.wait_applied("v1.1.0");
    let after = fs::read(host.path("data/state/seen.log")).unwrap();
    assert!(after.len() > log.len() && after.starts_with(&log), "it only grows");
    let pid = host.supervisor.status().unwrap()["supervisor"]["pid"].as_u64().unwrap();
    Supervisor::signal(pid, "KILL");
    host.wait_applied("v1.1.0");
}
