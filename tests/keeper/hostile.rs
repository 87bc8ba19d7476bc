//! A supervisor in hostile hands: what it is left with, and that the keeper does for it only what the operator's lists allow,
//! whatever it asks for and whatever it puts into the folders that it writes.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tagfall::keeper::wire::{Command, Request};
use tagfall::keeper::{Grants, NAMELESS_ID, RunAs};
use tagfall::model::{GroupName, Hardening, ServiceState, View};

use crate::stage::{NOBODY, Stage, is_root, publication, shell, wait_until};

/// What it tried to write as the first thing, and what came of it: in a place that it may write.
const PROBED: &str = "state/probed";

/// In the place of the supervisor: tries what it should not be able to do. `bridge` lies beside the data folder.
pub(crate) fn probe(bridge: &Path) {
    // As root it would succeed.
    if rustix::process::geteuid().as_raw() != NAMELESS_ID {
        return;
    }
    let data = bridge.with_file_name("data");
    let mut told = String::new();
    for (name, path) in [
        ("etc", PathBuf::from("/etc/tagfall-hostile")),
        ("tmp", PathBuf::from("/tmp").join(format!("tagfall-hostile-{}", std::process::id()))),
        ("data", data.join("mine")),
        ("keeper", data.join("keeper/mine")),
        ("logs", data.join("logs/mine")),
        ("user", data.join("user/mine")),
        ("git", data.join("git/mine")),
        ("null", PathBuf::from("/dev/null")),
    ] {
        let result = fs::write(path, "x").err().map_or_else(|| "ok".to_owned(), |error| error.kind().to_string());
        told.push_str(&format!("{name}={result}\n"));
    }
    let moved = fs::rename(data.join("keeper"), data.join("git/keeper"));
    told.push_str(&format!("move={}\n", moved.err().map_or_else(|| "ok".to_owned(), |error| error.kind().to_string())));
    let mount = rustix::mount::mount("tmpfs", "/mnt", "tmpfs", rustix::mount::MountFlags::empty(), None::<&std::ffi::CStr>);
    told.push_str(&format!("mount={}\n", mount.err().map_or_else(|| "ok".to_owned(), |error| error.to_string())));
    let keeper = rustix::process::getppid().map(rustix::process::test_kill_process);
    told.push_str(&format!("signal={}\n", matches!(keeper, Some(Err(_)))));
    // Nobody reads it where the supervisor is not one of its own.
    let _ = fs::File::create(data.join(PROBED)).and_then(|mut file| file.write_all(told.as_bytes()));
}

fn nameless() -> RunAs {
    RunAs { name: NAMELESS_ID.to_string(), uid: NAMELESS_ID, gid: NAMELESS_ID, chosen: true }
}

fn list(entries: &[&str]) -> Option<Vec<String>> {
    Some(entries.iter().map(|entry| (*entry).to_owned()).collect())
}

/// A keeper of root's whose supervisor is another user, with a list of the one user `nobody`; `None` without root.
fn stage() -> Option<Stage> {
    common::need(is_root(), "only root can give the supervisor a user of its own").ok()?;
    Some(Stage::with_grants(Grants { run_as: Some(nameless()), users: list(&["nobody"]), ..Grants::default() }))
}

/// As if the supervisor had made it.
fn link_of_the_supervisors(target: impl AsRef<Path>, path: &Path) {
    symlink(target, path).unwrap();
    lchown(path, Some(NAMELESS_ID), Some(NAMELESS_ID)).unwrap();
}

fn folder_of_the_supervisors(path: &Path) {
    fs::create_dir_all(path).unwrap();
    lchown(path, Some(NAMELESS_ID), Some(NAMELESS_ID)).unwrap();
}

fn ids(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o7777)
}

fn group(name: &str) -> GroupName {
    name.parse().unwrap()
}

#[test]
fn it_is_left_with_a_user_of_its_own_and_nothing_else() {
    let Some(stage) = stage() else { return };
    let text = fs::read_to_string(format!("/proc/{}/status", stage.supervisor_pid())).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let four = [NAMELESS_ID.to_string(), NAMELESS_ID.to_string(), NAMELESS_ID.to_string(), NAMELESS_ID.to_string()].join(" ");
    assert_eq!((field("Uid"), field("Gid"), field("Groups")), (four.clone(), four, NAMELESS_ID.to_string()));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    let hello = stage.hello.clone().unwrap();
    assert_eq!(hello.supervisor_user, Some(NAMELESS_ID.to_string()));
    if hello.lacks.is_empty() {
        assert_eq!(field("Seccomp"), "2");
    }
    let probed =
        wait_until("what it tried", || fs::read_to_string(stage.data.join(PROBED)).ok().filter(|text| text.contains("signal")));
    let tried = |name: &str| probed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap().to_owned();
    for denied in ["etc", "data", "keeper", "logs", "user", "move"] {
        assert_eq!(tried(denied), "permission denied", "{denied}: {probed}");
    }
    assert_eq!((tried("git"), tried("null"), tried("signal")), ("ok".to_owned(), "ok".to_owned(), "true".to_owned()), "{probed}");
    assert!(tried("mount").contains("Operation not permitted"), "{probed}");
    if hello.lacks.is_empty() {
        assert_eq!(tried("tmp"), "permission denied", "where anybody may write, the fence holds: {probed}");
    }
    assert_eq!(ids(&stage.data), (0, 0, 0o755));
    assert_eq!(ids(&stage.data.join("keeper")).0, 0);
}

