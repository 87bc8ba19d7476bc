//! Probes of plain WASI commands: what is asked before they begin, and stands in their input.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use common::module;
use serde_json::{Value, json};
use tagfall::hooks::HookRun;
use tagfall::model::*;

use super::stage::*;

/// Says the last 3,500 bytes of standard input.
fn echo() -> Vec<u8> {
    module::command(
        "(import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
         (import \"wasi_snapshot_preview1\" \"fd_read\" (func $read (param i32 i32 i32 i32) (result i32)))",
        "(func (export \"_start\") (local $length i32) (local $from i32)
           (i32.store (i32.const 32) (i32.const 1024)) (i32.store (i32.const 36) (i32.const 260000))
           (if (call $read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 40)) (then (unreachable)))
           (local.set $length (i32.load (i32.const 40))) (local.set $from (i32.const 1024))
           (if (i32.gt_u (local.get $length) (i32.const 3500)) (then
             (local.set $from (i32.sub (i32.add (i32.const 1024) (local.get $length)) (i32.const 3500)))
             (local.set $length (i32.const 3500))))
           (i32.store (i32.const 16) (local.get $from)) (i32.store (i32.const 20) (local.get $length))
           (if (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)) (then (unreachable))))",
    )
}

fn http(url: impl Into<String>) -> Probe {
    Probe::Http { url: url.into() }
}

fn stream(address: impl Into<String>, send: &str, until: Option<u32>) -> Probe {
    Probe::Stream { address: address.into(), send: send.to_owned(), until }
}

async fn with(stage: &Stage, probes: &[(&str, Probe)], timeout: Duration, allow: Arc<Grants>) -> HookRun {
    let probes: Probes = probes.iter().map(|(name, probe)| ((*name).to_owned(), probe.clone())).collect();
    let wasm = echo();
    stage.admit(&wasm).await.unwrap();
    let change = |call: &mut HookCall| {
        (call.probes, call.timeout, call.grants) = (Arc::new(probes), timeout, allow);
    };
    stage.check(&wasm, change).await
}

/// What the command was told of its probes, without the times.
fn told(run: &HookRun) -> Value {
    assert_eq!(health(run).0, HealthStatus::Ok);
    let input: Value = serde_json::from_str(&run.log[0].message).unwrap();
    let mut probes = input["probes"].clone();
    for (_, answer) in probes.as_object_mut().unwrap() {
        answer.as_object_mut().unwrap().remove("elapsed_us");
    }
    probes
}

/// Answers its first bytes, and leaves the connection open.
fn lasting(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            if stream.read(&mut [0; 64]).is_ok() {
                drop(stream.write_all(answer));
                kept.push(stream);
            }
        }
    });
    port
}

#[tokio::test]
async fn the_answers_to_probes_are_in_a_commands_input() {
    let stage = Stage::new();
    let web = serve(|_| b"HTTP/1.1 503 Busy\r\nX-Load: 9\r\nX-Load: 8\r\nContent-Length: 4\r\n\r\nbusy".to_vec());
    let cache = lasting(b"+PONG\r\n+MORE\r\n");
    let path = stage.folder.path().join("own.sock").display().to_string();
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            drop(stream.and_then(|mut stream| stream.write_all(b"hello")));
        }
    });
    let at = |port: u16| format!("127.0.0.1:{port}");
    let probes = [
        ("banner", stream(format!("unix:{path}"), "", Some(5))),
        ("cache", stream(at(cache), "PING\r\n", None)),
        ("exactly", stream(at(cache), "PING\r\n", Some(7))),
        ("gone", stream(at(common::free_port()), "", None)),
        ("open", stream(at(cache), "", None)),
        ("tls", http("https://127.0.0.1/")),
        ("web", http(format!("http://127.0.0.1:{web}/healthz"))),
    ];
    let run = with(&stage, &probes, LONG, Arc::default()).await;
    let failed = |code: &str, message: &str| json!({ "error": { "code": code, "message": message } });
    let wanted = json!({
        "banner": { "data": "hello" },
        "cache": { "data": "+PONG\r\n+MORE\r\n" },
        "exactly": { "data": "+PONG\r\n" },
        "gone": failed("refused", "connection refused: nothing listens there"),
        "open": { "data": "" },
        "tls": failed("tls", "there is no TLS here: only `http://` URLs can be asked"),
        "web": { "status": 503, "headers": { "x-load": "9, 8", "content-length": "4" }, "body": "busy", "cut": false },
    });
    assert_eq!(told(&run), wanted);
    assert_eq!((run.denied.len(), run.seen.len()), (0, probes.len()));
    assert!(run.seen.contains(&format!("probe `web` at 127.0.0.1:{web}: done")), "{:?}", run.seen);
}

