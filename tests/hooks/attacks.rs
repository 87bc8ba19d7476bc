//! Modules that mean harm, while they run: each is a named failure of its own call, and of nothing else.

use std::time::{Duration, Instant};

use common::module;
use tagfall::model::*;

use super::stage::*;

/// What is left to a machine that does other things as well.
const SLACK: Duration = Duration::from_secs(5);

/// Runs a check with a short deadline and says how it failed.
async fn attack(stage: &Stage, wasm: &[u8]) -> (HookFailed, String) {
    stage.admit(wasm).await.unwrap();
    let begun = Instant::now();
    let run = stage.check(wasm, |call| call.timeout = Duration::from_millis(300)).await;
    assert!(begun.elapsed() < SLACK, "{:?}", begun.elapsed());
    let (reason, message) = failed(&run);
    (reason, message.to_owned())
}

#[tokio::test]
async fn an_endless_loop_is_ended_at_its_deadline() {
    let stage = Stage::new();
    let wasm = module::health("", "", "(loop $for_ever (br $for_ever)) (unreachable)");
    let (reason, message) = attack(&stage, &wasm).await;
    assert_eq!(reason, HookFailed::Timeout);
    assert!(message.starts_with("it had not answered after 300 ms and was ended"), "{message}");
    // The host is the same as before, and does its work.
    let pid = stage.hooks.host_pid();
    let good = module::says(0, "fine");
    assert_eq!(health(&stage.check(&good, |_| {}).await).0, HealthStatus::Ok);
    assert_eq!(stage.hooks.host_pid(), pid);
}

#[tokio::test]
async fn recursion_and_traps_name_the_function() {
    let stage = Stage::new();
    let deep = module::health(
        "",
        "(func $ever_deeper (param i32) (result i32) (call $ever_deeper (local.get 0)))",
        "(call $ever_deeper (i32.const 0))",
    );
    let (reason, message) = attack(&stage, &deep).await;
    assert_eq!(reason, HookFailed::Trap);
    assert!(message.contains("stack") && message.contains("`ever_deeper`"), "{message}");
    let trap = module::health("", "(func $helper (unreachable))", "(call $helper) (i32.const 0)");
    let (reason, message) = attack(&stage, &trap).await;
    assert_eq!(reason, HookFailed::Trap);
    assert!(message.contains("unreachable") && message.contains("`helper`"), "{message}");
    let wild = module::health("", "", "(i32.load (i32.const -4))");
    let (reason, message) = attack(&stage, &wild).await;
    assert_eq!(reason, HookFailed::Trap);
    assert!(message.contains("memory"), "{message}");
}

#[tokio::test]
async fn bombs_of_memory_and_tables_end_at_the_limit() {
    let stage = Stage::new();
    let memory =
        module::health("", "", "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) (unreachable)");
    let (reason, message) = attack(&stage, &memory).await;
    assert_eq!(reason, HookFailed::Memory);
    assert!(message.starts_with("it needs more memory than its limit of 16 MiB"), "{message}");
    let table = module::health(
        "",
        "(table $t 1 funcref)",
        "(loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 100000)) (i32.const -1)))) (unreachable)",
    );
    assert_eq!(attack(&stage, &table).await.0, HookFailed::Memory);
    // One that begins with more than it may have.
    let good = module::says(0, "fine");
    let run = stage.check(&good, |call| call.memory = 100_000).await;
    assert_eq!(failed(&run).0, HookFailed::Memory);
}