#[test]
fn nothing_runs_as_a_user_that_is_not_on_the_list() {
    let Some(mut stage) = stage() else { return };
    for user in [None, Some("root"), Some("daemon")] {
        let mut spec = shell("other", "exec sleep 1000");
        spec.launch.user = user.map(str::to_owned);
        let why = stage.ask(&Request::Run(Box::new(spec.clone()))).unwrap_err();
        assert!(why.contains("only as nobody") && why.contains("`users` in [keeper]"), "{why}");
        assert!(!stage.reports.contains_key(&spec.group));
        let command = Command {
            user: user.map(str::to_owned),
            argv: vec!["/bin/true".to_owned()],
            timeout: Duration::from_secs(5),
            ..Command::default()
        };
        assert!(stage.exec(command).unwrap_err().contains("only as nobody"), "{user:?}");
        let why = stage.ask(&Request::Readers { group: group("web"), user: user.unwrap_or("root").to_owned() }).unwrap_err();
        assert!(why.contains("only as nobody"), "{why}");
    }
    let mut spec = shell("meek", "exec sleep 1000");
    spec.launch.user = Some("nobody".to_owned());
    stage.run(&spec);
    stage.wait_state(&spec.group, ServiceState::Running);
    // A command beside it is its user's, unless it names another.
    let id = |user: Option<&str>| Command {
        group: Some(spec.group.clone()),
        user: user.map(str::to_owned),
        argv: ["id", "-u"].map(str::to_owned).to_vec(),
        timeout: Duration::from_secs(20),
        ..Command::default()
    };
    assert_eq!(stage.exec(id(None)).unwrap().output.trim(), NOBODY.to_string());
    assert!(stage.exec(id(Some("root"))).is_err());
}

#[test]
fn a_list_that_has_become_shorter_holds_for_what_is_started_next() {
    let Some(mut stage) = stage() else { return };
    let mut spec = shell("former", "exec sleep 1000");
    spec.launch.user = Some("nobody".to_owned());
    stage.run(&spec);
    stage.wait_state(&spec.group, ServiceState::Running);
    stage.setting.grants.users = list(&["daemon"]);
    stage.replace_keeper();
    let pid = stage.wait_state(&spec.group, ServiceState::Running).pid.unwrap();
    crate::stage::signal(pid, rustix::process::Signal::KILL);
    let report = stage.wait_for(&spec.group, |report| report.message.contains("only as daemon"));
    assert_eq!(report.pid, None);
}

