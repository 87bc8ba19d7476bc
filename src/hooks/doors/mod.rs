//! What a call reaches of the outside, and only through here: the hook host asks, and each question is held against the grants
//! of the very call that it is asked for. A new kind of question: a variant of `Ask`, an arm in [`Doors::answer`].

mod address;
mod files;
mod net;
mod probes;

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::exec::ExecCheck;
use super::wire::{Answer, Ask, Code, Target};
use crate::model::{Exit, Grants, HookCall, HookKind, Probes};

/// Bytes of output of a command that are handed on.
const OUTPUT_MAX_BYTES: usize = 16 << 10;
/// Work that may hang in the kernel at one time, of all calls together: it shares its threads with everything that blocks.
static BLOCKING: Semaphore = Semaphore::const_new(2);

/// The doors of one call.
pub(super) struct Doors<'a> {
    pub(super) kind: HookKind,
    pub(super) grants: &'a Grants,
    pub(super) exec: &'a dyn ExecCheck,
    probes: &'a Probes,
    probing: Option<probes::Probing>,
    /// What was refused for want of a grant, with the line to write.
    pub(super) denied: Vec<String>,
    /// What was asked for, in words, with how it went.
    pub(super) seen: Vec<String>,
}

/// Words of what a call did that are kept.
const SEEN_MAX: usize = 256;

impl<'a> Doors<'a> {
    /// Nothing was asked yet.
    pub(super) fn new(call: &'a HookCall, exec: &'a dyn ExecCheck) -> Self {
        let (kind, grants, probes) = (call.kind(), &*call.grants, &*call.probes);
        Self { kind, grants, exec, probes, probing: None, denied: Vec::new(), seen: Vec::new() }
    }
}

