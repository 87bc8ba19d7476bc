//! The API as a client meets it: over a real unix socket in a folder of its own, against a daemon of a few lines.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc};

use super::*;
use crate::model::{LogLine, Reason, Timestamp};

/// Bound on everything that a test waits for.
const SOON: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Fake {
    status: Arc<wire::Status>,
    events: Arc<Mutex<Vec<wire::Event>>>,
    sender: broadcast::Sender<wire::Event>,
    commands: Arc<Mutex<Vec<(Command, Caller)>>>,
}

fn sample() -> wire::Status {
    serde_json::from_str(include_str!("../../tests/cli/status.json")).unwrap()
}

impl Fake {
    fn new() -> Self {
        Self { status: Arc::new(sample()), events: Arc::default(), sender: broadcast::channel(2).0, commands: Arc::default() }
    }

    fn happen(&self, message: &str) {
        let mut events = self.events.lock().unwrap();
        let event = wire::Event {
            id: events.len() as u64 + 1,
            time: Timestamp(0),
            kind: wire::EventKind::Normal,
            reason: Reason::Converged,
            object: "web.default".to_owned(),
            message: message.to_owned(),
        };
        events.push(event.clone());
        let _ = self.sender.send(event);
    }
}

impl Daemon for Fake {
    fn status(&self) -> Arc<wire::Status> {
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
        Err(ApiError::new(Failure::Conflict, "Test", format!("{query:?}")))
    }

    async fn logs(&self, _query: LogQuery) -> Result<mpsc::Receiver<LogLine>, ApiError> {
        Err(ApiError::new(Failure::Unavailable, "KeeperAway", "the keeper is away"))
    }

    async fn command(&self, command: Command, caller: Caller) -> Result<(), ApiError> {
        self.commands.lock().unwrap().push((command, caller));
        Ok(())
    }
}

struct Served {
    folder: tempfile::TempDir,
    fake: Fake,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let door = bind_unix(&folder.path().join("s.sock")).unwrap();
        let fake = Fake::new();
        let task = tokio::spawn(serve_unix(door, router(fake.clone(), Door::unix())));
        Self { folder, fake, task }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("s.sock")).await.unwrap()
    }

    /// Status line and body of one request, written by hand so that bad ones can be sent too.
    async fn request(&self, head: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect().await;
        let length = body.len();
        let text = format!("{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

#[test]
fn the_status_is_the_contracts_json_byte_for_byte() {
    let text = include_str!("../../tests/cli/status.json");
    let written = serde_json::to_value(sample()).unwrap();
    let read: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&written).unwrap(), serde_json::to_string(&read).unwrap());
}