#[test]
fn hardening_none_has_the_listed_capabilities_at_most() {
    if common::need(is_root(), "only root has capabilities to limit").is_err() {
        return;
    }
    let mut stage = Stage::with_grants(Grants { capabilities: list(&["CAP_NET_BIND_SERVICE"]), ..Grants::default() });
    let mut spec = shell("proud", "exec sleep 1000");
    spec.launch.hardening = Some(Hardening::None);
    stage.run(&spec);
    let pid = stage.wait_state(&spec.group, ServiceState::Running).pid.unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in ["CapEff:\t0000000000000400", "CapBnd:\t0000000000000400", "CapPrm:\t0000000000000400", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    assert!(stage.reports[&spec.group].message.contains("CAP_NET_BIND_SERVICE"), "{}", stage.reports[&spec.group].message);
}

#[test]
fn a_service_is_shown_its_groups_publications_and_nothing_that_a_link_leads_to() {
    let Some(mut stage) = stage() else { return };
    if stage.hello.clone().unwrap().namespaces.is_err() {
        return;
    }
    let mut spec = shell("shown", "exec sleep 1000");
    spec.launch.user = Some("nobody".to_owned());
    let good = publication(&stage.data, &spec.group, "good");
    let bad = |source: &str, point: &str| View { source: source.to_owned(), point: point.to_owned(), ..good.clone() };
    for view in
        [bad("/etc", &good.point), bad(&good.source, "/etc"), bad(&format!("{}/../../../keeper", good.source), &good.point)]
    {
        spec.view = Some(view);
        let why = stage.ask(&Request::Run(Box::new(spec.clone()))).unwrap_err();
        assert!(why.contains("nothing else"), "{why}");
    }
    spec.view = Some(good.clone());
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    // Another one, by a link in the place of the publication, and of the group's folder.
    let secret = stage.data.with_file_name("secret");
    fs::create_dir(&secret).unwrap();
    let next = publication(&stage.data, &spec.group, "next");
    fs::remove_dir_all(&next.source).unwrap();
    link_of_the_supervisors(&secret, Path::new(&next.source));
    let reload = Request::Reload { group: spec.group.clone(), view: next.clone(), signal: None };
    assert!(stage.ask(&reload).unwrap_err().contains("still sees the one before"));
    let folder = Path::new(&next.source).parent().unwrap().to_owned();
    fs::rename(&folder, folder.with_file_name("away")).unwrap();
    link_of_the_supervisors(&secret, &folder);
    fs::create_dir(secret.join(next.publication.to_string())).unwrap();
    assert!(stage.ask(&reload).unwrap_err().contains("still sees the one before"));
    let reload = Request::Reload { group: spec.group.clone(), view: bad("/etc", &good.point), signal: None };
    assert!(stage.ask(&reload).unwrap_err().contains("nothing else"));
    assert_eq!(stage.reports[&spec.group].publication, report.publication);
    // The place itself as a link: nothing is mounted where it leads.
    fs::remove_file(&folder).unwrap();
    fs::rename(folder.with_file_name("away"), &folder).unwrap();
    let mut other = shell("misled", "exec sleep 1000");
    other.launch.user = Some("nobody".to_owned());
    let view = publication(&stage.data, &other.group, "one");
    fs::remove_dir(&view.point).unwrap();
    link_of_the_supervisors(&secret, Path::new(&view.point));
    other.view = Some(view);
    stage.run(&other);
    let report = stage.wait_for(&other.group, |report| report.message.contains("its publication cannot be mounted"));
    assert_ne!(report.state, ServiceState::Running);
}

#[test]
fn a_link_stands_only_where_the_operator_allows_and_nothing_else_stood() {
    if common::need(is_root(), "only root can give the supervisor a user of its own").is_err() {
        return;
    }
    let outer = common::temp_dir();
    let root = outer.path().join("allowed");
    fs::create_dir(&root).unwrap();
    let roots = list(&[root.to_str().unwrap()]);
    let mut stage = Stage::with_grants(Grants { run_as: Some(nameless()), mount_roots: roots, ..Grants::default() });
    let web = group("web");
    let link = |path: PathBuf| Request::Link { group: web.clone(), path: path.to_str().unwrap().to_owned() };
    let unlink = |path: PathBuf| Request::Unlink { group: web.clone(), path: path.to_str().unwrap().to_owned() };
    for outside in [outer.path().join("x"), root.clone(), root.join("../x"), PathBuf::from("/etc/tagfall-hostile/x")] {
        let why = stage.ask(&link(outside.clone())).unwrap_err();
        assert!(why.contains("mount_roots") || why.contains("no plain"), "{why}");
        assert!(fs::symlink_metadata(outer.path().join("x")).is_err());
    }
    let (view, place) = (stage.data.join("view/web.default/files"), root.join("a/b/web"));
    for _ in 0..2 {
        stage.ask(&link(place.clone())).unwrap();
        assert_eq!(fs::read_link(&place).unwrap(), view);
    }
    assert_eq!((ids(&root.join("a")), ids(&root.join("a/b"))), ((0, 0, 0o755), (0, 0, 0o755)));
    // What stands there stays, and another group's link is not this one's to take.
    for (name, make) in [
        ("file", (|path: &Path| fs::write(path, "mine").unwrap()) as fn(&Path)),
        ("folder", |path| fs::create_dir(path).unwrap()),
        ("link", |path| symlink("/nowhere", path).unwrap()),
    ] {
        make(&root.join(name));
        let before = fs::symlink_metadata(root.join(name)).unwrap().ino();
        assert!(stage.ask(&link(root.join(name))).unwrap_err().contains("leaves as it is"), "{name}");
        stage.ask(&unlink(root.join(name))).unwrap();
        assert_eq!(fs::symlink_metadata(root.join(name)).unwrap().ino(), before, "{name}");
    }
    stage.ask(&Request::Unlink { group: group("db"), path: place.to_str().unwrap().to_owned() }).unwrap();
    assert!(place.is_symlink());
    // A link on the way is followed where root made it, and only there.
    let elsewhere = outer.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, root.join("roots")).unwrap();
    link_of_the_supervisors(&elsewhere, &root.join("theirs"));
    let why = stage.ask(&link(root.join("theirs/web"))).unwrap_err();
    assert!(why.contains("none of root's"), "{why}");
    assert!(fs::symlink_metadata(elsewhere.join("web")).is_err());
    stage.ask(&link(root.join("roots/web"))).unwrap();
    assert!(elsewhere.join("web").is_symlink());
    for path in [root.join("roots/web"), place.clone(), place] {
        stage.ask(&unlink(path.clone())).unwrap();
        assert!(fs::symlink_metadata(&path).is_err());
    }
}

