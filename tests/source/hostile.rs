//! Objects that no `git` would write, and ones made to cost.

use tagfall::model::Reason;
use tagfall::source::Source;

use super::repository::Repository;
use super::servers::git_daemon;
use super::{config, fetch, is_tidy, open, packs, run};

/// A tree with one folder `groups` of this content.
fn below_groups(repository: &Repository, content: &[u8]) -> Vec<u8> {
    let inner = repository.object("tree", content);
    Repository::entry("40000", "groups", &inner)
}

/// Tags with their reasons: `v2.N.0` each.
fn hostile(repository: &Repository) -> Vec<(String, Reason)> {
    let blob = repository.object("blob", b"x");
    let folder = repository.object("tree", &Repository::entry("100644", "x", &blob));
    let entry = |mode: &str, name: &str| Repository::entry(mode, name, &blob);
    let dir = |name: &str| Repository::entry("40000", name, &folder);
    let both = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    let absent = "1234567890123456789012345678901234567890";
    let trees = [
        (dir(".."), Reason::UnsafePath),
        (dir(".git"), Reason::UnsafePath),
        (dir(".GIT"), Reason::UnsafePath),
        (dir("git~1"), Reason::UnsafePath),
        (entry("100644", "a\u{1b}[31m"), Reason::UnsafePath),
        (below_groups(repository, &dir("..")), Reason::UnsafePath),
        (below_groups(repository, &entry("120000", "link")), Reason::UnsafePath),
        (below_groups(repository, &Repository::entry("160000", "sub", absent)), Reason::UnsafePath),
        (below_groups(repository, &both(entry("100644", "A"), entry("100644", "a"))), Reason::UnsafePath),
        (entry("120000", "groups"), Reason::UnsafePath),
        (entry("100644", "groups"), Reason::UnsafePath),
        (below_groups(repository, &both(entry("100644", "b"), entry("100644", "a"))), Reason::InvalidGitObject),
        (below_groups(repository, &both(entry("100644", "a"), entry("100644", "a"))), Reason::InvalidGitObject),
        (below_groups(repository, &both(entry("100644", "a"), dir("a"))), Reason::InvalidGitObject),
        (below_groups(repository, &entry("777", "a")), Reason::InvalidGitObject),
        (below_groups(repository, &entry("040000", "a")), Reason::InvalidGitObject),
        (below_groups(repository, &entry("40000", "a")), Reason::InvalidGitObject),
        (below_groups(repository, &Repository::entry("100644", "a", &folder)), Reason::InvalidGitObject),
    ];
    let mut cases = Vec::new();
    for (number, (tree, reason)) in trees.into_iter().enumerate() {
        let name = format!("v2.{number}.0");
        repository.release_tree(&name, &tree);
        cases.push((name, reason));
    }
    cases
}

#[test]
fn hostile_trees_are_refused_from_a_path() {
    let repository = Repository::with_release();
    let cases = hostile(&repository);
    run(async {
        let source = open(&repository.url(), &repository.store());
        for (name, reason) in cases {
            let refusal = fetch(&source, &name).await.unwrap_err();
            assert_eq!(refusal.reason, reason, "{name}: {refusal:?}");
            assert!(!refusal.message.contains(char::is_control), "{refusal:?}");
        }
        assert_eq!(packs(&repository.store()), Vec::<String>::new(), "nothing of them is kept");
        assert!(fetch(&source, "v1.0.0").await.is_ok());
        assert!(is_tidy(&repository.store()));
    });
}

#[test]
fn hostile_trees_are_refused_over_the_network() {
    let repository = Repository::with_release();
    let cases = hostile(&repository);
    let url = git_daemon(&repository);
    run(async {
        let source = open(&url, &repository.store());
        for (name, reason) in cases {
            let refusal = fetch(&source, &name).await.unwrap_err();
            // Git's own server does not serve some of these at all.
            let unserved = refusal.reason == Reason::GitOperationFailed;
            assert!(refusal.reason == reason || unserved, "{name}: {refusal:?}");
        }
        assert_eq!(packs(&repository.store()), Vec::<String>::new(), "nothing of them is kept");
        assert!(fetch(&source, "v1.0.0").await.is_ok());
    });
}

