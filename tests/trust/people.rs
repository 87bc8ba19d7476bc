//! More than one person, operators' words, and the heartbeat.

use common::{LONG, wait_for};

use crate::host::{Host, Setup, text};

#[test]
fn two_people_are_two_people_and_not_two_keys() {
    let host = Host::bare(|_, _| Setup { verify: "threshold = 2\n".to_owned(), ..Setup::default() });
    let (second, bob, mallory) = (host.key("second"), host.key("bob"), host.key("mallory"));
    // One person's name on one line of it is enough to make two keys hers.
    host.trust(&[host.trusts_alice(), second.allowed("alice.work,alice@example.com", ""), bob.allowed("bob@example.com", "")]);
    host.release("v1.0.0");
    let (reason, message) = host.refused("v1.0.0");
    assert_eq!(reason, "ThresholdNotMet", "{message}");
    assert!(message.contains("1 of 2 people (alice@example.com)"), "{message}");
    for (key, tag) in [(&second, "cosign/v1.0.0/alice2"), (&mallory, "cosign/v1.0.0/mallory")] {
        host.repo.sign_with(key).tag_signed(tag, "v1.0.0");
        host.push();
        wait_for("it is looked at again", LONG, || {
            let listed = host.supervisor.client(&["release", "verify", "v1.0.0"]);
            if listed.code == Some(4) && listed.stderr.contains("1 of 2") { Ok(()) } else { Err(format!("{listed:?}")) }
        });
        assert_eq!(host.refused("v1.0.0").0, "ThresholdNotMet", "{tag}");
    }
    // Bob signs another tag object, and then the right one.
    host.repo.sign_with(&host.alice).tag_signed("v0.9.0", "HEAD");
    host.repo.sign_with(&bob).tag_signed("cosign/v1.0.0/bob", "v0.9.0");
    host.push();
    assert_eq!(host.refused("v1.0.0").0, "ThresholdNotMet");
    host.repo.run(&["tag", "--delete", "cosign/v1.0.0/bob"]);
    host.repo.tag_signed("cosign/v1.0.0/bob", "v1.0.0");
    host.push();
    let status = host.supervisor.wait_ready("v1.0.0");
    assert_eq!(status["release"]["signers"], serde_json::json!(["alice@example.com", "bob@example.com"]));
    // Over a restart it is judged again, from what was kept.
    let pid = status["supervisor"]["pid"].as_u64().unwrap();
    common::git(host.repo.bare()).args(["update-ref", "-d", "refs/tags/cosign/v1.0.0/bob"]).status().unwrap();
    common::Supervisor::signal(pid, "KILL");
    wait_for("the next supervisor has judged it", LONG, || {
        let status = host.supervisor.status()?;
        if status["supervisor"]["pid"] == pid { Err("the old one".to_owned()) } else { Ok(()) }
    });
    let message = host.condition("SourceVerified", "True", "Verified");
    assert!(message.contains("bob@example.com"), "{message}");
}

#[test]
fn a_commit_must_be_signed_where_that_is_asked_for() {
    let host = Host::bare(|_, _| Setup { verify: "commit = true\n".to_owned(), ..Setup::default() });
    host.release("v1.0.0");
    let (reason, message) = host.refused("v1.0.0");
    assert_eq!(reason, "InvalidTagSignature", "{message}");
    assert!(message.contains("commit"), "{message}");
    host.repo.run(&["config", "commit.gpgsign", "true"]);
    host.release("v1.0.1");
    host.wait_applied("v1.0.1");
}

