//! The engine: how modules are compiled and run. Host and compiler must agree on every line of it.

use std::hash::{Hash as _, Hasher};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{Config, Engine};

use crate::model::Digest;

/// Bytes of stack that a guest may use.
const STACK_BYTES: usize = 512 << 10;
/// The same, with room for what the host does on its behalf.
const WHOLE_STACK_BYTES: usize = 1 << 20;
/// How often a running guest looks whether its time is up, and lets others run.
pub(super) const TICK: Duration = Duration::from_millis(5);
/// So many ticks without a call, and the ticker rests.
const IDLE_TICKS: u32 = 20;

/// The engine of this process.
///
/// # Errors
/// Where the processor lacks what compiled code needs.
pub(super) fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .async_stack_size(WHOLE_STACK_BYTES)
        .wasm_component_model(true)
        .concurrency_support(false)
        .native_unwind_info(false);
    Engine::new(&config)
}

/// Of all that code compiled by this engine depends on.
pub(super) fn identity(engine: &Engine) -> Digest {
    struct Bytes(Vec<u8>);
    impl Hasher for Bytes {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
    }
    let mut bytes = Bytes(env!("CARGO_PKG_VERSION").as_bytes().to_vec());
    engine.precompile_compatibility_hash().hash(&mut bytes);
    Digest::of(&bytes.0)
}

/// Raises the engine's epoch while calls run. Joined when it is dropped.
pub(super) struct Ticker {
    shared: Arc<(Mutex<Ticking>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Ticking {
    calls: usize,
    resting: bool,
    ended: bool,
}

/// A call that is running.
pub(super) struct Running(Arc<(Mutex<Ticking>, Condvar)>);

impl Ticker {
    pub(super) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new((Mutex::new(Ticking::default()), Condvar::new()));
        let (mine, engine) = (shared.clone(), engine.clone());
        let body = move || tick(&mine, &engine);
        let thread = std::thread::Builder::new().name("ticker".to_owned()).stack_size(64 << 10).spawn(body)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Ticks at least until what is returned is dropped.
    pub(super) fn run(&self) -> Running {
        let (state, wake) = &*self.shared;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.calls += 1;
        if state.resting {
            wake.notify_one();
        }
        Running(self.shared.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).calls -= 1;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        let (state, wake) = &*self.shared;
        state.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It can only have ended by itself.
            let _ = thread.join();
        }
    }
}

fn tick(shared: &(Mutex<Ticking>, Condvar), engine: &Engine) {
    let (state, wake) = shared;
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut idle = 0;
    while !state.ended {
        idle = if state.calls == 0 { idle + 1 } else { 0 };
        state.resting = idle >= IDLE_TICKS;
        if state.resting {
            state = wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.resting = false;
            idle = 0;
        } else {
            state = wake.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
        engine.increment_epoch();
    }
}