#[test]
fn only_the_supervisors_own_folder_is_given_to_readers() {
    let Some(mut stage) = stage() else { return };
    let published = stage.data.join("publications");
    let ask = |stage: &mut Stage, name: &str| stage.ask(&Request::Readers { group: group(name), user: "nobody".to_owned() });
    folder_of_the_supervisors(&published.join("web.default"));
    for _ in 0..2 {
        ask(&mut stage, "web").unwrap();
        assert_eq!(ids(&published.join("web.default")), (NAMELESS_ID, NOBODY, 0o2755));
    }
    // All that is made in it is the readers' without another word.
    fs::create_dir(published.join("web.default/one")).unwrap();
    fs::write(published.join("web.default/one/file"), "").unwrap();
    assert_eq!(ids(&published.join("web.default/one/file")).1, NOBODY);
    let secret = stage.data.with_file_name("secret");
    fs::create_dir(&secret).unwrap();
    let before = ids(&secret);
    link_of_the_supervisors(&secret, &published.join("link.default"));
    fs::create_dir(published.join("roots.default")).unwrap();
    for bad in ["link", "roots", "none"] {
        ask(&mut stage, bad).unwrap_err();
    }
    assert_eq!((ids(&secret), ids(&published.join("roots.default"))), (before, (0, 0, 0o755)));
    let unknown = stage.ask(&Request::Readers { group: group("web"), user: "no-such-user".to_owned() }).unwrap_err();
    assert!(unknown.contains("only as nobody"), "{unknown}");
}

#[test]
fn only_folders_among_its_own_publications_are_reclaimed() {
    let Some(mut stage) = stage() else { return };
    let web = stage.data.join("publications/web.default");
    folder_of_the_supervisors(&web.join("one"));
    lchown(&web, Some(NAMELESS_ID), Some(NAMELESS_ID)).unwrap();
    let (secret, inside) = (stage.data.with_file_name("secret"), web.join("one/by-hand/deep"));
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("file"), "").unwrap();
    fs::set_permissions(secret.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(&inside).unwrap();
    fs::write(inside.join("file"), "of root").unwrap();
    fs::hard_link(secret.join("file"), inside.join("second-name")).unwrap();
    link_of_the_supervisors(&secret, &inside.join("link"));
    let before = (ids(&secret), ids(&secret.join("file")));
    stage.ask(&Request::Reclaim { group: group("web") }).unwrap();
    assert_eq!((ids(&inside).0, ids(&inside.join("file")).0), (NAMELESS_ID, 0));
    assert_eq!((ids(&secret), ids(&secret.join("file"))), before);
    link_of_the_supervisors(&secret, &stage.data.join("publications/link.default"));
    stage.ask(&Request::Reclaim { group: group("link") }).unwrap_err();
    stage.ask(&Request::Reclaim { group: group("none") }).unwrap();
    assert_eq!((ids(&secret), ids(&secret.join("file"))), before);
}

#[test]
fn the_name_of_a_held_socket_is_no_way_to_another_file() {
    let Some(mut stage) = stage() else { return };
    let folder = stage.data.join("git/sockets");
    folder_of_the_supervisors(&folder);
    let secret = stage.data.with_file_name("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("s.sock"), "of root").unwrap();
    let before = ids(&secret.join("s.sock"));
    let listening = |name: &str, path: &Path| {
        let mut spec = shell(name, "exec sleep 1000");
        spec.launch.user = Some("nobody".to_owned());
        spec.launch.listen = vec![format!("unix://{}", path.display())];
        spec
    };
    let spec = listening("listens", &folder.join("s.sock"));
    stage.run(&spec);
    stage.wait_state(&spec.group, ServiceState::Running);
    assert_eq!(ids(&folder.join("s.sock")), (NOBODY, NOBODY, 0o666));
    // While it is held, its folder becomes a link to another one: what has the same name there is not removed.
    fs::rename(&folder, folder.with_file_name("moved")).unwrap();
    link_of_the_supervisors(&secret, &folder);
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    assert_eq!(ids(&secret.join("s.sock")), before);
    wait_until("the socket itself is gone", || (!folder.with_file_name("moved").join("s.sock").exists()).then_some(()));
    let other = listening("misled", &folder.join("new.sock"));
    stage.run(&other);
    stage.wait_for(&other.group, |report| report.message.contains("none of root's"));
    assert!(!secret.join("new.sock").exists());
}
