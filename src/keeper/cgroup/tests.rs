//! What /proc and the kernel's files say, and the groups that this machine allows.

use super::find::{dirs, parse_mounts};
use super::*;

const HYBRID_MOUNTS: &str = "\
30 23 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/a\\040blank rw,relatime - cgroup cgroup rw,pids
34 30 0:30 /docker/1 /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
35 30 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
36 30 0:32 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
";

#[test]
fn own_groups_are_found_in_every_hierarchy() {
    let memberships = "9:name=systemd:/\n8:pids:/\n6:freezer:/docker/1/x\n4:memory:/a/b\n1:cpu,cpuacct:/c:d\n0::/e\n";
    let own = dirs(&parse_mounts(HYBRID_MOUNTS), memberships);
    assert_eq!(own.unified, Some("/sys/fs/cgroup/unified/e".into()));
    let mut v1 = own.v1;
    v1.sort();
    let wanted = [
        (Controller::Memory, "/sys/fs/cgroup/memory/a/b".into()),
        (Controller::Pids, "/sys/fs/cgroup/a blank".into()),
        (Controller::Cpu, "/sys/fs/cgroup/cpu,cpuacct/c:d".into()),
        (Controller::Freezer, "/sys/fs/cgroup/freezer/x".into()),
    ];
    assert_eq!(v1, wanted);
}

#[test]
fn what_is_not_mounted_or_lies_outside_is_not_used() {
    let own = |mounts: &str, memberships: &str| dirs(&parse_mounts(mounts), memberships);
    assert_eq!(own("", "0::/\n4:memory:/\n"), find::OwnDirs::default());
    assert_eq!(own("rubbish\n1 2 - cgroup2\n", "0::/\n"), find::OwnDirs::default());
    assert_eq!(
        own(HYBRID_MOUNTS, "rubbish\n\n6:freezer:/docker/12/x\n0::/../other\n6:freezer:/elsewhere\n"),
        find::OwnDirs::default()
    );
    let only_unified = "25 23 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
    let found = own(only_unified, "0::/system.slice/tagfall.service\n");
    assert_eq!(found.unified, Some("/sys/fs/cgroup/system.slice/tagfall.service".into()));
    assert!(found.v1.is_empty());
}

#[test]
fn quotas_and_counters_are_read_and_written_as_the_kernel_has_them() {
    for (cores, quota) in [(1.0, 100_000), (0.25, 25_000), (1.5, 150_000), (0.000_1, 1_000), (0.0, 1_000), (f64::NAN, 1_000)] {
        assert_eq!(limits::quota_us(cores), quota, "{cores}");
    }
    let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
    assert_eq!(limits::field(events, "oom_kill"), Some(2));
    assert_eq!(limits::field("oom_kill_disable 0\nunder_oom 0\n", "oom_kill"), None);
    assert_eq!(limits::field("oom_kill x", "oom_kill"), None);
    assert_eq!(parse_controllers("cpuset cpu io memory pids freezer\n"), [Controller::Cpu, Controller::Memory, Controller::Pids]);
}

/// A directory that holds files as a group of either version does.
fn imitation(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (file, content) in files {
        fs::write(dir.path().join(file), content).unwrap();
    }
    dir
}

