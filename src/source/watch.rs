//! Notice of a local repository's refs, within milliseconds.
//!
//! An event says only "look again": a tag in a new folder makes none of its own, packing makes many without a change.
//! So events are gathered for a moment, then `wake` is called once; whoever is woken lists all tags. A repository that
//! is removed, or not there yet, is looked for until it is.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

use super::SourceError;
use super::refs::GitDir;

/// Wake when nothing more happened for so long; a push writes its lock, then its ref, within about 2 ms.
const QUIET: Duration = Duration::from_millis(10);
/// Wake at the latest after so long, however busy the repository is.
const LATEST: Duration = Duration::from_millis(100);
/// Between two looks for a repository that is gone: at first, and at most.
const LOOK_AGAIN_FIRST: Duration = Duration::from_millis(500);
const LOOK_AGAIN_MOST: Duration = Duration::from_secs(10);
/// Stack of the thread that gathers events: it only waits.
const STACK_BYTES: usize = 128 << 10;

/// A running watch; dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    news: Sender<News>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread is gone where this fails.
        let _ = self.news.send(News::Stop);
    }
}

enum News {
    /// Refs may have changed.
    Changed,
    /// The watch itself may have lost its object.
    Lost,
    Stop,
}

/// Watches the repository at `path`.
pub(super) fn watch(path: &Path, wake: impl Fn() + Send + 'static) -> Result<Watch, SourceError> {
    let (news, heard) = channel();
    let watcher = match attach(path, &news) {
        Ok(watcher) => Some(watcher),
        Err(error) if is_there(path) => return Err(SourceError::Watch { path: path.display().to_string(), source: error }),
        Err(_) => None,
    };
    let gatherer = Gatherer { path: path.to_owned(), news: news.clone(), heard, watcher };
    let started =
        std::thread::Builder::new().name("git-watch".to_owned()).stack_size(STACK_BYTES).spawn(move || gatherer.run(&wake));
    match started {
        Ok(_) => Ok(Watch { news }),
        Err(error) => Err(SourceError::Watch { path: path.display().to_string(), source: notify::Error::io(error) }),
    }
}

fn is_there(path: &Path) -> bool {
    GitDir::find(path).is_ok_and(|dir| dir.common.join("refs").is_dir())
}

/// The folder itself for `packed-refs`, `refs` with all below it for the rest.
fn attach(path: &Path, news: &Sender<News>) -> Result<RecommendedWatcher, notify::Error> {
    let dir = GitDir::find(path).map_err(|refusal| notify::Error::generic(&refusal.message))?;
    let filter = Filter { root: dir.common.clone(), refs: dir.common.join("refs") };
    let (root, refs) = (filter.root.clone(), filter.refs.clone());
    let news = news.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if let Some(item) = filter.judge(event) {
            // The gatherer is gone where this fails.
            let _ = news.send(item);
        }
    })?;
    watcher.watch(&root, RecursiveMode::NonRecursive)?;
    watcher.watch(&refs, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Which events speak of tags.
struct Filter {
    root: PathBuf,
    refs: PathBuf,
}

impl Filter {
    fn judge(&self, event: notify::Result<Event>) -> Option<News> {
        let Ok(event) = event else { return Some(News::Lost) };
        if event.need_rescan() {
            return Some(News::Lost);
        }
        let leaves = match event.kind {
            // Reading makes these, and whoever is woken reads.
            EventKind::Access(_) => return None,
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => true,
            EventKind::Any | EventKind::Other | EventKind::Create(_) | EventKind::Modify(_) => false,
        };
        let ground = |path: &PathBuf| *path == self.root || *path == self.refs;
        if event.paths.iter().any(ground) {
            return Some(if leaves { News::Lost } else { News::Changed });
        }
        let tags = self.refs.join("tags");
        let of_tags = |path: &PathBuf| {
            let packed = path.parent() == Some(&self.root) && path.file_name().is_some_and(|name| name == "packed-refs");
            packed || (path.starts_with(&tags) && path.extension().is_none_or(|extension| extension != "lock"))
        };
        event.paths.iter().any(of_tags).then_some(News::Changed)
    }
}

/// The thread between events and `wake`.
struct Gatherer {
    path: PathBuf,
    news: Sender<News>,
    heard: Receiver<News>,
    watcher: Option<RecommendedWatcher>,
}

impl Gatherer {
    fn run(mut self, wake: &dyn Fn()) {
        let mut look_again = LOOK_AGAIN_FIRST;
        loop {
            if self.watcher.is_none() {
                // Attached before the wake, so that nothing falls between the two.
                if let Ok(watcher) = attach(&self.path, &self.news) {
                    self.watcher = Some(watcher);
                    look_again = LOOK_AGAIN_FIRST;
                    wake();
                }
            }
            let first = match &self.watcher {
                Some(_) => self.heard.recv().unwrap_or(News::Stop),
                None => match self.heard.recv_timeout(look_again) {
                    Ok(news) => news,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        look_again = (look_again * 2).min(LOOK_AGAIN_MOST);
                        continue;
                    }
                },
            };
            match self.gather(first) {
                News::Stop => return,
                News::Lost => {
                    self.watcher = None;
                    wake();
                }
                News::Changed => wake(),
            }
        }
    }

    /// Waits for a quiet moment; what weighs most of what was heard wins.
    fn gather(&self, first: News) -> News {
        let until = Instant::now() + LATEST;
        let mut lost = matches!(first, News::Lost);
        if matches!(first, News::Stop) {
            return News::Stop;
        }
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match self.heard.recv_timeout(QUIET.min(left)) {
                Ok(News::Stop) | Err(RecvTimeoutError::Disconnected) => return News::Stop,
                Ok(News::Lost) => lost = true,
                Ok(News::Changed) => {}
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        if lost { News::Lost } else { News::Changed }
    }
}