#[test]
fn hostile_tags_and_commits_are_refused() {
    let repository = Repository::with_release();
    let tree = repository.git(&["rev-parse", "HEAD^{tree}"]);
    let who = "T <t@example.com> 1700000000 +0000";
    let twice = format!("tree {tree}\ntree {tree}\nauthor {who}\ncommitter {who}\n\nx\n");
    let twice = repository.object("commit", twice.as_bytes());
    let head = repository.git(&["rev-parse", "HEAD"]);
    let absent = "1234567890123456789012345678901234567890";
    let tags = [
        (format!("object {twice}\ntype commit\ntag v3.0.0\ntagger {who}\n\n"), Reason::InvalidGitObject),
        (format!("object {tree}\ntype commit\ntag v3.1.0\ntagger {who}\n\n"), Reason::InvalidGitObject),
        (format!("object {head}\ntype commit\ntag v9.9.9\ntagger {who}\n\n"), Reason::TagNameMismatch),
        (format!("object {head}\ntype commit\ntag v3.3.0\0v9\ntagger {who}\n\n"), Reason::InvalidGitObject),
        (format!("object {head}\ntype commit\ntag v3.4.0\n\n"), Reason::InvalidGitObject),
        (format!("object {absent}\ntype commit\ntag v3.5.0\ntagger {who}\n\n"), Reason::GitOperationFailed),
    ];
    run(async {
        let source = open(&repository.url(), &repository.store());
        for (number, (tag, reason)) in tags.into_iter().enumerate() {
            let name = format!("v3.{number}.0");
            repository.release_object(&name, &tag);
            let refusal = fetch(&source, &name).await.unwrap_err();
            assert_eq!(refusal.reason, reason, "{name}: {refusal:?}");
        }
        assert!(is_tidy(&repository.store()));
    });
}

#[test]
fn a_tree_that_unfolds_without_end_is_stopped() {
    let repository = Repository::with_release();
    let mut id = repository.object("blob", b"x");
    let mut mode = "100644";
    for _ in 0..10 {
        let tree: Vec<u8> = (0..10).flat_map(|n| Repository::entry(mode, &format!("d{n}"), &id)).collect();
        id = repository.object("tree", &tree);
        mode = "40000";
    }
    repository.release_tree("v2.0.0", &Repository::entry("40000", "groups", &id));
    run(async {
        let source = open(&repository.url(), &repository.store());
        let refusal = fetch(&source, "v2.0.0").await.unwrap_err();
        assert_eq!(refusal.reason, Reason::LimitExceeded, "{refusal:?}");
    });
}

#[test]
fn what_unpacks_to_much_is_stopped_by_its_header() {
    let repository = Repository::with_release();
    repository.write("groups/web/config/zeros", &"\0".repeat(33 << 20));
    repository.release("v2.0.0");
    repository.write("groups/web/config/zeros", &("\0".repeat(33 << 20) + "1"));
    repository.release("v2.1.0");
    repository.git(&["repack", "-q", "-a", "-d", "-f"]);
    let size = |path: &str| std::fs::metadata(repository.path().join(path)).unwrap().len();
    assert!(size(".git/objects/pack") < 1 << 20);
    let url = git_daemon(&repository);
    run(async {
        for (number, url) in [repository.url(), url].iter().enumerate() {
            let mut config = config(url, &repository.store());
            config.store = repository.store().join(number.to_string()).join("git");
            let source = Source::open(config).unwrap();
            for name in ["v2.0.0", "v2.1.0"] {
                let refusal = fetch(&source, name).await.unwrap_err();
                assert_eq!(refusal.reason, Reason::LimitExceeded, "{url} {name}: {refusal:?}");
            }
            assert!(fetch(&source, "v1.0.0").await.is_ok());
        }
    });
}

#[test]
fn a_part_without_the_rest_in_the_store_deceives_nobody() {
    let repository = Repository::with_release();
    let url = git_daemon(&repository);
    run(async {
        let source = open(&url, &repository.store());
        let first = fetch(&source, "v1.0.0").await.unwrap();
        // What a hostile pack could leave behind: the tag and the commit of the next release, without its trees.
        repository.write("groups/web/config/app.toml.hbs", "y\n");
        repository.release("v1.1.0");
        let some = repository.git(&["rev-parse", "v1.1.0", "HEAD"]);
        let packs = repository.store().join("git/objects/pack");
        repository.git_with(&["pack-objects", "-q", &packs.join("pack").display().to_string()], some.as_bytes());
        let next = fetch(&source, "v1.1.0").await.unwrap();
        assert_eq!(next.files[0].content.as_deref(), Some(&b"y\n"[..]));
        assert_eq!(source.load(&first.tag).unwrap().files, first.files);
        let local = open(&repository.url(), &repository.store());
        repository.write("groups/web/config/app.toml.hbs", "z\n");
        repository.release("v1.2.0");
        let tree = repository.git(&["rev-parse", "HEAD^{tree}"]);
        repository.git_with(&["pack-objects", "-q", &packs.join("pack").display().to_string()], tree.as_bytes());
        assert_eq!(fetch(&local, "v1.2.0").await.unwrap().files[0].content.as_deref(), Some(&b"z\n"[..]));
    });
}
