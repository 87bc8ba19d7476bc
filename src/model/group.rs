//! A service group as a release declares it: defaults filled in, units resolved, this ring's overlay applied.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Digest, GroupName, LogSettings, ObjectId, Signal};

/// A service group's whole declaration.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// `SERVICE.GROUP`, from the folder's name.
    pub name: GroupName,
    /// SHA-256 over the manifest after this ring's overlay and the names, modes and blob ids of `config/` and `hooks/`.
    pub revision: Digest,
    /// Labels that a supervisor must have; empty = every supervisor.
    pub placement: BTreeMap<String, String>,
    /// What runs; `None` for a group that only publishes.
    pub service: Option<Service>,
    /// `[config]` after the ring's overlay: an object. Layers above may set only what it has.
    pub config: serde_json::Value,
    /// `[config]` as the group alone declares it, and the ring overlay's part, for `config show --origin`.
    pub config_default: serde_json::Value,
    /// The ring overlay's `[config]`, empty object where there is none.
    pub config_ring: serde_json::Value,
    /// Dotted paths of tables that take free keys.
    pub config_open: Vec<String>,
    /// Where `config/` is published; always there when `files` is not empty.
    pub mount: Option<Mount>,
    /// Strict or Habitat's lenient templates.
    pub templates: Templates,
    /// The files of `config/`, by path below it.
    pub files: Vec<ConfigFile>,
    /// The modules of `hooks/`, by path below the group's folder.
    pub modules: Vec<ConfigFile>,
    /// What consumers may bind: name → dotted path into config.
    pub exports: BTreeMap<String, String>,
    /// Other groups it needs.
    pub binds: BTreeMap<String, Bind>,
    /// Standalone, or one leader.
    pub topology: Topology,
    /// How a new revision rolls out.
    pub update: Update,
    /// Hooks by their kind.
    pub hooks: BTreeMap<HookKind, Hook>,
}

/// A file of the repository: named, not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Path below `config/` (or the group's folder for modules), `/`-separated, safe by construction.
    pub path: String,
    /// The blob's id.
    pub blob: ObjectId,
    /// Whether the tree marks it executable.
    pub executable: bool,
    /// Bytes of the blob.
    pub size: u64,
}

impl ConfigFile {
    /// The name it is published under, and whether it is a template.
    pub fn target(&self) -> (&str, bool) {
        match self.path.strip_suffix(".hbs") {
            Some(target) => (target, true),
            None => (&self.path, false),
        }
    }
}

/// How missing names in templates are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Templates {
    /// A missing name that would be printed is an error.
    #[default]
    Strict,
    /// It prints nothing, as in Habitat.
    Lenient,
}

/// `[mount]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute, normalised path.
    pub path: String,
    /// A publication stays readable until so many newer ones exist.
    pub keep: u32,
}

/// `[service]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Arguments, each a template; empty with `container`.
    pub exec: Vec<String>,
    /// Who it runs as; `None` = who started the supervisor.
    pub user: Option<String>,
    /// Environment beside the fixed one; each value a template.
    pub env: BTreeMap<String, String>,
    /// Working directory; `None` = DATA_DIR/var/GROUP.
    pub working_dir: Option<String>,
    /// Daemon or task.
    pub kind: ServiceKind,
    /// First signal of a stop.
    pub stop_signal: Signal,
    /// Then SIGKILL.
    pub stop_timeout: Duration,
    /// How a changed publication reaches it.
    pub reload: Reload,
    /// Restart delays.
    pub backoff: Backoff,
    /// Resource limits.
    pub limits: Limits,
    /// What makes it ready.
    pub ready: Ready,
    /// By when it must be.
    pub start_timeout: Duration,
    /// Longest silence of a service that says by `sd_notify` that it is alive.
    pub watchdog: Option<Duration>,
    /// Held sockets.
    pub listen: Vec<String>,
    /// How far it is shut in.
    pub hardening: Hardening,
    /// Whether an unhealthy service is restarted.
    pub on_unhealthy: OnUnhealthy,
    /// A container instead of `exec`.
    pub container: Option<Container>,
    /// How its lines are kept and passed on, as far as it says so itself.
    pub logs: LogSettings,
}

/// `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceKind {
    /// Any exit but code 125 is restarted.
    Daemon,
    /// Runs once per revision to exit 0.
    Task,
}

/// `reload_signal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reload {
    /// By restart.
    Restart,
    /// By a signal.
    Signal(Signal),
}

/// `backoff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Backoff {
    /// First delay.
    pub min: Duration,
    /// Longest delay.
    pub max: Duration,
    /// After so long in readiness the count begins anew.
    pub reset_after: Duration,
}

/// `limits`; `None` = no limit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Descriptors.
    pub open_files: Option<u64>,
    /// Cores.
    pub cpu: Option<f64>,
}

/// `ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ready {
    /// `sd_notify`.
    Notify,
    /// Newline on a descriptor.
    Fd,
    /// First ok health check.
    Health,
    /// Once started.
    Started,
}

/// `hardening`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hardening {
    /// Nothing is taken away.
    None,
    /// no_new_privs and no capabilities.
    Default,
    /// Files, /tmp, devices and system calls too.
    Strict,
}

/// `on_unhealthy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnUnhealthy {
    /// Only said.
    Report,
    /// Restarted.
    Restart,
}

