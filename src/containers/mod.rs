//! Services that are containers: the Docker Engine API over a unix socket, of Docker or of Podman.
//!
//! For them it plays the keeper's part, by the keeper's own rules (`keeper::state`) and with the keeper's log files: it carries
//! orders out, restarts by the policy it was last given, and reports facts. The engine restarts nothing by itself. A container
//! carries in its labels what must be known to take it up again after the death of the supervisor; until then nobody restarts
//! it. It may not decide what runs, nor know of releases, templates or health.
//!
//! | file | question |
//! | --- | --- |
//! | `http.rs`, `engine.rs` | how the engine is asked: one connection per request |
//! | `body.rs`, `labels.rs` | what a container is made of, and what it says of itself later: pure |
//! | `room.rs`, `entry.rs` | what happens next: the only task that changes what is known |
//! | `jobs.rs`, `events.rs` | what takes time, each with a bound; its end is a message to the room |
//! | `logs.rs`, `exec.rs` | output, and commands of health checks |
//!
//! To add a call: a method in `engine.rs` with its bound. To add something that may be ordered: a variant of `Order`.

mod body;
mod engine;
mod entry;
mod events;
mod exec;
mod http;
mod jobs;
mod labels;
mod logs;
mod room;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::model::{GroupName, Now, ServiceReport, ServiceSpec};
use engine::Engine;

pub use http::EngineError;

/// What the room tells.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// The engine has told of all containers that are ours; their reports came before.
    Ready,
    /// The engine does not answer, and why.
    Away(String),
    /// How one stands.
    Report(Box<ServiceReport>),
    /// One is known no more.
    Gone(GroupName),
}

/// What the room works with.
pub struct Setup {
    /// The engine's socket.
    pub socket: PathBuf,
    /// Whose containers: they are labelled with it.
    pub data_dir: PathBuf,
    /// Below which their log files lie: not among those of processes, which are the keeper's alone to write.
    pub logs: PathBuf,
    /// Both clocks.
    pub clock: fn() -> Now,
}

/// What may be ordered.
enum Order {
    Run {
        spec: Box<ServiceSpec>,
        restart: bool,
    },
    Amend {
        spec: Box<ServiceSpec>,
    },
    Restart {
        group: GroupName,
    },
    MarkReady {
        group: GroupName,
        incarnation: u64,
    },
    Stop {
        group: GroupName,
    },
    Forget {
        group: GroupName,
    },
    /// Whether a group wants a container here; until one does, an engine that is away is not looked for.
    Want(bool),
    StopAll(oneshot::Sender<()>),
}

type Answer = oneshot::Sender<Result<(), String>>;

/// A handle to the room.
#[derive(Clone)]
pub struct Containers {
    orders: mpsc::UnboundedSender<(Order, Option<Answer>)>,
    owned: Arc<Mutex<BTreeMap<GroupName, Option<String>>>>,
    engine: Engine,
}

impl Containers {
    /// Starts the room's task; `news` must not block.
    pub fn start(setup: Setup, news: impl Fn(News) + Send + 'static) -> Self {
        let (orders, taken) = mpsc::unbounded_channel();
        let owned = Arc::new(Mutex::default());
        let engine = Engine::new(setup.socket.clone());
        let room = room::Room::new(setup, engine.clone(), Arc::clone(&owned), Box::new(news));
        tokio::spawn(room.run(taken));
        Self { orders, owned, engine }
    }

    /// Whether a group is a container here.
    pub fn owns(&self, group: &GroupName) -> bool {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).contains_key(group)
    }

    /// Makes this the spec to run; `restart` even where the same launch runs.
    pub async fn run(&self, spec: Box<ServiceSpec>, restart: bool) -> Result<(), String> {
        self.order(Order::Run { spec, restart }).await
    }

    /// Takes over what touches no container.
    pub async fn amend(&self, spec: Box<ServiceSpec>) -> Result<(), String> {
        self.order(Order::Amend { spec }).await
    }

    /// Replaces the container by a new one.
    pub async fn restart(&self, group: GroupName) -> Result<(), String> {
        self.order(Order::Restart { group }).await
    }

    /// It was found ready.
    pub async fn mark_ready(&self, group: GroupName, incarnation: u64) -> Result<(), String> {
        self.order(Order::MarkReady { group, incarnation }).await
    }

    /// Stops it; it stays known.
    pub async fn stop(&self, group: GroupName) -> Result<(), String> {
        self.order(Order::Stop { group }).await
    }

    /// Drops what is known of it; refused unless it is at rest.
    pub async fn forget(&self, group: GroupName) -> Result<(), String> {
        self.order(Order::Forget { group }).await
    }

    /// Says whether any group wants a container here.
    pub fn want(&self, wanted: bool) {
        // The room ends with the process only.
        let _ = self.orders.send((Order::Want(wanted), None));
    }

    /// Stops all of them, and waits for it so long at most.
    pub async fn stop_all(&self, bound: Duration) {
        let (stopped, done) = oneshot::channel();
        if self.orders.send((Order::StopAll(stopped), None)).is_ok() && tokio::time::timeout(bound, done).await.is_err() {
            tracing::warn!("not every container has stopped in time: the rest goes on, and is taken up at the next start");
        }
    }

    /// Runs a command within a group's container.
    pub async fn exec(&self, group: &GroupName, argv: &[String], timeout: Duration) -> Result<exec::Outcome, String> {
        let id = self.owned.lock().unwrap_or_else(PoisonError::into_inner).get(group).cloned().flatten();
        let id = id.ok_or("its container does not run")?;
        exec::run(&self.engine, &id, argv, timeout).await
    }

    async fn order(&self, order: Order) -> Result<(), String> {
        let (answer, done) = oneshot::channel();
        self.orders.send((order, Some(answer))).map_err(|_| "the containers' task has ended".to_owned())?;
        done.await.unwrap_or_else(|_| Err("the containers' task has ended".to_owned()))
    }
}

/// Where the engine is: as `DOCKER_HOST` says (`unix://PATH`), else the first known place that is there, else Docker's.
pub fn socket(env: &BTreeMap<String, String>) -> PathBuf {
    if let Some(path) = env.get("DOCKER_HOST").and_then(|host| host.strip_prefix("unix://")) {
        return PathBuf::from(path);
    }
    let own = env.get("XDG_RUNTIME_DIR").map(|folder| Path::new(folder).join("podman/podman.sock"));
    let system = ["/run/docker.sock", "/run/podman/podman.sock"].map(PathBuf::from);
    let places = system.into_iter().chain(own);
    places.into_iter().find(|path| path.exists()).unwrap_or_else(|| PathBuf::from("/run/docker.sock"))
}

/// Groups with a container, and its id where it runs.
type Owned = Arc<Mutex<BTreeMap<GroupName, Option<String>>>>;

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
