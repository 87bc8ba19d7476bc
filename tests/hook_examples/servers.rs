//! nginx and Redis, each in a folder and at a port of its own, ended with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{SHORT, Skipped, free_port, http_get, need_tool, redis, wait_for, wait_until};
use tempfile::TempDir;

/// A server that answers.
pub(crate) struct Server {
    child: Child,
    dir: TempDir,
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Server {
    /// One page, `Hello`, and a log in which a page that is not there is an error.
    pub(crate) fn nginx() -> Result<Self, Skipped> {
        let program = need_tool("nginx")?;
        let (dir, port) = (common::temp_dir(), free_port());
        let top = dir.path().display();
        let temporary =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {top}/{name};"));
        let config = format!(
            "daemon off; master_process off; pid {top}/pid; error_log {top}/error.log;\nevents {{}}\nhttp {{\naccess_log off; {}\n\
             server {{ listen 127.0.0.1:{port}; root {top}/www; }}\n}}\n",
            temporary.join(" ")
        );
        std::fs::create_dir(dir.path().join("www")).unwrap();
        std::fs::write(dir.path().join("www/index.html"), "Hello\n").unwrap();
        std::fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new(program);
        command
            .arg("-p")
            .arg(dir.path())
            .arg("-e")
            .arg(dir.path().join("error.log"))
            .arg("-c")
            .arg(dir.path().join("nginx.conf"));
        let server = Self::start(&mut command, dir, port);
        wait_for("nginx answers", SHORT, || http_get(port, "/"));
        Ok(server)
    }

    /// Empty, and saving only when it is told to.
    pub(crate) fn redis() -> Result<Self, Skipped> {
        let program = need_tool("redis-server")?;
        let (dir, port) = (common::temp_dir(), free_port());
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
        command.arg("--dir").arg(dir.path());
        let server = Self::start(&mut command, dir, port);
        wait_for("redis answers", SHORT, || server.tell(&["PING"]));
        Ok(server)
    }

    fn start(command: &mut Command, dir: TempDir, port: u16) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, dir, port }
    }

    /// One command to Redis.
    pub(crate) fn tell(&self, command: &[&str]) -> Result<Vec<String>, String> {
        redis(self.port, command)
    }

    /// Where it keeps its files.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// One of its files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Ends it, and waits until its port is free.
    pub(crate) fn stop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
        let port = self.port;
        wait_until("its port is free", SHORT, || std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    }
}
