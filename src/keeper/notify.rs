//! What services say of themselves: by `sd_notify` messages to a socket of their own, or by a newline on a descriptor.
//!
//! Only who belongs to a service speaks for it: the kernel says which process sent a message, and that one must be the main
//! process or come from it. What it means is decided in `state/notify.rs`. To add a word: a row in [`parse`].

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Gid, Mode, Uid};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with, sockopt};
use rustix::process::{PidfdFlags, pidfd_open};

use super::engine::{Engine, Owner, now, say};
use super::poller::{Source, Token};
use super::proc::{self, Stat};
use super::reserve::lasting;
use super::spawn::owner_of;
use super::state::Event;
use super::state::notify::Word;
use crate::model::{GroupName, Ready};
use crate::sys::process::{Message, receive};

/// Longest message that is taken; a longer one is ignored whole.
const MESSAGE_MAX_BYTES: usize = 4096;

/// Messages of one service that are read in one turn of the loop; the rest waits in the socket, and its sender with it.
const MESSAGES_PER_TURN: usize = 16;

/// Longest status that is kept, in characters.
const STATUS_MAX_CHARS: usize = 256;

/// So many parents are gone through from a sender up to the main process.
const ANCESTORS_MAX: usize = 64;

/// Bytes of the readiness descriptor that are read in one turn.
const READY_READ_BYTES: usize = 256;

/// Where a service is heard.
pub(super) struct Voice {
    socket: Option<(OwnedFd, Token)>,
    /// To be taken away with it.
    path: Option<PathBuf>,
    pipe: Option<(OwnedFd, Token)>,
    uid: u32,
}

/// What a service is given to speak with.
#[derive(Default)]
pub(super) struct Means {
    pub(super) env: Vec<(String, String)>,
    pub(super) pipe: Option<OwnedFd>,
}

/// Where the sockets of all services are: open for them to pass, and to nobody to write.
pub(super) fn sockets_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("run/notify")
}

fn socket_path(data_dir: &Path, group: &GroupName) -> PathBuf {
    sockets_dir(data_dir).join(format!("{group}.sock"))
}

impl Voice {
    /// What stays open when this process becomes another program: socket and pipe.
    pub(super) fn kept(&self) -> [Option<&OwnedFd>; 2] {
        [&self.socket, &self.pipe].map(|held| held.as_ref().map(|(fd, _)| fd))
    }
}

