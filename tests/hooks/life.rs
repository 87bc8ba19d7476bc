//! Hooks over a service's whole life, under a real supervisor: each writes down that it was called, and so does the service.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use common::{LONG, Repo, Supervisor, Tagfall, module, wait_for, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use super::recorder;

/// A host with one group, whose service and hooks write into one file.
struct Life {
    supervisor: Supervisor,
    repo: Repo,
    // Last, so that it goes when nothing uses it any more.
    dir: TempDir,
}

/// What happened: a hook's name with what it was told, or a word of the service.
#[derive(Debug, Clone)]
struct Said {
    what: String,
    told: Value,
}

impl Life {
    fn start(hooks: &[&str]) -> Self {
        let dir = common::temp_dir();
        let notes = dir.path().join("notes");
        std::fs::create_dir(&notes).unwrap();
        std::fs::write(notes.join("calls"), "").unwrap();
        // Supervisor and service may be different users.
        for (path, mode) in [(&notes, 0o777), (&notes.join("calls"), 0o666)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let repo = Repo::new(dir.path());
        let file = repo.clone_dir().join("groups/web/hooks/recorder.wasm");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, recorder::wasm()).unwrap();
        repo.write("groups/web/group.toml", &group(&notes, hooks, 1, "0"));
        repo.write("groups/web/config/app.conf.hbs", "port = {{cfg.port}}\n").release("v1.0.0");
        let tagfall = Tagfall::new(env!("CARGO_BIN_EXE_tagfall"));
        let settings = Supervisor::settings(dir.path(), &repo.bare().display().to_string(), "{}");
        let settings = format!("hook_roots = [{notes:?}]\n{settings}");
        let supervisor = Supervisor::start_with(&tagfall, dir.path(), &settings, &[]);
        Self { supervisor, repo, dir }
    }

    fn notes(&self) -> PathBuf {
        self.dir.path().join("notes")
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.notes().join(name), text).unwrap();
    }

    fn take(&self, name: &str) {
        std::fs::remove_file(self.notes().join(name)).unwrap();
    }

    fn said(&self) -> Vec<Said> {
        let text = std::fs::read_to_string(self.notes().join("calls")).unwrap_or_default();
        let line = |line: &str| match serde_json::from_str::<Value>(line) {
            Ok(told) => Said { what: told["hook"].as_str().unwrap_or_default().to_owned(), told },
            Err(_) => Said { what: line.to_owned(), told: Value::Null },
        };
        text.lines().map(line).collect()
    }

    /// Waits until exactly this has been said from `from` on, and gives what the hooks said of it. A service takes a moment to
    /// say what it has to, so where its words stand counts only where one is to wait for the other.
    fn wait_said(&self, from: usize, words: &[&str]) -> Vec<Said> {
        let said = wait_for(&format!("{words:?} to be said"), LONG, || {
            let said = self.said();
            let new: Vec<&str> = said.iter().skip(from).map(|said| said.what.as_str()).collect();
            if split(&new) == split(words) {
                Ok(said[from..].to_vec())
            } else {
                Err(format!("{new:?}\n{}", self.supervisor.log()))
            }
        });
        let at = |word: &str| said.iter().position(|said| said.what == word);
        for (first, then) in [("init", "start"), ("pre-stop", "end"), ("end", "post-stop"), ("reconfigure", "hup")] {
            assert!(at(first).zip(at(then)).is_none_or(|(first, then)| first < then), "{said:?}");
        }
        said.into_iter().filter(|said| !OWN.contains(&said.what.as_str())).collect()
    }

    fn group(&self) -> Value {
        let status = self.supervisor.status().unwrap_or_default();
        let groups = status["groups"].as_array().cloned().unwrap_or_default();
        groups.into_iter().find(|group| group["name"] == "web.default").unwrap_or_default()
    }

    fn pid(&self) -> u64 {
        wait_for("a process", LONG, || self.group()["service"]["pid"].as_u64().ok_or_else(|| format!("{:#}", self.group())))
    }

    fn release(&self, tag: &str, hooks: &[&str], port: u16, launch: &str) {
        self.repo.write("groups/web/group.toml", &group(&self.notes(), hooks, port, launch)).release(tag);
    }
}

