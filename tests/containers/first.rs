//! Tagfall itself as the first process of a container, by the recipe of `examples/container`, with the engine's own defaults: no
//! rights that a plain `docker run` does not give.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{LONG, Repo, SHORT, Skipped, Tagfall, memory_kib, wait_for, zombies};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::engine::Engine;

/// The image that is built by the recipe.
const IMAGE: &str = "tagfall-first:1";
/// How long a stop may take before the engine kills, in seconds; the keeper must not come near it.
const STOP_MAX_S: u64 = 25;
/// Orphans that end in one moment, and how often.
const ORPHANS: u32 = 1_000;
const TIMES: u32 = 10;
/// By how much the keeper's own memory may grow for that, in KiB: nothing per orphan.
const GROWTH_MAX_KIB: u64 = 512;

/// Programs that the example's image is made of, in a folder of their own.
fn make_context(dir: &Path) -> Result<PathBuf, Skipped> {
    let tool = common::compile("box", dir, &["-static"])?;
    // Without its names of lines it is a tenth of the size, and the engine copies it often.
    let program = dir.join("tagfall");
    let strip = Command::new("strip").arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_tagfall")).status();
    assert!(strip.is_ok_and(|status| status.success()), "the program cannot be stripped");
    let context = dir.join("context");
    common::copy_tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/container"), &context);
    let made = Command::new("sh").arg("rootfs.sh").arg(&program).arg(&tool).current_dir(&context).status();
    assert!(made.is_ok_and(|status| status.success()), "the recipe does not work");
    Ok(context)
}

/// One host that is a container.
struct Inside {
    id: String,
    user: &'static str,
    repo: Repo,
    engine: Engine,
    // Last, so that it goes when nothing uses it any more.
    dir: TempDir,
}

impl Inside {
    fn new(user: &'static str) -> Result<Self, Skipped> {
        let dir = common::temp_dir();
        let engine = Engine::start(dir.path())?;
        engine.build(&make_context(dir.path())?, IMAGE);
        let repo = Repo::new(dir.path());
        repo.write("tagfall.toml", "format = 1\n");
        for name in ["data", "run", "etc"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            std::os::unix::fs::chown(dir.path().join(name), Some(user.parse().unwrap_or(0)), None).unwrap();
        }
        Ok(Self { id: String::new(), user, repo, engine, dir })
    }

    /// A group with this service, and a file at a mount path of its own.
    fn group(&self, name: &str, service: &str) {
        let text = format!(
            "format = 1\n[placement]\nlabels = {{}}\n[service]\n{service}\n[config]\ntext = \"one\"\n[mount]\npath = \"/etc/tagfall/{name}\"\n"
        );
        self.repo.write(&format!("groups/{name}/group.toml"), &text);
        self.repo.write(&format!("groups/{name}/config/page.hbs"), "{{cfg.text}}\n");
    }

    /// Makes a container of this environment and starts it: `docker run -d -e … -v … --user …`.
    fn run(&mut self, env: &[&str]) {
        let bind = |from: &Path, to: &str| format!("{}:{to}", from.display());
        let path = |name: &str| self.dir.path().join(name);
        let binds = [
            bind(self.repo.bare(), "/repo:ro"),
            bind(&path("data"), "/var/lib/tagfall"),
            bind(&path("run"), "/run/tagfall"),
            bind(&path("etc"), "/etc/tagfall"),
        ];
        let body = json!({
            "Image": IMAGE, "User": self.user, "Env": env, "HostConfig": {"Binds": binds, "NetworkMode": "none"}
        });
        let made = self.engine.ask("POST", "/containers/create", "application/json", body.to_string().as_bytes()).unwrap();
        let made: Value = serde_json::from_str(&made).unwrap();
        self.id = made["Id"].as_str().unwrap().to_owned();
        self.order("start", "");
    }

    /// The same, following the repository.
    fn follow(&mut self) {
        let source = ["TAGFALL_SOURCE__URL=/repo", "TAGFALL_SOURCE__VERIFY__MODE=off", "TAGFALL_SOURCE__POLL=1s"];
        let places = ["TAGFALL_DATA_DIR=/var/lib/tagfall", "TAGFALL_API__SOCKET=/run/tagfall/supervisor.sock"];
        self.run(&[source.as_slice(), places.as_slice()].concat());
    }

    fn order(&self, what: &str, query: &str) {
        let path = format!("/containers/{}/{what}{query}", self.id);
        self.engine.ask("POST", &path, "application/json", b"").unwrap_or_else(|error| panic!("{what}: {error}: {}", self.log()));
    }

    fn state(&self) -> Value {
        self.engine.json(&format!("/containers/{}/json", self.id))["State"].clone()
    }

    /// What the keeper and the supervisor say.
    fn log(&self) -> String {
        self.engine.ask("GET", &format!("/containers/{}/logs?stdout=1&stderr=1", self.id), "", &[]).unwrap_or_default()
    }

