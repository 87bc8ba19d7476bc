//! Swap of a mounted publication beneath four readers, through the keeper's own protocol: how long each takes, and whether a
//! reader ever found a file missing, torn, or of another publication than its neighbours.
//!
//! The keeper starts this binary in the place of its supervisor. Two readers open a folder once and read beneath it, as a
//! service does that was told to reload: they may never mix. Two look every path up anew: they may only mix where a swap fell
//! between their first and last file, which the times on both sides tell.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tagfall::keeper::KeeperConfig;
use tagfall::keeper::wire::{Message, PACKET_MAX_BYTES, Request, SOCKET_ENV, decode_message, encode_request};
use tagfall::model::{Digest, GroupName, MountMode, PublicationId, ServiceSpec, ServiceState, Signal, View};

use crate::Failure;
use crate::clock::{ms_between, now_ns, pause};
use crate::direct::service;
use crate::stage::{me, tagfall};
use crate::table::{Row, Sample};

const SWAPS: u32 = 2_000;
const READERS: usize = 4;
const FILES: usize = 8;
const FILE_BYTES: usize = 8 * 1024;
const WANTED_MS: f64 = 1.0;

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let dir = common::temp_dir();
    let data = dir.path().join("data");
    fs::create_dir_all(point(&data)?)?;
    for version in [0, 1] {
        write_publication(&source(&data, version)?, version)?;
    }
    let mut arguments = KeeperConfig {
        data_dir: data.clone(),
        supervisor_program: Some(std::env::current_exe()?),
        supervisor_args: vec![data.clone().into_os_string()],
        ..KeeperConfig::default()
    }
    .to_args();
    arguments.insert(0, "keeper".into());
    let program = tagfall()?;
    let mut keeper = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let done = data.join("swaps");
    for _ in 0..6_000 {
        if done.exists() || keeper.try_wait()?.is_some() {
            break;
        }
        pause(Duration::from_millis(20));
    }
    drop(Command::new("kill").args(["-TERM", &keeper.id().to_string()]).status());
    keeper.wait()?;
    judge(&data)
}

fn judge(data: &Path) -> Result<Vec<Row>, Failure> {
    let read = |name: &str| fs::read_to_string(data.join(name)).map_err(|error| format!("{name}: {error}"));
    let numbers = |text: &str| -> Vec<u64> { text.split_whitespace().filter_map(|word| word.parse().ok()).collect() };
    let swaps: Vec<Vec<u64>> = read("swaps")?.lines().map(numbers).collect();
    let (mut took, mut idle) = (Vec::new(), Vec::new());
    for swap in &swaps {
        let [begin, end, asked, answered] = swap.as_slice() else { return Err("a swap without its times".into()) };
        took.push(ms_between(*begin, *end));
        idle.push(ms_between(*asked, *answered));
    }
    let (mut passes, mut torn, mut missing, mut mixed, mut straddled) = (0, 0, 0, 0, 0);
    for line in read("readers")?.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["passes", count] => passes += count.parse::<u64>()?,
            ["torn", ..] => torn += 1,
            ["missing", ..] => missing += 1,
            ["mixed", "beneath", ..] => mixed += 1,
            ["mixed", _, begin, end] => {
                let (begin, end): (u64, u64) = (begin.parse()?, end.parse()?);
                let by_swap = swaps.iter().any(|swap| swap[0] <= end && swap[1] >= begin);
                if by_swap { straddled += 1 } else { mixed += 1 }
            }
            _ => return Err(format!("readers say: {line}").into()),
        }
    }
    let took = Sample::new(took);
    let met = took.percentile(99) <= WANTED_MS;
    let clean = torn + missing + mixed == 0 && passes > u64::from(SWAPS);
    let seen = format!("{torn} torn, {missing} missing, {mixed} mixed in {passes} passes");
    Ok(vec![
        Row::new(format!("request of a swap → done, {READERS} readers looping"), "p99 <= 1 ms", took.words("ms"), met),
        Row::told("the same way there and back without a swap", Sample::new(idle).words("ms")),
        Row::new("what they saw", "0 torn, 0 missing, 0 mixed", seen, clean),
        Row::told("passes by path, over a swap, that saw both (not at a reload point)", straddled.to_string()),
    ])
}

