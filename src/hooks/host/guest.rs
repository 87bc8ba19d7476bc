//! What one call owns: its facts, its limits, what it has said, and its line to the supervisor.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wasmtime::ResourceLimiter;

use super::command::State as CommandState;
use super::lanes::Long;
use super::wasi::Wasi;
use crate::hooks::frame::Framed;
use crate::hooks::wire::{Answer, Ask, Call, Code, FromHost, Level, LogLine};

/// Lines that are kept of a call, and bytes of each.
const LINES_MAX: usize = 64;
const LINE_MAX_BYTES: usize = 4 << 10;
/// Named values of a line.
const FIELDS_MAX: usize = 16;
/// Questions of one call: a guest that asks on and on only keeps the supervisor busy.
const ASKS_MAX: u32 = 1_000;
/// Bytes of memory of all calls together, whatever each of them may have.
const ALL_MEMORY_MAX_BYTES: usize = 1 << 30;
/// Bytes that an element of a table takes.
const ELEMENT_BYTES: usize = 16;
const INSTANCES_MAX: usize = 64;
const TABLES_MAX: usize = 256;
const MEMORIES_MAX: usize = 64;

/// One call's store.
pub(super) struct Guest {
    pub(super) call: Box<Call>,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
    pub(super) limits: Limits,
    pub(super) log: Vec<LogLine>,
    /// The snapshot as a tree, once somebody points into it.
    pub(super) snapshot: Option<serde_json::Value>,
    pub(super) line: Line,
    pub(super) long: Long,
    pub(super) command: CommandState,
    pub(super) wasi: Wasi,
}

impl Guest {
    pub(super) fn new(call: Box<Call>, line: Line, memory: Memory, long: Long) -> Self {
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(u64::from(call.left_ms));
        let limits = Limits::new(call.memory, memory);
        Self {
            call,
            begun,
            deadline,
            limits,
            log: Vec::new(),
            snapshot: None,
            line,
            long,
            command: CommandState::default(),
            wasi: Wasi::default(),
        }
    }

    /// What is left of the call's time, or less where `ms` is less; 0 asks for all of it.
    pub(super) fn left(&self, ms: u32) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if ms == 0 { left } else { left.min(Duration::from_millis(u64::from(ms))) }
    }

    /// Keeps a line, as far as there is room.
    pub(super) fn say(&mut self, level: Level, mut message: String, mut fields: Vec<(String, String)>) {
        if self.log.len() == LINES_MAX {
            let message = "more was said than is kept".to_owned();
            self.log.push(LogLine { level: Level::Warn, message, fields: Vec::new() });
        }
        if self.log.len() > LINES_MAX {
            return;
        }
        message.truncate(message.floor_char_boundary(LINE_MAX_BYTES));
        fields.truncate(FIELDS_MAX);
        for (name, value) in &mut fields {
            name.truncate(name.floor_char_boundary(LINE_MAX_BYTES));
            value.truncate(value.floor_char_boundary(LINE_MAX_BYTES));
        }
        self.log.push(LogLine { level, message, fields });
    }
}

/// A call's line to the supervisor.
#[derive(Clone)]
pub(super) struct Line {
    id: u64,
    /// Nobody at the other end: a module that is only looked at.
    deaf: bool,
    asked: u32,
    questions: Arc<Questions>,
}

/// Questions that wait for their answers, by call, each with its number: a guest can ask one at a time, and give up waiting.
pub(super) struct Questions {
    pub(super) link: Arc<Framed>,
    open: Mutex<HashMap<u64, (u32, oneshot::Sender<Answered>)>>,
}

/// An answer, and what was opened.
pub(super) type Answered = (Answer, Option<OwnedFd>);

impl Questions {
    pub(super) fn new(link: Arc<Framed>) -> Self {
        Self { link, open: Mutex::default() }
    }

