//! What is wrong between files: folders, mounts, binds, several files at once.

use super::{HEAD, REDIS, errors, line, tree};
use crate::manifest::{Severity, parse_release};

fn with(text: &str) -> String {
    format!("{HEAD}{text}")
}

#[test]
fn all_errors_of_all_files_are_listed_together_in_order() {
    let web = "format = 1\n[placement]\n[service]\nexec = [\"/bin/web\"]\nstop_signal = \"SIGFOO\"\n\nrestart_max = 3\n[mount]\npath = 3\n";
    let files = [
        ("tagfall.toml", "format = 1\nmin_version = \"1.x\"\n[defaults.update]\nspeed = 1\n"),
        ("groups/web/group.toml", web),
        ("groups/db/group.toml", "format = 1\nplacement = {}\n[service\nexec = [\n"),
        ("groups/web/rings/staging.toml", "[config]\nprot = 1\n"),
        ("docs/group.toml", "this is not ours ["),
    ];
    let wanted = [
        "db/group.toml:3:9 invalid TOML: unclosed table, expected `]`",
        "db/group.toml:4:9 invalid TOML: unclosed array, expected `]`",
        "web/group.toml:5:15 `stop_signal` in [service] must be a signal's name such as `SIGTERM`, not `SIGFOO`",
        "web/group.toml:7:1 unknown key `restart_max` in [service] (did you mean `backoff`?)",
        "web/group.toml:9:8 `path` in [mount] must be an absolute path of at least two parts, such as `/etc/guestbook`, not an integer",
        "web/rings/staging.toml:2:1 `prot` is not in [config] of `group.toml` \
         (give it a default in `group.toml`, or name its table in `config_open`)",
        "tagfall.toml:2:15 `min_version` must be a semantic version, such as `1.2.0`, not `1.x`",
        "tagfall.toml:4:1 unknown key `speed` in [update]",
    ];
    let found = errors(files);
    assert_eq!(found, wanted, "{found:#?}");
}

#[test]
fn a_diagnostic_prints_as_the_style_asks() {
    let text = "format = 1\n[placement]\n\n[service]\nexec = [\"/bin/web\"]\n\nrestart_max = 3\n";
    let found = parse_release(&tree([("groups/web/group.toml", text)]), None).unwrap_err();
    let wanted =
        "error: unknown key `restart_max` in [service]\n  --> groups/web/group.toml:7:1\n  hint: did you mean `backoff`?";
    assert_eq!(found[0].to_string(), wanted);
    let json = serde_json::to_value(&found[0]).unwrap();
    assert_eq!((&json["severity"], &json["line"], &json["column"]), (&"error".into(), &7.into(), &1.into()));
}

