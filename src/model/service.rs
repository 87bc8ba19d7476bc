//! A service as the keeper runs it and reports it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{
    Backoff, Digest, DigestBuilder, GroupName, Hardening, Limits, LogLosses, LogPolicy, Ready, Reason, ServiceKind, Timestamp,
};

/// A signal, by its Linux number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(pub i32);

/// Names that `group.toml` takes, with their numbers on Linux (signal(7)).
const SIGNALS: [(&str, i32); 15] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGABRT", 6),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGSEGV", 11),
    ("SIGUSR2", 12),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGCHLD", 17),
    ("SIGCONT", 18),
    ("SIGSTOP", 19),
    ("SIGWINCH", 28),
];

impl Signal {
    /// SIGHUP.
    pub const HUP: Self = Self(1);
    /// SIGKILL.
    pub const KILL: Self = Self(9);
    /// SIGTERM.
    pub const TERM: Self = Self(15);

    /// The names that are understood.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SIGNALS.iter().map(|(name, _)| *name)
    }
}

impl FromStr for Signal {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        SIGNALS.iter().find(|(name, _)| *name == text).map(|(_, number)| Self(*number)).ok_or(())
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIGNALS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

/// One written publication: the digest of its content and which copy of it this is (drift is mended by a new copy).
/// Its directory is `DATA_DIR/publications/GROUP/{id}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicationId {
    /// SHA-256 over names, modes and contents.
    pub content: Digest,
    /// 0 for the first copy.
    pub copy: u32,
}

impl fmt::Display for PublicationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.copy {
            0 => self.content.fmt(f),
            copy => write!(f, "{}-{copy}", self.content),
        }
    }
}

impl FromStr for PublicationId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (content, copy) = text.split_once('-').map_or((text, "0"), |(content, copy)| (content, copy));
        let content = content.parse().map_err(|_| format!("`{text}` is not a publication id"))?;
        let copy = copy.parse().map_err(|_| format!("`{text}` is not a publication id"))?;
        Ok(Self { content, copy })
    }
}

/// What a process is started with; a change of any of it needs a restart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Launch {
    /// Program (absolute, or looked up in PATH) and arguments, rendered.
    pub argv: Vec<String>,
    /// Declared environment, rendered; the keeper adds PATH, HOME, USER, LOGNAME, SHELL, LANG.
    pub env: Vec<(String, String)>,
    /// User name; `None` = the keeper's own.
    pub user: Option<String>,
    /// Working directory; created by the keeper, owned by the user, where it lies under DATA_DIR.
    pub working_dir: String,
    /// Resource limits.
    pub limits: Limits,
    /// Listening sockets to hold.
    pub listen: Vec<String>,
    /// How far it is shut in.
    pub hardening: Option<Hardening>,
    /// Not a process of the host but a container: `argv` are the image's arguments, an empty `working_dir` is the image's own.
    pub container: Option<ContainerLaunch>,
}

/// What a container is made of beside what every service has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerLaunch {
    /// Image reference, rendered.
    pub image: String,
    /// `[IP:]HOST:CONTAINER[/tcp|/udp]`.
    pub ports: Vec<String>,
    /// Where it sees the publication.
    pub mount_path: Option<String>,
}

impl Launch {
    /// What tells two launches apart.
    pub fn digest(&self) -> Digest {
        let digest = DigestBuilder::new("launch");
        let list = |items: &[String]| {
            let mut inner = DigestBuilder::new("list");
            for item in items {
                inner = inner.field(item.as_bytes());
            }
            inner.finish()
        };
        let argv = list(&self.argv);
        let listen = list(&self.listen);
        let env: Vec<String> = self.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let env = list(&env);
        let digest = digest.field(argv.as_bytes()).field(listen.as_bytes()).field(env.as_bytes());
        let digest = digest.field(self.user.as_deref().unwrap_or("").as_bytes()).field(self.working_dir.as_bytes());
        let digest = digest.field(format!("{:?} {:?}", self.limits, self.hardening).as_bytes());
        let Some(container) = &self.container else { return digest.finish() };
        let ports = list(&container.ports);
        let mount_path = container.mount_path.as_deref().unwrap_or("");
        digest.field(container.image.as_bytes()).field(ports.as_bytes()).field(mount_path.as_bytes()).finish()
    }
}

/// How the keeper treats a service; a change of it touches no process.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Daemon or task.
    pub kind: ServiceKind,
    /// First signal of a stop.
    pub stop_signal: Signal,
    /// Then SIGKILL.
    pub stop_timeout: Duration,
    /// Restart delays.
    pub backoff: Backoff,
    /// Whether the keeper itself may call it ready once it has started (else the supervisor says so).
    pub ready_when_started: bool,
    /// By what it says itself that it is ready, and which means it is given to say so at its next start.
    pub ready: Ready,
    /// Longest silence of its watchdog; it counts from the next start on, which tells the service of it.
    pub watchdog: Option<Duration>,
    /// How its lines are kept and passed on.
    pub logs: LogPolicy,
    /// Whether each of its starts is asked for, and none follows by itself from an end: hooks come before it.
    pub starts_when_asked: bool,
}