impl Doors<'_> {
    /// Answers one question; what was opened comes beside the answer.
    pub(super) async fn answer(&mut self, ask: Ask) -> (Answer, Option<OwnedFd>) {
        let (what, done) = match ask {
            Ask::Connect { to, timeout_ms } => {
                let done = self.connect(&to, Duration::from_millis(u64::from(timeout_ms))).await;
                (format!("connect to {}", net::shown(&to)), done)
            }
            Ask::Probe { timeout_ms } => self.probe(Duration::from_millis(u64::from(timeout_ms))).await,
            Ask::Exec { name, timeout_ms } => {
                let done = self.exec(&name, Duration::from_millis(u64::from(timeout_ms))).await;
                (format!("run `{}`", name.escape_debug()), done)
            }
            Ask::Open { path, how } => {
                let what = if how.look { "look at" } else { "open" };
                (format!("{what} `{}`", path.escape_debug()), self.file(files::Job::Open { path, how }).await)
            }
            Ask::Write { path, data } => {
                (format!("write `{}`", path.escape_debug()), self.file(files::Job::Write { path, data }).await)
            }
            Ask::Remove { path, folder } => {
                (format!("remove `{}`", path.escape_debug()), self.file(files::Job::Remove { path, folder }).await)
            }
            Ask::MakeFolder { path } => {
                (format!("make `{}`", path.escape_debug()), self.file(files::Job::MakeFolder { path }).await)
            }
            Ask::Rename { from, to } => {
                let what = format!("rename `{}` to `{}`", from.escape_debug(), to.escape_debug());
                (what, self.file(files::Job::Rename { from, to }).await)
            }
        };
        if self.seen.len() < SEEN_MAX {
            let how = match &done.0 {
                Answer::Done | Answer::Exit { .. } | Answer::Probe { failed: None, .. } => "done".to_owned(),
                Answer::Refused { code, message } | Answer::Probe { failed: Some((code, message)), .. } => {
                    format!("{}: {message}", code.word())
                }
            };
            self.seen.push(format!("{what}: {how}"));
        }
        done
    }

    async fn connect(&mut self, to: &Target, timeout: Duration) -> (Answer, Option<OwnedFd>) {
        match net::connect_within(timeout, &self.grants.net, to).await {
            Ok(stream) => (Answer::Done, Some(stream)),
            Err(refused) => {
                let (code, message) = self.not_connected(&net::shown(to), refused);
                (Answer::Refused { code, message }, None)
            }
        }
    }

    /// The next connection of a probe; the first question begins all.
    async fn probe(&mut self, timeout: Duration) -> (String, (Answer, Option<OwnedFd>)) {
        let (probes, net) = (self.probes, &self.grants.net);
        let probing = self.probing.get_or_insert_with(|| probes::Probing::begin(probes, net, timeout));
        let Some(probes::Probed { name, to, outcome }) = probing.next().await else {
            return ("probe once more".to_owned(), (Answer::refused(Code::NotFound, "there is no other probe"), None));
        };
        let what = format!("probe `{name}` at {to}");
        let (failed, stream) = match outcome {
            Ok(stream) => (None, Some(stream)),
            Err(refused) => (Some(self.not_connected(&to, refused)), None),
        };
        (what, (Answer::Probe { name, failed }, stream))
    }

    /// Why there is no connection, as the answer says it.
    fn not_connected(&mut self, to: &str, refused: net::Refused) -> (Code, String) {
        match refused {
            net::Refused::Failed(code, message) => (code, message),
            net::Refused::NotGranted(entry) => {
                (Code::Denied, self.denied(&format!("may not reach {to}"), |grants| grants.net.push(entry)))
            }
        }
    }

    async fn exec(&mut self, name: &str, timeout: Duration) -> (Answer, Option<OwnedFd>) {
        if !self.grants.exec.contains_key(name) {
            let name: String = name.chars().take(64).collect();
            let entry = (name.clone(), vec!["/path/of/program".to_owned()]);
            return (self.deny(&format!("may not run `{name}`"), |grants| drop(grants.exec.insert(entry.0, entry.1))), None);
        }
        let outcome = match self.exec.run(name, timeout).await {
            Ok(outcome) => outcome,
            Err(cause) => return (Answer::refused(Code::Other, cause), None),
        };
        let (code, signal) = match outcome.exit {
            Exit::Code(code) => (Some(code), None),
            Exit::Signal(signal) => (None, Some(signal.to_string())),
            Exit::OutOfMemory { .. } => (None, Some("SIGKILL".to_owned())),
            Exit::Unknown => (None, None),
        };
        let mut output = outcome.output.into_bytes();
        output.drain(..output.len().saturating_sub(OUTPUT_MAX_BYTES));
        (Answer::Exit { code, signal, output }, None)
    }

    async fn file(&mut self, job: files::Job) -> (Answer, Option<OwnedFd>) {
        let grants = files::Granted { read: self.grants.read.clone(), write: self.grants.write.clone() };
        let (path, writes) = (job.path().to_owned(), job.writes());
        let done = blocking(move || files::carry_out(&grants, job)).await;
        match done.unwrap_or_else(|why| Err(files::Refused::Failed(Code::Other, why))) {
            Ok(opened) => (Answer::Done, opened),
            Err(files::Refused::NotGranted) => {
                let doing = if writes { "write" } else { "read" };
                let what = format!("may not {doing} `{}`", path.escape_debug());
                let add =
                    |grants: &mut Grants| if writes { grants.write.push(path.clone()) } else { grants.read.push(path.clone()) };
                (self.deny(&what, add), None)
            }
            Err(files::Refused::Failed(code, message)) => (Answer::refused(code, message), None),
        }
    }

    /// Refuses for want of a grant, with the line that would give it.
    fn deny(&mut self, what: &str, add: impl FnOnce(&mut Grants)) -> Answer {
        Answer::refused(Code::Denied, self.denied(what, add))
    }

    /// Notes what was refused, with the line that would give it.
    fn denied(&mut self, what: &str, add: impl FnOnce(&mut Grants)) -> String {
        let mut grants = self.grants.clone();
        add(&mut grants);
        let message = format!("{what}: `[hooks.{}]` in group.toml would need  {}", self.kind.name(), allow_line(&grants));
        if self.denied.len() < SEEN_MAX && !self.denied.contains(&message) {
            self.denied.push(message.clone());
        }
        message
    }
}

/// Work that may hang in the kernel. Its permit goes with it: whoever waits may go, and what hangs still hangs.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let permit = BLOCKING.acquire().await.map_err(|error| error.to_string())?;
    let work = move || {
        let done = work();
        drop(permit);
        done
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

/// `allow = { … }`, as it stands in a `group.toml`.
pub(super) fn allow_line(grants: &Grants) -> String {
    let list = |entries: &[String]| {
        let quoted: Vec<String> = entries.iter().map(|entry| quoted(entry)).collect();
        format!("[{}]", quoted.join(", "))
    };
    let lists = [("net", &grants.net), ("read", &grants.read), ("write", &grants.write), ("env", &grants.env)];
    let mut parts: Vec<String> =
        lists.iter().filter(|(_, list)| !list.is_empty()).map(|(name, entries)| format!("{name} = {}", list(entries))).collect();
    if !grants.exec.is_empty() {
        let commands: Vec<String> = grants.exec.iter().map(|(name, argv)| format!("{} = {}", key(name), list(argv))).collect();
        parts.push(format!("exec = {{ {} }}", commands.join(", ")));
    }
    format!("allow = {{ {} }}", parts.join(", "))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_default().to_string().replace("\\'", "'"))
}

fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare { name.to_owned() } else { quoted(name) }
}
