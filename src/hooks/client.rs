//! Hooks that are modules: whether they may be taken, and what came of a call.
//!
//! Nothing is started before the first of either. One caller's trouble is never another's: a call ends with its own deadline,
//! and a host that ends takes only the calls along that it was just running.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OnceCell, Semaphore, SemaphorePermit, watch};

use super::cache::{Cache, Compiled};
use super::compile::{self, NotCompiled};
use super::doors::Doors;
use super::exec::ExecCheck;
use super::process::{Exchange, Heard, Host};
use super::wire::{Call, Inspected, LogLine, Run, ToHost};
use crate::model::{Digest, HealthStatus, HookAnswer, HookCall, HookFailed, HookFailure};

/// How long after a call's own deadline the host may take to say so. Then it is the host that hangs, and it is ended.
const GRACE: Duration = Duration::from_secs(5);
/// How long looking at a module may take, its queue not counted.
const INSPECT_MAX: Duration = Duration::from_secs(15);
/// Calls at one time.
const CALLS_MAX: usize = 1_024;
/// What a call always has, however long its module took to be ready.
const LEFT_MIN: Duration = Duration::from_millis(1);
/// What only asks is asked again of the next host where its own had ended by then: it was hardly the cause of that.
const ASKED_AGAIN: Duration = Duration::from_millis(50);
/// Longest and first delay before the host is started again, where it did not live long.
const RESTART_MAX: Duration = Duration::from_secs(1);
const RESTART_MIN: Duration = Duration::from_millis(20);
/// A host that lived so long is started again at once.
const LIVED: Duration = Duration::from_secs(5);
/// Memory that a module may have while it is looked at, in bytes.
const INSPECT_MEMORY_BYTES: u64 = 64 << 20;

/// Where hooks are run, and by which program.
#[derive(Debug, Clone)]
pub struct HooksConfig {
    /// This very binary.
    pub program: PathBuf,
    /// Folder for compiled modules: the supervisor's alone.
    pub cache: PathBuf,
}

/// What a call needs of whoever makes it.
pub trait Outside: ExecCheck {
    /// The bytes of a module, where its compiled form is not there (any more). May block for a moment.
    ///
    /// # Errors
    /// Why they cannot be had.
    fn read_module(&self, module: &Digest) -> Result<Vec<u8>, String>;
}

/// Why a module cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// The module's own fault.
    #[error("{0}")]
    Refused(String),
    /// It could not be found out now.
    #[error("{0}")]
    Failed(String),
}

/// A call, looked back on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookRun {
    /// What came of it.
    pub answer: HookAnswer,
    /// What it said.
    pub log: Vec<LogLine>,
    /// What was refused to it for want of a grant, each with the line to write.
    pub denied: Vec<String>,
    /// What it asked of the outside, and how that went.
    pub seen: Vec<String>,
    /// Inside the hook host: store, instance, call, end.
    pub took: Duration,
    /// Most bytes of memory that it had.
    pub memory: u64,
}

/// Runs modules.
#[derive(Clone)]
pub struct Hooks(Arc<Inner>);

struct Inner {
    config: HooksConfig,
    cache: OnceCell<Arc<Cache>>,
    host: Mutex<Option<Arc<Host>>>,
    starting: tokio::sync::Mutex<Starts>,
    compiling: Semaphore,
    jobs: Mutex<HashMap<Digest, Job>>,
    calls: Semaphore,
    admitted: Mutex<HashMap<Digest, Inspected>>,
}

/// A module that is being compiled, and what came of it.
type Job = watch::Receiver<Option<Result<(), NotCompiled>>>;

/// Reads the bytes of a module.
type Read<'a> = dyn Fn() -> Result<Vec<u8>, String> + Send + Sync + 'a;

#[derive(Default)]
struct Starts {
    short_lives: u32,
    not_before: Option<Instant>,
}

