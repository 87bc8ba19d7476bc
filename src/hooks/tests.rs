//! Checks against real listeners, bad ones first.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::model::{Exit, Signal};

/// Long enough for any local answer.
const LONG: Duration = Duration::from_secs(10);
/// For what never answers.
const SHORT: Duration = Duration::from_millis(50);

/// Answers each command by its name.
struct Commands;

impl ExecCheck for Commands {
    fn run<'a>(&'a self, command: &'a str, _timeout: Duration) -> ExecRun<'a> {
        Box::pin(async move {
            let done = |exit, output: &str| Ok(ExecOutcome { exit, output: output.to_owned() });
            match command {
                "ok" => done(Exit::Code(0), "begins\nall well\n\n"),
                "silent" => done(Exit::Code(0), ""),
                "warning" => done(Exit::Code(1), "getting full"),
                "critical" => done(Exit::Code(2), "down"),
                "odd" => done(Exit::Code(3), "what?"),
                "killed" => done(Exit::Signal(Signal::KILL), ""),
                "hangs" => std::future::pending().await,
                other => Err(format!("`allow.exec` has no `{other}`")),
            }
        })
    }
}

async fn ask(what: Check, timeout: Duration) -> (HealthStatus, String) {
    let result = check(&what, timeout, &Commands).await;
    (result.status, result.message)
}

/// Serves the same bytes to everyone, then closes, or holds on where `hold`; says what it was sent.
async fn serve(answer: Vec<u8>, hold: bool) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let got = stream.read(&mut request).await.unwrap_or(0);
            let _ = sender.send(String::from_utf8_lossy(&request[..got]).into_owned());
            let _ = stream.write_all(&answer).await;
            if hold {
                held.push(stream);
            }
        }
    });
    (port, requests)
}

fn http(port: u16, status: Option<u16>, body: Option<&str>) -> Check {
    Check::Http { url: format!("http://127.0.0.1:{port}/healthz?a=b"), status, body: body.map(str::to_owned) }
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// What is served; wanted status and text; the answer and its words.
type Case<'a> = (Vec<u8>, Option<u16>, Option<&'a str>, HealthStatus, &'a str);

#[tokio::test]
async fn http_answers_are_judged_by_status_and_body() {
    use HealthStatus::{Critical, Ok};
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n5\r\n well\r\n0\r\n\r\n".to_vec();
    let to_the_end = b"HTTP/1.0 200 OK\r\n\r\nall well".to_vec();
    let big = answer("200 OK", &format!("{}late", "x".repeat(64 * 1024)));
    let cases: [Case<'_>; 16] = [
        (answer("503 Service Unavailable", ""), None, None, Critical, "answered 503, wanted 200-399"),
        (answer("404 Not Found", ""), Some(200), None, Critical, "answered 404, wanted 200"),
        (answer("404 Not Found", ""), Some(404), None, Ok, "answered 404"),
        (answer("204 No Content", ""), Some(200), None, Critical, "answered 204, wanted 200"),
        (answer("302 Found\r\nLocation: http://127.0.0.1:1/", ""), None, None, Ok, "answered 302"),
        (answer("302 Found\r\nLocation: http://127.0.0.1:1/", ""), Some(200), None, Critical, "answered 302, wanted 200"),
        (answer("200 OK", "all well"), None, Some("well"), Ok, "answered 200 with the wanted text"),
        (answer("200 OK", "all ill"), None, Some("well"), Critical, "answered 200, but its body lacks `well`"),
        (answer("200 OK", ""), None, Some(""), Ok, "answered 200 with the wanted text"),
        (chunked, None, Some("all well"), Ok, "answered 200 with the wanted text"),
        (to_the_end, None, Some("all well"), Ok, "answered 200 with the wanted text"),
        (big, None, Some("late"), Critical, "answered 200, but its first 64 KiB of body lacks `late`"),
        (b"SSH-2.0-OpenSSH_9\r\n".to_vec(), None, None, Critical, "gave an answer that is not HTTP"),
        (b"".to_vec(), None, None, Critical, "closed the connection before it had answered"),
        (b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(), None, None, Critical, "closed the connection before it had answered"),
        ([b"HTTP/1.1 200 OK\r\nX: ", &[b'x'; 100_000][..]].concat(), None, None, Critical, "gave an answer that is not HTTP"),
    ];
    for (bytes, status, body, wanted, words) in cases {
        let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        let (port, _requests) = serve(bytes, false).await;
        let (found, message) = ask(http(port, status, body), LONG).await;
        let expected = format!("GET http://127.0.0.1:{port}/healthz?a=b {words}");
        assert_eq!((found, message), (wanted, expected), "{begin:?} {status:?} {body:?}");
    }
}

#[tokio::test]
async fn a_request_says_where_it_goes_and_who_asks() {
    let (port, mut requests) = serve(answer("200 OK", ""), true).await;
    let url = format!("http://user:secret@127.0.0.1:{port}");
    let (status, _) = ask(Check::Http { url, status: None, body: None }, LONG).await;
    assert_eq!(status, HealthStatus::Ok);
    let request = requests.recv().await.unwrap().to_lowercase();
    assert!(request.starts_with("get / http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: 127.0.0.1:{port}\r\n")), "{request}");
    assert!(request.contains("\r\nuser-agent: tagfall/") && !request.contains("secret"), "{request}");
}

