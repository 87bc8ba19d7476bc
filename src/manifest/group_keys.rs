//! The keys of `group.toml`, `rings/RING.toml` and `tagfall.toml`. A new key is a line here and a `fields.get` in `group`
//! or `hooks`; the walker and the JSON Schema take it from here.

use crate::model::{BindMode, Hardening, LogFormat, OnFailure, OnUnhealthy, Ready, ServiceKind, Strategy, Templates, Topology};

use super::choice::Choice;
use super::shape::{Key, Kind, Shape, Text};

const ARGUMENT: Kind = Kind::Text(Text::Argument);
const ARGUMENTS: Kind = Kind::List { of: &ARGUMENT, min: 0 };
const COMMAND: Kind = Kind::List { of: &ARGUMENT, min: 1 };
const ENVIRONMENT: Kind = Kind::Map { keys: Text::Variable, of: &Kind::Text(Text::Content) };
const LABELS: Kind = Kind::Map { keys: Text::Label, of: &Kind::Text(Text::Label) };
const PATHS: Kind = Kind::List { of: &Kind::Text(Text::PathTemplate), min: 0 };
const UP_TO_A_DAY: Kind = Kind::Duration { min: "1ms", max: "1d" };

/// The format this build reads.
const FORMAT: Kind = Kind::Integer { min: 1, max: 1 };

pub(crate) static GROUP: Shape = Shape {
    name: "",
    keys: &[
        Key::new("format", FORMAT, "The version of this file's format: 1.").required(),
        Key::new("templates", Kind::Choice(Templates::NAMES), "How a template takes a missing name.").default("strict"),
        Key::new("config_open", Kind::List { of: &Kind::Text(Text::Dotted), min: 0 }, "Tables of [config] that take free keys."),
        Key::new("placement", Kind::Table(&PLACEMENT), "Where the group runs; empty labels mean every supervisor.").required(),
        Key::new("service", Kind::Table(&SERVICE), "What runs. Left out: a group that only publishes."),
        Key::new("config", Kind::Data, "The default layer of `cfg.*`."),
        Key::new("mount", Kind::Table(&MOUNT), "Where `config/` is published."),
        Key::new("exports", EXPORTS, "What consumers may bind: name = dotted path into [config]."),
        Key::new("binds", BINDS, "Groups whose exports this one needs."),
        Key::new("topology", Kind::Table(&TOPOLOGY), "Whether one member leads."),
        Key::new("update", Kind::Table(&UPDATE), "How a new revision rolls out."),
        Key::new("hooks", Kind::Table(&HOOKS), "WebAssembly modules and built-in checks, by the point at which they run."),
    ],
};

const EXPORTS: Kind = Kind::Map { keys: Text::Identifier, of: &Kind::Text(Text::Dotted) };
const BINDS: Kind = Kind::Map { keys: Text::Identifier, of: &Kind::Table(&BIND) };

static PLACEMENT: Shape = Shape {
    name: "[placement]",
    keys: &[Key::new("labels", LABELS, "Every pair must match the supervisor's labels; left out, or {}: every supervisor.")],
};

