//! `tagfall hook new`: what it writes builds by the command that its README names, and does what a hook of its kind does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Output, Skipped, Tagfall, need, need_tool};
use tempfile::TempDir;

use super::group::{example, says};

/// Folders for projects, and a place for compiled code.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(common::temp_dir())
    }

    fn tagfall(&self, arguments: &[&str]) -> Output {
        let mut command = Tagfall::new(env!("CARGO_BIN_EXE_tagfall")).command(arguments);
        command.current_dir(self.0.path()).env("XDG_CACHE_HOME", self.0.path().join("cache"));
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Writes a project.
    fn write(&self, name: &str, language: &str, hook: &str) -> (PathBuf, Output) {
        let made = self.tagfall(&["hook", "new", name, "--lang", language, "--hook", hook]);
        assert_eq!(made.code, Some(0), "{made:#?}");
        (self.0.path().join(name), made)
    }

    /// Makes a project and builds it as its README says, with the tools of this machine.
    fn make(&self, language: &str, hook: &str) -> Result<Project<'_>, Skipped> {
        let (folder, made) = self.write(&format!("{language}-{hook}"), language, hook);
        let project = self.build(&folder, hook)?;
        assert!(made.stdout.contains(&format!("  {}\n", build_line(&folder))), "{made:#?}");
        Ok(project)
    }

    fn build(&self, folder: &Path, hook: &str) -> Result<Project<'_>, Skipped> {
        need_all(&std::fs::read_to_string(folder.join("build")).unwrap())?;
        if folder.join("Cargo.toml").exists() {
            prepare_cargo(folder);
        }
        let build = build_line(folder);
        let built = Command::new("sh").args(["-c", &build]).current_dir(folder).stdin(Stdio::null()).output().unwrap();
        assert!(built.status.success(), "{build}: {built:#?}");
        Ok(Project {
            desk: self,
            hook: hook.to_owned(),
            module: folder.join(build.trim_start_matches("./build ")),
            toml: std::fs::read_to_string(folder.join("hook.toml")).unwrap(),
        })
    }
}

/// How its README says that a project is built.
fn build_line(folder: &Path) -> String {
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    readme.lines().find(|line| line.starts_with("./build ")).expect("the README says how to build").to_owned()
}

struct Project<'a> {
    desk: &'a Desk,
    hook: String,
    module: PathBuf,
    toml: String,
}

impl Project<'_> {
    fn run(&self, more: &[&str]) -> Output {
        let module = self.module.display().to_string();
        let arguments = [&["hook", "run", &module, "--hook", &self.hook, "--timeout", "20s"], more].concat();
        self.desk.tagfall(&arguments)
    }

    /// The lines for `group.toml` are a group that `tagfall check` takes.
    fn is_taken(&self) {
        let top = self.desk.0.path().join("repository").join(&self.hook);
        let group = top.join("groups/it");
        let module = self.toml.split('"').find(|word| word.ends_with(".wasm")).expect("`module` names a file");
        std::fs::create_dir_all(group.join("hooks")).unwrap();
        std::fs::write(top.join("tagfall.toml"), "format = 1\n").unwrap();
        std::fs::copy(&self.module, group.join(module)).unwrap();
        let toml = format!("format = 1\n[placement]\nlabels = {{}}\n[config]\nport = 6379\n{}", self.toml);
        std::fs::write(group.join("group.toml"), toml).unwrap();
        let checked = self.desk.tagfall(&["check", &top.display().to_string()]);
        assert_eq!(checked.code, Some(0), "{checked:#?}");
    }
}

/// What one project in Rust need not do again because another has: the choice of versions, which are those of the examples, and
/// compiling what all have in common.
fn prepare_cargo(project: &Path) {
    std::fs::copy(example("rust/Cargo.lock"), project.join("Cargo.lock")).unwrap();
    let modules = Path::new(env!("CARGO_TARGET_TMPDIR")).join("modules");
    std::fs::create_dir_all(&modules).unwrap();
    std::os::unix::fs::symlink(modules, project.join("target")).unwrap();
}

/// Whether Rust can compile for this target.
fn has_target(name: &str) -> bool {
    let found = Command::new("rustc").args(["--print", "target-libdir", "--target", name]).output();
    found.is_ok_and(|found| Path::new(String::from_utf8_lossy(&found.stdout).trim()).is_dir())
}

