//! A bare repository and a clone of it, made with the real Git and nothing of the person who runs the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// When every commit and tag of a fixture was made, so that ids are the same on every run.
const DATE: &str = "2026-01-02T03:04:05Z";

/// Git, cut off from system and user settings, prompts and agents.
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir).stdin(Stdio::null());
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_SSH_COMMAND", "SSH_AUTH_SOCK"] {
        command.env_remove(name);
    }
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Test").env(format!("GIT_{who}_EMAIL"), "test@example.com");
        command.env(format!("GIT_{who}_DATE"), DATE);
    }
    command
}

/// Runs to its end and gives what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// `bare/` is what a supervisor follows, `clone/` is where a person works.
///
/// Every step panics where Git refuses it: a fixture that could not be made proves nothing.
#[derive(Debug)]
pub struct Repo {
    bare: PathBuf,
    clone: PathBuf,
}

impl Repo {
    /// Makes both below `dir`, on a branch `main` without commits.
    pub fn new(dir: &Path) -> Self {
        let repo = Self { bare: dir.join("config.git"), clone: dir.join("config") };
        run(git(dir).args(["init", "--quiet", "--bare", "--initial-branch=main"]).arg(&repo.bare));
        run(git(dir).args(["init", "--quiet", "--initial-branch=main"]).arg(&repo.clone));
        run(repo.git(&["remote", "add", "origin"]).arg(&repo.bare));
        repo
    }

    /// The bare repository: the source of a supervisor.
    pub fn bare(&self) -> &Path {
        &self.bare
    }

    /// The working clone.
    pub fn clone_dir(&self) -> &Path {
        &self.clone
    }

    /// A Git command in the clone.
    pub fn git(&self, arguments: &[&str]) -> Command {
        let mut command = git(&self.clone);
        command.args(arguments);
        command
    }

    /// Runs a Git command in the clone and gives what it printed.
    pub fn run(&self, arguments: &[&str]) -> String {
        run(&mut self.git(arguments))
    }

    /// Writes a file of the clone, with its folders.
    pub fn write(&self, path: &str, text: &str) -> &Self {
        let file = self.clone.join(path);
        fs::create_dir_all(file.parent().expect("a file has a folder")).expect("a folder of the clone can be made");
        fs::write(&file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self
    }

    /// Replaces a text that stands exactly once in a file of the clone.
    pub fn replace(&self, path: &str, old: &str, new: &str) -> &Self {
        let text = fs::read_to_string(self.clone.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(text.matches(old).count(), 1, "{path} holds `{old}` not exactly once");
        self.write(path, &text.replace(old, new))
    }

    /// Commits all that is in the clone; returns the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.run(&["add", "--all"]);
        self.run(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.run(&["rev-parse", "HEAD"])
    }

    /// Makes an annotated tag of HEAD; returns the tag object's id.
    pub fn tag_annotated(&self, name: &str) -> String {
        self.run(&["tag", "--annotate", "--message", name, name]);
        self.run(&["rev-parse", &format!("refs/tags/{name}")])
    }

    /// Pushes branch and tags.
    pub fn push_tags(&self) -> &Self {
        self.run(&["push", "--quiet", "--tags", "origin", "main"]);
        self
    }

    /// Commits, tags and pushes what is in the clone: one release.
    pub fn release(&self, tag: &str) -> &Self {
        self.commit(tag);
        self.tag_annotated(tag);
        self.push_tags()
    }
}

/// Copies a folder with all that is in it.
///
/// # Panics
/// Where something cannot be read or written.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("a folder's entry can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap_or_else(|error| panic!("{}: {error}", target.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_arrives_in_the_bare_repository() {
        let dir = crate::temp_dir();
        let repo = Repo::new(dir.path());
        repo.write("groups/a/group.toml", "format = 1\n").release("v1.0.0");
        repo.replace("groups/a/group.toml", "= 1", "= 2").release("v1.1.0");
        let kinds = run(git(repo.bare()).args(["for-each-ref", "--format=%(refname) %(objecttype)", "refs/tags"]));
        assert_eq!(kinds, "refs/tags/v1.0.0 tag\nrefs/tags/v1.1.0 tag");
        let shown = run(git(repo.bare()).args(["show", "v1.0.0:groups/a/group.toml"]));
        assert_eq!(shown, "format = 1");
    }
}
