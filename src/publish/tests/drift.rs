//! Changes by hand: told by `verify`, noticed by the watch, mended by a fresh copy.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;

/// How long a change may take to be noticed; on an idle machine it is under a millisecond.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

fn allow(path: &Path) {
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn seal(path: &Path) {
    let mode = if path.is_dir() { 0o555 } else { 0o444 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Changes below a sealed folder, and seals it again.
fn tamper(folder: &Path, change: impl FnOnce()) {
    allow(folder);
    change();
    if folder.exists() {
        seal(folder);
    }
}

#[test]
fn every_kind_of_change_is_told() {
    type Change = fn(&Path);
    let cases: [(&str, Change); 11] = [
        ("one (changed)", |files| {
            allow(&files.join("one"));
            std::fs::write(files.join("one"), "2").unwrap();
            seal(&files.join("one"));
        }),
        ("one (changed)", |files| {
            allow(&files.join("one"));
            std::fs::write(files.join("one"), "longer").unwrap();
        }),
        ("one (mode)", |files| allow(&files.join("one"))),
        ("sub (mode)", |files| allow(&files.join("sub"))),
        ("files (mode)", allow),
        ("one (removed)", |files| tamper(files, || std::fs::remove_file(files.join("one")).unwrap())),
        ("new (added)", |files| tamper(files, || std::fs::write(files.join("new"), "").unwrap())),
        ("empty (added)", |files| tamper(files, || std::fs::create_dir(files.join("empty")).unwrap())),
        ("one (changed)", |files| {
            tamper(files, || {
                std::fs::remove_file(files.join("one")).unwrap();
                std::os::unix::fs::symlink("sub/two", files.join("one")).unwrap();
            });
        }),
        ("files (removed)", |files| {
            tamper(files.parent().unwrap(), || {
                allow(files);
                std::fs::rename(files, files.with_file_name("else")).unwrap();
            });
        }),
        ("manifest (changed)", |files| {
            let record = files.with_file_name("manifest");
            allow(&record);
            std::fs::write(&record, "").unwrap();
        }),
    ];
    for (wanted, change) in cases {
        let bench = Bench::new();
        let content = [file("one", "1"), file("sub/two", "1")];
        let id = bench.show(&content);
        assert_eq!(bench.publisher.verify(&bench.web, id).unwrap(), Vec::<String>::new());
        change(&bench.files(id));
        assert_eq!(bench.publisher.verify(&bench.web, id).unwrap(), [wanted]);
        let mended = bench.show(&content);
        assert_eq!((mended.content, mended.copy), (id.content, 1), "{wanted}");
        assert_eq!((bench.shown("one"), bench.shown("sub/two")), ("1".to_owned(), "1".to_owned()), "{wanted}");
        assert_eq!(bench.publisher.verify(&bench.web, mended).unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_publication_that_is_gone_is_written_again() {
    let bench = Bench::new();
    let id = bench.show(&[file("one", "1")]);
    bench.publisher.disk.remove_tree(&bench.publisher.publication_dir(&bench.web, id)).unwrap();
    assert_eq!(bench.publisher.verify(&bench.web, id).unwrap(), ["files (removed)"]);
    assert_eq!(bench.show(&[file("one", "1")]), id);
    assert_eq!(bench.shown("one"), "1");
}

#[test]
fn a_view_turned_by_hand_is_turned_back() {
    let bench = Bench::new();
    let id = bench.show(&[file("one", "1")]);
    let view = bench.publisher.view_point(&bench.web).join("files");
    std::fs::remove_file(&view).unwrap();
    std::os::unix::fs::symlink("/tmp", &view).unwrap();
    assert_eq!(bench.publisher.current(&bench.web).unwrap(), None);
    bench.publisher.switch(&bench.web, id, &bench.mount()).unwrap();
    assert_eq!(bench.shown("one"), "1");
}

#[test]
fn a_fresh_copy_is_another_one() {
    let bench = Bench::new();
    let first = bench.show(&[file("one", "1")]);
    let second = bench.publisher.write(&bench.web, &[file("one", "1")], None, true).unwrap();
    assert_eq!((first.copy, second.copy), (0, 1));
    assert_eq!(second.to_string().parse::<PublicationId>().unwrap(), second);
    // The one that is shown is found first as long as it is whole.
    assert_eq!(bench.write(&[file("one", "1")]), first);
}

fn watched(bench: &Bench) -> (DriftWatch, Receiver<GroupName>) {
    let (sender, receiver) = channel();
    let watch = DriftWatch::start(move |group| drop(sender.send(group))).unwrap();
    let id = bench.publisher.current(&bench.web).unwrap().unwrap();
    watch.watch(&bench.publisher, &bench.web, id, &bench.mount()).unwrap();
    (watch, receiver)
}

#[test]
fn the_watch_says_look_at_every_kind_of_change() {
    type Change = fn(&Bench, &Path);
    let changes: [(&str, Change); 6] = [
        ("mode", |_, files| allow(&files.join("sub/two"))),
        ("new file", |_, files| tamper(&files.join("sub"), || std::fs::write(files.join("sub/x"), "").unwrap())),
        ("link removed", |bench, _| std::fs::remove_file(bench.mount()).unwrap()),
        ("link moved", |bench, _| std::fs::rename(bench.mount(), format!("{}.old", bench.mount())).unwrap()),
        ("view removed", |bench, _| std::fs::remove_file(bench.publisher.view_point(&bench.web).join("files")).unwrap()),
        ("record", |_, files| allow(&files.with_file_name("manifest"))),
    ];
    for (name, change) in changes {
        let bench = Bench::new();
        let id = bench.show(&[file("one", "1"), file("sub/two", "1")]);
        let (_watch, told) = watched(&bench);
        change(&bench, &bench.files(id));
        assert_eq!(told.recv_timeout(NOTICED_WITHIN).as_ref(), Ok(&bench.web), "{name}");
    }
}

/// Events come in order: had reading been told, it would be told before the change of the other group.
#[test]
fn reading_and_what_lies_beside_the_link_wake_nobody() {
    let bench = Bench::new();
    bench.show(&[file("one", "1")]);
    let (watch, told) = watched(&bench);
    let other = group("other");
    let mount = bench.dir.path().join("etc/other").to_str().unwrap().to_owned();
    let id = bench.publisher.write(&other, &[file("one", "1")], None, false).unwrap();
    bench.publisher.switch(&other, id, &mount).unwrap();
    watch.watch(&bench.publisher, &other, id, &mount).unwrap();
    assert_eq!(bench.shown("one"), "1");
    std::fs::read_dir(bench.mount()).unwrap().for_each(drop);
    std::fs::write(bench.dir.path().join("etc/neighbour"), "").unwrap();
    std::fs::remove_file(&mount).unwrap();
    // Groups told together come in the order of their names, so `web` could also come behind it.
    assert_eq!(told.recv_timeout(NOTICED_WITHIN).as_ref(), Ok(&other));
    drop(watch);
    assert_eq!(told.into_iter().find(|group| *group == bench.web), None);
}

/// As above: the change of the last group is told first. Groups told together come in the order of their names.
#[test]
fn what_is_no_longer_watched_is_not_told() {
    let bench = Bench::new();
    let first = bench.show(&[file("one", "1")]);
    let second = bench.write(&[file("one", "2")]);
    let (third, last) = (group("third"), group("zz-last"));
    let mount = |name: &str| bench.dir.path().join("etc").join(name).to_str().unwrap().to_owned();
    let publish = |group: &GroupName, name: &str| {
        let id = bench.publisher.write(group, &[file("one", "1")], None, false).unwrap();
        bench.publisher.switch(group, id, &mount(name)).unwrap();
        id
    };
    let (third_id, last_id) = (publish(&third, "third"), publish(&last, "last"));
    let (watch, told) = watched(&bench);
    watch.watch(&bench.publisher, &bench.web, second, &bench.mount()).unwrap();
    watch.watch(&bench.publisher, &third, third_id, &mount("third")).unwrap();
    watch.watch(&bench.publisher, &last, last_id, &mount("last")).unwrap();
    watch.unwatch(&third);
    allow(&bench.files(first).join("one"));
    std::fs::remove_file(mount("third")).unwrap();
    std::fs::remove_file(mount("last")).unwrap();
    assert_eq!(told.recv_timeout(NOTICED_WITHIN), Ok(last));
    allow(&bench.files(second).join("one"));
    assert_eq!(told.recv_timeout(NOTICED_WITHIN).as_ref(), Ok(&bench.web));
}
