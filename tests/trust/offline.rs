//! `tagfall release verify TAG --repo DIR`, without any supervisor.

use std::fs;

use common::{Output, Repo, SshKey};

use crate::host::tagfall;

fn verify(repo: &Repo, arguments: &[&str]) -> Output {
    let dir = repo.clone_dir().display().to_string();
    let all: Vec<&str> = ["release", "verify"].into_iter().chain(arguments.iter().copied()).chain(["--repo", &dir]).collect();
    tagfall().run(&all)
}

#[test]
fn a_tag_is_verified_without_a_supervisor() {
    let dir = common::temp_dir();
    let repo = Repo::new(dir.path());
    repo.write("tagfall.toml", "format = 1\n").commit("one");
    let (alice, bob) =
        (SshKey::make(dir.path(), "alice", &["-t", "ed25519"]), SshKey::make(dir.path(), "bob", &["-t", "ed25519"]));
    let allowed = dir.path().join("allowed_signers");
    fs::write(&allowed, format!("{}{}", alice.allowed("alice@example.com", ""), bob.allowed("bob@example.com", ""))).unwrap();
    let allowed = allowed.display().to_string();
    repo.sign_with(&alice).tag_signed("v1.0.0", "HEAD");
    repo.tag_annotated("v1.0.1");
    let found = verify(&repo, &["v1.0.0", "--allowed-signers", &allowed]);
    assert!(found.code == Some(0) && found.stdout.contains("signed by alice@example.com"), "{found:?}");
    let found = verify(&repo, &["v1.0.1", "--allowed-signers", &allowed]);
    assert!(found.code == Some(4) && found.stderr.contains("InvalidTagSignature") && found.stdout.is_empty(), "{found:?}");
    let found = verify(&repo, &["v1.0.0", "--allowed-signers", &allowed, "--threshold", "2", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(
        (found.code, json["verified"].as_bool(), json["reason"].as_str()),
        (Some(4), Some(false), Some("ThresholdNotMet"))
    );
    repo.sign_with(&bob).tag_signed("cosign/v1.0.0/bob", "v1.0.0");
    let found = verify(&repo, &["v1.0.0", "--allowed-signers", &allowed, "--threshold", "2"]);
    assert!(found.code == Some(0) && found.stdout.contains("alice@example.com, bob@example.com"), "{found:?}");
    let found = verify(&repo, &["v1.0.0", "--allowed-signers", &allowed, "--commit"]);
    assert!(found.code == Some(4) && found.stderr.contains("commit"), "{found:?}");
    let found = verify(&repo, &["v9.0.0", "--allowed-signers", &allowed]);
    assert!(found.code == Some(2) && found.stderr.contains("has no tag"), "{found:?}");
    let missing = dir.path().join("none").display().to_string();
    let found = verify(&repo, &["v1.0.0", "--allowed-signers", &missing]);
    assert!(found.code == Some(2) && found.stderr.contains("cannot be read"), "{found:?}");
}

#[test]
fn what_init_makes_is_signed_and_verified_as_it_says() {
    let dir = common::temp_dir();
    let ops = dir.path().join("ops");
    let made =
        tagfall().run(&["init", &ops.display().to_string(), "--mount", &dir.path().join("etc/hello").display().to_string()]);
    assert_eq!(made.code, Some(0), "{made:?}");
    for line in [&["add", "--all"][..], &["commit", "--quiet", "-m", "Begin"], &["tag", "--sign", "v1.0.0", "-m", "First"]] {
        assert!(common::git(&ops).args(line).status().unwrap().success(), "{line:?}");
    }
    // Git itself trusts it, too.
    assert!(common::git(&ops).args(["verify-tag", "v1.0.0"]).status().unwrap().success());
    let allowed = ops.join(".git/tagfall/allowed_signers").display().to_string();
    let (dir, signers) = (ops.display().to_string(), ["--allowed-signers", allowed.as_str()]);
    let found = tagfall().run(&["release", "verify", "v1.0.0", "--repo", &dir, signers[0], signers[1]]);
    assert_eq!(found.code, Some(0), "{found:?}");
}
