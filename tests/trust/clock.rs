//! A host whose clock is a year off. The clock is set by a library that stands between the program and the system.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::host::{Host, Setup};

const YEAR_S: i64 = 366 * 24 * 3600;

/// Has the supervisor believe that it is so many seconds later.
fn shifted(dir: &Path, seconds: i64) -> Vec<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/clock.c");
    let library = dir.join("clock.so");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(built.unwrap().success(), "the clock cannot be built");
    let preload = format!("LD_PRELOAD={}", library.display());
    ["env".to_owned(), preload, format!("CLOCK_SHIFT_S={seconds}")].to_vec()
}

/// A date as `allowed_signers` has it, so many days from now.
fn date(days: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = UNIX_EPOCH + Duration::from_secs(now.saturating_add_signed(days * 24 * 3600));
    let seconds = at.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut command = Command::new("date");
    command.args(["-u", "+%Y%m%d", "-d"]).arg(format!("@{seconds}"));
    String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn a_clock_a_year_ahead_refuses_keys_that_end_before_by_name_and_takes_others() {
    let host = Host::with(|_, dir| Setup { through: shifted(dir, YEAR_S), ..Setup::default() });
    let before = host.untouched();
    let bob = host.key("bob");
    host.trust(&[host.trusts_alice(), bob.allowed("bob@example.com", &format!("valid-before=\"{}\"", date(30)))]);
    host.repo.sign_with(&bob);
    host.release("v1.1.0");
    let (reason, message) = host.refused("v1.1.0");
    assert_eq!(reason, "SignerNotTrusted", "{message}");
    assert!(message.contains("by this host's clock"), "{message}");
    assert_eq!(host.untouched(), before);
    host.repo.sign_with(&host.alice);
    host.release("v1.2.0");
    host.wait_applied("v1.2.0");
}

#[test]
fn a_clock_a_year_behind_refuses_keys_that_begin_after_by_name_and_takes_others() {
    let host = Host::with(|_, dir| Setup { through: shifted(dir, -YEAR_S), ..Setup::default() });
    let before = host.untouched();
    let bob = host.key("bob");
    host.trust(&[host.trusts_alice(), bob.allowed("bob@example.com", &format!("valid-after=\"{}\"", date(-30)))]);
    host.repo.sign_with(&bob);
    host.release("v1.1.0");
    let (reason, message) = host.refused("v1.1.0");
    assert_eq!(reason, "SignerNotTrusted", "{message}");
    assert!(message.contains("valid from"), "{message}");
    assert_eq!(host.untouched(), before);
    host.repo.sign_with(&host.alice);
    host.release("v1.2.0");
    host.wait_applied("v1.2.0");
}
