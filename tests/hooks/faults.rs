//! The hook host as it fails, and the cache under somebody's hands.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use common::module;
use tagfall::hooks::{Hooks, HooksConfig};
use tagfall::model::*;

use super::stage::*;

/// Never ends, as whatever hook it is called.
fn endless() -> Vec<u8> {
    module::command("", "(func (export \"_start\") (loop (br 0)))")
}

fn kill(pid: u32) {
    common::Supervisor::signal(u64::from(pid), "KILL");
}

#[tokio::test]
async fn a_host_that_is_killed_takes_its_calls_along_and_comes_back() {
    let stage = Stage::new();
    let (slow, good) = (endless(), module::says(0, "fine"));
    stage.admit(&slow).await.unwrap();
    stage.admit(&good).await.unwrap();
    let pid = stage.hooks.host_pid().unwrap();
    let calls = async {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (hooks, slow) = (stage.hooks.clone(), slow.clone());
            // What only asks would be asked again.
            let call = HookCall { input: HookInput::Init, ..plain(&slow) };
            calls.spawn(async move { hooks.call(&call, &Out { wasm: &slow }).await });
        }
        let mut answers = 0;
        while let Some(run) = calls.join_next().await {
            let run = run.unwrap();
            let (reason, message) = failed(&run);
            assert_eq!(reason, HookFailed::HostGone, "{message}");
            assert!(message.contains("signal: 9"), "{message}");
            answers += 1;
        }
        answers
    };
    let murder = async {
        // Once all of them are in there, which is when a good one has been answered after them.
        for _ in 0..20 {
            stage.check(&good, |_| {}).await;
        }
        kill(pid);
    };
    let begun = Instant::now();
    let (answers, ()) = tokio::join!(calls, murder);
    assert_eq!(answers, 100);
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
    assert_eq!(health(&stage.check(&good, |_| {}).await), (HealthStatus::Ok, "fine"));
    assert_ne!(stage.hooks.host_pid(), Some(pid));
}

#[tokio::test]
async fn a_host_that_is_killed_again_and_again_is_started_again_and_again() {
    let stage = Stage::new();
    let good = module::says(0, "fine");
    for _ in 0..6 {
        assert_eq!(health(&stage.check(&good, |_| {}).await), (HealthStatus::Ok, "fine"));
        kill(stage.hooks.host_pid().unwrap());
    }
    let run = stage.check(&good, |_| {}).await;
    // It may have died with the call, or come back for it.
    assert!(matches!(&run.answer, HookAnswer::Health { .. }) || failed(&run).0 == HookFailed::HostGone);
}

#[tokio::test]
async fn a_host_that_hangs_is_ended() {
    let stage = Stage::new();
    let good = module::says(0, "fine");
    stage.admit(&good).await.unwrap();
    let pid = stage.hooks.host_pid().unwrap();
    common::Supervisor::signal(u64::from(pid), "STOP");
    let run = stage.check(&good, |call| call.timeout = Duration::from_millis(100)).await;
    assert_eq!(failed(&run).0, HookFailed::HostGone);
    assert_eq!(health(&stage.check(&good, |_| {}).await), (HealthStatus::Ok, "fine"));
    assert_ne!(stage.hooks.host_pid(), Some(pid));
}

#[tokio::test]
async fn poisoned_code_is_not_run_but_compiled_anew() {
    let stage = Stage::new();
    let good = module::says(0, "fine");
    stage.admit(&good).await.unwrap();
    let folder = stage.folder.path().join("cache");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let code = || {
        let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "cwasm")).unwrap()
    };
    let whole = fs::read(code()).unwrap();
    for at in [whole.len() / 2, whole.len() - 1, 0] {
        let mut poisoned = whole.clone();
        poisoned[at] ^= 1;
        fs::remove_file(code()).unwrap();
        fs::write(code_path(&folder, &good), &poisoned).unwrap();
        // A supervisor that was started anew.
        let config = HooksConfig { program: env!("CARGO_BIN_EXE_tagfall").into(), cache: folder.clone() };
        let hooks = Hooks::new(config);
        let run = hooks.call(&plain(&good), &Out { wasm: &good }).await;
        assert_eq!(health(&run), (HealthStatus::Ok, "fine"));
        assert_eq!(fs::read(code()).unwrap(), whole, "byte {at}");
    }
}

/// Where the record says that the code is.
fn code_path(folder: &std::path::Path, wasm: &[u8]) -> std::path::PathBuf {
    let module = Digest::of(wasm).to_string();
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let record = files
        .into_iter()
        .find(|path| path.extension().is_some_and(|ending| ending == "json") && path.to_string_lossy().contains(&module));
    record.unwrap().with_extension("cwasm")
}

#[tokio::test]
async fn a_thousand_checks_a_second_are_answered() {
    let stage = Stage::new();
    let good = module::says(0, "fine");
    stage.admit(&good).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..3_000_u32 {
        let (hooks, good) = (stage.hooks.clone(), good.clone());
        calls.spawn(async move {
            // Three rounds of a thousand, each spread over its second.
            common_pause(number).await;
            hooks.call(&plain(&good), &Out { wasm: &good }).await
        });
    }
    let mut answered = 0;
    while let Some(run) = calls.join_next().await {
        assert_eq!(health(&run.unwrap()), (HealthStatus::Ok, "fine"));
        answered += 1;
    }
    assert_eq!(answered, 3_000);
}

#[tokio::test]
async fn the_host_is_shut_in() {
    let stage = Stage::new();
    stage.admit(&module::says(0, "fine")).await.unwrap();
    let pid = stage.hooks.host_pid().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("CapEff:"), "0000000000000000");
    assert_eq!(field("CapPrm:"), "0000000000000000");
    let is_root = fs::read_to_string("/proc/self/status").unwrap().contains("Uid:\t0");
    if is_root {
        assert!(field("Uid:").starts_with("65534"), "{}", field("Uid:"));
    }
    assert!(fs::read(format!("/proc/{pid}/environ")).unwrap().is_empty());
}

/// A point of the schedule: one call each millisecond.
async fn common_pause(number: u32) {
    let at = tokio::time::Instant::now() + Duration::from_millis(u64::from(number));
    tokio::time::sleep_until(at).await;
}
