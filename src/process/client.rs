//! One connection to the keeper.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::keeper::wire::{
    Command, ExecOutcome, Hello, Message, PACKET_MAX_BYTES, PROTOCOL_VERSION, Request, SOCKET_ENV, decode_message, encode_request,
};
use crate::model::{GroupName, ServiceReport};

/// How long an answer to a request may take. The keeper answers when it has taken a request over, not when the service has
/// followed, so this bounds a keeper that hangs.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long beyond its own timeout a command's outcome may take: the keeper kills it and collects what it wrote.
const EXEC_GRACE: Duration = Duration::from_secs(10);

/// How many news wait for the loop before they are merged here.
const NEWS_MAX_QUEUED: usize = 64;

/// What comes from the keeper unasked.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// A connection begins; reports of all services follow.
    Hello(Hello),
    /// One service as it is now.
    Report(Box<ServiceReport>),
    /// A service is no longer known.
    Gone(GroupName),
    /// All services have been reported.
    SnapshotEnd,
    /// The keeper was told to end: order the stops, then send [`Request::Finished`].
    Shutdown,
    /// The connection has ended, for good: the keeper is gone. Nothing follows.
    Lost,
}

/// Why the keeper could not be asked, or did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// This process was not started by a keeper.
    #[error("this process was not started by a keeper: `{SOCKET_ENV}` names no open socket; run `tagfall supervise` instead")]
    NoKeeper(#[source] Option<io::Error>),
    /// The socket could not be made ready.
    #[error("the keeper's socket cannot be used")]
    Socket(#[source] io::Error),
    /// A request could not be sent.
    #[error("a request cannot be sent to the keeper; its services run on")]
    Send(#[source] io::Error),
    /// A request is larger than a packet may be.
    #[error("a request of {bytes} bytes is larger than the {PACKET_MAX_BYTES} that the keeper takes; shorten arguments or `env`")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The connection ended before the answer.
    #[error("the connection to the keeper ended before it answered; whether the request was carried out shows in its reports")]
    Lost,
    /// No answer in time.
    #[error("the keeper has not answered within {} s; its reports show what it did", .waited.as_secs())]
    TimedOut {
        /// The bound.
        waited: Duration,
    },
    /// The keeper says why not.
    #[error("{0}")]
    Refused(String),
    /// The answer does not belong to the request.
    #[error("the keeper answered something else than was asked; keeper and supervisor are of versions that do not fit")]
    Mismatch,
}

enum Answer {
    Reply(Result<(), String>),
    Outcome(ExecOutcome),
}

struct Shared {
    socket: UnixStream,
    next_attempt: AtomicU64,
    /// Who waits for which answer; `None` once the connection has ended.
    waiting: Mutex<Option<BTreeMap<u64, oneshot::Sender<Answer>>>>,
}

/// The keeper, as the supervisor speaks to it.
#[derive(Clone)]
pub struct Keeper {
    shared: Arc<Shared>,
}

/// Removes the entry of an answer that nobody waits for any more.
struct Registration<'a> {
    shared: &'a Shared,
    attempt: u64,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.shared.waiting().as_mut() {
            waiting.remove(&self.attempt);
        }
    }
}

impl Keeper {
    /// Takes over the socket that the keeper left open for its supervisor; to be called once, within a tokio runtime.
    pub fn from_environment() -> Result<(Self, mpsc::Receiver<News>), ProcessError> {
        let number = std::env::var(SOCKET_ENV).ok().and_then(|text| text.parse::<i32>().ok());
        // What is below belongs to standard input and output, whatever the variable says.
        let number = number.filter(|number| *number > 2).ok_or(ProcessError::NoKeeper(None))?;
        let fd = crate::sys::process::inherited_fd(number).map_err(|error| ProcessError::NoKeeper(Some(error)))?;
        Self::connect(fd)
    }

    /// Takes over the inherited end of the socket; must be called within a tokio runtime.
    pub fn connect(fd: OwnedFd) -> Result<(Self, mpsc::Receiver<News>), ProcessError> {
        let socket = |error: rustix::io::Errno| ProcessError::Socket(error.into());
        rustix::io::ioctl_fionbio(&fd, true).map_err(socket)?;
        let flags = rustix::io::fcntl_getfd(&fd).map_err(socket)?;
        rustix::io::fcntl_setfd(&fd, flags | rustix::io::FdFlags::CLOEXEC).map_err(socket)?;
        rustix::net::sockopt::set_socket_send_buffer_size(&fd, 4 * PACKET_MAX_BYTES).map_err(socket)?;
        // A Unix socket like any other to the runtime; packets go through `send` and `recv` alone.
        let socket = UnixStream::from_std(fd.into()).map_err(ProcessError::Socket)?;
        let shared = Arc::new(Shared { socket, next_attempt: AtomicU64::new(1), waiting: Mutex::new(Some(BTreeMap::new())) });
        let (sender, receiver) = mpsc::channel(NEWS_MAX_QUEUED);
        tokio::spawn(read(Arc::clone(&shared), sender));
        Ok((Self { shared }, receiver))
    }