/// What the service itself says.
const OWN: [&str; 3] = ["start", "end", "hup"];

/// What hooks said, and what the service said.
fn split<'a>(words: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    words.iter().partition(|word| !OWN.contains(word))
}

/// A service that says when it starts, ends and is signalled; `launch` makes another of it.
fn group(notes: &std::path::Path, hooks: &[&str], port: u16, launch: &str) -> String {
    let calls = notes.join("calls").display().to_string();
    let script = format!(
        "trap 'echo hup >> {calls}' HUP; trap 'echo end >> {calls}; exit 0' TERM; echo start >> {calls}; \
         while :; do sleep 1000 & wait $!; kill $!; done"
    );
    let mount = notes.parent().unwrap().join("mnt/web").display().to_string();
    let mut text = format!(
        "format = 1\n[placement]\nlabels = {{}}\n[service]\nexec = [\"sh\", \"-c\", {script:?}, {launch:?}]\n\
         reload_signal = \"SIGHUP\"\nbackoff = {{ min = \"10ms\", max = \"50ms\" }}\n[config]\nport = {port}\n\
         [mount]\npath = {mount:?}\n"
    );
    for hook in hooks {
        text.push_str(&format!(
            "[hooks.{hook}]\nmodule = \"hooks/recorder.wasm\"\ntimeout = \"30s\"\nallow = {{ write = [{notes:?}] }}\n"
        ));
    }
    text
}

const ALL: [&str; 7] = ["init", "post-run", "reconfigure", "pre-update", "post-update", "pre-stop", "post-stop"];

#[test]
fn hooks_come_in_their_order_over_a_services_life() {
    let life = Life::start(&ALL);
    let said = life.wait_said(0, &["init", "start", "post-run"]);
    assert_eq!((&said[0].told["context"]["reason"], &said[0].told["context"]["attempt"]), (&"boot".into(), &1.into()));
    assert_eq!(said[1].told["pid"], life.pid());

    // It crashes: what it left is put away, and a start is prepared anew.
    Supervisor::signal(life.pid(), "KILL");
    let said = life.wait_said(3, &["post-stop", "init", "start", "post-run"]);
    assert_eq!(said[0].told["exit"]["signal"], "SIGKILL", "{}", said[0].told);
    assert_eq!(said[0].told["context"]["attempt"], 1);

    // Only its files change: the hook decides what comes of it.
    life.put("say-reconfigure", "signal SIGHUP\n");
    life.release("v1.1.0", &ALL, 2, "0");
    let pid = life.pid();
    let mut said = life.wait_said(7, &["pre-update", "reconfigure", "hup", "post-update"]);
    assert_eq!(said[0].told["next"], "v1.1.0");
    assert_eq!(
        (&said[0].told["context"]["release"], &said[0].told["context"]["extra"]["direction"]),
        (&"v1.0.0".into(), &"forward".into())
    );
    assert_eq!(said[1].told["changed"], serde_json::json!(["app.conf"]), "{}", said[1].told);
    assert_eq!(said.pop().unwrap().told["previous"], "v1.0.0");
    assert_eq!(life.pid(), pid);

    // Another launch: the old process is drained, put away, and the new one prepared.
    life.release("v1.2.0", &ALL, 2, "1");
    life.wait_said(11, &["pre-update", "pre-stop", "end", "post-stop", "init", "start", "post-run", "post-update"]);

    // An operator stops it and starts it again.
    let stop = life.supervisor.client(&["service", "stop", "web.default", "--reason", "maintenance"]);
    assert_eq!(stop.code, Some(0), "{stop:?}");
    life.wait_said(19, &["pre-stop", "end", "post-stop"]);
    let start = life.supervisor.client(&["service", "start", "web.default"]);
    assert_eq!(start.code, Some(0), "{start:?}");
    life.wait_said(22, &["init", "start", "post-run"]);
    let restart = life.supervisor.client(&["service", "restart", "web.default"]);
    assert_eq!(restart.code, Some(0), "{restart:?}");
    life.wait_said(25, &["pre-stop", "end", "post-stop", "init", "start", "post-run"]);
    wait_until("it is converged", LONG, || life.group()["conditions"][0]["status"] == "True");

    // The group goes.
    life.repo.run(&["rm", "-r", "-q", "groups/web"]);
    life.repo.write("groups/other/group.toml", "format = 1\n[placement]\nlabels = {}\n").release("v1.3.0");
    life.wait_said(31, &["pre-stop", "end", "post-stop"]);
    life.supervisor.wait_ready("v1.3.0");
}

