//! The real program against a supervisor of a few lines, each in a folder of its own: output, talk and exit codes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

#[path = "cli/fake.rs"]
mod fake;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command as Program, Output, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use tagfall::api::{Caller, Command, Door, Token, bind_tcp, bind_unix, router, serve_tcp, serve_unix, wire};
use tagfall::model::Reason;
use tokio::sync::oneshot;

use fake::{Fake, THEN, group};

/// Bound on everything that a test waits for.
const SOON: Duration = Duration::from_secs(20);

/// A supervisor's API in a thread of its own.
struct Host {
    folder: tempfile::TempDir,
    fake: Fake,
    tcp: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Host {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fake = Fake::new();
        let socket = folder.path().join("s.sock");
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std_mpsc::channel();
        let daemon = fake.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let unix = serve_unix(bind_unix(&socket).unwrap(), router(daemon.clone(), Door::unix()));
                let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
                let address = listener.local_addr().unwrap();
                let door = Door::tcp(address, Token::parse("0123456789abcdef"), Vec::new()).unwrap();
                let tcp = serve_tcp(listener, router(daemon, door));
                tell.send(address).unwrap();
                tokio::select! { () = unix => {}, () = tcp => {}, _ = stopped => {} }
            });
        });
        let tcp = format!("http://{}", told.recv_timeout(SOON).unwrap());
        Self { folder, fake, tcp, stop: Some(stop), thread: Some(thread) }
    }

    fn api(&self) -> String {
        format!("unix:{}", self.folder.path().join("s.sock").display())
    }

    fn program(&self, arguments: &[&str]) -> Program {
        let mut program = tagfall(arguments);
        program.env("TAGFALL_API", self.api());
        program
    }

    /// What the program wrote and said, as one text that starts with its exit code.
    fn run(&self, arguments: &[&str]) -> String {
        report(&self.program(arguments).output().unwrap())
    }

    fn get(&self, path: &str) -> Vec<u8> {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(self.folder.path().join("s.sock")).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let at = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        answer.split_off(at + 4)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

/// The program with nothing of this machine in its environment.
fn tagfall(arguments: &[&str]) -> Program {
    let mut program = Program::new(env!("CARGO_BIN_EXE_tagfall"));
    program.args(arguments).env_clear().stdin(Stdio::null());
    program
}

fn report(output: &Output) -> String {
    let code = output.status.code().map_or_else(|| "killed".to_owned(), |code| code.to_string());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let talk = if err.is_empty() { String::new() } else { format!("--- said ---\n{err}") };
    format!("exit {code}\n{out}{talk}")
}

#[test]
fn status_tells_each_group_in_a_line_and_every_cause() {
    let host = Host::start();
    insta::assert_snapshot!(host.run(&["status"]), @r"
    exit 0
    docs.default  v1.4.2 published drift detected: `/srv/docs/index.html` was edited and put back [DriftDetected]
    redis.default v1.4.2 running   health critical: connection refused
    web.default   v1.4.1 waiting   for bind db: redis.default has no healthy member
                                   stalled: `/etc/web` is there and was not made here: move it away [MountOccupied]
    v9.9.9 refused TagNameMismatch: its object says `v1.0.0`; make the tag anew
    ams-1: release v1.4.2 (9f3c2a1, verification off), on its way
    ");
    insta::assert_snapshot!(host.run(&["status", "redis"]), @r"
    exit 0
    group     redis.default
    release   v1.4.2
    revision  bb
    service   running, process 300, 2 restarts, since 2100-01-01T00:00:00Z
    health    critical: connection refused
    mount     /etc/redis shows dd, mode namespace
    rollout   Succeeded, 1 of 1 updated
    condition Ready=True [Converged]
    ");
}

#[test]
fn json_is_what_the_api_gave_byte_for_byte() {
    let host = Host::start();
    for (arguments, path) in [
        (&["status", "-o", "json"][..], "/v1/status"),
        (&["status", "web", "-o", "json"], "/v1/groups/web.default"),
        (&["why", "web", "-o", "json"], "/v1/groups/web.default/why"),
        (&["plan", "-o", "json"], "/v1/plan"),
        (&["config", "show", "web", "-o", "json"], "/v1/groups/web.default/config"),
        (&["release", "list", "-o", "json"], "/v1/releases"),
        (&["release", "show", "web/v1.4.1", "-o", "json"], "/v1/releases/web%2Fv1.4.1"),
        (&["trace", "/etc/redis/redis.conf", "-o", "json"], "/v1/trace?path=/etc/redis/redis.conf"),
        (&["events", "-o", "json"], "/v1/events?follow=false"),
        (&["diff", "v1", "v1", "-o", "json"], "/v1/diff?from=v1&to=v1"),
        (&["service", "logs", "web", "-o", "json"], "/v1/groups/web.default/logs"),
    ] {
        let output = host.program(arguments).output().unwrap();
        let body = host.get(path);
        // A streamed answer comes in chunks over the raw connection; its lines are the same.
        let body = String::from_utf8(body).unwrap();
        let body: String = if path.ends_with("/logs") {
            body.lines().filter(|line| line.starts_with('{')).map(|line| format!("{line}\n")).collect()
        } else {
            body
        };
        assert_eq!(String::from_utf8(output.stdout).unwrap(), body, "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn why_shows_the_chain() {
    let host = Host::start();
    insta::assert_snapshot!(host.run(&["why", "web"]), @r"
    exit 0
    web.default is not ready:
      for bind db: redis.default has no healthy member (BindUnsatisfied)
        redis.default: its check says: connection refused (HealthCritical)
    ");
    insta::assert_snapshot!(host.run(&["why", "docs.default"]), @r"
    exit 0
    docs.default is ready: nothing holds it back
    ");
}

#[test]
fn plan_and_diff_exit_1_for_changes_and_never_for_an_error() {
    let host = Host::start();
    insta::assert_snapshot!(host.run(&["plan"]), @r"
    exit 0
    v1.4.1: nothing would change
    ");
    insta::assert_snapshot!(host.run(&["plan", "--tag", "v1.5.0"]), @r"
    exit 1
    redis.default restart `maxmemory` of [config] changes, and its reload rule is `restart`
    web.default   reload  app.toml changes; told by SIGHUP
    v1.4.1 → v1.5.0: 2 steps
    ");
    insta::assert_snapshot!(host.run(&["plan", "--tag", "v7.7.7"]), @r"
    exit 2
    --- said ---
    error: the source has no such tag (TagNotKnown)
    ");
    insta::assert_snapshot!(host.run(&["plan", "--tag", "v0.1.0"]), @r"
    exit 4
    --- said ---
    error: v0.1.0 is below the floor v1.4.1 (DowngradeRefused)
    ");
    insta::assert_snapshot!(host.run(&["diff", "v1.4.1"]), @r"
    exit 1
    web.default changed
      config port: 8080 → 8081
      file app.toml changed
        @@ -1 +1 @@
        -port = 8080
        +port = 8081
      [service] stop_timeout: 8s → 20s
    ");
    insta::assert_snapshot!(host.run(&["diff", "v1.4.1", "v1.4.1"]), @r"
    exit 0
    v1.4.1 and v1.4.1 ask for the same here
    ");
}

#[test]
fn the_other_reads_are_text_for_people() {
    let host = Host::start();
    insta::assert_snapshot!(host.run(&["release", "list"]), @r"
    exit 0
    v9.9.9     refused  -       TagNameMismatch: its object says `v1.0.0`
    v1.4.2     accepted 9999999
    web/v1.4.1 running  9999999
    ");
    insta::assert_snapshot!(host.run(&["release", "show", "v9.9.9"]), @r"
    exit 0
    tag        v9.9.9
    state      refused, since 2100-01-01T00:00:00Z
    tag object 1111111111111111111111111111111111111111
    commit     not known
    signers    none checked
    reason     TagNameMismatch: its object says `v1.0.0`
    ");
    insta::assert_snapshot!(host.run(&["config", "show", "web"]), @r#"
    exit 0
    port = 8080
    tls.names = ["a","b"]
    "#);
    insta::assert_snapshot!(host.run(&["config", "show", "web", "--origin"]), @r#"
    exit 0
    port = 8080           # groups/web/group.toml
    tls.names = ["a","b"] # rings/production.toml
    "#);
    insta::assert_snapshot!(host.run(&["trace", "/etc/redis/redis.conf"]), @r"
    exit 0
    path        /etc/redis/redis.conf
    group       redis.default
    file        groups/redis/config/redis.conf.hbs (a template)
    blob        3333333333333333333333333333333333333333
    publication dd
    commit      9999999999999999999999999999999999999999
    tag         v1.4.2 (1111111111111111111111111111111111111111)
    signed by   ops@example.com
    drift       what stands there now is not what was published
    ");
    insta::assert_snapshot!(host.run(&["events"]), @r"
    exit 0
    2100-01-01T00:00:00Z Converged       v1.4.1 every group runs it
    2100-01-01T00:00:00Z TagNameMismatch v9.9.9 its object says `v1.0.0`
    ");
    insta::assert_snapshot!(host.run(&["events", "--since", "1"]), @r"
    exit 0
    2100-01-01T00:00:00Z TagNameMismatch v9.9.9 its object says `v1.0.0`
    ");
    insta::assert_snapshot!(host.run(&["service", "logs", "web", "--grep", "ERROR", "-n", "1"]), @r"
    exit 0
    2100-01-01T00:00:00.000Z ERROR no route
    ");
}

#[test]
fn failures_name_what_and_what_to_do() {
    let host = Host::start();
    insta::assert_snapshot!(host.run(&["why", "wbe"]), @r"
    exit 1
    --- said ---
    error: group `wbe.default` is not on this supervisor: did you mean `web.default`? (GroupNotHere)
    ");
    insta::assert_snapshot!(host.run(&["service", "stop", "docs"]), @r"
    exit 1
    --- said ---
    error: docs.default has no service: it only publishes (NoService)
    ");
    insta::assert_snapshot!(host.run(&["trace", "/etc/passwd"]), @r"
    exit 1
    --- said ---
    error: `/etc/passwd` lies below no mount of this supervisor (NotPublished)
    ");
    insta::assert_snapshot!(host.run(&["status", "--api", "https://x"]), @r"
    exit 2
    --- said ---
    error: `https://x` is not the address of a supervisor: this version does not speak TLS to a supervisor
      hint: it takes `unix:PATH` or `http://HOST:PORT`, for example `unix:/run/tagfall/supervisor.sock`
    ");
    insta::assert_snapshot!(host.run(&["status", "a/b"]), @r"
    exit 2
    --- said ---
    error: invalid value 'a/b' for '[GROUP]': `a/b` is not a group name: only letters, digits, `-` and `_` may stand in it, with one dot between service and group

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(host.run(&["man", "dance"]), @r"
    exit 2
    --- said ---
    error: there is no command `dance`
      hint: `tagfall --help` lists them
    ");
    let nobody = host.folder.path().join("none.sock");
    let output = host.program(&["status", "--api", &format!("unix:{}", nobody.display())]).output().unwrap();
    insta::assert_snapshot!(report(&output).replace(&*host.folder.path().to_string_lossy(), "FOLDER"), @r"
    exit 3
    --- said ---
    error: no supervisor answers at unix:FOLDER/none.sock
      caused by: No such file or directory (os error 2)
      hint: is `tagfall supervise` running, and is this its address? `--api` or `TAGFALL_API` name another
    ");
}

#[test]
fn commands_are_taken_over_with_their_reason_and_refused_without_the_token() {
    let host = Host::start();
    insta::assert_snapshot!(host.run(&["service", "stop", "web", "--reason", "disk", "--until", "2100-01-01T00:00:00Z"]), @r"
    exit 0
    --- said ---
    web.default: stop taken over until 2100-01-01T00:00:00Z; `tagfall status web.default` shows how it goes
    ");
    let uid = rustix::process::geteuid().as_raw();
    {
        let commands = host.fake.commands.lock().unwrap();
        let [(Command::Service { group: name, reason, until, .. }, Caller::Local { uid: by, .. })] = &commands[..] else {
            panic!("{commands:?}");
        };
        assert_eq!((name, reason.as_deref(), *until, *by), (&group("web"), Some("disk"), Some(THEN), uid));
    }
    let restart = ["service", "restart", "web"];
    let over_tcp = |token: Option<&str>| {
        let mut program = tagfall(&restart);
        program.args(["--api", &host.tcp]);
        if let Some(text) = token {
            let path = host.folder.path().join("token");
            std::fs::write(&path, text).unwrap();
            program.arg("--token-file").arg(path);
        }
        report(&program.output().unwrap())
    };
    insta::assert_snapshot!(over_tcp(None), @r"
    exit 4
    --- said ---
    error: this needs the API token: send `Authorization: Bearer TOKEN` (TokenNeeded)
      hint: `--token-file PATH` names a file with the API token
    ");
    insta::assert_snapshot!(over_tcp(Some("0123456789abcdeX")), @r"
    exit 4
    --- said ---
    error: that is not the API token of this supervisor (TokenWrong)
      hint: `--token-file PATH` names a file with the API token
    ");
    assert_eq!(host.fake.commands.lock().unwrap().len(), 1, "a refused command was carried out");
    insta::assert_snapshot!(over_tcp(Some("0123456789abcdef\n")), @r"
    exit 0
    --- said ---
    web.default: restart taken over; `tagfall status web.default` shows how it goes
    ");
    assert_eq!(host.fake.commands.lock().unwrap().len(), 2);
}

/// Lines of a program that stays, each within a bound; killed at the end.
struct Staying {
    child: std::process::Child,
    lines: std_mpsc::Receiver<String>,
}

impl Staying {
    fn start(mut program: Program) -> Self {
        let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = std_mpsc::channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(SOON).unwrap()
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn followed_events_come_as_they_happen_and_a_supervisor_that_goes_away_is_exit_3() {
    let host = Host::start();
    let mut program = host.program(&["events", "-f", "--since", "1", "-o", "json"]);
    program.stderr(Stdio::piped());
    let mut events = Staying::start(program);
    let id = |line: String| serde_json::from_str::<wire::Event>(&line).unwrap().id;
    assert_eq!(id(events.next()), 2);
    host.fake.happen(wire::EventKind::Normal, Reason::Restarting, "web.default", "asked for");
    assert_eq!(id(events.next()), 3);
    drop(host);
    let status = events.child.wait().unwrap();
    let mut said = String::new();
    events.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains(" went away\n"), "{said}");
}

#[test]
fn a_watched_status_is_shown_again_with_an_event_and_only_then() {
    let host = Host::start();
    let watched = Staying::start(host.program(&["status", "--watch", "-o", "json"]));
    let first = watched.next();
    assert!(first.contains("ams-1"));
    host.fake.happen(wire::EventKind::Normal, Reason::Restarting, "web.default", "asked for");
    assert_eq!(watched.next(), first);
    assert_eq!(host.fake.looks.load(Ordering::Relaxed), 2, "it was looked at without an event");
}

#[test]
fn colours_are_written_only_when_wanted_and_a_closed_pipe_is_no_error() {
    let host = Host::start();
    let coloured = host.program(&["status", "--color", "always"]).output().unwrap();
    assert!(coloured.stdout.contains(&b'\x1b'));
    for arguments in [&["status"][..], &["status", "--color", "never"]] {
        assert!(!host.program(arguments).output().unwrap().stdout.contains(&b'\x1b'));
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = host.program(&["status"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn completions_and_manual_pages_are_produced() {
    for shell in ["bash", "zsh", "fish"] {
        let output = tagfall(&["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && script.contains("supervise") && script.contains("token-file"), "{shell}");
        assert!(!script.contains("fetch-child"), "{shell} offers a command that nobody types");
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), &script).unwrap();
        if let Ok(checked) = Program::new(shell).arg("-n").arg(path.path()).output() {
            assert!(checked.status.success(), "{shell} does not take it: {}", String::from_utf8_lossy(&checked.stderr));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let written = tagfall(&["man", "--dir"]).arg(folder.path()).status().unwrap();
    assert!(written.success());
    let pages: Vec<PathBuf> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    for name in ["tagfall.1", "tagfall-status.1", "tagfall-service-stop.1"] {
        assert!(pages.contains(&folder.path().join(name)), "{name} is missing in {pages:?}");
    }
    assert!(!pages.iter().any(|page| page.to_string_lossy().contains("keeper")));
    let page = String::from_utf8(tagfall(&["man", "service", "stop"]).output().unwrap().stdout).unwrap();
    assert!(page.contains(".TH tagfall-service-stop 1"), "{page}");
}

#[test]
fn words_on_releases_are_taken_over_and_a_signature_that_does_not_hold_is_exit_code_4() {
    let host = Host::start();
    insta::assert_snapshot!(host.run(&["release", "pin", "web/v1.4.1", "--reason", "v1.4.2 leaks", "--until", "2100-01-01T00:00:00Z"]), @r"
    exit 0
    --- said ---
    web/v1.4.1: pin taken over until 2100-01-01T00:00:00Z; `tagfall status` shows how it goes
    ");
    {
        let commands = host.fake.commands.lock().unwrap();
        let [(Command::Release { tag, verb, reason, until }, Caller::Local { .. })] = &commands[..] else {
            panic!("{commands:?}");
        };
        assert_eq!(
            (tag.as_str(), verb.name(), reason.as_deref(), *until),
            ("web/v1.4.1", "pin", Some("v1.4.2 leaks"), Some(THEN))
        );
    }
    insta::assert_snapshot!(host.run(&["release", "unpin"]), @r"
    exit 2
    --- said ---
    error: no release is pinned
      hint: `tagfall status` shows what runs, and why
    ");
    insta::assert_snapshot!(host.run(&["release", "verify", "v1.4.2"]), @r"
    exit 0
    v1.4.2 (commit 0808080) is signed by alice@example.com
    ");
    insta::assert_snapshot!(host.run(&["release", "verify", "v9.9.9"]), @r"
    exit 4
    --- said ---
    error: it is not signed (InvalidTagSignature)
    ");
}
