//! Repositories on this host.

use tagfall::model::Reason;
use tagfall::release::Selection;
use tagfall::source::{latest_tag, list_local, read_folder, read_repository};

use super::repository::Repository;
use super::{config, fetch, find, is_tidy, open, packs, paths, run};

#[test]
fn a_tag_is_listed_fetched_and_read() {
    let repository = Repository::with_release();
    run(async {
        let source = open(&repository.url(), &repository.store());
        let fetched = fetch(&source, "v1.0.0").await.unwrap();
        let wanted = ["groups/web/config/app.toml.hbs", "groups/web/config/logo.bin", "groups/web/group.toml", "tagfall.toml"];
        assert_eq!(paths(&fetched), wanted);
        assert_eq!(fetched.commit.to_string(), repository.git(&["rev-parse", "HEAD"]));
        assert_eq!(fetched.tag.object.to_string(), repository.git(&["rev-parse", "v1.0.0"]));
        assert_eq!(fetched.tagged_at_s, 1_700_000_000);
        let by_path = |path: &str| fetched.files.iter().find(|file| file.path == path).unwrap();
        assert_eq!(by_path("tagfall.toml").content.as_deref(), Some(&b"format = 1\n"[..]));
        let logo = by_path("groups/web/config/logo.bin");
        assert_eq!((logo.size, &logo.content, logo.executable), (2, &None, false));
        assert_eq!(source.read_blob(logo.blob).unwrap(), [1, 2]);
        assert!(is_tidy(&repository.store()));
    });
}

#[test]
fn the_next_tag_brings_its_change_alone_and_known_ones_nothing() {
    let repository = Repository::with_release();
    run(async {
        let source = open(&repository.url(), &repository.store());
        let first = fetch(&source, "v1.0.0").await.unwrap();
        assert!(first.stats.objects > 8, "{:?}", first.stats);
        repository.write("groups/web/config/app.toml.hbs", "port = {{cfg.port}}\nx = 1\n");
        repository.release("v1.1.0");
        let next = fetch(&source, "v1.1.0").await.unwrap();
        assert_eq!(next.stats.objects, 7, "tag, commit, four trees, one file");
        assert_eq!(packs(&repository.store()).len(), 2);
        repository.tag("v1.1.1");
        assert_eq!(fetch(&source, "v1.1.1").await.unwrap().stats.objects, 2, "of the same commit: the closure starts anew");
        assert_eq!(fetch(&source, "v1.1.0").await.unwrap().stats.objects, 0);
        std::fs::remove_dir_all(repository.path()).unwrap();
        assert_eq!(source.load(&first.tag).unwrap().files, first.files, "from the store alone");
        let reopened = open(&repository.url(), &repository.store());
        assert_eq!(reopened.fetch(&next.tag, &[]).await.unwrap().files, next.files, "after a restart as well");
        assert_eq!(reopened.list().await.unwrap_err().reason, Reason::GitOperationFailed);
    });
}

#[test]
fn every_kind_of_local_repository_is_read() {
    let repository = Repository::with_release();
    let bare = repository.beside("bare x.git");
    repository.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    let shared = repository.beside("shared");
    repository.git(&["clone", "-q", "--shared", ".", shared.to_str().unwrap()]);
    let linked = repository.beside("linked");
    repository.git(&["worktree", "add", "-q", linked.to_str().unwrap(), "HEAD"]);
    let separate = repository.beside("separate");
    let hidden = repository.beside("hidden");
    repository.git(&["clone", "-q", "--separate-git-dir", hidden.to_str().unwrap(), ".", separate.to_str().unwrap()]);
    let url = format!("file://{}", bare.display()).replace(' ', "%20");
    let paths = [bare, shared, linked, separate].map(|path| path.display().to_string());
    run(async {
        for (number, url) in paths.into_iter().chain([url]).enumerate() {
            let store = repository.store().join(number.to_string());
            let source = open(&url, &store);
            assert_eq!(fetch(&source, "v1.0.0").await.unwrap().files.len(), 4, "{url}");
            repository.git(&["pack-refs", "--all"]);
            assert_eq!(find(&source, "v1.0.0").await.name.as_str(), "v1.0.0", "{url}");
        }
    });
}

