//! Publications on a real disk, bad input first.

mod crash;
mod drift;
mod full;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::render::RenderedFile;

fn file(path: &str, content: &str) -> RenderedFile {
    RenderedFile { path: path.to_owned(), bytes: content.as_bytes().to_vec(), executable: false }
}

fn group(name: &str) -> GroupName {
    name.parse().unwrap()
}

/// A memory file system where there is one: it makes many syncs cheap.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A data folder, a place for links, and one group.
struct Bench {
    dir: tempfile::TempDir,
    publisher: Publisher,
    web: GroupName,
}

impl Drop for Bench {
    /// Without root, sealed folders are in the way of whoever removes the temporary folder.
    fn drop(&mut self) {
        let _ = Disk::default().remove_tree(&self.dir.path().join("data"));
    }
}

impl Bench {
    fn new() -> Self {
        let dir = folder();
        let publisher = Publisher::open(&dir.path().join("data")).unwrap();
        Self { dir, publisher, web: group("web") }
    }

    fn reopen(&mut self) {
        self.publisher = Publisher::open(&self.dir.path().join("data")).unwrap();
    }

    fn mount(&self) -> String {
        self.dir.path().join("etc/web").to_str().unwrap().to_owned()
    }

    fn write(&self, files: &[RenderedFile]) -> PublicationId {
        self.publisher.write(&self.web, files, None, false).unwrap()
    }

    fn show(&self, files: &[RenderedFile]) -> PublicationId {
        let id = self.write(files);
        self.publisher.switch(&self.web, id, &self.mount()).unwrap();
        id
    }

    fn shown(&self, path: &str) -> String {
        std::fs::read_to_string(Path::new(&self.mount()).join(path)).unwrap()
    }

    fn files(&self, id: PublicationId) -> PathBuf {
        self.publisher.publication_dir(&self.web, id).join("files")
    }
}

/// Temporary names anywhere below.
fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            found.push(entry.path());
        }
        if entry.file_type().unwrap().is_dir() {
            found.extend(leftovers(&entry.path()));
        }
    }
    found
}

#[test]
fn paths_that_leave_the_publication_are_refused_before_anything_is_written() {
    let bench = Bench::new();
    let long = "x".repeat(256);
    let deep = vec!["x"; 2000].join("/");
    for bad in ["", "/etc/passwd", "a/../../x", "..", "a/./b", "a//b", "a/", "a\0b", &long, &deep] {
        let error = bench.publisher.write(&bench.web, &[file(bad, "")], None, false).unwrap_err();
        assert!(matches!(error, PublishError::UnsafePath { .. }), "{bad:?}: {error}");
    }
    for bad in [[file("a", "1"), file("a", "2")], [file("a", "1"), file("a/b", "2")], [file("a/b", "1"), file("a", "2")]] {
        let error = bench.publisher.write(&bench.web, &bad, None, false).unwrap_err();
        assert!(matches!(error, PublishError::UnsafePath { .. }), "{error}");
    }
    assert_eq!(bench.publisher.groups().unwrap(), []);
}

