//! What a service says of itself, and what follows from it: readiness, reloads, its watchdog, more time, another main process.
//!
//! Pure, as all of the state is. Whose words these are was verified before; what makes no sense where the service stands is
//! ignored, so that repeated or late words do nothing. To add a word: a variant of [`Word`] and its row in `Service::hear`.

use std::time::Duration;

use super::{Action, Context, Phase, Service};
use crate::keeper::wire::{FieldError, Fields, Writer};
use crate::model::{Moment, Policy, ServiceKind, Signal};

/// The most time that one message can ask for.
const EXTEND_MAX: Duration = Duration::from_secs(3600);

/// What ends a service that has fallen silent: a default action that leaves a core behind, where cores are kept.
const SILENT_SIGNAL: Signal = Signal(6);

/// So late a silence is noticed only where the keeper, or the whole machine, stood still: that says nothing of the service.
const NOTICED_LATE: Duration = Duration::from_secs(1);

/// So often a status alone is taken over; one that floods us with them is not passed on word by word.
const STATUS_EVERY: Duration = Duration::from_millis(100);

/// One thing that a service says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// It is ready, or has reloaded.
    Ready,
    /// It begins to reload; `Ready` says that it has.
    Reloading,
    /// It is about to end by itself.
    Stopping,
    /// For people; already bounded and clean.
    Status(String),
    /// It lives.
    Watchdog,
    /// It asks to be taken as silent.
    WatchdogTrigger,
    /// It needs so much time from now on, to start or to stop.
    Extend(Duration),
    /// This process of it is the main one.
    MainPid(u32),
}

impl Word {
    /// Whom it names as the main process, which is not believed unseen.
    pub(crate) fn main_pid(&self) -> Option<u32> {
        if let Self::MainPid(pid) = self { Some(*pid) } else { None }
    }
}

/// What is known from the running process itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) reloading: bool,
    stopping: bool,
    status: String,
    status_at: Option<Moment>,
    /// How long it may be silent, as it was told at its start, and since when it is.
    watchdog: Option<(Duration, Option<Moment>)>,
    /// Time from its start on by which it wants to be ready.
    pub(super) extended: Option<Duration>,
    /// It is being ended because it was silent.
    pub(super) silent: bool,
}

impl Told {
    pub(super) fn new(policy: &Policy) -> Self {
        Self { watchdog: policy.watchdog.map(|span| (span, None)), ..Self::default() }
    }

    /// Its watchdog counts from now on.
    pub(super) fn watch_from(&mut self, now: Moment) {
        if let Some((_, heard)) = &mut self.watchdog {
            *heard = Some(now);
        }
    }

    /// By when it must be heard.
    pub(super) fn silence_ends(&self) -> Option<Moment> {
        self.watchdog.and_then(|(span, heard)| heard.map(|heard| heard.after(span)))
    }

    /// Writes what a successor must know: above all what its process was promised, and what it has asked for.
    pub(super) fn save(&self, writer: &mut Writer) {
        for (tag, flag) in [(1, self.reloading), (2, self.stopping), (3, self.silent)] {
            if flag {
                writer.u64(tag, 1);
            }
        }
        if !self.status.is_empty() {
            writer.text(4, &self.status);
        }
        for (tag, span) in [(5, self.watchdog.map(|(span, _)| span)), (6, self.extended)] {
            if let Some(span) = span {
                writer.duration(tag, span);
            }
        }
    }

    /// Reads what [`Told::save`] wrote. Its watchdog is not in force before it can be heard again.
    pub(super) fn restore(fields: Fields<'_>) -> Result<Self, FieldError> {
        let flag = |tag| Ok(fields.optional(tag, Fields::u64)?.is_some_and(|value| value != 0));
        Ok(Self {
            reloading: flag(1)?,
            stopping: flag(2)?,
            silent: flag(3)?,
            status: fields.optional(4, Fields::text)?.unwrap_or_default(),
            status_at: None,
            watchdog: fields.optional(5, Fields::duration)?.map(|span| (span, None)),
            extended: fields.optional(6, Fields::duration)?,
        })
    }

    /// What tells two of them apart where a decision is made.
    pub(super) fn flags(&self) -> [bool; 5] {
        let heard = self.watchdog.is_some_and(|(_, heard)| heard.is_some());
        [self.reloading, self.stopping, self.silent, self.watchdog.is_some(), heard]
    }

