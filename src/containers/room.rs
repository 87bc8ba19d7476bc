//! The task that owns all that is known of containers: orders, the engine's events and the ends of jobs come in one order.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::engine::{Container, Engine};
use super::entry::Entry;
use super::jobs::{self, Done};
use super::{Answer, News, Order, Owned, Setup, body, chain, events, labels, logs};
use crate::keeper::state::{Action, Context, Event, Phase, Service};
use crate::model::{Exit, GroupName, Moment, MountMode, Now, ServiceSpec};

/// First and longest delay between two looks for an engine that is away.
const LOOK_MIN: Duration = Duration::from_millis(200);
const LOOK_MAX: Duration = Duration::from_secs(5);

/// What comes back from a task of the room's own.
pub(super) enum Message {
    /// The engine answers, and these are ours.
    Connected(Vec<Container>),
    /// It does not (any more).
    Lost(String),
    /// A container has ended.
    Died { group: GroupName, id: String, exit: Exit },
    /// One ran out of memory.
    OutOfMemory { group: GroupName, id: String },
    /// A job has ended.
    Done(GroupName, Done),
    /// An image was fetched, or not.
    Pulled { group: GroupName, image: String, result: Result<(), String> },
}

/// Whether the engine is there.
enum Link {
    Away { look_at: Instant, tries: u32 },
    Connecting { tries: u32 },
    Ready,
}

pub(super) struct Room {
    setup: Setup,
    data_dir: String,
    engine: Engine,
    owned: Owned,
    news: Box<dyn Fn(News) + Send>,
    entries: BTreeMap<GroupName, Entry>,
    link: Link,
    wanted: bool,
    /// What was said last of an engine that is away.
    why: String,
    stopping: Option<oneshot::Sender<()>>,
    messages: mpsc::UnboundedSender<Message>,
    inbox: Option<mpsc::UnboundedReceiver<Message>>,
}

impl Room {
    pub(super) fn new(setup: Setup, engine: Engine, owned: Owned, news: Box<dyn Fn(News) + Send>) -> Self {
        let (messages, inbox) = mpsc::unbounded_channel();
        Self {
            data_dir: setup.data_dir.display().to_string(),
            setup,
            engine,
            owned,
            news,
            entries: BTreeMap::new(),
            link: Link::Away { look_at: Instant::now(), tries: 0 },
            // One look in any case: an earlier supervisor may have left some.
            wanted: true,
            why: String::new(),
            stopping: None,
            messages,
            inbox: Some(inbox),
        }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<(Order, Option<Answer>)>) {
        let Some(mut inbox) = self.inbox.take() else { return };
        loop {
            self.look();
            self.tick();
            self.tell();
            let due = self.due();
            let pause = tokio::time::sleep_until(due.unwrap_or_else(Instant::now));
            tokio::select! {
                order = orders.recv() => match order {
                    Some((order, answer)) => {
                        let result = self.order(order);
                        if let Some(answer) = answer {
                            // Whoever asked may have stopped waiting.
                            let _ = answer.send(result);
                        }
                    }
                    None => return,
                },
                Some(message) = inbox.recv() => self.hear(message),
                () = pause, if due.is_some() => {}
            }
        }
    }

    fn now(&self) -> Now {
        (self.setup.clock)()
    }

    fn context(&self) -> Context {
        let mut roll = [0; 4];
        // Without randomness, restarts fall together; that is all.
        let _ = rustix::rand::getrandom(&mut roll, rustix::rand::GetRandomFlags::NONBLOCK);
        Context { now: self.now(), roll: u32::from_ne_bytes(roll) }
    }

    /// Looks for the engine where it is due.
    fn look(&mut self) {
        let Link::Away { look_at, tries } = self.link else { return };
        if (self.wanted || !self.entries.is_empty()) && look_at <= Instant::now() {
            self.link = Link::Connecting { tries };
            tokio::spawn(events::follow(self.engine.clone(), self.data_dir.clone(), self.messages.clone()));
        }
    }

