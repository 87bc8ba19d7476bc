//! Notices that somebody touched what is published: one inotify instance and one thread for all groups.
//!
//! It only says "look": [`super::Publisher::verify`] and [`super::Publisher::link_ok`] decide. Used directly rather than
//! through the `notify` crate, which cannot leave out events of *opening*: the folder of a mount path is often `/etc`,
//! where every program of the host opens files all the time, and each would wake us.
//!
//! Look once after `watch` as well: what happened before it is not told.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::Publisher;
use super::record::FILES;
use crate::model::{GroupName, PublicationId};

/// Bytes of events read at once: some hundred events.
const READ_BYTES: usize = 16 * 1024;

/// Why a group is not watched. Its files stay as they are; they are still looked at whenever the group is planned.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel's limit on watches.
    #[error("could not watch `{}`: the limit of inotify watches is reached; raise `fs.inotify.max_user_watches`", path.display())]
    Limit {
        /// What was to be watched.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("could not watch `{}` for changes by hand", path.display())]
    Io {
        /// What was to be watched.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No watching at all.
    #[error("could not begin to watch published files; raise `fs.inotify.max_user_instances` if that is the cause")]
    Start(#[source] io::Error),
}

/// Watches the current publication of each group, its view and its link. Ends with its thread when dropped.
#[derive(Debug)]
pub struct DriftWatch {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    inotify: OwnedFd,
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    interests: BTreeMap<i32, Vec<Interest>>,
    groups: BTreeSet<GroupName>,
}

/// Whom a watched folder concerns, and which of its names (`None` = all).
#[derive(Debug, PartialEq, Eq)]
struct Interest {
    group: GroupName,
    name: Option<OsString>,
}

impl DriftWatch {
    /// Begins; `look` is called, on the watch's own thread, with each group at which something happened.
    pub fn start(look: impl Fn(GroupName) + Send + 'static) -> Result<Self, WatchError> {
        let failed = |error: Errno| WatchError::Start(error.into());
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?);
        let shared = Arc::new(Shared { inotify, watched: Mutex::default() });
        let (seen, until) = (Arc::clone(&shared), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("drift".to_owned());
        let thread = thread.spawn(move || seen.run(&until, look)).map_err(WatchError::Start)?;
        Ok(Self { shared, stop, thread: Some(thread) })
    }

    /// Watches one publication of a group, instead of the one before.
    pub fn watch(&self, publisher: &Publisher, group: &GroupName, id: PublicationId, mount_path: &str) -> Result<(), WatchError> {
        let mut watched = self.shared.watched();
        watched.forget(&self.shared.inotify, group);
        watched.groups.insert(group.clone());
        let done = self.add_all(&mut watched, publisher, group, id, Path::new(mount_path));
        if done.is_err() {
            watched.forget(&self.shared.inotify, group);
        }
        done
    }

    /// Watches nothing of a group any more.
    pub fn unwatch(&self, group: &GroupName) {
        self.shared.watched().forget(&self.shared.inotify, group);
    }

    fn add_all(
        &self,
        watched: &mut Watched,
        publisher: &Publisher,
        group: &GroupName,
        id: PublicationId,
        mount: &Path,
    ) -> Result<(), WatchError> {
        let publication = publisher.publication_dir(group, id);
        self.add(watched, group, &publication, None, CONTENT)?;
        let mut folders = vec![publication.join(FILES)];
        while let Some(folder) = folders.pop() {
            self.add(watched, group, &folder, None, CONTENT)?;
            // Gone meanwhile: its parent is watched already and tells.
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
            }
        }
        self.add(watched, group, &publisher.view_point(group), Some(OsStr::new(FILES)), NAMES)?;
        match (mount.parent(), mount.file_name()) {
            (Some(parent), Some(name)) => self.add(watched, group, parent, Some(name), NAMES),
            _ => Ok(()),
        }
    }

    fn add(
        &self,
        watched: &mut Watched,
        group: &GroupName,
        folder: &Path,
        name: Option<&OsStr>,
        events: WatchFlags,
    ) -> Result<(), WatchError> {
        let flags = events | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD;
        let path = || folder.to_path_buf();
        let watch = inotify::add_watch(&self.shared.inotify, folder, flags).map_err(|error| match error {
            Errno::NOSPC => WatchError::Limit { path: path(), source: error.into() },
            _ => WatchError::Io { path: path(), source: error.into() },
        })?;
        let interest = Interest { group: group.clone(), name: name.map(OsStr::to_owned) };
        let interests = watched.interests.entry(watch).or_default();
        if !interests.contains(&interest) {
            interests.push(interest);
        }
        Ok(())
    }
}

/// What may happen to published content. Opening and reading are left out.
const CONTENT: WatchFlags = WatchFlags::MODIFY.union(WatchFlags::ATTRIB).union(NAMES);

/// What may happen to a name in a folder.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

impl Drop for DriftWatch {
    fn drop(&mut self) {
        // It cannot fail: the counter of an eventfd is far from full, and the descriptor is open.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Watched {
    fn forget(&mut self, inotify: &OwnedFd, group: &GroupName) {
        self.groups.remove(group);
        self.interests.retain(|watch, interests| {
            interests.retain(|interest| interest.group != *group);
            if interests.is_empty() {
                // An error means that the folder, and its watch with it, is gone already.
                let _ = inotify::remove_watch(inotify, *watch);
            }
            !interests.is_empty()
        });
    }

    /// Whom one event concerns.
    fn concerned<'a>(&'a self, watch: i32, name: Option<&'a OsStr>) -> impl Iterator<Item = &'a GroupName> {
        let interests = self.interests.get(&watch).into_iter().flatten();
        let meant = move |interest: &&Interest| match (name, &interest.name) {
            (Some(name), Some(wanted)) => name == wanted,
            (None, _) | (_, None) => true,
        };
        interests.filter(meant).map(|interest| &interest.group)
    }
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until something happens: no wake-up otherwise.
    fn run(&self, stop: &OwnedFd, look: impl Fn(GroupName)) {
        loop {
            let mut fds = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) if !fds[1].revents().is_empty() => return,
                Ok(_) => self.read().into_iter().for_each(&look),
                Err(Errno::INTR) => (),
                Err(error) => {
                    tracing::error!(%error, "published files are no longer watched for changes by hand");
                    return;
                }
            }
        }
    }

    /// Takes all that has happened, each group once.
    fn read(&self) -> BTreeSet<GroupName> {
        let mut concerned = BTreeSet::new();
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut watched = self.watched();
        // Errors: nothing more to read now, or a signal; the poll comes back here.
        while let Ok(event) = events.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                concerned.extend(watched.groups.iter().cloned());
                continue;
            }
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            concerned.extend(watched.concerned(event.wd(), name).cloned());
            if event.events().contains(ReadFlags::IGNORED) {
                // The folder is gone, and the kernel has dropped its watch.
                watched.interests.remove(&event.wd());
            }
        }
        concerned
    }
}