    /// For people.
    pub(super) fn words(&self) -> String {
        let stopping = if self.stopping { "it says that it is ending" } else { "" };
        let status = if self.status.is_empty() { String::new() } else { format!("it says: {}", self.status) };
        [stopping, &status].into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

impl Service {
    /// It is heard again after a change of keepers: its watchdog, if it was promised one, counts from now on.
    pub(in crate::keeper) fn heard_again(&mut self, now: Moment) {
        if matches!(self.phase, Phase::Up { ready: Some(_), .. }) {
            self.told.watch_from(now);
        }
    }

    /// Nobody could be heard for a while, whatever was said: where its watchdog counts, it does so from now on.
    pub(in crate::keeper) fn unheard(&mut self, now: Moment) {
        if let Some((_, Some(heard))) = &mut self.told.watchdog {
            *heard = now;
        }
    }

    /// Takes what one message says, all of it together.
    pub(super) fn hear(&mut self, words: Vec<Word>, context: Context) -> Vec<Action> {
        let now = context.now.moment;
        let fresh = self.told.status_at.is_none_or(|at| now.since(at) >= STATUS_EVERY);
        let take_status = fresh || words.iter().any(|word| matches!(word, Word::Ready | Word::Reloading | Word::Stopping));
        let mut actions = Vec::new();
        for word in words {
            match (word, self.phase) {
                (Word::Ready, Phase::Up { ready: None, .. }) => actions.extend(self.mark_ready(self.incarnation, context)),
                (Word::Ready, Phase::Up { ready: Some(_), .. }) => self.told.reloading = false,
                (Word::Reloading, Phase::Up { ready: Some(_), .. }) => self.told.reloading = true,
                (Word::Stopping, Phase::Up { .. }) => self.told.stopping = true,
                (Word::Status(status), Phase::Up { .. } | Phase::Stopping { .. }) if take_status => {
                    (self.told.status, self.told.status_at) = (status, Some(now));
                }
                (Word::Watchdog, Phase::Up { ready: Some(_), .. }) => self.told.watch_from(now),
                (Word::WatchdogTrigger, Phase::Up { ready: Some(_), .. }) => {
                    actions.extend(self.end_silent("its watchdog was triggered by itself".to_owned(), context));
                }
                (Word::Extend(span), Phase::Up { since, ready: None }) => {
                    let until = now.since(since).saturating_add(span.min(EXTEND_MAX));
                    self.told.extended = Some(self.told.extended.map_or(until, |known| known.max(until)));
                }
                (Word::Extend(span), Phase::Stopping { kill_at, killed: None }) => {
                    let kill_at = kill_at.max(now.after(span.min(EXTEND_MAX)));
                    self.phase = Phase::Stopping { kill_at, killed: None };
                }
                // Whoever carries this out has taken it already: both must mean the same process, wherever this stands.
                (Word::MainPid(pid), _) if self.pid.is_some() => self.pid = Some(pid),
                // Stray, repeated, or too late.
                (_, _) => {}
            }
        }
        actions
    }

    /// Time has passed while it was up: only its watchdog waits for that.
    pub(super) fn fell_silent(&mut self, context: Context) -> Vec<Action> {
        let Some((span, heard)) = self.told.watchdog else { return Vec::new() };
        if self.spec.policy.watchdog.is_none() {
            // Nobody asks for it any more.
            self.told.watchdog = None;
            return Vec::new();
        }
        let now = context.now.moment;
        let Some(silent) = heard.map(|heard| now.since(heard)).filter(|silent| *silent >= span) else { return Vec::new() };
        if silent - span > NOTICED_LATE {
            self.told.watch_from(now);
            return Vec::new();
        }
        self.end_silent(format!("its watchdog heard nothing for {} ms", span.as_millis()), context)
    }

    fn end_silent(&mut self, why: String, context: Context) -> Vec<Action> {
        let Phase::Up { ready, .. } = self.phase else { return Vec::new() };
        let ready = ready.filter(|_| self.spec.policy.kind == ServiceKind::Daemon);
        self.next = self.retry(ready, context);
        self.pending = None;
        self.trouble = why;
        self.told.silent = true;
        let kill_at = context.now.moment.after(self.spec.policy.stop_timeout);
        self.phase = Phase::Stopping { kill_at, killed: None };
        vec![Action::Signal(SILENT_SIGNAL)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::state::Event;
    use crate::model::{Backoff, Digest, Exit, Launch, MountMode, Now, Ready, ServiceSpec, ServiceState, Timestamp};

    fn at(ms: u64) -> Context {
        Context { now: Now { moment: Moment(ms), wall: Timestamp(ms) }, roll: 0 }
    }

    /// A service that speaks for itself, at time 0 in its program.
    fn up(watchdog: Option<Duration>) -> Service {
        let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(9), reset_after: Duration::from_secs(60) };
        let policy = Policy {
            kind: ServiceKind::Daemon,
            stop_signal: Signal::TERM,
            stop_timeout: Duration::from_secs(8),
            backoff,
            ready_when_started: false,
            ready: Ready::Notify,
            watchdog,
            logs: crate::model::LogPolicy::default(),
            starts_when_asked: false,
        };
        let spec = ServiceSpec {
            group: "web".parse().unwrap(),
            revision: Digest::of(b"1"),
            release: "v1.0.0".to_owned(),
            launch: Launch::default(),
            policy,
            view: None,
        };
        let mut service = Service::new(spec.clone(), None, 0, at(0).now);
        service.on(Event::Run(Box::new(spec)), at(0));
        service.on(Event::Spawned { pid: 7 }, at(0));
        service.on(Event::Started { mode: MountMode::Symlink, publication: None, notes: String::new() }, at(0));
        service
    }

    fn tell(service: &mut Service, ms: u64, words: &[Word]) -> Vec<Action> {
        service.on(Event::Told(words.to_vec()), at(ms))
    }

    #[test]
    fn it_is_ready_once_it_says_so_and_reloads_until_it_says_so_again() {
        let mut service = up(None);
        tell(&mut service, 1, &[Word::Reloading]);
        assert_eq!(service.state(), ServiceState::Starting);
        tell(&mut service, 2, &[Word::Ready]);
        assert_eq!(service.state(), ServiceState::Running);
        tell(&mut service, 3, &[Word::Ready]);
        assert_eq!(service.state(), ServiceState::Running);
        tell(&mut service, 4, &[Word::Reloading]);
        assert_eq!(service.state(), ServiceState::Reloading);
        tell(&mut service, 5, &[Word::Ready, Word::Status("loaded".to_owned())]);
        assert_eq!(service.state(), ServiceState::Running);
        assert_eq!(service.report(at(5).now).message, "it says: loaded");
    }

    #[test]
    fn words_of_one_that_is_gone_or_being_stopped_do_not_bring_it_back() {
        let mut service = up(None);
        service.on(Event::Stop, at(1));
        assert_eq!(tell(&mut service, 2, &[Word::Ready, Word::Reloading, Word::WatchdogTrigger]), []);
        assert_eq!(service.state(), ServiceState::Stopping);
        service.on(Event::Exited(Exit::Code(0)), at(3));
        service.on(Event::Cleared, at(3));
        tell(&mut service, 4, &[Word::Ready, Word::MainPid(9), Word::Extend(EXTEND_MAX)]);
        assert_eq!((service.state(), service.pid()), (ServiceState::Stopped, None));
    }

    #[test]
    fn a_silent_one_is_ended_and_started_again_and_says_why() {
        let mut service = up(Some(Duration::from_secs(2)));
        // Not before it is ready.
        assert_eq!(service.deadline(), None);
        tell(&mut service, 100, &[Word::Ready]);
        tell(&mut service, 1_500, &[Word::Watchdog]);
        assert_eq!(service.on(Event::Tick, at(3_499)), []);
        assert_eq!(service.deadline(), Some(Moment(3_500)));
        assert_eq!(service.on(Event::Tick, at(3_500)), [Action::Signal(SILENT_SIGNAL)]);
        service.on(Event::Exited(Exit::Signal(SILENT_SIGNAL)), at(3_600));
        assert_eq!(service.on(Event::Cleared, at(3_600)), [Action::Spawn]);
        assert!(service.report(at(3_600).now).message.contains("heard nothing for 2000 ms"));
        assert_eq!(service.report(at(3_600).now).restarts, 1);
    }

    #[test]
    fn a_silence_that_is_noticed_late_is_the_keepers_own() {
        let mut service = up(Some(Duration::from_secs(2)));
        tell(&mut service, 0, &[Word::Ready]);
        assert_eq!(service.on(Event::Tick, at(60_000)), []);
        assert_eq!((service.state(), service.deadline()), (ServiceState::Running, Some(Moment(62_000))));
        assert_eq!(service.on(Event::Tick, at(62_010)), [Action::Signal(SILENT_SIGNAL)]);
    }

    #[test]
    fn a_successor_knows_what_was_said_and_what_was_promised() {
        use crate::keeper::wire::{Fields, Writer};
        let mut service = up(Some(Duration::from_secs(2)));
        tell(&mut service, 0, &[Word::Extend(Duration::from_secs(90))]);
        tell(&mut service, 1, &[Word::Ready]);
        tell(&mut service, 2, &[Word::Reloading, Word::Status("half way".to_owned())]);
        // From now on nobody asks for a watchdog any more; who runs was promised that it must speak.
        let policy = Policy { watchdog: None, ..service.spec.policy.clone() };
        service.on(Event::Amend { revision: Digest::of(b"2"), release: String::new(), policy }, at(3));
        let mut writer = Writer::default();
        service.save(&mut writer);
        let bytes = writer.finish();
        let mut next = Service::restore(Fields::parse(&bytes).unwrap(), at(9_000).now).unwrap();
        assert_eq!(next.take_up(Some((7, MountMode::Symlink)), at(9_000)), None);
        assert_eq!(next.report(at(9_000).now), service.report(at(9_000).now));
        // Silence counts from when it can be heard again.
        assert_eq!(next.deadline(), None);
        next.heard_again(Moment(9_000));
        assert_eq!(next.deadline(), Some(Moment(11_000)));
        // The other way round: who was promised nothing is not expected to speak.
        let mut service = up(None);
        tell(&mut service, 0, &[Word::Ready]);
        let policy = Policy { watchdog: Some(Duration::from_secs(2)), ..service.spec.policy.clone() };
        service.on(Event::Amend { revision: Digest::of(b"2"), release: String::new(), policy }, at(3));
        let mut writer = Writer::default();
        service.save(&mut writer);
        let bytes = writer.finish();
        let mut next = Service::restore(Fields::parse(&bytes).unwrap(), at(4).now).unwrap();
        next.heard_again(Moment(9_000));
        assert_eq!(next.deadline(), None);
    }

    #[test]
    fn a_watchdog_that_is_no_longer_asked_for_ends_nothing() {
        let mut service = up(Some(Duration::from_secs(2)));
        tell(&mut service, 0, &[Word::Ready]);
        let policy = Policy { watchdog: None, ..service.spec.policy.clone() };
        service.on(Event::Amend { revision: Digest::of(b"2"), release: String::new(), policy }, at(1));
        assert_eq!(service.on(Event::Tick, at(5_000)), []);
        assert_eq!((service.state(), service.deadline()), (ServiceState::Running, None));
    }

    #[test]
    fn more_time_counts_from_the_start_and_never_shortens() {
        let mut service = up(None);
        tell(&mut service, 5_000, &[Word::Extend(Duration::from_secs(10))]);
        tell(&mut service, 6_000, &[Word::Extend(Duration::from_secs(1))]);
        assert_eq!(service.report(at(6_000).now).start_extended, Some(Duration::from_secs(15)));
        tell(&mut service, 6_000, &[Word::Extend(Duration::MAX)]);
        assert_eq!(service.report(at(6_000).now).start_extended, Some(EXTEND_MAX + Duration::from_secs(6)));
        service.on(Event::Stop, at(7_000));
        tell(&mut service, 8_000, &[Word::Extend(Duration::from_secs(60))]);
        assert_eq!(service.deadline(), Some(Moment(68_000)));
    }

    #[test]
    fn another_main_process_is_taken_wherever_there_is_one() {
        let mut service = up(None);
        service.on(Event::Restart, at(1));
        service.on(Event::Exited(Exit::Code(0)), at(2));
        service.on(Event::Cleared, at(2));
        service.on(Event::Spawned { pid: 8 }, at(2));
        // Heard before its start was: whoever carries it out has taken it.
        tell(&mut service, 3, &[Word::MainPid(9)]);
        assert_eq!(service.pid(), Some(9));
    }

    #[test]
    fn a_flood_of_statuses_is_not_passed_on_word_by_word() {
        let mut service = up(None);
        tell(&mut service, 0, &[Word::Status("one".to_owned())]);
        tell(&mut service, 50, &[Word::Status("two".to_owned())]);
        assert_eq!(service.report(at(50).now).message, "it says: one");
        tell(&mut service, 60, &[Word::Status("up".to_owned()), Word::Ready]);
        assert_eq!(service.report(at(60).now).message, "it says: up");
    }
}
