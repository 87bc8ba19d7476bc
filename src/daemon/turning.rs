//! The loop: take in what happened, plan, begin, tell. Everything that happens passes through here in one order.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use super::clock::now;
use super::context::Context;
use super::handle::{Asked, Request, Shown};
use super::narrate::{Happened, narrate};
use super::pace::{Pace, says_the_same};
use super::wire::{Identity, status};
use super::{answers, effects, layers};
use crate::api::{ApiError, Command, Failure, ServiceVerb, wire};
use crate::keeper::wire::Request as ToKeeper;
use crate::model::{GroupName, HookKind, Moment, Now, Reason, Refusal, Suspension, Timestamp};
use crate::plan::{Core, Event, Key, Lane, Outcome, Overview, Plan, Wanted, explain};
use crate::process::News;

/// Events that are taken in before the next plan, so that a flood of them leads to few plans.
const EVENTS_PER_TURN_MAX: usize = 512;

/// The wall clock may be set while a hold with an end is on: looked at again after so long.
const HOLD_LOOK_MAX: Duration = Duration::from_secs(60);

/// The loop's state.
pub(super) struct Turning {
    pub(super) context: Arc<Context>,
    pub(super) core: Core,
    pub(super) shown: Arc<Shown>,
    pub(super) identity: Identity,
    pub(super) verified: bool,
    pub(super) overview: Overview,
    /// What ran before this process began is known again: from then on, changes are told as events.
    pub(super) awake: bool,
    pub(super) pace: Pace,
    pub(super) keeper_pid: Option<u32>,
    /// Whether a group wanted a container when last looked at.
    pub(super) containers_wanted: Option<bool>,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) events_in: mpsc::UnboundedSender<Event>,
    pub(super) news: mpsc::Receiver<News>,
    pub(super) requests: mpsc::Receiver<Request>,
    /// Serving the API; ended before the keeper hears that all is done, so that no socket stays.
    pub(super) serving: tokio::task::JoinSet<()>,
    pub(super) signals: Signals,
}

/// Signals to this process alone. SIGINT from a terminal reaches every process in it: what it means is the keeper's to say.
pub(super) struct Signals {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The keeper asked for it; services are stopped and links are gone.
    Finished,
    /// The keeper is gone.
    KeeperLost,
    /// Somebody ended this process alone; the keeper starts another.
    Terminated,
}

impl Turning {
    /// Runs until the keeper ends it.
    pub(super) async fn run(&mut self) -> Ending {
        loop {
            let hold = self.end_holds().await;
            let plan = self.turn();
            let due = [plan.wake_at, hold].into_iter().flatten().min();
            if let Some(ending) = self.next(due).await {
                return ending;
            }
        }
    }

    /// Waits for the next thing to happen and takes it in, with all that happened beside it.
    async fn next(&mut self, wake_at: Option<Moment>) -> Option<Ending> {
        let wait = wake_at.map(|at| Duration::from_millis(at.0.saturating_sub(now().moment.0)));
        tokio::select! {
            event = self.events.recv() => {
                if let Some(event) = event {
                    self.observe(event);
                }
            }
            news = self.news.recv() => return self.hear(news),
            request = self.requests.recv() => {
                if let Some(request) = request {
                    self.request(request).await;
                }
            }
            _ = self.signals.terminate.recv() => return Some(Ending::Terminated),
            _ = self.signals.interrupt.recv() => {}
            () = pause(wait), if wait.is_some() => {}
        }
        for _ in 0..EVENTS_PER_TURN_MAX {
            match self.events.try_recv() {
                Ok(event) => self.observe(event),
                Err(_) => break,
            }
        }
        for _ in 0..EVENTS_PER_TURN_MAX {
            match self.news.try_recv() {
                Ok(news) => {
                    if let Some(ending) = self.hear(Some(news)) {
                        return Some(ending);
                    }
                }
                Err(_) => break,
            }
        }
        None
    }

