//! Trust that changes while a supervisor runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use common::{LONG, wait_for};

use crate::host::Host;

#[test]
fn a_key_that_is_taken_out_vouches_for_nothing_any_more_and_what_runs_runs_on() {
    let host = Host::start();
    let bob = host.key("bob");
    let before = host.untouched();
    host.trust(&[bob.allowed("bob@example.com", "")]);
    let message = host.condition("SourceVerified", "False", "SignerNotTrusted");
    assert!(message.contains("runs on"), "{message}");
    host.event("SignerNotTrusted", "runs on");
    assert_eq!(host.untouched(), before);
    host.release("v1.1.0");
    assert_eq!(host.refused("v1.1.0").0, "SignerNotTrusted");
    assert_eq!(host.untouched(), before);
    // It comes back over a restart, too.
    let pid = host.supervisor.status().unwrap()["supervisor"]["pid"].as_u64().unwrap();
    common::Supervisor::signal(pid, "KILL");
    wait_for("the next supervisor", LONG, || {
        let status = host.supervisor.status()?;
        if status["supervisor"]["pid"] == pid { Err("the old one".to_owned()) } else { Ok(()) }
    });
    host.condition("SourceVerified", "False", "SignerNotTrusted");
    assert_eq!(host.untouched(), before);
    host.repo.sign_with(&bob);
    host.release("v1.2.0");
    host.wait_applied("v1.2.0");
    host.condition("SourceVerified", "True", "Verified");
}

#[test]
fn a_key_that_is_put_in_makes_refused_tags_good() {
    let host = Host::start();
    let bob = host.key("bob");
    host.repo.sign_with(&bob);
    host.release("v1.1.0");
    assert_eq!(host.refused("v1.1.0").0, "SignerNotTrusted");
    host.trust(&[host.trusts_alice(), bob.allowed("bob@example.com", "")]);
    host.wait_applied("v1.1.0");
}

#[test]
fn a_trust_file_that_cannot_be_used_is_named_and_nothing_new_is_taken_until_it_can() {
    let host = Host::start();
    let before = host.untouched();
    let file = host.path("allowed_signers");
    let good = fs::read_to_string(&file).unwrap();
    let spoil: [(&str, &dyn Fn(), &str); 3] = [
        ("a mistake in it", &|| host.trust(&["# head\n".to_owned(), "alice ssh-ed25519 AAAA\n".to_owned()]), "allowed_signers:2"),
        ("gone", &|| fs::remove_file(&file).unwrap(), "cannot be read"),
        (
            "anybody may write to it",
            &|| {
                fs::write(&file, &good).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
            },
            "written by others",
        ),
    ];
    for (number, (name, spoil, words)) in spoil.iter().enumerate() {
        spoil();
        let message = wait_for(name, LONG, || {
            let message = host.condition("SourceVerified", "False", "SignerNotTrusted");
            if message.contains(words) { Ok(message) } else { Err(message) }
        });
        assert!(message.contains(words), "{name}: {message}");
        let tag = format!("v1.{}.0", number + 1);
        host.release(&tag);
        let (reason, message) = host.refused(&tag);
        assert_eq!(reason, "SignerNotTrusted", "{name}: {message}");
        assert_eq!(host.untouched(), before, "{name}");
    }
    host.trust(&[good]);
    host.wait_applied("v1.3.0");
    host.condition("SourceVerified", "True", "Verified");
}

#[test]
fn a_revoked_key_counts_for_nothing_at_once() {
    let host = Host::with(|_, dir| {
        let path = dir.join("revoked_keys");
        fs::write(&path, "").unwrap();
        crate::host::Setup { verify: format!("revoked_keys = \"{}\"\n", path.display()), ..Default::default() }
    });
    let before = host.untouched();
    fs::write(host.path("revoked_keys"), format!("{}\n", host.alice.public())).unwrap();
    let message = host.condition("SourceVerified", "False", "SignerNotTrusted");
    assert!(message.contains("revoked"), "{message}");
    assert_eq!(host.untouched(), before);
}

#[test]
fn a_supervisor_without_its_trust_file_runs_what_it_ran() {
    let mut host = Host::start();
    assert_eq!(host.supervisor.terminate(), Some(0), "{}", host.supervisor.log());
    fs::remove_file(host.path("allowed_signers")).unwrap();
    host.supervisor.start_again(&crate::host::tagfall(), &host.settings, &[]);
    host.supervisor.wait_ready("v1.0.0");
    host.condition("SourceVerified", "False", "SignerNotTrusted");
    host.trust(&[host.trusts_alice()]);
    host.condition("SourceVerified", "True", "Verified");
    host.release("v1.1.0");
    host.wait_applied("v1.1.0");
}
