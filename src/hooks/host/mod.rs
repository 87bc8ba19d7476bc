//! The hook host: `tagfall hook-host`, a process that runs modules and can do nothing else. Its one socket to the supervisor is
//! its standard input.
//!
//! It opens no file and no connection itself: for each it asks the supervisor, which holds the question against the grants of the
//! call and hands over what it opened. Whoever broke out of a module would find nothing here that the module was not granted.
//! A new import: `wit/`, a function in `imports.rs`, and what it needs from outside in `wire.rs` and `doors/`.

mod bindings;
mod command;
pub(super) mod compile;
mod confine;
mod engine;
mod guest;
mod imports;
mod lanes;
mod module;
mod probe;
mod run;
mod wasi;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use wasmtime::Engine;

use super::frame::{Framed, Inbox, Incoming};
use super::wire::{Call, FromHost, Gap, Run, ToHost};
use crate::model::{Digest, HookAnswer, HookFailed, HookFailure};
use engine::Ticker;
use guest::{Guest, Line, Memory, Questions};
use lanes::{Long, LongLane};
use module::Linkers;
use run::Shared;

pub use compile::run_compiler;

/// What ended badly before it began.
const FAILED: u8 = 70;
/// Bytes that a module may write into one granted file.
const FILE_MAX_BYTES: u64 = 64 << 20;
const FILES_MAX: u64 = 4_096;
/// Threads for files, which may lie on a disk that does not answer.
const BLOCKING_THREADS_MAX: usize = 8;
const BLOCKING_THREAD_IDLE: Duration = Duration::from_secs(2);
/// How long a module may take to begin, when it is looked at.
const INSPECT_MAX: Duration = Duration::from_secs(10);

/// Body of `tagfall hook-host PARENT_PID CODE_FOLDER`.
pub fn run_host(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let parent = arguments.next().and_then(|pid| pid.to_str()?.parse().ok());
    let code = arguments.next().map(PathBuf::from);
    let (Some(parent), Some(code)) = (parent, code) else { return ExitCode::from(FAILED) };
    let bounds = confine::Bounds { address_space: None, cpu_s: None, file: FILE_MAX_BYTES, files: FILES_MAX };
    let shut_in = confine::confine(parent, &bounds, Some(&code));
    match shut_in.and_then(begin) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(FAILED)
        }
    }
}

/// A last word for the supervisor's log.
fn complain(error: &io::Error) {
    let _ = io::Write::write_all(&mut io::stderr(), format!("the hook host ends: {error}\n").as_bytes());
}

fn begin(gaps: Vec<Gap>) -> io::Result<()> {
    crate::sys::memory::one_heap();
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    runtime()?.block_on(async {
        let link = Arc::new(Framed::new(socket, true)?);
        let engine = engine::engine().map_err(io::Error::other)?;
        let linkers = Linkers::new(&engine).map_err(io::Error::other)?;
        let ticker = Ticker::start(&engine)?;
        let ready = FromHost::Ready { gaps, engine: engine::identity(&engine) };
        let questions = Arc::new(Questions::new(link.clone()));
        let host = Arc::new(Host {
            engine,
            linkers,
            ticker,
            long: LongLane::start()?,
            memory: Memory::default(),
            link,
            questions,
            modules: Mutex::default(),
            calls: Mutex::default(),
        });
        host.say(&ready);
        let drain = host.link.clone();
        tokio::spawn(async move { drain.drain().await });
        host.serve().await
    })
}

/// One thread, which looks for news after every step: a call that computes is always ready for the next one.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .event_interval(1)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_THREAD_IDLE)
        .build()
}

struct Host {
    engine: Engine,
    linkers: Linkers,
    ticker: Ticker,
    long: LongLane,
    memory: Memory,
    link: Arc<Framed>,
    questions: Arc<Questions>,
    modules: Mutex<HashMap<Digest, Shared>>,
    calls: Mutex<HashMap<u64, AbortHandle>>,
}

impl Host {
    async fn serve(self: &Arc<Self>) -> io::Result<()> {
        let mut inbox = Inbox::default();
        while let Some(frame) = self.link.receive(&mut inbox).await? {
            self.take(frame)?;
        }
        Ok(())
    }

    fn say(&self, message: &FromHost) {
        let sent = postcard::to_stdvec(message).map_err(io::Error::other).and_then(|bytes| self.link.send(&bytes, None));
        if let Err(error) = sent {
            // Without its supervisor nobody needs this process; the end of the socket ends it.
            complain(&error);
        }
    }

    fn take(self: &Arc<Self>, frame: Incoming) -> io::Result<()> {
        match postcard::from_bytes(&frame.body).map_err(io::Error::other)? {
            ToHost::Load { module, form } => {
                let file = frame.descriptor.ok_or_else(|| io::Error::other("a module without its file"))?;
                let loaded = self.linkers.load(&self.engine, form, file.into());
                self.modules.lock().unwrap_or_else(PoisonError::into_inner).insert(module, Arc::new(loaded));
            }
            ToHost::Unload { module } => {
                self.modules.lock().unwrap_or_else(PoisonError::into_inner).remove(&module);
            }
            ToHost::Inspect { id, module, memory } => {
                let host = self.clone();
                tokio::spawn(async move { host.inspect(id, module, memory).await });
            }
            ToHost::Call { id, call } => {
                let host = self.clone();
                let task = tokio::spawn(async move { host.call(id, call).await });
                // Spawned only now, so it has not ended yet.
                self.calls.lock().unwrap_or_else(PoisonError::into_inner).insert(id, task.abort_handle());
            }
            ToHost::Cancel { id } => {
                let call = self.calls.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                if let Some(call) = call {
                    call.abort();
                }
            }
            ToHost::Answer { id, number, answer } => self.questions.answer(id, number, (answer, frame.descriptor)),
        }
        Ok(())
    }

    fn module(&self, module: &Digest) -> Option<Shared> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner).get(module).cloned()
    }

    async fn inspect(&self, id: u64, module: Digest, memory: u64) {
        let result = match self.module(&module) {
            None => None,
            Some(loaded) => {
                let _running = self.ticker.run();
                let call = run::nothing(module, memory, INSPECT_MAX);
                let long = Long::default();
                let guest = Guest::new(call, Line::deaf(self.questions.clone()), self.memory.clone(), long.clone());
                self.long.drive(long, run::inspect(self.engine.clone(), loaded, guest)).await
            }
        };
        self.say(&FromHost::Inspected { id, result });
    }

    async fn call(&self, id: u64, call: Box<Call>) {
        let failed = |message: &str| {
            let answer = HookAnswer::Failed(HookFailure::new(HookFailed::Invalid, message));
            Run { answer, log: Vec::new(), took_us: 0, memory: 0 }
        };
        let run = match self.module(&call.module) {
            None => failed("its module was not loaded"),
            Some(loaded) => {
                let _running = self.ticker.run();
                let long = Long::default();
                let guest = Guest::new(call, Line::new(id, self.questions.clone()), self.memory.clone(), long.clone());
                let done = self.long.drive(long, run::run(self.engine.clone(), loaded, guest)).await;
                done.unwrap_or_else(|| failed("the call broke off"))
            }
        };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.say(&FromHost::Done { id, run: Box::new(run) });
    }
}
