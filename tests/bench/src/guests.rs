//! Hooks of real languages, as `tests/run` builds them into `target/hooks`: what a call of each costs, and what an HTTP check by a
//! module costs beside the shell script with curl that it replaces.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tagfall::hooks::{Hooks, HooksConfig};
use tagfall::model::{Grants, HookAnswer, HookCall, HookInput, HookKind};

use crate::Failure;
use crate::hooks::{Nothing, call, spent_s, us};
use crate::stage::tagfall;
use crate::table::{Row, Sample};

const CALLS: u32 = 2_000;
const WARM: u32 = 100;
const SCRIPTS: u32 = 100;
const FIRST: u32 = 10;
const TIMEOUT: Duration = Duration::from_secs(5);

/// A language: its module, the hook that is called, and the most that a warm call over the socket and a first call may take.
struct Guest {
    name: &'static str,
    file: &'static str,
    kind: HookKind,
    warm_us: f64,
    first_ms: Option<f64>,
}

/// Nothing is granted to any: they ask once, and are told so.
const GUESTS: [Guest; 7] = [
    Guest { name: "Rust", file: "rust-decide", kind: HookKind::Suitability, warm_us: 80.0, first_ms: Some(2.0) },
    Guest { name: "C", file: "c", kind: HookKind::HealthCheck, warm_us: 80.0, first_ms: None },
    Guest { name: "WAT", file: "wat", kind: HookKind::HealthCheck, warm_us: 80.0, first_ms: None },
    Guest { name: "Zig command", file: "zig", kind: HookKind::HealthCheck, warm_us: 1_000.0, first_ms: None },
    Guest { name: "JavaScript", file: "javascript", kind: HookKind::HealthCheck, warm_us: 400.0, first_ms: None },
    Guest { name: "Python", file: "python", kind: HookKind::HealthCheck, warm_us: 1_500.0, first_ms: Some(5.0) },
    Guest { name: "Go command", file: "go", kind: HookKind::HealthCheck, warm_us: 1_000.0, first_ms: None },
];

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let folder = common::temp_dir();
    let config = HooksConfig { program: tagfall()?, cache: folder.path().join("cache") };
    runtime.block_on(async {
        let mut rows = Vec::new();
        for guest in &GUESTS {
            match module(guest.file) {
                Some(wasm) => rows.extend(guest.measure(&config, &wasm).await?),
                None => rows.push(Row::told(guest.name, "not built: tests/run builds it")),
            }
        }
        match module("rust") {
            Some(wasm) => rows.extend(beside_curl(&config, &wasm).await?),
            None => rows.push(Row::told("HTTP check in Rust", "not built: tests/run builds it")),
        }
        Ok(rows)
    })
}

fn module(name: &str) -> Option<Vec<u8>> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/hooks/{name}.wasm"))).ok()
}

impl Guest {
    async fn measure(&self, config: &HooksConfig, wasm: &[u8]) -> Result<Vec<Row>, Failure> {
        let hooks = Hooks::new(config.clone());
        hooks.admit(wasm).await?;
        let call = HookCall { input: HookInput::empty(self.kind), ..call(wasm, TIMEOUT)? };
        let (mut inside, mut whole, mut memory) = (Vec::new(), Vec::new(), 0);
        for number in 0..WARM + CALLS {
            let begun = Instant::now();
            let run = hooks.call(&call, &Nothing(wasm)).await;
            if number >= WARM {
                whole.push(us(begun.elapsed()));
                inside.push(us(run.took));
                memory = memory.max(run.memory);
            }
        }
        let (inside, whole) = (Sample::new(inside), Sample::new(whole));
        let words = format!(
            "p50 {:.0} us, p99 {:.0} us; inside {:.0} and {:.0} us; {} KiB",
            whole.percentile(50),
            whole.percentile(99),
            inside.percentile(50),
            inside.percentile(99),
            memory / 1024
        );
        let wanted = format!("p50 <= {} us", self.warm_us);
        let warm =
            Row::new(format!("{}: a warm call over the socket", self.name), wanted, words, whole.percentile(50) <= self.warm_us);
        let mut rows = vec![warm];
        if let Some(bound) = self.first_ms {
            rows.push(self.first(config, (wasm, &call), bound).await?);
        }
        Ok(rows)
    }