    /// The exit code, once it has one.
    fn ended(&self) -> i64 {
        wait_for("the container has ended", LONG, || {
            let state = self.state();
            if state["Running"] == false { Ok(state["ExitCode"].as_i64().unwrap()) } else { Err(self.log()) }
        })
    }

    /// Runs a command inside; what it prints. `docker exec -t …`.
    fn exec(&self, words: &[&str]) -> String {
        let ask = |path: &str, body: &Value| {
            self.engine.ask("POST", path, "application/json", body.to_string().as_bytes()).unwrap_or_else(|error| error)
        };
        let made = ask(
            &format!("/containers/{}/exec", self.id),
            &json!({"Cmd": words, "Env": ["NO_COLOR=1"], "Tty": true, "AttachStdout": true, "AttachStderr": true}),
        );
        let made: Value = serde_json::from_str(&made).unwrap_or_default();
        ask(&format!("/exec/{}/start", made["Id"].as_str().unwrap_or_default()), &json!({"Detach": false, "Tty": true}))
    }

    fn status(&self) -> Result<Value, String> {
        let api = format!("unix:{}", self.dir.path().join("run/supervisor.sock").display());
        let output = Tagfall::new(env!("CARGO_BIN_EXE_tagfall")).run(&["status", "-o", "json", "--api", &api]);
        serde_json::from_str(&output.stdout).map_err(|error| format!("{error}: {}{}", output.stderr, self.log()))
    }

    fn group_status(&self, name: &str) -> Result<Value, String> {
        let status = self.status()?;
        let mut groups = status["groups"].as_array().into_iter().flatten();
        groups.find(|group| group["name"] == format!("{name}.default")).cloned().ok_or_else(|| format!("{status:#}"))
    }

    /// Waits until all of a release is there.
    fn wait_ready(&self, tag: &str) {
        wait_for(&format!("{tag} is applied"), LONG, || {
            let status = self.status()?;
            let applied = status["release"]["tag"] == tag && !status["release"]["applied_at"].is_null();
            let waits = status["groups"].as_array().into_iter().flatten().any(|group| group["waits"] != json!([]));
            if applied && !waits { Ok(()) } else { Err(format!("{status:#}\n{}", self.log())) }
        });
    }

    /// What a service has written.
    fn lines(&self, name: &str) -> String {
        let path = self.dir.path().join(format!("data/logs/{name}.default/current.log"));
        fs::read_to_string(&path).unwrap_or_else(|error| format!("{}: {error}", path.display()))
    }

    fn wait_line(&self, name: &str, text: &str) {
        wait_for(text, LONG, || {
            let lines = self.lines(name);
            if lines.contains(text) { Ok(()) } else { Err(format!("{lines}\n{}", self.log())) }
        });
    }

    /// The keeper's number out here.
    fn keeper(&self) -> u64 {
        self.state()["Pid"].as_u64().unwrap()
    }

    /// The number out here of a process with that one in there.
    fn outside(&self, inside: &Value) -> u64 {
        let inside = u32::try_from(inside.as_u64().unwrap()).unwrap();
        let keeper = u32::try_from(self.keeper()).unwrap();
        common::number_of(keeper, inside).unwrap().into()
    }
}

fn kill(pid: u64, signal: &str) {
    common::Supervisor::signal(pid, signal);
}