pub(crate) static SERVICE: Shape = Shape {
    name: "[service]",
    keys: &[
        Key::new("exec", COMMAND, "Program and arguments, each a template; never a shell line.").also(&[
            "cmd",
            "command",
            "execstart",
        ]),
        Key::new("user", Kind::Text(Text::Name), "Who it runs as; default: who started the supervisor."),
        Key::new("env", ENVIRONMENT, "Environment variables, each value a template.").also(&["environment", "envs"]),
        Key::new("working_dir", Kind::Text(Text::PathTemplate), "Default: DATA_DIR/var/GROUP.").also(&[
            "cwd",
            "workdir",
            "working_directory",
            "workingdirectory",
        ]),
        Key::new("kind", Kind::Choice(ServiceKind::NAMES), "A task runs once per revision.").default("daemon").also(&["type"]),
        Key::new("stop_signal", Kind::Signal { or_restart: false }, "What asks it to stop.").default("SIGTERM"),
        Key::new("stop_timeout", UP_TO_A_DAY, "Then SIGKILL to everything that it started.").default("8s").also(&[
            "timeoutstopsec",
            "shutdown_timeout_ms",
            "grace_period",
        ]),
        Key::new("reload_signal", Kind::Signal { or_restart: true }, "How a changed publication reaches it.").default("restart"),
        Key::new("backoff", Kind::Table(&BACKOFF), "Delays between restarts.").also(&[
            "restart",
            "restart_max",
            "restart_delay",
            "restartsec",
            "restart_policy",
            "restart_backoff",
        ]),
        Key::new("limits", Kind::Table(&LIMITS), "Resource limits; left out: none.").also(&["resources"]),
        Key::new("ready", Kind::Choice(Ready::NAMES), "Default: `health` with a health check, else `started`."),
        Key::new("start_timeout", UP_TO_A_DAY, "By when it must be ready.").default("60s").also(&["timeoutstartsec"]),
        Key::new("watchdog", UP_TO_A_DAY, "Longest silence of a service that says `WATCHDOG=1`; left out: none.")
            .also(&["watchdogsec", "watchdog_sec"]),
        Key::new("listen", Kind::List { of: &Kind::Text(Text::Socket), min: 0 }, "Sockets that are held over restarts.")
            .also(&["sockets"]),
        Key::new("hardening", Kind::Choice(Hardening::NAMES), "How far it is shut in.").default("default"),
        Key::new("on_unhealthy", Kind::Choice(OnUnhealthy::NAMES), "Whether an unhealthy service is restarted.")
            .default("report"),
        Key::new("container", Kind::Table(&CONTAINER), "A container instead of `exec`.").also(&["docker", "image"]),
        Key::new("logs", Kind::Table(&LOGS), "How its output is kept and passed on.").also(&["log", "logging"]),
    ],
};

pub(crate) static BACKOFF: Shape = Shape {
    name: "[service.backoff]",
    keys: &[
        Key::new("min", Kind::Duration { min: "10ms", max: "1h" }, "First delay.").default("100ms"),
        Key::new("max", Kind::Duration { min: "10ms", max: "1d" }, "Longest delay.").default("30s"),
        Key::new("reset_after", UP_TO_A_DAY, "After so long in readiness the count begins anew.").default("5m"),
    ],
};

static LIMITS: Shape = Shape {
    name: "[service.limits]",
    keys: &[
        Key::new("memory", Kind::Size { min: "1MiB", max: "1024TiB" }, "Bytes of memory."),
        Key::new("pids", Kind::Integer { min: 1, max: 4_194_304 }, "Processes and threads."),
        Key::new("open_files", Kind::Integer { min: 8, max: 1_048_576 }, "Open files of each process.").also(&["nofile"]),
        Key::new("cpu", Kind::Number { min: 0.01, max: 4096.0 }, "Cores.").also(&["cpus"]),
    ],
};

macro_rules! log_shape {
    ($shape:ident, $name:literal) => {
        pub(crate) static $shape: Shape = Shape {
            name: $name,
            keys: &[
                Key::new("max_size", LOG_FILE, "A file is closed before it grows larger. Default: 1MiB.").also(&[
                    "size",
                    "max_bytes",
                    "maxsize",
                ]),
                Key::new("files", LOG_FILES, "Files in all, the one being written included. Default: 3.").also(&[
                    "count",
                    "max_files",
                    "keep",
                    "rotate",
                ]),
                Key::new("format", Kind::Choice(LogFormat::NAMES), "How lines are written. Default: text."),
                Key::new("forward", Kind::Text(Text::Forward), "Who gets every line as well. Default: none."),
            ],
        };
    };
}

const LOG_FILE: Kind = Kind::Size { min: "128KiB", max: "1TiB" };
const LOG_FILES: Kind = Kind::Integer { min: 1, max: 100 };

// Two shapes, so that messages name the table that is meant.
log_shape!(LOGS, "[service.logs]");
log_shape!(HOST_LOGS, "[logs]");

static CONTAINER: Shape = Shape {
    name: "[service.container]",
    keys: &[
        Key::new("image", ARGUMENT, "The image's reference.").required(),
        Key::new("command", ARGUMENTS, "Arguments; left out: the image's own.").also(&["cmd", "exec", "args"]),
        Key::new("env", ENVIRONMENT, "Environment variables.").also(&["environment"]),
        Key::new("ports", Kind::List { of: &Kind::Text(Text::PortMapping), min: 0 }, "Published ports, HOST:CONTAINER."),
    ],
};

