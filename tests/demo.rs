//! `tagfall demo` as a newcomer runs it: the show, what they type next, and that nothing stays behind, however it ends.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use common::{LONG, SHORT, Supervisor, Tagfall, wait_for, wait_until};
use tempfile::TempDir;

const NOBODY: u32 = 65_534;

fn tagfall() -> Tagfall {
    Tagfall::new(env!("CARGO_BIN_EXE_tagfall"))
}

/// A demo that goes on, in a process group of its own as on a terminal.
struct Demo {
    child: Child,
    // Last, so that it goes when nothing uses it any more.
    outer: TempDir,
}

impl Demo {
    /// Starts one and waits until it follows.
    fn start() -> Self {
        let outer = common::temp_dir();
        let output = |name| File::create(outer.path().join(name)).expect("a log can be made");
        let mut command = tagfall().command(&["demo", "--dir"]);
        command.arg(outer.path().join("d")).stdout(output("out")).stderr(output("err")).process_group(0);
        let mut demo = Self { child: command.spawn().expect("the demo can be started"), outer };
        demo.says("What you push is shown here");
        demo
    }

    fn dir(&self) -> PathBuf {
        self.outer.path().join("d")
    }

    fn said(&self) -> String {
        ["out", "err"].map(|name| fs::read_to_string(self.outer.path().join(name)).unwrap_or_default()).concat()
    }

    /// Waits until the demo has said this.
    fn says(&mut self, words: &str) {
        wait_for(words, LONG, || {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if self.said().contains(words) { Ok(()) } else { Err(format!("{ended:?}: {}", self.said())) }
        });
    }

    /// The lines that the demo names in its last step: those to release something, and those to look around.
    fn lines(&self) -> Vec<String> {
        let said = self.said();
        let (_, rest) = said.split_once("Your turn").expect("the last step has lines");
        let typed = ["cd ", "sed ", "git ", "curl ", "export ", "tagfall "];
        let lines = rest.lines().map(str::trim).filter(|line| typed.iter().any(|word| line.starts_with(word)));
        // What a line is for stands behind it, three spaces away.
        lines.map(|line| line.split("   ").next().unwrap_or(line).to_owned()).collect()
    }

    fn keeper(&self) -> u64 {
        let api = format!("unix:{}", self.dir().join("api.sock").display());
        let output = tagfall().run(&["status", "-o", "json", "--api", &api]);
        let status: serde_json::Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        status["supervisor"]["keeper_pid"].as_u64().expect("the keeper is there")
    }

    /// Presses ctrl-C: the terminal tells the whole group.
    fn interrupt(&self) {
        let status = Command::new("kill").args(["-INT", "--", &format!("-{}", self.child.id())]).status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    fn exit_code(&mut self) -> Option<i32> {
        wait_for("the demo has ended", LONG, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            other => Err(format!("{other:?}: {}", self.said())),
        })
    }

    fn is_gone(&self) {
        assert_eq!(processes_of(&self.dir()), Vec::<String>::new(), "{}", self.said());
        assert!(fs::symlink_metadata(self.dir()).is_err(), "{} is still there: {}", self.dir().display(), self.said());
    }
}

impl Drop for Demo {
    /// A failed test leaves nothing behind either: the supervisor ends with the demo.
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if !std::thread::panicking() {
            wait_until("everything has ended", SHORT, || processes_of(&self.dir()).is_empty());
        }
    }
}

