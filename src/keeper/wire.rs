//! What keeper and supervisor say to each other: one message per packet of a SOCK_SEQPACKET socket.
//!
//! Versioned and additive: a message is a kind and fields of (tag, length, value). Unknown fields are skipped, an
//! unknown kind is answered with an error, so that either side may be newer. It may not do I/O.
//! To add a field: a new tag in `encode.rs`, never a used one, with a meaning where it is missing; a field of a policy also
//! raises [`PROTOCOL_MINOR`]. To add a message: a new kind number there.

mod encode;
mod fields;
mod logfile;
mod spec;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::model::{Digest, Exit, GroupName, Launch, Policy, ServiceReport, ServiceSpec, Signal, View};

pub use encode::{Undecodable, decode_message, decode_request, encode_message, encode_request};
pub(super) use encode::{read_digest, read_exit, write_exit};
pub(super) use fields::{FieldError, Fields, Writer};
pub use logfile::{LOG_FILES_MAX, LOG_LINE_MAX_BYTES, log_age, log_dir, log_file};
pub(super) use spec::{read_publication, read_spec, write_publication, write_spec};

/// Version of the protocol. It rises when a message changes its meaning; new fields and messages need no rise.
pub const PROTOCOL_VERSION: u64 = 1;

/// Minor version: it rises with each field of a policy that is added. Of what a keeper reports, the supervisor compares only
/// the fields that its version has (`Policy::known_by`).
pub const PROTOCOL_MINOR: u64 = 2;

/// Longest packet in bytes, either way.
pub const PACKET_MAX_BYTES: usize = 128 * 1024;

/// Environment variable that names the supervisor's end of the socket.
pub const SOCKET_ENV: &str = "TAGFALL_KEEPER_FD";

/// How many bytes of a command's output are kept: the last ones.
pub const EXEC_OUTPUT_MAX_BYTES: usize = 4 * 1024;

/// What the supervisor asks for. Each is sent with an attempt number, and answered by exactly one [`Message::Reply`] or
/// [`Message::ExecDone`] that carries it.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Make this the running spec. Nothing runs: starts it. Another launch runs: stops it whole, then starts this one. The
    /// same launch runs: takes over revision, release and policy, and the view for the next start. A task that is done for
    /// this revision stays done, and a service that failed for good stays failed until something of its spec differs.
    Run(Box<ServiceSpec>),
    /// Take over what touches no process.
    Amend {
        /// Which service.
        group: GroupName,
        /// Revision in force from now on; a `done` counts for it too.
        revision: Digest,
        /// `TAGFALL_RELEASE` of the next start.
        release: String,
        /// Policy in force from now on.
        policy: Policy,
    },
    /// Stop it and all it started; it stays known, as stopped.
    Stop {
        /// Which service.
        group: GroupName,
    },
    /// Stop it if it runs, then start it, whatever state it is in.
    Restart {
        /// Which service.
        group: GroupName,
    },
    /// Send a signal to its main process.
    Signal {
        /// Which service.
        group: GroupName,
        /// Which signal.
        signal: Signal,
    },
    /// Show it another publication, and tell it by a signal if there is one. Not running: for its next start.
    Reload {
        /// Which service.
        group: GroupName,
        /// What it shall see.
        view: View,
        /// How it is told; `None` = it looks by itself.
        signal: Option<Signal>,
    },
    /// The supervisor found it ready.
    MarkReady {
        /// Which service.
        group: GroupName,
        /// Which process of it; another one is left as it is.
        incarnation: u64,
    },
    /// Drop what is known of it; refused unless it is stopped, done or failed.
    Forget {
        /// Which service.
        group: GroupName,
    },
    /// Run a command, as health checks and hooks need it.
    Exec(Box<Command>),
    /// Make the host's link at a group's mount path, where nothing stands: it leads to the group's view.
    Link {
        /// Whose.
        group: GroupName,
        /// Where.
        path: String,
    },
    /// Take the host's link at a path away, where it is this group's.
    Unlink {
        /// Whose.
        group: GroupName,
        /// Where.
        path: String,
    },
    /// Let the group of a user read what is published for a group from now on.
    Readers {
        /// What is published.
        group: GroupName,
        /// Who reads.
        user: String,
    },
    /// Give folders that somebody made among a group's publications to the supervisor, so that it can remove them.
    Reclaim {
        /// Whose.
        group: GroupName,
    },
    /// The supervisor's API answers: whoever waits for this host to be up need wait no longer.
    Serving,
    /// Answer to [`Message::Shutdown`]: all that the supervisor had to order is done.
    Finished,
}

/// A command to run for a service.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Command {
    /// Service whose user, environment, working directory, hardening and mount namespace it gets; `None` = plain.
    pub group: Option<GroupName>,
    /// User instead of the service's; without both, the keeper's own.
    pub user: Option<String>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// What the service is to be started with, where a hook runs before that start: user, environment, folder and hardening
    /// are taken from it. `None` = what it was started with last.
    pub launch: Option<Launch>,
    /// Environment beside that of the service.
    pub env: Vec<(String, String)>,
    /// Working directory instead of the service's.
    pub cwd: Option<String>,
    /// After which all of it is killed.
    pub timeout: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    /// How its main process ended.
    pub exit: Exit,
    /// Last [`EXEC_OUTPUT_MAX_BYTES`] of what it wrote to stdout and stderr; invalid UTF-8 replaced.
    pub output: String,
    /// Whether it was killed because its time was up.
    pub timed_out: bool,
}

/// What the keeper says first on every connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Its [`PROTOCOL_VERSION`].
    pub version: u64,
    /// Its [`PROTOCOL_MINOR`]; 0 of one that does not tell.
    pub minor: u64,
    /// Its process id.
    pub keeper_pid: u32,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Whether services get mount namespaces of their own; if not, why.
    pub namespaces: Result<(), String>,
    /// The user that the keeper gave to the supervisor, by name; `None` = the keeper's own.
    pub supervisor_user: Option<String>,
    /// What the supervisor's process should be shut in with and is not, for people.
    pub lacks: Vec<String>,
}

/// What the keeper says.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// First of every connection; all reports follow.
    Hello(Hello),
    /// One service as it is now. Reports in between may be left out, the newest never.
    Report(Box<ServiceReport>),
    /// A service is no longer known.
    Gone(GroupName),
    /// All services have been reported since Hello.
    SnapshotEnd,
    /// A request was carried out, or why not.
    Reply {
        /// The request's attempt number; 0 where it could not be read.
        attempt: u64,
        /// What came of it.
        result: Result<(), String>,
    },
    /// A command has ended.
    ExecDone {
        /// The request's attempt number.
        attempt: u64,
        /// How.
        outcome: ExecOutcome,
    },
    /// The keeper was told to end: order the stops, take links away, then answer [`Request::Finished`].
    Shutdown,
}