#[test]
fn what_a_hook_runs_before_the_first_start_is_run_as_the_service_will_be() {
    let dir = common::temp_dir();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let repo = Repo::new(dir.path());
    let file = repo.clone_dir().join("groups/web/hooks/migrates.wasm");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, migrates()).unwrap();
    let made = dir.path().join("made");
    let user = if common::is_root() { "nobody" } else { "" };
    let as_user = if user.is_empty() { String::new() } else { format!("user = {user:?}\n") };
    let script = format!("echo $(id -un) $COLOUR $TAGFALL_GROUP $TAGFALL_RELEASE > {}", made.display());
    let text = format!(
        "format = 1\n[placement]\nlabels = {{}}\n[service]\nexec = [\"sleep\", \"1000\"]\nenv = {{ COLOUR = \"blue\" }}\n{as_user}\
         [hooks.init]\nmodule = \"hooks/migrates.wasm\"\nallow = {{ exec = {{ migrate = [\"sh\", \"-c\", {script:?}] }} }}\n"
    );
    repo.write("groups/web/group.toml", &text).release("v1.0.0");
    let tagfall = Tagfall::new(env!("CARGO_BIN_EXE_tagfall"));
    let supervisor = Supervisor::start(&tagfall, dir.path(), repo.bare(), "{}");
    supervisor.wait_ready("v1.0.0");
    let said = std::fs::read_to_string(made).unwrap();
    let words: Vec<&str> = said.split_whitespace().collect();
    assert!(user.is_empty() || words[0] == user, "{said}");
    assert_eq!(words[1..], ["blue", "web.default", "v1.0.0"]);
}