    /// Asks for something; `Ok` means that the keeper has taken it over. What follows from it comes as a report.
    pub async fn request(&self, request: Request) -> Result<(), ProcessError> {
        match self.ask(&request, REPLY_TIMEOUT).await? {
            Answer::Reply(result) => result.map_err(ProcessError::Refused),
            Answer::Outcome(_) => Err(ProcessError::Mismatch),
        }
    }

    /// Runs a command; dropping the future does not end the command, its timeout does.
    pub async fn exec(&self, command: Command) -> Result<ExecOutcome, ProcessError> {
        let bound = command.timeout.saturating_add(EXEC_GRACE);
        match self.ask(&Request::Exec(Box::new(command)), bound).await? {
            Answer::Outcome(outcome) => Ok(outcome),
            Answer::Reply(Err(why)) => Err(ProcessError::Refused(why)),
            Answer::Reply(Ok(())) => Err(ProcessError::Mismatch),
        }
    }

    async fn ask(&self, request: &Request, bound: Duration) -> Result<Answer, ProcessError> {
        let attempt = self.shared.next_attempt.fetch_add(1, Ordering::Relaxed);
        let packet = encode_request(attempt, request);
        if packet.len() > PACKET_MAX_BYTES {
            return Err(ProcessError::TooLarge { bytes: packet.len() });
        }
        let (sender, receiver) = oneshot::channel();
        match self.shared.waiting().as_mut() {
            Some(waiting) => waiting.insert(attempt, sender),
            None => return Err(ProcessError::Lost),
        };
        let _registration = Registration { shared: &self.shared, attempt };
        let exchange = async {
            let write = || send(&self.shared.socket, &packet, SendFlags::NOSIGNAL).map_err(io::Error::from);
            self.shared.socket.async_io(Interest::WRITABLE, write).await.map_err(ProcessError::Send)?;
            receiver.await.map_err(|_| ProcessError::Lost)
        };
        tokio::time::timeout(bound, exchange).await.unwrap_or(Err(ProcessError::TimedOut { waited: bound }))
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Option<BTreeMap<u64, oneshot::Sender<Answer>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, attempt: u64, answer: Answer) {
        let sender = self.waiting().as_mut().and_then(|waiting| waiting.remove(&attempt));
        // Nobody there: whoever asked has stopped waiting, and will see the effect in the reports.
        if let Some(sender) = sender {
            let _ = sender.send(answer);
        }
    }
}

/// Reads until the connection ends. News that the loop is too busy for are merged: of each service the newest counts.
async fn read(shared: Arc<Shared>, news: mpsc::Sender<News>) {
    let mut buffer = vec![0; PACKET_MAX_BYTES];
    let mut queue = VecDeque::new();
    loop {
        let read = || recv(&shared.socket, buffer.as_mut_slice(), RecvFlags::empty()).map_err(io::Error::from);
        tokio::select! {
            permit = news.reserve(), if !queue.is_empty() => match (permit, queue.pop_front()) {
                (Ok(permit), Some(next)) => permit.send(next),
                (Ok(_), None) => {}
                (Err(_), _) => break,
            },
            received = shared.socket.async_io(Interest::READABLE, read) => match received {
                Ok((_, 0)) => break,
                Ok((_, length)) => take(&shared, &buffer[..length], &mut queue),
                Err(error) => {
                    tracing::warn!(%error, "the keeper's socket cannot be read; taken as lost");
                    break;
                }
            },
        }
    }
    *shared.waiting() = None;
    queue.push_back(News::Lost);
    for last in queue {
        if news.send(last).await.is_err() {
            return;
        }
    }
}

fn take(shared: &Shared, packet: &[u8], queue: &mut VecDeque<News>) {
    match decode_message(packet) {
        Ok(Message::Hello(hello)) => {
            if hello.version != PROTOCOL_VERSION {
                tracing::info!(keeper = hello.version, own = PROTOCOL_VERSION, "the keeper speaks another version");
            }
            queue.push_back(News::Hello(hello));
        }
        Ok(Message::Report(report)) => push_report(queue, report),
        Ok(Message::Gone(group)) => queue.push_back(News::Gone(group)),
        Ok(Message::SnapshotEnd) => queue.push_back(News::SnapshotEnd),
        Ok(Message::Shutdown) => queue.push_back(News::Shutdown),
        Ok(Message::Reply { attempt, result }) => shared.answer(attempt, Answer::Reply(result)),
        Ok(Message::ExecDone { attempt, outcome }) => shared.answer(attempt, Answer::Outcome(outcome)),
        Err(error) => tracing::warn!(%error, "a message of the keeper is skipped"),
    }
}

/// Puts a report in the place of an older one of the same service, unless something came in between that must be seen first.
fn push_report(queue: &mut VecDeque<News>, report: Box<ServiceReport>) {
    for queued in queue.iter_mut().rev() {
        match queued {
            News::Report(older) if older.group == report.group => {
                *older = report;
                return;
            }
            News::Report(_) => {}
            News::Hello(_) | News::Gone(_) | News::SnapshotEnd | News::Shutdown | News::Lost => break,
        }
    }
    queue.push_back(News::Report(report));
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