#[test]
fn the_example_serves_as_the_first_process_of_a_plain_container() {
    let Ok(mut host) = Inside::new("") else { return };
    host.group("web", "exec = [\"/usr/local/bin/box\", \"family\"]\nlimits = { memory = \"64MiB\" }");
    host.repo.release("v1.0.0");
    host.follow();
    host.wait_ready("v1.0.0");
    let (web, status) = (host.group_status("web").unwrap(), host.status().unwrap());
    assert_eq!(status["supervisor"]["keeper_pid"], 1, "{status:#}");
    // What it cannot do there, it says, and does without.
    assert_eq!(web["mount"]["mode"], "symlink", "{web:#}");
    let said = web.to_string();
    for words in ["mount namespaces are not allowed here", "limit `memory` cannot be enforced here", "Read-only file system"] {
        assert!(said.contains(words), "`{words}` is not in {web:#}");
    }

    // One that ends is back at once; the supervisor's death and another program in the keeper's place touch none.
    let first = web["service"]["pid"].clone();
    kill(host.outside(&first), "KILL");
    let second = wait_for("it is back", LONG, || {
        let service = host.group_status("web")?["service"].clone();
        let back = service["pid"] != first && service["state"] == "running";
        if back { Ok(service["pid"].clone()) } else { Err(service.to_string()) }
    });
    let supervisor = status["supervisor"]["pid"].clone();
    kill(host.outside(&supervisor), "KILL");
    for signal in [None, Some("?signal=HUP")] {
        if let Some(query) = signal {
            host.order("kill", query);
            wait_for("it became the program", SHORT, || {
                let log = host.log();
                if log.contains("the keeper becomes") { Ok(()) } else { Err(log) }
            });
        }
        let before = host.status().map_or(Value::Null, |status| status["supervisor"]["pid"].clone());
        wait_for("another supervisor", LONG, || {
            let now = host.status()?["supervisor"]["pid"].clone();
            if now != supervisor && (signal.is_none() || now != before) { Ok(()) } else { Err(now.to_string()) }
        });
        host.wait_ready("v1.0.0");
        assert_eq!(host.group_status("web").unwrap()["service"]["pid"], second);
    }

    orphans_are_collected(&host);

    // `docker stop`: in order, with the container's exit code, and long before the engine would kill.
    let begun = std::time::Instant::now();
    host.order("stop", &format!("?t={STOP_MAX_S}"));
    assert!(begun.elapsed() < Duration::from_secs(STOP_MAX_S), "the engine had to kill: {}", host.log());
    assert_eq!(host.ended(), 0, "{}", host.log());
    assert!(host.log().contains("services are stopped in order"), "{}", host.log());
    assert!(!host.dir.path().join("run/supervisor.sock").exists());

    // Started again on what is there, and interrupted.
    host.order("start", "");
    host.wait_ready("v1.1.0");
    host.order("kill", "?signal=INT");
    assert_eq!(host.ended(), 0, "{}", host.log());
    // Killed whole, as by a host that goes down: the next one begins anew.
    host.order("start", "");
    host.wait_ready("v1.1.0");
    host.order("kill", "?signal=KILL");
    assert_eq!(host.ended(), 137);
    host.order("start", "");
    host.wait_ready("v1.1.0");
    assert_eq!(host.group_status("web").unwrap()["service"]["state"], "running");
}

/// Ten thousand processes lose their parent and end: none stays, and the keeper does not grow.
fn orphans_are_collected(host: &Inside) {
    let before = memory_kib(host.keeper()).unwrap();
    let (orphans, times) = (ORPHANS.to_string(), TIMES.to_string());
    host.group("orphans", &format!("exec = [\"/usr/local/bin/box\", \"orphans\", \"{times}\", \"{orphans}\"]"));
    host.repo.release("v1.1.0");
    host.wait_ready("v1.1.0");
    host.wait_line("orphans", "done");
    wait_for("no zombie is left", LONG, || match zombies(host.keeper()) {
        0 => Ok(()),
        left => Err(format!("{left} zombies")),
    });
    let after = memory_kib(host.keeper()).unwrap();
    assert!(after <= before + GROWTH_MAX_KIB, "{before} KiB became {after} KiB");
}

#[test]
fn an_ordinary_user_can_be_the_first_process_too() {
    let Ok(mut host) = Inside::new("1000") else { return };
    host.group("web", "exec = [\"/usr/local/bin/box\", \"sleep\"]");
    host.repo.release("v1.0.0");
    host.follow();
    host.wait_ready("v1.0.0");
    let web = host.group_status("web").unwrap();
    assert_eq!(web["mount"]["mode"], "symlink", "{web:#}");
    let pid = host.outside(&web["service"]["pid"]);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Uid:\t1000\t1000\t1000\t1000") && status.contains("NoNewPrivs:\t1"), "{status}");
    host.order("stop", &format!("?t={STOP_MAX_S}"));
    assert_eq!(host.ended(), 0, "{}", host.log());
    // With the image's own places, as its README says, and asked from within.
    host.repo.replace("groups/web/group.toml", "/etc/tagfall/web", "/home/tagfall/etc/web").release("v1.1.0");
    host.run(&["TAGFALL_SOURCE__URL=/repo", "TAGFALL_SOURCE__VERIFY__MODE=off"]);
    wait_for("v1.1.0 is shown within", LONG, || {
        let said = host.exec(&["tagfall", "status"]);
        if said.contains("web.default v1.1.0 running") { Ok(()) } else { Err(format!("{said}{}", host.log())) }
    });
}

#[test]
fn one_that_cannot_begin_ends_the_container_with_a_code_and_a_word() {
    let Ok(mut host) = Inside::new("") else { return };
    for (env, words) in [
        (vec![], "cannot read the supervisor's file"),
        (vec!["TAGFALL_SOURCE__URL=/repo"], "`mode = \"off\"`"),
        (vec!["TAGFALL_SOURCE__URL=/repo", "TAGFALL_SOURCE__POLL=often"], "poll"),
        (
            vec!["TAGFALL_SOURCE__URL=/repo", "TAGFALL_SOURCE__VERIFY__MODE=off", "TAGFALL_DATA_DIR=/proc/tagfall"],
            "/proc/tagfall",
        ),
    ] {
        host.run(&env);
        assert_eq!(host.ended(), 2, "{env:?}: {}", host.log());
        assert!(host.log().contains(words), "{env:?}: `{words}` is not in {}", host.log());
    }
}