/// `[service.container]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Image reference.
    pub image: String,
    /// Arguments; empty = the image's own.
    pub command: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// `HOST:CONTAINER`.
    pub ports: Vec<String>,
}

/// One entry of `[binds]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The group that is needed.
    pub group: GroupName,
    /// Exports of it that must be there.
    pub needs: Vec<String>,
    /// Whether a start waits for it.
    pub mode: BindMode,
}

/// `mode` of a bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BindMode {
    /// Not started before it is satisfied.
    Strict,
    /// Started all the same.
    Relaxed,
}

/// `[topology] kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topology {
    /// Every member alike.
    Standalone,
    /// One member leads.
    Leader,
}

/// `[update]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// In which way.
    pub strategy: Strategy,
    /// So many may be down because of us.
    pub max_unavailable: Count,
    /// So many go first.
    pub canary: Count,
    /// Healthy for so long before the next may go.
    pub min_healthy: Duration,
    /// By when a member must be healthy.
    pub deadline: Duration,
    /// What a failure leads to.
    pub on_failure: OnFailure,
}

/// `strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// All together.
    AtOnce,
    /// In turns.
    Rolling,
    /// Some first.
    Canary,
    /// When an operator says so.
    Manual,
}

/// `on_failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnFailure {
    /// Back to what ran.
    Rollback,
    /// Stay and wait for a person.
    Halt,
}

/// A number of members, or a share of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Count {
    /// So many.
    Members(u32),
    /// 1 to 100.
    Percent(u8),
}

/// The points of a service's life at which a hook may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "named as in group.toml; the hooks page tells when each runs")]
pub enum HookKind {
    HealthCheck,
    Init,
    PostRun,
    Reconfigure,
    FileUpdated,
    Suitability,
    PreUpdate,
    PostUpdate,
    PreStop,
    PostStop,
}

impl HookKind {
    /// Whether it changes nothing outside, so that it may be asked again where nobody knows how far it came.
    pub fn only_asks(self) -> bool {
        match self {
            Self::HealthCheck | Self::Suitability => true,
            Self::Init
            | Self::PostRun
            | Self::Reconfigure
            | Self::FileUpdated
            | Self::PreUpdate
            | Self::PostUpdate
            | Self::PreStop
            | Self::PostStop => false,
        }
    }

    /// All of them, in the order of a service's life.
    pub const ALL: [Self; 10] = [
        Self::HealthCheck,
        Self::Init,
        Self::PostRun,
        Self::Reconfigure,
        Self::FileUpdated,
        Self::Suitability,
        Self::PreUpdate,
        Self::PostUpdate,
        Self::PreStop,
        Self::PostStop,
    ];

    /// The name in `group.toml`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HealthCheck => "health-check",
            Self::Init => "init",
            Self::PostRun => "post-run",
            Self::Reconfigure => "reconfigure",
            Self::FileUpdated => "file-updated",
            Self::Suitability => "suitability",
            Self::PreUpdate => "pre-update",
            Self::PostUpdate => "post-update",
            Self::PreStop => "pre-stop",
            Self::PostStop => "post-stop",
        }
    }
}

/// `[hooks.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// What runs.
    pub check: Check,
    /// Between two checks (health-check only).
    pub interval: Duration,
    /// Of one call.
    pub timeout: Duration,
    /// So many critical answers in a row make the member unhealthy.
    pub failures: u32,
    /// Bytes of memory of a module.
    pub memory: u64,
    /// Handed over as data: an object; strings in it are templates over `mount.path` and config.
    pub args: serde_json::Value,
    /// What it may reach.
    pub allow: Grants,
    /// What is asked before a command begins, by the names that its input has the answers under.
    pub probes: Probes,
}

/// Probes of a hook, by name; strings in them are templates.
pub type Probes = BTreeMap<String, Probe>;

/// A question to a service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Probe {
    /// A GET, of which no redirect is followed.
    Http {
        /// `http://HOST[:PORT]/PATH`.
        url: String,
    },
    /// A connection.
    Stream {
        /// `HOST:PORT` or `unix:/PATH`.
        address: String,
        /// What is sent.
        send: String,
        /// So many bytes are waited for; `None` = whatever comes first, where something was sent.
        until: Option<u32>,
    },
}

/// What a hook runs: a module of the group's folder, or a built-in check with its arguments checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Path of a module below the group's folder.
    Module(String),
    /// `builtin:http`.
    Http {
        /// `http://HOST[:PORT]/PATH`.
        url: String,
        /// Expected status; `None` = any of 200-399.
        status: Option<u16>,
        /// Text that the body must have.
        body: Option<String>,
    },
    /// `builtin:tcp`.
    Tcp {
        /// `HOST:PORT`.
        address: String,
    },
    /// `builtin:file`.
    File {
        /// Absolute path.
        path: String,
        /// Not older than this.
        max_age: Option<Duration>,
    },
    /// `builtin:exec`: a command of `allow.exec`, by its name.
    Exec {
        /// Name in `allow.exec`.
        command: String,
    },
}

/// `allow` of a hook.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// `HOST:PORT`.
    pub net: Vec<String>,
    /// Readable paths.
    pub read: Vec<String>,
    /// Writable paths.
    pub write: Vec<String>,
    /// Environment variables of the supervisor that are handed on.
    pub env: Vec<String>,
    /// Fixed commands by name.
    pub exec: BTreeMap<String, Vec<String>>,
}
