//! `rings/RING.toml` and `tagfall.toml`.

use std::time::Duration;

use super::{errors, line, tree};
use crate::manifest::parse_release;
use crate::model::{Group, Strategy};

const WEB: &str = r#"format = 1
config_open = ["free"]
placement.labels = { role = "web" }
[service]
exec = ["/bin/web"]
env = { A = "1", B = "2" }
[config]
port = 8080
ratio = 1.5
name = "web"
on = true
list = [1, 2]
[config.db]
host = "a"
[config.free]
[exports]
port = "port"
[mount]
path = "/etc/web"
"#;

fn parse(ring: Option<&str>, overlay: &str) -> Group {
    let files = [("groups/web/group.toml", WEB), ("groups/web/rings/staging.toml", overlay)];
    let parsed = parse_release(&tree(files), ring).unwrap();
    (*parsed.groups[&"web".parse().unwrap()]).clone()
}

#[test]
fn an_overlay_merges_tables_by_key_and_replaces_the_rest() {
    let overlay = r#"
        placement.labels = { zone = "a" }
        service = { exec = ["/bin/web", "--debug"], env = { B = "3" }, stop_timeout = "1s" }
        [config]
        list = [3]
        db.host = "b"
        free.anything = { goes = 1 }
    "#;
    let group = parse(Some("staging"), overlay);
    let service = group.service.unwrap();
    assert_eq!(service.exec, ["/bin/web", "--debug"]);
    assert_eq!(service.env.into_iter().collect::<Vec<_>>(), [("A".into(), "1".into()), ("B".into(), "3".into())]);
    assert_eq!(service.stop_timeout, Duration::from_secs(1));
    assert_eq!(group.placement.len(), 2);
    let config = serde_json::json!({ "port": 8080, "ratio": 1.5, "name": "web", "on": true, "list": [3], "db": { "host": "b" },
        "free": { "anything": { "goes": 1 } } });
    assert_eq!(group.config, config);
    assert_eq!(
        group.config_ring,
        serde_json::json!({ "list": [3], "db": { "host": "b" }, "free": { "anything": { "goes": 1 } } })
    );
    assert_eq!(group.config_default["list"], serde_json::json!([1, 2]));
    let keys: Vec<&String> = group.config.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["port", "ratio", "name", "on", "list", "db", "free"], "as written");
}

#[test]
fn only_the_own_rings_overlay_is_applied_and_counted() {
    let plain = parse(None, "[config]\nport = 1\n");
    let other = parse(Some("production"), "[config]\nport = 2\n");
    let own = parse(Some("staging"), "[config]\nport = 2\n");
    assert_eq!((&plain.config["port"], &other.config["port"], &own.config["port"]), (&8080.into(), &8080.into(), &2.into()));
    assert_eq!(plain.revision, other.revision, "another ring's overlay is no change here");
    assert_ne!(plain.revision, own.revision);
    assert_eq!(plain.config_ring, serde_json::json!({}));
}

#[test]
fn every_rings_overlay_is_checked_and_errors_point_into_it() {
    let rows: [(&str, &[&str]); 10] = [
        ("format = 1\n", &["1:1 `format` stands in `group.toml` only"]),
        ("[config]\nprt = 1\n", &["2:1 `prt` is not in [config] of `group.toml` (did you mean `port`?)"]),
        ("[config]\nport = 1.0\n", &["2:8 `port` must be an integer, as in [config] of `group.toml`, not a float"]),
        (
            "[config]\nratio = 1\nname = 1\n",
            &[
                "2:9 `ratio` must be a float, as in [config] of `group.toml`, not an integer",
                "3:8 `name` must be a string, as in [config] of `group.toml`, not an integer",
            ],
        ),
        (
            "[config]\nlist = \"x\"\non = 1\ndb = []\n",
            &[
                "2:8 `list` must be a list, as in [config] of `group.toml`, not a string",
                "3:6 `on` must be a boolean, as in [config] of `group.toml`, not an integer",
                "4:6 `db` must be a table, as in [config] of `group.toml`, not a list",
            ],
        ),
        ("[config.db]\nhots = \"x\"\n", &["2:1 `db.hots` is not in [config] of `group.toml` (did you mean `host`?)"]),
        ("[service]\nexec = 1\n", &["2:8 `exec` in [service] must be a list that is not empty, not an integer"]),
        (
            "[service.container]\nimage = \"x\"\n",
            &["1:1 `exec` and `container` cannot both stand in [service] \
             (leave one of them out; a container's arguments are `command` in [service.container])"],
        ),
        ("[exports]\nhost = \"db.hsot\"\n", &["2:8 the export's path `db.hsot` is not in [config] (did you mean `db.host`?)"]),
        (
            "[binds]\nx = { group = \"wbe\" }\n",
            &["2:15 the bind `x` names `wbe.default`, which is not a group of this release (did you mean `web.default`?)"],
        ),
    ];
    for (overlay, wanted) in rows {
        for ring in [None, Some("staging"), Some("production")] {
            let files = tree([("groups/web/group.toml", WEB), ("groups/web/rings/staging.toml", overlay)]);
            let found = parse_release(&files, ring).unwrap_err();
            assert!(found.iter().all(|found| found.file == "groups/web/rings/staging.toml"), "{found:?}");
            assert_eq!(found.iter().map(line).collect::<Vec<_>>(), wanted, "{overlay}");
        }
    }
}

