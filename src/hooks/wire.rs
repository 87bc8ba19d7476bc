//! What supervisor and hook host say to each other: postcard in frames (see `frame.rs`), both ends being the same binary.
//!
//! The supervisor believes nothing that the host says: whatever is asked for is held against the grants of the call that it is
//! asked for. Descriptors go one way only, to the host.

use serde::{Deserialize, Serialize};

use crate::model::{Digest, HookAnswer, HookContext, HookInput, HookKind, HookMember, Probes};

/// To the host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToHost {
    /// Take a compiled module; its file comes with it.
    Load { module: Digest, form: Form },
    /// It is not needed any more.
    Unload { module: Digest },
    /// Look at a loaded module: link it, make an instance, check the types of its hooks.
    Inspect { id: u64, module: Digest, memory: u64 },
    /// Run a hook.
    Call { id: u64, call: Box<Call> },
    /// Nobody waits for it any more.
    Cancel { id: u64 },
    /// The answer to a question of a call, by the question's number; an opened file or connection comes with it.
    Answer { id: u64, number: u32, answer: Answer },
}

/// One call, as the host needs it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Call {
    pub(super) module: Digest,
    pub(super) input: HookInput,
    pub(super) service: String,
    pub(super) group: String,
    pub(super) context: HookContext,
    pub(super) args_json: String,
    pub(super) config_json: String,
    pub(super) members: Vec<HookMember>,
    pub(super) env: Vec<(String, String)>,
    /// Folders that a command finds opened, and whether it may write there.
    pub(super) folders: Vec<(String, bool)>,
    /// What is asked before a command begins.
    pub(super) probes: Probes,
    /// How long it may take by its group's file.
    pub(super) timeout_ms: u32,
    /// What is left of that.
    pub(super) left_ms: u32,
    pub(super) memory: u64,
}

/// From the host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromHost {
    /// It has shut itself in and listens.
    Ready {
        /// What the kernel would not enforce.
        gaps: Vec<Gap>,
        /// What compiled code must have been made for.
        engine: Digest,
    },
    /// What a module is, or why it cannot be run; nothing where it was not looked at.
    Inspected { id: u64, result: Option<Result<Inspected, String>> },
    /// A question of a call. One that comes before the last was answered takes its place.
    Ask { id: u64, number: u32, ask: Ask },
    /// How a call went.
    Done { id: u64, run: Box<Run> },
}

/// Something that the hook host should be shut in with and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gap {
    /// For people.
    pub(super) words: String,
    /// Nothing else does what it would have done.
    pub(super) open: bool,
}

/// The two ways to write a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A component of the worlds in `wit/`.
    Component,
    /// A plain WASI command.
    Command,
}

/// What a module is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    /// Which way it was written.
    pub form: Form,
    /// The hooks that it exports; a command may be any.
    pub hooks: Vec<HookKind>,
    /// What it imports, as `INTERFACE#FUNCTION`.
    pub imports: Vec<String>,
    /// What else it exports, which nobody will call.
    pub unknown_exports: Vec<String>,
    /// Bytes of memory that a new instance has.
    pub memory: u64,
}

/// How a call went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) answer: HookAnswer,
    /// Lines that it said.
    pub(super) log: Vec<LogLine>,
    /// From the store's making to its end.
    pub(super) took_us: u64,
    /// Most bytes of memory that it had.
    pub(super) memory: u64,
}

/// A line that a hook said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// `trace` to `error`; what a command writes is `info`.
    pub level: Level,
    /// The line.
    pub message: String,
    /// Names with values.
    pub fields: Vec<(String, String)>,
}

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "as in wit/")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// As in wit/.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// What a call asks of the outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// A connection.
    Connect { to: Target, timeout_ms: u32 },
    /// The connection of whichever of the call's probes has one first, or has none: all are made at the first question.
    Probe { timeout_ms: u32 },
    /// A command of `allow.exec`.
    Exec { name: String, timeout_ms: u32 },
    /// A file or folder, opened.
    Open { path: String, how: Open },
    /// A whole file, replaced.
    Write { path: String, data: Vec<u8> },
    /// A file, or an empty folder, removed.
    Remove { path: String, folder: bool },
    /// A new folder.
    MakeFolder { path: String },
    /// A file renamed.
    Rename { from: String, to: String },
}

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Target {
    Tcp { host: String, port: u16 },
    Unix { path: String },
}

/// How to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Open {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) create: bool,
    pub(super) exclusive: bool,
    pub(super) truncate: bool,
    pub(super) append: bool,
    pub(super) folder: bool,
    /// Only to look at what it is.
    pub(super) look: bool,
    /// The last name may be a link, which is then what is opened.
    pub(super) no_follow: bool,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It was done; what was opened comes with it.
    Done,
    /// A command ended.
    Exit { code: Option<i32>, signal: Option<String>, output: Vec<u8> },
    /// A probe's connection comes with it, or there is none.
    Probe { name: String, failed: Option<(Code, String)> },
    /// It was not done: a word for programs and a sentence for people.
    Refused { code: Code, message: String },
}

impl Answer {
    pub(super) fn refused(code: Code, message: impl Into<String>) -> Self {
        Self::Refused { code, message: message.into() }
    }
}

/// Words for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Code {
    Denied,
    Timeout,
    ConnectionRefused,
    Dns,
    Tls,
    TooLarge,
    NotFound,
    Exists,
    NotFolder,
    IsFolder,
    NotEmpty,
    Invalid,
    Other,
}

impl Code {
    /// As in wit/.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Timeout => "timeout",
            Self::ConnectionRefused => "refused",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::TooLarge => "too-large",
            Self::NotFound => "not-found",
            Self::Invalid => "invalid",
            Self::Exists | Self::NotFolder | Self::IsFolder | Self::NotEmpty | Self::Other => "other",
        }
    }
}

/// Longest message of an answer or failure, in bytes.
pub(super) const MESSAGE_MAX_BYTES: usize = 512;
/// Longest list, text or body that crosses the boundary between guest and host in one call, in bytes.
pub(super) const BODY_MAX_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_of_a_host_break_whoever_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            drop(postcard::from_bytes::<FromHost>(&bytes));
            drop(postcard::from_bytes::<ToHost>(&bytes));
        }

        #[test]
        fn a_message_that_is_cut_or_changed_is_another_or_none(at in 0_usize..200, flip in 1_u8..) {
            let path = "/etc/web/app.conf".repeat(8);
            let ask = Ask::Write { path, data: vec![1; 40] };
            let mut bytes = postcard::to_stdvec(&FromHost::Ask { id: 7, number: 1, ask }).unwrap();
            drop(postcard::from_bytes::<FromHost>(&bytes[..at.min(bytes.len())]));
            let at = at % bytes.len();
            bytes[at] ^= flip;
            drop(postcard::from_bytes::<FromHost>(&bytes));
        }
    }
}
