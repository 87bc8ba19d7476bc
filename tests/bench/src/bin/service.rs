//! The service of the figures with many services: as little as a program can be, so that what is measured is whoever starts it.
//!
//! It tells through a pipe when its `main` began and waits for a signal; or it ends at once; or it is a bomb. It may not link
//! what it does not need: each page that its start touches counts against every supervisor alike. To add a part to play: a
//! word in `main`.

use std::fs::File;
use std::io::{self, Write as _};
use std::process::{Command, ExitCode, Stdio};

use rustix::time::{ClockId, clock_gettime};

/// By which a service asks the keeper not to start it again.
const FOR_GOOD: u8 = 125;

/// How long a bomb's part that could make no other waits, in nanoseconds: its neighbours are to be stopped by others.
const REFUSED_NS: i64 = 5_000_000;

fn main() -> ExitCode {
    // First of all: this is the moment that is measured.
    let begun = clock_gettime(ClockId::Monotonic);
    let begun = i128::from(begun.tv_sec) * 1_000_000_000 + i128::from(begun.tv_nsec);
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        // As s6 and runit start it, in the folder of the service.
        [run, ..] if run.ends_with("run") => serve(begun, "fifo"),
        [_, "serve", fifo] => serve(begun, fifo),
        [_, "end", places, count] => end_at_once(places, count),
        [_, "bomb", places, count] => bomb(places, count),
        [_, "hop", places, count] => part("bomb", places, count).map(|_| ExitCode::SUCCESS),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    outcome.unwrap_or(ExitCode::FAILURE)
}

/// Says that it has begun, then does nothing until a signal ends it.
fn serve(begun: i128, fifo: &str) -> io::Result<ExitCode> {
    let line = format!("main {} {begun} -\n", std::process::id());
    // One short write: lines of several services do not mix.
    File::options().write(true).open(fifo)?.write_all(line.as_bytes())?;
    if std::path::Path::new("notification-fd").exists() {
        std::fs::write("/proc/self/fd/3", "\n")?;
    }
    loop {
        std::thread::park();
    }
}

/// Takes the next place of a file, and says which that is.
fn take_place(places: &str) -> io::Result<u64> {
    let mut file = File::options().append(true).create(true).open(places)?;
    file.write_all(b".")?;
    file.metadata().map(|metadata| metadata.len())
}

/// Ends well, until it has done so often enough.
fn end_at_once(places: &str, count: &str) -> io::Result<ExitCode> {
    let count: u64 = count.parse().map_err(io::Error::other)?;
    Ok(if take_place(places)? < count { ExitCode::SUCCESS } else { ExitCode::from(FOR_GOOD) })
}

/// One part of a bomb: as long as there are places, it makes others, each in a session of its own and with its parent gone.
fn bomb(places: &str, count: &str) -> io::Result<ExitCode> {
    let all: u64 = count.parse().map_err(io::Error::other)?;
    // A service leads a session already.
    let _ = rustix::process::setsid();
    if take_place(places)? > all {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        if std::fs::metadata(places)?.len() >= all {
            std::thread::park();
        }
        let made = part("hop", places, count).and_then(|mut hop| hop.wait());
        if made.is_err() {
            let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: REFUSED_NS };
            let _ = rustix::thread::nanosleep(&pause);
        }
    }
}

fn part(word: &str, places: &str, count: &str) -> io::Result<std::process::Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([word, places, count]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}
