//! What a hook reaches of the outside: exactly what it was granted, however it asks.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use common::module;
use tagfall::hooks::HookRun;
use tagfall::model::*;

use super::stage::*;

const READ: &str = "(import \"tagfall:hooks/files@0.1.0\" \"read\" (func $read (param i32 i32 i32)))";
const LIST: &str = "(import \"tagfall:hooks/files@0.1.0\" \"list-dir\" (func $read (param i32 i32 i32)))";
const WRITE: &str = "(import \"tagfall:hooks/files@0.1.0\" \"write\" (func $write (param i32 i32 i32 i32 i32)))";
const TCP: &str = "(import \"tagfall:hooks/probe@0.1.0\" \"tcp\" (func $tcp (param i32 i32 i32 i32 i32 i32 i32 i32)))";
const UNIX: &str = "(import \"tagfall:hooks/probe@0.1.0\" \"unix\" (func $unix (param i32 i32 i32 i32 i32 i32 i32)))";
const HTTP: &str =
    "(import \"tagfall:hooks/probe@0.1.0\" \"http\" (func $http (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))";
const EXEC: &str = "(import \"tagfall:hooks/exec@0.1.0\" \"run\" (func $exec (param i32 i32 i32 i32)))";

/// Data at 1024, and its length.
fn data(text: &str) -> (String, usize) {
    (format!("(data (i32.const 1024) {text:?})"), text.len())
}

/// A check that says what reading a file gives.
fn reader(import: &str, path: &str) -> Vec<u8> {
    let (data, length) = data(path);
    module::health(
        import,
        &data,
        &format!("(call $read (i32.const 1024) (i32.const {length}) (i32.const 800)) (call $tell (i32.const 800))"),
    )
}

/// A check that sends `PING` somewhere and says what four bytes come back.
fn pinger(host: &str, port: u16) -> Vec<u8> {
    let (data, length) = data(host);
    module::health(
        TCP,
        &format!("{data} (data (i32.const 2048) \"PING\")"),
        &format!(
            "(call $tcp (i32.const 1024) (i32.const {length}) (i32.const {port}) (i32.const 2048) (i32.const 4)
               (i32.const 4) (i32.const 0) (i32.const 800)) (call $tell (i32.const 800))"
        ),
    )
}

/// A check that says what a GET gives.
fn getter(url: &str) -> Vec<u8> {
    let (data, length) = data(url);
    module::health(
        HTTP,
        &format!("{data} (data (i32.const 2048) \"GET\")"),
        &format!(
            "(call $http (i32.const 2048) (i32.const 3) (i32.const 1024) (i32.const {length}) (i32.const 0) (i32.const 0)
               (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 800)) (call $tell_http (i32.const 800))"
        ),
    )
}

async fn with(stage: &Stage, wasm: &[u8], allow: Arc<Grants>) -> HookRun {
    stage.check(wasm, |call| call.grants = allow).await
}

#[track_caller]
fn is_refused(run: &HookRun, line: &str) {
    let (status, message) = health(run);
    assert_eq!(status, HealthStatus::Critical, "{message}");
    assert!(message.contains(line), "{message}\nlacks\n{line}");
    assert!(run.denied.iter().any(|denied| denied.contains(line)), "{:?}", run.denied);
}

#[tokio::test]
async fn files_are_read_below_what_was_granted_and_nowhere_else() {
    let stage = Stage::new();
    let top = stage.folder.path().display().to_string();
    std::fs::create_dir_all(format!("{top}/open/sub")).unwrap();
    std::fs::write(format!("{top}/open/a"), "content").unwrap();
    std::fs::write(format!("{top}/secret"), "secret").unwrap();
    symlink("/etc/shadow", format!("{top}/open/shadow")).unwrap();
    symlink("../secret", format!("{top}/open/secret")).unwrap();
    let open = format!("{top}/open");
    let allow = || grants(&[], &[&open], &[], &[]);
    let read = async |path: String| with(&stage, &reader(READ, &path), allow()).await;
    assert_eq!(health(&read(format!("{open}/a")).await), (HealthStatus::Ok, "content"));
    for path in ["shadow", "secret", "../secret", "sub/../../secret"] {
        let run = read(format!("{open}/{path}")).await;
        assert_eq!(health(&run), (HealthStatus::Critical, "a link or `..` on the way leads out of the granted folder"), "{path}");
    }
    let run = read("/etc/shadow".to_owned()).await;
    is_refused(&run, &format!("allow = {{ read = [\"{open}\", \"/etc/shadow\"] }}"));
    let run = with(&stage, &reader(READ, "/etc/shadow"), Arc::default()).await;
    is_refused(
        &run,
        "may not read `/etc/shadow`: `[hooks.health-check]` in group.toml would need  allow = { read = [\"/etc/shadow\"] }",
    );
}

