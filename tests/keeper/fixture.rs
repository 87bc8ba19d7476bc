//! A service that does as it is told by its environment: this very test binary, started by the keeper.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use tagfall::model::ServiceSpec;

use crate::stage::{shell, wait_until};

/// What the fixture is to do, step by step.
pub(crate) const STEPS: &str = "TAGFALL_TEST_STEPS";

/// How long a fixture lives that nobody ends.
const LIFE: Duration = Duration::from_secs(60);

/// Between two lines of one that counts.
const BETWEEN_LINES: Duration = Duration::from_millis(50);

/// The command that does the steps of its environment.
pub(crate) fn command() -> String {
    format!("'{}' --exact fixture_of_services --nocapture", std::env::current_exe().unwrap().display())
}

/// A service that does these steps, then lives on.
pub(crate) fn doing(name: &str, steps: &[&str]) -> ServiceSpec {
    let mut spec = shell(name, &format!("exec {}", command()));
    spec.launch.env = vec![(STEPS.to_owned(), steps.join("|"))];
    spec
}

/// The body of the fixture.
pub(crate) fn body() {
    let Ok(steps) = std::env::var(STEPS) else {
        // Started as a test: nothing to do, which must show as exactly that.
        assert!(std::env::var("TAGFALL_GROUP").is_err());
        return;
    };
    for step in steps.split('|') {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        match verb {
            "say" => say(rest.replace(';', "\n").as_bytes()),
            "flood" => (0..2_000).for_each(|number| say(format!("STATUS=line {number}").as_bytes())),
            "garbage" => {
                let long = b"READY=1\n".repeat(2_000);
                let _ = [b"\xff\x00\x01".as_slice(), b"", b"READY", &long].map(say);
            }
            "main" => say(format!("MAINPID={}\nREADY=1", std::process::id()).as_bytes()),
            "await" => wait_until("a file", || Path::new(rest).exists().then_some(())),
            "print" => println!("{rest}"),
            "pid" => println!("pid {}", std::process::id()),
            "env" => println!("env {rest}={}", std::env::var(rest).unwrap_or_default()),
            "ready-fd" => {
                let number = std::env::var("TAGFALL_READY_FD").unwrap().parse().unwrap();
                let fd = tagfall::sys::process::inherited_fd(number).unwrap();
                rustix::io::write(&fd, rest.replace("newline", "\n").as_bytes()).unwrap();
            }
            "beat" => beat(),
            "serve" => serve(),
            "count" => count(),
            "probe" => crate::strict::probe(rest),
            "end" => return,
            _ => panic!("no such step: {step}"),
        }
    }
    rustix::event::poll(&mut [], Some(&rustix::event::Timespec::try_from(LIFE).unwrap())).unwrap();
}

fn say(message: &[u8]) {
    let socket = UnixDatagram::unbound().unwrap();
    // One that is too long for the socket is an attempt as well.
    let _ = socket.send_to(message, std::env::var("NOTIFY_SOCKET").unwrap());
}

/// How often a living service says so.
const BEAT: Duration = Duration::from_millis(20);

/// Says that it lives, for as long as it does.
fn beat() {
    let end = std::time::Instant::now() + LIFE;
    while std::time::Instant::now() < end {
        say(b"WATCHDOG=1");
        rustix::event::poll(&mut [], Some(&rustix::event::Timespec::try_from(BEAT).unwrap())).unwrap();
    }
}

/// Numbered lines, each with the milliseconds of its writing, as long as a fixture lives.
fn count() {
    let begun = std::time::Instant::now();
    for number in 1.. {
        let written = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        println!("line {number} {written}");
        if begun.elapsed() > LIFE {
            return;
        }
        std::thread::park_timeout(BETWEEN_LINES);
    }
}

/// Answers every connection to the first socket that was handed over with its own process id.
fn serve() {
    assert_eq!(std::env::var("LISTEN_PID").unwrap(), std::process::id().to_string());
    println!("sockets {} {}", std::env::var("LISTEN_FDS").unwrap(), std::env::var("LISTEN_FDNAMES").unwrap());
    let listener = std::net::TcpListener::from(tagfall::sys::process::inherited_fd(3).unwrap());
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.write_all(format!("{}\n", std::process::id()).as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0; 16]);
    }
}