/// What the line `# needs:` of a `build` names: programs, targets of Rust, and packages of npm.
fn need_all(build: &str) -> Result<(), Skipped> {
    let needs = build.lines().find_map(|line| line.strip_prefix("# needs: ")).expect("`build` says what it needs");
    for name in needs.split_whitespace() {
        if name.contains('/') {
            let modules = std::env::var_os("NODE_PATH").map(PathBuf::from).unwrap_or_default();
            need(modules.join(name).is_dir(), &format!("the npm package `{name}` is not in NODE_PATH"))?;
        } else if name.starts_with("wasm32-") {
            need(has_target(name), &format!("the Rust target {name} is not installed"))?;
        } else {
            need_tool(name)?;
        }
    }
    Ok(())
}

/// A component that was granted nothing says so; one that was granted a port where nobody listens says that.
fn asks_for_a_port(language: &str, telling: [&str; 2]) {
    let desk = Desk::new();
    let Ok(project) = desk.make(language, "health-check") else { return };
    needs_its_port(&project, telling, "critical");
}

/// Without a grant, some take the service for `critical`; others cannot tell, and have failed.
fn needs_its_port(project: &Project<'_>, telling: [&str; 2], denied: &str) {
    let port = common::free_port().to_string();
    let [option, text] = telling;
    let text = text.replace("PORT", &port);
    says(&project.run(&[option, &text]), 1, &format!("health-check {denied}: may not reach 127.0.0.1:{port}: …"));
    let grant = format!("net=127.0.0.1:{port}");
    let down = project.run(&[option, &text, "--allow", &grant]);
    says(&down, 1, "health-check critical: connection refused: nothing listens there");
    project.is_taken();
}