#[test]
fn an_overlay_may_not_move_a_mount_onto_anothers() {
    let other = "format = 1\nplacement = {}\nmount.path = \"/srv/other\"\n";
    let overlay = "mount.path = \"/srv/other/below\"\n";
    let found =
        errors([("groups/web/group.toml", WEB), ("groups/web/rings/staging.toml", overlay), ("groups/other/group.toml", other)]);
    let hint = "(give each its own folder, or labels with different values of one key)";
    let wanted = [
        format!(
            "other/group.toml:3:14 `/srv/other`, the mount path of `other.default`, lies above `/srv/other/below`, the mount path of `web.default` {hint}"
        ),
        format!(
            "web/rings/staging.toml:1:14 `/srv/other/below`, the mount path of `web.default`, lies below `/srv/other`, the mount path of `other.default` {hint}"
        ),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn an_overlay_may_close_a_cycle_for_its_ring_only() {
    let a = "format = 1\nplacement = {}\n[binds]\nb = { group = \"b\" }\n";
    let b = "format = 1\nplacement = {}\n";
    let found = errors([
        ("groups/a/group.toml", a),
        ("groups/b/group.toml", b),
        ("groups/b/rings/x.toml", "binds.a = { group = \"a\" }\n"),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("a/group.toml:4:15 strict binds form a cycle"), "{found:?}");
}

#[test]
fn the_repositorys_defaults_lie_below_every_group() {
    let repository = "format = 1\nmin_version = \"0.1.0\"\n[defaults.update]\nstrategy = \"at-once\"\ndeadline = \"1m\"\n\
                      [defaults.service]\nbackoff = { max = \"5s\" }\n";
    let web = "format = 1\nplacement = {}\n[service]\nexec = [\"x\"]\nbackoff = { min = \"1s\" }\n[update]\ndeadline = \"2m\"\n";
    let files = [
        ("tagfall.toml", repository),
        ("groups/web/group.toml", web),
        ("groups/conf/group.toml", "format = 1\nplacement = {}\n"),
    ];
    let parsed = parse_release(&tree(files), None).unwrap();
    assert_eq!(parsed.min_version, Some(semver::Version::new(0, 1, 0)));
    let web = &parsed.groups[&"web".parse().unwrap()];
    assert_eq!((web.update.strategy, web.update.deadline), (Strategy::AtOnce, Duration::from_secs(120)));
    let backoff = web.service.as_ref().unwrap().backoff;
    assert_eq!((backoff.min, backoff.max), (Duration::from_secs(1), Duration::from_secs(5)));
    let conf = &parsed.groups[&"conf".parse().unwrap()];
    assert_eq!(conf.update.deadline, Duration::from_secs(60));
    assert!(conf.service.is_none(), "defaults of [service] make no service");
}

#[test]
fn a_wrong_default_of_the_repository_is_told_once_and_in_its_own_file() {
    let repository = "format = 1\n[defaults.service.backoff]\nmin = \"1m\"\nmax = \"1s\"\n";
    let web = "format = 1\nplacement = {}\n[service]\nexec = [\"x\"]\n";
    let found = errors([("tagfall.toml", repository), ("groups/a/group.toml", web), ("groups/b/group.toml", web)]);
    assert_eq!(found, ["tagfall.toml:3:7 `min` (1m) must be at most `max` (1s) in [service.backoff]"]);
}
