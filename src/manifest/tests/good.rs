//! What a right manifest means.

use std::time::Duration;

use super::{HEAD, REDIS, tree};
use crate::manifest::parse_release;
use crate::model::{
    BindMode, Check, Count, Group, Hardening, HookKind, OnFailure, OnUnhealthy, Probe, Ready, Reload, ServiceKind, Signal,
    Strategy, Templates, Topology,
};
use crate::model::{LogFormat, LogForward, LogPolicy};

fn group(text: &str) -> Group {
    let files = [
        ("groups/web/group.toml", text),
        ("groups/redis/group.toml", REDIS),
        ("groups/web/hooks/health.wasm", "x"),
        ("groups/web/hooks/notes.md", "x"),
        ("groups/web/config/b/app.toml.hbs", "x"),
        ("groups/web/config/a", "x"),
    ];
    let parsed = parse_release(&tree(files), None).unwrap_or_else(|found| panic!("{found:#?}"));
    assert!(parsed.warnings.is_empty(), "{:?}", parsed.warnings);
    (*parsed.groups[&"web".parse().unwrap()]).clone()
}

const FULL: &str = r#"format = 1
x-note = { any = "thing" }
templates = "lenient"
config_open = ["free"]

[placement]
labels = { role = "web" }

[service]
exec = ["/usr/local/bin/guestbook", "--config", "{{mount.path}}/app.toml"]
user = "guestbook"
env = { RUST_LOG = "info" }
working_dir = "/var/lib/guestbook"
kind = "task"
stop_signal = "SIGINT"
stop_timeout = "9s"
reload_signal = "SIGHUP"
backoff = { min = "200ms", max = "40s", reset_after = "6m" }
limits = { memory = "512MiB", pids = 256, open_files = 4096, cpu = 1.5 }
logs = { max_size = "16MiB", files = 4, format = "json", forward = "journald" }
ready = "notify"
start_timeout = "61s"
listen = ["tcp://0.0.0.0:8080"]
hardening = "strict"
on_unhealthy = "restart"

[config]
port = 8080
since = 2024-05-06
free = {}

[mount]
path = "/etc/guestbook"
keep = 5

[exports]
port = "port"

[binds]
db = { group = "redis.default", needs = ["port"], mode = "relaxed" }

[topology]
kind = "leader"

[update]
strategy = "canary"
max_unavailable = "25%"
canary = 2
min_healthy = "11s"
deadline = "6m"
on_failure = "halt"

[hooks.health-check]
module = "hooks/health.wasm"
interval = "11s"
timeout = "3s"
failures = 4
memory = "32MiB"
args = { url = "http://127.0.0.1:8080/healthz" }
allow = { net = ["127.0.0.1:8080"], read = ["{{mount.path}}"], write = ["/var/lib/guestbook"], env = ["TZ"], exec = { migrate = ["/usr/local/bin/guestbook", "migrate"] } }
[hooks.health-check.probes]
web = { url = "http://127.0.0.1:{{cfg.port}}/healthz" }
cache = { address = "unix:/run/redis.sock", send = "PING\r\n", until = 7 }
[hooks.pre-stop]
module = "hooks/health.wasm"
"#;