    /// When time itself is the next event.
    fn due(&self) -> Option<Instant> {
        match self.link {
            Link::Away { look_at, .. } => (self.wanted || !self.entries.is_empty()).then_some(look_at),
            Link::Connecting { .. } => None,
            Link::Ready => {
                let deadline = |entry: &Entry| entry.service.deadline().filter(|_| !entry.busy);
                let next: Moment = self.entries.values().filter_map(deadline).min()?;
                Some(Instant::now() + next.since(self.now().moment))
            }
        }
    }

    /// Lets time pass for those that wait for it. While the engine is away nothing could be done anyway.
    fn tick(&mut self) {
        if !matches!(self.link, Link::Ready) {
            return;
        }
        let now = self.now().moment;
        let late = |entry: &Entry| !entry.busy && entry.service.deadline().is_some_and(|deadline| deadline <= now);
        let late: Vec<GroupName> = self.entries.iter().filter(|(_, entry)| late(entry)).map(|(group, _)| group.clone()).collect();
        for group in late {
            self.feed(&group, Event::Tick);
        }
    }

    /// Tells what has changed, and ends a wait for the end of all.
    fn tell(&mut self) {
        let now = self.now();
        let mut owned = BTreeMap::new();
        for (group, entry) in &mut self.entries {
            let id = entry.id.clone().filter(|_| matches!(entry.service.phase, Phase::Up { .. }));
            owned.insert(group.clone(), id);
            if let Some(report) = entry.news(now) {
                (self.news)(News::Report(Box::new(report)));
            }
        }
        *self.owned.lock().unwrap_or_else(PoisonError::into_inner) = owned;
        let ready = matches!(self.link, Link::Ready);
        if self.stopping.is_some() && (!ready || self.entries.values().all(|entry| entry.service.at_rest())) {
            self.stopping.take().map(|stopped| stopped.send(()));
        }
    }

    fn order(&mut self, order: Order) -> Result<(), String> {
        match order {
            Order::Run { spec, restart } => {
                let group = spec.group.clone();
                self.take_spec(&spec);
                self.feed(&group, Event::Run(spec));
                if restart {
                    self.feed(&group, Event::Restart);
                }
            }
            Order::Amend { spec } => {
                let ServiceSpec { group, revision, release, policy, .. } = spec.as_ref().clone();
                self.take_spec(&spec);
                self.feed(&group, Event::Amend { revision, release, policy });
                // One that was taken up again does not know yet what to start the next time.
                let up = |entry: &Entry| matches!(entry.service.phase, Phase::Up { .. } | Phase::Spawning { .. });
                if self.entries.get(&group).is_some_and(up) {
                    self.feed(&group, Event::Run(spec));
                }
            }
            Order::Restart { group } => return self.ask(&group, Event::Restart),
            Order::MarkReady { group, incarnation } => return self.ask(&group, Event::MarkReady { incarnation }),
            Order::Stop { group } => return self.ask(&group, Event::Stop),
            Order::Forget { group } => return self.forget(group),
            Order::Want(wanted) => self.wanted = wanted,
            Order::StopAll(stopped) => {
                let groups: Vec<GroupName> = self.entries.keys().cloned().collect();
                for group in groups {
                    self.feed(&group, Event::Stop);
                }
                self.stopping = Some(stopped);
            }
        }
        Ok(())
    }

    fn take_spec(&mut self, spec: &ServiceSpec) {
        let now = self.now();
        let fresh = || Entry::new(Service::new(spec.clone(), None, 0, now), true);
        let entry = self.entries.entry(spec.group.clone()).or_insert_with(fresh);
        entry.known = true;
        entry.kept.set(spec);
    }

    fn ask(&mut self, group: &GroupName, event: Event) -> Result<(), String> {
        if !self.entries.contains_key(group) {
            return Err(format!("no container of {group} is known"));
        }
        self.feed(group, event);
        Ok(())
    }