#[tokio::test]
async fn output_is_kept_within_bounds() {
    let stage = Stage::new();
    // A gibibyte, 256 KiB at a time.
    let talker = module::health(
        "(import \"tagfall:hooks/log@0.1.0\" \"log\" (func $log (param i32 i32 i32 i32 i32)))",
        "(data (i32.const 1024) \"well\")",
        "(local $left i32) (memory.fill (i32.const 1028) (i32.const 120) (i32.const 50000)) (local.set $left (i32.const 20000))
         (loop $more
           (call $log (i32.const 2) (i32.const 1028) (i32.const 50000) (i32.const 0) (i32.const 0))
           (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
         (call $report (i32.const 0) (i32.const 1024) (i32.const 4))",
    );
    stage.admit(&talker).await.unwrap();
    let run = stage.check(&talker, |_| {}).await;
    assert_eq!(health(&run), (HealthStatus::Ok, "well"));
    assert_eq!(run.log.len(), 65);
    assert!(run.log.iter().all(|line| line.message.len() <= 4096));
    assert!(run.log[64].message.contains("more was said"), "{:?}", run.log[64]);
    // More at once than may cross the boundary.
    let shouter = module::health(
        "(import \"tagfall:hooks/log@0.1.0\" \"log\" (func $log (param i32 i32 i32 i32 i32)))",
        "",
        "(drop (memory.grow (i32.const 128)))
         (call $log (i32.const 2) (i32.const 0) (i32.const 8000000) (i32.const 0) (i32.const 0)) (i32.const 0)",
    );
    assert_eq!(attack(&stage, &shouter).await.0, HookFailed::Trap);
    // An answer that no person will read to its end.
    let long = module::health(
        "",
        "",
        "(memory.fill (i32.const 1024) (i32.const 120) (i32.const 60000)) (call $report (i32.const 2) (i32.const 1024) (i32.const 60000))",
    );
    let run = stage.check(&long, |_| {}).await;
    assert_eq!(health(&run).1.len(), 512);
}

#[tokio::test]
async fn waiting_inside_the_host_ends_at_the_deadline_as_well() {
    let stage = Stage::new();
    let sleeper = module::health(
        "(import \"tagfall:hooks/clock@0.1.0\" \"sleep-ms\" (func $sleep (param i32)))",
        "",
        "(call $sleep (i32.const 3600000)) (i32.const 0)",
    );
    let (reason, message) = attack(&stage, &sleeper).await;
    assert_eq!((reason, message.as_str()), (HookFailed::Timeout, "it had not answered after 300 ms and was ended"));
}

#[tokio::test]
async fn lies_about_the_answer_are_the_liars_own() {
    let stage = Stage::new();
    for (code, what) in [
        ("(i32.const -8)", "a pointer to nowhere"),
        ("(i32.store8 (i32.const 512) (i32.const 9)) (i32.const 512)", "a case that is none"),
        ("(call $report (i32.const 7) (i32.const 1024) (i32.const 1))", "a status that is none"),
        ("(call $report (i32.const 0) (i32.const 1024) (i32.const -1))", "a text without end"),
        ("(i32.store8 (i32.const 1024) (i32.const 255)) (call $report (i32.const 0) (i32.const 1024) (i32.const 1))", "no UTF-8"),
        ("(i32.const 513)", "a crooked pointer"),
    ] {
        let wasm = module::health("", "", code);
        let (reason, message) = attack(&stage, &wasm).await;
        assert_eq!(reason, HookFailed::Trap, "{what}: {message}");
    }
}

#[tokio::test]
async fn good_calls_go_on_beside_bad_ones() {
    let stage = Stage::new();
    let spinner = module::health("", "", "(loop $for_ever (br $for_ever)) (unreachable)");
    let good = module::says(0, "fine");
    for wasm in [&spinner, &good] {
        stage.admit(wasm).await.unwrap();
    }
    let spin = stage.check(&spinner, |call| call.timeout = Duration::from_secs(3));
    let work = async {
        let begun = Instant::now();
        for _ in 0..50 {
            assert_eq!(health(&stage.check(&good, |_| {}).await).0, HealthStatus::Ok);
        }
        begun.elapsed()
    };
    let (spun, worked) = tokio::join!(spin, work);
    assert_eq!(failed(&spun).0, HookFailed::Timeout);
    assert!(worked < Duration::from_secs(3), "50 calls beside a loop took {worked:?}");
}