/// Files, and what is wrong with them.
type FolderRow = (&'static [(&'static str, &'static str)], &'static [&'static str]);

#[test]
fn folders_must_name_groups_once_and_hold_a_manifest() {
    let rows: [FolderRow; 9] = [
        (
            &[("groups/web/group.toml", HEAD), ("groups/web.default/group.toml", HEAD)],
            &["web.default/group.toml:1:1 the folders `web` and `web.default` are the same group, `web.default` \
               (`.default` may be left out of a folder's name; keep one of them)"],
        ),
        (
            &[("groups/we b/group.toml", HEAD)],
            &["we b/group.toml:1:1 the folder's name is the group's, and `we b` is not a group name: only letters, digits, \
               `-` and `_` may stand in it, with one dot between service and group"],
        ),
        (&[("groups/web/config/a", "")], &["web/group.toml:1:1 `groups/web` has no `group.toml`"]),
        (
            &[("groups/web/groups.toml", HEAD)],
            &[
                "web/group.toml:1:1 `groups/web` has no `group.toml` (rename `groups.toml` to `group.toml`)",
                "web/groups.toml:1:1 `groups.toml` has no meaning in a group's folder and is ignored (did you mean `group.toml`?)",
            ],
        ),
        (
            &[("groups/web/group.toml", HEAD), ("groups/web/config/a.conf", "")],
            &["web/group.toml:1:1 `groups/web/config` has files such as `a.conf`, and [mount] is missing \
               (say where they are published: [mount] path = \"/etc/NAME\")"],
        ),
        (
            &[
                ("groups/web/group.toml", "format = 1\nplacement = {}\nmount.path = \"/etc/web\""),
                ("groups/web/config/a", ""),
                ("groups/web/config/a.hbs", ""),
                ("groups/web/config/b.hbs", ""),
                ("groups/web/config/b/c", ""),
                ("groups/web/config/.hbs", ""),
            ],
            &[
                "web/config/.hbs:1:1 a template's name is that of the file it makes, and nothing is left of this one",
                "web/config/a.hbs:1:1 `a` and `a.hbs` would both be published as `a`",
                "web/config/b.hbs:1:1 `b.hbs` would be published as `b`, which is the folder of `b/c`",
            ],
        ),
        (
            &[("groups/web/group.toml", HEAD), ("groups/web/rings/-x.toml", "")],
            &["web/rings/-x.toml:1:1 `-x` is not a ring's name: it must be a name of letters, digits, `_`, `-` and `.`, \
               at most 63 bytes long"],
        ),
        (&[("tagfall.toml", "format = 3\n")], &["tagfall.toml:1:10 `format` must be 1, not 3"]),
        (&[("tagfall.toml", "")], &["tagfall.toml:1:1 `format` is missing (The version of this file's format: 1.)"]),
    ];
    for (files, wanted) in rows {
        let found = errors(files.iter().copied());
        assert_eq!(found, wanted, "{found:#?}");
    }
}

#[test]
fn paths_longer_than_can_be_published_are_refused() {
    let long = format!("groups/web/config/{}", "a".repeat(256));
    let deep = format!("groups/web/config/{}x", "abc/".repeat(256));
    let manifest = with("mount.path = \"/etc/web\"");
    let found = errors([("groups/web/group.toml", manifest.as_str()), (&long, ""), (&deep, "")]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|found| found.contains("this path is longer than can be published")), "{found:?}");
}

#[test]
fn what_has_no_meaning_is_warned_about_and_refuses_nothing() {
    let files = [
        ("groups/web/group.toml", HEAD),
        ("groups/web/confg/app.toml", "["),
        ("groups/web/README.md", ""),
        ("groups/web/.gitkeep", ""),
        ("groups/web/x-notes/a", ""),
        ("groups/web/rings/notes.txt", ""),
        ("groups/stray.toml", "["),
        ("groups/README", ""),
        ("README.md", ""),
        ("other/group.toml", "["),
    ];
    let parsed = parse_release(&tree(files), None).unwrap();
    assert_eq!(parsed.groups.len(), 1);
    assert!(parsed.warnings.iter().all(|found| found.severity == Severity::Warning));
    let warnings: Vec<_> = parsed.warnings.iter().map(|found| format!("{}:{}", found.file, line(found))).collect();
    let wanted = [
        "groups/stray.toml:1:1 `stray.toml` is a file in `groups/` and is ignored (each group is a folder below `groups/`)",
        "groups/web/confg:1:1 `confg` has no meaning in a group's folder and is ignored (did you mean `config`?)",
        "groups/web/rings/notes.txt:1:1 `rings/notes.txt` is not an overlay and is ignored (an overlay is `rings/RING.toml`)",
    ];
    assert_eq!(warnings, wanted);
}

#[test]
fn text_that_is_not_utf_8_is_told_with_its_place() {
    let found =
        parse_release(&tree([("groups/web/group.toml", &b"format = 1\nx-a = \"\xc3\xa9\xff\"\n"[..])]), None).unwrap_err();
    let found: Vec<_> = found.iter().map(line).collect();
    assert_eq!(found, ["2:9 this file is not UTF-8 text"]);
}

#[test]
fn nesting_and_size_are_bounded_before_anything_recurses() {
    let deep = [
        format!("{}x = 1", "a.".repeat(200_000)),
        format!("x-a = {}", "[".repeat(200_000)),
        format!("x-a = {}", "{a.b.c = ".repeat(60_000)),
        format!("[{}x]", "a.".repeat(200_000)),
    ];
    for text in deep {
        let found = errors([("groups/web/group.toml", text.as_str())]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("lie more than 64 levels deep"), "{found:?}");
    }
    let large = format!("x-a = \"{}\"", "a".repeat(1 << 20));
    assert_eq!(
        errors([("groups/web/group.toml", large.as_str())]),
        ["web/group.toml:1:1 this file is larger than 1048576 bytes"]
    );
}

#[test]
fn a_file_full_of_errors_lists_a_hundred() {
    let text: String = (0..5_000).map(|at| format!("key{at} = 1\n")).collect();
    let found = errors([("groups/web/group.toml", text.as_str())]);
    assert_eq!(found.len(), 101);
    assert!(
        found.iter().any(|found| found.ends_with("this file has more than 100 errors; the others are not listed")),
        "{found:#?}"
    );
}

#[test]
fn two_groups_that_may_meet_cannot_share_a_mount() {
    let hint = "(give each its own folder, or labels with different values of one key)";
    // Labels and path of two groups, and what is wrong.
    let same = [
        format!("a/group.toml:3:14 `/etc/x`, the mount path of `a.default`, is also the mount path of `b.default` {hint}"),
        format!("b/group.toml:3:14 `/etc/x`, the mount path of `b.default`, is also the mount path of `a.default` {hint}"),
    ];
    let below = [
        format!(
            "a/group.toml:3:14 `/etc/x`, the mount path of `a.default`, lies above `/etc/x/y`, the mount path of `b.default` {hint}"
        ),
        format!(
            "b/group.toml:3:14 `/etc/x/y`, the mount path of `b.default`, lies below `/etc/x`, the mount path of `a.default` {hint}"
        ),
    ];
    let rows: [([&str; 2], [&str; 2], &[String]); 7] = [
        (["", "/etc/x"], ["", "/etc/x"], &same),
        (["", "/etc/x"], ["", "/etc/x/y"], &below),
        (["", "/etc/x"], ["", "/etc/xy"], &[]),
        (["role = \"a\"", "/etc/x"], ["role = \"b\"", "/etc/x"], &[]),
        (["role = \"a\"", "/etc/x"], ["role = \"a\", zone = \"1\"", "/etc/x"], &same),
        (["role = \"a\"", "/etc/x"], ["zone = \"1\"", "/etc/x/y"], &below),
        (["role = \"a\", zone = \"1\"", "/etc/x"], ["role = \"a\", zone = \"2\"", "/etc/x/y"], &[]),
    ];
    for ([labels_a, path_a], [labels_b, path_b], wanted) in rows {
        let a = format!("format = 1\nplacement.labels = {{ {labels_a} }}\nmount.path = \"{path_a}\"\n");
        let b = format!("format = 1\nplacement.labels = {{ {labels_b} }}\nmount.path = \"{path_b}\"\n");
        let found = errors([("groups/a/group.toml", a.as_str()), ("groups/b/group.toml", b.as_str())]);
        assert_eq!(found, wanted, "{labels_a} {path_a} {labels_b} {path_b}");
    }
}

/// Every pair, compared plainly.
#[test]
fn the_quick_way_to_find_shared_mounts_finds_what_the_plain_way_finds() {
    let paths = ["/etc/a", "/etc/a/b", "/etc/a/b/c", "/etc/b", "/srv/x"];
    // Labels over three keys and two values each, and none: 27 placements on each path, too many for the pairwise way.
    for seed in 0..40_u32 {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        let groups: Vec<(usize, [u32; 3])> = (0..30).map(|_| (next(5) as usize, [next(4), next(4), next(4)])).collect();
        let may_meet = |a: &[u32; 3], b: &[u32; 3]| a.iter().zip(b).all(|(a, b)| *a == 0 || *b == 0 || a == b);
        let nested = |a: &str, b: &str| a == b || a.starts_with(&format!("{b}/")) || b.starts_with(&format!("{a}/"));
        let conflicted = |at: usize| {
            let (path, labels) = &groups[at];
            let others = groups.iter().enumerate().filter(|(other, _)| *other != at);
            others.into_iter().any(|(_, (other, theirs))| nested(paths[*path], paths[*other]) && may_meet(labels, theirs))
        };
        let files: Vec<(String, String)> = groups
            .iter()
            .enumerate()
            .map(|(at, (path, labels))| {
                let pairs: Vec<_> = labels.iter().enumerate().filter(|(_, value)| **value > 0).collect();
                let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("k{key} = \"v{value}\"")).collect();
                let text =
                    format!("format = 1\nplacement.labels = {{ {} }}\nmount.path = \"{}\"", pairs.join(", "), paths[*path]);
                (format!("groups/g{at:02}/group.toml"), text)
            })
            .collect();
        let found = parse_release(&tree(files.iter().map(|(path, text)| (path, text))), None).err().unwrap_or_default();
        let told: std::collections::BTreeSet<String> = found.iter().map(|found| found.file.clone()).collect();
        let wanted: std::collections::BTreeSet<String> =
            (0..groups.len()).filter(|at| conflicted(*at)).map(|at| format!("groups/g{at:02}/group.toml")).collect();
        assert_eq!(told, wanted, "seed {seed}: {groups:?}");
    }
}

