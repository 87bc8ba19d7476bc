//! What somebody with push rights, and without a key that counts, may push. Each is refused by its own name.

use std::fs;

use common::{SshKey, holds_for};

use crate::host::Host;

/// How it is called, what is pushed, the reason, and words of the message.
type Attack = (&'static str, fn(&Cast, &str), &'static str, &'static str);

/// A host, and people whom it knows or does not.
struct Cast {
    host: Host,
    mallory: SshKey,
    expired: SshKey,
    early: SshKey,
    revoked: SshKey,
    files_only: SshKey,
}

impl Cast {
    fn new() -> Self {
        let host = Host::with(|_, dir| {
            let path = dir.join("revoked_keys");
            fs::write(&path, "# nobody yet\n").unwrap();
            crate::host::Setup { verify: format!("revoked_keys = \"{}\"\n", path.display()), ..Default::default() }
        });
        let [mallory, expired, early, revoked, files_only] =
            ["mallory", "expired", "early", "revoked", "files"].map(|name| host.key(name));
        fs::write(host.path("revoked_keys"), format!("# stolen\n{}\n", revoked.public())).unwrap();
        host.trust(&[
            host.trusts_alice(),
            expired.allowed("expired@example.com", "valid-before=\"20200101\""),
            early.allowed("early@example.com", "valid-after=\"20990101\""),
            revoked.allowed("revoked@example.com", ""),
            files_only.allowed("files@example.com", "namespaces=\"file\""),
        ]);
        Self { host, mallory, expired, early, revoked, files_only }
    }

    fn signed_by(&self, key: &SshKey, tag: &str) {
        self.host.repo.sign_with(key);
        self.host.repo.tag_signed(tag, "HEAD");
        self.host.repo.sign_with(&self.host.alice);
    }

    /// Writes a tag object by hand, with whatever stands behind its text.
    fn crafted(&self, tag: &str, text: &str, armour: &str) {
        let id = self.host.repo.write_object("tag", format!("{text}{armour}").as_bytes());
        self.host.repo.run(&["update-ref", &format!("refs/tags/{tag}"), &id]);
    }

    fn text(&self, tag: &str) -> String {
        self.host.repo.tag_text(tag, "words")
    }

    fn sign(&self, text: &str) -> String {
        self.host.alice.sign("git", text.as_bytes())
    }
}

const ATTACKS: &[Attack] = &[
    ("unsigned", |cast, tag| drop(cast.host.repo.tag_annotated(tag)), "InvalidTagSignature", "not signed"),
    ("lightweight", |cast, tag| drop(cast.host.repo.run(&["tag", tag])), "NotAnnotated", ""),
    ("by a stranger", |cast, tag| cast.signed_by(&cast.mallory, tag), "SignerNotTrusted", "does not name"),
    ("by an expired key", |cast, tag| cast.signed_by(&cast.expired, tag), "SignerNotTrusted", "expired"),
    ("by a key that is not valid yet", |cast, tag| cast.signed_by(&cast.early, tag), "SignerNotTrusted", "valid from"),
    ("by a revoked key", |cast, tag| cast.signed_by(&cast.revoked, tag), "SignerNotTrusted", "revoked"),
    ("by a key for files alone", |cast, tag| cast.signed_by(&cast.files_only, tag), "SignerNotTrusted", "namespaces"),
    (
        "a signed object under another tag's name",
        |cast, tag| drop(cast.host.repo.run(&["update-ref", &format!("refs/tags/{tag}"), "refs/tags/v1.0.0"])),
        "TagNameMismatch",
        "v1.0.0",
    ),
    ("a tag of a tag", |cast, tag| drop(cast.host.repo.tag_signed(tag, "v1.0.0")), "InvalidGitObject", "points at a tag"),
    ("a tag of a tree", |cast, tag| drop(cast.host.repo.tag_signed(tag, "HEAD^{tree}")), "InvalidGitObject", "points at a tree"),
    (
        "a tag of a blob",
        |cast, tag| drop(cast.host.repo.tag_signed(tag, "HEAD:groups/web/group.toml")),
        "InvalidGitObject",
        "points at a blob",
    ),
    (
        "signed in another namespace",
        |cast, tag| {
            let text = cast.text(tag);
            cast.crafted(tag, &text, &cast.host.alice.sign("file", text.as_bytes()));
        },
        "InvalidTagSignature",
        "namespace `file`",
    ),
    (
        "changed after it was signed",
        |cast, tag| {
            let text = cast.text(tag);
            cast.crafted(tag, &text.replace("words", "other"), &cast.sign(&text));
        },
        "InvalidTagSignature",
        "does not hold",
    ),
    (
        "signed over another commit",
        |cast, tag| {
            let (text, first) = (cast.text(tag), cast.host.repo.run(&["rev-parse", "v1.0.0^{commit}"]));
            let head = cast.host.repo.run(&["rev-parse", "HEAD"]);
            cast.crafted(tag, &text, &cast.sign(&text.replace(&head, &first)));
        },
        "InvalidTagSignature",
        "does not hold",
    ),
    (
        "malformed, and signed in its normal form",
        |cast, tag| {
            let text = cast.text(tag);
            let twice = text.replacen("\ntagger ", "\ntagger X <x@example.com> 1 +0000\ntagger ", 1);
            cast.crafted(tag, &twice, &cast.sign(&text));
        },
        "InvalidGitObject",
        "tagger",
    ),
    (
        "signed without a blank at the end of a line that it has",
        |cast, tag| {
            let text = cast.text(tag);
            cast.crafted(tag, &text.replace("words\n", "words \n"), &cast.sign(&text));
        },
        "InvalidTagSignature",
        "does not hold",
    ),
    (
        "two signatures",
        |cast, tag| {
            let text = cast.text(tag);
            cast.crafted(tag, &text, &format!("{}{}", cast.sign(&text), cast.sign(&text)));
        },
        "InvalidTagSignature",
        "two signatures",
    ),
    (
        "a signature of a stranger, then a good one over both",
        |cast, tag| {
            let text = cast.text(tag);
            let inner = format!("{text}{}", cast.mallory.sign("git", text.as_bytes()));
            let outer = cast.sign(&inner);
            cast.crafted(tag, &inner, &outer);
        },
        "InvalidTagSignature",
        "two signatures",
    ),
    (
        "words behind the signature",
        |cast, tag| {
            let text = cast.text(tag);
            cast.crafted(tag, &text, &format!("{}more\n", cast.sign(&text)));
        },
        "InvalidTagSignature",
        "stands behind it",
    ),
    (
        "an armour of rubbish",
        |cast, tag| {
            let text = cast.text(tag);
            cast.crafted(tag, &text, "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n");
        },
        "InvalidTagSignature",
        "cannot be read",
    ),
    (
        "X.509",
        |cast, tag| {
            let text = cast.text(tag);
            cast.crafted(tag, &text, "-----BEGIN SIGNED MESSAGE-----\nMIIB\n-----END SIGNED MESSAGE-----\n");
        },
        "InvalidTagSignature",
        "X.509",
    ),
    (
        "an OpenPGP armour of rubbish",
        |cast, tag| {
            let text = cast.text(tag);
            cast.crafted(tag, &text, "-----BEGIN PGP SIGNATURE-----\n\nwsB=\n=AAAA\n-----END PGP SIGNATURE-----\n");
        },
        "InvalidTagSignature",
        "cannot be read",
    ),
];

#[test]
fn every_attack_is_refused_by_name_and_the_next_good_tag_is_applied() {
    let cast = Cast::new();
    let host = &cast.host;
    for (number, (name, attack, reason, words)) in ATTACKS.iter().enumerate() {
        let before = host.untouched();
        let packs = packs(host);
        host.write(&format!("bad {number}"));
        host.repo.commit("bad");
        let tag = format!("v1.{}.0", 2 * number + 1);
        attack(&cast, &tag);
        host.push();
        let (found, message) = host.refused(&tag);
        assert_eq!(found, *reason, "{name}: {message}");
        assert!(message.contains(words), "{name}: `{words}` is not in: {message}");
        assert_eq!(host.untouched(), before, "{name}");
        assert_eq!(self::packs(host), packs, "{name}: something of it got into the store");
        let good = format!("v1.{}.0", 2 * number + 2);
        host.release(&good);
        host.wait_applied(&good);
        assert_ne!(host.untouched(), before, "{name}: the next good tag was applied");
    }
}

/// The packs of the object store.
fn packs(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.path("data/git/objects/pack")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_moved_tag_is_never_applied_though_both_objects_are_signed() {
    let host = Host::start();
    // Seen, and not taken: it is pinned all the same.
    host.write("seen");
    host.repo.commit("seen");
    host.repo.tag_annotated("v1.1.0");
    host.push();
    assert_eq!(host.refused("v1.1.0").0, "InvalidTagSignature");
    let before = host.untouched();
    for tag in ["v1.1.0", "v1.0.0"] {
        host.write(&format!("moved {tag}"));
        host.repo.commit("moved");
        host.repo.run(&["tag", "--delete", tag]);
        host.repo.tag_signed(tag, "HEAD");
        host.push();
        let first = if tag == "v1.1.0" { "" } else { "v1.0.0" };
        let (reason, message) = common::wait_for("it is refused as moved", common::LONG, || {
            let (reason, message) = host.refused(tag);
            if reason == "TagMoved" { Ok((reason, message)) } else { Err(format!("{reason}: {message}")) }
        });
        assert!(message.contains(first), "{reason}: {message}");
        assert_eq!(host.untouched(), before, "{tag}");
    }
    host.release("v1.2.0");
    host.wait_applied("v1.2.0");
}

#[test]
fn deleted_tags_take_nothing_back_and_are_told() {
    let host = Host::start();
    host.release("v1.1.0");
    host.wait_applied("v1.1.0");
    let before = host.untouched();
    let remote = |arguments: &[&str]| assert!(common::git(host.repo.bare()).args(arguments).status().unwrap().success());
    remote(&["update-ref", "-d", "refs/tags/v1.1.0"]);
    assert_eq!(host.refused("v1.0.0").0, "DowngradeRefused");
    host.event("DowngradeRefused", "not at the remote any more");
    assert_eq!(host.untouched(), before);
    remote(&["update-ref", "-d", "refs/tags/v1.0.0"]);
    host.condition("Stalled", "False", "DowngradeRefused");
    holds_for("what ran runs on", std::time::Duration::from_secs(1), || host.untouched() == before);
    host.release("v1.2.0");
    host.wait_applied("v1.2.0");
}
