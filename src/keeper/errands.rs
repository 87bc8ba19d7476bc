//! What a supervisor asks to have done on disk, each in a child of its own: a mount path may lie on a disk that is slow or does not
//! answer at all, and the keeper waits for none.
//!
//! The child says in a pipe what came of it; its end is the answer. To add an errand: a method of `links::Work`, and its row in
//! `requests.rs`.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};

use super::engine::{Engine, Owner, now};
use super::links::Work;
use super::proc;
use super::wire::Message;
use crate::model::Moment;
use crate::sys::process::{close_from, inherited_fd, place_fd};

/// Most errands at once; the supervisor has fewer hands.
const ERRANDS_MAX: usize = 16;

/// How long one may take: less than the supervisor waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Longest answer, in bytes: a pipe takes it in one piece.
const ANSWER_MAX_BYTES: usize = 2048;

/// Number of the pipe in the child, which keeps no other descriptor: a lock that it held would outlive the keeper.
const PIPE_NUMBER: i32 = 3;

/// An errand under way.
pub(super) struct Errand {
    pid: u32,
    generation: u64,
    attempt: u64,
    pipe: OwnedFd,
    until: Moment,
}

impl Errand {
    pub(super) fn deadline(&self) -> Moment {
        self.until
    }
}

impl Engine {
    /// Begins an errand; its answer is queued when it has ended.
    pub(super) fn start_errand(
        &mut self,
        attempt: u64,
        errand: impl FnOnce(&Work<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.errands.len() >= ERRANDS_MAX {
            return Err(format!("{ERRANDS_MAX} errands are under way already; this one is not begun"));
        }
        let failed = |error: std::io::Error| format!("no process can be made for it: {error}");
        let (pipe, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
        let work = Work { config: &self.config, owner: self.confinement.owner(&self.rights), uid: self.rights.uid };
        let one_thread = &self.one_thread;
        let child = || {
            let answer = place_fd(one_thread, write.as_fd(), PIPE_NUMBER).and_then(|()| inherited_fd(PIPE_NUMBER));
            let Ok(answer) = answer else { return 1 };
            // Kernels before 5.9 do not know it, and an errand there lasts no longer for that.
            let _ = close_from(one_thread, PIPE_NUMBER.unsigned_abs() + 1);
            let Err(why) = errand(&work) else { return 0 };
            let length = why.floor_char_boundary(ANSWER_MAX_BYTES);
            let _ = std::fs::File::from(answer).write_all(&why.as_bytes()[..length]);
            1
        };
        let pid = one_thread.fork(child).map_err(failed)?;
        self.errand_ids += 1;
        let (generation, until) = (self.link_generation, now().moment.after(TIMEOUT));
        self.children.insert(pid, Owner::Errand(self.errand_ids));
        self.errands.insert(self.errand_ids, Errand { pid, generation, attempt, pipe, until });
        Ok(())
    }

    /// An errand's process was waited for.
    pub(super) fn errand_ended(&mut self, id: u64, succeeded: bool) {
        let Some(errand) = self.errands.remove(&id) else { return };
        let mut why = String::new();
        let result = if succeeded {
            Ok(())
        } else {
            let read = std::fs::File::from(errand.pipe).read_to_string(&mut why);
            Err(if read.is_ok() && !why.is_empty() { why } else { "it broke off; it can be asked for again".to_owned() })
        };
        if errand.generation == self.link_generation {
            self.reply(Message::Reply { attempt: errand.attempt, result });
        }
    }

    /// Gives an errand up. Its process is killed, and waited for whenever the disk lets it go.
    pub(super) fn errand_timed_out(&mut self, id: u64) {
        let Some(errand) = self.errands.remove(&id) else { return };
        self.children.remove(&errand.pid);
        if let Some(pid) = proc::pid_of(errand.pid) {
            // It is ours and not yet waited for, so its number is its own.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        if errand.generation == self.link_generation {
            let result = Err(format!("the disk has not answered within {} s; it can be asked for again", TIMEOUT.as_secs()));
            self.reply(Message::Reply { attempt: errand.attempt, result });
        }
    }
}