#[tokio::test]
async fn bad_requests_get_a_named_json_error_and_nothing_happens() {
    let served = Served::start();
    let long = "x".repeat(20_000);
    for (head, body, code, reason) in [
        ("GET /v2/status", "", 404, "NoSuchPath"),
        ("DELETE /v1/status", "", 405, "MethodNotAllowed"),
        ("GET /v1/groups/wbe/why", "", 404, "GroupNotHere"),
        ("GET /v1/groups/a%2Fb/why", "", 404, "GroupNotHere"),
        ("GET /v1/diff", "", 400, "InvalidParameter"),
        ("GET /v1/plan?tags=v1", "", 400, "InvalidParameter"),
        ("GET /v1/events?since=yesterday", "", 400, "InvalidParameter"),
        ("POST /v1/groups/web/service/explode", "", 404, "NoSuchPath"),
        ("POST /v1/groups/web/service/stop", "{", 400, "InvalidBody"),
        ("POST /v1/groups/web/service/stop", r#"{"force": true}"#, 400, "InvalidBody"),
        ("POST /v1/groups/web/service/stop", &long, 413, "BodyTooLarge"),
        ("GET /v1/groups/web/logs", "", 503, "KeeperAway"),
        ("GET /v1/trace?path=/x", "", 409, "Test"),
    ] {
        let (found, answer) = served.request(head, body).await;
        let error: wire::ErrorBody = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{head}: {answer}"));
        assert_eq!((found, error.error.reason.as_str()), (code, reason), "{head}: {}", error.error.message);
    }
    assert!(served.fake.commands.lock().unwrap().is_empty());
    let (_, near) = served.request("GET /v1/groups/wbe", "").await;
    assert!(near.contains("did you mean `web.default`?"), "{near}");
}

#[tokio::test]
async fn a_command_reaches_the_daemon_with_who_gave_it() {
    let served = Served::start();
    let body = r#"{"reason": "disk", "until": "2100-01-01T00:00:00Z"}"#;
    assert_eq!(served.request("POST /v1/groups/web/service/stop", body).await.0, 202);
    assert_eq!(served.request("POST /v1/source/poll", "").await.0, 202);
    let commands = served.fake.commands.lock().unwrap().clone();
    let uid = rustix::process::geteuid().as_raw();
    let pid = i32::try_from(std::process::id()).ok();
    let stop = Command::Service {
        group: "web".parse().unwrap(),
        verb: ServiceVerb::Stop,
        reason: Some("disk".to_owned()),
        until: Some(Timestamp(4_102_444_800_000)),
    };
    assert_eq!(commands, [(stop, Caller::Local { uid, pid }), (Command::Poll, Caller::Local { uid, pid })]);
}

#[tokio::test]
async fn health_answers_by_status_code() {
    let served = Served::start();
    for (group, code) in [("docs", 200), ("redis.default", 503), ("web", 500), ("nobody", 404)] {
        assert_eq!(served.request(&format!("GET /v1/groups/{group}/health"), "").await.0, code, "{group}");
    }
    let (_, body) = served.request("GET /v1/groups/redis/health", "").await;
    assert_eq!(
        body,
        "{\"status\":\"critical\",\"message\":\"connection refused\",\"checked_at\":\"2100-01-01T00:00:00.000Z\"}\n"
    );
    assert_eq!(served.request("GET /livez", "").await.0, 200);
    assert_eq!(served.request("GET /readyz", "").await, (503, "Waiting: 2 groups are on their way\n".to_owned()));
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let served = Served::start();
    served.fake.happen("one");
    let (_, text) = served.request("GET /metrics", "").await;
    insta::assert_snapshot!(text, @r#"
    # TYPE tagfall info
    # HELP tagfall The supervisor and its version.
    tagfall_info{name="ams-1",version="0.1.0"} 1
    # TYPE tagfall_ready gauge
    # HELP tagfall_ready Whether this supervisor has converged.
    tagfall_ready 0
    # TYPE tagfall_release info
    # HELP tagfall_release The release that is driven towards.
    tagfall_release_info{tag="v1.4.2",commit="9f3c2a1000000000000000000000000000000000"} 1
    # TYPE tagfall_group_ready gauge
    # HELP tagfall_group_ready Whether the group has converged.
    tagfall_group_ready{group="docs.default"} 1
    tagfall_group_ready{group="redis.default"} 1
    tagfall_group_ready{group="web.default"} 0
    # TYPE tagfall_group_healthy gauge
    # HELP tagfall_group_healthy Whether the group's checks pass.
    tagfall_group_healthy{group="docs.default"} 1
    tagfall_group_healthy{group="redis.default"} 0
    tagfall_group_healthy{group="web.default"} 0
    # TYPE tagfall_group_state gauge
    # HELP tagfall_group_state The state of the group's service; 1 for the one that it is in.
    tagfall_group_state{group="redis.default",state="running"} 1
    tagfall_group_state{group="web.default",state="waiting"} 1
    # TYPE tagfall_group_restarts counter
    # HELP tagfall_group_restarts Restarts of the group's service that were not asked for.
    tagfall_group_restarts_total{group="redis.default"} 2
    tagfall_group_restarts_total{group="web.default"} 0
    # TYPE tagfall_group_log_lost_lines counter
    # HELP tagfall_group_log_lost_lines Lines of the group's service that could not be written.
    tagfall_group_log_lost_lines_total{group="redis.default"} 12
    tagfall_group_log_lost_lines_total{group="web.default"} 0
    # TYPE tagfall_group_log_lost_bytes counter
    # HELP tagfall_group_log_lost_bytes Bytes of these lines.
    tagfall_group_log_lost_bytes_total{group="redis.default"} 960
    tagfall_group_log_lost_bytes_total{group="web.default"} 0
    # TYPE tagfall_group_log_unforwarded_lines counter
    # HELP tagfall_group_log_unforwarded_lines Lines that could not be handed on.
    tagfall_group_log_unforwarded_lines_total{group="redis.default"} 3
    tagfall_group_log_unforwarded_lines_total{group="web.default"} 0
    # TYPE tagfall_refused_tags gauge
    # HELP tagfall_refused_tags Tags that are not taken, by reason.
    tagfall_refused_tags{reason="TagNameMismatch"} 1
    # TYPE tagfall_events counter
    # HELP tagfall_events Events so far.
    tagfall_events_total 1
    # EOF
    "#);
}

#[tokio::test]
async fn a_follower_that_falls_behind_misses_nothing_and_sees_nothing_twice() {
    let served = Served::start();
    served.fake.happen("1");
    served.fake.happen("2");
    let mut stream = served.connect().await;
    stream.write_all(b"GET /v1/events?since=latest HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 1\r\n\r\n").await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut ids = Vec::new();
    let mut next = async || {
        let found = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(id) = line.strip_prefix("id: ") {
                    return id.parse::<u64>().unwrap();
                }
            }
            panic!("the stream ended");
        };
        tokio::time::timeout(SOON, found).await.unwrap()
    };
    ids.push(next().await);
    // Three times the room of the channel, with the reader not running in between.
    for at in 3..=8 {
        served.fake.happen(&at.to_string());
    }
    while ids.len() < 7 {
        ids.push(next().await);
    }
    assert_eq!(ids, [2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn followers_never_use_up_all_places() {
    let served = Served::start();
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..40 {
        let mut stream = served.connect().await;
        stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        let first = tokio::time::timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
        refused += usize::from(first.contains("503"));
        held.push(lines);
    }
    assert_eq!(refused, 8);
    assert_eq!(served.request("GET /v1/status", "").await.0, 200);
}

#[tokio::test]
async fn a_socket_is_replaced_when_dead_and_refused_when_alive_or_foreign() {
    let served = Served::start();
    let path = served.folder.path().join("s.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(matches!(bind_unix(&path), Err(ServeError::Alive(_))));
    assert_eq!(served.request("GET /livez", "").await.0, 200, "the living one suffered");
    served.task.abort();
    let _ = served.task.await;
    assert!(!path.exists(), "a socket that ended well stays behind");

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let first = bind_unix(&path).unwrap();
    drop(std::fs::remove_file(&path));
    let second = bind_unix(&path).unwrap();
    drop(first);
    assert!(path.exists(), "the successor's socket was taken away");
    drop(second);

    std::fs::write(&path, "mine").unwrap();
    assert!(matches!(bind_unix(&path), Err(ServeError::Occupied(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    let inside = path.join("x.sock");
    let error = bind_unix(&inside).unwrap_err();
    assert!(error.to_string().contains("cannot make the folder"), "{error}");
}
