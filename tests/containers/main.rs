//! Groups that are containers, with a real engine: started, replaced, restarted, taken up again, stopped. Tagfall in one: `first`.

mod engine;
mod first;

use std::time::Duration;

use common::{LONG, Repo, SHORT, Skipped, Supervisor, Tagfall, holds_for, http_get, wait_for};
use engine::{Engine, IMAGE};
use serde_json::Value;
use tempfile::TempDir;

/// How long nothing may happen before "it was left alone" is believed.
const QUIET: Duration = Duration::from_secs(2);

struct Host {
    supervisor: Supervisor,
    repo: Repo,
    port: u16,
    engine: Engine,
    // Last, so that it goes when nothing uses it any more.
    dir: TempDir,
}

/// What stands behind `[service]`, and what below `[service.container]`.
fn group(dir: &TempDir, service: &str, container: &str, rest: &str) -> String {
    let mount = dir.path().join("mnt/web");
    format!(
        "format = 1\n[placement]\nlabels = {{}}\n[service]\nstop_timeout = \"3s\"\n{service}\n[service.container]\n\
         image = \"{IMAGE}\"\n{container}\n[config]\ntext = \"one\"\n[mount]\npath = \"{}\"\n{rest}\n",
        mount.display()
    )
}

impl Host {
    /// A host whose group `web` has this service and container; `{port}` and `{mount}` stand for what they say.
    fn start(service: &str, container: &str, rest: &str) -> Result<Self, Skipped> {
        let dir = common::temp_dir();
        let engine = Engine::start(dir.path())?;
        let (repo, port) = (Repo::new(dir.path()), common::free_port());
        repo.write("tagfall.toml", "format = 1\n");
        let mount = dir.path().join("mnt/web").display().to_string();
        let text = group(&dir, service, container, rest).replace("{port}", &port.to_string()).replace("{mount}", &mount);
        repo.write("groups/web/group.toml", &text);
        repo.write("groups/web/config/page.hbs", "{{cfg.text}}\n").release("v1.0.0");
        let tagfall = Tagfall::new(env!("CARGO_BIN_EXE_tagfall"));
        let settings = Supervisor::settings(dir.path(), &repo.bare().display().to_string(), "{}");
        let host = format!("DOCKER_HOST=unix://{}", engine.socket().display());
        let supervisor = Supervisor::start_with(&tagfall, dir.path(), &settings, &["env", &host]);
        Ok(Self { supervisor, repo, port, engine, dir })
    }

    fn serving() -> Result<Self, Skipped> {
        let container = "command = [\"/box\", \"serve\", \"8080\", \"{{mount.path}}/page\"]\nports = [\"127.0.0.1:{port}:8080\"]";
        let host = Self::start("limits = { memory = \"32MiB\", pids = 16, cpu = 0.5, open_files = 64 }", container, "")?;
        host.engine.needs_ports()?;
        host.supervisor.wait_ready("v1.0.0");
        Ok(host)
    }