/// The group that is switched.
const GROUP: &str = "readers";

fn group() -> Result<GroupName, Failure> {
    Ok(GROUP.parse()?)
}

fn publication(version: u32) -> PublicationId {
    PublicationId { content: Digest::of(&version.to_le_bytes()), copy: 0 }
}

fn source(data: &Path, version: u32) -> Result<PathBuf, Failure> {
    Ok(data.join("publications").join(group()?.to_string()).join(publication(version).to_string()))
}

fn point(data: &Path) -> Result<PathBuf, Failure> {
    Ok(data.join("view").join(group()?.to_string()))
}

fn write_publication(dir: &Path, version: u32) -> Result<(), Failure> {
    fs::create_dir_all(dir)?;
    for number in 0..FILES {
        fs::write(dir.join(format!("file{number}")), version.to_string().repeat(FILE_BYTES))?;
    }
    Ok(())
}

type Answer = (u64, Result<(), String>);

/// The service: four threads that read, until SIGTERM; then they write down what they saw.
pub(crate) fn read_in_a_loop(root: &str, result: &str) -> Result<bool, Failure> {
    const TOLD: i32 = 1;
    const END: i32 = 15;
    let signals = tagfall::sys::process::signal_fd(&[TOLD, END])?;
    let stop = AtomicBool::new(false);
    let text = std::thread::scope(|scope| {
        let stop = &stop;
        let readers: Vec<_> = (0..READERS).map(|number| scope.spawn(move || reader(root, number % 2 == 0, stop))).collect();
        loop {
            let told = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None)
                .map_err(std::io::Error::from)
                .and_then(|_| tagfall::sys::process::read_signals(signals.as_fd()));
            if told.is_err() || told.is_ok_and(|signals| signals.iter().any(|caught| caught.signal == END)) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().filter_map(|reader| reader.join().ok()).collect::<String>()
    });
    fs::write(result, text)?;
    Ok(true)
}

/// Lines: what was wrong with which pass, and how many there were.
fn reader(root: &str, beneath: bool, stop: &AtomicBool) -> String {
    let (mut text, mut passes) = (String::new(), 0_u64);
    let kind = if beneath { "beneath" } else { "path" };
    while !stop.load(Ordering::Relaxed) {
        let begin = now_ns();
        let seen = pass(root, beneath);
        let end = now_ns();
        passes += 1;
        match seen {
            Ok(versions) if versions.windows(2).all(|pair| pair[0] == pair[1]) => {}
            Ok(_) => text.push_str(&format!("mixed {kind} {begin} {end}\n")),
            Err(what) => text.push_str(&format!("{what}\n")),
        }
    }
    text.push_str(&format!("passes {passes}\n"));
    text
}

/// The version that each file is of.
fn pass(root: &str, beneath: bool) -> Result<Vec<u8>, String> {
    let missing = |error: rustix::io::Errno| format!("missing {error}");
    let folder: OwnedFd = openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(missing)?;
    let mut versions = Vec::with_capacity(FILES);
    let mut buffer = vec![0; FILE_BYTES + 1];
    for number in 0..FILES {
        let name = format!("file{number}");
        let file = if beneath {
            openat(&folder, &name, OFlags::CLOEXEC, Mode::empty())
        } else {
            openat(CWD, format!("{root}/{name}"), OFlags::CLOEXEC, Mode::empty())
        };
        let length = rustix::io::read(file.map_err(missing)?, &mut buffer).map_err(missing)?;
        let first = buffer[0];
        if length != FILE_BYTES || buffer[..length].iter().any(|byte| *byte != first) {
            return Err(format!("torn {name}"));
        }
        versions.push(first);
    }
    Ok(versions)
}