static MOUNT: Shape = Shape {
    name: "[mount]",
    keys: &[
        Key::new("path", Kind::Text(Text::MountPath), "A folder of the group's own; it shows one whole publication.").required(),
        Key::new("keep", Kind::Integer { min: 1, max: 1000 }, "How many newer publications an open old one outlives.")
            .default("3"),
    ],
};

pub(crate) static BIND: Shape = Shape {
    name: "a bind",
    keys: &[
        Key::new("group", Kind::Text(Text::Group), "The group that is needed.").required(),
        Key::new("needs", Kind::List { of: &Kind::Text(Text::Identifier), min: 0 }, "Exports of it that must be there."),
        Key::new("mode", Kind::Choice(BindMode::NAMES), "Whether a start waits for it.").default("strict"),
    ],
};

static TOPOLOGY: Shape = Shape {
    name: "[topology]",
    keys: &[Key::new("kind", Kind::Choice(Topology::NAMES), "Every member alike, or one leader.").default("standalone")],
};

pub(crate) static UPDATE: Shape = Shape {
    name: "[update]",
    keys: &[
        Key::new("strategy", Kind::Choice(Strategy::NAMES), "In which way.").default("rolling"),
        Key::new("max_unavailable", Kind::Count, "So many members may be down because of us.").default("1"),
        Key::new("canary", Kind::Count, "So many go first, with strategy `canary`.").default("1"),
        Key::new("min_healthy", Kind::Duration { min: "0s", max: "30d" }, "Healthy for so long before the next may go.")
            .default("10s"),
        Key::new("deadline", Kind::Duration { min: "1s", max: "30d" }, "By when a member must be healthy.").default("5m"),
        Key::new("on_failure", Kind::Choice(OnFailure::NAMES), "What a failure leads to.").default("rollback"),
    ],
};

/// One shape per hook, so that messages name the one that is meant.
macro_rules! hooks {
    ($($shape:ident $name:literal $table:literal;)+) => {
        $(static $shape: Shape = Shape { name: $table, keys: &[MODULE, HOOK_TIMEOUT, MEMORY, ARGS, ALLOW, PROBES] };)+
        pub(crate) static HOOKS: Shape = Shape {
            name: "[hooks]",
            keys: &[
                Key::new("health-check", Kind::Table(&HEALTH_CHECK), "First at once, then every interval.").also(&["health", "healthcheck", "health_check"]),
                $(Key::new($name, Kind::Table(&$shape), "A module that runs at this point of a service's life."),)+
            ],
        };
    };
}

hooks! {
    INIT "init" "[hooks.init]";
    POST_RUN "post-run" "[hooks.post-run]";
    RECONFIGURE "reconfigure" "[hooks.reconfigure]";
    FILE_UPDATED "file-updated" "[hooks.file-updated]";
    SUITABILITY "suitability" "[hooks.suitability]";
    PRE_UPDATE "pre-update" "[hooks.pre-update]";
    POST_UPDATE "post-update" "[hooks.post-update]";
    PRE_STOP "pre-stop" "[hooks.pre-stop]";
    POST_STOP "post-stop" "[hooks.post-stop]";
}

const MODULE: Key = Key::new("module", ARGUMENT, "A `.wasm` file below `hooks/`, or a built-in check.").required();
const HOOK_TIMEOUT: Key = Key::new("timeout", Kind::Duration { min: "1ms", max: "1h" }, "Of one call.").default("60s");
const MEMORY: Key = Key::new("memory", Kind::Size { min: "64KiB", max: "4GiB" }, "Memory of the module.").default("64MiB");
const ARGS: Key = Key::new("args", Kind::Data, "Handed to the hook as data.");
const ALLOW: Key = Key::new("allow", Kind::Table(&GRANTS), "What the hook may reach; left out: nothing.");
const BY_NAME: Kind = Kind::Map { keys: Text::Identifier, of: &Kind::Table(&PROBE) };
const PROBES: Key = Key::new("probes", BY_NAME, "What is asked before a WASI command begins; the answers are in its input.");