#[tokio::test]
async fn files_are_written_where_that_was_granted() {
    let stage = Stage::new();
    let top = stage.folder.path().display().to_string();
    std::fs::create_dir(format!("{top}/mine")).unwrap();
    let path = format!("{top}/mine/note");
    let (data, length) = data(&path);
    let writer = module::health(
        WRITE,
        &data,
        &format!(
            "(call $write (i32.const 1024) (i32.const {length}) (i32.const 1024) (i32.const 4) (i32.const 800))
             (if (result i32) (i32.load8_u (i32.const 800))
               (then (call $report (i32.const 2) (i32.load (i32.const 812)) (i32.load (i32.const 816))))
               (else (call $report (i32.const 0) (i32.const 1024) (i32.const 4))))"
        ),
    );
    let mine = format!("{top}/mine");
    let run = with(&stage, &writer, grants(&[], &[&mine], &[], &[])).await;
    is_refused(&run, &format!("allow = {{ read = [\"{mine}\"], write = [\"{path}\"] }}"));
    assert!(!std::fs::exists(&path).unwrap());
    let run = with(&stage, &writer, grants(&[], &[], &[&mine], &[])).await;
    assert_eq!(health(&run).0, HealthStatus::Ok);
    assert_eq!(std::fs::read(&path).unwrap(), path.as_bytes()[..4]);
}

#[tokio::test]
async fn connections_go_where_they_were_granted() {
    let stage = Stage::new();
    let port = serve(|_| b"PONG".to_vec());
    let here = format!("127.0.0.1:{port}");
    for host in ["127.0.0.1", "localhost", "::ffff:127.0.0.1"] {
        let run = with(&stage, &pinger(host, port), grants(&[&here], &[], &[], &[])).await;
        assert_eq!(health(&run), (HealthStatus::Ok, "PONG"), "{host}");
    }
    let run = with(&stage, &pinger("127.0.0.1", port), Arc::default()).await;
    is_refused(
        &run,
        &format!("may not reach {here}: `[hooks.health-check]` in group.toml would need  allow = {{ net = [\"{here}\"] }}"),
    );
    let run = with(&stage, &pinger("169.254.169.254", 80), grants(&[&here], &[], &[], &[])).await;
    is_refused(&run, "169.254.169.254:80");
    let closed = common::free_port();
    let run = with(&stage, &pinger("127.0.0.1", closed), grants(&[&format!("127.0.0.1:{closed}")], &[], &[], &[])).await;
    assert_eq!(health(&run), (HealthStatus::Critical, "connection refused: nothing listens there"));
}

#[tokio::test]
async fn unix_sockets_are_granted_by_their_path() {
    let stage = Stage::new();
    let path = stage.folder.path().join("own.sock").display().to_string();
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream.and_then(|mut stream| stream.write_all(b"PONG")));
        }
    });
    let (data, length) = data(&path);
    let pinger = module::health(
        UNIX,
        &data,
        &format!(
            "(call $unix (i32.const 1024) (i32.const {length}) (i32.const 1024) (i32.const 0) (i32.const 4) (i32.const 0)
               (i32.const 800)) (call $tell (i32.const 800))"
        ),
    );
    let run = with(&stage, &pinger, grants(&[&format!("unix:{path}")], &[], &[], &[])).await;
    assert_eq!(health(&run), (HealthStatus::Ok, "PONG"));
    let run = with(&stage, &pinger, grants(&["unix:/run/docker.sock"], &[], &[], &[])).await;
    is_refused(&run, &format!("allow = {{ net = [\"unix:/run/docker.sock\", \"unix:{path}\"] }}"));
}

