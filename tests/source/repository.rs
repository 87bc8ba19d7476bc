//! Repositories made by the real `git`, cut off from this machine's configuration.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A `git` that no configuration of the host reaches.
pub(crate) fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", dir);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_COUNT", "2");
    command.env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
    command.env("GIT_CONFIG_KEY_1", "init.defaultBranch").env("GIT_CONFIG_VALUE_1", "main");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "T").env(format!("GIT_{who}_EMAIL"), "t@example.com");
        command.env(format!("GIT_{who}_DATE"), "1700000000 +0000");
    }
    command
}

/// Runs it to a good end and gives its output.
pub(crate) fn run(mut command: Command, input: &[u8]) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim_end().to_owned()
}

/// A working repository in a folder of its own, and a folder beside it for a store.
pub(crate) struct Repository {
    dir: TempDir,
}

impl Repository {
    pub(crate) fn new() -> Self {
        let repository = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(repository.path()).unwrap();
        std::fs::create_dir(repository.store()).unwrap();
        repository.git(&["init", "-q"]);
        repository
    }

    /// One with two groups, committed and tagged `v1.0.0`.
    pub(crate) fn with_release() -> Self {
        let repository = Self::new();
        repository.write("tagfall.toml", "format = 1\n");
        repository.write("README.md", "notes\n");
        repository.write("groups/web/group.toml", "format = 1\n[placement]\nlabels = {}\n");
        repository.write("groups/web/config/app.toml.hbs", "port = {{cfg.port}}\n");
        repository.write("groups/web/config/logo.bin", "\u{1}\u{2}");
        repository.release("v1.0.0");
        repository
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn url(&self) -> String {
        self.path().display().to_string()
    }

    /// A place for other files of the test.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, b"")
    }

    pub(crate) fn git_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut command = git(&self.path());
        command.args(arguments);
        run(command, input)
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn commit(&self) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "change"]);
    }

    pub(crate) fn tag(&self, name: &str) {
        self.git(&["tag", "-a", "-m", "release", name]);
    }

    pub(crate) fn release(&self, name: &str) {
        self.commit();
        self.tag(name);
    }

    /// Writes an object as it is, checked by nobody.
    pub(crate) fn object(&self, kind: &str, bytes: &[u8]) -> String {
        self.git_with(&["hash-object", "-w", "-t", kind, "--literally", "--stdin"], bytes)
    }

    /// A tag of a commit of this raw tree.
    pub(crate) fn release_tree(&self, name: &str, tree: &[u8]) {
        let tree = self.object("tree", tree);
        let who = "T <t@example.com> 1700000000 +0000";
        let commit = self.object("commit", format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nx\n").as_bytes());
        self.release_object(name, &format!("object {commit}\ntype commit\ntag {name}\ntagger {who}\n\nx\n"));
    }

    /// A ref to a raw tag object.
    pub(crate) fn release_object(&self, name: &str, tag: &str) {
        let tag = self.object("tag", tag.as_bytes());
        std::fs::write(self.path().join(".git/refs/tags").join(name), format!("{tag}\n")).unwrap();
    }

    /// One raw entry of a tree.
    pub(crate) fn entry(mode: &str, name: &str, id: &str) -> Vec<u8> {
        let mut bytes = format!("{mode} {name}\0").into_bytes();
        bytes.extend((0..40).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()));
        bytes
    }
}
