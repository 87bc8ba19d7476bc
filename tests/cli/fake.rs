//! A supervisor of a few lines: canned facts for the program to show, commands kept for the test to look at.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tagfall::api::wire::{self, Cause, ConfigChange, ConfigValue, FileChange, GroupChange, PlanStep, ReleaseState};
use tagfall::api::{Answer, ApiError, Caller, Command, Daemon, Failure, LogQuery, Query};
use tagfall::model::{GroupName, LogLine, LogStream, ObjectId, Reason, TagName, Timestamp};
use tokio::sync::{broadcast, mpsc};

/// 2100-01-01: ahead of every clock, so that no output tells how long ago it was.
pub(crate) const THEN: Timestamp = Timestamp(4_102_444_800_000);
pub(crate) fn group(name: &str) -> GroupName {
    name.parse().unwrap()
}

fn tag(name: &str) -> TagName {
    TagName::new(name)
}

fn object(digit: u8) -> ObjectId {
    ObjectId::from_bytes([digit * 0x11; 20])
}

#[derive(Clone)]
pub(crate) struct Fake {
    status: Arc<wire::Status>,
    events: Arc<Mutex<Vec<wire::Event>>>,
    sender: broadcast::Sender<wire::Event>,
    pub(crate) commands: Arc<Mutex<Vec<(Command, Caller)>>>,
    /// How often the status was asked for.
    pub(crate) looks: Arc<AtomicUsize>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let status = serde_json::from_str(include_str!("status.json")).unwrap();
        let fake = Self {
            status: Arc::new(status),
            events: Arc::default(),
            sender: broadcast::channel(8).0,
            commands: Arc::default(),
            looks: Arc::default(),
        };
        fake.happen(wire::EventKind::Normal, Reason::Converged, "v1.4.1", "every group runs it");
        fake.happen(wire::EventKind::Warning, Reason::TagNameMismatch, "v9.9.9", "its object says `v1.0.0`");
        fake
    }

    pub(crate) fn happen(&self, kind: wire::EventKind, reason: Reason, about: &str, message: &str) {
        let mut events = self.events.lock().unwrap();
        let id = events.len() as u64 + 1;
        let event = wire::Event { id, time: THEN, kind, reason, object: about.to_owned(), message: message.to_owned() };
        events.push(event.clone());
        let _ = self.sender.send(event);
    }
}

fn why(name: GroupName) -> wire::Why {
    if name == group("docs") {
        return wire::Why { group: name, ready: true, because: Vec::new() };
    }
    let cause = |object: &str, reason, message: &str, because| Cause {
        object: object.to_owned(),
        reason,
        message: message.to_owned(),
        because,
    };
    let health = cause("redis.default", Reason::HealthCritical, "its check says: connection refused", Vec::new());
    let bind = cause("web.default", Reason::BindUnsatisfied, "for bind db: redis.default has no healthy member", vec![health]);
    wire::Why { group: name, ready: false, because: vec![bind] }
}

fn plan(asked: Option<TagName>) -> Result<wire::PlanView, ApiError> {
    let step = |name: &str, action: &str, message: &str| PlanStep {
        group: group(name),
        action: action.to_owned(),
        message: message.to_owned(),
    };
    let steps = match asked.as_ref().map(TagName::as_str) {
        None => Vec::new(),
        Some("v1.5.0") => vec![
            step("redis", "restart", "`maxmemory` of [config] changes, and its reload rule is `restart`"),
            step("web", "reload", "app.toml changes; told by SIGHUP"),
        ],
        Some("v0.1.0") => return Err(ApiError::new(Failure::Refused, "DowngradeRefused", "v0.1.0 is below the floor v1.4.1")),
        Some(_) => return Err(ApiError::new(Failure::NotFound, "TagNotKnown", "the source has no such tag")),
    };
    let to = asked.or(Some(tag("v1.4.1")));
    Ok(wire::PlanView { from: Some(tag("v1.4.1")), to, steps })
}

fn diff(from: TagName, to: Option<TagName>) -> wire::Diff {
    let to = to.unwrap_or_else(|| tag("v1.4.2"));
    let text = "@@ -1 +1 @@\n-port = 8080\n+port = 8081\n";
    let change = GroupChange {
        name: group("web"),
        change: "changed".to_owned(),
        config: vec![ConfigChange { key: "port".to_owned(), from: 8080.into(), to: 8081.into() }],
        files: vec![FileChange { path: "app.toml".to_owned(), change: "changed".to_owned(), diff: Some(text.to_owned()) }],
        other: vec!["[service] stop_timeout: 8s → 20s".to_owned()],
    };
    wire::Diff { groups: if from == to { Vec::new() } else { vec![change] }, from, to }
}

