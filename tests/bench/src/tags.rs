//! One new tag in a repository with ten thousand: how long it takes to bring it in, and how many bytes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::Repo;
use tagfall::model::ObjectId;
use tagfall::source::{Fetched, Source, SourceConfig};

use crate::Failure;
use crate::clock::{ms_between, now_ns, pause};
use crate::stage::tagfall;
use crate::table::{Row, Sample};

const TAGS: u32 = 10_000;
const NEW_TAGS: u32 = 10;
const WANTED_MS: f64 = 1_000.0;
/// A new tag's pack holds a tag, a commit, three trees and a blob of some hundred bytes.
const WANTED_BYTES: u64 = 16 * 1024;

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let dir = common::temp_dir();
    let repo = Repo::new(dir.path());
    history(&repo)?;
    let whole = bytes_below(&repo.bare().join("objects"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    let mut next = TAGS;
    let daemon = Daemon::start(dir.path())?;
    for (words, url) in [("a path", repo.bare().display().to_string()), ("git daemon", daemon.url.clone())] {
        rows.extend(runtime.block_on(series(&repo, dir.path(), words, &url, &mut next, whole))?);
    }
    Ok(rows)
}

async fn series(repo: &Repo, dir: &Path, words: &str, url: &str, next: &mut u32, whole: u64) -> Result<Vec<Row>, Failure> {
    let store = dir.join(format!("store-{next}"));
    let mut config = SourceConfig::new(url, &store);
    config.program = tagfall()?;
    let source = Source::open(config)?;
    let begun = now_ns();
    let (first, _) = bring(&source, *next - 1, &[]).await?;
    let first_ms = ms_between(begun, now_ns());
    let first_bytes = bytes_below(&store);
    let (mut took, mut listed, mut bytes, mut grown) = (Vec::new(), Vec::new(), 0, 0);
    let mut have = vec![first.tag.object];
    for _ in 0..NEW_TAGS {
        let tag = format!("v1.0.{next}");
        repo.write("groups/web/group.toml", &manifest(*next));
        repo.commit(&tag);
        repo.tag_annotated(&tag);
        repo.run(&["push", "--quiet", "origin", &tag]);
        let before = bytes_below(&store);
        let begun = now_ns();
        let (fetched, list_ms) = bring(&source, *next, &have).await?;
        took.push(ms_between(begun, now_ns()));
        listed.push(list_ms);
        bytes = bytes.max(fetched.stats.bytes);
        grown = grown.max(bytes_below(&store).saturating_sub(before));
        have.push(fetched.tag.object);
        *next += 1;
    }
    let took = Sample::new(took);
    let what = format!("one new tag among {TAGS}, from {words}");
    Ok(vec![
        Row::new(format!("{what}: list, fetch, check"), "<= 1000 ms", took.words("ms"), took.max() <= WANTED_MS),
        Row::new(
            format!("{what}: bytes of the pack"),
            "a few KB, no clone",
            format!("{bytes} received, store grew by {grown}; the repository has {whole}"),
            bytes <= WANTED_BYTES && grown <= 4 * WANTED_BYTES,
        ),
        Row::told(format!("{what}: of it, the list"), Sample::new(listed).words("ms")),
        Row::told(format!("the first tag among {TAGS}, from {words}"), format!("{first_ms:.0} ms, store of {first_bytes} bytes")),
    ])
}

/// Lists, finds the tag, fetches it. Also how long the list took, in milliseconds.
async fn bring(source: &Source, number: u32, have: &[ObjectId]) -> Result<(Fetched, f64), Failure> {
    let begun = now_ns();
    let tags = source.list().await.map_err(|refusal| refusal.message)?;
    let listed = ms_between(begun, now_ns());
    let name = format!("v1.0.{number}");
    let tag = tags.iter().find(|tag| tag.name.as_str() == name).ok_or_else(|| format!("{name} is not listed"))?;
    let fetched = source.fetch(tag, have).await.map_err(|refusal| refusal.message)?;
    Ok((fetched, listed))
}

fn manifest(number: u32) -> String {
    format!("format = 1\n[placement]\nlabels = {{}}\n[service]\nexec = [\"/bin/sleep\", \"inf\"]\n[config]\nnumber = {number}\n")
}

/// Ten thousand commits, each of which changes a file, each with an annotated tag.
fn history(repo: &Repo) -> Result<(), Failure> {
    let mut import = common::git(repo.bare());
    let mut import = import.args(["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn()?;
    let mut text = String::new();
    let who = "Test <test@example.com> 1767323045 +0000";
    for number in 0..TAGS {
        let (file, message) = (manifest(number), format!("v1.0.{number}"));
        let data = |text: &str| format!("data {}\n{text}\n", text.len());
        text.push_str(&format!("commit refs/heads/main\nmark :{}\ncommitter {who}\n{}", number + 1, data(&message)));
        text.push_str(&format!("M 100644 inline groups/web/group.toml\n{}", data(&file)));
        text.push_str(&format!("tag {message}\nfrom :{}\ntagger {who}\n{}", number + 1, data(&message)));
    }
    let mut input = import.stdin.take().ok_or("no pipe to git")?;
    input.write_all(text.as_bytes())?;
    drop(input);
    if !import.wait()?.success() {
        return Err("git fast-import failed".into());
    }
    repo.run(&["fetch", "--quiet", "--no-tags", "origin", "main"]);
    repo.run(&["reset", "--quiet", "--hard", "origin/main"]);
    Ok(())
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// `git daemon` over a folder.
struct Daemon {
    process: Child,
    pid_file: PathBuf,
    url: String,
}

impl Daemon {
    fn start(dir: &Path) -> Result<Self, Failure> {
        let (port, pid_file) = (common::free_port(), dir.join("daemon.pid"));
        let mut command = Command::new("git");
        command.args(["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1"]);
        command.arg(format!("--port={port}")).arg(format!("--base-path={}", dir.display()));
        command.arg(format!("--pid-file={}", pid_file.display()));
        let process = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        for _ in 0..500 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            pause(Duration::from_millis(10));
        }
        Ok(Self { process, pid_file, url: format!("git://127.0.0.1:{port}/config.git") })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // `git` waits for the daemon, which is the one to tell.
        if let Ok(pid) = std::fs::read_to_string(&self.pid_file) {
            drop(Command::new("kill").arg(pid.trim()).status());
        }
        drop(self.process.wait());
    }
}