/// One test for all of it: its projects are built into one place, under one name. Each is written after the last was built, so that
/// Cargo tells them apart.
#[test]
fn rust() {
    let desk = Desk::new();
    let Ok(project) = desk.make("rust", "health-check") else { return };
    needs_its_port(&project, ["--args", r#"{"url": "http://127.0.0.1:PORT/"}"#], "failed (denied)");
    other_hooks(&desk, "rust", &OTHERS[2..3]);
    // A build takes seconds: one module has the frames of all the others.
    let (all, _) = desk.write("all", "rust", "init");
    let mut modules = String::new();
    for (hook, _) in OTHERS {
        let (folder, _) = desk.write(&format!("frame-{hook}"), "rust", hook);
        let name = hook.replace('-', "_");
        std::fs::copy(folder.join("src/lib.rs"), all.join("src").join(&name).with_extension("rs")).unwrap();
        modules += &format!("mod {name};\n");
    }
    std::fs::write(all.join("src/lib.rs"), modules).unwrap();
    let Ok(mut all) = desk.build(&all, "init") else { return };
    for (hook, answer) in OTHERS {
        hook.clone_into(&mut all.hook);
        says(&all.run(&[]), 0, answer);
    }
}

#[test]
fn python() {
    asks_for_a_port("python", ["--args", r#"{"url": "http://127.0.0.1:PORT/"}"#]);
}

#[test]
fn javascript() {
    asks_for_a_port("javascript", ["--args", r#"{"port": PORT}"#]);
}

#[test]
fn c() {
    asks_for_a_port("c", ["--config", r#"{"cfg": {"port": PORT}}"#]);
}

#[test]
fn webassembly_text() {
    asks_for_a_port("wat", ["--config", r#"{"cfg": {"port": PORT}}"#]);
}

/// A command that was granted nothing says what it needs; one that was, looks.
fn looks_at_a_file(language: &str, content: &str) {
    let desk = Desk::new();
    let Ok(project) = desk.make(language, "health-check") else { return };
    let file = desk.0.path().join("file");
    std::fs::write(&file, content).unwrap();
    let args = format!(r#"{{"file": {file:?}}}"#);
    let need = format!("health-check unknown: code 3: may not read {}: …", file.display());
    says(&project.run(&["--args", &args]), 1, &need);
    let grant = format!("read={}", file.display());
    says(&project.run(&["--args", &args, "--allow", &grant]), 0, "health-check ok: …");
    project.is_taken();
}

#[test]
fn go() {
    looks_at_a_file("go", "REDIS0011");
}

#[test]
fn zig() {
    looks_at_a_file("zig", "nothing to be seen\n");
}

const OTHERS: [(&str, &str); 9] = [
    ("init", "init done…"),
    ("post-run", "post-run done…"),
    ("reconfigure", "reconfigure done…"),
    ("file-updated", "file-updated done…"),
    ("suitability", "suitability 0"),
    ("pre-update", "pre-update done…"),
    ("post-update", "post-update ok…"),
    ("pre-stop", "pre-stop done…"),
    ("post-stop", "post-stop done…"),
];

fn other_hooks(desk: &Desk, language: &str, hooks: &[(&str, &str)]) {
    for (hook, answer) in hooks {
        let Ok(project) = desk.make(language, hook) else { return };
        says(&project.run(&[]), 0, answer);
        project.is_taken();
    }
}

#[test]
fn hooks_around_a_start_in_javascript() {
    other_hooks(&Desk::new(), "javascript", &OTHERS[..5]);
}

#[test]
fn hooks_around_an_end_in_javascript() {
    other_hooks(&Desk::new(), "javascript", &OTHERS[5..]);
}

/// Large modules take long to compile: one answer of each kind must do.
#[test]
fn other_hooks_in_go() {
    other_hooks(&Desk::new(), "go", &OTHERS[2..5]);
}

#[test]
fn another_hook_in_python() {
    other_hooks(&Desk::new(), "python", &OTHERS[2..3]);
}

/// The example is one of three modules in a workspace; a new project is the same check, and brings the crate.
#[test]
fn a_health_check_in_rust_is_the_example() {
    let desk = Desk::new();
    let made = desk.tagfall(&["hook", "new", "rust", "--lang", "rust"]);
    assert_eq!(made.code, Some(0), "{made:#?}");
    let of = |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let project = desk.0.path().join("rust");
    for file in ["src/lib.rs", "hook.toml"] {
        assert!(of(&project.join(file)) == of(&example("rust/health").join(file)), "{file} differs");
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks-sdk/src");
    for file in files_below(&sources) {
        assert!(of(&project.join("tagfall-hooks/src").join(&file)) == of(&sources.join(&file)), "{file} differs");
    }
}

#[test]
fn a_health_check_is_the_example_of_its_language() {
    let desk = Desk::new();
    for language in ["python", "javascript", "go", "c", "zig", "wat"] {
        let made = desk.tagfall(&["hook", "new", language, "--lang", language]);
        assert_eq!(made.code, Some(0), "{made:#?}");
        let project = desk.0.path().join(language);
        let files = files_below(&project);
        assert!(files.len() >= 6, "{files:?}");
        for file in &files {
            let of = |folder: &Path| std::fs::read(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(of(&project) == of(&example(language)), "{language}/{file} differs");
        }
        // Every source of the example is in the project; what was built or installed there is none.
        let is_source = |file: &String| {
            let built = file.ends_with(".wasm") || file == "package-lock.json";
            let installed = [".venv/", "node_modules/", "__pycache__/", "wit/deps/"].iter().any(|top| file.starts_with(top));
            !built && !installed
        };
        let sources: Vec<String> = files_below(&example(language)).into_iter().filter(&is_source).collect();
        assert!(sources.len() >= 6, "{sources:?}");
        for name in &sources {
            assert!(files.contains(name), "{language}: {name} is not written");
        }
    }
}

/// The files below a folder, as relative paths.
fn files_below(top: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(top).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn what_is_there_already_is_left_alone() {
    let desk = Desk::new();
    let new = |more: &[&str]| desk.tagfall(&[&["hook", "new", "check"], more].concat());
    let unknown = new(&["--lang", "cobol"]);
    assert_eq!(unknown.code, Some(2), "{unknown:#?}");
    assert!(unknown.stderr.contains("possible values: rust, python, javascript, go, c, zig, wat"), "{unknown:#?}");
    let none = new(&["--lang", "c", "--hook", "init"]);
    assert_eq!(none.code, Some(2), "{none:#?}");
    assert!(none.stderr.contains("Rust, Python, JavaScript and Go have one"), "{none:#?}");
    assert!(!desk.0.path().join("check").exists());
    std::fs::create_dir(desk.0.path().join("check")).unwrap();
    std::fs::write(desk.0.path().join("check/mine"), "mine").unwrap();
    let full = new(&["--lang", "rust"]);
    assert_eq!(full.code, Some(2), "{full:#?}");
    assert!(full.stderr.contains("`check` is not empty: `mine` is in it"), "{full:#?}");
    assert_eq!(files_below(&desk.0.path().join("check")), ["mine"]);
    std::fs::remove_file(desk.0.path().join("check/mine")).unwrap();
    assert_eq!(new(&["--lang", "rust"]).code, Some(0));
}
