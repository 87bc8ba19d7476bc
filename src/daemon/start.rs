//! Starting up: opens every shell, tells the core what was remembered and what stands on disk, then runs the loop.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::clock::now;
use super::context::Context;
use super::handle::{Handle, Request, Shown};
use super::pace::Pace;
use super::turning::{Ending, Signals, Turning};
use super::wire::Identity;
use super::{effects, hands, layers};
use crate::api::{self, wire};
use crate::containers::Containers;
use crate::hooks::{Hooks, HooksConfig};
use crate::manifest::{Settings, VerifyMode};
use crate::model::{Digest, GroupName, Reason, Refusal, RemoteTag};
use crate::plan::{Accepted, Core, DiskFacts, Drift, Engine, Event, Host, Layers, Overview, RefusedTag, Remembered};
use crate::process::{Hello, Keeper, News};
use crate::publish::{DriftWatch, LinkState, Publisher};
use crate::release::Selection;
use crate::source::{Source, SourceConfig};
use crate::store::{Events, Opened, State, Store};
use crate::{containers, model, process, publish, render, source, store};

/// Commands and questions that wait for the loop.
const REQUESTS_BUFFERED: usize = 64;
/// How long the keeper may take to say its first words, which it does at once.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// Threads for work that blocks: disk, objects, rendering.
const BLOCKING_THREADS_MAX: usize = 8;
/// An idle thread goes after so long: a supervisor at rest has one.
const BLOCKING_THREAD_IDLE: Duration = Duration::from_secs(2);

/// What a supervisor is started with.
pub struct Setup {
    /// Its settings.
    pub settings: Settings,
    /// Its end of the keeper's socket.
    pub keeper: OwnedFd,
    /// The environment, for config layers.
    pub env: BTreeMap<String, String>,
}