#[test]
fn nothing_there_is_said_plainly() {
    let repository = Repository::new();
    run(async {
        let empty = open(&repository.url(), &repository.store());
        assert_eq!(empty.list().await.unwrap(), []);
        let nowhere = open("/nowhere/config.git", &repository.store().join("other"));
        let refusal = nowhere.list().await.unwrap_err();
        assert_eq!(refusal.reason, Reason::GitOperationFailed);
        assert!(refusal.message.contains("/nowhere/config.git"), "{refusal:?}");
    });
}

#[test]
fn tags_that_are_no_release_are_refused_by_name() {
    let repository = Repository::with_release();
    repository.git(&["tag", "v2.0.0"]);
    repository.git(&["tag", "v2.1.0", "HEAD^{tree}"]);
    repository.git(&["tag", "-a", "-m", "x", "v2.2.0", "HEAD:README.md"]);
    repository.git(&["tag", "-a", "-m", "x", "v2.3.0", "HEAD^{tree}"]);
    repository.git(&["tag", "-a", "-m", "x", "v2.4.0", "v1.0.0"]);
    let one = repository.git(&["rev-parse", "v1.0.0"]);
    std::fs::write(repository.path().join(".git/refs/tags/v2.5.0"), &one).unwrap();
    run(async {
        let source = open(&repository.url(), &repository.store());
        for (name, reason) in [
            ("v2.0.0", Reason::NotAnnotated),
            ("v2.1.0", Reason::NotAnnotated),
            ("v2.2.0", Reason::InvalidGitObject),
            ("v2.3.0", Reason::InvalidGitObject),
            ("v2.4.0", Reason::InvalidGitObject),
            ("v2.5.0", Reason::TagNameMismatch),
        ] {
            let refusal = fetch(&source, name).await.unwrap_err();
            assert_eq!(refusal.reason, reason, "{name}: {refusal:?}");
            assert!(refusal.message.contains(name), "{refusal:?}");
        }
        assert_eq!(packs(&repository.store()), Vec::<String>::new());
        assert!(fetch(&source, "v1.0.0").await.is_ok(), "the others go on");
        assert!(is_tidy(&repository.store()));
    });
}

#[test]
fn a_damaged_store_is_filled_anew() {
    let repository = Repository::with_release();
    run(async {
        let source = open(&repository.url(), &repository.store());
        let first = fetch(&source, "v1.0.0").await.unwrap();
        let name = packs(&repository.store())[0].clone();
        let pack = repository.store().join("git/objects/pack").join(name);
        for damage in [0_usize, 1, 2] {
            let mut bytes = std::fs::read(&pack).unwrap();
            let half = bytes.len() / 2;
            match damage {
                0 => bytes.truncate(half),
                1 => bytes.fill(0),
                _ => bytes[12..].iter_mut().for_each(|byte| *byte ^= 0x55),
            }
            std::fs::remove_file(&pack).unwrap();
            std::fs::write(&pack, bytes).unwrap();
            drop(source.list().await.unwrap());
            drop(source.list().await.unwrap());
            assert_eq!(source.load(&first.tag).unwrap_err().reason, Reason::GitOperationFailed, "damage {damage}");
            assert_eq!(source.fetch(&first.tag, &[]).await.unwrap().files, first.files, "damage {damage}");
        }
        for missing in ["HEAD", "config", "objects/pack", "refs/tagfall"] {
            let path = repository.store().join("git").join(missing);
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap()
            } else {
                std::fs::remove_file(path).unwrap()
            }
            let source = open(&repository.url(), &repository.store());
            assert_eq!(source.fetch(&first.tag, &[]).await.unwrap().files, first.files, "{missing}");
        }
    });
}

#[test]
fn what_is_forgotten_goes_and_what_is_kept_stays() {
    let repository = Repository::with_release();
    run(async {
        let source = open(&repository.url(), &repository.store());
        let mut kept = Vec::new();
        for number in 1..=30 {
            repository.write("groups/web/config/app.toml.hbs", &format!("port = {number}\n"));
            let name = format!("v1.0.{number}");
            repository.release(&name);
            kept.push(fetch(&source, &name).await.unwrap());
        }
        assert_eq!(packs(&repository.store()).len(), 30);
        let last = &kept[28..];
        source.forget(&[last[0].tag.object, last[1].tag.object]).await.unwrap();
        assert_eq!(packs(&repository.store()).len(), 1, "one pack instead of thirty");
        for fetched in last {
            assert_eq!(source.load(&fetched.tag).unwrap().files, fetched.files);
        }
        assert!(source.load(&kept[0].tag).is_err());
        assert!(is_tidy(&repository.store()));
        assert!(fetch(&source, "v1.0.1").await.is_ok(), "what was forgotten can be fetched again");
        source.forget(&[]).await.unwrap();
    });
}

