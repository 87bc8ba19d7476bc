//! One new tag among ten thousand: no clone, bytes by the change.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::repository::Repository;
use super::servers::git_daemon;
use super::{fetch, open, run};

const TAGS: u32 = 10_000;
const COMMITS: u32 = 50;
const GROUPS: u32 = 1_000;
/// Of a tag, a commit, four trees (one of a thousand names, sent as a delta or compressed) and a file.
const CHANGE_MAX_BYTES: u64 = 64 << 10;
/// On a machine that does other things as well, with a debug build; the benchmark measures.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Fifty commits over a thousand groups, two hundred tags each.
fn large() -> Repository {
    let repository = Repository::new();
    let mut stream = String::new();
    for commit in 0..COMMITS {
        let who = "T <t@example.com> 1700000000 +0000";
        writeln!(stream, "commit refs/heads/main\ncommitter {who}\ndata 1\nx").unwrap();
        for group in (0..GROUPS).filter(|group| commit == 0 || group % COMMITS == commit) {
            let content =
                format!("format = 1\n[placement]\nlabels = {{}}\n[config]\nvalue = {commit}\nname = \"{}\"\n", group * 7919);
            write!(stream, "M 100644 inline groups/g{group}/group.toml\ndata {}\n{content}\n", content.len()).unwrap();
        }
        for tag in 0..TAGS / COMMITS {
            writeln!(stream, "tag v0.{commit}.{tag}\nfrom refs/heads/main\ntagger {who}\ndata 1\nx").unwrap();
        }
    }
    repository.git_with(&["fast-import", "--quiet"], stream.as_bytes());
    repository.git(&["reset", "-q", "--hard", "main"]);
    repository.git(&["pack-refs", "--all"]);
    repository
}

#[test]
fn one_new_tag_among_ten_thousand_brings_its_change_alone() {
    let repository = large();
    let urls = [repository.url(), git_daemon(&repository)];
    run(async {
        for (number, url) in urls.iter().enumerate() {
            let source = open(url, &repository.store().join(number.to_string()));
            assert_eq!(source.list().await.unwrap().len() as u32, TAGS + u32::try_from(number).unwrap());
            let first = fetch(&source, "v0.49.199").await.unwrap();
            assert_eq!(first.files.len() as u32, GROUPS);
            // A server adds the tags that point at what it sends anyway: those of this commit.
            let most = u64::from(2 * GROUPS + TAGS / COMMITS + 10);
            assert!(first.stats.objects < most, "one tree, not the history: {:?}", first.stats);
            let path = "groups/g7/group.toml";
            repository.write(path, &format!("format = 1\n[placement]\nlabels = {{}}\n# {number}\n"));
            let name = format!("v1.{number}.0");
            repository.release(&name);
            let from = Instant::now();
            let next = fetch(&source, &name).await.unwrap();
            let took = from.elapsed();
            println!("{url}: list and fetch of one tag among {TAGS}: {took:?}, {:?}", next.stats);
            assert!(next.stats.objects <= 6, "tag, commit, three trees, one file: {:?}", next.stats);
            assert!(next.stats.bytes < CHANGE_MAX_BYTES, "{:?}", next.stats);
            assert!(took < TIME_MAX, "{took:?}");
        }
    });
}
