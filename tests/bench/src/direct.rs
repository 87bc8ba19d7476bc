//! The keeper alone, with this process in the place of its supervisor: by the protocol between the two.
//!
//! The keeper starts this binary as its supervisor, which only hands its end of the socket on to the process that measures and
//! waits to be killed. So each supervisor that the keeper starts is a new connection here.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, recvmsg,
    send, sendmsg, sockopt,
};
use rustix::process::{Pid, Signal as Kill, kill_process};
use tagfall::keeper::KeeperConfig;
use tagfall::keeper::wire::{Message, PACKET_MAX_BYTES, Request, SOCKET_ENV, decode_message, encode_request};
use tagfall::model::{
    Backoff, Digest, GroupName, Launch, LogPolicy, Policy, Ready, ServiceKind, ServiceReport, ServiceSpec, ServiceState, Signal,
};

use crate::Failure;
use crate::clock::now_ns;
use crate::stage::tagfall;

/// By when the keeper must have started a supervisor, and by when it must have ended when told to.
const BOUND: Duration = Duration::from_secs(60);

/// A keeper, and what it has said.
pub(crate) struct Direct {
    door: UnixListener,
    command: Vec<OsString>,
    log: PathBuf,
    keeper: Child,
    supervisor: Option<Pid>,
    socket: OwnedFd,
    packet: Vec<u8>,
    attempt: u64,
    unanswered: usize,
    refused: Vec<String>,
    states: HashMap<ServiceState, usize>,
    /// Of each service the newest.
    pub(crate) reports: BTreeMap<GroupName, ServiceReport>,
    /// All services were reported on this connection.
    pub(crate) told_all: bool,
    shutdown: bool,
}

/// In the place of the supervisor: hands its socket on, and waits for its end.
pub(crate) fn hand_over(door: &str) -> Result<bool, Failure> {
    let socket = tagfall::sys::process::inherited_fd(std::env::var(SOCKET_ENV)?.parse()?)?;
    let stream = UnixStream::connect(door)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [socket.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err("no room for a descriptor".into());
    }
    sendmsg(&stream, &[IoSlice::new(b"!")], &mut control, SendFlags::empty())?;
    loop {
        std::thread::park();
    }
}

impl Direct {
    /// Starts a keeper on `dir`, by way of a command where that is not empty, and waits for its first words.
    pub(crate) fn start(dir: &Path, by: &[&str]) -> Result<Self, Failure> {
        let (data, door) = (dir.join("data"), dir.join("door"));
        fs::create_dir_all(&data)?;
        let config = KeeperConfig {
            data_dir: data,
            supervisor_program: Some(std::env::current_exe()?),
            supervisor_args: vec!["hand-over".into(), door.clone().into_os_string()],
            ..KeeperConfig::default()
        };
        let mut command: Vec<OsString> = by.iter().map(OsString::from).collect();
        command.extend([tagfall()?.into_os_string(), "keeper".into()]);
        command.extend(config.to_args());
        let door = UnixListener::bind(door)?;
        let log = dir.join("keeper.log");
        let keeper = start_keeper(&command, &log)?;
        let (socket, supervisor) = connection(&door)?;
        let packet = vec![0; PACKET_MAX_BYTES];
        let mut direct = Self {
            door,
            command,
            log,
            keeper,
            supervisor,
            socket,
            packet,
            attempt: 0,
            unanswered: 0,
            refused: Vec::new(),
            states: HashMap::new(),
            reports: BTreeMap::new(),
            told_all: false,
            shutdown: false,
        };
        direct.until("its first words", BOUND, |direct| direct.told_all)?;
        Ok(direct)
    }

    pub(crate) fn keeper_pid(&self) -> u32 {
        self.keeper.id()
    }

    /// How many services are in a state.
    pub(crate) fn count(&self, state: ServiceState) -> usize {
        self.states.get(&state).copied().unwrap_or(0)
    }

    /// Processes by service.
    pub(crate) fn pids(&self) -> BTreeMap<GroupName, u32> {
        self.reports.iter().filter_map(|(group, report)| Some((group.clone(), report.pid?))).collect()
    }

    /// Asks for all of it without waiting for each answer; what is said meanwhile is heard.
    pub(crate) fn order(&mut self, requests: impl IntoIterator<Item = Request>) -> Result<(), Failure> {
        for request in requests {
            self.attempt += 1;
            let packet = encode_request(self.attempt, &request);
            loop {
                match send(&self.socket, &packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    Ok(_) => break,
                    Err(rustix::io::Errno::AGAIN) => self.wait(PollFlags::IN | PollFlags::OUT, BOUND)?,
                    Err(error) => return Err(error.into()),
                }
                while self.hear()? {}
            }
            self.unanswered += 1;
        }
        Ok(())
    }

    /// Listens until something is so and all that was asked is answered; a request that was refused is an error.
    pub(crate) fn until(&mut self, what: &str, bound: Duration, so: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let end = now_ns() + u64::try_from(bound.as_nanos())?;
        loop {
            while self.hear()? {}
            if let Some(why) = self.refused.first() {
                return Err(why.clone().into());
            }
            if self.unanswered == 0 && so(self) {
                return Ok(());
            }
            let left = end.checked_sub(now_ns()).ok_or_else(|| self.late(what, bound))?;
            self.wait(PollFlags::IN, Duration::from_nanos(left))?;
        }
    }

