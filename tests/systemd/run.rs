//! The unit under a systemd that runs: started, reloaded, its keeper killed and hung, stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{LONG, Repo, SHORT, Skipped, holds_for, need, need_root, need_tool, wait_for, wait_until};
use tempfile::TempDir;

/// It ends by itself after so long, in seconds, whatever becomes of the test.
const LIFE_MAX_S: &str = "120";
/// How long nothing may happen before "it was left alone" is believed.
const QUIET: Duration = Duration::from_secs(1);

/// A systemd of the test's own.
struct Machine {
    name: String,
    outer: Child,
    init: u32,
    repo: Repo,
    // Last, so that it goes when nothing uses it any more.
    dir: TempDir,
}

impl Machine {
    /// One whose unit is the example's, with these lines of `[Service]` beside.
    fn start(beside: &str) -> Result<Self, Skipped> {
        need_root()?;
        common::rights_to_mount()?;
        for tool in ["systemctl", "unshare", "nsenter", "timeout"] {
            need_tool(tool)?;
        }
        need(Path::new("/lib/systemd/systemd").exists(), "there is no systemd here")?;
        let dir = common::temp_dir();
        let repo = Repo::new(dir.path());
        let text = fs::read_to_string(crate::example("tagfall.service")).unwrap();
        let unit = text.replace("\n[Install]", &format!("{beside}\n\n[Install]"));
        fs::write(dir.path().join("unit"), unit).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_tagfall"), dir.path().join("tagfall")).unwrap();
        let settings = "[source]\nurl = \"/mnt/config.git\"\npoll = \"1s\"\n[source.verify]\nmode = \"off\"\n";
        let bare = repo.bare().file_name().unwrap().to_str().unwrap().to_owned();
        fs::write(dir.path().join("supervisor.toml"), settings.replace("config.git", &bare)).unwrap();
        let name = format!("tfsystemd{}", std::process::id());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/systemd.sh");
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", LIFE_MAX_S]).arg(script).arg(&name).arg(dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut machine = Self { name, outer: command.spawn().unwrap(), init: 0, repo, dir };
        let runs = machine.wait_running();
        need(runs, &format!("no systemd can be run in namespaces here: {}", machine.words()))?;
        Ok(machine)
    }