impl Hooks {
    /// Starts nothing and makes nothing.
    pub fn new(config: HooksConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            cache: OnceCell::new(),
            host: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            compiling: Semaphore::new(1),
            jobs: Mutex::default(),
            calls: Semaphore::new(CALLS_MAX),
            admitted: Mutex::default(),
        }))
    }

    /// The host's process, while there is one.
    pub fn host_pid(&self) -> Option<u32> {
        self.0.current().map(|host| host.pid)
    }

    /// What the kernel would not enforce around the host; empty before it runs.
    pub fn gaps(&self) -> Vec<String> {
        self.0.current().map(|host| host.gaps.iter().map(|gap| gap.words.clone()).collect()).unwrap_or_default()
    }

    /// What the kernel would not enforce of that, and nothing else does.
    pub fn lacks(&self) -> Vec<String> {
        let open = |host: Arc<Host>| host.gaps.iter().filter(|gap| gap.open).map(|gap| gap.words.clone()).collect();
        self.0.current().map(open).unwrap_or_default()
    }

    /// Compiles a module, links it, makes an instance of it, and says what it is.
    ///
    /// # Errors
    /// Why it cannot be run; or why that could not be found out.
    pub async fn admit(&self, wasm: &[u8]) -> Result<Inspected, NotAdmitted> {
        let module = Digest::of(wasm);
        let known = self.0.admitted.lock().unwrap_or_else(PoisonError::into_inner).get(&module).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let host = self.0.host().await.map_err(NotAdmitted::Failed)?;
        let cache = self.0.cache().await.map_err(NotAdmitted::Failed)?;
        if let Some(why) = cache.refused(&module, &compile::rules(&host.engine)) {
            return Err(NotAdmitted::Refused(why));
        }
        let read = || Ok(wasm.to_vec());
        self.0.load(&host, &module, &read).await.map_err(|error| match error {
            NotCompiled::Failed(why) => NotAdmitted::Failed(why),
            NotCompiled::Refused(why) => NotAdmitted::Refused(why),
        })?;
        let result = self.0.inspect(&host, module).await;
        match &result {
            Ok(inspected) => {
                let mut admitted = self.0.admitted.lock().unwrap_or_else(PoisonError::into_inner);
                admitted.insert(module, inspected.clone());
            }
            Err(NotAdmitted::Refused(why)) => remember(&cache, &module, &host.engine, why),
            Err(NotAdmitted::Failed(_)) => {}
        }
        result
    }

    /// Lets the host forget every module but these. What is called again is loaded again.
    pub fn retain(&self, wanted: &BTreeSet<Digest>) {
        self.0.admitted.lock().unwrap_or_else(PoisonError::into_inner).retain(|module, _| wanted.contains(module));
        if let Some(host) = self.0.current() {
            host.retain(wanted);
        }
    }

    /// Calls a hook. Always answers, at the latest a moment after the call's deadline.
    pub async fn call(&self, call: &HookCall, outside: &dyn Outside) -> HookRun {
        let mut doors = Doors::new(call, outside);
        let begun = Instant::now();
        let mut outcome = self.0.call(call, outside, &mut doors, begun).await;
        if let Err(failure) = &outcome
            && failure.reason == HookFailed::HostGone
            && call.kind().only_asks()
            && begun.elapsed() < ASKED_AGAIN.min(call.timeout)
        {
            // Its host has ended, by itself or by another call: nothing is changed by asking the next one.
            doors = Doors::new(call, outside);
            outcome = self.0.call(call, outside, &mut doors, begun).await;
        }
        let run = outcome.unwrap_or_else(|failure| Run {
            answer: HookAnswer::Failed(failure),
            log: Vec::new(),
            took_us: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            memory: 0,
        });
        finished(run, doors)
    }
}

/// A failure after something was refused has its cause there.
fn finished(run: Run, doors: Doors<'_>) -> HookRun {
    let Doors { denied, seen, .. } = doors;
    let Run { mut answer, log, took_us, memory } = run;
    if let Some(first) = denied.first() {
        match &mut answer {
            HookAnswer::Failed(failure) if matches!(failure.reason, HookFailed::Trap | HookFailed::Said) => {
                failure.reason = HookFailed::Denied;
                if !failure.message.contains(first) {
                    failure.message = format!("{}; it {first}", failure.message);
                }
            }
            HookAnswer::Health { status, message } if *status != HealthStatus::Ok && !message.contains(first) => {
                *message = format!("{message}; it {first}");
            }
            HookAnswer::Health { .. } | HookAnswer::Outcome { .. } | HookAnswer::Rank(_) | HookAnswer::Failed(_) => {}
        }
    }
    HookRun { answer, log, denied, seen, took: Duration::from_micros(took_us), memory }
}

impl Inner {
    fn current(&self) -> Option<Arc<Host>> {
        let host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        host.as_ref().filter(|host| host.is_there()).cloned()
    }

    async fn cache(&self) -> Result<Arc<Cache>, String> {
        let folder = self.config.cache.clone();
        let open = || async {
            let opened = tokio::task::spawn_blocking(move || Cache::open(&folder)).await;
            opened.map_err(|error| error.to_string())?.map(Arc::new).map_err(|error| error.to_string())
        };
        let opened = self.cache.get_or_try_init(open).await.cloned();
        opened.map_err(|why| format!("the folder for compiled modules `{}` cannot be used: {why}", self.config.cache.display()))
    }