/// Makes the socket of a service, for its user only. Where its path is too long for one, it has a name outside of the file
/// system instead, which anybody may write to; who writes is looked at in either case.
fn open_socket(data_dir: &Path, group: &GroupName, (uid, gid): (u32, u32)) -> io::Result<(OwnedFd, String, Option<PathBuf>)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_passcred(&socket, true)?;
    let dir = sockets_dir(data_dir);
    let path = socket_path(data_dir, group);
    let Ok(address) = SocketAddrUnix::new(&path) else {
        let name = format!("tagfall/{}/{group}", std::process::id());
        bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        return Ok((socket, format!("@{name}"), None));
    };
    std::fs::create_dir_all(&dir)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    bind(&socket, &address)?;
    rustix::fs::chmod(&path, Mode::from_raw_mode(0o600))?;
    if uid != rustix::process::geteuid().as_raw() {
        rustix::fs::chown(&path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    let text = path.to_string_lossy().into_owned();
    Ok((socket, text, Some(path)))
}

/// What a message says; what is not understood is left out.
fn parse(message: &[u8]) -> Vec<Word> {
    message.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Word> {
    let at = line.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&line[..at], &line[at + 1..]);
    let text = || std::str::from_utf8(value).ok();
    match (key, value) {
        (b"READY", b"1") => Some(Word::Ready),
        (b"RELOADING", b"1") => Some(Word::Reloading),
        (b"STOPPING", b"1") => Some(Word::Stopping),
        (b"WATCHDOG", b"1") => Some(Word::Watchdog),
        (b"WATCHDOG", b"trigger") => Some(Word::WatchdogTrigger),
        (b"EXTEND_TIMEOUT_USEC", _) => text()?.parse().ok().map(Duration::from_micros).map(Word::Extend),
        (b"MAINPID", _) => text()?.parse().ok().map(Word::MainPid),
        (b"STATUS", _) => Some(Word::Status(clean(&String::from_utf8_lossy(value)))),
        _ => None,
    }
}

/// Bounded, on one line, without anything that a terminal would take for a command.
fn clean(text: &str) -> String {
    let readable = |c: char| if c.is_control() || c == '\u{2028}' || c == '\u{2029}' { ' ' } else { c };
    let mut clean: String = text.trim().chars().take(STATUS_MAX_CHARS).map(readable).collect();
    if text.trim().chars().nth(STATUS_MAX_CHARS).is_some() {
        clean.push('…');
    }
    clean
}

impl Engine {
    /// Makes anew what the next process of a service says it is ready with: nothing that an earlier one said is left in it.
    pub(super) fn open_voice(&mut self, group: &GroupName) -> Result<Means, String> {
        self.close_voice(group);
        let Some(entry) = self.services.get(group) else { return Ok(Means::default()) };
        let (policy, user) = (entry.service.spec.policy.clone(), entry.service.spec.launch.user.clone());
        if policy.watchdog.is_none() && !matches!(policy.ready, Ready::Notify | Ready::Fd) {
            return Ok(Means::default());
        }
        let owner = owner_of(user.as_deref(), &self.rights);
        let mut voice = Voice { socket: None, path: None, pipe: None, uid: owner.0 };
        let mut means = Means::default();
        if policy.ready == Ready::Notify || policy.watchdog.is_some() {
            let failed = |error: io::Error| format!("its socket for `sd_notify` cannot be made: {error}");
            let (socket, address, path) = open_socket(&self.config.data_dir, group, owner).map_err(failed)?;
            let socket = lasting(socket);
            let token = self.poller.add(&socket, Source::Notify(group.clone())).map_err(failed)?;
            (voice.socket, voice.path) = (Some((socket, token)), path);
            means.env.push(("NOTIFY_SOCKET".to_owned(), address));
        }
        if let Some(watchdog) = policy.watchdog {
            means.env.push(("WATCHDOG_USEC".to_owned(), watchdog.as_micros().to_string()));
        }
        if policy.ready == Ready::Fd {
            let failed = |error: io::Error| format!("its descriptor for readiness cannot be made: {error}");
            let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
            let (read, write) = pipe.map_err(|error| failed(error.into()))?;
            rustix::io::ioctl_fionbio(&read, true).map_err(|error| failed(error.into()))?;
            let read = lasting(read);
            let token = self.poller.add(&read, Source::ReadyPipe(group.clone())).map_err(failed)?;
            (voice.pipe, means.pipe) = (Some((read, token)), Some(write));
        }
        if let Some(entry) = self.services.get_mut(group) {
            entry.voice = Some(voice);
        }
        Ok(means)
    }

    /// Hears services again that run on: by what the program before kept open, else by a new socket in the place of the
    /// old one. A pipe is not to be had again; nor is a name outside of the file system, which was another process's.
    pub(super) fn regain_voices(&mut self) {
        let silent = self.services.iter().filter(|(_, entry)| entry.process.is_some() && entry.voice.is_none());
        let silent: Vec<GroupName> = silent.map(|(group, _)| group.clone()).collect();
        for group in silent {
            let Some(entry) = self.services.get(&group) else { continue };
            let (policy, user) = (entry.service.spec.policy.clone(), entry.service.spec.launch.user.clone());
            if policy.ready != Ready::Notify && policy.watchdog.is_none() {
                continue;
            }
            if SocketAddrUnix::new(socket_path(&self.config.data_dir, &group)).is_err() {
                continue;
            }
            let owner = owner_of(user.as_deref(), &self.rights);
            match open_socket(&self.config.data_dir, &group, owner) {
                Ok((socket, _, _)) => self.regain_voice(&group, Some(socket), None),
                Err(error) => say(&format!("`{group}` runs on, but cannot be heard: its socket cannot be made: {error}")),
            }
        }
    }

    /// Hears a service by these.
    pub(super) fn regain_voice(&mut self, group: &GroupName, socket: Option<OwnedFd>, pipe: Option<OwnedFd>) {
        let Some(entry) = self.services.get_mut(group).filter(|entry| entry.process.is_some()) else { return };
        let (uid, _) = owner_of(entry.service.spec.launch.user.as_deref(), &self.rights);
        let mut add = |fd: OwnedFd, source| match self.poller.add(&fd, source) {
            Ok(token) => Some((fd, token)),
            Err(error) => {
                say(&format!("`{group}` runs on, but cannot be heard: {error}"));
                None
            }
        };
        let socket = socket.and_then(|fd| add(fd, Source::Notify(group.clone())));
        let pipe = pipe.and_then(|fd| add(fd, Source::ReadyPipe(group.clone())));
        let path =
            Some(socket_path(&self.config.data_dir, group)).filter(|path| socket.is_some() && SocketAddrUnix::new(path).is_ok());
        if socket.is_some() {
            entry.service.heard_again(now().moment);
        }
        entry.voice = Some(Voice { socket, path, pipe, uid });
    }

    pub(super) fn close_voice(&mut self, group: &GroupName) {
        let Some(voice) = self.services.get_mut(group).and_then(|entry| entry.voice.take()) else { return };
        for (fd, token) in [voice.socket, voice.pipe].into_iter().flatten() {
            self.poller.remove(&fd, token);
        }
        if let Some(path) = voice.path {
            // Made anew with the next start, whatever is left.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Reads what a service has sent, a bounded part of it.
    pub(super) fn read_notify(&mut self, group: &GroupName) {
        // It spoke as the program: that it has become one comes first.
        self.read_status(group);
        for _ in 0..MESSAGES_PER_TURN {
            let mut buffer = [0; MESSAGE_MAX_BYTES];
            let Some(voice) = self.services.get(group).and_then(|entry| entry.voice.as_ref()) else { return };
            let Some((socket, _)) = &voice.socket else { return };
            let message = match receive(socket.as_fd(), &mut buffer) {
                Ok(Some(message)) => message,
                Ok(None) | Err(_) => return,
            };
            let Message { length, cut, pid, uid } = message;
            if cut || uid != voice.uid || !self.belongs(group, pid) {
                continue;
            }
            self.hear(group, parse(&buffer[..length]));
        }
    }

    fn hear(&mut self, group: &GroupName, mut words: Vec<Word>) {
        words.retain(|word| word.main_pid().is_none_or(|pid| self.take_main(group, pid)));
        let context = self.context();
        let Some(entry) = self.services.get_mut(group) else { return };
        if words.iter().all(|word| *word == Word::Watchdog) {
            // Nothing that anybody would be told.
            entry.service.on(Event::Told(words), context);
            return;
        }
        let mut after = entry.service.clone();
        let actions = after.on(Event::Told(words.clone()), context);
        if after == entry.service && actions.is_empty() {
            return;
        }
        if words.iter().all(|word| matches!(word, Word::Status(_) | Word::Watchdog)) {
            // For people: told at once, and written down with whatever is written next.
            entry.service = after;
            (entry.dirty, entry.unsaved) = (true, true);
            return;
        }
        self.feed(group, Event::Told(words));
    }

    /// A newline says that it is ready; an end without one that it will not say so any more.
    pub(super) fn read_ready_pipe(&mut self, group: &GroupName) {
        self.read_status(group);
        let Some(voice) = self.services.get_mut(group).and_then(|entry| entry.voice.as_mut()) else { return };
        let Some((pipe, token)) = &voice.pipe else { return };
        let mut buffer = [0; READY_READ_BYTES];
        let ready = match rustix::io::read(pipe, &mut buffer) {
            Ok(0) => false,
            Ok(length) if buffer[..length].contains(&b'\n') => true,
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            Err(_) => false,
        };
        self.poller.remove(pipe, *token);
        voice.pipe = None;
        if ready {
            self.feed(group, Event::Told(vec![Word::Ready]));
        }
    }

    /// Whether a process speaks for a service: its main process, or one that comes from it.
    fn belongs(&self, group: &GroupName, pid: u32) -> bool {
        let Some(entry) = self.services.get(group) else { return false };
        let Some(process) = &entry.process else { return false };
        let main = process.record.pid;
        if pid == main {
            return true;
        }
        let Some(stat) = proc::stat(pid) else { return false };
        let own = std::process::id();
        let marks = entry.marks.as_ref();
        let in_session =
            |stat: Stat| marks.is_some_and(|marks| marks.session.is_some_and(|id| stat.session == id || stat.group == id));
        let in_namespace = || {
            let namespace = marks.and_then(|marks| marks.namespace.clone());
            namespace.is_some() && proc::mount_namespace(pid) == namespace
        };
        if in_session(stat) || in_namespace() || self.cgroups.holds(group, pid) {
            return true;
        }
        let mut parent = stat.parent;
        for _ in 0..ANCESTORS_MAX {
            if parent == main {
                return true;
            }
            if parent == own || parent <= 1 {
                break;
            }
            match proc::stat(parent) {
                Some(stat) => parent = stat.parent,
                None => break,
            }
        }
        // One that has left its session and lost its parent came to us, and bears the service's name.
        stat.parent == own && !self.children.contains_key(&pid) && marks.is_some_and(|marks| marks.fit(pid) == proc::Fit::Yes)
    }

    /// Takes another process of the service as its main one. Says whether it did.
    fn take_main(&mut self, group: &GroupName, pid: u32) -> bool {
        let Some(id) = proc::pid_of(pid) else { return false };
        let known = self.services.get(group).and_then(|entry| entry.process.as_ref()).map(|process| process.record.pid);
        if known.is_none_or(|main| main == pid) {
            return false;
        }
        let Ok(pidfd) = pidfd_open(id, PidfdFlags::empty()) else { return false };
        // Looked at after it was opened: now it is this process that the descriptor means, for ever.
        let Some(stat) = proc::stat(pid).filter(|_| self.belongs(group, pid)) else { return false };
        let token = match self.poller.add(&pidfd, Source::Foreign(group.clone())) {
            Ok(token) => token,
            Err(error) => {
                say(&format!("process {pid} of `{group}` cannot be watched: {error}; it is not taken as the main process"));
                return false;
            }
        };
        let Some(process) = self.services.get_mut(group).and_then(|entry| entry.process.as_mut()) else { return false };
        let old = std::mem::replace(&mut process.pidfd, pidfd);
        if let Some(token) = process.foreign.replace(token) {
            self.poller.remove(&old, token);
        }
        self.children.remove(&process.record.pid);
        (process.record.pid, process.record.started) = (pid, stat.started);
        // Ours to wait for as soon as it has lost its parent, which may be the case already.
        self.children.insert(pid, Owner::Service(group.clone()));
        self.journal_due = true;
        true
    }

    /// A main process that was not our child has ended: unless it had become one, nobody here can wait for it.
    pub(super) fn taken_main_ended(&mut self, group: &GroupName) -> bool {
        let main =
            |engine: &Self| engine.services.get(group).and_then(|entry| entry.process.as_ref()).map(|process| process.record.pid);
        let Some(pid) = main(self).filter(|pid| self.children.get(pid) == Some(&Owner::Service(group.clone()))) else {
            return false;
        };
        self.reap();
        if main(self) != Some(pid) || !self.children.contains_key(&pid) {
            return true;
        }
        self.children.remove(&pid);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_understood_is_taken() {
        let cases: [(&[u8], &[Word]); 9] = [
            (b"READY=1", &[Word::Ready]),
            (b"READY=1\nSTATUS=all is well\n", &[Word::Ready, Word::Status("all is well".to_owned())]),
            (b"RELOADING=1\nMONOTONIC_USEC=12", &[Word::Reloading]),
            (b"EXTEND_TIMEOUT_USEC=5000000", &[Word::Extend(Duration::from_secs(5))]),
            (b"WATCHDOG=1\nWATCHDOG=trigger", &[Word::Watchdog, Word::WatchdogTrigger]),
            (b"MAINPID=77\nSTOPPING=1", &[Word::MainPid(77), Word::Stopping]),
            (b"READY=0\nREADY\n=1\nready=1\nREADY=1 \nMAINPID=-1\nMAINPID=\xff", &[]),
            (b"EXTEND_TIMEOUT_USEC=99999999999999999999999", &[]),
            (b"", &[]),
        ];
        for (message, words) in cases {
            assert_eq!(parse(message), words, "{}", String::from_utf8_lossy(message));
        }
    }

    #[test]
    fn a_status_is_bounded_and_harmless() {
        let words = parse(b"STATUS=\x1b[2Jdone\r\0\xff ");
        let [Word::Status(status)] = words.as_slice() else { panic!("no status") };
        assert_eq!(status, " [2Jdone  \u{fffd}");
        let long = format!("STATUS={}", "ä".repeat(1000));
        let words = parse(long.as_bytes());
        let [Word::Status(status)] = words.as_slice() else { panic!("no status") };
        assert_eq!(status.chars().count(), STATUS_MAX_CHARS + 1);
    }
}
