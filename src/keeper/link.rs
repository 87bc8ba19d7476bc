//! The supervisor: its process, and the socket to it.
//!
//! It is restarted whenever it ends; no service notices. What it does not read is merged: of each service only the newest
//! report waits, and no further request is read while many answers wait, so that memory stays bounded.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::{PidfdFlags, pidfd_open};

use super::confine::groups_of_user;
use super::engine::{Engine, Owner, end_words, now, say};
use super::folders;
use super::poller::{Source, Token};
use super::proc;
use super::roster::Mark;
use super::services::abandon;
use super::spawn::environment_of_keeper;
use super::wire::{
    Hello, Message, PACKET_MAX_BYTES, PROTOCOL_MINOR, PROTOCOL_VERSION, SOCKET_ENV, decode_request, encode_message,
};
use crate::model::{Exit, GroupName, Moment};
use crate::sys::process::{Image, close_on_exec_from, place_fd, reset_signals, user_by_id};
use crate::sys::turns::{Turns, take_turns};

/// Longest delay before the supervisor is started again, in milliseconds.
const RESTART_MAX_MS: u64 = 1_000;

/// First delay, where the last one did not live long, in milliseconds.
const RESTART_MIN_MS: u64 = 20;

/// A supervisor that lived so long is restarted at once, in milliseconds.
const LIVED_MS: u64 = 5_000;

/// Descriptor number of the socket in the supervisor.
const SOCKET_NUMBER: i32 = 3;

/// No request is read while so many answers wait.
const ANSWERS_MAX: usize = 128;

/// Most requests read in one turn of the loop.
const REQUESTS_PER_TURN: usize = 64;

/// The supervisor's process.
#[derive(Default)]
pub(super) struct Supervisor {
    pub(super) process: Option<(u32, OwnedFd)>,
    started: Moment,
    short_lives: u32,
    restart_at: Option<Moment>,
    /// It has said that its API answers.
    pub(super) serving: bool,
    /// How the last one ended, in words.
    pub(super) ended: Option<String>,
}

impl Supervisor {
    pub(super) fn restart_at(&self) -> Option<Moment> {
        self.restart_at
    }
}

/// The socket, and what is on its way.
pub(super) struct Link {
    socket: OwnedFd,
    token: Token,
    hello: Option<Message>,
    gone: BTreeSet<GroupName>,
    snapshot_due: bool,
    answers: VecDeque<Message>,
    blocked: bool,
    wanted: (bool, bool),
}

impl Link {
    /// Queues an answer.
    pub(super) fn answer(&mut self, message: Message) {
        self.answers.push_back(message);
    }

    /// Queues the news that a service is no longer known.
    pub(super) fn gone(&mut self, group: GroupName) {
        self.gone.insert(group);
    }

    /// Sends one message; `false` where the socket takes no more for now (or ever).
    fn send(&mut self, message: &Message) -> bool {
        let sent = send(&self.socket, &encode_message(message), SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        self.blocked = sent.is_err();
        match sent {
            Ok(_) => true,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Err(rustix::io::Errno::MSGSIZE) => {
                say("a message that is too large for a packet was left out");
                self.blocked = false;
                true
            }
            // Its end shows as the end of the socket or of the process.
            Err(_) => false,
        }
    }
}

impl Engine {
    pub(super) fn start_supervisor(&mut self) {
        self.supervisor.restart_at = None;
        if self.ending.is_some() {
            return;
        }
        self.supervisor.started = now().moment;
        if let Err(why) = self.try_start_supervisor() {
            say(&format!("the supervisor cannot be started: {why}; services run on, and it is tried again"));
            self.restart_supervisor_later();
        }
    }

