//! Notice of new tags.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::repository::Repository;
use super::{open, run};

/// Looks at each wake until a tag is listed; gives how long that took.
async fn until_listed(source: &tagfall::source::Source, wakes: &mut UnboundedReceiver<()>, name: &str) -> Duration {
    let from = Instant::now();
    loop {
        wakes.recv().await.expect("the watch lives");
        let tags = source.list().await.unwrap_or_default();
        if tags.iter().any(|tag| tag.name.as_str() == name) {
            return from.elapsed();
        }
    }
}

#[test]
fn loose_nested_and_packed_tags_are_noticed() {
    let repository = Repository::with_release();
    let bare = repository.beside("bare.git");
    repository.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    repository.git(&["remote", "add", "origin", bare.to_str().unwrap()]);
    run(async {
        let source = open(&bare.display().to_string(), &repository.store());
        let (woken, mut wakes) = unbounded_channel();
        let watch = source
            .watch(move || {
                let _ = woken.send(());
            })
            .unwrap()
            .unwrap();
        for name in ["v1.1.0", "team/a/v1.2.0", "team/a/v1.3.0", "team/b/v1.4.0"] {
            repository.tag(name);
            while wakes.try_recv().is_ok() {}
            repository.git(&["push", "-q", "origin", name]);
            let took = until_listed(&source, &mut wakes, name).await;
            assert!(took < Duration::from_secs(5), "{name} took {took:?}");
        }
        repository.git(&["--git-dir", bare.to_str().unwrap(), "pack-refs", "--all"]);
        while wakes.try_recv().is_ok() {}
        let id = repository.git(&["rev-parse", "v1.0.0"]);
        let packed = std::fs::read_to_string(bare.join("packed-refs")).unwrap();
        std::fs::write(bare.join("packed-refs.new"), packed + &format!("{id} refs/tags/v9.0.0\n")).unwrap();
        std::fs::rename(bare.join("packed-refs.new"), bare.join("packed-refs")).unwrap();
        until_listed(&source, &mut wakes, "v9.0.0").await;
        drop(watch);
        while wakes.recv().await.is_some() {}
    });
}

#[test]
fn a_repository_that_comes_later_or_comes_back_is_noticed() {
    let repository = Repository::with_release();
    let bare = repository.beside("bare.git");
    let path = bare.to_str().unwrap();
    run(async {
        let source = open(path, &repository.store());
        let (woken, mut wakes) = unbounded_channel();
        let _watch = source
            .watch(move || {
                let _ = woken.send(());
            })
            .unwrap()
            .unwrap();
        repository.git(&["clone", "-q", "--bare", ".", path]);
        until_listed(&source, &mut wakes, "v1.0.0").await;
        std::fs::remove_dir_all(&bare).unwrap();
        repository.tag("v1.1.0");
        repository.git(&["clone", "-q", "--bare", ".", path]);
        until_listed(&source, &mut wakes, "v1.1.0").await;
        repository.tag("v1.2.0");
        repository.git(&["push", "-q", path, "v1.2.0"]);
        until_listed(&source, &mut wakes, "v1.2.0").await;
    });
}

#[test]
fn reading_and_other_refs_wake_nobody() {
    let repository = Repository::with_release();
    run(async {
        let source = open(&repository.url(), &repository.store());
        let (woken, mut wakes) = unbounded_channel();
        let _watch = source
            .watch(move || {
                let _ = woken.send(());
            })
            .unwrap()
            .unwrap();
        repository.write("README.md", "other\n");
        repository.commit();
        repository.git(&["status"]);
        drop(source.list().await.unwrap());
        repository.tag("v1.1.0");
        until_listed(&source, &mut wakes, "v1.1.0").await;
        let after_tag = wakes.len();
        assert!(after_tag <= 2, "{after_tag} wakes are left for one tag");
    });
}

#[test]
fn remotes_over_the_network_are_not_watched() {
    let repository = Repository::new();
    run(async {
        let source = open("https://git.example.com/x.git", &repository.store());
        assert!(source.watch(|| {}).unwrap().is_none());
    });
}