#[tokio::test]
async fn http_is_asked_and_redirects_are_held_against_the_grants() {
    let stage = Stage::new();
    let page = serve(|_| ok_page("the page"));
    let to_page = serve(move |_| {
        format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{page}/x\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let in_circles =
        serve(|own| format!("HTTP/1.1 302 Found\r\nLocation: http://localhost:{own}/\r\nContent-Length: 0\r\n\r\n").into_bytes());
    let odd = serve(|_| b"SSH-2.0-OpenSSH_9\r\n".to_vec());
    let large = serve(|_| ok_page(&"x".repeat(2 << 20)));
    let at = |port: u16| format!("127.0.0.1:{port}");
    let ask = async |url: String, ports: &[u16]| {
        let entries: Vec<String> = ports.iter().map(|port| at(*port)).collect();
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        with(&stage, &getter(&url), grants(&entries, &[], &[], &[])).await
    };
    assert_eq!(health(&ask(format!("http://127.0.0.1:{page}/"), &[page]).await), (HealthStatus::Ok, "the page"));
    assert_eq!(health(&ask(format!("http://localhost:{to_page}/"), &[to_page, page]).await), (HealthStatus::Ok, "the page"));
    is_refused(&ask(format!("http://127.0.0.1:{to_page}/"), &[to_page]).await, &at(page));
    let circles = ask(format!("http://127.0.0.1:{in_circles}/"), &[in_circles]).await;
    assert_eq!(health(&circles), (HealthStatus::Critical, "it redirects more than 5 times"));
    let odd = ask(format!("http://127.0.0.1:{odd}/"), &[odd]).await;
    assert_eq!(health(&odd), (HealthStatus::Critical, "it gave an answer that is not HTTP"));
    let large = ask(format!("http://127.0.0.1:{large}/"), &[large]).await;
    assert_eq!(health(&large), (HealthStatus::Critical, "the answer is longer than 1048576 bytes"));
    let secret = ask("https://127.0.0.1/".to_owned(), &[443]).await;
    assert_eq!(health(&secret), (HealthStatus::Critical, "there is no TLS here: only `http://` URLs can be asked"));
}

#[tokio::test]
async fn commands_are_run_by_their_declared_names() {
    let stage = Stage::new();
    let runner = |name: &str| {
        let (data, length) = data(name);
        let code = format!(
            "(call $exec (i32.const 1024) (i32.const {length}) (i32.const 0) (i32.const 800)) (call $tell_exec (i32.const 800))"
        );
        module::health(EXEC, &data, &code)
    };
    let run = with(&stage, &runner("greet"), grants(&[], &[], &[], &["greet"])).await;
    assert_eq!(health(&run), (HealthStatus::Ok, "hello from outside"));
    let run = with(&stage, &runner("fail"), grants(&[], &[], &[], &["fail"])).await;
    assert_eq!(health(&run), (HealthStatus::Critical, "it cannot be run today"));
    let run = with(&stage, &runner("rm -rf /"), grants(&[], &[], &[], &["greet"])).await;
    is_refused(&run, "allow = { exec = { greet = [\"/bin/x\"], \"rm -rf /\" = [\"/path/of/program\"] } }");
}

#[tokio::test]
async fn a_hook_that_breaks_off_for_want_of_a_grant_says_so() {
    let stage = Stage::new();
    let (data, length) = data("/etc/shadow");
    let wasm =
        module::health(READ, &data, &format!("(call $read (i32.const 1024) (i32.const {length}) (i32.const 800)) (unreachable)"));
    let run = with(&stage, &wasm, Arc::default()).await;
    let (reason, message) = failed(&run);
    assert_eq!(reason, HookFailed::Denied);
    assert!(message.contains("unreachable") && message.contains("read = [\"/etc/shadow\"]"), "{message}");
}

#[tokio::test]
async fn folders_are_listed() {
    let stage = Stage::new();
    let top = stage.folder.path().join("listed");
    std::fs::create_dir_all(top.join("sub")).unwrap();
    std::fs::write(top.join("a"), "").unwrap();
    let path = top.display().to_string();
    // The first name of the list: pointer and length lie where the list points to.
    let (data, length) = data(&path);
    let wasm = module::health(
        LIST,
        &data,
        &format!(
            "(call $read (i32.const 1024) (i32.const {length}) (i32.const 800))
             (if (i32.ne (i32.load (i32.const 808)) (i32.const 2)) (then (unreachable)))
             (call $report (i32.const 0) (i32.load offset=8 (i32.load (i32.const 804))) (i32.load offset=12 (i32.load (i32.const 804))))"
        ),
    );
    let run = with(&stage, &wasm, grants(&[], &[&path], &[], &[])).await;
    assert_eq!(health(&run), (HealthStatus::Ok, "sub/"));
}