#[test]
fn what_tagfall_did_not_make_is_never_replaced() {
    let bench = Bench::new();
    let id = bench.write(&[file("a", "1")]);
    let mount = PathBuf::from(bench.mount());
    std::fs::create_dir_all(mount.parent().unwrap()).unwrap();
    let elsewhere = bench.dir.path().join("other/view/web.default/files");
    std::fs::create_dir_all(&elsewhere).unwrap();
    let other_group = bench.publisher.view_point(&group("db")).join("files");
    type Occupy<'a> = Box<dyn Fn() + 'a>;
    let occupants: [(&str, Occupy<'_>); 5] = [
        ("a file", Box::new(|| std::fs::write(&mount, "mine").unwrap())),
        ("a folder", Box::new(|| std::fs::create_dir(&mount).unwrap())),
        ("a link to", Box::new(|| std::os::unix::fs::symlink(&elsewhere, &mount).unwrap())),
        ("a link to", Box::new(|| std::os::unix::fs::symlink(&other_group, &mount).unwrap())),
        ("a link to `/nowhere`", Box::new(|| std::os::unix::fs::symlink("/nowhere", &mount).unwrap())),
    ];
    for (wanted, occupy) in occupants {
        occupy();
        let before = std::fs::symlink_metadata(&mount).unwrap().ino();
        let error = bench.publisher.switch(&bench.web, id, &bench.mount()).unwrap_err();
        assert!(matches!(&error, PublishError::MountOccupied { what, .. } if what.starts_with(wanted)), "{error}");
        assert!(matches!(bench.publisher.link_ok(&bench.web, &bench.mount()), LinkState::Occupied { .. }));
        bench.publisher.withdraw(&bench.web, &bench.mount()).unwrap();
        assert_eq!(std::fs::symlink_metadata(&mount).unwrap().ino(), before, "{wanted} was touched");
        std::fs::remove_file(&mount).or_else(|_| std::fs::remove_dir(&mount)).unwrap();
    }
    assert_eq!(bench.publisher.link_ok(&bench.web, &bench.mount()), LinkState::Missing);
    assert_eq!(bench.publisher.current(&bench.web).unwrap(), None);
}

#[test]
fn a_mount_path_is_plain_absolute_and_not_ours() {
    let bench = Bench::new();
    let id = bench.write(&[file("a", "1")]);
    let inside = bench.dir.path().join("data/view/web.default/files").to_str().unwrap().to_owned();
    for bad in ["", "etc/web", "/", "/etc/../x", "/etc//x", "/etc/x/", "/etc/./x", &inside] {
        let error = bench.publisher.switch(&bench.web, id, bad).unwrap_err();
        assert!(matches!(error, PublishError::BadMountPath { .. }), "{bad:?}: {error}");
    }
    let below_file = bench.dir.path().join("file");
    std::fs::write(&below_file, "").unwrap();
    let error = bench.publisher.switch(&bench.web, id, below_file.join("web").to_str().unwrap()).unwrap_err();
    assert!(matches!(error, PublishError::MountOccupied { .. }), "{error}");
}

#[test]
fn what_was_never_written_cannot_be_shown() {
    let bench = Bench::new();
    let id = bench.show(&[file("a", "1")]);
    let missing = PublicationId { copy: 9, ..id };
    let error = bench.publisher.switch(&bench.web, missing, &bench.mount()).unwrap_err();
    assert!(matches!(error, PublishError::Unwritten { .. }), "{error}");
    assert_eq!(bench.shown("a"), "1");
}

#[test]
fn the_mount_path_shows_one_publication_after_the_other() {
    let mut bench = Bench::new();
    let mut executable = file("bin/run", "#!/bin/sh");
    executable.executable = true;
    let first = bench.show(&[file("app.toml", "1"), executable, file("a/b/c", "")]);
    assert_eq!((bench.shown("app.toml").as_str(), bench.shown("a/b/c").as_str()), ("1", ""));
    let mode = |path: &str| std::fs::metadata(bench.files(first).join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("app.toml"), mode("bin/run"), mode("bin"), mode("")], [0o444, 0o555, 0o555, 0o555]);
    let second = bench.show(&[file("app.toml", "2")]);
    assert_eq!(bench.shown("app.toml"), "2");
    assert_eq!(std::fs::read_to_string(bench.files(first).join("app.toml")).unwrap(), "1", "the old one stays readable");
    bench.reopen();
    assert_eq!(bench.publisher.current(&bench.web).unwrap(), Some(second));
    assert_eq!(bench.publisher.link_ok(&bench.web, &bench.mount()), LinkState::Ours);
    assert_eq!(bench.publisher.groups().unwrap(), std::slice::from_ref(&bench.web));
    assert_eq!(bench.publisher.manifest(&bench.web, second).unwrap().files["app.toml"].size, 1);
    bench.publisher.withdraw(&bench.web, &bench.mount()).unwrap();
    assert_eq!(bench.publisher.link_ok(&bench.web, &bench.mount()), LinkState::Missing);
    assert_eq!(bench.publisher.prune(&bench.web, 0, &[]).unwrap(), [second, first]);
    assert_eq!(bench.publisher.groups().unwrap(), []);
}

