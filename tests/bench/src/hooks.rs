//! Hooks: a warm call inside the host and over the socket beside the cheapest shell, a runaway's end, a first call, memory.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::module;
use tagfall::hooks::{ExecCheck, ExecRun, HookRun, Hooks, HooksConfig, Outside};
use tagfall::model::{Digest, HookAnswer, HookCall, HookContext, HookFailed, HookInput};

use crate::Failure;
use crate::clock::pause;
use crate::stage::{Stage, tagfall};
use crate::table::{Row, Sample};

const CALLS: u32 = 5_000;
const WARM: u32 = 200;
const SHELLS: u32 = 300;
const RUNAWAYS: u32 = 20;
const RUNAWAY: Duration = Duration::from_millis(200);
const FIRST: u32 = 20;
const IDLE_MODULES: u32 = 100;
const RATE: u32 = 1_000;
const RATE_S: u32 = 5;
/// Until a supervisor has given back what it needed for its start.
const REST: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_millis(500);
/// Clock ticks of /proc per second.
const TICKS_PER_S: f64 = 100.0;

/// Modules reach nothing here.
pub(crate) struct Nothing<'a>(pub(crate) &'a [u8]);

impl Outside for Nothing<'_> {
    fn read_module(&self, _: &Digest) -> Result<Vec<u8>, String> {
        Ok(self.0.to_vec())
    }
}

impl ExecCheck for Nothing<'_> {
    fn run<'a>(&'a self, _: &'a str, _: Duration) -> ExecRun<'a> {
        Box::pin(async { Err("nothing is run here".to_owned()) })
    }
}

/// A check with nothing granted.
pub(crate) fn call(wasm: &[u8], timeout: Duration) -> Result<HookCall, Failure> {
    Ok(HookCall {
        group: "web".parse()?,
        module: Digest::of(wasm),
        input: HookInput::HealthCheck,
        context: HookContext::default(),
        args_json: "{}".into(),
        config_json: "{}".into(),
        members: Arc::new([]),
        grants: Arc::default(),
        probes: Arc::default(),
        env: Arc::new([]),
        timeout,
        memory: 64 << 20,
    })
}

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let folder = common::temp_dir();
    let config = HooksConfig { program: tagfall()?, cache: folder.path().join("cache") };
    let mut rows = Vec::new();
    runtime.block_on(async {
        let hooks = Hooks::new(config.clone());
        rows.extend(warm(&hooks).await?);
        rows.extend(runaways(&hooks).await?);
        rows.extend(memory(&hooks).await?);
        rows.extend(rate(&hooks).await?);
        drop(hooks);
        rows.extend(first(&config).await?);
        rows.extend(bombs(&config).await?);
        Ok::<(), Failure>(())
    })?;
    rows.push(together()?);
    Ok(rows)
}

/// A supervisor with its hook host, both at rest.
fn together() -> Result<Row, Failure> {
    let mut stage = Stage::new();
    let module = stage.repo.clone_dir().join("groups/web/hooks/health.wasm");
    std::fs::create_dir_all(module.parent().ok_or("no folder")?)?;
    std::fs::write(module, module::says(0, "all is well"))?;
    let hook = "[hooks.health-check]\nmodule = \"hooks/health.wasm\"\ninterval = \"1d\"\n";
    let text = format!("format = 1\n[placement]\nlabels = {{}}\n[service]\nexec = [\"sleep\", \"1000\"]\n{hook}");
    stage.repo.write("groups/web/group.toml", &text).release("v1.0.0");
    stage.supervise()?;
    stage.wait_applied("v1.0.0")?;
    pause(REST);
    let status = stage.status()?;
    let rss = |name: &str| {
        let pid = status["supervisor"][name].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.map(|pid| rss_kib(pid) * 1024.0 / 1e6).ok_or_else(|| format!("no {name} in the status"))
    };
    let (supervisor, host) = (rss("pid")?, rss("hook_host_pid")?);
    let shown = format!("{:.1} MB: {supervisor:.1} and {host:.1}", supervisor + host);
    Ok(Row::new("supervisor and hook host at rest, RSS", "<= 45 MB", shown, supervisor + host <= 45.0))
}

