//! Git: list the remote's tags, fetch one, check it, walk it, watch for new ones.
//!
//! Life cycle of a tag: [`Source::list`] names it, [`release`](crate::release) picks it, [`Source::fetch`] brings it: a
//! bounded child process of this binary takes what the store lacks into a quarantine folder and checks it there; the
//! pack then moves into the store by rename and a ref marks the tag as whole. [`Source::load`] reads it again, with every
//! tree parsed strictly, and [`Source::read_blob`] gives files. Nothing is ever checked out; no hook, filter, attribute,
//! submodule or setting of a repository is honoured.
//!
//! May not decide which tag runs, nor understand what files mean. The network is spoken only in `child/`; a new
//! transport goes there and into `remote.rs`, a new limit into [`Limits`] and the place that meets it.

mod child;
mod config;
mod folder;
mod refs;
mod remote;
mod spawn;
mod statements;
mod store;
mod walk;
mod watch;

use std::sync::{Arc, Mutex};

use crate::model::{ObjectId, Reason, Refusal, RemoteTag, TreeFile};

pub use child::run_child;
pub use config::{Credentials, Limits, SourceConfig};
pub use folder::{Tree, latest_tag, list_local, read_folder, read_local_tag, read_repository, read_signed};
pub use statements::STATEMENT_MAX_BYTES;
pub use walk::Signed;
pub use watch::Watch;

use refs::Listing;
use remote::Remote;
use store::{Quarantine, Store};
use walk::{Fault, Objects, Walked};

/// What went wrong on this host, as against with a tag or a remote.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The remote's address says nothing that can be reached.
    #[error("`source.url` is not an address of a Git repository: {0}")]
    Url(String),
    /// A file of the store.
    #[error("the object store cannot {step} `{path}`; nothing was changed")]
    Store {
        /// What was tried.
        step: &'static str,
        /// Where.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// An object of the store.
    #[error("object {id} cannot be read from the store; it is fetched again with the next poll")]
    Object {
        /// Which.
        id: ObjectId,
        /// Why not.
        source: git2::Error,
    },
    /// An object that is not what its id says.
    #[error("object {0} in the store is damaged; it is fetched again with the next poll")]
    Damaged(ObjectId),
    /// inotify.
    #[error("`{path}` cannot be watched; new tags are noticed by polling alone")]
    Watch {
        /// Where.
        path: String,
        /// Why not.
        source: notify::Error,
    },
    /// A file of a working folder.
    #[error("`{path}` cannot be read")]
    Folder {
        /// Which.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The child could not throw superseded objects away.
    #[error("superseded objects stay in the store: {0}")]
    Sweep(String),
}

/// What a fetch moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FetchStats {
    /// Bytes of the pack as received; zero where the store had all of it.
    pub bytes: u64,
    /// Objects in it.
    pub objects: u64,
}

/// A tag whose objects are all in the store and follow the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The tag.
    pub tag: RemoteTag,
    /// The commit it points at.
    pub commit: ObjectId,
    /// When it was tagged, in seconds since 1970, by the tagger's word.
    pub tagged_at_s: u64,
    /// `tagfall.toml` and everything below `groups/`, by path.
    pub files: Vec<TreeFile>,
    /// What it took to get it.
    pub stats: FetchStats,
}

/// The configuration repository as this host sees it, and the store of what was taken from it.
#[derive(Debug, Clone)]
pub struct Source(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: SourceConfig,
    remote: Remote,
    store: Store,
    /// Where a child that lists works.
    lobby: Option<Quarantine>,
    /// One child at a time: two fetches would each bring what the other brings.
    turn: tokio::sync::Mutex<()>,
    listing: Mutex<Listing>,
}

/// Prepares libgit2 for this process; call it early in `main`, before there are threads (its first use writes to the
/// environment). [`Source::open`] does so as well.
pub fn prepare() {
    crate::sys::git::isolate();
}

impl Source {
    /// Opens the store, made anew where it is missing or is not one.
    ///
    /// # Errors
    /// Where the address is malformed or the store's folder cannot be made.
    pub fn open(mut config: SourceConfig) -> Result<Self, SourceError> {
        prepare();
        crate::sys::git::allow_deltas(config.limits.file_bytes);
        let remote = Remote::parse(&config.url).map_err(SourceError::Url)?;
        // One folder lends its objects to another by path, which Git reads from where the file with the path lies.
        config.store = std::path::absolute(&config.store).map_err(|source| {
            let path = config.store.display().to_string();
            SourceError::Store { step: "name", path, source }
        })?;
        let store = Store::open(&config.store)?;
        let lobby = if remote.is_local() { None } else { Some(Quarantine::new(&store)?) };
        let listing = Mutex::default();
        Ok(Self(Arc::new(Inner { config, remote, store, lobby, turn: tokio::sync::Mutex::new(()), listing })))
    }