/// An `init` that runs the command `migrate`, and fails where that cannot be run.
fn migrates() -> Vec<u8> {
    let exec = "(import \"tagfall:hooks/exec@0.1.0\" \"run\" (func $exec (param i32 i32 i32 i32)))";
    let code = "(data (i32.const 1024) \"migrate\")
      (func (export \"tagfall:hooks/init@0.1.0#run\") (param i32) (result i32)
        (call $exec (i32.const 1024) (i32.const 7) (i32.const 20000) (i32.const 800))
        (if (i32.load8_u (i32.const 800)) (then (unreachable)))
        (i32.const 512))";
    module::component("import exec; export init;", exec, code)
}

#[test]
fn nothing_starts_while_init_fails() {
    let life = Life::start(&["init"]);
    life.wait_said(0, &["init", "start"]);
    life.put("fail-init", "");
    life.put("say-init", "no database yet\n");
    Supervisor::signal(life.pid(), "KILL");
    let waits = |group: &Value| {
        let waits = group["waits"].as_array().into_iter().flatten();
        waits.into_iter().any(|wait| {
            wait["reason"] == "HookFailed" && wait["message"].as_str().unwrap_or_default().contains("no database yet")
        })
    };
    wait_until("what it waits for is told", LONG, || waits(&life.group()));
    let tried = wait_for("it is tried again", LONG, || {
        let said = life.said();
        if said.len() >= 5 { Ok(said) } else { Err(format!("{said:?}")) }
    });
    let attempts: Vec<u64> = tried[2..5].iter().map(|said| said.told["context"]["attempt"].as_u64().unwrap()).collect();
    assert_eq!(attempts, [1, 2, 3]);
    assert!(tried[2..].iter().all(|said| said.what == "init"), "{tried:?}");
    assert_eq!(life.group()["service"]["state"], "waiting");
    life.take("fail-init");
    wait_until("it starts", LONG, || life.said().last().is_some_and(|said| said.what == "start"));
}

#[test]
fn while_the_supervisor_is_away_a_service_with_hooks_waits_for_it() {
    let life = Life::start(&["init", "post-run", "post-stop"]);
    life.wait_said(0, &["init", "start", "post-run"]);
    let service = life.pid();
    let supervisor = life.supervisor.status().unwrap()["supervisor"]["pid"].as_u64().unwrap();
    for pid in [supervisor, service] {
        Supervisor::signal(pid, "KILL");
    }
    // Each once: the end of the one process, and the start of the next.
    life.wait_said(3, &["post-stop", "init", "start", "post-run"]);
    let other = wait_for("it is back", LONG, || {
        let pid = life.supervisor.status().ok().and_then(|status| status["supervisor"]["pid"].as_u64());
        pid.filter(|pid| *pid != supervisor).ok_or_else(|| "not yet".to_owned())
    });
    // One that dies while nothing happens calls nothing again.
    Supervisor::signal(other, "KILL");
    wait_until("it is back and converged", LONG, || {
        let status = life.supervisor.status().unwrap_or_default();
        status["supervisor"]["pid"].as_u64().is_some_and(|pid| pid != other) && life.group()["conditions"][0]["status"] == "True"
    });
    assert_eq!(life.said().len(), 7, "{:?}", life.said());
}

#[test]
fn a_call_that_was_cut_off_is_made_again_and_says_so() {
    let life = Life::start(&["post-stop"]);
    life.wait_said(0, &["start"]);
    life.put("hold-post-stop", "");
    Supervisor::signal(life.pid(), "KILL");
    life.wait_said(1, &["post-stop"]);
    let host = life.supervisor.status().unwrap()["supervisor"]["hook_host_pid"].as_u64().unwrap();
    Supervisor::signal(host, "KILL");
    wait_until("it is called again", LONG, || life.said().len() == 3);
    life.take("hold-post-stop");
    let said = life.wait_said(1, &["post-stop", "post-stop", "start"]);
    let attempts: Vec<u64> = said[..2].iter().map(|said| said.told["context"]["attempt"].as_u64().unwrap()).collect();
    assert_eq!(attempts, [1, 2]);
}

#[test]
fn a_host_that_goes_down_drains_and_puts_away() {
    let mut life = Life::start(&["pre-stop", "post-stop"]);
    life.wait_said(0, &["start"]);
    life.supervisor.wait_ready("v1.0.0");
    assert_eq!(life.supervisor.terminate(), Some(0));
    let said = life.said();
    let words: Vec<&str> = said.iter().map(|said| said.what.as_str()).collect();
    assert_eq!(words, ["start", "pre-stop", "end", "post-stop"]);
    assert_eq!(said[3].told["exit"]["code"], 0);
}

#[test]
fn a_member_says_how_well_it_would_lead() {
    let life = Life::start(&["suitability"]);
    let notices = |life: &Life| life.group()["notices"].to_string();
    wait_until("why it is not asked is told", LONG, || notices(&life).contains("only with `[topology]"));
    life.put("say-suitability", "70\n");
    let group = group(&life.notes(), &["suitability"], 1, "0");
    let group = group.replacen("[service]", "[topology]\nkind = \"leader\"\n[service]", 1);
    life.repo.write("groups/web/group.toml", &group).release("v1.1.0");
    wait_until("its number is told", LONG, || notices(&life).contains("hook `suitability` says 70"));
}