#[tokio::test]
async fn a_probe_that_hangs_leaves_the_command_its_half_of_the_time() {
    let stage = Stage::new();
    let keeps = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let page = serve(|_| ok_page("quick"));
    let probes = [
        ("page", http(format!("http://127.0.0.1:{page}/"))),
        ("quiet", http(format!("http://{}/", keeps.local_addr().unwrap()))),
        ("silent", stream(keeps.local_addr().unwrap().to_string(), "PING\r\n", None)),
        ("gone", stream(format!("127.0.0.1:{}", common::free_port()), "PING\r\n", None)),
    ];
    let run = with(&stage, &probes, Duration::from_secs(4), Arc::default()).await;
    let told = told(&run);
    let late = json!({ "error": { "code": "timeout", "message": "nothing was answered in time" } });
    assert_eq!((&told["quiet"], &told["silent"]), (&late, &late));
    assert_eq!((&told["page"]["body"], &told["gone"]["error"]["code"]), (&json!("quick"), &json!("refused")));
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&run.took), "{:?}", run.took);
}

#[tokio::test]
async fn a_long_answer_is_cut_and_a_redirect_is_told() {
    let stage = Stage::new();
    let long = serve(|_| ok_page(&"x".repeat(2 << 20)));
    let run = with(&stage, &[("long", http(format!("http://127.0.0.1:{long}/")))], LONG, Arc::default()).await;
    assert_eq!(health(&run).0, HealthStatus::Ok);
    assert!(run.log[0].message.contains(r#"xxx","cut":true,"#), "{:?}", run.log[0]);
    let (seen, was_seen) = std::sync::mpsc::channel();
    let page = serve(move |_| {
        let _ = seen.send(());
        ok_page("secret")
    });
    let away = serve(move |_| format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{page}/\r\n\r\n").into_bytes());
    let run = with(&stage, &[("away", http(format!("http://127.0.0.1:{away}/")))], LONG, Arc::default()).await;
    assert_eq!(told(&run)["away"]["status"], 302);
    assert!(was_seen.try_recv().is_err(), "a redirect was followed");
}

#[tokio::test]
async fn what_is_declared_is_opened_and_nothing_else() {
    let stage = Stage::new();
    let port = lasting(b"+PONG\r\n");
    // A name that leads to this host: the entry of its own is not enough, as with `allow.net`.
    let by_name = [("cache", stream(format!("127.1:{port}"), "PING\r\n", None))];
    let run = with(&stage, &by_name, LONG, Arc::default()).await;
    let error = &told(&run)["cache"]["error"];
    assert_eq!(error["code"], "denied");
    let line = format!("allow = {{ net = [\"127.0.0.1:{port}\"] }}");
    assert!(error["message"].as_str().unwrap().contains(&line) && run.denied[0].contains(&line), "{error} {:?}", run.denied);
    let allow = grants(&[&format!("127.0.0.1:{port}")], &[], &[], &[]);
    assert_eq!(told(&with(&stage, &by_name, LONG, allow).await), json!({ "cache": { "data": "+PONG\r\n" } }));
    // What a component asks for is held against `allow.net` alone, whatever probes it was declared with.
    let asks = module::health(
        "(import \"tagfall:hooks/probe@0.1.0\" \"tcp\" (func $tcp (param i32 i32 i32 i32 i32 i32 i32 i32)))",
        "(data (i32.const 1024) \"127.0.0.1\")",
        &format!(
            "(call $tcp (i32.const 1024) (i32.const 9) (i32.const {port}) (i32.const 1024) (i32.const 4)
               (i32.const 4) (i32.const 0) (i32.const 800)) (call $tell (i32.const 800))"
        ),
    );
    let probes = Probes::from([("cache".to_owned(), stream(format!("127.0.0.1:{port}"), "", None))]);
    let run = stage.check(&asks, |call| call.probes = Arc::new(probes)).await;
    let (status, message) = health(&run);
    assert!(status == HealthStatus::Critical && message.contains(&line), "{message}");
    // A command has no call that would connect.
    let sockets = module::command(
        "(import \"wasi_snapshot_preview1\" \"sock_send\" (func $send (param i32 i32 i32 i32 i32) (result i32)))
         (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))",
        "(func (export \"_start\") (call $exit
           (call $send (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))",
    );
    assert_eq!(health(&stage.check(&sockets, |_| {}).await).1, "it ended with code 58");
}
