//! The hook host as the supervisor has it: started when it is first needed, and again whenever it has ended.
//!
//! What it says is routed to the call that it is about; when it is gone, every call that waits learns so. Nobody else does.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{Notify, mpsc};

use super::cache::Compiled;
use super::frame::{Framed, Inbox};
use super::wire::{Ask, FromHost, Gap, Inspected, Run, ToHost};
use crate::model::Digest;

/// The hidden door.
const SUBCOMMAND: &str = "hook-host";
/// How long it may take to begin.
const BEGIN_MAX: Duration = Duration::from_secs(20);
/// What is kept of its last words, in bytes.
const WORDS_MAX_BYTES: usize = 4 << 10;

/// What a call hears.
pub(super) enum Heard {
    Ask(u32, Ask),
    Done(Box<Run>),
    Inspected(Option<Result<Inspected, String>>),
}

type Waiting = mpsc::UnboundedSender<Heard>;

/// A running host.
pub(super) struct Host {
    link: Arc<Framed>,
    pub(super) pid: u32,
    pub(super) gaps: Vec<Gap>,
    pub(super) engine: Digest,
    begun: Instant,
    /// `Err`: gone, and why.
    waiting: Mutex<Result<BTreeMap<u64, Waiting>, String>>,
    next: AtomicU64,
    /// Modules that it was given.
    loaded: Mutex<HashSet<Digest>>,
    kill: Notify,
    /// It is ended, or does not listen, though it may not have gone yet.
    doomed: AtomicBool,
    closing: AtomicBool,
}

