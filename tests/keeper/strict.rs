//! How far `hardening = "strict"` shuts a service in.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Pid, PidfdFlags, pidfd_getfd, pidfd_open};
use tagfall::keeper::wire::Command;
use tagfall::model::{Hardening, MountMode, ServiceSpec, ServiceState};

use crate::fixture::{STEPS, doing};
use crate::stage::{Stage, is_root, publication, wait_until};

/// What the fixture tries, in a folder with what it needs to know; prints what came of each.
pub(crate) fn probe(rest: &str) {
    let [keeper, secret, point] = rest.split(',').collect::<Vec<_>>().try_into().unwrap();
    let keeper = Pid::from_raw(keeper.parse().unwrap()).unwrap();
    let told = |name: &str, result: Result<(), String>| println!("{name}={}", result.err().unwrap_or_else(|| "ok".to_owned()));
    let write = |path: &str| fs::write(path, "x\n").map_err(|error| error.kind().to_string());
    told("etc", write("/etc/tagfall-test-strict"));
    told("usr", write("/usr/tagfall-test-strict"));
    told("own", write("own"));
    told("config", fs::read_to_string(format!("{point}/a")).map(drop).map_err(|error| error.to_string()));
    told("config-write", write(&format!("{point}/new")));
    told("secret", fs::read(secret).map(drop).map_err(|error| error.kind().to_string()));
    told("tmp", write("/tmp/own"));
    told("shm", write("/dev/shm/own"));
    told("null", write("/dev/null"));
    told("kmsg", fs::metadata("/dev/kmsg").map(drop).map_err(|error| error.kind().to_string()));
    told("setting", write("/proc/sys/vm/swappiness"));
    told(
        "keeper",
        fs::metadata(format!("/proc/{}", keeper.as_raw_nonzero())).map(drop).map_err(|error| error.kind().to_string()),
    );
    told("signal", rustix::process::test_kill_process(keeper).map_err(|error| error.to_string()));
    let mount = rustix::mount::mount("tmpfs", ".", "tmpfs", rustix::mount::MountFlags::empty(), None::<&std::ffi::CStr>);
    told("mount", mount.map_err(|error| error.to_string()));
    // Needs the same right as ptrace; for oneself, nobody else has a say in it.
    let pidfd = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
    let taken = pidfd_getfd(&pidfd, 1, rustix::process::PidfdGetfdFlags::empty());
    told("getfd", taken.map(drop).map_err(|error| error.to_string()));
    let namespace = fs::File::open("/proc/self/ns/uts").unwrap();
    let entered = rustix::thread::move_into_link_name_space(namespace.as_fd(), None);
    told("setns", entered.map_err(|error| error.to_string()));
    let packet = socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::empty(), None);
    told("packet", packet.map(drop).map_err(|error| error.to_string()));
    let set_id = fs::set_permissions("own", fs::Permissions::from_mode(0o4755));
    told("set-id", set_id.map_err(|error| error.to_string()));
    told("mode", fs::set_permissions("own", fs::Permissions::from_mode(0o700)).map_err(|error| error.to_string()));
    told("anew", write("/dev/stdout"));
    println!("probed=ok");
}

/// A strict service that probes what it may, then serves.
fn strict(stage: &Stage, name: &str, user: Option<&str>) -> (ServiceSpec, u16) {
    let mut spec = doing(name, &[]);
    let view = publication(&stage.data, &spec.group, "one");
    let secret = stage.data.with_file_name("secret");
    fs::write(&secret, "of another").unwrap();
    let steps = format!("probe {},{},{}|serve", stage.keeper.id(), secret.display(), view.point);
    let port = common::free_port();
    spec.launch.argv = vec![std::env::current_exe().unwrap().display().to_string()];
    spec.launch.argv.extend(["--exact", "fixture_of_services", "--nocapture"].map(str::to_owned));
    spec.launch.env = vec![(STEPS.to_owned(), steps)];
    spec.launch.user = user.map(str::to_owned);
    spec.launch.working_dir = stage.data.join("var").join(spec.group.to_string()).display().to_string();
    spec.launch.hardening = Some(Hardening::Strict);
    spec.launch.listen = vec![format!("tcp://127.0.0.1:{port}")];
    spec.view = Some(view);
    (spec, port)
}