pub(crate) fn us(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

async fn warm(hooks: &Hooks) -> Result<Vec<Row>, Failure> {
    let wasm = module::says(0, "all is well");
    hooks.admit(&wasm).await?;
    let call = call(&wasm, Duration::from_secs(5))?;
    let (mut inside, mut whole) = (Vec::new(), Vec::new());
    for number in 0..WARM + CALLS {
        let begun = Instant::now();
        let run = hooks.call(&call, &Nothing(&wasm)).await;
        let took = begun.elapsed();
        if !matches!(run.answer, HookAnswer::Health { .. }) {
            return Err(format!("{:?}", run.answer).into());
        }
        if number >= WARM {
            inside.push(us(run.took));
            whole.push(us(took));
        }
    }
    let (inside, whole) = (Sample::new(inside), Sample::new(whole));
    let shells = Sample::new((0..SHELLS).filter_map(|_| shell()).collect());
    let ratio = shells.percentile(50) / whole.percentile(50);
    let (p50, p99) = (inside.percentile(50), inside.percentile(99));
    let (whole_p50, whole_p99) = (whole.percentile(50), whole.percentile(99));
    Ok(vec![
        Row::new(
            "warm check (WAT) inside the hook host",
            "p50 <= 30 us, p99 <= 150 us",
            inside.words("us"),
            p50 <= 30.0 && p99 <= 150.0,
        ),
        Row::new(
            "the same over the socket",
            "p50 <= 80 us, p99 <= 500 us",
            whole.words("us"),
            whole_p50 <= 80.0 && whole_p99 <= 500.0,
        ),
        Row::told("`sh -c 'exit 0'` with captured output", shells.words("us")),
        Row::new("a shell beside a call over the socket", ">= 10 x", format!("{ratio:.1} x"), ratio >= 10.0),
    ])
}

fn shell() -> Option<f64> {
    let begun = Instant::now();
    let output = Command::new("sh").args(["-c", "exit 0"]).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| us(begun.elapsed()))
}

async fn runaways(hooks: &Hooks) -> Result<Vec<Row>, Failure> {
    let sleep = "(import \"tagfall:hooks/clock@0.1.0\" \"sleep-ms\" (func $sleep (param i32)))";
    let looping = module::health("", "", "(loop $for_ever (br $for_ever)) (unreachable)");
    let waiting = module::health(sleep, "", "(call $sleep (i32.const 3600000)) (i32.const 0)");
    let mut rows = Vec::new();
    for (what, wasm) in [("a loop", looping), ("a wait inside a host call", waiting)] {
        hooks.admit(&wasm).await?;
        let call = call(&wasm, RUNAWAY)?;
        let mut late = Vec::new();
        for _ in 0..RUNAWAYS {
            let begun = Instant::now();
            let run: HookRun = hooks.call(&call, &Nothing(&wasm)).await;
            late.push((begun.elapsed().saturating_sub(RUNAWAY)).as_secs_f64() * 1e3);
            if !matches!(&run.answer, HookAnswer::Failed(failure) if failure.reason == HookFailed::Timeout) {
                return Err(format!("{:?}", run.answer).into());
            }
        }
        let late = Sample::new(late);
        rows.push(Row::new(format!("{what} ended after its deadline"), "<= 20 ms", late.words("ms"), late.max() <= 20.0));
    }
    Ok(rows)
}

async fn memory(hooks: &Hooks) -> Result<Vec<Row>, Failure> {
    let pid = hooks.host_pid().ok_or("no hook host")?;
    pause(SETTLE);
    let before = rss_kib(pid);
    for number in 0..IDLE_MODULES {
        let wasm = module::says(0, &format!("module {number}"));
        hooks.admit(&wasm).await?;
        hooks.call(&call(&wasm, Duration::from_secs(5))?, &Nothing(&wasm)).await;
    }
    pause(SETTLE);
    let each = (rss_kib(pid) - before) / f64::from(IDLE_MODULES);
    Ok(vec![
        Row::told("RSS of the hook host at rest", format!("{:.1} MB", before * 1024.0 / 1e6)),
        Row::new("RSS of an idle module", "<= 200 KB", format!("{:.0} KB", each * 1.024), each * 1.024 <= 200.0),
    ])
}