    /// What starting up had to mend is told as an event.
    pub(super) fn tell_notes(&self, notes: Vec<String>) {
        for note in notes {
            self.tell(Happened::new(
                wire::EventKind::Warning,
                Reason::StateRestored,
                self.identity.supervisor.name.clone(),
                note,
            ));
        }
    }

    /// The doors are open: the keeper tells whoever started it.
    pub(super) fn tell_serving(&self) {
        let keeper = self.context.keeper.clone();
        // A keeper of an earlier version does not know the word; nothing depends on it here.
        tokio::spawn(async move { keeper.request(ToKeeper::Serving).await });
    }

    pub(super) fn observe(&mut self, event: Event) {
        self.pace.note(&event, &self.core);
        if let Event::Done { key: key @ Key::Group(group, Lane::Hook(kind)), outcome, .. } = &event {
            self.tell_hook(key, group, *kind, outcome);
        }
        if let Event::LayersHint(group) = event {
            let layers = layers::read(&self.context, &group);
            self.core.observe(Event::LayersChanged { group, layers }, now());
            return;
        }
        if let Event::Done { outcome: Outcome::Examined { result: Ok(release), .. }, .. } = &event {
            self.read_layers(&release.clone());
        }
        if let Event::Done { outcome: Outcome::Accepted { release, .. }, .. } = &event {
            let message = format!("accepted, commit {}", release.commit.short());
            self.tell(Happened::new(wire::EventKind::Normal, Reason::Fetching, release.tag.to_string(), message));
        }
        if let Event::Done { outcome: Outcome::Applied { tag }, .. } = &event {
            self.tell(Happened::new(
                wire::EventKind::Normal,
                Reason::Converged,
                tag.name.to_string(),
                "applied on this supervisor",
            ));
        }
        self.core.observe(event, now());
    }

    /// A hook that failed is told as an event, once for each way to fail.
    fn tell_hook(&self, key: &Key, group: &GroupName, kind: HookKind, outcome: &Outcome) {
        let said = if let Outcome::Called { answer, .. } = outcome {
            answer.trouble().map(|trouble| (Reason::HookFailed, trouble.message))
        } else if let Outcome::Failed(failure) = outcome {
            let again = self.core.observed().failure(key).is_some_and(|before| before.message == failure.message);
            (!again).then(|| (failure.reason, failure.message.clone()))
        } else {
            None
        };
        if let Some((reason, message)) = said {
            let message = format!("hook `{}`: {message}", kind.name());
            self.tell(Happened::new(wire::EventKind::Warning, reason, group.to_string(), message));
        }
    }

    /// Layers of groups that a release brings are read before they are rendered for good.
    fn read_layers(&mut self, release: &crate::model::Release) {
        for group in release.groups.values() {
            if !self.core.desired().is_placed(group) {
                continue;
            }
            let layers = layers::read(&self.context, &group.name);
            if layers != crate::plan::Layers::default() {
                self.core.observe(Event::LayersChanged { group: group.name.clone(), layers }, now());
            }
        }
    }

    fn hear(&mut self, news: Option<News>) -> Option<Ending> {
        self.pace.loud = true;
        match news {
            Some(News::Hello(hello)) => {
                self.keeper_pid = Some(hello.keeper_pid);
                self.core.observe(Event::KeeperSpeaks(hello.minor), now());
            }
            Some(News::Report(report)) => self.core.observe(Event::Service(report), now()),
            Some(News::Gone(group)) => self.core.observe(Event::ServiceGone(group), now()),
            Some(News::SnapshotEnd) => self.core.observe(Event::KeeperReady, now()),
            Some(News::Shutdown) => return Some(Ending::Finished),
            Some(News::Lost) | None => return Some(Ending::KeeperLost),
        }
        None
    }