    fn words(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Finds the first process inside and waits until it takes orders; false where it does not come to that.
    fn wait_running(&mut self) -> bool {
        let begun = std::time::Instant::now();
        while begun.elapsed() < LONG && self.outer.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.init = common::number_of(self.outer.id(), 1).unwrap_or(0);
            let (code, state) =
                if self.init == 0 { (None, String::new()) } else { self.ask(&["systemctl", "is-system-running"]) };
            if code == Some(0) || ["running", "degraded"].contains(&state.trim()) {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        false
    }

    /// Runs a command inside.
    fn ask(&self, words: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new("nsenter");
        command.args([
            "-t",
            &self.init.to_string(),
            "-m",
            "-p",
            "-u",
            "-i",
            "-C",
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        ]);
        let output = command.args(words).stdin(Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    fn order(&self, what: &str) {
        let (code, said) = self.ask(&["systemctl", what, "tagfall"]);
        assert_eq!(code, Some(0), "{what}: {said}\n{}", self.ask(&["systemctl", "--no-pager", "status", "tagfall"]).1);
    }

    fn shows(&self, property: &str) -> String {
        self.ask(&["systemctl", "show", "--value", "-p", property, "tagfall"]).1.trim().to_owned()
    }

    /// Waits until the group runs; gives its process inside.
    fn runs(&self) -> u64 {
        wait_for("web runs", LONG, || {
            let said = self.ask(&["tagfall", "status", "-o", "json"]).1;
            let status: serde_json::Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
            let group = &status["groups"][0];
            let settled = group["service"]["state"] == "running" && group["waits"] == serde_json::json!([]);
            let pid = group["service"]["pid"].as_u64().filter(|_| settled);
            pid.ok_or_else(|| format!("{status:#}"))
        })
    }

    fn kill(&self, signal: &str, pid: &str) {
        assert_eq!(self.ask(&["kill", signal, pid]).0, Some(0), "{signal} {pid}");
    }

    fn alive(&self, pid: u64) -> bool {
        self.ask(&["kill", "-0", &pid.to_string()]).0 == Some(0)
    }
}

impl Drop for Machine {
    /// Its end takes all along that is inside; its cgroups are left, and go here.
    fn drop(&mut self) {
        for pid in [self.init, self.outer.id()].into_iter().filter(|pid| *pid > 1) {
            drop(Command::new("kill").args(["-KILL", &pid.to_string()]).status());
        }
        drop(self.outer.wait());
        let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        let roots: Vec<PathBuf> = roots.chain([PathBuf::from("/sys/fs/cgroup")]).map(|root| root.join(&self.name)).collect();
        let begun = std::time::Instant::now();
        while roots.iter().any(|root| root.is_dir()) && begun.elapsed() < SHORT {
            roots.iter().for_each(|root| remove_folders(root));
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// Removes empty cgroups, the innermost first.
fn remove_folders(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_folders(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

#[test]
fn services_live_on_through_all_that_happens_to_the_unit_but_its_stop() {
    // Short, so that a keeper that hangs is noticed within the test; a busy machine must not look like one.
    let Ok(machine) = Machine::start("WatchdogSec=6s\nRestartSec=100ms") else { return };
    let text = "format = 1\n[placement]\nlabels = {}\n[service]\nexec = [\"/bin/sleep\", \"100000\"]\nuser = \"nobody\"\n\
                [config]\ntext = \"one\"\n[mount]\npath = \"/etc/web\"\n";
    machine.repo.write("tagfall.toml", "format = 1\n").write("groups/web/group.toml", text);
    machine.repo.write("groups/web/config/page.hbs", "{{cfg.text}}\n").release("v1.0.0");
    // It returns once the API answers.
    machine.order("start");
    let (code, said) = machine.ask(&["tagfall", "status"]);
    assert_eq!(code, Some(0), "{said}");
    let pid = machine.runs();
    wait_until("systemd shows what the keeper says", SHORT, || machine.shows("StatusText") == "1 service");

    // A publication is shown to what runs: the unit's rights are enough.
    machine.repo.replace("groups/web/group.toml", "\"one\"", "\"two\"");
    machine.repo.replace("groups/web/group.toml", "user =", "reload_signal = \"SIGCONT\"\nuser =").release("v1.1.0");
    wait_for("the next release is seen", LONG, || {
        let seen = machine.ask(&["cat", &format!("/proc/{}/root/etc/web/page", machine.runs())]).1;
        if seen.trim() == "two" { Ok(()) } else { Err(seen) }
    });
    assert_eq!(machine.runs(), pid);

    let keeper = machine.shows("MainPID");
    machine.order("reload");
    wait_until("the reload is over", SHORT, || machine.shows("SubState") == "running");
    assert_eq!((machine.shows("MainPID"), machine.runs()), (keeper.clone(), pid));

    // Killed, and hung: systemd starts the next one, which goes on with what runs.
    for (signal, restarts) in [("-KILL", "1"), ("-STOP", "2")] {
        machine.kill(signal, &machine.shows("MainPID"));
        wait_until("systemd has started the next one", LONG, || {
            machine.shows("NRestarts") == restarts && machine.shows("ActiveState") == "active"
        });
        assert_eq!(machine.runs(), pid, "after {signal}");
    }
    assert_ne!(machine.shows("MainPID"), keeper);
    // The next one gives signs of life as well.
    holds_for("it is left alone", QUIET, || machine.shows("NRestarts") == "2" && machine.alive(pid));

    machine.order("stop");
    assert_eq!(machine.shows("Result"), "success");
    assert!(!machine.alive(pid));
}