    fn late(&self, what: &str, bound: Duration) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        format!("{what}: not within {bound:?}; states {:?}, {} unanswered\n{log}", self.states, self.unanswered)
    }

    fn wait(&self, flags: PollFlags, bound: Duration) -> Result<(), Failure> {
        poll(&mut [PollFd::new(&self.socket, flags)], Some(&Timespec::try_from(bound)?))?;
        Ok(())
    }

    /// Takes one message; `false` where there is none.
    fn hear(&mut self) -> Result<bool, Failure> {
        let length = match recv(&self.socket, self.packet.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(format!("the keeper is gone\n{}", fs::read_to_string(&self.log)?).into()),
            Ok((length, _)) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        match decode_message(&self.packet[..length])? {
            Message::Reply { result, .. } => {
                self.unanswered = self.unanswered.saturating_sub(1);
                self.refused.extend(result.err());
            }
            Message::Report(report) => {
                *self.states.entry(report.state).or_default() += 1;
                self.left(self.reports.get(&report.group).map(|before| before.state));
                self.reports.insert(report.group.clone(), *report);
            }
            Message::Gone(group) => {
                let before = self.reports.remove(&group);
                self.left(before.map(|before| before.state));
            }
            Message::SnapshotEnd => self.told_all = true,
            Message::Shutdown => self.shutdown = true,
            Message::Hello(_) | Message::ExecDone { .. } => {}
        }
        Ok(true)
    }

    fn left(&mut self, state: Option<ServiceState>) {
        if let Some(count) = state.and_then(|state| self.states.get_mut(&state)) {
            *count -= 1;
        }
    }

    /// Kills what is in the place of the supervisor, and goes on with the next one that the keeper starts.
    pub(crate) fn kill_supervisor(&mut self) -> Result<(), Failure> {
        kill_process(self.supervisor.ok_or("no supervisor")?, Kill::KILL)?;
        self.reconnect()
    }

    /// Kills the keeper, and starts another one in its place.
    pub(crate) fn kill_keeper(&mut self) -> Result<(), Failure> {
        self.keeper.kill()?;
        self.keeper.wait()?;
        self.keeper = start_keeper(&self.command, &self.log)?;
        self.reconnect()
    }

    fn reconnect(&mut self) -> Result<(), Failure> {
        (self.socket, self.supervisor) = connection(&self.door)?;
        (self.unanswered, self.told_all) = (0, false);
        self.states.clear();
        self.reports.clear();
        Ok(())
    }

    /// Tells the keeper to end, as a service manager does, and waits for it.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        let id = i32::try_from(self.keeper.id()).ok().and_then(Pid::from_raw).ok_or("no process id")?;
        if self.keeper.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(id, Kill::TERM)?;
        self.refused.clear();
        self.unanswered = 0;
        self.until("the end", BOUND, |direct| direct.shutdown)?;
        self.order([Request::Finished])?;
        // It has its part done; without one, the keeper would give it time to end.
        kill_process(self.supervisor.ok_or("no supervisor")?, Kill::KILL)?;
        self.keeper.wait()?;
        Ok(())
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        if self.end().is_err() {
            // Twice: the second time it kills all that it has.
            for _ in 0..2 {
                drop(Command::new("kill").args(["-TERM", &self.keeper.id().to_string()]).status());
                crate::clock::pause(Duration::from_millis(200));
            }
            drop(self.keeper.wait());
        }
    }
}

fn start_keeper(command: &[OsString], log: &Path) -> Result<Child, Failure> {
    let log = fs::File::options().append(true).create(true).open(log)?;
    let (program, arguments) = command.split_first().ok_or("no command")?;
    Ok(Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
}

/// Takes what the next supervisor hands on, and says who that is.
fn connection(door: &UnixListener) -> Result<(OwnedFd, Option<Pid>), Failure> {
    if poll(&mut [PollFd::new(door, PollFlags::IN)], Some(&Timespec::try_from(BOUND)?))? == 0 {
        return Err("the keeper started no supervisor in time".into());
    }
    let (stream, _) = door.accept()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(&stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = control.drain().find_map(|message| {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message { descriptors.next() } else { None }
    });
    Ok((descriptor.ok_or("the supervisor handed nothing on")?, Some(sockopt::socket_peercred(&stream)?.pid)))
}

/// A service that is ready once it is started, and is restarted as soon as it may be.
pub(crate) fn service(name: &str, argv: &[&str]) -> Result<ServiceSpec, Failure> {
    Ok(ServiceSpec {
        group: name.parse()?,
        revision: Digest::of(b"revision"),
        release: "v1.0.0".to_owned(),
        launch: Launch {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            working_dir: "/".to_owned(),
            ..Launch::default()
        },
        policy: Policy {
            kind: ServiceKind::Daemon,
            stop_signal: Signal::TERM,
            stop_timeout: Duration::from_secs(10),
            backoff: Backoff {
                min: Duration::from_millis(10),
                max: Duration::from_millis(10),
                reset_after: Duration::from_secs(1),
            },
            ready_when_started: true,
            ready: Ready::Started,
            watchdog: None,
            logs: LogPolicy::default(),
            starts_when_asked: false,
        },
        view: None,
    })
}