    /// Plans, begins every action, and shows how things stand.
    fn turn(&mut self) -> Plan {
        let at = now();
        let mut plan = self.core.plan(at);
        self.want_containers();
        let converged = plan.is_converged();
        for (key, action) in std::mem::take(&mut plan.actions) {
            tracing::debug!(?key, action = action.name(), "begin");
            self.pace.rested &= action.is_routine();
            let attempt = self.core.begin(&key, &action);
            effects::start(&self.context, key, attempt, action, at.wall, &self.events_in);
        }
        let (show, later) = self.pace.show(at.moment, !self.awake || !says_the_same(&plan, &self.overview));
        if show {
            self.show(&plan, at);
        }
        plan.wake_at = plan.wake_at.into_iter().chain(later).min();
        if converged && !self.pace.rested && self.core.observed().busy().next().is_none() {
            self.pace.rested = true;
            crate::sys::memory::give_back();
        }
        plan
    }

    /// Tells what is new, and shows how things stand.
    fn show(&mut self, plan: &Plan, at: Now) {
        let overview = explain(&self.core, plan, &self.overview, self.verified, at);
        self.awake = self.awake || self.knows_all();
        if self.awake {
            for happened in narrate(&self.overview, &overview) {
                self.tell(happened);
            }
            self.remember_refused(&overview);
        }
        self.overview = overview;
        self.identity.supervisor.hook_host_pid = self.context.hooks.host_pid();
        self.identity.hooks_lack = self.context.hooks.lacks().join("; ");
        self.shown.set(status(&self.identity, self.keeper_pid, &self.core, &self.overview));
    }

    /// An engine that is away is looked for only where somebody needs it.
    fn want_containers(&mut self) {
        let is_container =
            |wanted: &Arc<Wanted>| wanted.group.service.as_ref().is_some_and(|service| service.container.is_some());
        let wanted = self.core.desired().groups.values().any(is_container);
        if self.containers_wanted != Some(wanted) {
            self.containers_wanted = Some(wanted);
            self.context.containers.want(wanted);
        }
    }

    /// Whether what ran before this process began is known again; until then nothing is news.
    fn knows_all(&self) -> bool {
        let observed = self.core.observed();
        let source = &observed.source;
        let restored = self.core.desired().release.is_some();
        let looked_at = |(name, wanted): (&GroupName, &Arc<Wanted>)| {
            let staged = observed.groups.get(name).and_then(|facts| facts.staged.as_ref());
            let failed = observed.failure(&Key::Group(name.clone(), Lane::Publication)).is_some();
            failed || staged.is_some_and(|staged| staged.inputs == wanted.inputs)
        };
        let groups = &self.core.desired().groups;
        observed.keeper_ready
            && (source.accepted.is_none() || (restored && groups.iter().all(looked_at)) || !source.postponed.is_empty())
    }

    /// Refused tags are kept, so that a restart does not tell of them as news.
    fn remember_refused(&self, overview: &Overview) {
        if overview.refused == self.overview.refused {
            return;
        }
        let (context, refused) = (self.context.clone(), overview.refused.clone());
        tokio::task::spawn_blocking(move || {
            let kept = context.remember(|state| {
                state.refused.clear();
                state.judged_by = Some(context.judge);
                for tag in refused {
                    let refusal = Refusal { reason: tag.reason, message: tag.message };
                    state.refuse(crate::store::Refused {
                        tag: tag.tag.name,
                        tag_object: tag.tag.object,
                        refusal,
                        since: tag.since,
                    });
                }
            });
            if let Err(error) = kept {
                tracing::warn!(error = effects::chain(&error), "refused tags are told of again after a restart");
            }
        });
    }

    fn tell(&self, happened: Happened) {
        let kind = match happened.kind {
            wire::EventKind::Normal => "Normal",
            wire::EventKind::Warning => "Warning",
        };
        let new = crate::store::NewEvent {
            time: now().wall,
            kind,
            reason: happened.reason,
            object: &happened.object,
            message: &happened.message,
        };
        tracing::info!(object = happened.object, reason = ?happened.reason, "{}", happened.message);
        match self.shown.log.append(new) {
            // Without a reader there is nobody to tell.
            Ok(event) => drop(wire_event(event).map(|event| self.shown.events.send(event))),
            Err(error) => tracing::warn!(error = effects::chain(&error), "an event could not be written down"),
        }
    }