#[tokio::test]
async fn http_that_is_refused_hangs_or_cannot_be_asked_is_critical() {
    let port = closed_port().await;
    let (status, message) = ask(http(port, None, None), LONG).await;
    assert_eq!(status, HealthStatus::Critical);
    assert!(message.ends_with("could not connect: connection refused: nothing listens there"), "{message}");
    let endless = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx".to_vec();
    for (bytes, body) in [(Vec::new(), None), (b"HTTP/1.1 200".to_vec(), None), (endless, Some("y"))] {
        let (port, _requests) = serve(bytes, true).await;
        let begin = Instant::now();
        let (status, message) = ask(http(port, None, body), SHORT).await;
        assert_eq!(status, HealthStatus::Critical);
        assert!(message.ends_with("gave no answer within 50ms"), "{message}");
        assert!(begin.elapsed() < LONG);
    }
    for url in ["https://127.0.0.1/", "ftp://x/", "127.0.0.1:80", "http://", "http://[::1", "http:///x", ""] {
        let (status, message) = ask(Check::Http { url: url.to_owned(), status: None, body: None }, LONG).await;
        assert_eq!(status, HealthStatus::Critical, "{url}");
        assert!(message.contains("cannot be asked"), "{url}: {message}");
    }
}

#[tokio::test]
async fn http_over_ipv6_where_the_machine_has_it() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no IPv6 on the loopback interface");
        eprintln!("skipped: no IPv6 on the loopback interface");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream.write_all(&answer("200 OK", "")).await.unwrap();
    });
    let (status, message) = ask(Check::Http { url: format!("http://[::1]:{port}/"), status: None, body: None }, LONG).await;
    assert_eq!(status, HealthStatus::Ok, "{message}");
    served.await.unwrap();
}

#[tokio::test]
async fn tcp_is_whether_something_accepts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().to_string();
    assert_eq!(ask(Check::Tcp { address: open.clone() }, LONG).await, (HealthStatus::Ok, format!("connected to {open}")));
    let closed = format!("127.0.0.1:{}", closed_port().await);
    let (status, message) = ask(Check::Tcp { address: closed.clone() }, LONG).await;
    assert_eq!(status, HealthStatus::Critical);
    assert_eq!(message, format!("could not connect to {closed}: connection refused: nothing listens there"));
    for address in ["", "127.0.0.1", "127.0.0.1:99999"] {
        let (status, message) = ask(Check::Tcp { address: address.to_owned() }, LONG).await;
        assert_eq!(status, HealthStatus::Critical, "{address}: {message}");
    }
}

#[tokio::test]
async fn a_file_is_there_regular_and_young_enough() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let file = std::fs::File::create(at("file")).unwrap();
    std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
    std::os::unix::fs::symlink(at("none"), at("dangling")).unwrap();
    let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
    let two_minutes_ago = std::time::SystemTime::now() - Duration::from_secs(120);
    file.set_modified(two_minutes_ago).unwrap();
    let cases = [
        (at("none"), None, HealthStatus::Critical, "is not there"),
        (at("dangling"), None, HealthStatus::Critical, "is not there"),
        (at(""), None, HealthStatus::Critical, "is not a regular file"),
        (at("file/below"), None, HealthStatus::Critical, "could not look at"),
        (at("file"), minutes(1), HealthStatus::Critical, "wanted at most 1m"),
        (at("file"), minutes(60), HealthStatus::Ok, "was written 2m"),
        (at("link"), minutes(60), HealthStatus::Ok, "was written 2m"),
        (at("file"), None, HealthStatus::Ok, "is there"),
    ];
    for (path, max_age, wanted, words) in cases {
        let (status, message) = ask(Check::File { path: path.clone(), max_age }, LONG).await;
        assert_eq!(status, wanted, "{path}: {message}");
        assert!(message.contains(words) && message.contains(&path), "{message}");
    }
    file.set_modified(std::time::SystemTime::now() + LONG).unwrap();
    let (status, message) = ask(Check::File { path: at("file"), max_age: minutes(1) }, LONG).await;
    assert_eq!(status, HealthStatus::Ok, "a time ahead is no age: {message}");
}

#[tokio::test]
async fn a_command_answers_by_its_code_and_its_last_line() {
    let cases = [
        ("ok", HealthStatus::Ok, "all well"),
        ("silent", HealthStatus::Ok, "command `silent` ended with exit code 0"),
        ("warning", HealthStatus::Warning, "getting full"),
        ("critical", HealthStatus::Critical, "down"),
        ("odd", HealthStatus::Unknown, "command `odd` ended with exit code 3: what?"),
        ("killed", HealthStatus::Unknown, "command `killed` ended with SIGKILL"),
        ("none", HealthStatus::Unknown, "could not run command `none`: `allow.exec` has no `none`"),
    ];
    for (command, status, message) in cases {
        assert_eq!(ask(Check::Exec { command: command.to_owned() }, LONG).await, (status, message.to_owned()));
    }
    let (status, message) = ask(Check::Exec { command: "hangs".to_owned() }, SHORT).await;
    assert_eq!((status, message.as_str()), (HealthStatus::Critical, "command `hangs` gave no answer within 50ms"));
}

#[tokio::test]
async fn messages_are_short() {
    let url = format!("http://127.0.0.1:{}/{}", closed_port().await, "é".repeat(1_000));
    let (_, message) = ask(Check::Http { url, status: None, body: None }, LONG).await;
    assert!(message.len() <= 512, "{} bytes", message.len());
}