#[test]
fn a_cycle_of_strict_binds_is_printed_once() {
    let bind = |group: &str, mode: &str| with(&format!("[binds]\nnext = {{ group = \"{group}\", mode = \"{mode}\" }}\n"));
    let cycle = |mode: &str| {
        let texts = [
            ("groups/a/group.toml", bind("b", "strict")),
            ("groups/b/group.toml", bind("c", mode)),
            ("groups/c/group.toml", bind("a", "strict")),
            ("groups/d/group.toml", bind("b", "strict")),
        ];
        errors(texts.iter().map(|(path, text)| (*path, text.as_str())))
    };
    assert_eq!(cycle("relaxed"), Vec::<String>::new());
    let wanted = "a/group.toml:4:18 strict binds form a cycle, so none of these groups could start: \
                  a.default → b.default → c.default → a.default (make one of these binds `mode = \"relaxed\"`)";
    assert_eq!(cycle("strict"), [wanted]);
}

#[test]
fn a_long_chain_of_strict_binds_is_no_cycle_and_no_recursion() {
    let text = |at: usize| match at {
        0 => HEAD.to_owned(),
        _ => with(&format!("binds.next = {{ group = \"g{}\" }}\n", at - 1)),
    };
    let files: Vec<_> = (0..3_000).map(|at| (format!("groups/g{at}/group.toml"), text(at))).collect();
    assert!(parse_release(&tree(files), None).is_ok());
}

