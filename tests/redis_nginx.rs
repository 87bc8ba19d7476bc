//! Two real servers under Tagfall, with the files of `examples/redis-and-nginx`: what the README promises, as it happens.
//!
//! Each test has a supervisor, a repository and ports of its own below one temporary folder; what differs from the example
//! is only where things lie. It asks the servers themselves, not only the status.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{LONG, Repo, SHORT, Skipped, Supervisor, Tagfall, holds_for, http_get, redis, wait_for, wait_until};
use serde_json::Value;
use tempfile::TempDir;

const NGINX: &str = "groups/nginx/group.toml";
const REDIS: &str = "groups/redis/group.toml";

/// How long nothing may happen before "it was left alone" is believed.
const QUIET: Duration = Duration::from_secs(2);

/// A host that follows the example, from `v1.0.0` on.
struct Host {
    supervisor: Supervisor,
    repo: Repo,
    nginx_port: u16,
    redis_port: u16,
    // Last, so that it goes when nothing uses it any more.
    dir: TempDir,
}

impl Host {
    /// Starts it and waits until both servers run.
    fn start() -> Result<Self, Skipped> {
        let (redis_server, nginx) = (common::need_tool("redis-server")?, common::need_tool("nginx")?);
        let dir = common::temp_dir();
        let repo = Repo::new(dir.path());
        common::copy_tree(&example("redis-and-nginx"), repo.clone_dir());
        let (nginx_port, redis_port) = (common::free_port(), common::free_port());
        let mounts = dir.path().join("mnt").display().to_string();
        repo.replace(NGINX, "port = 8390", &format!("port = {nginx_port}"));
        repo.replace(REDIS, "port = 6390", &format!("port = {redis_port}"));
        repo.replace(NGINX, "\"/usr/sbin/nginx\"", &format!("\"{}\"", nginx.display()));
        repo.replace(REDIS, "\"/usr/bin/redis-server\"", &format!("\"{}\"", redis_server.display()));
        for file in [NGINX, REDIS] {
            repo.replace(file, "/etc/tagfall-example", &mounts);
        }
        repo.release("v1.0.0");
        let supervisor = Supervisor::start(&tagfall(), dir.path(), repo.bare(), "{}");
        supervisor.wait_ready("v1.0.0");
        Ok(Self { supervisor, repo, nginx_port, redis_port, dir })
    }

    /// A group as the status shows it now.
    fn group(&self, name: &str) -> Value {
        wait_for(&format!("{name} in the status"), SHORT, || group_of(&self.supervisor.status()?, name))
    }

    /// The pid of a group's service.
    fn pid(&self, name: &str) -> u64 {
        pid_of(&self.group(name))
    }