#[test]
fn every_key_says_what_it_means() {
    let group = group(FULL);
    let service = group.service.as_ref().unwrap();
    assert_eq!((group.templates, &group.config_open), (Templates::Lenient, &vec!["free".to_owned()]));
    assert_eq!(group.placement["role"], "web");
    assert_eq!((service.exec.len(), service.user.as_deref(), service.env["RUST_LOG"].as_str()), (3, Some("guestbook"), "info"));
    assert_eq!((service.kind, service.stop_signal, service.reload), (ServiceKind::Task, Signal(2), Reload::Signal(Signal::HUP)));
    assert_eq!((service.stop_timeout, service.start_timeout), (Duration::from_secs(9), Duration::from_secs(61)));
    assert_eq!((service.backoff.min, service.backoff.reset_after), (Duration::from_millis(200), Duration::from_secs(360)));
    let logs = LogPolicy {
        max_size: 16 << 20,
        files: 4,
        format: LogFormat::Json,
        forward: LogForward::Journald(LogForward::JOURNALD.to_owned()),
    };
    assert_eq!(service.logs.over(&LogPolicy::default()), logs);
    let limits = service.limits;
    assert_eq!((limits.memory, limits.pids, limits.open_files, limits.cpu), (Some(512 << 20), Some(256), Some(4096), Some(1.5)));
    assert_eq!(
        (service.ready, service.hardening, service.on_unhealthy),
        (Ready::Notify, Hardening::Strict, OnUnhealthy::Restart)
    );
    assert_eq!(service.listen, ["tcp://0.0.0.0:8080"]);
    assert_eq!(group.config, serde_json::json!({ "port": 8080, "since": "2024-05-06", "free": {} }));
    let mount = group.mount.as_ref().unwrap();
    assert_eq!((mount.path.as_str(), mount.keep), ("/etc/guestbook", 5));
    let bind = &group.binds["db"];
    assert_eq!(
        (bind.group.to_string().as_str(), bind.needs.as_slice(), bind.mode),
        ("redis.default", &["port".to_owned()][..], BindMode::Relaxed)
    );
    assert_eq!(group.topology, Topology::Leader);
    let update = &group.update;
    assert_eq!(
        (update.strategy, update.max_unavailable, update.canary),
        (Strategy::Canary, Count::Percent(25), Count::Members(2))
    );
    assert_eq!(
        (update.min_healthy, update.deadline, update.on_failure),
        (Duration::from_secs(11), Duration::from_secs(360), OnFailure::Halt)
    );
    let hook = &group.hooks[&HookKind::HealthCheck];
    assert_eq!(hook.check, Check::Module("hooks/health.wasm".to_owned()));
    assert_eq!(
        (hook.interval, hook.timeout, hook.failures, hook.memory),
        (Duration::from_secs(11), Duration::from_secs(3), 4, 32 << 20)
    );
    assert_eq!(hook.args["url"], "http://127.0.0.1:8080/healthz");
    assert_eq!((hook.allow.exec["migrate"].len(), hook.allow.env.len(), hook.allow.net.len()), (2, 1, 1));
    assert_eq!(hook.probes["web"], Probe::Http { url: "http://127.0.0.1:{{cfg.port}}/healthz".to_owned() });
    let (address, send) = ("unix:/run/redis.sock".to_owned(), "PING\r\n".to_owned());
    assert_eq!(hook.probes["cache"], Probe::Stream { address, send, until: Some(7) });
    assert_eq!(group.hooks[&HookKind::PreStop].timeout, Duration::from_secs(60));
    let files: Vec<_> = group.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(files, ["a", "b/app.toml.hbs"]);
    let modules: Vec<_> = group.modules.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(modules, ["hooks/health.wasm"]);
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let group = group(&format!("{HEAD}mount.path = \"/etc/web\"\n[service]\nexec = [\"web\"]\n"));
    let service = group.service.as_ref().unwrap();
    assert_eq!((service.kind, service.stop_signal, service.reload), (ServiceKind::Daemon, Signal::TERM, Reload::Restart));
    assert_eq!((service.stop_timeout, service.start_timeout), (Duration::from_secs(8), Duration::from_secs(60)));
    assert_eq!((service.backoff.min, service.backoff.max), (Duration::from_millis(100), Duration::from_secs(30)));
    assert_eq!(
        (service.ready, service.hardening, service.on_unhealthy),
        (Ready::Started, Hardening::Default, OnUnhealthy::Report)
    );
    assert_eq!((service.limits, &service.user, &service.working_dir), (Default::default(), &None, &None));
    assert_eq!(service.logs, Default::default());
    assert_eq!((group.mount.unwrap().keep, group.templates, group.topology), (3, Templates::Strict, Topology::Standalone));
    let update = group.update;
    assert_eq!(
        (update.strategy, update.max_unavailable, update.canary),
        (Strategy::Rolling, Count::Members(1), Count::Members(1))
    );
    assert_eq!(
        (update.min_healthy, update.deadline, update.on_failure),
        (Duration::from_secs(10), Duration::from_secs(300), OnFailure::Rollback)
    );
}

