//! One call, from its store's making to its answer. Every store is used once, and dropped whatever became of it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::{Engine, Store, Trap, UpdateDeadline, WasmBacktrace};

use super::bindings::tagfall::hooks::types;
use super::command::Exited;
use super::guest::Guest;
use super::module::{Hooks, Loaded, Unfit, words};
use crate::hooks::wire::{Call, Inspected, MESSAGE_MAX_BYTES, Run};
use crate::model::{HealthStatus, HookAction, HookAnswer, HookFailed, HookFailure, HookInput};

/// Bytes that a guest may hand over in one call of the host.
const HOSTCALL_BYTES: usize = 4 << 20;
/// Handles that a guest may hold.
const HANDLES_MAX: usize = 1_000;
/// Names of a backtrace that are told.
const FRAMES_MAX: usize = 5;

/// The call took too long.
#[derive(Debug)]
pub(super) struct Late;

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its time is up")
    }
}

impl std::error::Error for Late {}

fn store(engine: &Engine, guest: Guest) -> Store<Guest> {
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.limits);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    store.set_max_component_handles(HANDLES_MAX);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|context| {
        context.data().long.set();
        if Instant::now() >= context.data().deadline {
            return Err(wasmtime::Error::new(Late));
        }
        Ok(UpdateDeadline::Yield(1))
    });
    store
}

/// Runs a hook to its end, within its time.
pub(super) async fn run(engine: Engine, module: Shared, guest: Guest) -> Run {
    let begun = guest.begun;
    let timeout = guest.left(0);
    let loaded = match &*module {
        Ok(loaded) => loaded,
        Err(why) => {
            let answer = HookAnswer::Failed(HookFailure::new(HookFailed::Invalid, why));
            return Run { answer: bounded(answer), log: Vec::new(), took_us: 0, memory: 0 };
        }
    };
    let mut store = store(&engine, guest);
    // Beside the epoch, which does not end what waits in a call of the host.
    let done = tokio::time::timeout(timeout, invoke(loaded, &mut store)).await;
    let answer = match done {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => HookAnswer::Failed(failure(&error, store.data())),
        Err(_) => HookAnswer::Failed(failure(&wasmtime::Error::new(Late), store.data())),
    };
    let mut guest = store.into_data();
    Run {
        answer: bounded(answer),
        log: std::mem::take(&mut guest.log),
        took_us: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
        memory: guest.limits.peak as u64,
    }
}

/// Looks at a module, within the call's time.
pub(super) async fn inspect(engine: Engine, module: Shared, guest: Guest) -> Result<Inspected, String> {
    let timeout = guest.left(0);
    let loaded = module.as_ref().as_ref().map_err(Clone::clone)?;
    let mut store = store(&engine, guest);
    let done = tokio::time::timeout(timeout, loaded.inspect(&engine, &mut store)).await;
    let error = match done {
        Ok(Ok(inspected)) => return Ok(inspected),
        Ok(Err(error)) => error,
        Err(_) => wasmtime::Error::new(Late),
    };
    let mut message = failure(&error, store.data()).message;
    message.truncate(message.floor_char_boundary(MESSAGE_MAX_BYTES));
    Err(message)
}

async fn invoke(loaded: &Loaded, store: &mut Store<Guest>) -> wasmtime::Result<HookAnswer> {
    match loaded {
        Loaded::Component(hooks) => component(hooks, store).await,
        Loaded::Command(command) => command.run(store).await,
    }
}

fn context(call: &Call) -> types::Context {
    types::Context {
        service: call.service.clone(),
        group: call.group.clone(),
        release: call.context.release.clone(),
        commit: call.context.commit.clone(),
        reason: call.context.reason.clone(),
        attempt: call.context.attempt,
        deadline_ms: call.left_ms,
        trace_id: call.context.trace_id.clone(),
        args_json: call.args_json.clone(),
        extra: call.context.extra.clone(),
    }
}

async fn component(hooks: &Hooks, store: &mut Store<Guest>) -> wasmtime::Result<HookAnswer> {
    let input = store.data().call.input.clone();
    let context = context(&store.data().call);
    let instance = hooks.pre.instantiate_async(&mut *store).await?;
    macro_rules! hook {
        ($field:ident) => {{
            let missing = || wasmtime::Error::new(Unfit::without(input.kind()));
            hooks.$field.as_ref().ok_or_else(missing)?.load(&mut *store, &instance)?
        }};
    }
    Ok(match &input {
        HookInput::HealthCheck => report(hook!(health_check).call_check(store, &context).await?),
        HookInput::Init => done(hook!(init).call_run(store, &context).await?),
        HookInput::PostRun { pid } => done(hook!(post_run).call_run(store, &context, *pid).await?),
        HookInput::Reconfigure { changed } => outcome(hook!(reconfigure).call_run(store, &context, changed).await?),
        HookInput::FileUpdated { paths } => outcome(hook!(file_updated).call_run(store, &context, paths).await?),
        HookInput::Suitability => match hook!(suitability).call_rank(store, &context).await? {
            Ok(rank) => HookAnswer::Rank(rank),
            Err(said) => HookAnswer::Failed(self::said(said)),
        },
        HookInput::PreUpdate { next } => done(hook!(pre_update).call_run(store, &context, next).await?),
        HookInput::PostUpdate { previous } => report(hook!(post_update).call_check(store, &context, previous).await?),
        HookInput::PreStop => done(hook!(pre_stop).call_run(store, &context).await?),
        HookInput::PostStop { code, signal } => {
            let exit = types::ExitStatus { code: *code, signal: signal.clone() };
            done(hook!(post_stop).call_run(store, &context, &exit).await?)
        }
    })
}