    fn shows(&self, text: &str) {
        wait_for(&format!("it shows {text}"), LONG, || match http_get(self.port, "/")? {
            (200, body) if body.trim() == text => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    fn web(&self) -> Result<Value, String> {
        let status = self.supervisor.status()?;
        let mut groups = status["groups"].as_array().into_iter().flatten();
        groups.find(|group| group["name"] == "web.default").cloned().ok_or_else(|| format!("no web in {status:#}"))
    }

    /// Waits until the service is in this state.
    fn state(&self, state: &str) -> Value {
        wait_for(state, LONG, || {
            let web = self.web()?;
            if web["service"]["state"] == state { Ok(web) } else { Err(format!("{web:#}\n{}", self.supervisor.log())) }
        })
    }

    fn id(&self) -> String {
        wait_for("a container", LONG, || {
            self.engine.container("web.default")?["Id"].as_str().map(str::to_owned).ok_or_else(String::new)
        })
    }

    fn supervisor_pid(&self) -> u64 {
        wait_for("the supervisor's pid", SHORT, || {
            self.supervisor.status()?["supervisor"]["pid"].as_u64().ok_or_else(String::new)
        })
    }

    fn logs(&self) -> String {
        self.supervisor.client(&["service", "logs", "web"]).stdout
    }

    fn waits_for(&self, text: &str) {
        wait_for(text, LONG, || {
            let waits = self.web()?["waits"].to_string();
            if waits.contains(text) { Ok(()) } else { Err(waits) }
        });
    }
}

#[test]
fn a_container_follows_its_tags() {
    let Ok(mut host) = Host::serving() else { return };
    host.shows("one");
    let container = host.engine.container("web.default").unwrap();
    let limits = &container["HostConfig"];
    assert_eq!((&limits["Memory"], &limits["PidsLimit"]), (&(32 << 20).into(), &16.into()), "{limits:#}");
    assert_eq!((&limits["NanoCpus"], &limits["RestartPolicy"]["Name"]), (&500_000_000.into(), &"no".into()), "{limits:#}");
    assert_eq!(container["Mounts"][0]["RW"], false);
    assert_eq!(host.web().unwrap()["notices"], serde_json::json!([]));

    // Another content: bound for ever, so a new container.
    host.repo.replace("groups/web/group.toml", "\"one\"", "\"two\"").release("v1.1.0");
    host.supervisor.wait_ready("v1.1.0");
    host.shows("two");
    let second = host.id();
    assert_ne!(second, container["Id"].as_str().unwrap());

    // Nothing that touches the container: it stays.
    host.repo.replace("groups/web/group.toml", "\"3s\"", "\"4s\"").release("v1.2.0");
    host.supervisor.wait_ready("v1.2.0");
    assert_eq!(host.id(), second);

    // It ends by itself: a new one at once, and what it said stays.
    drop(http_get(host.port, "/exit/7"));
    wait_for("another container", LONG, || if host.id() == second { Err("the same") } else { Ok(()) }.map_err(str::to_owned));
    host.state("running");
    host.shows("two");
    assert_eq!(host.web().unwrap()["service"]["restarts"], 1);
    wait_for("its last words", SHORT, || {
        let logs = host.logs();
        if logs.contains("told to end with 7") && logs.matches("up").count() >= 3 { Ok(()) } else { Err(logs) }
    });

    // An operator's word, then the end of the group.
    assert_eq!(host.supervisor.client(&["service", "stop", "web", "--reason", "a test"]).code, Some(0));
    host.state("stopped");
    assert!(host.engine.containers().is_empty());
    assert_eq!(host.supervisor.client(&["service", "start", "web"]).code, Some(0));
    host.state("running");
    host.repo.run(&["rm", "-rq", "groups/web"]);
    host.repo
        .write("groups/other/group.toml", "format = 1\n[placement]\nlabels = { no = \"where\" }\n[mount]\npath = \"/etc/x/y\"\n");
    host.repo.write("groups/other/config/a", "a\n").release("v2.0.0");
    host.supervisor.wait_ready("v2.0.0");
    assert!(host.engine.containers().is_empty());
    assert_eq!(host.supervisor.terminate(), Some(0));
}

#[test]
fn what_runs_outlives_the_supervisor_and_is_taken_up_again() {
    let Ok(mut host) = Host::serving() else { return };
    let (id, pid) = (host.id(), host.state("running")["service"]["pid"].clone());
    for _ in 0..3 {
        let before = host.supervisor_pid();
        Supervisor::signal(before, "KILL");
        wait_for("another supervisor", LONG, || {
            let now = host.supervisor.status()?["supervisor"]["pid"].as_u64();
            if now.is_some_and(|pid| pid != before) { Ok(()) } else { Err(format!("{now:?}")) }
        });
        host.supervisor.wait_ready("v1.0.0");
        assert_eq!((host.id(), &host.state("running")["service"]["pid"]), (id.clone(), &pid));
    }
    // Output goes on where it was: no line twice.
    assert_eq!(host.logs().matches("up").count(), 1, "{}", host.logs());
    // What it is to do at its end is known again.
    drop(http_get(host.port, "/exit/1"));
    wait_for("another container", LONG, || if host.id() == id { Err("the same".to_owned()) } else { Ok(()) });
    host.shows("one");
    assert_eq!(host.supervisor.terminate(), Some(0));
    assert!(host.engine.containers().is_empty());
}

#[test]
fn an_engine_that_goes_away_is_waited_for() {
    let Ok(mut host) = Host::serving() else { return };
    let id = host.id();
    host.engine.crash();
    host.waits_for("EngineAway");
    let why = host.supervisor.client(&["why", "web"]).stdout;
    assert!(why.contains("container engine"), "{why}");
    // A release that needs another container is accepted, and waits.
    host.repo.replace("groups/web/group.toml", "\"one\"", "\"two\"").release("v1.1.0");
    wait_for("the release is accepted", LONG, || {
        let status = host.supervisor.status()?;
        if status["release"]["tag"] == "v1.1.0" { Ok(()) } else { Err(status["release"].to_string()) }
    });
    assert!(host.engine.daemon(), "the engine does not start again: {}", host.engine.last_words());
    host.supervisor.wait_ready("v1.1.0");
    host.shows("two");
    assert_ne!(host.id(), id);
    let log = host.supervisor.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn exit_code_125_is_for_good_and_tasks_are_done_once() {
    let command = "command = [\"/box\", \"exit\", \"0\", \"work\"]";
    let Ok(host) = Host::start("kind = \"task\"", command, "") else { return };
    host.supervisor.wait_ready("v1.0.0");
    host.state("done");
    Supervisor::signal(host.supervisor_pid(), "KILL");
    wait_for("a supervisor", LONG, || host.supervisor.status());
    host.state("done");
    holds_for("it is not done again", QUIET, || host.logs().matches("work").count() == 1);
    // A daemon that asks not to be restarted.
    host.repo.replace("groups/web/group.toml", "\"task\"", "\"daemon\"");
    host.repo.replace("groups/web/group.toml", "\"exit\", \"0\", \"work\"", "\"exit\", \"125\", \"enough\"").release("v1.1.0");
    host.state("failed");
    holds_for("it is left alone", QUIET, || host.logs().matches("enough").count() == 1);
    host.waits_for("ServiceFailed");
    // One that fails is started again, later and later, and never given up.
    host.repo.replace("groups/web/group.toml", "\"125\", \"enough\"", "\"3\", \"again\"").release("v1.2.0");
    host.waits_for("exit code 3");
    wait_for("three tries", LONG, || {
        let logs = host.logs();
        if logs.matches("again").count() >= 3 { Ok(()) } else { Err(logs) }
    });
}

#[test]
fn checks_run_within_and_a_deaf_container_is_killed() {
    let rest = "[hooks.health-check]\nmodule = \"builtin:exec\"\nargs = { command = \"look\" }\ninterval = \"1s\"\n\
                allow.exec = { look = [\"/box\", \"same\", \"{{mount.path}}/page\", \"one\"] }";
    let command = "command = [\"/box\", \"deaf\"]\nenv = { A = \"b\" }";
    let Ok(host) = Host::start("hardening = \"strict\"\nuser = \"12345\"", command, rest) else { return };
    host.supervisor.wait_ready("v1.0.0");
    let container = host.engine.container("web.default").unwrap();
    assert!(container["Config"]["Env"].as_array().unwrap().contains(&"A=b".into()), "{container:#}");
    assert_eq!(container["HostConfig"]["ReadonlyRootfs"], true);
    let pid = host.web().unwrap()["service"]["pid"].as_u64().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in ["Uid:\t12345", "NoNewPrivs:\t1", "CapBnd:\t0000000000000000"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    // It ignores SIGTERM, and goes all the same.
    assert_eq!(host.supervisor.client(&["service", "stop", "web", "--reason", "a test"]).code, Some(0));
    host.state("stopped");
    assert!(host.engine.containers().is_empty());
    assert!(host.dir.path().exists());
}

#[test]
fn a_group_may_change_between_process_and_container_but_is_never_both() {
    let Ok(host) = Host::start("", "command = [\"/box\", \"sleep\"]", "") else { return };
    host.supervisor.wait_ready("v1.0.0");
    let whole = format!("[service.container]\nimage = \"{IMAGE}\"\ncommand = [\"/box\", \"sleep\"]\n");
    host.repo.replace("groups/web/group.toml", &whole, "exec = [\"/bin/sleep\", \"1009\"]\n").release("v1.1.0");
    host.supervisor.wait_ready("v1.1.0");
    assert!(host.engine.containers().is_empty());
    let pid = host.web().unwrap()["service"]["pid"].as_u64().unwrap();
    assert!(std::fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"/bin/sleep\0"));
    host.repo.replace("groups/web/group.toml", "exec = [\"/bin/sleep\", \"1009\"]\n", &whole).release("v1.2.0");
    host.supervisor.wait_ready("v1.2.0");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(host.engine.container("web.default").unwrap()["State"]["Running"], true);
}

#[test]
fn memory_is_bounded_and_it_is_said() {
    let limits = "limits = { memory = \"16MiB\" }";
    let Ok(host) = Host::start(limits, "command = [\"/box\", \"eat\"]", "") else { return };
    host.waits_for("it ended with");
    wait_for("the status names the memory", LONG, || {
        let said = host.web()?["service"].to_string();
        if said.contains("out of memory") { Ok(()) } else { Err(said) }
    });
}

#[test]
fn an_image_that_is_nowhere_is_named() {
    let Ok(host) = Host::start("", "command = [\"/box\", \"sleep\"]", "") else { return };
    host.supervisor.wait_ready("v1.0.0");
    host.repo.replace("groups/web/group.toml", IMAGE, "localhost:1/none:9").release("v1.1.0");
    host.waits_for("localhost:1/none:9");
    host.repo.replace("groups/web/group.toml", "localhost:1/none:9", IMAGE).release("v1.2.0");
    host.supervisor.wait_ready("v1.2.0");
}
