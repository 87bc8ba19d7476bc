//! The source room against real Git: repositories made by `git`, a real `git daemon`, `git http-backend` and `sshd`,
//! and servers and objects that mean harm.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test ends where it cannot go on, and says what it skips")]

mod hostile;
mod local;
mod network;
mod repository;
mod scale;
mod servers;
mod watching;

use std::path::Path;
use std::time::Duration;

use tagfall::model::{Refusal, RemoteTag};
use tagfall::source::{Fetched, Source, SourceConfig};

/// No test takes longer, whatever hangs.
const BOUND: Duration = Duration::from_secs(60);

/// Runs one test on the kind of runtime that the supervisor has.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(BOUND, test).await.expect("within its bound") });
    runtime.shutdown_timeout(Duration::from_secs(1));
}

fn config(url: &str, store: &Path) -> SourceConfig {
    let program = env!("CARGO_BIN_EXE_tagfall").into();
    SourceConfig { program, ..SourceConfig::new(url, store.join("git")) }
}

fn open(url: &str, store: &Path) -> Source {
    Source::open(config(url, store)).unwrap()
}

/// Lists, and picks a tag by its name.
async fn find(source: &Source, name: &str) -> RemoteTag {
    let tags = source.list().await.unwrap();
    tags.iter().find(|tag| tag.name.as_str() == name).unwrap_or_else(|| panic!("{name} in {tags:?}")).clone()
}

async fn fetch(source: &Source, name: &str) -> Result<Fetched, Refusal> {
    let tag = find(source, name).await;
    source.fetch(&tag, &[]).await
}

fn paths(fetched: &Fetched) -> Vec<&str> {
    fetched.files.iter().map(|file| file.path.as_str()).collect()
}

/// Packs in a store.
fn packs(store: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(store.join("git/objects/pack")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name.ends_with(".pack")).collect()
}

/// Whether nothing unchecked is left behind.
fn is_tidy(store: &Path) -> bool {
    std::fs::read_dir(store.join("git/quarantine")).unwrap().all(|entry| {
        let packs = entry.unwrap().path().join("objects/pack");
        std::fs::read_dir(packs).unwrap().next().is_none()
    })
}