    async fn request(&mut self, request: Request) {
        match request {
            Request::Facts(answer) => {
                // The asker may have gone.
                let _ = answer.send(answers::Facts { core: self.core.clone(), overview: self.overview.clone() });
            }
            Request::Command(asked) => {
                let Asked { command, caller, answer } = asked;
                let result = self.command(command, &caller.to_string()).await;
                let _ = answer.send(result);
            }
        }
    }

    async fn command(&mut self, command: Command, who: &str) -> Result<(), ApiError> {
        self.pace.loud = true;
        let (group, verb, reason, until) = match command {
            Command::Poll => {
                self.core.observe(Event::LookNow, now());
                return Ok(());
            }
            Command::Service { group, verb, reason, until } => (group, verb, reason, until),
        };
        if self.core.desired().groups.get(&group).is_none_or(|wanted| wanted.group.service.is_none()) {
            return Err(ApiError::new(Failure::Conflict, "NoService", format!("{group} runs no service here")));
        }
        let words = reason.unwrap_or_else(|| "no reason given".to_owned());
        let message = format!("{} by {who}: {words}", verb.name());
        self.tell(Happened::new(wire::EventKind::Normal, Reason::StoppedByOperator, group.to_string(), message));
        match verb {
            ServiceVerb::Stop => self.suspend(&group, Some((who, words, until))).await,
            ServiceVerb::Start => self.suspend(&group, None).await,
            ServiceVerb::Restart => {
                self.core.observe(Event::RestartAsked(group), now());
                Ok(())
            }
        }
    }

    /// Ends holds whose time is over; says when the next one's will be.
    async fn end_holds(&mut self) -> Option<Moment> {
        let at = now();
        let holds = self.core.suspended().iter().filter_map(|(group, hold)| Some((group.clone(), hold.until?)));
        let (over, left): (Vec<_>, Vec<_>) = holds.partition(|(_, until)| *until <= at.wall);
        for (group, _) in over {
            match self.suspend(&group, None).await {
                Ok(()) => {
                    let message = "the time of its stop is over: started again";
                    self.tell(Happened::new(wire::EventKind::Normal, Reason::Starting, group.to_string(), message));
                }
                Err(error) => tracing::warn!(%group, %error, "its stop goes on"),
            }
        }
        let wait = |until: Timestamp| Duration::from_millis(until.0.saturating_sub(at.wall.0)).min(HOLD_LOOK_MAX);
        left.into_iter().map(|(_, until)| at.moment.after(wait(until))).min()
    }

    /// Written down before it is followed: an operator's word outlives this process.
    async fn suspend(&mut self, group: &GroupName, hold: Option<(&str, String, Option<Timestamp>)>) -> Result<(), ApiError> {
        let revision = self.core.desired().groups.get(group).map(|wanted| wanted.group.revision);
        let suspension =
            hold.map(|(who, reason, until)| Suspension { who: who.to_owned(), reason, since: now().wall, until, revision });
        let (context, name, kept) = (self.context.clone(), group.clone(), suspension.clone());
        let recorded = tokio::task::spawn_blocking(move || {
            context.remember(|state| match kept {
                Some(hold) => drop(state.suspended.insert(name, hold)),
                None => drop(state.suspended.remove(&name)),
            })
        });
        let recorded =
            recorded.await.map_err(|error| error.to_string()).and_then(|done| done.map_err(|error| effects::chain(&error)));
        recorded.map_err(|error| ApiError::new(Failure::Internal, "NotRecorded", format!("{error}; nothing was changed")))?;
        self.pace.loud = true;
        self.core.observe(Event::Suspended { group: group.clone(), suspension }, now());
        Ok(())
    }
}

async fn pause(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// A kept event as the API gives it; `None` where another version wrote it with a reason that this one does not know.
pub(super) fn wire_event(event: crate::store::Event) -> Option<wire::Event> {
    let kind = if event.kind == "Warning" { wire::EventKind::Warning } else { wire::EventKind::Normal };
    let reason = serde_json::from_value(serde_json::Value::from(event.reason)).ok()?;
    Some(wire::Event { id: event.id, time: event.time, kind, reason, object: event.object, message: event.message })
}