    /// The remote's address, fit to be shown: without a password.
    pub fn url(&self) -> String {
        self.0.remote.to_string()
    }

    /// All tags of the remote: names and what their refs hold.
    ///
    /// # Errors
    /// `GitOperationFailed`, `AuthenticationFailed` or `LimitExceeded`, with words for the operator.
    pub async fn list(&self) -> Result<Vec<RemoteTag>, Refusal> {
        self.0.store.rest();
        if let Some(lobby) = &self.0.lobby {
            let _turn = self.0.turn.lock().await;
            return spawn::list(&self.0.config, &self.0.remote, lobby.path()).await;
        }
        let this = self.clone();
        blocking(move || {
            let Remote::Local(path) = &this.0.remote else { return Ok(Vec::new()) };
            let mut listing = this.0.listing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            listing.read(path, &this.0.config.limits)
        })
        .await
    }

    /// Brings a tag into the store, whole and checked. Without network where the store has it already.
    ///
    /// `have` names tag objects whose content the remote need not send again; the store's own are used where it is empty.
    ///
    /// # Errors
    /// What is wrong with the tag, or what kept it from being fetched ([`is_lasting`](crate::release::is_lasting) tells
    /// the two apart). The store is as it was.
    pub async fn fetch(&self, tag: &RemoteTag, have: &[ObjectId]) -> Result<Fetched, Refusal> {
        self.fetch_judged(tag, have, |_| Ok(())).await.map(|(fetched, ())| fetched)
    }

    /// The same, of a tag that `judge` lets pass: it sees the tag object and its commit before anything else of the tag is
    /// looked at here, and before anything of it gets into the store.
    ///
    /// # Errors
    /// As [`Source::fetch`], and what `judge` says.
    pub async fn fetch_judged<T, J>(&self, tag: &RemoteTag, have: &[ObjectId], judge: J) -> Result<(Fetched, T), Refusal>
    where
        T: Send + 'static,
        J: Fn(&Signed) -> Result<T, Refusal> + Clone + Send + 'static,
    {
        let _turn = self.0.turn.lock().await;
        let damaged = match self.load_blocking(tag.clone(), judge.clone()).await {
            Ok((walked, judged)) => {
                self.0.store.mark(tag.object).map_err(|error| failed(&error))?;
                return Ok((fetched(tag, walked, FetchStats::default()), judged));
            }
            Err(Fault::Refused(refusal)) => return Err(refusal),
            Err(Fault::Missing(_)) => false,
            Err(Fault::Unreadable(error)) => {
                tracing::warn!(error = %error, "the object store is damaged and is filled anew");
                true
            }
        };
        let store = &self.0.store;
        let have = if damaged { Vec::new() } else { store.known(have).map_err(|error| failed(&error))? };
        let quarantine = Quarantine::new(store).map_err(|error| failed(&error))?;
        let stats = spawn::fetch(&self.0.config, &self.0.remote, tag, have, damaged, quarantine.path()).await?;
        let (this, arrived, wanted, first) = (self.clone(), quarantine.path().join("objects"), tag.clone(), judge.clone());
        blocking(move || this.0.judge_arrived(&arrived, damaged, &wanted, &first)).await?;
        store.admit(quarantine, tag.object, damaged).map_err(|error| failed(&error))?;
        match self.load_blocking(tag.clone(), judge).await {
            Ok((walked, judged)) => Ok((fetched(tag, walked, stats), judged)),
            Err(fault) => Err(fault.into_refusal()),
        }
    }

    /// Reads a tag from the store alone, with every check of its objects. Blocks for the time of reading.
    ///
    /// # Errors
    /// `GitOperationFailed` where the store does not have all of it; else what is wrong with the tag.
    pub fn load(&self, tag: &RemoteTag) -> Result<Fetched, Refusal> {
        let walked = self.0.load(tag).map_err(Fault::into_refusal)?;
        Ok(fetched(tag, walked, FetchStats::default()))
    }