#[test]
fn limits_hold() {
    let repository = Repository::with_release();
    let content: String = (0..20_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_string()).collect();
    repository.write("groups/web/config/large.bin", &content);
    repository.write("groups/web/config/large2.bin", &content.replace('1', "2"));
    repository.write("groups/web/config/a/b/c/d/e/deep", "x");
    repository.release("v1.1.0");
    run(async {
        let full = config(&repository.url(), &repository.store());
        for (number, key) in ["pack_bytes", "file_bytes", "tree_bytes", "objects", "path_depth"].into_iter().enumerate() {
            let mut config = full.clone();
            let store = repository.store().join(number.to_string());
            config.store = store.join("git");
            match key {
                "pack_bytes" => config.limits.pack_bytes = 10_000,
                "file_bytes" => config.limits.file_bytes = 100_000,
                "tree_bytes" => config.limits.tree_bytes = 250_000,
                "objects" => config.limits.objects = 10,
                _ => config.limits.path_depth = 5,
            }
            let source = tagfall::source::Source::open(config).unwrap();
            let refusal = fetch(&source, "v1.1.0").await.unwrap_err();
            assert_eq!(refusal.reason, Reason::LimitExceeded, "{key}: {refusal:?}");
            assert_eq!(packs(&store), Vec::<String>::new(), "{key}: nothing is kept");
        }
        let mut few = full;
        few.limits.tags = 1;
        let source = tagfall::source::Source::open(few).unwrap();
        assert_eq!(source.list().await.unwrap_err().reason, Reason::LimitExceeded);
    });
}

#[test]
fn trees_are_read_without_a_supervisor() {
    let repository = Repository::with_release();
    let folder = read_folder(&repository.path()).unwrap();
    let tag = read_repository(&repository.path(), "v1.0.0").unwrap();
    let head = read_repository(&repository.path(), "HEAD").unwrap();
    assert_eq!(folder.files, tag.files, "a clean folder and its tag are the same tree");
    assert_eq!(head.files, tag.files);
    assert_eq!((folder.commit, head.commit), (None, tag.commit));
    for file in &tag.files {
        assert_eq!(folder.read_blob(file.blob).unwrap(), tag.read_blob(file.blob).unwrap());
    }
    assert_eq!(read_repository(&repository.path(), "v9").err().unwrap().reason, Reason::GitOperationFailed);
    repository.tag("v1.10.0");
    repository.git(&["tag", "v3.0.0-rc.1"]);
    let selection = Selection { prefix: "v".to_owned(), range: None, prerelease: false, heartbeat: None };
    assert_eq!(latest_tag(&repository.path(), &selection).unwrap().unwrap().name.as_str(), "v1.10.0");
    assert_eq!(list_local(&repository.path()).unwrap().len(), 3);
    repository.write("groups/web/config/logo.bin", "changed");
    let logo = &folder.files[1];
    assert!(folder.read_blob(logo.blob).is_err(), "a file that changed meanwhile is noticed");
    repository.write(".gitignore", "*.swp\n");
    repository.write("groups/web/config/.app.swp", "x");
    assert_eq!(read_folder(&repository.path()).unwrap().files.len(), 4, "what is ignored is in no tag");
    repository.git(&["add", "-f", "groups/web/config/.app.swp"]);
    assert_eq!(read_folder(&repository.path()).unwrap().files.len(), 5, "unless it was added");
    std::os::unix::fs::symlink("/etc/passwd", repository.path().join("groups/web/config/link")).unwrap();
    let refusal = read_folder(&repository.path()).err().unwrap();
    assert_eq!(refusal.reason, Reason::UnsafePath);
    assert!(refusal.message.contains("groups/web/config/link"), "{refusal:?}");
}
