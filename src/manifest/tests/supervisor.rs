//! Settings of the supervisor, and config layers.

use std::path::PathBuf;
use std::time::Duration;

use super::line;
use crate::manifest::{Settings, VerifyMode, parse_config_layer, parse_settings};

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn sets(sets: &[&str]) -> Vec<String> {
    sets.iter().map(|set| (*set).to_owned()).collect()
}

fn good(file: &str, variables: &[(&str, &str)], options: &[&str]) -> Settings {
    parse_settings(Some(("s.toml", file)), &env(variables), &sets(options), "host-1").unwrap_or_else(|found| panic!("{found:#?}"))
}

#[test]
fn one_set_is_enough_and_the_rest_has_defaults() {
    let settings = parse_settings(None, &[], &sets(&["source.url=/srv/config.git"]), "host-1").unwrap();
    assert_eq!((settings.name.as_str(), settings.data_dir, settings.mount_roots), ("host-1", None, None));
    let source = settings.source;
    assert_eq!((source.url.as_str(), source.tag_prefix.as_str(), source.prerelease), ("/srv/config.git", "v", false));
    assert_eq!((source.semver, source.poll), (semver::VersionReq::STAR, Duration::from_secs(30)));
    assert_eq!((source.verify.mode, source.verify.threshold), (VerifyMode::Required, 1));
    assert_eq!(source.verify.allowed_signers, Some(PathBuf::from("/etc/tagfall/allowed_signers")));
    assert_eq!((source.limits.pack_bytes, source.limits.seconds, source.limits.path_depth), (256 << 20, 120, 32));
    assert_eq!((settings.ring, settings.api.socket, settings.api.listen), (None, None, None));
}

const FULL: &str = r#"
name = "web-1"
labels = { role = "web", zone = "ams1" }
data_dir = "/var/lib/tagfall"
mount_roots = ["/etc", "/srv"]
[source]
url = "https://git.example.com/ops/config.git"
tag_prefix = "web/v"
semver = ">=1.0.0, <2.0.0"
prerelease = true
poll = "10s"
[source.verify]
mode = "off"
allowed_signers = "/etc/tagfall/signers"
threshold = 2
[source.limits]
pack_bytes = "1MiB"
tags = 5
[source.credentials]
username = "bot"
token_file = "/etc/tagfall/token"
[ring]
name = "production"
listen = "0.0.0.0:9638"
advertise = "10.0.0.5:9638"
peers = ["10.0.0.1:9638", "db:9638"]
key_file = "/etc/tagfall/ring.key"
[api]
socket = "/run/tagfall/supervisor.sock"
listen = "127.0.0.1:9631"
token_file = "/etc/tagfall/api.token"
tls = { cert = "/a", key = "/b", client_ca = "/c" }
"#;

#[test]
fn every_key_says_what_it_means() {
    let settings = good(FULL, &[], &[]);
    assert_eq!((settings.name.as_str(), settings.labels.len()), ("web-1", 2));
    assert_eq!(settings.mount_roots, Some(vec!["/etc".to_owned(), "/srv".to_owned()]));
    let source = settings.source;
    assert_eq!((source.tag_prefix.as_str(), source.prerelease, source.poll), ("web/v", true, Duration::from_secs(10)));
    assert!(source.semver.matches(&semver::Version::new(1, 9, 0)) && !source.semver.matches(&semver::Version::new(2, 0, 0)));
    assert_eq!((source.verify.mode, source.verify.threshold), (VerifyMode::Off, 2));
    assert_eq!((source.limits.pack_bytes, source.limits.tags, source.limits.file_bytes), (1 << 20, 5, 32 << 20));
    assert_eq!(source.credentials.username.as_deref(), Some("bot"));
    let ring = settings.ring.unwrap();
    assert_eq!((ring.name.as_str(), ring.peers.len(), ring.listen.port()), ("production", 2, 9638));
    assert_eq!(settings.api.tls.unwrap().client_ca, Some(PathBuf::from("/c")));
}