    /// Reads what may be signed of a tag from the store alone. Blocks for the time of reading.
    ///
    /// # Errors
    /// `GitOperationFailed` where the store does not have it; else what is wrong with the tag.
    pub fn load_signed(&self, tag: &RemoteTag) -> Result<Signed, Refusal> {
        let odb = self.0.store.odb().map_err(|error| Fault::Unreadable(error).into_refusal())?;
        self.0.objects(&odb).read_signed(tag).map_err(Fault::into_refusal)
    }

    /// One file's bytes, checked against their id.
    ///
    /// # Errors
    /// Where the store does not have it, or not as it was.
    pub fn read_blob(&self, id: ObjectId) -> Result<Vec<u8>, SourceError> {
        self.0.store.read_blob(id, self.0.config.limits.file_bytes)
    }

    /// Calls `wake` soon after the refs of a local repository may have changed, until the watch is dropped.
    /// `None` for other remotes.
    ///
    /// # Errors
    /// Where the host lets nobody watch it. A repository that is not there yet is no error: it is waited for.
    pub fn watch(&self, wake: impl Fn() + Send + 'static) -> Result<Option<Watch>, SourceError> {
        match &self.0.remote {
            Remote::Local(path) => watch::watch(path, wake).map(Some),
            Remote::Network(_) => Ok(None),
        }
    }

    /// Lets go of every tag but `keep` (ids of tag objects), and of their objects once that is worth a rewrite.
    ///
    /// # Errors
    /// Where a file resists; what is kept stays readable all the same.
    pub async fn forget(&self, keep: &[ObjectId]) -> Result<(), SourceError> {
        let _turn = self.0.turn.lock().await;
        let store = &self.0.store;
        store.unmark_all_but(keep)?;
        store.forget_statements(keep)?;
        if !store.is_worth_a_sweep()? {
            return Ok(());
        }
        let kept = store.present(keep)?;
        let quarantine = Quarantine::new(store)?;
        let swept = spawn::sweep(&self.0.config, &self.0.remote, kept, quarantine.path()).await;
        swept.map_err(|refusal| SourceError::Sweep(refusal.message))?;
        store.replace(&quarantine)
    }

    async fn load_blocking<T, J>(&self, tag: RemoteTag, judge: J) -> Result<(Walked, T), Fault>
    where
        T: Send + 'static,
        J: Fn(&Signed) -> Result<T, Refusal> + Send + 'static,
    {
        let this = self.clone();
        blocking(move || {
            let odb = this.0.store.odb().map_err(Fault::Unreadable)?;
            let judged = judge(&this.0.objects(&odb).read_signed(&tag)?)?;
            Ok((this.0.objects(&odb).walk_tag(&tag)?, judged))
        })
        .await
    }
}

impl Inner {
    fn load(&self, tag: &RemoteTag) -> Result<Walked, Fault> {
        let odb = self.store.odb().map_err(Fault::Unreadable)?;
        self.objects(&odb).walk_tag(tag)
    }

    fn objects<'a>(&'a self, odb: &'a git2::Odb<'a>) -> Objects<'a> {
        Objects { odb, limits: &self.config.limits, contents: true }
    }

    /// Judges a tag by what lies in quarantine, and in the store where that may be believed.
    fn judge_arrived<T>(
        &self,
        arrived: &std::path::Path,
        damaged: bool,
        tag: &RemoteTag,
        judge: &dyn Fn(&Signed) -> Result<T, Refusal>,
    ) -> Result<(), Refusal> {
        let stored = self.store.objects();
        let folders: &[&std::path::Path] = if damaged { &[arrived] } else { &[arrived, &stored] };
        let odb = store::open_objects(folders).map_err(|error| Fault::Unreadable(error).into_refusal())?;
        let signed = self.objects(&odb).read_signed(tag).map_err(Fault::into_refusal)?;
        judge(&signed).map(|_| ())
    }
}

fn fetched(tag: &RemoteTag, walked: Walked, stats: FetchStats) -> Fetched {
    Fetched { tag: tag.clone(), commit: walked.commit, tagged_at_s: walked.made_at_s, files: walked.files, stats }
}

/// A trouble of this host, as a refusal that is tried again.
fn failed(error: &SourceError) -> Refusal {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        message = format!("{message}: {inner}");
        cause = inner.source();
    }
    Refusal { reason: Reason::GitOperationFailed, message }
}

fn refuse(reason: Reason, message: impl Into<String>) -> Refusal {
    Refusal { reason, message: message.into() }
}

/// Runs blocking work off the loop; a panic in it goes on here.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
    }
}