#[test]
fn limits_are_written_to_the_files_of_each_version() {
    let all = Limits { memory: Some(64 << 20), pids: Some(9), open_files: None, cpu: Some(0.5) };
    let files = ["memory.max", "pids.max", "cpu.max"].map(|file| (file, ""));
    let unified = imitation(&files);
    let read = |dir: &tempfile::TempDir, file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
    for controller in Controller::LIMITING {
        limits::set(controller, true, unified.path(), &all).unwrap();
    }
    assert_eq!(files.map(|(file, _)| read(&unified, file)), ["67108864", "9", "50000 100000"]);
    // There is no swap, and nothing was made in its place.
    assert_eq!(fs::read_dir(unified.path()).unwrap().count(), 3);
    let unlimited = imitation(&files);
    for controller in Controller::LIMITING {
        limits::set(controller, true, unlimited.path(), &Limits::default()).unwrap();
    }
    assert_eq!(files.map(|(file, _)| read(&unlimited, file)), ["max", "max", "max 100000"]);
    let files = ["memory.limit_in_bytes", "pids.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|file| (file, ""));
    let v1 = imitation(&files);
    for controller in Controller::LIMITING {
        limits::set(controller, false, v1.path(), &all).unwrap();
    }
    assert_eq!(files.map(|(file, _)| read(&v1, file)), ["67108864", "9", "50000", "100000"]);
    assert!(limits::set(Controller::Memory, true, v1.path(), &all).is_err());
}

#[test]
fn deaths_for_want_of_memory_are_counted_in_either_version() {
    let unified = imitation(&[("memory.events", "max 12\noom_kill 2\n")]);
    assert_eq!(limits::ooms(true, unified.path()), 2);
    let v1 = imitation(&[("memory.oom_control", "oom_kill_disable 0\noom_kill 4\n"), ("memory.failcnt", "99\n")]);
    assert_eq!(limits::ooms(false, v1.path()), 4);
    let old = imitation(&[("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n"), ("memory.failcnt", "99\n")]);
    assert_eq!(limits::ooms(false, old.path()), 99);
    let group: GroupName = "web".parse().unwrap();
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join(group.to_string());
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("memory.events"), "oom_kill 1\n").unwrap();
    let given = vec![Controller::Memory];
    let mut cgroups = Cgroups { unified: Some(base.path().to_owned()), given, ..Cgroups::default() };
    cgroups.watch(&group, &Limits { memory: Some(64 << 20), ..Limits::default() });
    let killed = Exit::Signal(Signal::KILL);
    assert_eq!(cgroups.explained(&group, killed), killed, "what was counted before is not this one's");
    fs::write(dir.join("memory.events"), "oom_kill 2\n").unwrap();
    assert_eq!(cgroups.explained(&group, Exit::Code(1)), Exit::Code(1));
    let explained = cgroups.explained(&group, killed);
    assert!(explained.to_string().contains("killed: out of memory (limit 64 MiB)"), "{explained}");
}

#[test]
fn a_stranger_is_not_taken_for_a_member() {
    let dir = Path::new("/sys/fs/cgroup/freezer/a/tagfall/0123456789ab/web.default");
    let within = |text: &str| sweep::is_within(text, dir);
    assert!(within("6:freezer:/a/tagfall/0123456789ab/web.default\n"));
    assert!(within("6:freezer:/\n0::/tagfall/0123456789ab/web.default/own/group\n"));
    assert!(!within("6:freezer:/a/tagfall/0123456789ab/web.default-2\n"));
    assert!(!within("6:freezer:/a/tagfall/ba9876543210/web.default\n"));
    assert!(!within("6:freezer:/\n0::/\n"));
    assert!(!within(""));
}

#[test]
fn populated_is_what_the_kernel_says_or_who_is_listed() {
    assert!(sweep::populated(imitation(&[("cgroup.events", "populated 1\nfrozen 0\n")]).path()));
    assert!(!sweep::populated(imitation(&[("cgroup.events", "populated 0\nfrozen 0\n"), ("cgroup.procs", "7\n")]).path()));
    assert!(!sweep::populated(imitation(&[("cgroup.procs", "")]).path()));
    let nested = imitation(&[("cgroup.procs", "")]);
    fs::create_dir(nested.path().join("inner")).unwrap();
    fs::write(nested.path().join("inner/cgroup.procs"), "41\n42\n").unwrap();
    assert_eq!(sweep::members(nested.path()), [41, 42]);
    assert!(sweep::populated(nested.path()));
    assert!(!sweep::populated(Path::new("/no/such/group")));
}

#[test]
fn without_any_hierarchy_it_is_said_by_name() {
    let mut cgroups = Cgroups { refused: BTreeMap::from([(None, "nothing is mounted".to_owned())]), ..Cgroups::default() };
    let group: GroupName = "web".parse().unwrap();
    let limits = Limits { memory: Some(1 << 30), pids: Some(3), open_files: None, cpu: Some(1.0) };
    let (place, notes) = cgroups.place(&group, &limits).unwrap();
    assert!(place.into.is_none() && place.join.is_empty());
    for word in ["`memory`", "`pids`", "`cpu`", "no cgroup"] {
        assert!(notes.iter().any(|note| note.contains(word) && note.contains("nothing is mounted")), "{word}: {notes:?}");
    }
    assert!(!cgroups.kill(&group));
    assert_eq!(cgroups.explained(&group, Exit::Signal(Signal::KILL)), Exit::Signal(Signal::KILL));
}

/// Groups of version 1 below this process's own, made by nobody else; taken away at the end.
struct Real(Cgroups);