    /// What it left behind is removed first; it is gone when that is done.
    fn forget(&mut self, group: GroupName) -> Result<(), String> {
        let Some(entry) = self.entries.get_mut(&group) else { return Ok(()) };
        if !entry.service.at_rest() {
            return Err(format!("the container of {group} is not at rest"));
        }
        if entry.id.is_some() {
            if !entry.busy {
                entry.todo.push_back(Action::Clear);
            }
            self.pump(&group);
            return Err(format!("the container of {group} is being removed"));
        }
        self.entries.remove(&group);
        (self.news)(News::Gone(group));
        Ok(())
    }

    /// Gives a service an event and begins what follows.
    fn feed(&mut self, group: &GroupName, event: Event) {
        let context = self.context();
        let Some(entry) = self.entries.get_mut(group) else { return };
        let actions = entry.service.on(event, context);
        entry.todo.extend(actions);
        self.pump(group);
    }

    /// Begins the next thing, unless one is under way.
    fn pump(&mut self, group: &GroupName) {
        loop {
            let Some(entry) = self.entries.get_mut(group).filter(|entry| !entry.busy) else { return };
            let Some(action) = entry.next() else { return };
            match action {
                Action::Spawn => self.spawn(group),
                Action::Signal(signal) => {
                    let id = entry.id.clone();
                    self.begin(group, async move |engine| jobs::signal(&engine, id.as_deref(), signal).await);
                }
                Action::Clear => {
                    let (name, logs) = (body::name(&self.data_dir, group), entry.logs.take());
                    // How it ended must be known to the next supervisor, too.
                    let stays = entry.service.ends_for_good();
                    self.begin(group, async move |engine| jobs::clear(&engine, &name, logs, stays).await);
                }
                // A bind is for a container's whole life: the plan asks for a new one instead.
                Action::Show(view, _) => {
                    let failed = Some("a container cannot be shown other files; it needs a new one".to_owned());
                    self.feed(group, Event::Shown { publication: view.publication, failed });
                }
            }
        }
    }

    fn begin<F>(&mut self, group: &GroupName, job: impl FnOnce(Engine) -> F)
    where
        F: Future<Output = Done> + Send + 'static,
    {
        if let Some(entry) = self.entries.get_mut(group) {
            entry.busy = true;
        }
        let (job, group, messages) = (job(self.engine.clone()), group.clone(), self.messages.clone());
        tokio::spawn(async move {
            let done = job.await;
            let _ = messages.send(Message::Done(group, done));
        });
    }