#[test]
fn the_environment_wins_over_the_file_and_set_over_both() {
    let file = "name = \"file\"\n[source]\nurl = \"/file\"\npoll = \"1m\"\n";
    let variables = [
        ("TAGFALL_SOURCE__URL", "/env"),
        ("TAGFALL_SOURCE__POLL", "2m"),
        ("TAGFALL_SOURCE__PRERELEASE", "true"),
        ("TAGFALL_LABELS", "{ role = \"db\", zone = \"x\" }"),
        ("TAGFALL_SOURCE__LIMITS__TAGS", "7"),
    ];
    let options = ["source.url=/set", "labels.role=web", "ring.name=r", "ring.peers=[\"a:1\"]", "source.verify.threshold=3"];
    let settings = good(file, &variables, &options);
    assert_eq!((settings.name.as_str(), settings.source.url.as_str()), ("file", "/set"));
    assert_eq!((settings.source.poll, settings.source.prerelease), (Duration::from_secs(120), true));
    assert_eq!((settings.labels["role"].as_str(), settings.labels["zone"].as_str()), ("web", "x"));
    assert_eq!((settings.source.limits.tags, settings.source.verify.threshold), (7, 3));
    assert_eq!(settings.ring.unwrap().peers, ["a:1"]);
    let dotted = good(file, &[], &["labels.\"a.b\"=c=d"]);
    assert_eq!(dotted.labels["a.b"], "c=d");
}

#[test]
fn variables_of_others_are_left_alone() {
    let variables = [
        ("TAGFALL_CFG_REDIS", "port = 1"),
        ("TAGFALL_API", "unix:/x"),
        ("TAGFALL_LOG", "debug"),
        ("TAGFALL_GROUP", "web.default"),
        ("TAGFALL_RELEASE", "v1"),
        ("TAGFALL_SERVICE_HOST", "10.0.0.1"),
        ("TAGFALL_PORT", "tcp://10.0.0.1:80"),
        ("HOME", "/root"),
    ];
    assert_eq!(good("source.url = \"/x\"", &variables, &[]), good("source.url = \"/x\"", &[], &[]));
}

/// File, environment and options, and what is wrong with them.
type Row = (Option<&'static str>, &'static [(&'static str, &'static str)], &'static [&'static str], &'static [&'static str]);

const MISTAKES: [Row; 20] = [
    (Some(""), &[], &[], &["s.toml:1:1 [source] is missing (The configuration repository.)"]),
    (None, &[], &[], &["--set:1:1 [source] is missing (The configuration repository.)"]),
    (Some("[source]\n"), &[], &[], &["s.toml:1:1 `url` is missing in [source] (A path, a URL, or user@host:path.)"]),
    (
        Some("[source]\nurl = \"\"\npoll = 30\nsemver = \"new\"\n"),
        &[],
        &[],
        &[
            "s.toml:2:7 `url` in [source] must be a path, a URL (`file://`, `https://`, `http://`, `ssh://`) or `user@host:path`, not ``",
            "s.toml:3:8 `poll` in [source] must be a duration from `1s` to `7d`, such as \"30s\", not an integer",
            "s.toml:4:10 `semver` in [source] must be a range of versions, such as `>=1.0.0, <2.0.0`, not `new`",
        ],
    ),
    (Some("source.url = \"/x\"\nnam = \"a\"\n"), &[], &[], &["s.toml:2:1 unknown key `nam` (did you mean `name`?)"]),
    (
        Some("source = { url = \"/x\", repo = \"y\" }\n"),
        &[],
        &[],
        &["s.toml:1:24 unknown key `repo` in [source] (did you mean `url`?)"],
    ),
    (
        Some("source.url = \"/x\"\nsource.verify.mode = \"none\"\n"),
        &[],
        &[],
        &["s.toml:2:22 `mode` in [source.verify] must be `required` or `off`, not `none`"],
    ),
    (
        Some("source.url = \"/x\"\nsource.tag_prefix = \"a b\"\n"),
        &[],
        &[],
        &["s.toml:2:21 `tag_prefix` in [source] must be what may stand in a tag's name, not `a b`"],
    ),
    (
        Some("source.url = \"/x\"\nsource.limits = { pack_bytes = 5, seconds = \"30s\" }\n"),
        &[],
        &[],
        &[
            "s.toml:2:32 `pack_bytes` in [source.limits] must be a size from `64KiB` to `1TiB`, such as \"512MiB\", not an integer",
            "s.toml:2:45 `seconds` in [source.limits] must be an integer from 1 to 86400, not `\"30s\"`",
        ],
    ),
    (
        Some("source.url = \"/x\"\ndata_dir = \"var\"\nmount_roots = [\"etc\"]\n"),
        &[],
        &[],
        &[
            "s.toml:2:12 `data_dir` must be an absolute path without `//`, `.` and `..`, not `var`",
            "s.toml:3:16 each item of `mount_roots` must be an absolute path without `//`, `.` and `..`, not `etc`",
        ],
    ),
    (
        Some("source.url = \"/x\"\n[ring]\npeers = [\"a\"]\n"),
        &[],
        &[],
        &[
            "s.toml:2:1 `name` is missing in [ring] (The ring's name; `rings/NAME.toml` are its overlays.)",
            "s.toml:3:10 each item of `peers` in [ring] must be `HOST:PORT`, not `a`",
        ],
    ),
    (
        Some("source.url = \"/x\"\n[api]\nlisten = \"0.0.0.0:9631\"\n"),
        &[],
        &[],
        &["s.toml:3:10 `listen` in [api] is `0.0.0.0:9631`, which others can reach, and no token is asked for \
             (set `token_file`, or listen on 127.0.0.1)"],
    ),
    (
        Some("source.url = \"/x\"\n[api.tls]\ncert = \"/a\"\n"),
        &[],
        &[],
        &["s.toml:2:1 `key` is missing in [api.tls] (Its private key, PEM.)"],
    ),
    (
        Some("source.url = \n[ring\n"),
        &[],
        &[],
        &[
            "s.toml:1:14 invalid TOML: string values must be quoted, expected literal string",
            "s.toml:2:6 invalid TOML: unclosed table, expected `]`",
        ],
    ),
    (
        None,
        &[("TAGFALL_SORUCE__URL", "/x")],
        &["source.url=/x"],
        &["TAGFALL_SORUCE__URL:1:1 unknown key `soruce` (did you mean `source`?)"],
    ),
    (
        None,
        &[("TAGFALL_DATADIR", "/x")],
        &["source.url=/x"],
        &["TAGFALL_DATADIR:1:1 unknown key `datadir` (did you mean `data_dir`?)"],
    ),
    (
        None,
        &[("TAGFALL_SOURCE__PRERELEASE", "yes")],
        &["source.url=/x"],
        &["TAGFALL_SOURCE__PRERELEASE:1:1 invalid TOML: string values must be quoted, expected literal string"],
    ),
    (
        None,
        &[],
        &["source.url=/x", "source.poll=fast"],
        &["--set source.poll=fast:1:1 `poll` in [source] must be a duration from `1s` to `7d`, such as \"30s\", not `fast` \
             (units are ms, s, m, h and d; write 1500ms for one and a half seconds)"],
    ),
    (
        None,
        &[],
        &["source.url=/x", "source.pol=1s", "novalue", "=x", "a..b=1"],
        &[
            "--set =x:1:1 this is not `KEY=VALUE` (for example `--set source.poll=10s`)",
            "--set a..b=1:1:1 this is not `KEY=VALUE` (for example `--set source.poll=10s`)",
            "--set novalue:1:1 this is not `KEY=VALUE` (for example `--set source.poll=10s`)",
            "--set source.pol=1s:1:1 unknown key `pol` in [source] (did you mean `poll`?)",
        ],
    ),
    (None, &[], &["source=/x"], &["--set source=/x:1:1 `source` must be a table, not `\"/x\"`"]),
];

