//! Plain WASI commands (`wasm32-wasip1`), run as the core modules that they are: the hook's name is `argv[1]`, what it is told is
//! JSON on standard input, its answer is the exit code and the last line of output.
//!
//! It has no sockets: what it needs to know of a service is asked before it begins, and stands in its input (`probes.rs`).
//!
//! The part of preview 1 that is here is our own, and small: what it needs from outside goes over the same line to the supervisor
//! as what components ask, so no second set of rules about files exists. A new call: `calls.rs`, or `files.rs` where it is about
//! files.

mod calls;
mod files;
mod memory;
mod probes;

use std::fmt;

use serde_json::{Map, Value, json};
use wasmtime::{Engine, InstancePre, Linker, Module, Store};

use super::guest::Guest;
use super::module::{shown, words};
use crate::hooks::wire::{Form, Inspected, Level};
use crate::model::{HealthStatus, HookAction, HookAnswer, HookFailed, HookFailure, HookInput, HookKind};

/// The module that WASI's calls are imported from.
const WASI: &str = "wasi_snapshot_preview1";
/// What is kept of each output: its end, in bytes.
const OUTPUT_MAX_BYTES: usize = 16 << 10;

/// What a command has open, and what it has said.
#[derive(Default)]
pub(super) struct State {
    arguments: Vec<String>,
    input: Vec<u8>,
    read: usize,
    outputs: [Vec<u8>; 2],
    open: files::Table,
}

/// The command ended itself.
#[derive(Debug)]
pub(super) struct Exited(pub(super) i32);

impl fmt::Display for Exited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Exited {}

/// A linked command.
pub(super) struct Command {
    pre: InstancePre<Guest>,
    imports: Vec<String>,
    memory: u64,
}

/// What commands are linked against.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    calls::link(&mut linker)?;
    files::link(&mut linker)?;
    Ok(linker)
}

impl Command {
    /// Links a module; an error is for whoever wrote it.
    pub(super) fn link(linker: &Linker<Guest>, module: Module) -> Result<Self, String> {
        if let Some(import) = module.imports().find(|import| import.module() != WASI) {
            let name = format!("{}#{}", shown(import.module()), shown(import.name()));
            return Err(format!("it imports `{name}`, which is not there: a core module may import `{WASI}` only"));
        }
        if module.get_export("_start").is_none_or(|export| export.func().is_none()) {
            return Err("it is a core module without `_start`: a hook is a component, or a WASI command".to_owned());
        }
        let Some(memory) = module.get_export("memory").and_then(|export| export.memory().cloned()) else {
            return Err(
                "it is a core module that does not export its memory: a hook is a component, or a WASI command".to_owned()
            );
        };
        let imports = module.imports().map(|import| format!("{}#{}", shown(import.module()), shown(import.name()))).collect();
        let pre = linker.instantiate_pre(&module).map_err(|error| format!("it does not link: {}", words(&error)))?;
        Ok(Self { pre, imports, memory: memory.minimum() * memory.page_size() })
    }

    pub(super) fn inspect(&self) -> Inspected {
        Inspected {
            form: Form::Command,
            hooks: HookKind::ALL.to_vec(),
            imports: self.imports.clone(),
            unknown_exports: Vec::new(),
            memory: self.memory,
        }
    }

    pub(super) async fn run(&self, store: &mut Store<Guest>) -> wasmtime::Result<HookAnswer> {
        let probes = probes::answers(store.data_mut()).await;
        let kind = begin(store.data_mut(), probes);
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
        let ended = start.call_async(&mut *store, ()).await;
        let code = match ended {
            Ok(()) => 0,
            Err(error) => match error.downcast_ref::<Exited>() {
                Some(Exited(code)) => *code,
                None => {
                    tell(store.data_mut());
                    return Err(error);
                }
            },
        };
        let last = tell(store.data_mut());
        Ok(answer(kind, code, last))
    }
}

/// Hands over what the command finds at its start.
fn begin(guest: &mut Guest, probes: Map<String, Value>) -> HookKind {
    let kind = guest.call.input.kind();
    guest.command.arguments = vec!["hook".to_owned(), kind.name().to_owned()];
    guest.command.input = input(guest, probes).to_string().into_bytes();
    guest.command.open = files::Table::new(&guest.call.folders);
    kind
}