fn said(failure: types::Failure) -> HookFailure {
    let types::Failure { code, message, retry_after_ms } = failure;
    let message = match (code.is_empty(), message.is_empty()) {
        (false, false) => format!("{message} ({code})"),
        (false, true) => code,
        (true, false) => message,
        (true, true) => "it failed without a word".to_owned(),
    };
    let retry_after = retry_after_ms.map(|ms| Duration::from_millis(u64::from(ms)));
    HookFailure { reason: HookFailed::Said, message, retry_after }
}

fn report(answer: Result<types::Report, types::Failure>) -> HookAnswer {
    match answer {
        Ok(report) => {
            let status = match report.health {
                types::Health::Ok => HealthStatus::Ok,
                types::Health::Warning => HealthStatus::Warning,
                types::Health::Critical => HealthStatus::Critical,
                types::Health::Unknown => HealthStatus::Unknown,
            };
            HookAnswer::Health { status, message: report.message }
        }
        Err(failure) => HookAnswer::Failed(said(failure)),
    }
}

fn done(answer: Result<(), types::Failure>) -> HookAnswer {
    match answer {
        Ok(()) => HookAnswer::Outcome { action: HookAction::Done, message: String::new() },
        Err(failure) => HookAnswer::Failed(said(failure)),
    }
}

fn outcome(answer: Result<types::Outcome, types::Failure>) -> HookAnswer {
    match answer {
        Ok(types::Outcome { action, message, extra: _ }) => {
            let action = match action {
                types::Action::Done => HookAction::Done,
                types::Action::Signal(name) => HookAction::Signal(name),
                types::Action::Restart => HookAction::Restart,
            };
            HookAnswer::Outcome { action, message }
        }
        Err(failure) => HookAnswer::Failed(said(failure)),
    }
}

/// What broke off, in words that name the place.
fn failure(error: &wasmtime::Error, guest: &Guest) -> HookFailure {
    let place = place(error);
    let said = guest.log.iter().rev().find(|line| !line.message.trim().is_empty());
    let last = said.map(|line| format!("; the last it said: {}", line.message.trim())).unwrap_or_default();
    if error.downcast_ref::<Late>().is_some() {
        let message = format!("it had not answered after {} ms and was ended{place}", guest.call.timeout_ms);
        return HookFailure::new(HookFailed::Timeout, message);
    }
    if error.downcast_ref::<Unfit>().is_some() {
        return HookFailure::new(HookFailed::Invalid, words(error));
    }
    // Most guests end themselves when they are given no more memory.
    if guest.limits.refused {
        let mb = guest.call.memory >> 20;
        let message =
            format!("it needs more memory than its limit of {mb} MiB (`memory` of the hook in `group.toml`){place}{last}");
        return HookFailure::new(HookFailed::Memory, message);
    }
    if let Some(Exited(code)) = error.downcast_ref::<Exited>() {
        return HookFailure::new(HookFailed::Said, format!("it ended itself with code {code}{last}"));
    }
    let what = error.downcast_ref::<Trap>().map_or_else(|| error.root_cause().to_string(), ToString::to_string);
    HookFailure::new(HookFailed::Trap, format!("it broke off: {what}{place}{last}"))
}

/// The innermost functions, by the names that the module has for them.
fn place(error: &wasmtime::Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let text = backtrace.to_string();
    let frames = text.lines().filter_map(|line| line.split_once(" - ")).map(|(_, frame)| {
        let frame = frame.rsplit_once('!').map_or(frame, |(_, function)| function);
        format!("`{}`", super::module::shown(frame))
    });
    let frames: Vec<String> = frames.take(FRAMES_MAX).collect();
    if frames.is_empty() { String::new() } else { format!(" in {}", frames.join(" < ")) }
}

/// Nothing that a guest wrote is longer than what people read.
fn bounded(mut answer: HookAnswer) -> HookAnswer {
    let cut = |text: &mut String| text.truncate(text.floor_char_boundary(MESSAGE_MAX_BYTES));
    match &mut answer {
        HookAnswer::Health { message, .. } => cut(message),
        HookAnswer::Outcome { action, message } => {
            cut(message);
            if let HookAction::Signal(name) = action {
                cut(name);
            }
        }
        HookAnswer::Failed(failure) => cut(&mut failure.message),
        HookAnswer::Rank(_) => {}
    }
    answer
}

/// What a module is looked at with: nothing is granted, and nobody listens.
pub(super) fn nothing(module: crate::model::Digest, memory: u64, timeout: Duration) -> Box<Call> {
    let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    Box::new(Call {
        module,
        input: HookInput::HealthCheck,
        service: String::new(),
        group: String::new(),
        context: crate::model::HookContext::default(),
        args_json: "{}".to_owned(),
        config_json: "{}".to_owned(),
        members: Vec::new(),
        env: Vec::new(),
        folders: Vec::new(),
        probes: crate::model::Probes::new(),
        timeout_ms: millis,
        left_ms: millis,
        memory,
    })
}

/// A module that is shared by its calls.
pub(super) type Shared = Arc<Result<Loaded, String>>;
