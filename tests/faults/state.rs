//! The state on disk, damaged while no supervisor looks, and folders that two supervisors want.

use std::path::PathBuf;

use common::{LONG, SHORT, Supervisor, wait_for, wait_until};

use crate::host::{Host, group_of, supervisor_pid, tagfall, text};

/// How a file goes bad.
type Damage = (&'static str, fn(Vec<u8>) -> Vec<u8>);

const DAMAGES: &[Damage] = &[
    ("truncated", |bytes| bytes[..bytes.len() / 2].to_vec()),
    ("emptied", |_| Vec::new()),
    ("zeroed", |bytes| vec![0; bytes.len()]),
    ("with a flipped bit", |mut bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0b100;
        bytes
    }),
    ("with a flipped bit in its generation", |mut bytes| {
        let words = bytes.iter().take(40).rposition(|byte| byte.is_ascii_digit()).unwrap_or(0);
        bytes[words] ^= 1;
        bytes
    }),
];

impl Host {
    /// Kills the supervisor and does something before the keeper, which is held still, can start the next one.
    fn between_supervisors(&self, act: impl FnOnce()) {
        let (keeper, supervisor) = (u64::from(self.supervisor.keeper_pid()), self.supervisor_pid());
        Supervisor::signal(keeper, "STOP");
        Supervisor::signal(supervisor, "KILL");
        wait_until("the supervisor is dead", SHORT, || {
            let stat = std::fs::read_to_string(format!("/proc/{supervisor}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
        act();
        Supervisor::signal(keeper, "CONT");
        wait_for("the next supervisor answers", LONG, || {
            let pid = supervisor_pid(&self.supervisor.status()?)?;
            if pid == supervisor { Err("still the old one".to_owned()) } else { Ok(()) }
        });
    }

    /// Both state files, the newest first.
    fn slots(&self) -> [PathBuf; 2] {
        let mut slots = ["state.a", "state.b"].map(|name| self.path("data/state").join(name));
        slots.sort_by_key(|path| std::cmp::Reverse(generation(path)));
        slots
    }
}

fn generation(path: &PathBuf) -> u64 {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    text.split(' ').nth(2).and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[test]
fn a_damaged_state_file_is_named_and_the_generation_before_is_used() {
    let host = Host::start();
    let cases = DAMAGES.iter().flat_map(|damage| [(damage, true), (damage, false)]);
    for (number, ((name, damage), newest)) in cases.enumerate() {
        // Both files are whole again, and the service has something to lose.
        let version = format!("v1.1.{number}");
        host.release(&version);
        host.wait_applied(&version, 1);
        let before = host.untouched();
        let slot = host.slots()[usize::from(!newest)].clone();
        let told = host.events("StateRestored").unwrap().len();
        host.between_supervisors(|| {
            let bytes = std::fs::read(&slot).unwrap();
            std::fs::write(&slot, damage(bytes)).unwrap();
        });
        let case = format!("{name}, newest: {newest}");
        let message = wait_for(&case, SHORT, || {
            let events = host.events("StateRestored")?;
            events.get(told).cloned().ok_or_else(|| format!("{events:?}\n{}", host.supervisor.log()))
        });
        assert!(message.contains(&slot.display().to_string()), "{case}: {message}");
        assert!(message.contains(", is used"), "{case}: {message}");
        host.supervisor.wait_ready(&version);
        assert_eq!(host.untouched(), before, "{case}");
    }
}

#[test]
fn without_any_whole_state_it_says_so_and_begins_anew_from_git() {
    let host = Host::start();
    let before = host.untouched();
    host.between_supervisors(|| {
        for slot in host.slots() {
            std::fs::write(slot, "rubbish").unwrap();
        }
    });
    let events = wait_for("it is said", SHORT, || {
        let events = host.events("StateRestored")?;
        if events.iter().any(|message| message.contains("no whole state is left")) {
            Ok(events)
        } else {
            Err(format!("{events:?}"))
        }
    });
    assert!(events.iter().any(|message| message.contains("state.a")), "{events:?}");
    host.supervisor.wait_ready("v1.0.0");
    assert_eq!(host.untouched(), before, "the service runs on");
    host.release("v1.1.0");
    host.wait_applied("v1.1.0", 1);
}

#[test]
fn a_second_supervisor_on_one_data_folder_refuses() {
    let host = Host::start();
    let before = host.untouched();
    let dir = common::temp_dir();
    let mut settings = Supervisor::settings(dir.path(), &host.repo.bare().display().to_string(), "{}");
    let own = dir.path().join("data").display().to_string();
    settings = settings.replace(&own, &host.path("data").display().to_string());
    let mut second = Supervisor::start_with(&tagfall(), dir.path(), &settings, &[]);
    let code = wait_for("the second one ends", LONG, || second.ended().ok_or_else(|| second.log()));
    assert_eq!(code, Some(2), "{}", second.log());
    assert!(second.log().contains(&host.path("data").display().to_string()), "{}", second.log());
    assert_eq!(host.untouched(), before);
    host.release("v1.1.0");
    host.wait_applied("v1.1.0", 1);
}

#[test]
fn a_mount_path_of_another_supervisor_is_occupied_until_that_one_ends() {
    let mut first = Host::start();
    let before = first.untouched();
    let second = Host::bare(|settings| settings);
    second.write("v1.0.0");
    let own = second.mount().display().to_string();
    second.repo.replace(crate::host::WEB, &format!("path = \"{own}\""), &format!("path = \"{}\"", first.mount().display()));
    second.repo.release("v1.0.0");
    let message = second.said("MountOccupied");
    assert!(message.contains(&first.mount().display().to_string()), "{message}");
    let web = group_of(&second.supervisor.status().unwrap(), "web.default").unwrap();
    let stalled = web["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == "Stalled").cloned();
    assert_eq!(stalled.map(|condition| text(&condition["status"])), Some("True".to_owned()), "{web:#}");
    assert_eq!(second.starts().len(), 0, "a service whose files cannot be shown is not started");
    assert_eq!(first.untouched(), before);

    first.stop();
    second.supervisor.wait_ready("v1.0.0");
    assert_eq!(std::fs::read_to_string(first.mount().join("a.conf")).unwrap(), "version = v1.0.0\n");
}