/// What a command reads: the same that a component is handed, and what its probes were answered.
fn input(guest: &Guest, probes: Map<String, Value>) -> Value {
    let call = &guest.call;
    let left_ms = u32::try_from(guest.left(0).as_millis()).unwrap_or(u32::MAX);
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
    let context = &call.context;
    let extra: Map<String, Value> = context.extra.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut whole = json!({
        "hook": call.input.kind().name(),
        "context": {
            "service": call.service, "group": call.group, "release": context.release, "commit": context.commit,
            "reason": context.reason, "attempt": context.attempt, "deadline_ms": left_ms,
            "trace_id": context.trace_id, "extra": extra,
        },
        "args": parsed(&call.args_json),
        "config": parsed(&call.config_json),
        "members": call.members,
        "probes": probes,
    });
    let more = match &call.input {
        HookInput::PostRun { pid } => json!({ "pid": pid }),
        HookInput::Reconfigure { changed } => json!({ "changed": changed }),
        HookInput::FileUpdated { paths } => json!({ "paths": paths }),
        HookInput::PreUpdate { next } => json!({ "next": next }),
        HookInput::PostUpdate { previous } => json!({ "previous": previous }),
        HookInput::PostStop { code, signal } => json!({ "exit": { "code": code, "signal": signal } }),
        HookInput::HealthCheck | HookInput::Init | HookInput::Suitability | HookInput::PreStop => json!({}),
    };
    if let (Some(whole), Value::Object(more)) = (whole.as_object_mut(), more) {
        whole.extend(more);
    }
    whole
}

/// Makes lines of the log of what it wrote; the last line of standard output, or else of standard error, is its answer's.
fn tell(guest: &mut Guest) -> String {
    let outputs = std::mem::take(&mut guest.command.outputs).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    for (output, level) in outputs.iter().zip([Level::Info, Level::Warn]) {
        for line in output.lines().filter(|line| !line.trim().is_empty()) {
            guest.say(level, line.to_owned(), Vec::new());
        }
    }
    let last = |output: &String| output.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    outputs.iter().find_map(last).unwrap_or_default()
}

fn answer(kind: HookKind, code: i32, last: String) -> HookAnswer {
    let ended = || if last.is_empty() { format!("it ended with code {code}") } else { last.clone() };
    let failed = |reason, message: String| HookAnswer::Failed(HookFailure::new(reason, message));
    match (kind, code) {
        (HookKind::HealthCheck | HookKind::PostUpdate, _) => {
            let (status, message) = match code {
                0 => (HealthStatus::Ok, last),
                1 => (HealthStatus::Warning, ended()),
                2 => (HealthStatus::Critical, ended()),
                _ => (HealthStatus::Unknown, if last.is_empty() { ended() } else { format!("code {code}: {last}") }),
            };
            HookAnswer::Health { status, message }
        }
        (_, code) if code != 0 => {
            failed(HookFailed::Said, if last.is_empty() { ended() } else { format!("code {code}: {last}") })
        }
        (HookKind::Suitability, _) => match last.parse() {
            Ok(rank) => HookAnswer::Rank(rank),
            Err(_) => failed(HookFailed::Invalid, format!("its last line is no number: `{}`", shown(&last))),
        },
        (HookKind::Reconfigure | HookKind::FileUpdated, _) => {
            let action = match last.split_once(' ') {
                _ if last == "restart" => HookAction::Restart,
                Some(("signal", name)) => HookAction::Signal(name.trim().to_owned()),
                _ => HookAction::Done,
            };
            HookAnswer::Outcome { action, message: last }
        }
        (HookKind::Init | HookKind::PostRun | HookKind::PreUpdate | HookKind::PreStop | HookKind::PostStop, _) => {
            HookAnswer::Outcome { action: HookAction::Done, message: last }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_and_last_line_make_the_answer() {
        let health = |code, last: &str| match answer(HookKind::HealthCheck, code, last.to_owned()) {
            HookAnswer::Health { status, message } => (status, message),
            other @ (HookAnswer::Outcome { .. } | HookAnswer::Rank(_) | HookAnswer::Failed(_)) => panic!("{other:?}"),
        };
        assert_eq!(health(0, "well"), (HealthStatus::Ok, "well".to_owned()));
        assert_eq!(health(1, "so-so"), (HealthStatus::Warning, "so-so".to_owned()));
        assert_eq!(health(2, ""), (HealthStatus::Critical, "it ended with code 2".to_owned()));
        assert_eq!(health(3, "what"), (HealthStatus::Unknown, "code 3: what".to_owned()));
        assert_eq!(health(-1, ""), (HealthStatus::Unknown, "it ended with code -1".to_owned()));
        let action = |last: &str| match answer(HookKind::Reconfigure, 0, last.to_owned()) {
            HookAnswer::Outcome { action, .. } => action,
            other @ (HookAnswer::Health { .. } | HookAnswer::Rank(_) | HookAnswer::Failed(_)) => panic!("{other:?}"),
        };
        assert_eq!(action("restart"), HookAction::Restart);
        assert_eq!(action("signal SIGHUP"), HookAction::Signal("SIGHUP".to_owned()));
        assert_eq!(action("signals nothing"), HookAction::Done);
        assert_eq!(answer(HookKind::Suitability, 0, "7".to_owned()), HookAnswer::Rank(7));
        for (kind, code, last) in [(HookKind::Suitability, 0, "-7"), (HookKind::Suitability, 1, "7"), (HookKind::Init, 1, "")] {
            assert!(matches!(answer(kind, code, last.to_owned()), HookAnswer::Failed(_)), "{kind:?} {code} {last}");
        }
    }
}