static HEALTH_CHECK: Shape = Shape {
    name: "[hooks.health-check]",
    keys: &[
        MODULE,
        Key::new("interval", Kind::Duration { min: "100ms", max: "1d" }, "Between two checks.").default("10s"),
        Key::new("timeout", Kind::Duration { min: "1ms", max: "1h" }, "Of one call; at most the interval.").default("2s"),
        Key::new("failures", Kind::Integer { min: 1, max: 1000 }, "So many critical answers in a row make the member unhealthy.")
            .default("3")
            .also(&["retries", "threshold", "failure_threshold"]),
        MEMORY,
        ARGS,
        ALLOW,
        PROBES,
    ],
};

static GRANTS: Shape = Shape {
    name: "a hook's `allow`",
    keys: &[
        Key::new(
            "net",
            Kind::List { of: &Kind::Text(Text::Reach), min: 0 },
            "Addresses and unix sockets that it may connect to.",
        ),
        Key::new("read", PATHS, "Paths that it may read."),
        Key::new("write", PATHS, "Paths that it may write."),
        Key::new("env", Kind::List { of: &Kind::Text(Text::Variable), min: 0 }, "Variables of the supervisor that it sees."),
        Key::new(
            "exec",
            Kind::Map { keys: Text::Identifier, of: &COMMAND },
            "Fixed commands, by the name it asks for them with.",
        ),
    ],
};

pub(crate) static PROBE: Shape = Shape {
    name: "a probe",
    keys: &[
        Key::new("url", Kind::Text(Text::HttpUrl), "Asked for with GET; a redirect is not followed."),
        Key::new("address", Kind::Text(Text::Reach), "Connected to, instead of a URL."),
        Key::new("send", Kind::Text(Text::Content), "What is sent to the address.").also(&["write", "data"]),
        Key::new(
            "until",
            Kind::Integer { min: 0, max: 65_536 },
            "So many bytes are waited for; left out: whatever comes first, where something was sent.",
        ),
    ],
};

pub(crate) static HTTP_ARGS: Shape = Shape {
    name: "the arguments of `builtin:http`",
    keys: &[
        Key::new("url", Kind::Text(Text::HttpUrl), "What is asked for.").required(),
        Key::new("status", Kind::Integer { min: 100, max: 599 }, "The expected status; left out: 200 to 399."),
        Key::new("body", Kind::Text(Text::Argument), "Text that the answer must have."),
    ],
};

pub(crate) static TCP_ARGS: Shape = Shape {
    name: "the arguments of `builtin:tcp`",
    keys: &[Key::new("address", Kind::Text(Text::HostPortTemplate), "Where something must accept connections.").required()],
};

pub(crate) static FILE_ARGS: Shape = Shape {
    name: "the arguments of `builtin:file`",
    keys: &[
        Key::new("path", Kind::Text(Text::PathTemplate), "What must exist.").required(),
        Key::new("max_age", Kind::Duration { min: "1ms", max: "365d" }, "It may not be older."),
    ],
};

pub(crate) static EXEC_ARGS: Shape = Shape {
    name: "the arguments of `builtin:exec`",
    keys: &[Key::new("command", Kind::Text(Text::Identifier), "A name of `allow.exec`.").required()],
};

/// `tagfall.toml`.
pub(crate) static REPOSITORY: Shape = Shape {
    name: "",
    keys: &[
        Key::new("format", FORMAT, "The version of this file's format: 1.").required(),
        Key::new("min_version", Kind::Text(Text::Version), "The oldest Tagfall that may run this repository."),
        Key::new("defaults", Kind::Table(&DEFAULTS), "What every group has unless its own file says otherwise."),
    ],
};

static DEFAULTS: Shape = Shape {
    name: "[defaults]",
    keys: &[
        Key::new("update", Kind::Table(&UPDATE), "How new revisions roll out."),
        Key::new("service", Kind::Table(&DEFAULT_SERVICE), "For groups with a [service]."),
    ],
};

static DEFAULT_SERVICE: Shape =
    Shape { name: "[defaults.service]", keys: &[Key::new("backoff", Kind::Table(&BACKOFF), "Delays between restarts.")] };