#[test]
fn built_in_checks_are_read_and_make_health_the_default_of_ready() {
    let rows = [
        (
            "http",
            "{ url = \"http://a/x\", status = 204, body = \"ok\" }",
            Check::Http { url: "http://a/x".into(), status: Some(204), body: Some("ok".into()) },
        ),
        (
            "http",
            "{ url = \"http://127.0.0.1:{{cfg.port}}/\" }",
            Check::Http { url: "http://127.0.0.1:{{cfg.port}}/".into(), status: None, body: None },
        ),
        ("tcp", "{ address = \"127.0.0.1:80\" }", Check::Tcp { address: "127.0.0.1:80".into() }),
        (
            "file",
            "{ path = \"/run/x\", max_age = \"1m\" }",
            Check::File { path: "/run/x".into(), max_age: Some(Duration::from_secs(60)) },
        ),
        ("exec", "{ command = \"ping\" }", Check::Exec { command: "ping".into() }),
    ];
    for (name, args, check) in rows {
        let hook = format!(
            "[hooks.health-check]\nmodule = \"builtin:{name}\"\ninterval = \"1s\"\nargs = {args}\nallow.exec.ping = [\"/bin/ping\"]\n"
        );
        let group = group(&format!("{HEAD}mount.path = \"/etc/web\"\n[service]\nexec = [\"web\"]\n{hook}"));
        let hook = &group.hooks[&HookKind::HealthCheck];
        assert_eq!(hook.check, check);
        assert_eq!(hook.timeout, Duration::from_secs(1), "an interval below the default timeout shortens it");
        assert_eq!(group.service.unwrap().ready, Ready::Health);
    }
}

#[test]
fn a_container_stands_instead_of_exec() {
    let text = format!(
        "{HEAD}mount.path = \"/etc/web\"\n[service.container]\nimage = \"web:1\"\nports = [\"8080:80\"]\nenv = {{ A = \"b\" }}\n"
    );
    let service = group(&text).service.unwrap();
    let container = service.container.unwrap();
    assert_eq!(
        (container.image.as_str(), container.ports.len(), container.command.len(), service.exec.len()),
        ("web:1", 1, 0, 0)
    );
}

#[test]
fn the_revision_follows_meaning_and_files_and_nothing_else() {
    let revision = |text: &str, files: &[(&str, &str)]| {
        let files =
            [("groups/web/group.toml", text), ("groups/redis/group.toml", REDIS)].into_iter().chain(files.iter().copied());
        parse_release(&tree(files), None).unwrap().groups[&"web".parse().unwrap()].revision
    };
    let one = "format = 1\nplacement.labels = {}\nmount = { path = \"/etc/web\" }\n[config]\na = 16\nb = { c = [1, 2] }\n";
    let same = "# words\n\nformat=0x1\n[config]\nb.c = [ 1,\n 2, ]\na = 0x10 # more\n\n[mount]\npath = '/etc/web'\n[placement]\n[placement.labels]\n";
    let file = [("groups/web/config/a", "x")];
    assert_eq!(revision(one, &file), revision(same, &file));
    assert_eq!(revision(one, &file), revision(one, &[("groups/web/config/a", "x"), ("groups/web/README", "new")]));
    let others = [
        revision(&one.replace("16", "17"), &file),
        revision(&one.replace("16", "16.0"), &file),
        revision(&one.replace("16", "\"16\""), &file),
        revision(&one.replace("[1, 2]", "[2, 1]"), &file),
        revision(one, &[("groups/web/config/a", "y")]),
        revision(one, &[("groups/web/config/b", "x")]),
        revision(one, &[("groups/web/hooks/a", "x")]),
        revision(one, &[]),
    ];
    let distinct: std::collections::BTreeSet<_> = others.into_iter().chain([revision(one, &file)]).collect();
    assert_eq!(distinct.len(), 9);
    let mut executable = tree([("groups/web/group.toml", one), ("groups/web/config/a", "x")]);
    executable[1].executable = true;
    let executable = parse_release(&executable, None).unwrap().groups[&"web".parse().unwrap()].revision;
    assert_ne!(executable, revision(one, &file));
}