/// Why the supervisor could not start, or had to end. Services are the keeper's and go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Signatures are demanded and cannot be verified yet.
    #[error(
        "[source.verify] mode is `required`, and this version cannot verify signatures yet: it starts only with \
         `mode = \"off\"` written out, and says so in its status for ever"
    )]
    VerifyRequired,
    /// The runtime.
    #[error("could not start the event loop")]
    Runtime(#[source] std::io::Error),
    /// The durable state.
    #[error("could not open the state in `{0}`")]
    Store(PathBuf, #[source] store::StoreError),
    /// Publications.
    #[error("could not open the publications")]
    Publish(#[source] Box<publish::PublishError>),
    /// Watching for drift.
    #[error("could not watch published files")]
    Watch(#[source] publish::WatchError),
    /// The remote.
    #[error("could not open the source")]
    Source(#[source] source::SourceError),
    /// The keeper.
    #[error("could not talk to the keeper")]
    Keeper(#[source] process::ProcessError),
    /// The API's doors.
    #[error("could not open the API")]
    Serve(#[source] api::ServeError),
    /// The API's doors.
    #[error("could not open the API")]
    Door(#[source] api::DoorError),
    /// The keeper went away without a word.
    #[error("the keeper is gone; its services go on without a supervisor until `tagfall supervise` is started again")]
    KeeperLost,
}

/// Where the data is: as set, else the system's place for root and the user's own for others.
pub fn data_dir(settings: &Settings) -> PathBuf {
    if let Some(set) = &settings.data_dir {
        return set.clone();
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from(crate::manifest::ROOT_DATA_DIR);
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let state = std::env::var_os("XDG_STATE_HOME").map_or_else(|| home.join(".local/state"), PathBuf::from);
    state.join("tagfall")
}

/// Runs a supervisor until the keeper ends it.
pub fn run(setup: Setup) -> Result<(), DaemonError> {
    if setup.settings.source.verify.mode == VerifyMode::Required {
        return Err(DaemonError::VerifyRequired);
    }
    // Before any thread: preparing the Git library sets variables of the process.
    source::prepare();
    crate::sys::memory::one_heap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_THREAD_IDLE)
        .build()
        .map_err(DaemonError::Runtime)?;
    runtime.block_on(supervise(setup))
}

async fn supervise(setup: Setup) -> Result<(), DaemonError> {
    let (events_in, events) = mpsc::unbounded_channel();
    let (keeper, mut news) = Keeper::connect(setup.keeper).map_err(DaemonError::Keeper)?;
    // What may be done with the keeper's hands is known before anything is opened.
    let hello = greeting(&mut news).await?;
    let folder = data_dir(&setup.settings);
    let split = hello.supervisor_user.is_some();
    let publisher = open_publisher(&folder, hands::needed(&keeper, split)).await?;
    let (context, notes) = open(&setup.settings, setup.env, &folder, (keeper, publisher, split), &events_in)?;
    let _watches = watch(&context, &events_in);
    let identity = identity(&setup.settings, &context, &hello);
    if let Err(error) = context.remember_boot(&hello.boot_id) {
        return Err(DaemonError::Store(folder, error));
    }
    let mut core = Core::new(host(&setup.settings, &context), remembered(&context));
    core.observe(Event::KeeperSpeaks(hello.minor), now());
    let log = Events::open(&folder).map_err(|error| DaemonError::Store(folder.clone(), error))?;
    let overview = Overview { refused: context.state(|state| known_refused(state, context.judge)), ..Overview::default() };
    let shown = Arc::new(Shown::new(super::wire::status(&identity, None, &core, &overview), log));
    let (requests_in, requests) = mpsc::channel(REQUESTS_BUFFERED);
    let serving = serve(&setup.settings, &context, &shown, requests_in).await?;
    let signals = signals().map_err(DaemonError::Runtime)?;
    let turning = Turning {
        context,
        core,
        shown,
        identity,
        verified: false,
        overview,
        awake: false,
        pace: Pace::default(),
        keeper_pid: Some(hello.keeper_pid),
        containers_wanted: None,
        events,
        events_in,
        news,
        requests,
        serving,
        signals,
    };
    turn(turning, notes).await
}

/// On a thread of its own: cleaning up may need the keeper's hands, which answer by way of this one.
async fn open_publisher(folder: &Path, hands: Option<Box<dyn publish::Hands>>) -> Result<Publisher, DaemonError> {
    let folder = folder.to_owned();
    let opened = tokio::task::spawn_blocking(move || Publisher::open_with(&folder, hands)).await;
    let opened = opened.map_err(|error| DaemonError::Runtime(std::io::Error::other(error)))?;
    opened.map_err(|error| DaemonError::Publish(Box::new(error)))
}

/// The keeper's first words on a connection.
async fn greeting(news: &mut mpsc::Receiver<News>) -> Result<Hello, DaemonError> {
    match tokio::time::timeout(GREETING_MAX, news.recv()).await {
        Ok(Some(News::Hello(hello))) => Ok(hello),
        Ok(_) | Err(_) => Err(DaemonError::KeeperLost),
    }
}

fn signals() -> std::io::Result<Signals> {
    Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
}

async fn turn(mut turning: Turning, notes: Vec<String>) -> Result<(), DaemonError> {
    turning.tell_notes(notes);
    turning.tell_serving();
    match turning.run().await {
        Ending::KeeperLost => Err(DaemonError::KeeperLost),
        Ending::Terminated => Ok(()),
        Ending::Finished => {
            turning.shut_down().await;
            Ok(())
        }
    }
}

type EventsIn = mpsc::UnboundedSender<Event>;

fn open(
    settings: &Settings,
    env: BTreeMap<String, String>,
    folder: &Path,
    (keeper, publisher, split): (Keeper, Publisher, bool),
    events: &EventsIn,
) -> Result<(Arc<Context>, Vec<String>), DaemonError> {
    let Opened { store, state, notes } = Store::open(folder).map_err(|error| DaemonError::Store(folder.to_owned(), error))?;
    let hint = events.clone();
    let drift = DriftWatch::start(move |group| drop(hint.send(Event::DriftHint(group)))).map_err(DaemonError::Watch)?;
    let source = Source::open(source_config(settings, folder)).map_err(DaemonError::Source)?;
    let host = host_facts(settings, folder, state.member_id.as_str(), hands::keepers_user(split));
    let context = Context {
        data_dir: folder.to_owned(),
        ring: settings.ring.as_ref().map(|ring| ring.name.clone()),
        host,
        labels: settings.labels.clone(),
        source,
        publisher,
        drift,
        keeper,
        containers: containers(&env, folder, events),
        store,
        state: Mutex::new(state),
        layers: Mutex::default(),
        commands: Mutex::default(),
        hooks: Hooks::new(HooksConfig { program: PathBuf::from(SourceConfig::THIS_PROGRAM), cache: folder.join("hooks/cache") }),
        modules: Mutex::default(),
        digests: Mutex::default(),
        calls: AtomicU64::new(1),
        env,
        judge: judge(settings),
        mount_roots: settings.mount_roots.clone(),
    };
    Ok((Arc::new(context), notes))
}

/// What containers say comes to the loop like everything else.
fn containers(env: &BTreeMap<String, String>, folder: &Path, events: &EventsIn) -> Containers {
    let events = events.clone();
    let setup = containers::Setup {
        socket: containers::socket(env),
        data_dir: folder.to_owned(),
        logs: super::logs::of_containers(folder),
        clock: now,
    };
    Containers::start(setup, move |news| {
        let event = match news {
            containers::News::Ready => Event::Engine(Engine::Ready),
            containers::News::Away(why) => Event::Engine(Engine::Away(why)),
            containers::News::Report(report) => Event::Container(report),
            containers::News::Gone(group) => Event::ServiceGone(group),
        };
        // The loop is gone only when the process ends.
        let _ = events.send(event);
    })
}

fn source_config(settings: &Settings, folder: &Path) -> SourceConfig {
    let (from, limits) = (&settings.source.credentials, settings.source.limits);
    let mut config = SourceConfig::new(settings.source.url.clone(), folder.join("git"));
    config.credentials = source::Credentials {
        username: from.username.clone(),
        token_file: from.token_file.clone(),
        ssh_key_file: from.ssh_key_file.clone(),
        known_hosts_file: from.known_hosts_file.clone(),
        ca_file: from.ca_file.clone(),
    };
    config.limits = source::Limits {
        pack_bytes: limits.pack_bytes,
        file_bytes: limits.file_bytes,
        tree_bytes: limits.tree_bytes,
        objects: limits.objects,
        files: limits.files,
        tags: limits.tags,
        seconds: limits.seconds,
        path_bytes: u64::from(limits.path_bytes),
        path_depth: u64::from(limits.path_depth),
        ..source::Limits::default()
    };
    config
}

/// Facts that templates may show; `uid` is the user of services that name none.
pub fn host_facts(settings: &Settings, folder: &Path, member_id: &str, uid: u32) -> render::Host {
    let uname = rustix::system::uname();
    let user = crate::sys::process::user_by_id(uid).ok().flatten().map_or_else(String::new, |user| user.name);
    let gateway = settings.api.listen;
    render::Host {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        member_id: member_id.to_owned(),
        ip: own_address(settings),
        hostname: uname.nodename().to_string_lossy().into_owned(),
        gossip_ip: settings.ring.as_ref().map_or_else(|| "127.0.0.1".to_owned(), |ring| ring.listen.ip().to_string()),
        gossip_port: settings.ring.as_ref().map_or(0, |ring| ring.listen.port()),
        http_gateway_ip: gateway.map_or_else(|| "127.0.0.1".to_owned(), |address| address.ip().to_string()),
        http_gateway_port: gateway.map_or(0, |address| address.port()),
        data_dir: folder.display().to_string(),
        ring: settings.ring.as_ref().map(|ring| ring.name.clone()),
        user_group: user.clone(),
        user,
    }
}

/// What peers reach this host at: as advertised, else the address that a packet to the outside would leave from.
fn own_address(settings: &Settings) -> String {
    let advertised = settings.ring.as_ref().and_then(|ring| ring.advertise.clone());
    if let Some(host) = advertised.as_deref().and_then(|address| address.rsplit_once(':')).map(|(host, _)| host.to_owned()) {
        return host;
    }
    // A connected datagram socket has a source address; nothing is sent. 192.0.2.1 is reserved for documentation (RFC 5737).
    let outward = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    outward.map_or_else(|_| "127.0.0.1".to_owned(), |address| address.ip().to_string())
}

fn host(settings: &Settings, context: &Context) -> Host {
    Host {
        member_id: model::MemberId::new(context.host.member_id.clone()),
        labels: settings.labels.clone(),
        data_dir: context.data_dir.display().to_string(),
        facts: Digest::of(format!("{:?}", context.host).as_bytes()),
        selection: Selection {
            prefix: settings.source.tag_prefix.clone(),
            range: Some(settings.source.semver.clone()).filter(|range| *range != semver::VersionReq::STAR),
            prerelease: settings.source.prerelease,
        },
        poll: settings.source.poll,
        logs: settings.logs.clone(),
    }
}

/// What outlived the last supervisor: its record, and what stands on disk.
fn remembered(context: &Arc<Context>) -> Remembered {
    let mut disk = survey(context);
    let mut remembered = context.state(|state| from_state(state, context.judge));
    for name in disk.keys() {
        let layers = layers::read(context, name);
        if layers != Layers::default() {
            remembered.layers.insert(name.clone(), layers);
        }
    }
    remembered.disk.append(&mut disk);
    remembered
}

fn from_state(state: &State, judge: Digest) -> Remembered {
    let accepted = state.accepted.as_ref().map(|accepted| Accepted {
        tag: RemoteTag { name: accepted.tag.clone(), object: accepted.tag_object },
        accepted_at: accepted.accepted_at,
        applied_at: accepted.applied_at,
    });
    Remembered {
        accepted,
        pins: state.pins.clone(),
        refused: known_refused(state, judge)
            .into_iter()
            .filter(|tag| is_of_the_tag(tag.reason))
            .map(|tag| (tag.tag, Refusal { reason: tag.reason, message: tag.message }))
            .collect(),
        floor: state.floor.as_ref().and_then(|floor| semver::Version::parse(floor).ok()),
        first_tags: state.first_tags.clone(),
        suspended: state.suspended.clone(),
        layers: BTreeMap::new(),
        disk: BTreeMap::new(),
        owed: state.hooks.clone(),
    }
}

/// The rules by which tags are judged.
fn judge(settings: &Settings) -> Digest {
    Digest::of(format!("{} {settings:?}", env!("CARGO_PKG_VERSION")).as_bytes())
}

/// Whether a refusal speaks of the tag alone, not of what else was accepted here.
fn is_of_the_tag(reason: Reason) -> bool {
    !matches!(reason, Reason::DowngradeRefused | Reason::TagMoved)
}

/// Tags that were refused when the last supervisor ended, by the same rules as now.
fn known_refused(state: &State, judge: Digest) -> Vec<RefusedTag> {
    if state.judged_by != Some(judge) {
        return Vec::new();
    }
    let refused = state.refused.iter().map(|refused| RefusedTag {
        tag: RemoteTag { name: refused.tag.clone(), object: refused.tag_object },
        reason: refused.refusal.reason,
        message: refused.refusal.message.clone(),
        since: refused.since,
    });
    refused.collect()
}

/// What stands on disk. Every shown publication is watched first and compared after: an edit in between is seen.
fn survey(context: &Context) -> BTreeMap<GroupName, DiskFacts> {
    let groups = context.publisher.groups().unwrap_or_else(|error| {
        tracing::warn!(error = effects::chain(&error), "publications cannot be listed: they are written anew");
        Vec::new()
    });
    let mut disk = BTreeMap::new();
    for group in groups {
        let link = context.state(|state| state.published.get(&group).map(|published| published.mount_path.clone()));
        let shown = context.publisher.current(&group).ok().flatten();
        if let (Some(id), Some(path)) = (shown, &link)
            && let Err(error) = context.drift.watch(&context.publisher, &group, id, path)
        {
            tracing::warn!(%group, error = effects::chain(&error), "its files cannot be watched");
        }
        let copies = context.publisher.list(&group).unwrap_or_default();
        let drift = if shown.is_some() { Drift::Suspected } else { Drift::None };
        let unlinked = link.as_ref().is_some_and(|path| context.publisher.link_ok(&group, path) == LinkState::Missing);
        disk.insert(group, DiskFacts { shown, link, unlinked, copies, drift, ..DiskFacts::default() });
    }
    disk
}

fn identity(settings: &Settings, context: &Context, hello: &Hello) -> Identity {
    let socket = settings.api.socket.clone().unwrap_or_else(api::default_socket);
    Identity {
        supervisor: wire::Supervisor {
            name: settings.name.clone(),
            member_id: model::MemberId::new(context.host.member_id.clone()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: settings.labels.clone(),
            started_at: now().wall,
            pid: std::process::id(),
            user: hello.supervisor_user.clone().unwrap_or_else(|| context.host.user.clone()),
            keeper_pid: None,
            hook_host_pid: None,
            api: wire::ApiAddresses {
                socket: socket.display().to_string(),
                listen: settings.api.listen.map(|address| address.to_string()),
            },
        },
        ring_name: settings.ring.as_ref().map(|ring| ring.name.clone()).unwrap_or_default(),
        lacks: hello.lacks.join("; "),
        hooks_lack: String::new(),
    }
}

/// Things that stop watching when they are dropped.
type Watches = (Option<source::Watch>, Option<notify::RecommendedWatcher>);

/// Watches what may change under us. What cannot be watched is polled (the source) or read at the next start (layers): said, not fatal.
fn watch(context: &Context, events: &EventsIn) -> Watches {
    let look = events.clone();
    let source = context.source.watch(move || drop(look.send(Event::LookNow))).unwrap_or_else(|error| {
        tracing::warn!(error = effects::chain(&error), "the repository cannot be watched: it is polled");
        None
    });
    let hint = events.clone();
    let changed = move |group: GroupName| drop(hint.send(Event::LayersHint(group)));
    let user = layers::watch(&context.data_dir, changed)
        .inspect_err(|error| tracing::warn!(%error, "the user's layers cannot be watched: they are read at the next start"))
        .ok();
    (source, user)
}

async fn serve(
    settings: &Settings,
    context: &Arc<Context>,
    shown: &Arc<Shown>,
    requests: mpsc::Sender<Request>,
) -> Result<JoinSet<()>, DaemonError> {
    let handle = Handle { shown: shown.clone(), context: context.clone(), requests };
    let path = settings.api.socket.clone().unwrap_or_else(api::default_socket);
    let door = api::bind_unix(&path).map_err(DaemonError::Serve)?;
    let mut serving = JoinSet::new();
    serving.spawn(api::serve_unix(door, api::router(handle.clone(), api::Door::unix())));
    if let Some(listen) = settings.api.listen {
        let token = settings.api.token_file.as_deref().map(api::Token::read).transpose().map_err(DaemonError::Door)?;
        let door = api::Door::tcp(listen, token, Vec::new()).map_err(DaemonError::Door)?;
        let listener = api::bind_tcp(listen).await.map_err(DaemonError::Serve)?;
        serving.spawn(api::serve_tcp(listener, api::router(handle, door)));
    }
    Ok(serving)
}