/// Command lines of processes that name a folder or work in it.
fn processes_of(dir: &Path) -> Vec<String> {
    let text = dir.to_str().expect("a test's folder has a plain name");
    let found = |process: PathBuf| {
        let line = String::from_utf8_lossy(&fs::read(process.join("cmdline")).ok()?).replace('\0', " ");
        let works_there = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        (line.contains(text) || works_there).then_some(line)
    };
    let all = fs::read_dir("/proc").expect("/proc can be read").flatten();
    let numbers = all.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    numbers.filter_map(|entry| found(entry.path())).collect()
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("the folder can be read").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Checks what `demo --once` printed and left.
fn check_once(command: &mut Command, outer: &Path) {
    let output = command.output().expect("the demo can be started");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    for expected in [
        "Hello (process ",
        "Published from v0.1.0",
        "Hello from a tag (process ",
        "has read its new file",
        "v0.3.0 refused InvalidConfiguration: groups/hello/group.toml:9:1: unknown key `reload_singal`",
        "InvalidTagSignature tag `v9.9.9` is not signed",
        "The service is killed: kill -9",
        "git push origin main --tags",
        "All of this went as it should.",
    ] {
        assert!(out.contains(expected), "`{expected}` is missing in:\n{out}{err}");
    }
    assert!(!out.contains('\x1b'), "colours in a pipe:\n{out}");
    assert_eq!(names_in(outer), Vec::<String>::new(), "{err}");
    assert_eq!(processes_of(outer), Vec::<String>::new(), "{err}");
}

#[test]
fn once_shows_everything_and_leaves_nothing() {
    let outer = common::temp_dir();
    check_once(tagfall().command(&["demo", "--once"]).env("TMPDIR", outer.path()), outer.path());
}

#[test]
fn once_needs_neither_root_nor_a_home() {
    if common::need_root().is_err() {
        return;
    }
    let Ok(setpriv) = common::need_tool("setpriv") else { return };
    let outer = common::temp_dir();
    // A folder on the way to the program may be closed to others.
    let program = Path::new(env!("CARGO_BIN_EXE_tagfall"));
    let as_nobody = || {
        let mut command = Command::new(&setpriv);
        command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups", "--"]).arg(program);
        command.env_clear().env("TMPDIR", outer.path()).current_dir("/");
        command
    };
    let reaches = as_nobody().arg("--version").output().is_ok_and(|output| output.status.success());
    if common::need(reaches, "an ordinary user cannot reach the program that was built").is_err() {
        return;
    }
    fs::set_permissions(outer.path(), Permissions::from_mode(0o777)).unwrap();
    check_once(as_nobody().args(["demo", "--once"]), outer.path());
}

#[test]
fn an_existing_folder_loses_only_what_the_demo_made() {
    let outer = common::temp_dir();
    fs::write(outer.path().join("mine"), "x").unwrap();
    let dir = outer.path().to_str().unwrap();
    let output = tagfall().run(&["demo", "--once", "--dir", dir]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(names_in(outer.path()), ["mine"]);

    let output = tagfall().run(&["demo", "--once", "--keep", "--dir", dir]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(outer.path().join("config.git/HEAD").exists() && outer.path().join("config/.git").exists());
    assert_eq!(processes_of(outer.path()), Vec::<String>::new());

    // What stands there is nobody's but its owner's: a second demo does not take it for its own.
    let output = tagfall().run(&["demo", "--once", "--dir", dir]);
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.contains("already holds `config.git`"), "{output:?}");
    assert!(outer.path().join("config.git/HEAD").exists());
}

#[test]
fn the_lines_for_the_newcomer_work_as_they_stand() {
    let mut demo = Demo::start();
    let lines = demo.lines();
    assert!(lines.len() >= 11, "{lines:?}");
    let (release, look): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.starts_with(['c', 's', 'g']));
    // Nothing of the person who runs the tests; who commits stands in the clone's own settings.
    let shell = |script: String| {
        let mut command = Command::new("sh");
        command.args(["-ec", &script]).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        let output = command.env("NO_COLOR", "1").current_dir(demo.outer.path()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.code(), said)
    };
    let release: Vec<_> = release.into_iter().filter(|line| !line.starts_with("curl")).collect();
    assert_eq!(release.iter().filter(|line| line.starts_with("git ")).count(), 3, "{release:?}");
    let (code, said) = shell(release.join("\n"));
    assert_eq!(code, Some(0), "{said}");

    // `diff` says by its exit code that there are changes.
    let (code, said) = shell(look.join("\n").replace("v0.1.0 v0.2.0", "v0.1.0 v0.2.0 || test $? = 1"));
    assert_eq!(code, Some(0), "{said}");
    for expected in
        ["signed by demo@localhost", "is ready", "Hello from a tag", "listening at", "groups/hello/config/hello.toml.hbs"]
    {
        assert!(said.contains(expected), "`{expected}` is missing in:\n{said}");
    }
    for expected in ["v0.4.0          Fetching", "v0.4.0          Converged", "answers    Hello from me (process "] {
        demo.says(expected);
    }

    demo.interrupt();
    assert_eq!(demo.exit_code(), Some(0), "{}", demo.said());
    demo.is_gone();
}

#[test]
fn a_second_interrupt_still_clears_up() {
    let mut demo = Demo::start();
    demo.interrupt();
    demo.says("ending:");
    // It may have ended by now, which is as well.
    drop(Command::new("kill").args(["-INT", &demo.child.id().to_string()]).output());
    assert_eq!(demo.exit_code(), Some(0), "{}", demo.said());
    demo.is_gone();
}

#[test]
fn what_a_killed_supervisor_leaves_is_ended_too() {
    let mut demo = Demo::start();
    Supervisor::signal(demo.keeper(), "KILL");
    assert_eq!(demo.exit_code(), Some(1), "{}", demo.said());
    assert!(demo.said().contains("its supervisor has ended"), "{}", demo.said());
    demo.is_gone();
}

#[test]
fn the_supervisor_ends_with_a_demo_that_was_killed() {
    let mut demo = Demo::start();
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    wait_for("everything has ended", LONG, || {
        let left = processes_of(&demo.dir());
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let log = fs::read_to_string(demo.dir().join("supervisor.log")).unwrap();
    assert!(log.contains("services are stopped in order"), "{log}");
}