    fn spawn(&mut self, group: &GroupName) {
        let Some(entry) = self.entries.get_mut(group) else { return };
        let service = &entry.service;
        let body = body::of(&service.spec, &self.data_dir, service.incarnation, service.restarts());
        let Some(body) = body.filter(|_| entry.known) else {
            self.feed(group, Event::SpawnFailed { why: "it is not known yet what to start".to_owned() });
            return;
        };
        entry.publication = service.spec.view.as_ref().map(|view| view.publication);
        (entry.ended, entry.out_of_memory) = (None, false);
        let name = body::name(&self.data_dir, group);
        self.begin(group, async move |engine| jobs::spawn(&engine, &name, body).await);
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Connected(found) => self.connected(found),
            Message::Lost(why) => self.lost(why),
            Message::Died { group, id, exit } => self.died(&group, id, exit),
            Message::OutOfMemory { group, id } => {
                let entry = self.entries.get_mut(&group);
                // The event may come before the answer to the start.
                if let Some(entry) = entry.filter(|entry| entry.id.is_none() || entry.id.as_ref() == Some(&id)) {
                    entry.out_of_memory = true;
                }
            }
            Message::Done(group, done) => self.done(&group, done),
            Message::Pulled { group, image, result } => self.pulled(&group, &image, result),
        }
    }

    fn died(&mut self, group: &GroupName, id: String, exit: Exit) {
        let Some(entry) = self.entries.get_mut(group) else { return };
        if entry.id.as_ref() != Some(&id) {
            // Before the answer to its start, or of one that is gone.
            entry.ended = Some((id, exit));
            return;
        }
        self.ended(group, exit);
    }

    fn ended(&mut self, group: &GroupName, exit: Exit) {
        let Some(entry) = self.entries.get_mut(group) else { return };
        let (Some(id), false, Phase::Up { .. }) = (entry.id.clone(), entry.known, entry.service.phase) else {
            self.feed(group, Event::Exited(exit));
            return;
        };
        // What is to be started now is the plan's to say.
        let exit_code = if let Exit::Code(code) = exit { code } else { -1 };
        let (labels, logs) = (std::mem::take(&mut entry.labels), entry.logs.take());
        self.take_up(Container { id, running: false, pid: None, exit_code, labels }, logs);
    }

    fn done(&mut self, group: &GroupName, done: Done) {
        let Some(entry) = self.entries.get_mut(group) else { return };
        entry.busy = false;
        match done {
            Done::Spawned(container) => self.spawned(group, container),
            Done::ImageMissing => self.image_missing(group),
            Done::SpawnFailed(error) => {
                self.feed(group, Event::SpawnFailed { why: chain(&error) });
            }
            Done::Signalled(Ok(())) => self.pump(group),
            Done::Signalled(Err(error)) | Done::ClearFailed(error) => {
                tracing::warn!(%group, error = chain(&error), "tried again");
                self.pump(group);
            }
            Done::Cleared(exit) => self.cleared(group, exit),
        }
    }

    fn spawned(&mut self, group: &GroupName, container: Container) {
        let Some(entry) = self.entries.get_mut(group) else { return };
        let output = entry.kept.follow(&self.engine, &container.id, &self.setup.logs, group, logs::From::Start);
        entry.id = Some(container.id.clone());
        entry.logs = Some(output);
        entry.pull_failed = None;
        let publication = entry.publication;
        let early = entry.ended.take().filter(|(id, _)| *id == container.id).map(|(_, exit)| exit);
        if let Some(pid) = container.pid {
            self.feed(group, Event::Spawned { pid });
        }
        self.feed(group, Event::Started { mode: MountMode::Namespace, publication, notes: String::new() });
        let ended = early.or_else(|| (!container.running).then_some(Exit::Code(container.exit_code)));
        if let Some(exit) = ended {
            self.feed(group, Event::Exited(exit));
        }
    }

    fn cleared(&mut self, group: &GroupName, exit: Option<Exit>) {
        let context = self.context();
        let Some(entry) = self.entries.get_mut(group) else { return };
        if !entry.service.ends_for_good() {
            entry.id = None;
        }
        // Nothing is left that a removal could be asked for, by this end or by earlier news of it.
        entry.todo.retain(|action| *action != Action::Clear);
        let mut actions = entry.service.on(Event::Exited(exit.unwrap_or(Exit::Unknown)), context);
        actions.retain(|action| *action != Action::Clear);
        entry.todo.extend(actions);
        self.feed(group, Event::Cleared);
    }

    fn image_missing(&mut self, group: &GroupName) {
        let Some(entry) = self.entries.get_mut(group) else { return };
        let image = entry.service.spec.launch.container.as_ref().map(|container| container.image.clone()).unwrap_or_default();
        let why = match &entry.pull_failed {
            Some(why) => format!("image `{image}` is not here and cannot be fetched: {why}"),
            None => format!("image `{image}` is not here yet and is being fetched"),
        };
        if !entry.pulling {
            entry.pulling = true;
            let (engine, messages, group) = (self.engine.clone(), self.messages.clone(), group.clone());
            tokio::spawn(async move {
                let result = engine.pull(&image).await.map_err(|error| chain(&error));
                let _ = messages.send(Message::Pulled { group, image, result });
            });
        }
        self.feed(group, Event::SpawnFailed { why });
    }

    fn pulled(&mut self, group: &GroupName, image: &str, result: Result<(), String>) {
        let Some(entry) = self.entries.get_mut(group) else { return };
        entry.pulling = false;
        entry.pull_failed = result.err();
        let wanted = entry.service.spec.launch.container.as_ref().is_some_and(|container| container.image == image);
        // What waits for it need not wait for its next try.
        if wanted && entry.pull_failed.is_none() && matches!(entry.service.phase, Phase::Backoff { .. }) {
            self.feed(group, Event::Restart);
        }
    }

    fn lost(&mut self, why: String) {
        let tries = match self.link {
            Link::Connecting { tries } => tries.saturating_add(1),
            Link::Away { .. } | Link::Ready => 0,
        };
        let wait = LOOK_MIN.saturating_mul(2u32.saturating_pow(tries)).min(LOOK_MAX);
        self.link = Link::Away { look_at: Instant::now() + wait, tries };
        if self.why != why || tries == 0 {
            self.why.clone_from(&why);
            (self.news)(News::Away(why));
        }
    }

    /// The engine answers (again): what runs is taken up, what ended meanwhile has ended now.
    fn connected(&mut self, found: Vec<Container>) {
        self.link = Link::Ready;
        self.why.clear();
        let mut missing: Vec<GroupName> =
            self.entries.iter().filter(|(_, entry)| entry.id.is_some()).map(|(group, _)| group.clone()).collect();
        for container in found {
            let group = container.label(labels::GROUP).and_then(|group| group.parse::<GroupName>().ok());
            let Some(group) = group else { continue };
            missing.retain(|known| *known != group);
            match self.entries.get_mut(&group) {
                Some(entry) if entry.id.as_ref() == Some(&container.id) => {
                    if !container.running {
                        self.ended(&group, Exit::Code(container.exit_code));
                    } else if entry.logs.as_ref().is_none_or(|logs| logs.is_finished()) {
                        let (from, folder) = (logs::From::Last, &self.setup.logs);
                        entry.logs = Some(entry.kept.follow(&self.engine, &container.id, folder, &group, from));
                    }
                }
                // Left over by a start whose answer was lost: the next start removes it, if there is to be one.
                Some(entry) => {
                    if entry.service.at_rest() && !entry.busy {
                        entry.id = Some(container.id);
                        entry.todo.push_back(Action::Clear);
                        self.pump(&group);
                    }
                }
                None => self.take_up(container, None),
            }
        }
        for group in missing {
            self.ended(&group, Exit::Unknown);
        }
        self.retry_now();
        self.tell();
        (self.news)(News::Ready);
    }

    /// What failed because the engine was away is tried again at once.
    fn retry_now(&mut self) {
        let waits = |entry: &Entry| !entry.busy && matches!(entry.service.phase, Phase::Backoff { .. });
        let waiting: Vec<GroupName> =
            self.entries.iter().filter(|(_, entry)| waits(entry)).map(|(group, _)| group.clone()).collect();
        for group in waiting {
            self.feed(&group, Event::Restart);
        }
    }

    /// A container that an earlier supervisor started, as it says itself.
    fn take_up(&mut self, container: Container, logs: Option<JoinHandle<()>>) {
        let Some((group, resumed)) = labels::resumed(&container) else { return };
        let mut entry = Entry::new(Service::resumed(resumed, self.now()), false);
        let (engine, folder) = (&self.engine, &self.setup.logs);
        let follow = || entry.kept.follow(engine, &container.id, folder, &group, logs::From::Last);
        entry.logs = Some(logs.unwrap_or_else(follow));
        (entry.id, entry.labels) = (Some(container.id), container.labels);
        self.entries.insert(group, entry);
    }
}
