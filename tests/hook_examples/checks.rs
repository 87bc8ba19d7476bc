//! Each example by what it promises.

use std::fs::{File, FileTimes};
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use common::{SHORT, http_get, wait_until};

use super::group::{Group, says};
use super::servers::Server;

/// What every hook is told that may not reach a port.
fn refused(port: u16) -> String {
    format!(
        "health-check critical: may not reach 127.0.0.1:{port}: `[hooks.health-check]` in group.toml would need  \
         allow = {{ net = [\"127.0.0.1:{port}\"] }}"
    )
}

fn same(snippet: &str) -> String {
    snippet.to_owned()
}

#[test]
fn python_asks_nginx_for_a_page() {
    let Ok(mut nginx) = Server::nginx() else { return };
    // How long an answer takes is the machine's: only one test says what is slow.
    let Ok(group) = Group::of("python", nginx.port, |toml| toml.replace("slow_ms = 500", "slow_ms = 20000")) else { return };
    let url = format!("http://127.0.0.1:{}/", nginx.port);
    says(&group.run(&[]), 0, &format!("health-check ok: {url} answers 200"));
    let args = |more: &str| format!(r#"{{"url": "{url}"{more}}}"#);
    says(&group.run(&["--args", &args(r#", "contains": "Hello""#)]), 0, "health-check ok: …");
    says(
        &group.run(&["--args", &args(r#", "contains": "Bye""#)]),
        1,
        &format!("health-check critical: {url} does not contain 'Bye'"),
    );
    says(&group.run(&["--args", &args(r#", "slow_ms": 0"#)]), 0, &format!("health-check warning: {url} took …"));
    says(&group.run(&["--args", &args(r#", "slow_ms": "x""#)]), 1, "health-check failed (said): TypeError: …");
    let gone = format!(r#"{{"url": "{url}gone"}}"#);
    says(&group.run(&["--args", &gone]), 1, &format!("health-check critical: {url}gone answers 404"));
    says(&group.run(&["--args", "{}"]), 1, "health-check failed (said): `args` needs `url`, the page to ask for (no-url)");
    says(&group.run_bare(&["--args", &args("")]), 1, &refused(nginx.port));
    nginx.stop();
    says(&group.run(&[]), 1, "health-check critical: connection refused: nothing listens there");
}

#[test]
fn rust_asks_nginx_for_a_page() {
    let Ok(mut nginx) = Server::nginx() else { return };
    let edit = |toml: &str| toml.replace("slow_ms = 500", "slow_ms = 20000");
    let Ok(group) = Group::of_part("rust", "rust/health", nginx.port, edit) else { return };
    let url = format!("http://127.0.0.1:{}/", nginx.port);
    says(&group.run(&[]), 0, "health-check ok: answered 200");
    let args = |more: &str| format!(r#"{{"url": "{url}"{more}}}"#);
    says(&group.run(&["--args", &args(r#", "slow_ms": 0"#)]), 0, "health-check warning: answered 200, but only after …");
    let gone = format!(r#"{{"url": "{url}gone"}}"#);
    says(&group.run(&["--args", &gone]), 1, "health-check critical: answered 404");
    says(&group.run(&["--args", "{}"]), 1, "health-check failed (said): `args` …");
    // Whether the server is well cannot be told: no answer is one of the server's.
    let denied = refused(nginx.port).replace("critical", "failed (denied)") + " (denied)";
    says(&group.run_bare(&["--args", &args("")]), 1, &denied);
    nginx.stop();
    says(&group.run(&[]), 1, "health-check critical: connection refused: nothing listens there");
}

#[test]
fn rust_migrates_by_a_declared_command() {
    let Ok(group) = Group::of_part("rust-init", "rust/init", 80, same) else { return };
    let migrating = |command: &str| {
        let grant = format!("exec=migrate={command}");
        group.run_bare(&["--hook", "init", "--allow", &grant])
    };
    let done = migrating("/bin/echo brought to version 7");
    says(&done, 0, "init done");
    assert!(done.stderr.contains("brought to version 7"), "{done:?}");
    let failing = migrating("/bin/ls /nowhere/at/all");
    says(&failing, 1, "init failed (said): `migrate` ended with exit code 2: …");
    assert!(failing.stdout.contains("/nowhere/at/all"), "{failing:?}");
    let need = r#"allow = { exec = { migrate = ["/path/of/program"] } }"#;
    let denied = format!("init failed (denied): may not run `migrate`: `[hooks.init]` in group.toml would need  {need} (denied)");
    says(&group.run_bare(&["--hook", "init"]), 1, &denied);
}

#[test]
fn rust_decides_what_changed_files_need_and_who_leads() {
    let Ok(group) = Group::of_part("rust-decide", "rust/decide", 80, same) else { return };
    let changed = |files: &str| group.run(&["--hook", "reconfigure", "--context", &format!(r#"{{"changed": [{files}]}}"#)]);
    says(&changed(r#""nginx.conf""#), 0, "reconfigure signal SIGHUP");
    says(&changed(r#""nginx.conf", "modules.conf""#), 0, "reconfigure restart: `modules.conf` is only read at a start");
    // Who tries a module leads, which doubles its priority: 1 where the configuration has none.
    says(&group.run(&["--hook", "suitability"]), 0, "suitability 2");
    let config = r#"{"cfg": {"priority": 7}}"#;
    says(&group.run(&["--hook", "suitability", "--config", config]), 0, "suitability 14");
}

#[test]
fn a_command_in_rust_looks_at_a_files_age() {
    let folder = common::temp_dir();
    let file = folder.path().join("latest.dump");
    let (below, shown) = (folder.path().display().to_string(), file.display());
    let Ok(group) = Group::of("rust-command", 80, |toml| toml.replace("/var/backups/db", &below)) else { return };
    let gone = format!("health-check critical: {shown} is not there, or not below `allow.read`");
    says(&group.run(&[]), 1, &gone);
    std::fs::write(&file, "dump").unwrap();
    says(&group.run(&[]), 0, &format!("health-check ok: {shown} was written …"));
    let age = |hours| {
        let written = FileTimes::new().set_modified(SystemTime::now() - Duration::from_hours(hours));
        File::options().write(true).open(&file).unwrap().set_times(written).unwrap();
    };
    age(26);
    says(&group.run(&[]), 0, &format!("health-check warning: {shown} was written 936…"));
    age(51);
    says(&group.run(&[]), 1, &format!("health-check critical: {shown} was written 1836…"));
    let args = format!(r#"{{"path": "{shown}", "warning_s": 90000, "critical_s": 180000}}"#);
    says(&group.run_bare(&["--args", &args]), 1, &gone);
    says(&group.run_bare(&[]), 1, "health-check unknown: code 3: cannot read the call: …");
}

#[test]
fn javascript_pings_redis_and_sets_its_memory_while_it_runs() {
    let Ok(mut redis) = Server::redis() else { return };
    let Ok(group) = Group::of("javascript", redis.port, same) else { return };
    let check = ["--hook", "health-check"];
    says(&group.run(&check), 0, "health-check ok: Redis answers PONG");
    let args = format!(r#"{{"port": {}}}"#, redis.port);
    says(&group.run_bare(&[&check[..], &["--args", &args]].concat()), 1, &refused(redis.port));
    let limit = || redis.tell(&["CONFIG", "GET", "maxmemory"]).unwrap()[1].clone();
    assert_eq!(limit(), "0");
    let changed = |files: &str| group.run(&["--hook", "reconfigure", "--context", &format!(r#"{{"changed": [{files}]}}"#)]);
    says(&changed(r#""redis.conf", "users.acl""#), 0, "reconfigure restart: more than redis.conf has changed");
    assert_eq!(limit(), "0");
    says(&changed(r#""redis.conf""#), 0, "reconfigure done: maxmemory was set without a restart");
    assert_eq!(limit(), (32 << 20).to_string());
    redis.stop();
    says(&group.run(&check), 1, "health-check critical: connection refused: nothing listens there");
    let down = changed(r#""redis.conf""#);
    says(&down, 1, "reconfigure failed (said): connection refused: …");
}

/// C and WebAssembly text: the same check in both.
fn pings_redis(name: &str) {
    let Ok(mut redis) = Server::redis() else { return };
    let Ok(group) = Group::of(name, redis.port, same) else { return };
    says(&group.run(&[]), 0, "health-check ok: Redis answers PONG");
    let config = format!(r#"{{"cfg": {{"port": {}}}}}"#, redis.port);
    says(&group.run_bare(&["--config", &config]), 1, &refused(redis.port));
    says(&group.run_bare(&[]), 1, "health-check failed (said): [config] needs `port`, where Redis listens (no-port)");
    redis.stop();
    says(&group.run(&[]), 1, "health-check critical: connection refused: nothing listens there");
    // Somebody else at the port.
    let Ok(nginx) = Server::nginx() else { return };
    let Ok(other) = Group::of(name, nginx.port, same) else { return };
    says(&other.run(&[]), 1, "health-check critical: Redis answers …");
}

#[test]
fn c_pings_redis() {
    pings_redis("c");
}

#[test]
fn webassembly_text_pings_redis() {
    pings_redis("wat");
}

#[test]
fn go_looks_at_the_dump_of_redis() {
    let Ok(redis) = Server::redis() else { return };
    let folder = redis.folder().display().to_string();
    let Ok(group) = Group::of("go", redis.port, |toml| toml.replace("/var/lib/redis", &folder)) else { return };
    let dump = redis.file("dump.rdb");
    let shown = dump.display();
    says(&group.run(&[]), 1, &format!("health-check critical: {shown} is not there: nothing was ever saved"));
    assert_eq!(redis.tell(&["SAVE"]).unwrap(), ["OK"]);
    let saved = group.run(&[]);
    says(&saved, 0, "health-check ok: …");
    assert!(saved.stdout.contains(&format!("{} bytes, saved ", dump.metadata().unwrap().len())), "{saved:?}");
    let long_ago = FileTimes::new().set_modified(SystemTime::now() - Duration::from_hours(3));
    File::options().write(true).open(&dump).unwrap().set_times(long_ago).unwrap();
    says(&group.run(&[]), 0, &format!("health-check warning: {shown} was saved 3h…"));
    let args = format!(r#"{{"file": "{shown}"}}"#);
    let need = format!("may not read {shown}: `[hooks.health-check]` in group.toml needs  allow = {{ read = [\"{shown}\"] }}");
    says(&group.run_bare(&["--args", &args]), 1, &format!("health-check unknown: code 3: {need}"));
    std::fs::write(&dump, "half a fi").unwrap();
    says(&group.run(&[]), 1, &format!("health-check critical: {shown} is no dump of Redis"));
}

#[test]
fn zig_reads_what_nginx_wrote_to_its_log() {
    let Ok(nginx) = Server::nginx() else { return };
    let log = nginx.file("error.log");
    let shown = log.display().to_string();
    let Ok(group) = Group::of("zig", nginx.port, |toml| toml.replace("/var/log/nginx/error.log", &shown)) else { return };
    says(&group.run(&[]), 0, "health-check ok: no errors in the log");
    assert_eq!(http_get(nginx.port, "/gone").unwrap().0, 404);
    wait_until("nginx has written of it", SHORT, || std::fs::read_to_string(&log).unwrap().contains("[error]"));
    let found = group.run(&[]);
    says(&found, 0, "health-check warning: 1 errors, the last: …");
    assert!(found.stdout.contains("/www/gone\" failed (2: No such file or directory)"), "{found:?}");
    writeln!(File::options().append(true).open(&log).unwrap(), "2026/01/02 03:04:05 [crit] 7#7: accept() failed").unwrap();
    says(&group.run(&[]), 1, "health-check critical: 2 errors, the last: 2026/01/02 03:04:05 [crit] 7#7: accept() failed");
    let args = format!(r#"{{"file": "{shown}"}}"#);
    let need = format!("may not read {shown}: `[hooks.health-check]` in group.toml needs  allow = {{ read = [\"{shown}\"] }}");
    says(&group.run_bare(&["--args", &args]), 1, &format!("health-check unknown: code 3: {need}"));
    // An end of the log without the line's beginning: only whole lines count.
    let args = format!(r#"{{"file": "{shown}", "tail_bytes": 20}}"#);
    says(&group.run(&["--args", &args]), 0, "health-check ok: no errors in the log");
}