fn found(stage: &mut Stage, spec: &ServiceSpec) -> BTreeMap<String, String> {
    stage.run(spec);
    stage.wait_line(&spec.group, |line| line == "probed=ok");
    stage.wait_state(&spec.group, ServiceState::Running);
    let lines = stage.logs(&spec.group).into_iter().map(|line| line.line);
    lines.filter_map(|line| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))).collect()
}

/// What holds with and without the right to mount.
fn check_always(found: &BTreeMap<String, String>) {
    for allowed in ["own", "config", "null", "mode"] {
        assert_eq!(found[allowed], "ok", "{allowed}: {found:#?}");
    }
    for denied in ["etc", "usr", "config-write", "signal", "mount", "getfd", "setns", "set-id", "packet", "setting"] {
        assert_ne!(found[denied], "ok", "{denied}: {found:#?}");
    }
    for filtered in ["mount", "getfd", "setns", "set-id"] {
        assert!(found[filtered].contains("Operation not permitted"), "{filtered}: {found:#?}");
    }
    assert!(found["packet"].contains("Address family not supported"), "{found:#?}");
}

fn answer(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.trim().to_owned()
}

fn check_shielded(user: Option<&str>) {
    let mut stage = Stage::new();
    let (spec, port) = strict(&stage, "shut-in", user);
    let found = found(&mut stage, &spec);
    check_always(&found);
    let report = stage.reports[&spec.group].clone();
    assert_eq!(answer(port), report.pid.unwrap().to_string());
    if let Err(why) = stage.hello.clone().unwrap().namespaces {
        assert!(report.message.contains("not enforced") && report.message.contains(&why), "{}", report.message);
        return;
    }
    assert_eq!((report.mount_mode, report.message.as_str()), (MountMode::Namespace, ""));
    for allowed in ["tmp", "shm", "anew"] {
        assert_eq!(found[allowed], "ok", "{allowed}: {found:#?}");
    }
    for hidden in ["secret", "kmsg", "keeper"] {
        assert_eq!(found[hidden], "entity not found", "{hidden}: {found:#?}");
    }
    // Nothing of it is seen by anybody else, or stays.
    assert!(!std::path::Path::new("/tmp/own").exists());
    // A new publication is shown to it all the same, and a command beside it sees what it sees.
    let next = publication(&stage.data, &spec.group, "two");
    let point = next.point.clone();
    let request = tagfall::keeper::wire::Request::Reload { group: spec.group.clone(), view: next, signal: None };
    stage.ask(&request).unwrap();
    let script = format!("cat {point}/a; ls /tmp; touch /etc/tagfall-test-strict; kill -0 $PPID");
    let argv = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
    let command = Command { group: Some(spec.group.clone()), argv, timeout: Duration::from_secs(20), ..Command::default() };
    let output = stage.exec(command).unwrap().output;
    assert!(output.starts_with("two\n") && output.contains("own\n") && output.contains("Read-only"), "{output}");
}

#[test]
fn a_strict_service_sees_and_may_only_what_it_needs() {
    check_shielded(is_root().then_some("nobody"));
}

#[test]
fn a_strict_service_of_root_is_shut_in_no_less() {
    check_shielded(None);
}

#[test]
fn without_the_right_to_mount_the_rest_holds_and_what_does_not_is_named() {
    let mut stage = Stage::unprivileged();
    let (mut spec, port) = strict(&stage, "fenced", None);
    // Shown through the host's link, which this test does not have.
    if let Some(view) = &spec.view {
        spec.launch.env[0].1 = spec.launch.env[0].1.replace(&view.point, &view.source);
    }
    let found = found(&mut stage, &spec);
    check_always(&found);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    assert_eq!(answer(port), report.pid.unwrap().to_string());
    if let Err(why) = stage.hello.clone().unwrap().namespaces {
        let named = ["not enforced on this host: private /tmp", "read-only system", why.as_str()];
        assert!(named.iter().all(|words| report.message.contains(words)), "{}", report.message);
        assert_ne!(found["tmp"], "ok", "{found:#?}");
    }
    stage.ask(&tagfall::keeper::wire::Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    wait_until("its port is closed", || TcpStream::connect(("127.0.0.1", port)).err());
}