impl Drop for Real {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// By when killed processes must be gone.
const BOUND: std::time::Duration = std::time::Duration::from_secs(20);

fn killed_in_v1(controller: Controller) -> Result<(), common::Skipped> {
    let own = find::own_dirs().unwrap().v1.into_iter().find(|(one, _)| *one == controller);
    let base = own.map(|(_, dir)| dir.join(TOP).join(format!("test-{}-{}", std::process::id(), controller.name())));
    let base = base.filter(|base| fs::create_dir_all(base).is_ok());
    common::need(base.is_some(), "it needs a hierarchy of cgroups of version 1 in which groups can be made")?;
    let mut real = Real(Cgroups { v1: base.into_iter().map(|base| (controller, base)).collect(), ..Cgroups::default() });
    let group: GroupName = "web".parse().unwrap();
    let (place, _) = real.0.place(&group, &Limits::default()).unwrap();
    assert!(place.into.is_none() && !real.0.kill(&group));
    // It goes in before it starts others, which each leave their session.
    let script = "read go; for i in 1 2 3 4 5; do setsid sleep 1000 & done; echo up; wait";
    let mut child = std::process::Command::new("sh");
    child.args(["-c", script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = child.spawn().unwrap();
    rustix::io::write(&place.join[0], child.id().to_string().as_bytes()).unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut up).unwrap();
    assert_eq!(real.0.populated()[&group].len(), 6);
    assert!(real.0.kill(&group));
    child.wait().unwrap();
    let end = std::time::Instant::now() + BOUND;
    while real.0.kill(&group) {
        assert!(std::time::Instant::now() < end, "left: {:?}", real.0.populated());
        std::thread::yield_now();
    }
    real.0.remove(&group);
    assert!(real.0.bases().all(|base| groups(base).is_empty()));
    Ok(())
}

#[test]
fn with_the_freezer_of_version_1_a_group_is_killed_whole() {
    let _ = killed_in_v1(Controller::Freezer);
}

#[test]
fn with_version_1_and_no_freezer_a_group_is_killed_whole() {
    let _ = killed_in_v1(Controller::Pids);
}

#[test]
fn controllers_are_given_on_at_every_level_or_it_is_said_why_not() {
    let own = imitation(&[("cgroup.controllers", "cpuset cpu memory\n"), ("cgroup.subtree_control", "")]);
    let base = own.path().join(TOP).join("0123456789ab");
    fs::create_dir_all(&base).unwrap();
    let levels = [own.path(), base.parent().unwrap(), base.as_path()];
    for dir in &levels[1..] {
        fs::write(dir.join("cgroup.subtree_control"), "").unwrap();
    }
    let mut cgroups = Cgroups::default();
    cgroups.give_controllers(own.path(), &base);
    // Files keep what was written, where the kernel's keep a list.
    for dir in levels {
        assert!(fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap().starts_with("+cpu"), "{}", dir.display());
    }
    fs::remove_file(base.join("cgroup.subtree_control")).unwrap();
    cgroups.give_controllers(own.path(), &base);
    assert!(cgroups.given.is_empty());
    assert!(cgroups.why_not(Some(Controller::Cpu)).contains("0123456789ab"), "{:?}", cgroups.refused);
    // It is alone nowhere but where it is listed alone.
    fs::write(own.path().join("cgroup.procs"), "1\n2\n").unwrap();
    assert!(step_aside(own.path()).is_err() && !own.path().join(KEEPER_LEAF).exists());
}

#[test]
fn what_a_killed_keeper_of_another_folder_left_is_removed_and_nothing_in_use_is() {
    let top = tempfile::tempdir().unwrap();
    let [own, used, deserted, lived_in] = ["own", "used", "deserted", "lived-in"].map(|name| top.path().join(name));
    for dir in [&own, &used.join("web"), &deserted.join("web"), &lived_in.join("web")] {
        fs::create_dir_all(dir).unwrap();
    }
    let _used = sweep::hold(&used).unwrap();
    assert!(sweep::hold(&used).is_err());
    sweep::remove_deserted(&lived_in);
    assert_eq!([&own, &used, &deserted, &lived_in].map(|dir| dir.exists()), [false, true, false, true]);
    fs::create_dir(&own).unwrap();
    fs::write(lived_in.join("web/cgroup.procs"), "7\n").unwrap();
    sweep::remove_deserted(&own);
    assert_eq!([&own, &used, &lived_in].map(|dir| dir.exists()), [true; 3]);
}