impl Host {
    /// Starts one and waits until it is ready. `gone` is called when it has ended.
    pub(super) async fn start(program: &Path, code: &Path, gone: impl FnOnce() + Send + 'static) -> io::Result<Arc<Self>> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let mut child = Command::new(program)
            .arg(SUBCOMMAND)
            .arg(std::process::id().to_string())
            .arg(code)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let link = Arc::new(Framed::new(ours, false)?);
        let mut inbox = Inbox::default();
        let first = tokio::time::timeout(BEGIN_MAX, link.receive(&mut inbox)).await;
        let ready = first.ok().transpose()?.flatten().and_then(|frame| postcard::from_bytes(&frame.body).ok());
        let Some(FromHost::Ready { gaps, engine }) = ready else {
            let _ = child.start_kill();
            let words = words(child.stderr.take()).await;
            return Err(io::Error::other(format!("it did not begin{words}")));
        };
        let host = Arc::new(Self {
            link,
            pid: child.id().unwrap_or_default(),
            gaps,
            engine,
            begun: Instant::now(),
            waiting: Mutex::new(Ok(BTreeMap::new())),
            next: AtomicU64::new(1),
            loaded: Mutex::default(),
            kill: Notify::new(),
            doomed: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        let kept = host.clone();
        tokio::spawn(async move {
            kept.hear(child, inbox).await;
            gone();
        });
        Ok(host)
    }

    fn waiting(&self) -> MutexGuard<'_, Result<BTreeMap<u64, Waiting>, String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether calls may go to it.
    pub(super) fn is_there(&self) -> bool {
        !self.doomed.load(Ordering::Relaxed) && self.waiting().is_ok()
    }

    /// Why it is gone; `None` while it is there.
    fn gone(&self) -> Option<String> {
        self.waiting().as_ref().err().cloned()
    }

    pub(super) fn lived(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Ends it, because it does not keep to its word.
    pub(super) fn kill(&self) {
        self.doomed.store(true, Ordering::Relaxed);
        self.kill.notify_one();
    }

    /// Ends it, because nobody needs it any more.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.kill.notify_one();
    }

    fn loaded(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has(&self, module: &Digest) -> bool {
        self.loaded().contains(module)
    }

    /// Gives it a module, unless it has it.
    pub(super) fn load(&self, module: &Digest, compiled: Compiled) -> Result<(), String> {
        let mut loaded = self.loaded();
        if !loaded.contains(module) {
            let Compiled { form, file } = compiled;
            self.say(&ToHost::Load { module: *module, form }, Some(file.into()))?;
            loaded.insert(*module);
        }
        Ok(())
    }

    /// Lets it forget all modules but these.
    pub(super) fn retain(&self, wanted: &BTreeSet<Digest>) {
        let keeps = |module: &Digest| wanted.contains(module) || self.say(&ToHost::Unload { module: *module }, None).is_err();
        self.loaded().retain(keeps);
    }

    /// Registers something that waits for words of the host.
    pub(super) fn open(self: &Arc<Self>) -> Result<Exchange, String> {
        let (sender, heard) = mpsc::unbounded_channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        match self.waiting().as_mut() {
            Ok(waiting) => drop(waiting.insert(id, sender)),
            Err(why) => return Err(why.clone()),
        }
        Ok(Exchange { host: self.clone(), id, heard, over: false })
    }

    /// Sends. Where that fails, the host is gone, whatever it says later.
    pub(super) fn say(&self, message: &ToHost, descriptor: Option<std::os::fd::OwnedFd>) -> Result<(), String> {
        let sent = postcard::to_stdvec(message).map_err(io::Error::other).and_then(|bytes| self.link.send(&bytes, descriptor));
        sent.map_err(|error| {
            self.kill();
            format!("the hook host does not listen: {error}")
        })
    }

    /// Listens until it is gone.
    async fn hear(&self, mut child: Child, mut inbox: Inbox) {
        let errors = child.stderr.take();
        let listening = async {
            loop {
                tokio::select! {
                    biased;
                    frame = self.link.receive(&mut inbox) => match frame {
                        Ok(Some(frame)) => self.route(&frame.body),
                        Ok(None) => return "it ended".to_owned(),
                        Err(error) => return format!("it was ended: {error}"),
                    },
                    error = self.link.drain() => return format!("it was ended: {:?}", error.err()),
                    () = self.kill.notified() => return "it did not answer in time and was ended".to_owned(),
                }
            }
        };
        let (why, words) = tokio::join!(
            async {
                let why = listening.await;
                let _ = child.start_kill();
                why
            },
            words(errors)
        );
        let status = child.wait().await;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let why = format!("the hook host is gone: {why} ({status}){words}");
        let waiting = std::mem::replace(&mut *self.waiting(), Err(why.clone()));
        let calls = waiting.map_or(0, |waiting| waiting.len());
        if !self.closing.load(Ordering::Relaxed) {
            tracing::warn!(calls, "{why}; it is started again");
        }
    }

    fn route(&self, body: &[u8]) {
        let (id, heard) = match postcard::from_bytes(body) {
            Ok(FromHost::Ask { id, number, ask }) => (id, Heard::Ask(number, ask)),
            Ok(FromHost::Done { id, run }) => (id, Heard::Done(run)),
            Ok(FromHost::Inspected { id, result }) => (id, Heard::Inspected(result)),
            // It was ready once; and what is no message is nobody's.
            Ok(FromHost::Ready { .. }) | Err(_) => return,
        };
        if let Ok(waiting) = self.waiting().as_ref()
            && let Some(sender) = waiting.get(&id)
        {
            // Whoever waited may just have gone.
            let _ = sender.send(heard);
        }
    }
}

/// One exchange with the host. Dropped before its end, it is cancelled there.
pub(super) struct Exchange {
    pub(super) host: Arc<Host>,
    pub(super) id: u64,
    heard: mpsc::UnboundedReceiver<Heard>,
    over: bool,
}

impl Exchange {
    /// The next word; an error says why there is none any more.
    pub(super) async fn next(&mut self) -> Result<Heard, String> {
        let heard = self.heard.recv().await;
        self.over = !matches!(heard, Some(Heard::Ask(..)));
        heard.ok_or_else(|| self.host.gone().unwrap_or_else(|| "the hook host is gone".to_owned()))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Ok(waiting) = self.host.waiting().as_mut() {
            waiting.remove(&self.id);
        }
        if !self.over {
            // Where it cannot be said, there is nobody left to cancel it.
            let _ = self.host.say(&ToHost::Cancel { id: self.id }, None);
        }
    }
}

/// The last words of a process, until it closes its mouth.
async fn words(errors: Option<ChildStderr>) -> String {
    let Some(mut errors) = errors else { return String::new() };
    let mut kept = Vec::new();
    let mut part = [0; 1024];
    while let Ok(count) = errors.read(&mut part).await {
        if count == 0 {
            break;
        }
        kept.extend_from_slice(&part[..count]);
        let surplus = kept.len().saturating_sub(WORDS_MAX_BYTES);
        kept.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&kept).trim().replace('\n', " | ");
    if text.is_empty() { text } else { format!("; its last words: {text}") }
}