#[test]
fn an_operator_pins_and_rejects_and_it_is_remembered_with_who_and_why() {
    let host = Host::start();
    host.release("v1.1.0");
    host.wait_applied("v1.1.0");
    let say = |arguments: &[&str]| {
        let said = host.supervisor.client(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
    };
    let refused = host.supervisor.client(&["release", "pin", "v9.0.0"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    // Below the floor, by a word.
    say(&["release", "pin", "v1.0.0", "--reason", "v1.1.0 leaks"]);
    host.wait_applied("v1.0.0");
    let message = host.condition("Suspended", "True", "Pinned");
    assert!(message.contains("v1.1.0 leaks") && message.contains("uid "), "{message}");
    host.release("v1.2.0");
    host.event("Pinned", "v1.1.0 leaks");
    let kill = || {
        let pid = host.supervisor.status().unwrap()["supervisor"]["pid"].as_u64().unwrap();
        common::Supervisor::signal(pid, "KILL");
        wait_for("the next supervisor", LONG, || {
            let status = host.supervisor.status()?;
            if status["supervisor"]["pid"] == pid { Err("the old one".to_owned()) } else { Ok(()) }
        });
    };
    kill();
    host.wait_applied("v1.0.0");
    let status = host.supervisor.status().unwrap();
    assert_eq!(
        (text(&status["pinned"]["tag"]), text(&status["pinned"]["reason"])),
        ("v1.0.0".to_owned(), "v1.1.0 leaks".to_owned())
    );
    say(&["release", "reject", "v1.2.0", "--reason", "not yet"]);
    say(&["release", "unpin", "--reason", "v1.1.0 is fine"]);
    host.wait_applied("v1.1.0");
    let (reason, message) = host.refused("v1.2.0");
    assert_eq!(reason, "RevisionRejected");
    assert!(message.contains("not yet"), "{message}");
    kill();
    assert_eq!(host.refused("v1.2.0").0, "RevisionRejected", "over a restart");
    let twice = host.supervisor.client(&["release", "accept", "v1.1.0"]);
    assert!(twice.code == Some(1) && twice.stderr.contains("NotRejected"), "{twice:?}");
    say(&["release", "accept", "v1.2.0", "--reason", "now"]);
    host.wait_applied("v1.2.0");
}

#[test]
fn a_pin_ends_by_itself() {
    let host = Host::start();
    host.release("v1.1.0");
    host.wait_applied("v1.1.0");
    let said = host.supervisor.client(&["release", "pin", "v1.0.0", "--until", "2s"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    host.event("Pinned", "no reason given");
    host.event("Pinned", "its time is over");
    host.wait_applied("v1.1.0");
}

#[test]
fn a_refused_tag_cannot_be_pinned() {
    let host = Host::start();
    host.write("x");
    host.repo.commit("x");
    host.repo.tag_annotated("v1.1.0");
    host.push();
    host.refused("v1.1.0");
    let said = host.supervisor.client(&["release", "pin", "v1.1.0"]);
    assert!(said.code == Some(4) && said.stderr.contains("InvalidTagSignature"), "{said:?}");
    let said = host.supervisor.client(&["release", "verify", "v1.1.0"]);
    assert!(said.code == Some(4) && said.stderr.contains("InvalidTagSignature"), "{said:?}");
    let said = host.supervisor.client(&["release", "verify", "v1.0.0"]);
    assert!(said.code == Some(0) && said.stdout.contains("alice@example.com"), "{said:?}");
}

#[test]
fn an_overdue_heartbeat_is_told_and_stops_nothing() {
    let host = Host::with(|_, dir| {
        let ci = common::SshKey::make(dir, "ci", &["-t", "ed25519"]);
        std::fs::write(dir.join("heartbeat_signers"), ci.allowed("ci@example.com", "")).unwrap();
        let path = dir.join("heartbeat_signers");
        let verify =
            format!("heartbeat = {{ tag = \"heartbeat\", max_age = \"1h\", allowed_signers = \"{}\" }}\n", path.display());
        Setup { verify, ..Setup::default() }
    });
    // The fixture's tags are of long ago.
    host.condition("FreezeSuspected", "True", "FreezeSuspected");
    let before = host.untouched();
    let beat = |key: &str, when: &str| {
        let mut command = host.repo.git(&["-c", &format!("user.signingkey={}", host.path(key).display()), "tag"]);
        command.args(["--force", "--sign", "--message", "all is well", "heartbeat", "HEAD"]).env("GIT_COMMITTER_DATE", when);
        assert!(command.status().unwrap().success());
        host.push();
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    beat("alice", &format!("{now} +0000"));
    let message = wait_for("Alice's does not count", LONG, || {
        let message = host.condition("FreezeSuspected", "True", "FreezeSuspected");
        if message.contains("heartbeat_signers") { Ok(message) } else { Err(message) }
    });
    assert!(message.contains("does not name"), "{message}");
    beat("ci", &format!("{} +0000", now + 7200));
    wait_for("one from the future says nothing", LONG, || {
        let message = host.condition("FreezeSuspected", "True", "FreezeSuspected");
        if message.contains("it says nothing") { Ok(()) } else { Err(message) }
    });
    beat("ci", &format!("{now} +0000"));
    let message = host.condition("FreezeSuspected", "False", "FreezeSuspected");
    assert!(message.contains("ci@example.com"), "{message}");
    assert_eq!(host.untouched(), before);
    let status = host.supervisor.status().unwrap();
    assert!(text(&status["freshness"]["statement"]).contains("heartbeat"), "{status:#}");
}