    pub(super) fn answer(&self, id: u64, number: u32, answered: Answered) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // An answer to a question that was given up is none to the next.
        if open.get(&id).is_none_or(|(asked, _)| *asked != number) {
            return;
        }
        let waiting = open.remove(&id);
        drop(open);
        if let Some((_, waiting)) = waiting {
            // It may have been ended meanwhile.
            let _ = waiting.send(answered);
        }
    }

    fn forget(&self, id: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

impl Line {
    pub(super) fn new(id: u64, questions: Arc<Questions>) -> Self {
        Self { id, deaf: false, asked: 0, questions }
    }

    pub(super) fn deaf(questions: Arc<Questions>) -> Self {
        Self { id: 0, deaf: true, asked: 0, questions }
    }

    /// Asks, and waits for the answer; the call's own deadline ends the wait.
    pub(super) async fn ask(&mut self, ask: Ask) -> Answered {
        self.asked += 1;
        let refused = |code, words: &str| (Answer::refused(code, words), None);
        if self.deaf {
            return refused(Code::Denied, "nothing may be asked while a module is only looked at");
        }
        if self.asked > ASKS_MAX {
            return refused(Code::Denied, "a call may ask a thousand times, and has");
        }
        let (sender, receiver) = oneshot::channel();
        self.questions.open.lock().unwrap_or_else(PoisonError::into_inner).insert(self.id, (self.asked, sender));
        let forgets = Forgets(self);
        let sent = postcard::to_stdvec(&FromHost::Ask { id: forgets.0.id, number: forgets.0.asked, ask })
            .is_ok_and(|bytes| forgets.0.questions.link.send(&bytes, None).is_ok());
        if !sent {
            return refused(Code::Other, "the supervisor cannot be asked");
        }
        receiver.await.unwrap_or_else(|_| refused(Code::Other, "the supervisor gave no answer"))
    }
}

/// Forgets a question whose answer nobody waits for.
struct Forgets<'a>(&'a Line);

impl Drop for Forgets<'_> {
    fn drop(&mut self) {
        self.0.questions.forget(self.0.id);
    }
}

/// Memory of all calls together, in bytes.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<AtomicUsize>);

impl Memory {
    fn take(&self, more: usize) -> bool {
        let add = |all: usize| all.checked_add(more).filter(|all| *all <= ALL_MEMORY_MAX_BYTES);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }
}

/// Memory and tables of all of a call's instances together.
pub(super) struct Limits {
    bytes_max: usize,
    bytes: usize,
    all: Memory,
    pub(super) peak: usize,
    /// Something did not fit.
    pub(super) refused: bool,
}

impl Limits {
    fn new(bytes: u64, all: Memory) -> Self {
        Self { bytes_max: usize::try_from(bytes).unwrap_or(usize::MAX), bytes: 0, all, peak: 0, refused: false }
    }

    fn grow(&mut self, more: usize) -> bool {
        let fits = self.bytes.checked_add(more).is_some_and(|all| all <= self.bytes_max) && self.all.take(more);
        if fits {
            self.bytes += more;
            self.peak = self.peak.max(self.bytes);
        }
        self.refused |= !fits;
        fits
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(ELEMENT_BYTES)))
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_to_a_question_that_was_given_up_is_none_to_the_next() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let questions = Arc::new(Questions::new(Arc::new(Framed::new(ours.into(), true).unwrap())));
        let mut line = Line::new(7, questions.clone());
        let ask = || Ask::Exec { name: "x".to_owned(), timeout_ms: 0 };
        assert!(tokio::time::timeout(Duration::from_millis(1), line.ask(ask())).await.is_err());
        let next = line.ask(ask());
        let answers = async {
            tokio::task::yield_now().await;
            questions.answer(7, 1, (Answer::refused(Code::Other, "the first"), None));
            questions.answer(7, 2, (Answer::Done, None));
        };
        let ((answer, _), ()) = tokio::join!(next, answers);
        assert_eq!(answer, Answer::Done);
    }
}
