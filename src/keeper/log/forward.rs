//! Lines handed to journald or a syslog daemon as well: a datagram each, and nobody ever waits for either.
//!
//! What the daemon does not take at once waits, bounded; what does not fit there is counted, and told to the daemon when it
//! takes lines again. journald gets fields by its native protocol, a syslog daemon what syslog(3) sends it, without a time: it
//! has its own.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::super::reserve::lasting;
use crate::model::{GroupName, LogForward, LogStream, Timestamp};

/// So many bytes of messages wait for a daemon that takes none.
const QUEUE_MAX_BYTES: usize = 256 * 1024;

/// What a message is at least, beside its line: so that empty lines count, too.
const MESSAGE_BYTES: usize = 128;

/// How long a daemon that cannot be reached is left alone, in milliseconds of the wall clock.
const LEFT_ALONE_MS: u64 = 1_000;

/// syslog's facility `daemon`.
const FACILITY: u8 = 3;

/// syslog's severities, which journald shares.
const WARNING: u8 = 4;
const ERROR: u8 = 3;
const INFO: u8 = 6;

/// How a message fared.
enum Sent {
    Yes,
    /// There is no room for now.
    Full,
    /// Nobody is there.
    Away(io::Error),
    /// It will never be taken.
    Never,
}

/// The way to one daemon, for one service.
pub(super) struct Forward {
    pub(super) target: LogForward,
    group: GroupName,
    pub(super) release: String,
    socket: Option<UnixDatagram>,
    connected: bool,
    failed: Option<Timestamp>,
    queue: VecDeque<Vec<u8>>,
    queued_bytes: usize,
    /// Lines lost since the daemon was last told.
    untold: u64,
    pub(super) lost: u64,
    pub(super) trouble: String,
}

impl Forward {
    /// `None` where nobody gets the lines.
    pub(super) fn new(target: &LogForward, group: &GroupName, release: &str) -> Option<Self> {
        let target = Some(target.clone()).filter(|target| *target != LogForward::None)?;
        Some(Self {
            target,
            group: group.clone(),
            release: release.to_owned(),
            socket: None,
            connected: false,
            failed: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            untold: 0,
            lost: 0,
            trouble: String::new(),
        })
    }

