//! Remotes that hang, answer rubbish, ask to log in, or break off, seen through the whole supervisor.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{LONG, SHORT, Supervisor, wait_for, wait_until};

use crate::host::{Host, is_alive, text};

/// `[source.limits] seconds` of the supervisor: how long it puts up with a remote that says nothing.
const PATIENCE_S: u64 = 2;
/// Longest silence of a connection that hangs; longer than the supervisor's patience.
const HANG_MAX: Duration = Duration::from_secs(30);
/// Where an answer is cut: within the head of it, and within the pack.
const CUTS: [usize; 3] = [20, 300, 4_000];

/// What the remote does with its next connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// `git http-backend`.
    Well,
    /// Takes the request and says nothing.
    Hang,
    /// Bytes that mean nothing.
    Garbage,
    /// A page for people.
    Login,
    /// The right answer to a fetch, up to so many bytes; the list of refs is whole.
    Cut(usize),
}

/// A web server with a repository behind it, for as long as the test's process lives.
struct Remote {
    mode: Arc<Mutex<Mode>>,
    url: String,
}

impl Remote {
    fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://127.0.0.1:{}/config.git", listener.local_addr().unwrap().port());
        let mode = Arc::new(Mutex::new(Mode::Well));
        let (shared, root) = (mode.clone(), root.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mode, root) = (*shared.lock().unwrap(), root.clone());
                // A connection that the other side ends early is an ordinary end here.
                std::thread::spawn(move || drop(serve(stream, mode, &root)));
            }
        });
        Self { mode, url }
    }

    fn is(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }
}

/// One request and its answer.
fn serve(stream: TcpStream, mode: Mode, root: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let (mut kind, mut length, mut chunked, mut protocol) = (String::new(), 0_usize, false, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-type" => kind = value.to_owned(),
            "content-length" => length = value.parse().unwrap_or(0),
            "transfer-encoding" => chunked = value == "chunked",
            "git-protocol" => protocol = value.to_owned(),
            _ => {}
        }
    }
    let body = if chunked { chunks(&mut reader)? } else { bytes(&mut reader, length)? };
    let answer = match mode {
        Mode::Hang => {
            stream.set_read_timeout(Some(HANG_MAX))?;
            return reader.read(&mut [0]).map(drop);
        }
        Mode::Garbage => b"\x00\xff\x13 not HTTP at all \x07\r\n\r\n".repeat(40),
        Mode::Login => {
            let page = "<html><form action='/login'>Please sign in</form></html>";
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}", page.len()).into_bytes()
        }
        Mode::Well | Mode::Cut(_) => backend(root, &method, &target, &kind, &protocol, &body)?,
    };
    let end = match mode {
        Mode::Cut(at) if method == "POST" => at.min(answer.len() / 2),
        Mode::Cut(_) | Mode::Well | Mode::Hang | Mode::Garbage | Mode::Login => answer.len(),
    };
    (&stream).write_all(&answer[..end])
}

fn bytes(reader: &mut impl Read, length: usize) -> std::io::Result<Vec<u8>> {
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(body)
}

fn chunks(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
        body.extend(bytes(reader, length)?);
        reader.read_line(&mut line)?;
        if length == 0 {
            return Ok(body);
        }
    }
}

/// Runs `git http-backend` for one request and makes HTTP of its answer.
fn backend(root: &Path, method: &str, target: &str, kind: &str, protocol: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut command = common::git(root);
    command.arg("http-backend").env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1");
    command.env("REQUEST_METHOD", method).env("PATH_INFO", path).env("QUERY_STRING", query).env("CONTENT_TYPE", kind);
    command.env("CONTENT_LENGTH", body.len().to_string()).env("GIT_PROTOCOL", protocol);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    child.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?.write_all(body)?;
    let output = child.wait_with_output()?.stdout;
    // libgit2 takes an answer without a length for an empty one.
    let head = output.windows(4).position(|window| window == b"\r\n\r\n").map_or(output.len(), |at| at + 4);
    let mut answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n", output.len() - head).into_bytes();
    answer.extend(output);
    Ok(answer)
}

/// A host that follows its repository over the remote.
fn host() -> (Host, Remote) {
    let mut started = None;
    let host = Host::with(|settings| {
        let path =
            settings.split_once("url = \"").and_then(|(_, rest)| rest.split_once('"')).map(|(path, _)| path.to_owned()).unwrap();
        let remote = Remote::start(PathBuf::from(&path).parent().unwrap());
        let changed = settings.replace(&path, &remote.url) + &format!("\n[source.limits]\nseconds = {PATIENCE_S}\n");
        started = Some(remote);
        changed
    });
    (host, started.unwrap())
}

