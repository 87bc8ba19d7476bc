//! A folder of a test's own, with the program in it, and the smallest repository worth looking at.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command as Program, Output, Stdio};

/// Everything below one folder, which is also where the program runs.
pub(crate) struct Folder(pub(crate) tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(common::temp_dir())
    }

    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self::new();
        for (path, content) in files {
            folder.write(path, content);
        }
        folder
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let file = self.path(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    /// The program, with nothing of this machine in its environment.
    pub(crate) fn program(&self, arguments: &[&str]) -> Program {
        let mut program = Program::new(env!("CARGO_BIN_EXE_tagfall"));
        program.args(arguments).env_clear().env("HOME", self.path("home")).current_dir(self.0.path()).stdin(Stdio::null());
        program
    }

    /// Exit code, data and talk, as one text.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.report(&self.program(arguments).output().unwrap())
    }

    pub(crate) fn report(&self, output: &Output) -> String {
        let code = output.status.code().map_or_else(|| "killed".to_owned(), |code| code.to_string());
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let talk = if err.is_empty() { String::new() } else { format!("--- said ---\n{err}") };
        let here = self.0.path().display().to_string();
        format!("exit {code}\n{out}{talk}").replace(&here, "HERE").replace(env!("CARGO_BIN_EXE_tagfall"), "TAGFALL")
    }

    pub(crate) fn fed(&self, arguments: &[&str], input: &str) -> String {
        let mut program = self.program(arguments);
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        self.report(&child.wait_with_output().unwrap())
    }
}

pub(crate) const WEB: &str = "format = 1\n[placement]\n[service]\nexec = [\"/bin/web\", \"{{mount.path}}/app\"]\n[config]\nport = 80\n\
    [mount]\npath = \"/etc/web\"\n";

pub(crate) fn web() -> Folder {
    Folder::with(&[("groups/web/group.toml", WEB), ("groups/web/config/app.hbs", "port {{cfg.port}}\n")])
}