/// In the place of the supervisor: starts the readers, then swaps beneath them.
pub(crate) fn drive(dir: &str) -> Result<bool, Failure> {
    let data = Path::new(dir);
    let number = std::env::var(SOCKET_ENV)?.parse()?;
    let socket = tagfall::sys::process::inherited_fd(number)?;
    let mut keeper = Keeper { socket: socket.as_fd(), packet: vec![0; PACKET_MAX_BYTES], attempt: 0, running: None };
    let group = group()?;
    keeper.ask(&Request::Run(Box::new(spec(data)?)))?;
    while keeper.running != Some(MountMode::Namespace) {
        if keeper.running == Some(MountMode::Symlink) {
            return Err("services get no mount namespace here: nothing to swap".into());
        }
        keeper.hear()?;
    }
    pause(Duration::from_millis(500));
    let mut lines = String::new();
    for number in 1..=SWAPS {
        let request = Request::Reload { group: group.clone(), view: view(data, number % 2)?, signal: Some(Signal::HUP) };
        let begin = now_ns();
        keeper.ask(&request)?;
        let end = now_ns();
        pause(Duration::from_millis(3));
        // The same way there and back without a swap: what the machine takes for that is not the swap's.
        let asked = now_ns();
        keeper.ask(&Request::MarkReady { group: group.clone(), incarnation: 0 })?;
        lines.push_str(&format!("{begin} {end} {asked} {}\n", now_ns()));
        pause(Duration::from_millis(3));
    }
    keeper.ask(&Request::Stop { group })?;
    while !data.join("readers").exists() {
        pause(Duration::from_millis(5));
    }
    pause(Duration::from_millis(200));
    fs::write(data.join("swaps.new"), lines)?;
    fs::rename(data.join("swaps.new"), data.join("swaps"))?;
    // Until the keeper is told to end.
    while keeper.hear().is_ok() {}
    Ok(true)
}

struct Keeper<'a> {
    socket: BorrowedFd<'a>,
    packet: Vec<u8>,
    attempt: u64,
    running: Option<MountMode>,
}

impl Keeper<'_> {
    fn ask(&mut self, request: &Request) -> Result<(), Failure> {
        self.attempt += 1;
        send(self.socket, &encode_request(self.attempt, request), SendFlags::NOSIGNAL)?;
        loop {
            if let Some((attempt, result)) = self.hear()?
                && attempt == self.attempt
            {
                return result.map_err(Into::into);
            }
        }
    }

    /// Takes one message; an answer is given back.
    fn hear(&mut self) -> Result<Option<Answer>, Failure> {
        let (length, _) = recv(self.socket, self.packet.as_mut_slice(), RecvFlags::empty())?;
        if length == 0 {
            return Err("the keeper is gone".into());
        }
        match decode_message(&self.packet[..length])? {
            Message::Reply { attempt, result } => return Ok(Some((attempt, result))),
            Message::Report(report) if report.state == ServiceState::Running => self.running = Some(report.mount_mode),
            Message::Shutdown => {
                send(self.socket, &encode_request(0, &Request::Finished), SendFlags::NOSIGNAL)?;
            }
            Message::Hello(_) | Message::Report(_) | Message::Gone(_) | Message::SnapshotEnd | Message::ExecDone { .. } => {}
        }
        Ok(None)
    }
}

fn view(data: &Path, version: u32) -> Result<View, Failure> {
    let text = |path: PathBuf| path.to_str().map(str::to_owned).ok_or("a path that is not text");
    Ok(View { publication: publication(version), source: text(source(data, version)?)?, point: text(point(data)?)? })
}

fn spec(data: &Path) -> Result<ServiceSpec, Failure> {
    let (point, result) = (point(data)?.display().to_string(), data.join("readers").display().to_string());
    let mut spec = service(GROUP, &[&me()?, "readers", &point, &result])?;
    spec.view = Some(view(data, 0)?);
    Ok(spec)
}