#[test]
fn the_group_that_may_read_is_part_of_what_is_written() {
    let bench = Bench::new();
    let files = [file("a", "1")];
    let gid = std::fs::metadata(bench.dir.path()).unwrap().gid();
    let reader = Reader { user: "whoever".to_owned(), gid };
    let open = bench.write(&files);
    let owned = bench.publisher.write(&bench.web, &files, Some(&reader), false).unwrap();
    assert_eq!((open.copy, owned.copy), (0, 1), "the same content for other readers is another copy");
    let found = std::fs::metadata(bench.files(owned).join("a")).unwrap();
    assert_eq!((found.gid(), found.permissions().mode() & 0o7777), (gid, 0o440));
    assert_eq!(std::fs::metadata(bench.files(owned)).unwrap().permissions().mode() & 0o7777, 0o550);
    assert_eq!(bench.publisher.write(&bench.web, &files, Some(&reader), false).unwrap(), owned);
}

#[test]
fn old_publications_go_once_enough_newer_ones_were_shown() {
    let bench = Bench::new();
    let ids: Vec<_> = ["1", "2", "3", "4", "5"].iter().map(|text| bench.show(&[file("a", text)])).collect();
    let newest_first = |ids: &[PublicationId]| ids.iter().rev().copied().collect::<Vec<_>>();
    assert_eq!(bench.publisher.list(&bench.web).unwrap(), newest_first(&ids));
    // Back to the first: it is the newest again, so that it is not the next to go.
    assert_eq!(bench.show(&[file("a", "1")]), ids[0]);
    let sixth = bench.show(&[file("a", "6")]);
    assert_eq!(bench.publisher.list(&bench.web).unwrap(), [sixth, ids[0], ids[4], ids[3], ids[2], ids[1]]);
    assert_eq!(bench.publisher.prune(&bench.web, 3, &[ids[1]]).unwrap(), [ids[3], ids[2]]);
    assert_eq!(bench.publisher.list(&bench.web).unwrap(), [sixth, ids[0], ids[4], ids[1]]);
    assert_eq!(bench.publisher.prune(&bench.web, 0, &[]).unwrap(), [ids[0], ids[4], ids[1]]);
    assert_eq!(bench.shown("a"), "6", "the current one never goes");
    // Without its record of going back, writing alone gives the order.
    std::fs::write(bench.publisher.group_dir(&bench.web).join("order"), "x y\n\n\0").unwrap();
    assert_eq!(bench.publisher.list(&bench.web).unwrap(), [sixth]);
}

#[test]
fn a_large_publication_is_whole_as_well() {
    let bench = Bench::new();
    let files: Vec<_> = (0..100).map(|n| file(&format!("d{}/f{n}", n % 7), &n.to_string())).collect();
    let id = bench.show(&files);
    assert_eq!(bench.publisher.verify(&bench.web, id).unwrap(), Vec::<String>::new());
    assert_eq!(bench.shown("d1/f99"), "99");
}

/// Every path that is opened exists, and one folder that was opened shows one publication.
#[test]
fn readers_see_nothing_missing_and_nothing_mixed_while_it_switches() {
    const SWITCHES: usize = 1000;
    const READERS: usize = 2;
    let bench = Bench::new();
    let sides = ["a", "b"].map(|side| side.repeat(2_000));
    let ids = sides.each_ref().map(|side| bench.write(&[file("one", side), file("two", side)]));
    bench.publisher.switch(&bench.web, ids[0], &bench.mount()).unwrap();
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let mount = bench.mount();
    let read = || {
        while !done.load(Ordering::Relaxed) {
            let direct = std::fs::read_to_string(Path::new(&mount).join("one")).unwrap();
            assert!(sides.contains(&direct), "torn: {} bytes", direct.len());
            let folder = std::fs::File::open(&mount).unwrap();
            let within = |name: &str| {
                let path = format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(&folder));
                std::fs::read_to_string(path).unwrap()
            };
            assert_eq!(within("one"), within("two"), "mixed");
            reads.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        for turn in 0..SWITCHES {
            bench.publisher.switch(&bench.web, ids[(turn + 1) % 2], &mount).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert!(reads.load(Ordering::Relaxed) >= READERS as u64);
}
