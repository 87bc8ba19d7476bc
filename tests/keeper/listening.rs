//! Sockets that are held over restarts.

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tagfall::keeper::wire::Request;
use tagfall::model::ServiceState;

use crate::fixture::doing;
use crate::stage::{Stage, alive, signal, wait_until};

/// How long one client waits for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Restarts that the clients live through.
const RESTARTS: u64 = 10;

/// Connects; the answer is the process id of who answered, if somebody did before it ended.
fn connect(port: u16) -> Result<Option<u32>, std::io::Error> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    Ok(answer.trim().parse().ok())
}

#[test]
fn a_restart_refuses_no_connection() {
    let mut stage = Stage::new();
    let port = common::free_port();
    let mut spec = doing("serves", &["serve"]);
    spec.launch.listen = vec![format!("tcp://127.0.0.1:{port}"), format!("unix://{}/s.sock", stage.data.display())];
    stage.run(&spec);
    let first = stage.wait_state(&spec.group, ServiceState::Running);
    assert_eq!(stage.wait_line(&spec.group, |line| line.starts_with("sockets")), format!("sockets 2 tcp-{port}:unix-s.sock"));
    assert_eq!(connect(port).unwrap(), first.pid);
    let (over, connected, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let count = if connect(port).is_ok() { &connected } else { &refused };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        for restart in 0..RESTARTS {
            let before = stage.reports[&spec.group].clone();
            let seen = connected.load(Ordering::Relaxed);
            if restart % 2 == 0 {
                stage.ask(&Request::Restart { group: spec.group.clone() }).unwrap();
            } else {
                signal(before.pid.unwrap(), rustix::process::Signal::KILL);
            }
            stage
                .wait_for(&spec.group, |report| report.incarnation > before.incarnation && report.state == ServiceState::Running);
            assert!(!alive(before.pid.unwrap()));
            wait_until("somebody is answered again", || (connected.load(Ordering::Relaxed) > seen + 3).then_some(()));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(refused.load(Ordering::Relaxed), 0, "of {}", connected.load(Ordering::Relaxed));
    assert_eq!(connect(port).unwrap(), stage.reports[&spec.group].pid);
    // No longer asked for, it is closed; the same when the service stops for good.
    let other = common::free_port();
    spec.launch.listen = vec![format!("tcp://127.0.0.1:{other}")];
    stage.run(&spec);
    stage.wait_for(&spec.group, |report| report.launch == spec.launch.digest() && report.state == ServiceState::Running);
    assert!(connect(port).is_err() && connect(other).is_ok());
    assert!(!stage.data.join("s.sock").exists());
    stage.ask(&Request::Stop { group: spec.group.clone() }).unwrap();
    stage.wait_state(&spec.group, ServiceState::Stopped);
    assert!(connect(other).is_err());
}

#[test]
fn a_socket_that_cannot_be_had_is_named_and_tried_again() {
    let mut stage = Stage::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut spec = doing("waits", &["serve"]);
    spec.launch.listen = vec![format!("tcp://{address}")];
    stage.run(&spec);
    let report = stage.wait_state(&spec.group, ServiceState::Backoff);
    assert!(report.message.contains(&address.to_string()) && report.message.contains("another program"), "{}", report.message);
    drop(taken);
    let report = stage.wait_state(&spec.group, ServiceState::Running);
    assert_eq!(connect(address.port()).unwrap(), report.pid);
}

/// More sockets than there are numbers below that of the lock.
const SOCKETS: usize = 120;

#[test]
fn so_many_sockets_are_handed_over_and_the_lock_is_held_beside_them() {
    let mut stage = Stage::new();
    let mut spec = doing("many", &["env LISTEN_FDS", "print up"]);
    spec.launch.listen =
        (0..SOCKETS).map(|number| format!("unix://{}", stage.data.join(format!("{number}.sock")).display())).collect();
    stage.run(&spec);
    let pid = stage.wait_state(&spec.group, ServiceState::Running).pid.unwrap();
    stage.wait_line(&spec.group, |line| line == "up");
    stage.wait_line(&spec.group, |line| line == format!("env LISTEN_FDS={SOCKETS}"));
    let links: Vec<(usize, String)> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            Some((entry.file_name().to_str()?.parse().ok()?, target))
        })
        .collect();
    let sockets = links.iter().filter(|(number, to)| (3..3 + SOCKETS).contains(number) && to.starts_with("socket:")).count();
    assert_eq!(sockets, SOCKETS, "{links:?}");
    let lock = format!("/keeper/locks/{}", spec.group);
    let locks: Vec<usize> = links.iter().filter(|(_, to)| to.ends_with(&lock)).map(|(number, _)| *number).collect();
    assert!(locks.len() == 1 && locks[0] >= 3 + SOCKETS, "{locks:?} in {links:?}");
}