    /// The host; started where there is none, though not faster than it ends.
    async fn host(self: &Arc<Self>) -> Result<Arc<Host>, String> {
        if let Some(host) = self.current() {
            return Ok(host);
        }
        let cache = self.cache().await?;
        let mut starts = self.starting.lock().await;
        if let Some(host) = self.current() {
            return Ok(host);
        }
        if let Some(at) = starts.not_before {
            tokio::time::sleep_until(at.into()).await;
        }
        // The first time at once, then after 20 ms, 40 ms, …
        let lives = starts.short_lives;
        let wait =
            if lives == 0 { Duration::ZERO } else { RESTART_MIN.saturating_mul(1 << (lives - 1).min(10)).min(RESTART_MAX) };
        starts.short_lives = lives.saturating_add(1);
        starts.not_before = Some(Instant::now() + wait);
        let inner = Arc::downgrade(self);
        let gone = move || {
            if let Some(inner) = inner.upgrade() {
                tokio::spawn(inner.revive());
            }
        };
        let started = Host::start(&self.config.program, cache.folder(), gone).await;
        let host = started.map_err(|error| format!("the hook host cannot be started: {error}"))?;
        for gap in &host.gaps {
            tracing::info!("the hook host is not fully shut in: {}", gap.words);
        }
        *self.host.lock().unwrap_or_else(PoisonError::into_inner) = Some(host.clone());
        Ok(host)
    }

    /// After one has ended: the next one, so that the next call need not wait for it.
    fn revive(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let lived = self.host.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|host| host.lived());
            if lived.is_some_and(|lived| lived >= LIVED) {
                let mut starts = self.starting.lock().await;
                (starts.short_lives, starts.not_before) = (0, None);
            }
            if let Err(why) = self.host().await {
                tracing::warn!("{why}; it is tried again when it is needed");
            }
        })
    }

    /// Makes sure that the host has a module.
    async fn load(self: &Arc<Self>, host: &Host, module: &Digest, read: &Read<'_>) -> Result<(), NotCompiled> {
        if host.has(module) {
            return Ok(());
        }
        let compiled = self.compiled(host.engine, module, read).await?;
        let given = host.load(module, compiled);
        given.map_err(|error| NotCompiled::Failed(format!("the hook host cannot be given a module: {error}")))
    }

    async fn compiled(self: &Arc<Self>, engine: Digest, module: &Digest, read: &Read<'_>) -> Result<Compiled, NotCompiled> {
        let cache = self.cache().await.map_err(NotCompiled::Failed)?;
        if let Some(found) = find(&cache, *module, engine).await? {
            return Ok(found);
        }
        let rules = compile::rules(&engine);
        if let Some(why) = cache.refused(module, &rules) {
            return Err(NotCompiled::Refused(why));
        }
        let mut job = self.job(&cache, engine, *module, read)?;
        let gone = || NotCompiled::Failed("compiling it broke off".to_owned());
        let done = job.wait_for(Option::is_some).await.map_err(|_| gone())?.clone();
        done.unwrap_or_else(|| Err(gone()))?;
        find(&cache, *module, engine).await?.ok_or_else(gone)
    }

    /// Compiles in the background, once however many wait for it: whoever waits may give up, and the next finds it done.
    fn job(self: &Arc<Self>, cache: &Arc<Cache>, engine: Digest, module: Digest, read: &Read<'_>) -> Result<Job, NotCompiled> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(job) = jobs.get(&module) {
            return Ok(job.clone());
        }
        let wasm = read().map_err(NotCompiled::Failed)?;
        let (sender, job) = watch::channel(None);
        jobs.insert(module, job.clone());
        let (inner, cache) = (self.clone(), cache.clone());
        tokio::spawn(async move {
            let done = match inner.compiling.acquire().await {
                Ok(_one) => compile::compile(&inner.config.program, &cache, &wasm, &module, &engine).await.map(drop),
                Err(error) => Err(NotCompiled::Failed(error.to_string())),
            };
            if let Err(NotCompiled::Refused(why)) = &done {
                remember(&cache, &module, &engine, why);
            }
            inner.jobs.lock().unwrap_or_else(PoisonError::into_inner).remove(&module);
            sender.send_replace(Some(done));
        });
        Ok(job)
    }

    async fn inspect(&self, host: &Arc<Host>, module: Digest) -> Result<Inspected, NotAdmitted> {
        let mut exchange = host.open().map_err(NotAdmitted::Failed)?;
        let ask = ToHost::Inspect { id: exchange.id, module, memory: INSPECT_MEMORY_BYTES };
        host.say(&ask, None).map_err(NotAdmitted::Failed)?;
        match tokio::time::timeout(INSPECT_MAX, exchange.next()).await {
            Ok(Ok(Heard::Inspected(Some(result)))) => result.map_err(NotAdmitted::Refused),
            Ok(Ok(Heard::Inspected(None))) => Err(NotAdmitted::Failed("the hook host could not look at it".to_owned())),
            Ok(Ok(Heard::Ask(..) | Heard::Done(_))) => {
                Err(NotAdmitted::Failed("the hook host answered another question".to_owned()))
            }
            Ok(Err(why)) => Err(NotAdmitted::Failed(why)),
            Err(_) => Err(NotAdmitted::Failed(format!("looking at it took longer than {} s", INSPECT_MAX.as_secs()))),
        }
    }

    async fn call(
        self: &Arc<Self>,
        call: &HookCall,
        outside: &dyn Outside,
        doors: &mut Doors<'_>,
        begun: Instant,
    ) -> Result<Run, HookFailure> {
        let ready = tokio::time::timeout(call.timeout, self.ready(call, outside)).await;
        let (host, _one) = ready.unwrap_or_else(|_| {
            let message = format!("its module was not ready within {} ms: it is being compiled", call.timeout.as_millis());
            Err(HookFailure::new(HookFailed::HostGone, message))
        })?;
        let left = call.timeout.saturating_sub(begun.elapsed()).max(LEFT_MIN);
        let mut exchange = host.open().map_err(gone)?;
        let ask = ToHost::Call { id: exchange.id, call: Box::new(wire(call, left)) };
        host.say(&ask, None).map_err(gone)?;
        let bound = left.saturating_add(GRACE);
        tokio::time::timeout(bound, converse(&mut exchange, doors)).await.unwrap_or_else(|_| {
            // It ends calls itself; one that it does not end has taken the whole host.
            host.kill();
            Err(gone(format!("the hook host had not answered after {} ms", bound.as_millis())))
        })
    }

    /// A host that has the module, and a place in it.
    async fn ready(
        self: &Arc<Self>,
        call: &HookCall,
        outside: &dyn Outside,
    ) -> Result<(Arc<Host>, SemaphorePermit<'_>), HookFailure> {
        let one = self.calls.acquire().await.map_err(|error| gone(error.to_string()))?;
        let host = self.host().await.map_err(gone)?;
        let read = || outside.read_module(&call.module);
        self.load(&host, &call.module, &read).await.map_err(|error| match error {
            NotCompiled::Refused(why) => HookFailure::new(HookFailed::Invalid, why),
            NotCompiled::Failed(why) => gone(why),
        })?;
        Ok((host, one))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(host) = self.current() {
            host.close();
        }
    }
}

