//! Keys made by the real `ssh-keygen` and `gpg`, and what Git signs with them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::Repo;

/// An SSH key without a passphrase.
#[derive(Debug, Clone)]
pub struct SshKey {
    path: PathBuf,
}

impl SshKey {
    /// Makes one: `arguments` as ssh-keygen takes them, such as `-t ed25519`.
    ///
    /// # Panics
    /// Where ssh-keygen cannot make it.
    pub fn make(dir: &Path, name: &str, arguments: &[&str]) -> Self {
        let key = Self::try_make(dir, name, arguments);
        key.unwrap_or_else(|output| panic!("ssh-keygen {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The same, where this ssh-keygen may not know the kind.
    ///
    /// # Errors
    /// What ssh-keygen said.
    ///
    /// # Panics
    /// Where there is no ssh-keygen.
    pub fn try_make(dir: &Path, name: &str, arguments: &[&str]) -> Result<Self, Output> {
        let path = dir.join(name);
        let mut command = Command::new("ssh-keygen");
        command.args(arguments).args(["-q", "-N", "", "-C", name, "-f"]).arg(&path).stdin(Stdio::null());
        let output = command.output().expect("ssh-keygen can be run");
        if output.status.success() { Ok(Self { path }) } else { Err(output) }
    }

    /// The private key.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The public key, on one line: type, base64, comment.
    ///
    /// # Panics
    /// Where it cannot be read.
    pub fn public(&self) -> String {
        let text = fs::read_to_string(self.path.with_extension("pub")).expect("a key has a public half");
        text.trim_end().to_owned()
    }

    /// A line of `allowed_signers`; `options` stand before the key.
    pub fn allowed(&self, principal: &str, options: &str) -> String {
        format!("{principal} {options}{}{}\n", if options.is_empty() { "" } else { " " }, self.public())
    }

    /// Signs bytes in a namespace, as `ssh-keygen -Y sign` does; gives the armour.
    ///
    /// # Panics
    /// Where ssh-keygen cannot.
    pub fn sign(&self, namespace: &str, payload: &[u8]) -> String {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-Y", "sign", "-n", namespace, "-f"]).arg(&self.path);
        let output = through(&mut command, payload);
        assert!(output.status.success(), "ssh-keygen -Y sign: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("an armour is text")
    }
}

/// A home of GnuPG with keys of its own. Its agent ends with it.
#[derive(Debug)]
pub struct Gpg {
    home: tempfile::TempDir,
}

impl Gpg {
    /// An empty one.
    ///
    /// # Panics
    /// Where no folder can be made.
    #[expect(clippy::new_without_default, reason = "it makes a folder, which a default should not")]
    pub fn new() -> Self {
        // Short, because its agent's socket lies in it; and only the owner may enter.
        let home = crate::temp_dir();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(home.path(), mode).expect("a folder can be closed off");
        Self { home }
    }

    /// Its folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// A command in it; `at` is the time that GnuPG believes it to be, as seconds since 1970.
    pub fn command(&self, at: Option<u64>, arguments: &[&str]) -> Command {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(self.home()).args(["--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback"]);
        command.args(["--passphrase", ""]);
        if let Some(at) = at {
            command.args(["--faked-system-time", &format!("{at}!")]);
        }
        command.args(arguments);
        command
    }

    /// Runs a command to its end and gives what it printed.
    ///
    /// # Panics
    /// Where it fails.
    pub fn run(&self, at: Option<u64>, arguments: &[&str]) -> Vec<u8> {
        let output = through(&mut self.command(at, arguments), b"");
        assert!(output.status.success(), "gpg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes keys by GnuPG's own description of them.
    ///
    /// # Errors
    /// What GnuPG said.
    ///
    /// # Panics
    /// Where there is no GnuPG.
    pub fn generate(&self, at: Option<u64>, description: &str) -> Result<(), String> {
        let description = format!("%no-protection\n{description}\n%commit\n");
        let output = through(&mut self.command(at, &["--generate-key"]), description.as_bytes());
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// Edits a key by what a person would type, one line each.
    ///
    /// # Panics
    /// Where it cannot.
    pub fn edit(&self, at: u64, user: &str, typed: &str) {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(self.home()).args([
            "--quiet",
            "--no-tty",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
        ]);
        command.args(["--faked-system-time", &format!("{at}!"), "--command-fd", "0", "--edit-key", user]);
        let output = through(&mut command, typed.as_bytes());
        assert!(output.status.success(), "gpg --edit-key: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Signs bytes; gives the armour.
    ///
    /// # Panics
    /// Where it cannot.
    pub fn sign(&self, at: Option<u64>, user: &str, more: &[&str], payload: &[u8]) -> String {
        let mut command = self.command(at, more);
        command.args(["--local-user", user, "--armor", "--detach-sign"]);
        let output = through(&mut command, payload);
        assert!(output.status.success(), "gpg --detach-sign: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("an armour is text")
    }

    /// The public keys of one user, armoured.
    pub fn export(&self, user: &str) -> String {
        String::from_utf8(self.run(None, &["--armor", "--export", user])).expect("an armour is text")
    }

    /// The fingerprint of the first key of one user.
    ///
    /// # Panics
    /// Where there is none.
    pub fn fingerprint(&self, user: &str) -> String {
        let text = String::from_utf8_lossy(&self.run(None, &["--with-colons", "--list-keys", user])).into_owned();
        let line = text.lines().find(|line| line.starts_with("fpr:")).unwrap_or_else(|| panic!("no key of {user}: {text}"));
        line.split(':').nth(9).unwrap_or_default().to_owned()
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        drop(Command::new("gpgconf").arg("--homedir").arg(self.home()).args(["--kill", "all"]).status());
    }
}

fn through(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    let mut pipe = child.stdin.take().expect("there is a pipe");
    // A program that ended early says why by its status.
    drop(pipe.write_all(input));
    drop(pipe);
    child.wait_with_output().unwrap_or_else(|error| panic!("{command:?} cannot be waited for: {error}"))
}

impl Repo {
    /// Has Git sign with an SSH key from now on, where it is asked to.
    pub fn sign_with(&self, key: &SshKey) -> &Self {
        self.run(&["config", "gpg.format", "ssh"]);
        self.run(&["config", "user.signingkey", &key.path().display().to_string()]);
        self
    }

    /// Makes a signed tag; returns the tag object's id.
    pub fn tag_signed(&self, name: &str, target: &str) -> String {
        self.run(&["tag", "--sign", "--message", name, name, target]);
        self.run(&["rev-parse", &format!("refs/tags/{name}")])
    }

    /// Commits, makes a signed tag, and pushes both: one release that somebody vouches for.
    pub fn release_signed(&self, tag: &str) -> &Self {
        self.commit(tag);
        self.tag_signed(tag, "HEAD");
        self.push_tags()
    }

    /// Writes an object that `git tag` would not make; returns its id.
    ///
    /// # Panics
    /// Where Git cannot write it.
    pub fn write_object(&self, kind: &str, bytes: &[u8]) -> String {
        let mut command = self.git(&["hash-object", "-w", "-t", kind, "--literally", "--stdin"]);
        let output = through(&mut command, bytes);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What `git tag` would write for a tag of HEAD, without a signature.
    pub fn tag_text(&self, name: &str, message: &str) -> String {
        let commit = self.run(&["rev-parse", "HEAD"]);
        format!("object {commit}\ntype commit\ntag {name}\ntagger Test <test@example.com> 1767323045 +0000\n\n{message}\n")
    }
}
