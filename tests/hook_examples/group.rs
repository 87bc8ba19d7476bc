//! A group with one of the example hooks in it, as its `hook.toml` says, and the program to try it with.

use std::path::{Path, PathBuf};

use common::{Output, Skipped, Tagfall, need};
use tempfile::TempDir;

/// The folder of an example.
pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/hooks").join(name)
}

/// A group's folder in a temporary one.
pub(crate) struct Group {
    dir: TempDir,
    /// Where `group.toml` has it, below the group's folder.
    module: String,
}

impl Group {
    /// With the module that `tests/run` made of an example, and `port` in its configuration. `edit` puts the test's own paths into
    /// what is pasted into `group.toml`.
    pub(crate) fn of(name: &str, port: u16, edit: impl Fn(&str) -> String) -> Result<Self, Skipped> {
        Self::of_part(name, name, port, edit)
    }

    /// The same with one of several modules: its name below `target/hooks`, and its folder in the examples.
    pub(crate) fn of_part(name: &str, folder: &str, port: u16, edit: impl Fn(&str) -> String) -> Result<Self, Skipped> {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/hooks").join(name).with_extension("wasm");
        need(module.exists(), &format!("examples/hooks/{folder} was not built: ./tests/run builds it"))?;
        let snippet = std::fs::read_to_string(example(folder).join("hook.toml")).unwrap();
        Ok(Self::with(&module, port, &edit(&snippet)))
    }

    /// With this module, and this in its `group.toml`.
    pub(crate) fn with(module: &Path, port: u16, snippet: &str) -> Self {
        let named = snippet.split('"').find(|word| word.ends_with(".wasm")).expect("`module` names a file");
        let group = Self { dir: common::temp_dir(), module: named.to_owned() };
        std::fs::create_dir_all(group.path().join("hooks")).unwrap();
        std::fs::copy(module, group.module()).unwrap();
        let toml = format!("format = 1\n[placement]\nlabels = {{}}\n[config]\nport = {port}\nmaxmemory = \"32mb\"\n{snippet}");
        std::fs::write(group.path().join("group.toml"), toml).unwrap();
        group
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("groups/it")
    }

    fn module(&self) -> PathBuf {
        self.path().join(&self.module)
    }

    /// `tagfall hook run` as the group has it.
    pub(crate) fn run(&self, more: &[&str]) -> Output {
        let path = self.path().display().to_string();
        self.call(&[&["--group", &path], more].concat())
    }

    /// `tagfall hook run` with nothing of the group: no grants, no arguments.
    pub(crate) fn run_bare(&self, more: &[&str]) -> Output {
        self.call(more)
    }

    fn call(&self, more: &[&str]) -> Output {
        let module = self.module().display().to_string();
        let mut command = Tagfall::new(env!("CARGO_BIN_EXE_tagfall")).command(&["hook", "run", &module]);
        // Room for the slowest machine: what a hook waits for has bounds of its own.
        command.args(["--timeout", "20s"]).args(more).env("XDG_CACHE_HOME", self.dir.path().join("cache"));
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// Checks what a hook said: the exit code, and the answer whole or, where `answer` ends in `…`, its beginning.
#[track_caller]
pub(crate) fn says(output: &Output, code: i32, answer: &str) {
    let first = output.stdout.trim_end();
    let met = answer.strip_suffix('…').map_or(first == answer, |begin| first.starts_with(begin));
    assert!(met && output.code == Some(code), "{answer:?}, {code} is not what it said: {output:#?}");
}