fn gone(why: String) -> HookFailure {
    HookFailure::new(HookFailed::HostGone, why)
}

/// Reads compiled code aside: comparing it with its digest takes a moment.
async fn find(cache: &Arc<Cache>, module: Digest, engine: Digest) -> Result<Option<Compiled>, NotCompiled> {
    let cache = cache.clone();
    let found = tokio::task::spawn_blocking(move || cache.find(&module, &engine)).await;
    let (found, trouble) = found.map_err(|error| NotCompiled::Failed(error.to_string()))?;
    if let Some(trouble) = trouble {
        tracing::warn!("{trouble}, and compiled anew");
    }
    Ok(found)
}

fn remember(cache: &Cache, module: &Digest, engine: &Digest, why: &str) {
    if let Err(error) = cache.refuse(module, &compile::rules(engine), why) {
        tracing::warn!(%error, "that a module was refused cannot be remembered");
    }
}

/// Answers what a call asks, until it is done.
async fn converse(exchange: &mut Exchange, doors: &mut Doors<'_>) -> Result<Run, HookFailure> {
    let mut next = None;
    loop {
        let heard = match next.take() {
            Some(heard) => heard,
            None => exchange.next().await.map_err(gone)?,
        };
        let (number, ask) = match heard {
            Heard::Done(run) => return Ok(*run),
            Heard::Inspected(_) => return Err(gone("the hook host answered another question".to_owned())),
            Heard::Ask(number, ask) => (number, ask),
        };
        // While its question is being answered, the call may end, by its deadline or with the host, or give the question up for
        // another.
        let (answer, opened) = tokio::select! {
            answer = doors.answer(ask) => answer,
            heard = exchange.next() => {
                next = Some(heard.map_err(gone)?);
                continue;
            }
        };
        let message = ToHost::Answer { id: exchange.id, number, answer };
        exchange.host.say(&message, opened).map_err(gone)?;
    }
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

fn wire(call: &HookCall, left: Duration) -> Call {
    let folders = call.grants.read.iter().map(|path| (path.clone(), false));
    let writable = call.grants.write.iter().map(|path| (path.clone(), true));
    Call {
        module: call.module,
        input: call.input.clone(),
        service: call.group.service().to_owned(),
        group: call.group.to_string(),
        context: call.context.clone(),
        args_json: call.args_json.to_string(),
        config_json: call.config_json.to_string(),
        members: call.members.to_vec(),
        env: call.env.to_vec(),
        folders: writable.chain(folders).collect(),
        probes: (*call.probes).clone(),
        timeout_ms: millis(call.timeout),
        left_ms: millis(left),
        memory: call.memory,
    }
}