fn rss_kib(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// Seconds of processor time of a process.
pub(crate) fn spent_s(pid: u32) -> f64 {
    ticks_s(pid, &[11, 12])
}

/// Sum of these fields of /proc/PID/stat behind the name, in seconds.
pub(crate) fn ticks_s(pid: u32, fields_at: &[usize]) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| rest.split_whitespace().collect());
    fields_at.iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S
}

/// A thousand checks a second, spread evenly: what host and caller take of a core.
async fn rate(hooks: &Hooks) -> Result<Vec<Row>, Failure> {
    let wasm = module::says(0, "all is well");
    hooks.admit(&wasm).await?;
    let call = call(&wasm, Duration::from_secs(5))?;
    let pids = [hooks.host_pid().ok_or("no hook host")?, std::process::id()];
    let spent = || pids.iter().map(|pid| spent_s(*pid)).sum::<f64>();
    let (before, begun) = (spent(), tokio::time::Instant::now());
    for number in 0..RATE * RATE_S {
        tokio::time::sleep_until(begun + Duration::from_secs(1) * number / RATE).await;
        hooks.call(&call, &Nothing(&wasm)).await;
    }
    let share = (spent() - before) / begun.elapsed().as_secs_f64() * 100.0;
    let shown = format!("{share:.1} % in {:.1} s for {} calls", begun.elapsed().as_secs_f64(), RATE * RATE_S);
    Ok(vec![Row::new("1,000 checks a second, host and caller", "<= 10 % of a core", shown, share <= 10.0)])
}

/// A module whose compiled code is kept, by a host that has never seen it.
async fn first(config: &HooksConfig) -> Result<Vec<Row>, Failure> {
    let (other, wasm) = (module::says(1, "another"), module::says(0, "all is well"));
    let call = call(&wasm, Duration::from_secs(5))?;
    Hooks::new(config.clone()).admit(&wasm).await?;
    let mut took = Vec::new();
    for _ in 0..FIRST {
        let hooks = Hooks::new(config.clone());
        hooks.admit(&other).await?;
        let begun = Instant::now();
        hooks.call(&call, &Nothing(&wasm)).await;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let took = Sample::new(took);
    let p50 = took.percentile(50);
    Ok(vec![Row::new("first call of a module that was compiled before", "<= 2 ms", took.words("ms"), p50 <= 2.0)])
}

/// Some hundred bytes that a compiler would make gigabytes of.
async fn bombs(config: &HooksConfig) -> Result<Vec<Row>, Failure> {
    let mut nested = "(component $c0 (core module $m (func (export \"f\"))) (core instance (instantiate $m)))".to_owned();
    for level in 1..=6 {
        let below = format!("(instance (instantiate $c{}))", level - 1).repeat(10);
        nested.push_str(&format!("(component $c{level} {below})"));
    }
    let bomb = module::text(&format!("(component {nested} (instance (instantiate $c6)))"));
    let cache: PathBuf = config.cache.with_file_name("bombs");
    let hooks = Hooks::new(HooksConfig { cache, ..config.clone() });
    hooks.admit(&module::says(0, "fine")).await?;
    let pids = [hooks.host_pid().ok_or("no hook host")?, std::process::id()];
    let rss = || pids.iter().map(|pid| rss_kib(*pid)).sum::<f64>();
    let (before, begun) = (rss(), Instant::now());
    let why = hooks.admit(&bomb).await.err().ok_or("a bomb was taken")?;
    let took = begun.elapsed().as_secs_f64();
    let grown = (rss() - before) * 1024.0 / 1e6;
    let shown = format!("{took:.1} s, +{grown:.1} MB: {}", why.to_string().chars().take(40).collect::<String>());
    Ok(vec![Row::new(
        format!("a bomb of {} bytes refused", bomb.len()),
        "<= 10 s, <= 10 MB over rest",
        shown,
        took <= 10.0 && grown <= 10.0,
    )])
}
