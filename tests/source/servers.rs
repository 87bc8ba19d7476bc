//! Servers on loopback: real ones, and ones that let down. Each lives as long as what is returned, or the test's process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::repository::{Repository, git, run};

/// Calls `behave` for each connection, in a thread of its own; gives the port.
pub(crate) fn tcp(behave: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let behave = std::sync::Arc::new(behave);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let behave = std::sync::Arc::clone(&behave);
            std::thread::spawn(move || behave(stream));
        }
    });
    port
}

/// A server of inetd's kind: one process for each connection.
fn inetd(command: impl Fn() -> Command + Send + Sync + 'static) -> u16 {
    tcp(move |stream| {
        let input = OwnedFd::from(stream.try_clone().unwrap());
        let output = OwnedFd::from(stream);
        let mut child = command().stdin(input).stdout(output).stderr(Stdio::null()).spawn().unwrap();
        child.wait().unwrap();
    })
}

/// `git daemon` over the parent folder of a repository; gives the repository's address.
pub(crate) fn git_daemon(repository: &Repository) -> String {
    let root = repository.path().parent().unwrap().to_owned();
    let port = inetd(move || {
        let mut command = git(&root);
        command.args(["daemon", "--inetd", "--export-all", "--base-path=."]).arg(".");
        command
    });
    format!("git://127.0.0.1:{port}/work/.git")
}

/// The web server of `tests/tools/git_http.py`.
pub(crate) struct Web {
    child: Child,
    port: u16,
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Web {
    pub(crate) fn start(repository: &Repository, mode: &str, options: &[&str]) -> Self {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/git_http.py");
        let root = repository.path().parent().unwrap().to_owned();
        let mut command = Command::new("python3");
        command.arg(tool).arg(root).arg(mode).args(options);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 is there");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the server prints its port");
        Self { child, port }
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}/work/.git", self.port)
    }
}

/// A real `sshd` for one user with one key, and what is needed to reach it.
pub(crate) struct Ssh {
    pub(crate) url: String,
    pub(crate) key: PathBuf,
    pub(crate) known_hosts: PathBuf,
    /// `SHA256:…` of its host key, as `ssh-keygen` prints it.
    pub(crate) fingerprint: String,
}

impl Ssh {
    /// `None` where there is no `sshd` on this machine, which CI does not let pass.
    pub(crate) fn start(repository: &Repository) -> Option<Self> {
        let Some(sshd) =
            ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|path| Path::new(path).exists())
        else {
            assert!(std::env::var_os("CI").is_none(), "sshd is not installed");
            eprintln!("skipped: sshd is not installed");
            return None;
        };
        let dir = repository.beside("ssh");
        std::fs::create_dir(&dir).unwrap();
        for name in ["host", "client"] {
            keygen(&dir, name);
        }
        if rustix::process::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let at = |name: &str| dir.join(name).display().to_string();
        let path = std::env::var("PATH").unwrap();
        let settings = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n\
             PidFile none\nSetEnv PATH={path} GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*\n",
            at("host"),
            at("client.pub")
        );
        let file = dir.join("sshd_config");
        std::fs::write(&file, settings).unwrap();
        let port = inetd(move || {
            let mut command = Command::new(sshd);
            command.args(["-i", "-f"]).arg(&file);
            command
        });
        let host = std::fs::read_to_string(dir.join("host.pub")).unwrap();
        std::fs::write(dir.join("known_hosts"), format!("[127.0.0.1]:{port} {host}")).unwrap();
        let mut list = Command::new("ssh-keygen");
        list.args(["-lf"]).arg(dir.join("host.pub"));
        let fingerprint = run(list, b"").split(' ').nth(1).unwrap().to_owned();
        let mut who = Command::new("id");
        who.arg("-un");
        let user = run(who, b"");
        let url = format!("ssh://{user}@127.0.0.1:{port}{}", repository.path().display());
        Some(Self { url, key: dir.join("client"), known_hosts: dir.join("known_hosts"), fingerprint })
    }
}

/// Makes a key pair.
pub(crate) fn keygen(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path);
    run(command, b"");
    path
}

/// Reads what is sent and says nothing, until the other side ends.
pub(crate) fn silence(mut stream: TcpStream) {
    let mut sink = Vec::new();
    let _ = stream.read_to_end(&mut sink);
}

/// One ref after another, for ever.
pub(crate) fn endless_refs(mut stream: TcpStream) {
    let mut block = Vec::new();
    for number in 0..1000 {
        let line = format!("{:040x} refs/tags/v{number}.0.0{}\n", number + 1, "x".repeat(100));
        block.extend_from_slice(format!("{:04x}{line}", line.len() + 4).as_bytes());
    }
    while stream.write_all(&block).is_ok() {}
}

/// A byte now and then: never silent for long, never done.
pub(crate) fn drip(mut stream: TcpStream) {
    let line = format!("{:040x} refs/tags/v1.0.0\n", 1);
    let bytes = format!("{:04x}{line}", line.len() + 4).repeat(100);
    let mut ignored = [0; 512];
    for byte in bytes.bytes() {
        if stream.write_all(&[byte]).is_err() {
            return;
        }
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        if matches!(stream.read(&mut ignored), Ok(0)) {
            return;
        }
    }
}