fn releases() -> Vec<wire::Release> {
    let release = |name: &str, state, reason: Option<Reason>, message: &str| wire::Release {
        tag: tag(name),
        tag_object: object(1),
        commit: reason.is_none().then(|| object(9)),
        state,
        reason,
        message: message.to_owned(),
        signers: Vec::new(),
        since: THEN,
    };
    vec![
        release("v9.9.9", ReleaseState::Refused, Some(Reason::TagNameMismatch), "its object says `v1.0.0`"),
        release("v1.4.2", ReleaseState::Accepted, None, ""),
        release("web/v1.4.1", ReleaseState::Running, None, ""),
    ]
}

fn trace(path: String) -> Result<wire::Trace, ApiError> {
    if !path.starts_with("/etc/redis/") {
        let words = format!("`{path}` lies below no mount of this supervisor");
        return Err(ApiError::new(Failure::NotFound, "NotPublished", words));
    }
    Ok(wire::Trace {
        path,
        group: group("redis"),
        file: "groups/redis/config/redis.conf.hbs".to_owned(),
        blob: object(3),
        template: true,
        publication: "dd".to_owned(),
        commit: object(9),
        tag: tag("v1.4.2"),
        tag_object: object(1),
        signers: vec!["ops@example.com".to_owned()],
        intact: false,
    })
}

impl Daemon for Fake {
    fn status(&self) -> Arc<wire::Status> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.status.clone()
    }

    fn events_since(&self, id: u64) -> Vec<wire::Event> {
        self.events.lock().unwrap().iter().filter(|event| event.id > id).cloned().collect()
    }

    fn last_event(&self) -> u64 {
        self.events.lock().unwrap().len() as u64
    }

    fn events(&self) -> broadcast::Receiver<wire::Event> {
        self.sender.subscribe()
    }

    async fn ask(&self, query: Query) -> Result<Answer, ApiError> {
        let value = |key: &str, value: serde_json::Value, origin: &str| ConfigValue {
            key: key.to_owned(),
            value,
            origin: origin.to_owned(),
        };
        Ok(match query {
            Query::Config(group) => Answer::Config(wire::ConfigView {
                group,
                values: vec![
                    value("port", 8080.into(), "groups/web/group.toml"),
                    value("tls.names", serde_json::json!(["a", "b"]), "rings/production.toml"),
                ],
            }),
            Query::Why(group) => Answer::Why(why(group)),
            Query::Plan(tag) => Answer::Plan(plan(tag)?),
            Query::Diff { from, to } => Answer::Diff(diff(from, to)),
            Query::Trace(path) => Answer::Trace(trace(path)?),
            Query::Releases => Answer::Releases(releases()),
            Query::Verify(tag) => Answer::Verification(verification(tag)),
        })
    }

    async fn logs(&self, query: LogQuery) -> Result<mpsc::Receiver<LogLine>, ApiError> {
        let line = |stream, text: &str| LogLine { time: THEN, stream, text: text.to_owned() };
        let kept = [
            line(LogStream::Stdout, "listening on 8080"),
            line(LogStream::Stderr, "ERROR no route"),
            line(LogStream::Stdout, "bye"),
        ];
        let (sender, receiver) = mpsc::channel(8);
        for line in query.select(kept) {
            sender.try_send(line).unwrap();
        }
        Ok(receiver)
    }

    async fn command(&self, command: Command, caller: Caller) -> Result<(), ApiError> {
        if matches!(&command, Command::Service { group: name, .. } if *name == group("docs")) {
            return Err(ApiError::new(Failure::Conflict, "NoService", "docs.default has no service: it only publishes"));
        }
        self.commands.lock().unwrap().push((command, caller));
        Ok(())
    }
}

/// One tag is signed, all others are not.
fn verification(tag: TagName) -> wire::Verification {
    let verified = tag.as_str() == "v1.4.2";
    wire::Verification {
        tag,
        tag_object: ObjectId::from_bytes([7; 20]),
        commit: verified.then(|| ObjectId::from_bytes([8; 20])),
        verified,
        signers: if verified { vec!["alice@example.com".to_owned()] } else { Vec::new() },
        reason: (!verified).then_some(Reason::InvalidTagSignature),
        message: if verified { String::new() } else { "it is not signed".to_owned() },
    }
}
