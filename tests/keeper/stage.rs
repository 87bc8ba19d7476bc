//! A keeper in a directory of its own, with this test in the place of its supervisor.
//!
//! The keeper starts this very test binary as its supervisor; its test `supervisor` hands the socket over to the test that
//! runs, and waits to be killed.

use std::collections::{BTreeMap, VecDeque};
use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use tagfall::keeper::wire::{ExecOutcome, Hello, Message, PACKET_MAX_BYTES, Request, decode_message, encode_request};
use tagfall::keeper::{Grants, KeeperConfig};
use tagfall::model::{
    Backoff, Digest, GroupName, Launch, LogFilter, LogLine, Policy, PublicationId, ServiceKind, ServiceReport, ServiceSpec,
    ServiceState, Signal, View,
};
use tagfall::process::read_logs;

/// By when anything that is waited for must have happened.
const BOUND: Duration = Duration::from_secs(20);

/// How often a condition that nobody announces is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Environment variable with the path of the socket over which the fake supervisor hands over the keeper's.
pub(crate) const BRIDGE: &str = "TAGFALL_TEST_BRIDGE";

/// User and group `nobody`.
pub(crate) const NOBODY: u32 = 65534;

/// How a keeper is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setting {
    /// As an ordinary user.
    pub(crate) as_nobody: bool,
    /// Its program is a copy that may be replaced, and its words are kept.
    pub(crate) own_program: bool,
    /// A program, with its arguments, that runs what stands behind them.
    pub(crate) through: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// What the supervisor may have done for it.
    pub(crate) grants: Grants,
}

pub(crate) struct Stage {
    pub(crate) data: PathBuf,
    _dir: tempfile::TempDir,
    bridge: UnixListener,
    pub(crate) keeper: Child,
    pub(crate) setting: Setting,
    program: PathBuf,
    link: Option<(OwnedFd, UnixStream)>,
    pub(crate) hello: Option<Hello>,
    pub(crate) reports: BTreeMap<GroupName, ServiceReport>,
    news: VecDeque<Message>,
    attempt: u64,
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Waits for a condition that nobody announces.
pub(crate) fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + BOUND;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "it did not come to this in time: {what}");
        poll_for(&mut [], LOOK);
    }
}