/// What a broken fetch left in the quarantine is gone. `…-0` is where listings are made, and stays.
fn no_quarantine(host: &Host) {
    wait_for("the quarantine is empty", SHORT, || {
        let entries = std::fs::read_dir(host.path("data/git/quarantine")).unwrap().flatten();
        let names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        if names.iter().all(|name| name.ends_with("-0")) { Ok(()) } else { Err(format!("{names:?}")) }
    });
}

/// While the remote is as it is, status says so by name; nothing else changes; then it recovers.
fn let_down(mode: Mode, words: &[&str]) {
    let (host, remote) = host();
    let before = host.untouched();
    remote.is(mode);
    host.release("v1.1.0");
    let message = wait_for(&format!("{mode:?} is named"), LONG, || {
        let status = host.supervisor.status()?;
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["reason"] == "GitOperationFailed");
        found.map(|condition| text(&condition["message"])).ok_or_else(|| format!("{status:#}\n{}", host.supervisor.log()))
    });
    assert!(words.iter().any(|word| message.contains(word)), "{mode:?}: {message}");
    assert_eq!(host.untouched(), before, "{mode:?}");
    assert_eq!(host.supervisor.client(&["service", "restart", "web"]).code, Some(0), "people are answered meanwhile");
    wait_for("the service is started again", LONG, || if host.starts().len() == 2 { Ok(()) } else { Err(host.supervisor.log()) });
    remote.is(Mode::Well);
    host.wait_applied("v1.1.0", 2);
    no_quarantine(&host);
}

#[test]
fn a_remote_that_hangs() {
    let_down(Mode::Hang, &["2 s", "2s", "seconds"]);
}

#[test]
fn a_remote_that_answers_garbage() {
    let_down(Mode::Garbage, &["127.0.0.1"]);
}

#[test]
fn a_remote_that_asks_people_to_log_in() {
    let_down(Mode::Login, &["127.0.0.1"]);
}

#[test]
fn a_fetch_that_is_cut_off_is_tried_again_and_leaves_nothing() {
    let (host, remote) = host();
    let before = host.untouched();
    // Bytes that do not compress, so that there is a middle to cut.
    let noise: String = (0_u64..4_000).map(|number| format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    host.write("v1.1.0");
    host.repo.write("groups/web/config/noise", &noise);
    for at in CUTS {
        remote.is(Mode::Cut(at));
        if at == CUTS[0] {
            host.repo.release("v1.1.0");
        }
        let (reason, message) = host.refused("v1.1.0");
        assert_eq!(reason, "GitOperationFailed", "cut at {at}: {message}");
        assert_eq!(host.untouched(), before, "cut at {at}");
        no_quarantine(&host);
    }
    remote.is(Mode::Well);
    host.wait_applied("v1.1.0", 1);
    no_quarantine(&host);
}

/// The child that talks to the remote, for as long as it does.
fn fetch_child(host: &Host) -> u64 {
    let supervisor = host.supervisor_pid();
    wait_for("a child talks to the remote", LONG, || {
        common::children(supervisor).first().map(|pid| u64::from(*pid)).ok_or_else(|| host.supervisor.log())
    })
}

#[test]
fn a_child_that_is_killed_in_its_fetch_is_replaced() {
    let (host, remote) = host();
    let before = host.untouched();
    remote.is(Mode::Hang);
    host.release("v1.1.0");
    for _ in 0..3 {
        Supervisor::signal(fetch_child(&host), "KILL");
    }
    assert!(host.said("GitOperationFailed").contains("127.0.0.1"));
    assert_eq!(host.untouched(), before);
    remote.is(Mode::Well);
    host.wait_applied("v1.1.0", 1);
    no_quarantine(&host);
}

#[test]
fn a_child_does_not_outlive_its_supervisor() {
    let (host, remote) = host();
    remote.is(Mode::Hang);
    host.release("v1.1.0");
    let child = fetch_child(&host);
    Supervisor::signal(host.supervisor_pid(), "KILL");
    wait_until("the child is gone", SHORT, || !is_alive(child));
    remote.is(Mode::Well);
    host.wait_applied("v1.1.0", 1);
    no_quarantine(&host);
}