#[test]
fn every_mistake_is_told_with_its_place() {
    for (file, variables, options, wanted) in MISTAKES {
        let found = parse_settings(file.map(|text| ("s.toml", text)), &env(variables), &sets(options), "h").unwrap_err();
        let found: Vec<_> = found.iter().map(|found| format!("{}:{}", found.file, line(found))).collect();
        assert_eq!(found, wanted, "{found:#?}");
    }
}

#[test]
fn layers_are_toml_or_json() {
    let json = serde_json::json!({ "port": 1, "list": [1.5, true], "sub": { "when": "2024-01-01" } });
    let toml = "port = 1\nlist = [1.5, true]\nsub.when = 2024-01-01\n";
    assert_eq!(parse_config_layer("f", toml).unwrap(), json);
    assert_eq!(parse_config_layer("f", &format!(" {json}")).unwrap(), json);
    assert_eq!(parse_config_layer("f", "").unwrap(), serde_json::json!({}));
}

#[test]
fn wrong_layers_are_told_with_their_place() {
    let rows = [
        ("port = \n", "f:1:8 invalid TOML: string values must be quoted, expected literal string"),
        ("a = 1\nb = nan\n", "f:2:5 `nan` and `inf` cannot be handed to templates or hooks"),
        ("{ \"a\": 1,\n  \"b\": }", "f:2:8 invalid JSON: expected value"),
        ("{ \"a\": null }", "f:1:1 `null` has no meaning in a config layer; leave the key out"),
        ("{ \"a\": 1 } x", "f:1:12 invalid JSON: trailing characters"),
    ];
    for (text, wanted) in rows {
        let found = parse_config_layer("f", text).unwrap_err();
        let found: Vec<_> = found.iter().map(|found| format!("{}:{}", found.file, line(found))).collect();
        assert_eq!(found, [wanted]);
    }
    assert!(parse_config_layer("f", &"{\"a\":".repeat(100_000)).is_err());
}