#[test]
fn a_group_that_could_not_be_read_makes_no_errors_elsewhere() {
    let web = with("[binds]\ndb = { group = \"redis\", needs = [\"port\"] }\n");
    for broken in ["[", "format = 1\nplacement = {}\n[exports\nport = \"port\"\n"] {
        let found = errors([("groups/web/group.toml", web.as_str()), ("groups/redis/group.toml", broken)]);
        assert!(found.iter().all(|found| found.starts_with("redis/")), "{found:?}");
        assert!(!found.is_empty());
    }
    assert_eq!(errors([("groups/web/group.toml", web.as_str()), ("groups/redis/group.toml", REDIS)]), Vec::<String>::new());
}

#[test]
fn thousands_of_groups_parse() {
    let group = |at: usize| {
        let service = "[service]\nexec = [\"/usr/bin/app\", \"--config\", \"{{mount.path}}/app.toml\"]\nenv = { A = \"b\" }\n";
        let rest = format!("[mount]\npath = \"/etc/app/{at}\"\n[config]\nport = {at}\n[exports]\nport = \"port\"\n");
        let bind = if at.is_multiple_of(10) {
            String::new()
        } else {
            format!("[binds]\nup = {{ group = \"g{}\", needs = [\"port\"] }}\n", at - at % 10)
        };
        with(&format!("{service}{rest}{bind}"))
    };
    let manifests = (0..2_000).map(|at| (format!("groups/g{at}/group.toml"), group(at)));
    let overlays =
        (0..2_000).step_by(3).map(|at| (format!("groups/g{at}/rings/staging.toml"), "[config]\nport = 1\n".to_owned()));
    let templates = (0..2_000).map(|at| (format!("groups/g{at}/config/app.toml.hbs"), "port = {{cfg.port}}".to_owned()));
    let files: Vec<_> = manifests.chain(overlays).chain(templates).collect();
    let parsed = parse_release(&tree(files), Some("staging")).unwrap();
    assert_eq!((parsed.groups.len(), parsed.warnings.len()), (2_000, 0));
    let ports = parsed.groups.values().filter(|group| group.config["port"] == 1).count();
    assert_eq!(ports, 668, "each third group, and the one whose own port it is");
}
