//! Two lanes: every call begins on the thread that listens, and one that is still computing after a tick goes on on another. So a
//! loop costs the calls beside it one tick, once.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::runtime;

/// Whether a call has computed for longer than a tick.
#[derive(Clone, Default)]
pub(super) struct Long(Arc<AtomicBool>);

impl Long {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The lane of long calls. Its thread ends when this is dropped.
pub(super) struct LongLane {
    handle: Handle,
    _open: oneshot::Sender<()>,
}

impl LongLane {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = runtime()?;
        let handle = runtime.handle().clone();
        let (open, closed) = oneshot::channel::<()>();
        let body = move || drop(runtime.block_on(closed));
        std::thread::Builder::new().name("long".to_owned()).spawn(body)?;
        Ok(Self { handle, _open: open })
    }

    /// Drives a call to its end, on this lane once it is long. `None` where it broke off.
    pub(super) async fn drive<T: Send + 'static>(&self, long: Long, call: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let mut call = Box::pin(call);
        let early = poll_fn(|context| match call.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if long.is_set() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        match early.await {
            Some(done) => Some(done),
            None => Moved(self.handle.spawn(call)).wait().await,
        }
    }
}

/// A call on the other lane; ended with whoever waits for it.
struct Moved<T>(JoinHandle<T>);

impl<T> Moved<T> {
    async fn wait(mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

impl<T> Drop for Moved<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