fn poll_for(fds: &mut [PollFd<'_>], timeout: Duration) -> bool {
    let timeout = Timespec::try_from(timeout).unwrap();
    poll(fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(Setting::default())
    }

    /// A keeper of an ordinary user, where this test may make one.
    pub(crate) fn unprivileged() -> Self {
        Self::with(Setting { as_nobody: is_root(), ..Setting::default() })
    }

    /// A keeper with these lists of the operator's.
    pub(crate) fn with_grants(grants: Grants) -> Self {
        Self::with(Setting { grants, ..Setting::default() })
    }

    /// A keeper whose program is a copy that may be replaced, and whose words are kept.
    pub(crate) fn with_own_program() -> Self {
        Self::with(Setting { own_program: true, ..Setting::default() })
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Waits until the keeper has said something so often.
    pub(crate) fn wait_words(&self, times: usize, words: &str) {
        let path = self.program.with_extension("words");
        let said = || std::fs::read_to_string(&path).unwrap().matches(words).count();
        wait_until(words, || (said() >= times).then_some(()));
    }

    pub(crate) fn with(setting: Setting) -> Self {
        let dir = tempfile::Builder::new().prefix("tagfall-keeper-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        if setting.as_nobody {
            std::os::unix::fs::chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let bridge = dir.path().join("bridge");
        let listener = UnixListener::bind(&bridge).unwrap();
        std::fs::set_permissions(&bridge, std::fs::Permissions::from_mode(0o777)).unwrap();
        let mut program = PathBuf::from(env!("CARGO_BIN_EXE_tagfall"));
        if setting.own_program {
            let copy = dir.path().join("tagfall");
            std::fs::copy(&program, &copy).unwrap();
            program = copy;
        }
        let keeper = start_keeper(&data, &bridge, &setting, &program);
        let mut stage = Self {
            data,
            _dir: dir,
            bridge: listener,
            keeper,
            setting,
            program,
            link: None,
            hello: None,
            reports: BTreeMap::new(),
            news: VecDeque::new(),
            attempt: 0,
        };
        stage.connect();
        stage
    }

    pub(crate) fn bridge_path(&self) -> PathBuf {
        self.data.with_file_name("bridge")
    }

    /// Kills the keeper outright and starts its successor.
    pub(crate) fn replace_keeper(&mut self) {
        self.kill_keeper();
        self.start_keeper();
    }

    pub(crate) fn kill_keeper(&mut self) {
        self.keeper.kill().unwrap();
        self.keeper.wait().unwrap();
    }

    pub(crate) fn start_keeper(&mut self) {
        let setting = Setting { own_program: false, ..self.setting.clone() };
        self.keeper = start_keeper(&self.data, &self.bridge_path(), &setting, &self.program);
        self.connect();
    }

    /// Waits for the supervisor that the keeper starts next, and for the snapshot of all services.
    pub(crate) fn connect(&mut self) {
        self.link = None;
        self.reports.clear();
        self.news.clear();
        assert!(poll_for(&mut [PollFd::new(&self.bridge, PollFlags::IN)], BOUND), "the keeper started no supervisor");
        let (stream, _) = self.bridge.accept().unwrap();
        self.link = Some((receive_fd(&stream), stream));
        let hello =
            self.next_where("hello", |message| if let Message::Hello(hello) = message { Some(hello.clone()) } else { None });
        self.hello = Some(hello);
        self.next_where("the end of the snapshot", |message| matches!(message, Message::SnapshotEnd).then_some(()));
    }

    /// Kills the supervisor and connects to the next one.
    pub(crate) fn kill_supervisor(&mut self) {
        let pid = self.supervisor_pid();
        signal(pid, rustix::process::Signal::KILL);
        self.connect();
    }

    pub(crate) fn supervisor_pid(&self) -> u32 {
        let (_, stream) = self.link.as_ref().unwrap();
        let peer = rustix::net::sockopt::socket_peercred(stream).unwrap();
        u32::try_from(peer.pid.as_raw_nonzero().get()).unwrap()
    }

    /// Takes the next message, at most until `end`.
    fn pump(&mut self, end: Instant) -> Option<Message> {
        let (link, _) = self.link.as_ref()?;
        let left = end.saturating_duration_since(Instant::now());
        if !poll_for(&mut [PollFd::new(link, PollFlags::IN)], left) {
            return None;
        }
        let mut packet = vec![0; PACKET_MAX_BYTES];
        let (_, length) = recv(link, packet.as_mut_slice(), RecvFlags::DONTWAIT).ok().filter(|(_, length)| *length > 0)?;
        let message = decode_message(&packet[..length]).unwrap();
        match &message {
            Message::Report(report) => {
                self.reports.insert(report.group.clone(), (**report).clone());
            }
            Message::Gone(group) => {
                self.reports.remove(group);
            }
            Message::Hello(_) | Message::SnapshotEnd | Message::Reply { .. } | Message::ExecDone { .. } | Message::Shutdown => {}
        }
        Some(message)
    }

    /// Waits for a message; others are kept for later.
    pub(crate) fn next_where<T>(&mut self, what: &str, wanted: impl Fn(&Message) -> Option<T>) -> T {
        if let Some(at) = self.news.iter().position(|message| wanted(message).is_some()) {
            return wanted(&self.news.remove(at).unwrap()).unwrap();
        }
        let end = Instant::now() + BOUND;
        loop {
            let message = self.pump(end).unwrap_or_else(|| panic!("no {what} came; known: {:#?}", self.reports));
            match wanted(&message) {
                Some(found) => return found,
                None if matches!(message, Message::Report(_)) => {}
                None => self.news.push_back(message),
            }
        }
    }

    pub(crate) fn send_raw(&self, packet: &[u8]) {
        send(&self.link.as_ref().unwrap().0, packet, SendFlags::NOSIGNAL).unwrap();
    }

    /// Sends a request unless the socket takes no more.
    pub(crate) fn try_send(&mut self, request: &Request) -> Option<u64> {
        let packet = encode_request(self.attempt + 1, request);
        send(&self.link.as_ref().unwrap().0, &packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).ok()?;
        self.attempt += 1;
        Some(self.attempt)
    }

    /// The socket to the keeper, for a client of its own.
    pub(crate) fn socket(&self) -> OwnedFd {
        self.link.as_ref().unwrap().0.try_clone().unwrap()
    }

    pub(crate) fn send(&mut self, request: &Request) -> u64 {
        self.attempt += 1;
        self.send_raw(&encode_request(self.attempt, request));
        self.attempt
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Result<(), String> {
        let asked = self.send(request);
        self.reply_to(asked)
    }

    pub(crate) fn reply_to(&mut self, asked: u64) -> Result<(), String> {
        self.next_where("reply", |message| {
            if let Message::Reply { attempt, result } = message { (*attempt == asked).then(|| result.clone()) } else { None }
        })
    }

    pub(crate) fn run(&mut self, spec: &ServiceSpec) {
        self.ask(&Request::Run(Box::new(spec.clone()))).unwrap();
    }

    pub(crate) fn exec(&mut self, command: tagfall::keeper::wire::Command) -> Result<ExecOutcome, String> {
        let asked = self.send(&Request::Exec(Box::new(command)));
        self.outcome_of(asked)
    }

    /// What came of a command that was asked for.
    pub(crate) fn outcome_of(&mut self, asked: u64) -> Result<ExecOutcome, String> {
        self.next_where("outcome", |message| match message {
            Message::ExecDone { attempt, outcome } if *attempt == asked => Some(Ok(outcome.clone())),
            Message::Reply { attempt, result: Err(why) } if *attempt == asked => Some(Err(why.clone())),
            Message::Hello(_)
            | Message::Report(_)
            | Message::Gone(_)
            | Message::SnapshotEnd
            | Message::Reply { .. }
            | Message::ExecDone { .. }
            | Message::Shutdown => None,
        })
    }

    /// Waits until a service's report is as wanted.
    pub(crate) fn wait_for(&mut self, group: &GroupName, wanted: impl Fn(&ServiceReport) -> bool) -> ServiceReport {
        self.wait_until(&group.to_string(), |reports| reports.get(group).is_some_and(&wanted));
        self.reports[group].clone()
    }

    /// Waits until all reports together are as wanted.
    pub(crate) fn wait_until(&mut self, what: &str, wanted: impl Fn(&BTreeMap<GroupName, ServiceReport>) -> bool) {
        let end = Instant::now() + BOUND;
        while !wanted(&self.reports) {
            if let Some(message) = self.pump(end) {
                if !matches!(message, Message::Report(_)) {
                    self.news.push_back(message);
                }
            } else {
                assert!(Instant::now() < end, "{what}: not as wanted: {:#?}", self.reports);
            }
        }
    }

    pub(crate) fn wait_state(&mut self, group: &GroupName, state: ServiceState) -> ServiceReport {
        self.wait_for(group, |report| report.state == state)
    }

    pub(crate) fn logs(&self, group: &GroupName) -> Vec<LogLine> {
        read_logs(&self.data, group, LogFilter::default()).unwrap()
    }

    /// Waits until a service has written a line.
    pub(crate) fn wait_line(&self, group: &GroupName, wanted: impl Fn(&str) -> bool) -> String {
        let found = || self.logs(group).into_iter().map(|line| line.line).find(|text| wanted(text));
        wait_until("a line in the log", found)
    }

    /// Tells the keeper to end, has nothing to order itself, and waits for it.
    pub(crate) fn end(&mut self) -> ExitStatus {
        signal(self.keeper.id(), rustix::process::Signal::TERM);
        self.next_where("word of the end", |message| matches!(message, Message::Shutdown).then_some(()));
        self.send(&Request::Finished);
        self.wait_end()
    }

    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.keeper);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        assert!(poll_for(&mut [PollFd::new(&pidfd, PollFlags::IN)], BOUND), "the keeper did not end");
        self.keeper.wait().unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Twice: at once, without asking anybody.
        let pid = Pid::from_child(&self.keeper);
        if let (Ok(None), Ok(pidfd)) = (self.keeper.try_wait(), pidfd_open(pid, PidfdFlags::empty())) {
            for _ in 0..2 {
                let _ = pidfd_send_signal(&pidfd, rustix::process::Signal::TERM);
                poll_for(&mut [PollFd::new(&pidfd, PollFlags::IN)], LOOK * 20);
            }
            poll_for(&mut [PollFd::new(&pidfd, PollFlags::IN)], BOUND);
            let _ = self.keeper.kill();
            let _ = self.keeper.wait();
        }
        // What a keeper that was killed could not take away.
        let path = self.data.canonicalize().unwrap_or_default();
        let hash = Digest::of(path.as_os_str().as_encoded_bytes()).to_string();
        for _ in 0..REMOVALS_MAX {
            if remove_groups(Path::new("/sys/fs/cgroup"), &hash[..12], false) {
                break;
            }
            // Whoever was killed last is not quite gone.
            poll_for(&mut [], LOOK);
        }
    }
}

/// How often the cgroups of a data folder are tried to be removed.
const REMOVALS_MAX: usize = 200;

/// Removes the cgroups of a data folder, whichever hierarchy they are in. `false`: one of them is not empty.
fn remove_groups(dir: &Path, hash: &str, within: bool) -> bool {
    let mut all = true;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let ours = within || entry.file_name() == *hash;
        all &= remove_groups(&entry.path(), hash, ours);
        if ours || entry.file_name() == "tagfall" {
            all &= std::fs::remove_dir(entry.path()).is_ok() || !ours;
        }
    }
    all
}

fn start_keeper(data: &Path, bridge: &Path, setting: &Setting, program: &Path) -> Child {
    let mut supervisor = std::env::current_exe().unwrap();
    if setting.grants.run_as.is_some() {
        // The folders above the test's own program may be closed to that user.
        let reachable = data.with_file_name("test");
        let _ = std::fs::hard_link(&supervisor, &reachable).or_else(|_| std::fs::copy(&supervisor, &reachable).map(drop));
        supervisor = reachable;
    }
    let config = KeeperConfig {
        data_dir: data.to_owned(),
        supervisor_program: Some(supervisor),
        supervisor_args: ["--exact", "--nocapture"].map(Into::into).to_vec(),
        grants: setting.grants.clone(),
    };
    let mut words = setting.through.clone();
    if setting.as_nobody {
        let id = NOBODY.to_string();
        words.extend(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all"].map(str::to_owned));
    }
    words.push(program.to_str().unwrap().to_owned());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).envs(setting.env.iter().cloned());
    command.arg("keeper").args(config.to_args()).env(BRIDGE, bridge).stdin(Stdio::null()).stdout(Stdio::null());
    if setting.own_program {
        command.stderr(std::fs::File::create(program.with_extension("words")).unwrap());
    }
    command.spawn().unwrap()
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The body of the fake supervisor.
pub(crate) fn hand_over() {
    let Ok(bridge) = std::env::var(BRIDGE) else {
        // Started as a test: nothing to hand over, which must show as exactly that.
        assert!(std::env::var(tagfall::keeper::wire::SOCKET_ENV).is_err());
        return;
    };
    let socket = tagfall::sys::process::inherited_fd(3).unwrap();
    crate::hostile::probe(Path::new(&bridge));
    let mut stream = UnixStream::connect(bridge).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let fds = [socket.as_fd()];
    assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
    rustix::net::sendmsg(&stream, &[std::io::IoSlice::new(b"!")], &mut control, SendFlags::empty()).unwrap();
    // Until the test ends, or a signal.
    let _ = stream.read(&mut [0]);
}

fn receive_fd(stream: &UnixStream) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let fds = control.drain().find_map(
        |message| {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message { fds.next() } else { None }
        },
    );
    fds.unwrap()
}

/// A service that runs a shell script. Its name is this process's own, since processes are found by it.
pub(crate) fn shell(name: &str, script: &str) -> ServiceSpec {
    let group: GroupName = format!("{name}-{}", std::process::id()).parse().unwrap();
    let backoff = Backoff { min: Duration::from_millis(50), max: Duration::from_secs(1), reset_after: Duration::from_secs(300) };
    ServiceSpec {
        group,
        revision: Digest::of(script.as_bytes()),
        release: "v1.0.0".to_owned(),
        launch: Launch {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            working_dir: "/".to_owned(),
            ..Launch::default()
        },
        policy: Policy {
            kind: ServiceKind::Daemon,
            stop_signal: Signal::TERM,
            stop_timeout: Duration::from_secs(10),
            backoff,
            ready_when_started: true,
            ready: tagfall::model::Ready::Started,
            watchdog: None,
            logs: tagfall::model::LogPolicy::default(),
            starts_when_asked: false,
        },
        view: None,
    }
}

/// A directory with two files that belong together, as a publication of a group, and the place where it is shown.
pub(crate) fn publication(data: &Path, group: &GroupName, name: &str) -> View {
    let publication = PublicationId { content: Digest::of(name.as_bytes()), copy: 0 };
    let source = data.join("publications").join(group.to_string()).join(publication.to_string());
    let point = data.join("view").join(group.to_string());
    std::fs::create_dir_all(&source).unwrap();
    std::fs::create_dir_all(&point).unwrap();
    for file in ["a", "b"] {
        std::fs::write(source.join(file), format!("{name}\n")).unwrap();
    }
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    View { publication, source: text(&source), point: text(&point) }
}