    /// By a host that has never seen it; its compiled code is kept.
    async fn first(&self, config: &HooksConfig, (wasm, call): (&[u8], &HookCall), bound: f64) -> Result<Row, Failure> {
        let other = common::module::says(1, "another");
        let mut took = Vec::new();
        for _ in 0..FIRST {
            let hooks = Hooks::new(config.clone());
            hooks.admit(&other).await?;
            let begun = Instant::now();
            hooks.call(call, &Nothing(wasm)).await;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let took = Sample::new(took);
        let met = took.percentile(50) <= bound;
        Ok(Row::new(
            format!("{}: first call of a module seen before", self.name),
            format!("<= {bound} ms"),
            took.words("ms"),
            met,
        ))
    }
}

/// A server on a thread of its own; it ends with this value.
struct Server {
    port: u16,
    ends: Arc<AtomicBool>,
}

impl Server {
    fn start() -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let ends = Arc::new(AtomicBool::new(false));
        let told = ends.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                // Whoever does not listen any more is no concern of a server.
                let _ = answer(stream);
            }
        });
        Ok(Self { port, ends })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = [0; 1024];
    let _ = stream.read(&mut head)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

async fn beside_curl(config: &HooksConfig, wasm: &[u8]) -> Result<Vec<Row>, Failure> {
    let server = Server::start()?;
    let (address, url) = (format!("127.0.0.1:{}", server.port), format!("http://127.0.0.1:{}/", server.port));
    let hooks = Hooks::new(config.clone());
    hooks.admit(wasm).await?;
    let grants = Arc::new(Grants { net: vec![address], ..Grants::default() });
    let call = HookCall { grants, args_json: format!("{{\"url\":{url:?}}}").into(), ..call(wasm, TIMEOUT)? };
    let pids = [hooks.host_pid().ok_or("no hook host")?, std::process::id()];
    let mut took = Vec::new();
    let mut before = 0.0;
    for number in 0..WARM + CALLS {
        if number == WARM {
            before = pids.iter().map(|pid| spent_s(*pid)).sum();
        }
        let begun = Instant::now();
        let run = hooks.call(&call, &Nothing(wasm)).await;
        if !matches!(&run.answer, HookAnswer::Health { status: tagfall::model::HealthStatus::Ok, .. }) {
            return Err(format!("{:?}", run.answer).into());
        }
        if number >= WARM {
            took.push(us(begun.elapsed()));
        }
    }
    // The server's part is counted on this side alone.
    let own = (pids.iter().map(|pid| spent_s(*pid)).sum::<f64>() - before) * 1e6 / f64::from(CALLS);
    let script = format!("curl -fsS -o /dev/null {url} || exit 2");
    let before = spent_by_children();
    let scripts: Vec<f64> = (0..SCRIPTS).filter_map(|_| run(&script)).collect();
    if scripts.len() < SCRIPTS as usize {
        return Ok(vec![Row::told("shell and curl", "could not be run: is curl installed?")]);
    }
    let theirs = (spent_by_children() - before) * 1e6 / f64::from(SCRIPTS);
    let (took, scripts) = (Sample::new(took), Sample::new(scripts));
    let (wall, cpu) = (scripts.percentile(50) / took.percentile(50), theirs / own);
    Ok(vec![
        Row::told(
            "HTTP check in Rust, over the socket, answered",
            format!("{}; {own:.0} us of processor time", took.words("us")),
        ),
        Row::told("sh -c 'curl ...', the same answer", format!("{}; {theirs:.0} us of processor time", scripts.words("us"))),
        Row::new(
            "shell and curl beside the module",
            ">= 50 x, wall and CPU",
            format!("{wall:.0} x wall, {cpu:.0} x CPU"),
            wall >= 50.0 && cpu >= 50.0,
        ),
    ])
}

fn run(script: &str) -> Option<f64> {
    let begun = Instant::now();
    let output = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| us(begun.elapsed()))
}

/// Seconds of processor time of all ended children of this process.
fn spent_by_children() -> f64 {
    crate::hooks::ticks_s(std::process::id(), &[13, 14])
}