impl Policy {
    /// The first minor version of the keeper's protocol that has [`Policy::logs`].
    const LOGS_SINCE: u64 = 1;
    /// The first that has [`Policy::starts_when_asked`].
    const ASKED_SINCE: u64 = 2;

    /// Whether a keeper whose protocol is of this minor version does what a policy says of logs.
    pub fn has_logs(minor: u64) -> bool {
        minor >= Self::LOGS_SINCE
    }

    /// Whether a keeper whose protocol is of this minor version leaves a start to whoever asks for it.
    pub fn waits_for_hooks(minor: u64) -> bool {
        minor >= Self::ASKED_SINCE
    }

    /// As a keeper understands and reports it whose protocol is of this minor version: what that one does not know yet is
    /// what it is where nothing is said of it.
    #[must_use]
    pub fn known_by(mut self, minor: u64) -> Self {
        if !Self::has_logs(minor) {
            self.logs = LogPolicy::default();
        }
        self.starts_when_asked &= Self::waits_for_hooks(minor);
        self
    }
}

/// Where a service sees its publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Which publication.
    pub publication: PublicationId,
    /// Its directory: bound read-only over `point` in the service's mount namespace, where rights allow.
    pub source: String,
    /// The directory under DATA_DIR through which the mount path's link leads.
    pub point: String,
}

/// All that the keeper needs to run one service, also while no supervisor is there.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSpec {
    /// Whose it is.
    pub group: GroupName,
    /// Revision of the group; the `done` of a task counts for one revision.
    pub revision: Digest,
    /// First tag accepted with this revision: `TAGFALL_RELEASE`.
    pub release: String,
    /// What is started.
    pub launch: Launch,
    /// How it is treated.
    pub policy: Policy,
    /// What it sees at its mount path.
    pub view: Option<View>,
}

/// States of a service, as the status names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "named as in the status; the site's state table explains each")]
pub enum ServiceState {
    Waiting,
    Starting,
    Running,
    Reloading,
    Stopping,
    Stopped,
    Backoff,
    Done,
    Failed,
    Stuck,
    Unknown,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// exit(code).
    Code(i32),
    /// Killed by a signal.
    Signal(Signal),
    /// Killed by the kernel for want of memory.
    OutOfMemory {
        /// The service's own limit in bytes; `None` = the whole host's memory.
        limit: Option<u64>,
    },
    /// It ended while nobody was there to see how.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "{signal}"),
            Self::OutOfMemory { limit: None } => f.write_str("SIGKILL, killed: out of memory (of the host)"),
            Self::OutOfMemory { limit: Some(limit) } => write!(f, "SIGKILL, killed: out of memory (limit {})", Bytes(*limit)),
            Self::Unknown => f.write_str("an unknown end"),
        }
    }
}

/// A size in the largest unit that gives a whole number.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size)) {
            Some((size, unit)) => write!(f, "{} {unit}", self.0 / size),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// Whether a service sees its publication through a mount of its own or through the host's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountMode {
    /// A private mount namespace.
    Namespace,
    /// The link on the host.
    Symlink,
}

/// What the keeper knows of one service: facts, not wishes.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceReport {
    /// Whose it is.
    pub group: GroupName,
    /// Where it stands. The keeper says `starting` until it is ready.
    pub state: ServiceState,
    /// Main process, while there is one.
    pub pid: Option<u32>,
    /// Rises by one with every process of this service, so that two reports tell two processes apart.
    pub incarnation: u64,
    /// Restarts that were not asked for.
    pub restarts: u64,
    /// Since when the state is as it is.
    pub since: Timestamp,
    /// When the next try is due, in state `backoff`.
    pub next_try: Option<Timestamp>,
    /// [`Launch::digest`] of what runs (or is to run).
    pub launch: Digest,
    /// Policy in force.
    pub policy: Policy,
    /// Revision in force.
    pub revision: Digest,
    /// What the running process sees at its mount path, and was told of.
    pub publication: Option<PublicationId>,
    /// How it sees it.
    pub mount_mode: MountMode,
    /// How the last process ended.
    pub last_exit: Option<Exit>,
    /// Why it could not be started, or what is not promised here.
    pub message: String,
    /// How long after its start it asked to be waited for, beyond which it must be ready (`EXTEND_TIMEOUT_USEC`).
    pub start_extended: Option<Duration>,
    /// What of its lines got lost.
    pub logs: LogLosses,
}

/// Answers of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// All is well.
    Ok,
    /// Works, with something to look at.
    Warning,
    /// Does not work.
    Critical,
    /// Cannot be told.
    Unknown,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// The answer.
    pub status: HealthStatus,
    /// The answer's words, or what went wrong with the check itself.
    pub message: String,
}

impl CheckResult {
    /// A result with its message.
    pub fn new(status: HealthStatus, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// A reason with its words, for whoever waits.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wait {
    /// The name of the cause.
    pub reason: Reason,
    /// What is waited for.
    pub message: String,
}