    /// The descriptor to wait on, while something waits for the daemon to take more.
    pub(super) fn blocked_on(&self) -> Option<BorrowedFd<'_>> {
        self.end().filter(|_| self.connected && !self.queue.is_empty())
    }

    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(|socket| socket.as_fd())
    }

    /// Whether anything is to be tried again.
    pub(super) fn waits(&self) -> bool {
        !self.queue.is_empty() || self.untold > 0
    }

    /// How many lines wait.
    pub(super) fn queued(&self) -> u64 {
        self.queue.len() as u64
    }

    /// Hands a line on, or puts it where it waits, or counts it.
    pub(super) fn line(&mut self, stream: LogStream, raw: &[u8], more: bool, time: Timestamp) {
        if self.untold > 0 || self.queued_bytes + raw.len() + MESSAGE_BYTES > QUEUE_MAX_BYTES {
            // Once one is lost, those behind it are, until all that waits has gone: the gap is one, and told in its place.
            self.lost += 1;
            self.untold += 1;
            if self.trouble.is_empty() {
                self.trouble = format!("{} does not take its lines as fast as they come", self.name());
            }
            return;
        }
        let severity = if stream == LogStream::Stderr { ERROR } else { INFO };
        let (severity, raw) = own_severity(raw).unwrap_or((severity, raw));
        let message = self.message(severity, stream, raw, more);
        if self.queue.is_empty() && self.is_connected(time) {
            match self.send(&message) {
                Sent::Yes => return,
                sent @ (Sent::Full | Sent::Away(_) | Sent::Never) => {
                    if !self.is_for_later(sent, time) {
                        return;
                    }
                }
            }
        }
        self.queued_bytes += message.len() + MESSAGE_BYTES;
        self.queue.push_back(message);
    }

    /// Hands on what waits, as far as it is taken.
    pub(super) fn flush(&mut self, time: Timestamp) {
        while self.waits() && self.is_connected(time) {
            let Some(message) = self.queue.pop_front() else {
                self.tell_gap(time);
                return;
            };
            let sent = self.send(&message);
            if self.is_for_later(sent, time) {
                self.queue.push_front(message);
                return;
            }
            self.queued_bytes -= message.len() + MESSAGE_BYTES;
        }
    }

    /// Says where lines are missing.
    fn tell_gap(&mut self, time: Timestamp) {
        let words = format!("tagfall: {} lines of this service could not be handed on and are missing here", self.untold);
        let message = self.message(WARNING, LogStream::Stderr, words.as_bytes(), false);
        let sent = self.send(&message);
        if !self.is_for_later(sent, time) {
            self.untold = 0;
            self.trouble.clear();
        }
    }

    /// Notes how a message fared; whether it is worth another try.
    fn is_for_later(&mut self, sent: Sent, time: Timestamp) -> bool {
        match sent {
            Sent::Yes => {
                self.failed = None;
                if self.untold == 0 {
                    self.trouble.clear();
                }
                false
            }
            Sent::Full => true,
            Sent::Away(error) => {
                (self.connected, self.failed) = (false, Some(time));
                self.trouble = format!("{} cannot be reached: {error}", self.name());
                true
            }
            Sent::Never => {
                self.lost += 1;
                false
            }
        }
    }

    fn name(&self) -> String {
        match &self.target {
            LogForward::None => String::new(),
            LogForward::Journald(path) => format!("journald at `{path}`"),
            LogForward::Syslog(path) => format!("syslog at `{path}`"),
        }
    }

    fn is_connected(&mut self, time: Timestamp) -> bool {
        if self.connected {
            return true;
        }
        if self.failed.is_some_and(|failed| failed.0.abs_diff(time.0) < LEFT_ALONE_MS) {
            return false;
        }
        match self.connect() {
            Ok(()) => self.connected = true,
            Err(error) => drop(self.is_for_later(Sent::Away(error), time)),
        }
        self.connected
    }

    /// The socket stays the same one: whoever waits on it need not be told.
    fn connect(&mut self) -> io::Result<()> {
        let path = match &self.target {
            LogForward::None => return Err(io::ErrorKind::Unsupported.into()),
            LogForward::Journald(path) | LogForward::Syslog(path) => path,
        };
        if self.socket.is_none() {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            self.socket = Some(lasting(socket.into()).into());
        }
        self.socket.as_ref().map_or(Err(io::ErrorKind::NotConnected.into()), |socket| socket.connect(path))
    }

    fn message(&self, severity: u8, stream: LogStream, raw: &[u8], more: bool) -> Vec<u8> {
        let Self { group, release, .. } = self;
        let mut message;
        if matches!(self.target, LogForward::Syslog(_)) {
            message = format!("<{}>{group}: ", FACILITY * 8 + severity).into_bytes();
            // Many a daemon takes NUL for the end.
            for byte in raw {
                if *byte == 0 { message.extend_from_slice(b"#000") } else { message.push(*byte) }
            }
            return message;
        }
        message = format!(
            "PRIORITY={severity}\nSYSLOG_IDENTIFIER={group}\nTAGFALL_GROUP={group}\nTAGFALL_RELEASE={release}\nTAGFALL_STREAM={}\n",
            stream.name()
        )
        .into_bytes();
        if more {
            message.extend_from_slice(b"TAGFALL_MORE=1\n");
        }
        // A line has no newline in it, so the short form will do.
        message.extend_from_slice(b"MESSAGE=");
        message.extend_from_slice(raw);
        message.push(b'\n');
        message
    }

    fn send(&self, message: &[u8]) -> Sent {
        let Some(socket) = &self.socket else { return Sent::Away(io::ErrorKind::NotConnected.into()) };
        let result = match socket.send(message) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => match self.target {
                LogForward::Journald(_) => send_as_file(socket, message),
                LogForward::None | LogForward::Syslog(_) => return Sent::Never,
            },
            Err(error) => Err(error),
            Ok(_) => return Sent::Yes,
        };
        match result {
            Ok(()) => Sent::Yes,
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR) => Sent::Full,
                Some(libc::EMSGSIZE) => Sent::Never,
                _ => Sent::Away(error),
            },
        }
    }
}

/// journald's way for what is too large for a datagram: a sealed memory file.
fn send_as_file(socket: &UnixDatagram, message: &[u8]) -> io::Result<()> {
    let file = memfd_create("tagfall-line", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = message;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(socket, &[IoSlice::new(&[])], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// The severity that a line begins with, as sd-daemon(3) has it: `<0>` to `<7>`.
fn own_severity(raw: &[u8]) -> Option<(u8, &[u8])> {
    match raw {
        [b'<', severity @ b'0'..=b'7', b'>', rest @ ..] => Some((severity - b'0', rest)),
        _ => None,
    }
}