    /// A published file as the host shows it.
    fn published(&self, path: &str) -> String {
        let file = self.dir.path().join("mnt").join(path);
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// Waits until nginx greets on `port`.
    fn greeted_on(&self, port: u16) -> String {
        wait_for(&format!("nginx answers on {port}"), SHORT, || match http_get(port, "/")? {
            (200, body) => Ok(body),
            (status, body) => Err(format!("{status}: {body}")),
        })
    }

    /// One setting of the running Redis.
    fn redis_setting(&self, name: &str) -> String {
        let answer = wait_for("redis answers", SHORT, || redis(self.redis_port, &["CONFIG", "GET", name]));
        assert_eq!(answer.len(), 2, "{answer:?}");
        answer[1].clone()
    }

    /// Waits until a tag is shown as refused; returns its reason and message.
    fn refused(&self, tag: &str) -> (String, String) {
        wait_for(&format!("{tag} is refused"), LONG, || {
            let status = self.supervisor.status()?;
            let entry = status["refused"].as_array().into_iter().flatten().find(|entry| entry["tag"] == tag).cloned();
            let entry = entry.ok_or_else(|| format!("{status:#}"))?;
            Ok((text(&entry["reason"]), text(&entry["message"])))
        })
    }

    /// What must not change while something else goes wrong: both pids, and no restart.
    fn processes(&self) -> [(u64, Value); 2] {
        ["nginx.default", "redis.default"].map(|name| {
            let group = self.group(name);
            (pid_of(&group), group["service"]["restarts"].clone())
        })
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

fn tagfall() -> Tagfall {
    Tagfall::new(env!("CARGO_BIN_EXE_tagfall"))
}

fn group_of(status: &Value, name: &str) -> Result<Value, String> {
    let found = status["groups"].as_array().into_iter().flatten().find(|group| group["name"] == name);
    found.cloned().ok_or_else(|| format!("{status:#}"))
}

fn pid_of(group: &Value) -> u64 {
    group["service"]["pid"].as_u64().unwrap_or_else(|| panic!("no process: {group:#}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn is_alive(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn the_examples_check_clean() {
    for name in ["hello", "redis-and-nginx"] {
        let folder = example(name);
        let output = tagfall().run(&["check", &folder.display().to_string()]);
        assert_eq!(output.code, Some(0), "{name}: {}{}", output.stdout, output.stderr);
    }
}

#[test]
fn a_tag_publishes_starts_and_checks_both() {
    let Ok(host) = Host::start() else { return };
    assert_eq!(host.greeted_on(host.nginx_port), "Hello from a tag.\n");
    assert_eq!(host.redis_setting("maxmemory"), "67108864");
    assert!(host.published("nginx/nginx.conf").contains(&format!("listen 127.0.0.1:{};", host.nginx_port)));
    assert!(host.published("redis/redis.conf").contains(&format!("port {}\n", host.redis_port)));
    let example = std::fs::read_to_string(example("redis-and-nginx").join("groups/nginx/config/mime.types")).unwrap();
    assert_eq!(host.published("nginx/mime.types"), example, "a file that is no template is published byte for byte");
    assert!(!host.dir.path().join("mnt/nginx/nginx.conf.hbs").exists(), "the template itself is not published");

    for name in ["nginx.default", "redis.default"] {
        let group = host.group(name);
        assert_eq!(group["service"]["state"], "running", "{group:#}");
        assert_eq!(group["health"]["status"], "ok", "{group:#}");
        assert_eq!(group["release"], "v1.0.0", "{group:#}");
    }
    let trace =
        host.supervisor.client(&["trace", "-o", "json", &host.dir.path().join("mnt/nginx/nginx.conf").display().to_string()]);
    let trace: Value = serde_json::from_str(&trace.stdout).unwrap_or_else(|error| panic!("{error}: {trace:?}"));
    assert_eq!((text(&trace["group"]), text(&trace["tag"])), ("nginx.default".to_owned(), "v1.0.0".to_owned()));
}

#[test]
fn nginx_reloads_and_redis_restarts_each_alone() {
    let Ok(host) = Host::start() else { return };
    let (nginx, redis) = (host.pid("nginx.default"), host.pid("redis.default"));

    let port = common::free_port();
    host.repo.replace(NGINX, &format!("port = {}", host.nginx_port), &format!("port = {port}")).release("v1.1.0");
    host.supervisor.wait_ready("v1.1.0");
    host.greeted_on(port);
    wait_until("the old port is closed", SHORT, || http_get(host.nginx_port, "/").is_err());
    assert_eq!(host.pid("nginx.default"), nginx, "a reload keeps the master");
    assert_eq!(host.pid("redis.default"), redis, "a tag that leaves redis alone does not touch it");
    assert_eq!(host.group("redis.default")["release"], "v1.1.0");

    host.repo.replace(REDIS, "\"64mb\"", "\"128mb\"").release("v1.2.0");
    host.supervisor.wait_ready("v1.2.0");
    assert_eq!(host.redis_setting("maxmemory"), "134217728");
    assert_ne!(host.pid("redis.default"), redis, "redis reads its file only when it starts");
    assert!(!is_alive(redis), "never two of them");
    assert_eq!(host.pid("nginx.default"), nginx);
    for name in ["nginx.default", "redis.default"] {
        assert_eq!(host.group(name)["service"]["restarts"], 0, "a restart that was asked for does not count");
    }
}

#[test]
fn a_bad_tag_is_refused_by_name_and_everything_keeps_running() {
    let Ok(host) = Host::start() else { return };
    let before = host.processes();
    let config = host.published("nginx/nginx.conf");

    host.repo.replace(NGINX, "reload_signal", "reload_singal").release("v1.1.0");
    let (reason, message) = host.refused("v1.1.0");
    assert_eq!(reason, "InvalidConfiguration");
    assert!(message.contains(NGINX) && message.contains("reload_singal"), "{message}");

    // Half of it would be fine: redis changes, a template of nginx prints a name that is not there. Nothing of it may arrive.
    host.repo.replace(NGINX, "reload_singal", "reload_signal").replace(REDIS, "\"64mb\"", "\"96mb\"");
    host.repo.write("groups/nginx/config/broken.conf.hbs", "port {{cfg.prot}}\n").release("v1.2.0");
    let (reason, message) = host.refused("v1.2.0");
    assert_eq!(reason, "InvalidConfiguration");
    assert!(message.contains("broken.conf.hbs") && message.contains("prot"), "{message}");

    // A tag without a tag object says neither who nor when.
    host.repo.run(&["rm", "--quiet", "-f", "groups/nginx/config/broken.conf.hbs"]);
    host.repo.commit("mended");
    host.repo.run(&["tag", "v1.3.0"]);
    host.repo.push_tags();
    assert_eq!(host.refused("v1.3.0").0, "NotAnnotated");

    assert_eq!(host.processes(), before);
    assert_eq!(host.published("nginx/nginx.conf"), config);
    assert_eq!(host.redis_setting("maxmemory"), "67108864");
    host.greeted_on(host.nginx_port);

    host.repo.release("v1.4.0");
    host.supervisor.wait_ready("v1.4.0");
    assert_eq!(host.redis_setting("maxmemory"), "100663296", "a good tag passes the refused ones");
}

#[test]
fn a_moved_tag_is_never_applied() {
    let Ok(host) = Host::start() else { return };
    let before = host.processes();
    host.repo.replace(NGINX, "Hello from a tag.", "Hello from a moved tag.").commit("moved");
    host.repo.run(&["tag", "--force", "--annotate", "--message", "moved", "v1.0.0"]);
    host.repo.run(&["push", "--quiet", "--force", "origin", "refs/tags/v1.0.0"]);
    let (reason, message) = host.refused("v1.0.0");
    assert_eq!(reason, "TagMoved");
    let now = host.repo.run(&["rev-parse", "refs/tags/v1.0.0"]);
    assert!(message.contains(&now[..7]), "both ids are shown: {message}");
    holds_for("nothing is touched", QUIET, || host.processes() == before);
    assert_eq!(host.greeted_on(host.nginx_port), "Hello from a tag.\n");
}

#[test]
fn killing_the_supervisor_restarts_nothing() {
    let Ok(host) = Host::start() else { return };
    let before = host.processes();
    let mut pids = vec![supervisor_pid(&host)];
    for _ in 0..3 {
        Supervisor::signal(pids[pids.len() - 1], "KILL");
        let next = wait_for("another supervisor answers", LONG, || {
            let status = host.supervisor.status()?;
            let pid = status["supervisor"]["pid"].as_u64().ok_or("no pid")?;
            if pids.contains(&pid) { Err(format!("still {pid}")) } else { Ok(pid) }
        });
        pids.push(next);
        host.supervisor.wait_ready("v1.0.0");
        assert_eq!(host.processes(), before);
    }
    let keeper = host.supervisor.status().unwrap();
    assert_eq!(keeper["supervisor"]["keeper_pid"], host.supervisor.keeper_pid(), "the keeper is the one that was started");

    // In the middle of an update, too: whatever it had done by then, it ends on the new release.
    host.repo.replace(REDIS, "\"64mb\"", "\"128mb\"").release("v1.1.0");
    Supervisor::signal(supervisor_pid(&host), "KILL");
    host.supervisor.wait_ready("v1.1.0");
    assert_eq!(host.redis_setting("maxmemory"), "134217728");
    assert_eq!(host.pid("nginx.default"), before[0].0);
}

fn supervisor_pid(host: &Host) -> u64 {
    let pid = |status: Value| status["supervisor"]["pid"].as_u64().ok_or_else(|| format!("{status:#}"));
    wait_for("the supervisor's pid", SHORT, || host.supervisor.status().and_then(pid))
}

#[test]
fn a_service_that_dies_is_back_and_the_other_is_left_alone() {
    let Ok(host) = Host::start() else { return };
    let (nginx, redis) = (host.pid("nginx.default"), host.pid("redis.default"));
    Supervisor::signal(redis, "KILL");
    let group = wait_for("redis is back", LONG, || {
        let group = group_of(&host.supervisor.status()?, "redis.default")?;
        let pid = group["service"]["pid"].as_u64();
        if group["service"]["state"] == "running" && pid.is_some_and(|pid| pid != redis) {
            Ok(group)
        } else {
            Err(format!("{group:#}"))
        }
    });
    assert_eq!(group["service"]["restarts"], 1);
    assert_eq!(host.redis_setting("maxmemory"), "67108864");
    assert_eq!(host.pid("nginx.default"), nginx);
}

#[test]
fn a_hand_edit_is_reported_and_put_back() {
    let Ok(host) = Host::start() else { return };
    let path = host.dir.path().join("mnt/nginx/mime.types");
    let before = host.published("nginx/mime.types");
    // Through the link, as somebody in a hurry would: the file itself is read-only, so it is replaced.
    let folder = std::fs::canonicalize(path.parent().unwrap()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    // Root needs no right to the folder; a changed mode alone may be put back before there is anything else to tell.
    let removed = std::fs::remove_file(&path);
    if removed.or_else(|_| std::fs::set_permissions(&folder, mode(0o755)).and_then(|()| std::fs::remove_file(&path))).is_ok() {
        std::fs::write(&path, "types {}\n").unwrap();
    } else {
        panic!("{} cannot be edited by its owner", path.display());
    }
    wait_for("the edit is put back", LONG, || {
        let now = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        if now == before { Ok(()) } else { Err(now) }
    });
    // The folder's mode and the file may be put back in two rounds: the last one names the file.
    wait_for("the drift is told", SHORT, || {
        let group = group_of(&host.supervisor.status()?, "nginx.default")?;
        let conditions = group["conditions"].as_array().cloned().unwrap_or_default();
        let told = conditions.iter().find(|condition| condition["type"] == "DriftDetected");
        told.filter(|told| text(&told["message"]).contains("mime.types")).map(|_| ()).ok_or_else(|| format!("{group:#}"))
    });
}

#[test]
fn sigterm_stops_everything_and_takes_the_links_away() {
    let Ok(mut host) = Host::start() else { return };
    let pids = [host.pid("nginx.default"), host.pid("redis.default"), supervisor_pid(&host)];
    assert_eq!(host.supervisor.terminate(), Some(0), "{}", host.supervisor.log());
    for pid in pids {
        assert!(!is_alive(pid), "{pid} outlived the keeper");
    }
    assert!(http_get(host.nginx_port, "/").is_err());
    assert!(redis(host.redis_port, &["PING"]).is_err());
    for link in ["mnt/nginx", "mnt/redis"] {
        let link = host.dir.path().join(link);
        assert!(std::fs::symlink_metadata(&link).is_err(), "{} is still there", link.display());
    }
    assert!(!host.dir.path().join(common::SOCKET).exists(), "the socket is still there");
}
