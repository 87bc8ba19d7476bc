//! Disks that are full or read-only: real ones, small and in memory, where rights allow.

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use super::*;

/// A file system of its own at `data`, taken away with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, said aloud, where rights do not allow it; with `CI=true` that is a failure.
    fn new(options: &str) -> Option<(tempfile::TempDir, Self)> {
        let dir = folder();
        let place = dir.path().join("data");
        std::fs::create_dir(&place).unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        match mount("tagfall-test", &place, "tmpfs", MountFlags::empty(), options.as_c_str()) {
            Ok(()) => Some((dir, Self(place))),
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "no right to mount a tmpfs: {error}");
                eprintln!("skipped: no right to mount a tmpfs ({error})");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// In this order: the disk is taken away before the folder that it is in.
fn bench_on(options: &str) -> Option<(Bench, SmallDisk)> {
    let (dir, disk) = SmallDisk::new(options)?;
    let publisher = Publisher::open(&disk.0).unwrap();
    Some((Bench { dir, publisher, web: group("web") }, disk))
}

#[test]
fn a_full_disk_leaves_nothing_behind_and_the_last_publication_shown() {
    // By bytes, and by files.
    let many: Vec<_> = (0..200).map(|n| file(&format!("d/f{n}"), "x")).collect();
    let cases = [("size=256k", vec![file("one", &"x".repeat(512 * 1024))]), ("size=4m,nr_inodes=40", many)];
    for (options, big) in cases {
        let Some((bench, _disk)) = bench_on(options) else { return };
        let id = bench.show(&[file("one", "1")]);
        let error = bench.publisher.write(&bench.web, &big, None, false).unwrap_err();
        assert!(matches!(error, PublishError::NoSpace { .. }), "{options}: {error}");
        assert_eq!(leftovers(bench.dir.path()), Vec::<PathBuf>::new());
        assert_eq!(bench.publisher.list(&bench.web).unwrap(), [id]);
        assert_eq!(bench.publisher.verify(&bench.web, id).unwrap(), Vec::<String>::new());
        assert_eq!(bench.shown("one"), "1");
        bench.show(&[file("one", "2")]);
        assert_eq!(bench.shown("one"), "2", "with space again it goes on");
    }
}

#[test]
fn a_disk_that_is_read_only_is_named_and_still_shows() {
    let Some((bench, disk)) = bench_on("size=1m") else { return };
    let id = bench.show(&[file("one", "1")]);
    mount_remount(&disk.0, MountFlags::RDONLY, "").unwrap();
    let error = bench.publisher.write(&bench.web, &[file("one", "2")], None, false).unwrap_err();
    assert!(matches!(error, PublishError::ReadOnly { .. }), "{error}");
    assert!(bench.publisher.verify(&bench.web, id).unwrap().is_empty());
    bench.publisher.switch(&bench.web, id, &bench.mount()).unwrap();
    assert_eq!(bench.shown("one"), "1");
    mount_remount(&disk.0, MountFlags::empty(), "").unwrap();
    bench.show(&[file("one", "2")]);
    assert_eq!(bench.shown("one"), "2");
}
