//! Releases that are wrong, each pushed over a good one that runs.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{holds_for, wait_for};

use crate::host::{Host, QUIET, WEB, text};

/// Longest time for a release of ten thousand groups, from push to applied.
const MANY_GROUPS_MAX: Duration = Duration::from_secs(60);

/// One way to spoil a release: what it is called, how it is done, the reason, and what the message must hold.
type Case = (&'static str, fn(&Host, &str), &'static str, &'static str);

/// A file of the release is wrong: commit, tag and push as always.
const FILES: &[Case] = &[
    ("invalid TOML", |host, _| write(host, WEB, "format = 1\n[placement\n"), "InvalidConfiguration", "group.toml:2"),
    ("unknown key", |host, tag| change(host, tag, "reload_signal", "reload_singal"), "InvalidConfiguration", "reload_signal"),
    ("wrong type", |host, tag| change(host, tag, "\"SIGHUP\"", "1"), "InvalidConfiguration", "group.toml:6"),
    (
        "missing name in a template",
        |host, _| write(host, "groups/web/config/a.conf.hbs", "{{cfg.vresion}}\n"),
        "InvalidConfiguration",
        "vresion",
    ),
    (
        "cyclic binds",
        |host, _| {
            for (name, other) in [("one", "two"), ("two", "one")] {
                let binds =
                    format!("[exports]\nport = \"port\"\n[config]\nport = 1\n[binds]\nx = {{ group = \"{other}.default\" }}\n");
                host.repo.write(&format!("groups/{name}/group.toml"), &format!("{PLACED}{binds}"));
            }
        },
        "InvalidConfiguration",
        "one.default",
    ),
    (
        "bind to a group that is not there",
        |host, _| {
            let binds = "[binds]\nx = { group = \"nobody.default\" }\n";
            host.repo.write("groups/one/group.toml", &format!("{PLACED}{binds}"));
        },
        "InvalidConfiguration",
        "nobody.default",
    ),
    (
        "two groups on one mount path",
        |host, _| {
            let mount = format!("[mount]\npath = \"{}\"\n", host.mount().display());
            host.repo.write("groups/one/group.toml", &format!("{PLACED}{mount}"));
        },
        "InvalidConfiguration",
        "mnt/web",
    ),
    (
        "a mount path of the system",
        |host, _| write(host, "groups/one/group.toml", &format!("{PLACED}[mount]\npath = \"/proc/sys\"\n")),
        "InvalidConfiguration",
        "/proc",
    ),
    (
        "a mount path outside `mount_roots`",
        |host, _| write(host, "groups/one/group.toml", &format!("{PLACED}[mount]\npath = \"/srv/elsewhere\"\n")),
        "InvalidConfiguration",
        "mount_roots",
    ),
    (
        "a manifest that is not UTF-8",
        |host, _| std::fs::write(host.repo.clone_dir().join(WEB), b"format = 1\n# \xff\xfe\n").unwrap(),
        "InvalidConfiguration",
        "UTF-8",
    ),
    (
        "a template that is not UTF-8",
        |host, _| std::fs::write(host.repo.clone_dir().join("groups/web/config/b.conf.hbs"), b"\xff\xfe {{x}}\n").unwrap(),
        "InvalidConfiguration",
        "b.conf.hbs",
    ),
    (
        "a symbolic link",
        |host, _| std::os::unix::fs::symlink("/etc/passwd", host.repo.clone_dir().join("groups/web/config/passwd")).unwrap(),
        "UnsafePath",
        "passwd",
    ),
    (
        "a Git link",
        |host, _| {
            let id = host.repo.run(&["rev-parse", "HEAD"]);
            host.repo.run(&["add", "--all"]);
            host.repo.run(&["update-index", "--add", "--cacheinfo", &format!("160000,{id},groups/web/config/module")]);
            // `commit` of the fixture would drop it again: there is no such folder.
            host.repo.run(&["commit", "--quiet", "--message", "link"]);
            host.repo.run(&["update-index", "--skip-worktree", "groups/web/config/module"]);
        },
        "UnsafePath",
        "module",
    ),
];

const PLACED: &str = "format = 1\n[placement]\nlabels = {}\n";

/// The tag itself is wrong: made and pushed by the case.
const TAGS: &[Case] = &[
    ("lightweight", |host, tag| drop(host.repo.run(&["tag", tag])), "NotAnnotated", ""),
    ("to a blob", |host, tag| tag_object(host, tag, &format!("HEAD:{WEB}")), "InvalidGitObject", "blob"),
    ("to a tree", |host, tag| tag_object(host, tag, "HEAD^{tree}"), "InvalidGitObject", "tree"),
    ("to a tag", |host, tag| tag_object(host, tag, "v1.0.0"), "InvalidGitObject", "tag"),
    (
        "with another name inside",
        |host, tag| {
            let commit = host.repo.run(&["rev-parse", "HEAD"]);
            let words = format!("object {commit}\ntype commit\ntag v1.0.1\ntagger T <t@example.com> 1700000000 +0000\n\nno\n");
            let id = made_tag(host, &words);
            host.repo.run(&["update-ref", &format!("refs/tags/{tag}"), &id]);
        },
        "TagNameMismatch",
        "v1.0.1",
    ),
];

fn write(host: &Host, path: &str, text: &str) {
    host.repo.write(path, text);
}

fn change(host: &Host, tag: &str, from: &str, to: &str) {
    host.repo.write(WEB, &host.group(tag).replace(from, to));
}

fn tag_object(host: &Host, tag: &str, what: &str) {
    host.repo.run(&["tag", "--annotate", "--message", "no", tag, what]);
}

/// Writes a tag object that `git tag` would not make.
fn made_tag(host: &Host, words: &str) -> String {
    let mut command = host.repo.git(&["hash-object", "-w", "-t", "tag", "--literally", "--stdin"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(words.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

/// A host that allows its own mounts only.
fn host() -> Host {
    Host::with(|settings| {
        let mounts = settings.split_once("data_dir = \"").and_then(|(_, rest)| rest.split_once("/data\"")).unwrap().0.to_owned();
        format!("mount_roots = [\"{mounts}/mnt\"]\n{settings}")
    })
}

/// Each case over the same good release, which must not notice, then a good one.
fn each(cases: &[Case], push: fn(&Host, &str)) {
    let host = host();
    let before = host.untouched();
    let good = host.repo.run(&["rev-parse", "HEAD"]);
    for (number, (name, spoil, reason, words)) in cases.iter().enumerate() {
        let tag = format!("v1.0.{}", number + 10);
        spoil(&host, &tag);
        push(&host, &tag);
        let refused = host.refused(&tag);
        assert_eq!(refused.0, *reason, "{name}: {}", refused.1);
        assert!(refused.1.contains(words), "{name}: `{words}` is not in: {}", refused.1);
        assert_eq!(host.untouched(), before, "{name}");
        host.repo.run(&["reset", "--quiet", "--hard", &good]);
        host.repo.run(&["clean", "--quiet", "-ffd"]);
    }
    holds_for("the good release is left alone", QUIET, || host.untouched() == before);
    host.write("v1.2.0");
    host.repo.commit("good");
    host.repo.tag_annotated("v1.2.0");
    host.repo.run(&["push", "--quiet", "--force", "--tags", "origin", "main"]);
    host.wait_applied("v1.2.0", 1);
}

#[test]
fn a_release_with_a_wrong_file_is_refused_by_name() {
    each(FILES, |host, tag| {
        if host.repo.run(&["status", "--porcelain"]).is_empty() {
            assert_ne!(
                host.repo.run(&["rev-parse", "HEAD"]),
                host.repo.run(&["rev-parse", "v1.0.0^{commit}"]),
                "nothing is spoilt"
            );
        } else {
            host.repo.commit(tag);
        }
        host.repo.tag_annotated(tag);
        host.repo.run(&["push", "--quiet", "--force", "--tags", "origin", "main"]);
    });
}

#[test]
fn a_wrong_tag_is_refused_by_name() {
    each(TAGS, |host, _| {
        host.repo.push_tags();
    });
}

#[test]
fn a_release_over_a_limit_of_the_settings_is_refused_by_name() {
    for (limit, words) in [("files = 3", "3 files"), ("path_bytes = 40", "40 bytes")] {
        let host = Host::with(|settings| format!("{settings}\n[source.limits]\n{limit}\n"));
        let before = host.untouched();
        host.write("v1.1.0");
        host.repo.write("groups/web/config/one-with-a-rather-long-name", "");
        host.repo.release("v1.1.0");
        let (reason, message) = host.refused("v1.1.0");
        assert_eq!(reason, "LimitExceeded", "{message}");
        assert!(message.contains(words), "{message}");
        assert_eq!(host.untouched(), before);
        host.repo.run(&["rm", "--quiet", "groups/web/config/one-with-a-rather-long-name"]);
        host.release("v1.2.0");
        host.wait_applied("v1.2.0", 1);
    }
}

#[test]
fn a_repository_without_a_release_is_named_and_followed_once_it_has_one() {
    let host = Host::bare(|settings| settings);
    assert!(host.said("NoMatchingTag").contains("no tags"), "an empty repository");

    host.write("v1.0.0");
    host.repo.commit("one");
    host.repo.tag_annotated("nightly");
    host.repo.push_tags();
    wait_for("the tag that does not fit is counted", common::LONG, || {
        let message = host.said("NoMatchingTag");
        if message.contains("none of the 1 tags") { Ok(()) } else { Err(message) }
    });

    host.repo.tag_annotated("v1.0.0");
    host.repo.push_tags();
    host.wait_applied("v1.0.0", 1);
}

#[test]
fn a_repository_that_goes_away_and_comes_back_is_followed_again() {
    let host = Host::start();
    let before = host.untouched();
    let away = host.path("away.git");
    std::fs::rename(host.repo.bare(), &away).unwrap();
    let message = host.said("GitOperationFailed");
    assert!(message.contains("config.git"), "{message}");
    assert_eq!(host.untouched(), before);
    std::fs::rename(&away, host.repo.bare()).unwrap();
    host.release("v1.1.0");
    host.wait_applied("v1.1.0", 1);
    let status = host.supervisor.status().unwrap();
    let reasons: Vec<String> = status["conditions"].as_array().unwrap().iter().map(|c| text(&c["reason"])).collect();
    assert!(!reasons.contains(&"GitOperationFailed".to_owned()), "{status:#}");
}

#[test]
fn ten_thousand_groups_in_one_release_are_accepted_in_bounded_time() {
    let host = Host::start();
    host.write("v1.1.0");
    for number in 0..10_000 {
        let text = "format = 1\n[placement]\nlabels = { role = \"elsewhere\" }\n[config]\nport = 1\n";
        host.repo.write(&format!("groups/g{number:05}/group.toml"), text);
    }
    host.repo.commit("many");
    host.repo.tag_annotated("v1.1.0");
    let begun = Instant::now();
    host.repo.push_tags();
    host.refused_or_applied("v1.1.0", MANY_GROUPS_MAX);
    assert!(begun.elapsed() < MANY_GROUPS_MAX, "{:?}", begun.elapsed());
    host.wait_applied("v1.1.0", 1);
    let status = host.supervisor.status().unwrap();
    assert_eq!(status["groups"].as_array().map(Vec::len), Some(1), "{status:#}");
}

impl Host {
    /// Waits until a tag is what runs; at once fails where it is refused.
    fn refused_or_applied(&self, tag: &str, deadline: Duration) {
        wait_for(&format!("{tag} runs"), deadline, || {
            let status = self.supervisor.status()?;
            assert!(status["refused"].as_array().is_none_or(Vec::is_empty), "{status:#}");
            let runs = status["release"]["tag"] == tag && !status["release"]["applied_at"].is_null();
            if runs { Ok(()) } else { Err(format!("{status:#}")) }
        });
    }
}