    fn try_start_supervisor(&mut self) -> Result<(), String> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(|error| format!("no socket: {error}"))?;
        rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4 * PACKET_MAX_BYTES)
            .map_err(|error| format!("no buffer for the socket: {error}"))?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|error| format!("no socket that does not block: {error}"))?;
        let mut writable = self.make_folders()?;
        writable.extend(self.config.grants.hook_roots.iter().cloned());
        let groups = self.confinement.user.as_ref().map(groups_of_user).unwrap_or_default();
        let image = self.supervisor_image();
        let (one_thread, soft_limit) = (&self.one_thread, self.rights.open_files);
        let keeper = rustix::process::getpid();
        let oom_score = self.rights.oom_score.to_string();
        let (confinement, rights) = (&self.confinement, &self.rights);
        let cannot = |(step, error): (&str, std::io::Error)| {
            say(&format!("the supervisor cannot be shut in: {step}: {error}"));
            127
        };
        let child = || {
            // A session of its own: what a terminal sends to the keeper is the keeper's to pass on.
            let _ = rustix::process::setsid();
            let _ = close_on_exec_from(3);
            super::oom::set(&oom_score);
            let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, soft_limit);
            if place_fd(one_thread, theirs.as_fd(), SOCKET_NUMBER).is_err() {
                return 127;
            }
            if let Err(failure) = confinement.become_user(&groups, rights) {
                return cannot(failure);
            }
            // It makes no sense without its keeper, and must never meet the next one's. Becoming another user undoes it.
            let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
            if rustix::process::getppid() != Some(keeper) {
                return 127;
            }
            reset_signals();
            let _ = take_turns(Turns::Usual);
            if let Err(failure) = confinement.enter(&writable) {
                return cannot(failure);
            }
            let error = image.exec();
            say(&format!("the supervisor's program cannot be executed: {error}"));
            127
        };
        let pid = one_thread.fork(child).map_err(|error| format!("no process: {error}"))?;
        let id = proc::pid_of(pid).ok_or("no usable process number")?;
        let pidfd = pidfd_open(id, PidfdFlags::empty()).map_err(|error| {
            abandon(pid);
            format!("its process cannot be held: {error}")
        })?;
        self.children.insert(pid, Owner::Supervisor);
        self.supervisor.process = Some((pid, pidfd));
        let token = self.poller.add(&ours, Source::Link).map_err(|error| format!("its socket cannot be watched: {error}"))?;
        for entry in self.services.values_mut() {
            entry.dirty = true;
        }
        self.link_generation += 1;
        self.link = Some(Link {
            socket: ours,
            token,
            hello: Some(Message::Hello(self.hello())),
            gone: BTreeSet::new(),
            snapshot_due: true,
            answers: VecDeque::new(),
            blocked: false,
            wanted: (true, false),
        });
        Ok(())
    }

    fn hello(&self) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            minor: PROTOCOL_MINOR,
            keeper_pid: std::process::id(),
            boot_id: self.boot_id.clone(),
            namespaces: self.rights.namespaces.clone(),
            supervisor_user: self.confinement.user.as_ref().map(|user| user.name.clone()),
            lacks: self.confinement.lacks.clone(),
        }
    }

    /// Makes the folders that the supervisor writes; they are all that it can.
    fn make_folders(&self) -> Result<Vec<PathBuf>, String> {
        let owner = self.confinement.owner(&self.rights);
        folders::settle(&self.config.data_dir, owner)?;
        let mut writable: Vec<PathBuf> = folders::written(&self.config.data_dir).collect();
        if let Some(folder) = &self.config.grants.socket_folder {
            // Where it cannot be made, the supervisor finds that, and says what to do.
            let _ = folders::make_socket_folder(folder, owner);
            writable.push(folder.clone());
        }
        Ok(writable)
    }

    fn supervisor_image(&self) -> Image {
        let c_string = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
        let program = match &self.config.supervisor_program {
            Some(program) => c_string(program.as_os_str().as_bytes()),
            None => c"/proc/self/exe".to_owned(),
        };
        let mut arguments = vec![c"tagfall".to_owned(), c"supervisor".to_owned()];
        arguments.extend(self.config.supervisor_args.iter().map(|argument| c_string(argument.as_bytes())));
        let mut changes = vec![(SOCKET_ENV, Some(SOCKET_NUMBER.to_string()))];
        if let Some(user) = &self.confinement.user {
            // What is the keeper's own would lead it to files that are not its own.
            let named = user_by_id(user.uid).ok().flatten().map(|user| user.home);
            let home = named.unwrap_or_else(|| self.config.data_dir.display().to_string());
            changes.extend([("HOME", Some(home)), ("USER", Some(user.name.clone())), ("LOGNAME", Some(user.name.clone()))]);
            changes.extend(["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"].map(|key| (key, None)));
        }
        let environment = environment_of_keeper(&changes);
        Image::new(vec![program], arguments, environment)
    }

    /// The supervisor was waited for.
    pub(super) fn supervisor_ended(&mut self, exit: Exit) {
        self.supervisor.process = None;
        (self.supervisor.serving, self.supervisor.ended) = (false, Some(end_words(exit)));
        self.cut_link();
        if self.ending.is_some() {
            self.supervisor_is_away();
            return;
        }
        if self.exchange.is_some() {
            // The next program starts the next one.
            return;
        }
        say(&format!("the supervisor {}; services run on, and it is started again", end_words(exit)));
        let lived = now().moment.since(self.supervisor.started).as_millis();
        if lived >= u128::from(LIVED_MS) {
            self.supervisor.short_lives = 0;
        }
        self.restart_supervisor_later();
    }

    fn restart_supervisor_later(&mut self) {
        let lives = self.supervisor.short_lives;
        self.supervisor.short_lives = lives.saturating_add(1);
        // The first time at once, then after 20 ms, 40 ms, …
        let ms = match lives {
            0 => 0,
            lives => RESTART_MIN_MS.saturating_mul(1 << (lives - 1).min(10)).min(RESTART_MAX_MS),
        };
        self.supervisor.restart_at = Some(now().moment.after(std::time::Duration::from_millis(ms)));
    }

    /// Ends the connection; requests that are still in it are not carried out.
    fn cut_link(&mut self) {
        if let Some(link) = self.link.take() {
            self.poller.remove(&link.socket, link.token);
        }
    }

    /// Reads requests.
    pub(super) fn read_link(&mut self) {
        let mut packet = std::mem::take(&mut self.packet);
        for _ in 0..REQUESTS_PER_TURN {
            let Some(link) = self.link.as_ref().filter(|link| link.answers.len() < ANSWERS_MAX) else { break };
            match recv(&link.socket, packet.as_mut_slice(), RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((_, 0)) => {
                    // It closed its end but has not ended (yet): without ears it can do nothing any more.
                    self.cut_link();
                    self.end_deaf_supervisor();
                    break;
                }
                Ok((length, whole)) if whole > length => {
                    let result = Err(format!("a packet of {whole} bytes is larger than the {PACKET_MAX_BYTES} that are taken"));
                    self.reply(Message::Reply { attempt: 0, result });
                }
                Ok((length, _)) => match decode_request(&packet[..length]) {
                    Ok((attempt, request)) => self.take_request(attempt, request),
                    Err(error) => {
                        self.reply(Message::Reply { attempt: error.attempt, result: Err(error.to_string()) });
                    }
                },
                Err(_) => break,
            }
        }
        self.packet = packet;
    }

    fn end_deaf_supervisor(&mut self) {
        if let Some((_, pidfd)) = &self.supervisor.process {
            let _ = crate::sys::process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// Queues an answer to whoever is connected.
    pub(super) fn reply(&mut self, message: Message) {
        if let Some(link) = &mut self.link {
            link.answer(message);
        }
    }

    /// Sends what waits: news first, so that an answer never comes before the reports of what it caused.
    pub(super) fn flush_link(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        self.send_waiting(&mut link);
        let wanted = (link.answers.len() < ANSWERS_MAX, link.blocked);
        if wanted != link.wanted && self.poller.want(&link.socket, link.token, wanted.0, wanted.1).is_ok() {
            link.wanted = wanted;
        }
        self.link = Some(link);
    }

    fn send_waiting(&mut self, link: &mut Link) {
        if let Some(hello) = link.hello.take()
            && !link.send(&hello)
        {
            link.hello = Some(hello);
            return;
        }
        while let Some(group) = link.gone.pop_first() {
            if !self.services.contains_key(&group) && !link.send(&Message::Gone(group.clone())) {
                link.gone.insert(group);
                return;
            }
        }
        let now = now();
        while let Some(group) = self.services.first_marked(Mark::Unreported) {
            let Some(entry) = self.services.get_mut(&group) else { return };
            if !link.send(&Message::Report(Box::new(entry.report(now, self.journal_failed.as_deref())))) {
                return;
            }
            entry.dirty = false;
        }
        if link.snapshot_due {
            if !link.send(&Message::SnapshotEnd) {
                return;
            }
            link.snapshot_due = false;
        }
        while let Some(answer) = link.answers.pop_front() {
            if !link.send(&answer) {
                link.answers.push_front(answer);
                return;
            }
        }
    }
}
