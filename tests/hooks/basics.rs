//! What every hook can do: answer, be told, say something, look at the clock.

use common::module;
use tagfall::hooks::{Form, Level};
use tagfall::model::*;

use super::stage::*;

#[tokio::test]
async fn a_check_says_how_a_service_is() {
    let stage = Stage::new();
    let statuses = [HealthStatus::Ok, HealthStatus::Warning, HealthStatus::Critical, HealthStatus::Unknown];
    for (number, status) in statuses.into_iter().enumerate() {
        let wasm = module::says(u8::try_from(number).unwrap(), "as it is");
        let inspected = stage.admit(&wasm).await.unwrap();
        assert_eq!((inspected.form, inspected.hooks), (Form::Component, vec![HookKind::HealthCheck]));
        let run = stage.check(&wasm, |_| {}).await;
        assert_eq!(health(&run), (status, "as it is"));
        assert!(run.memory >= 4 << 16, "{}", run.memory);
    }
}

#[tokio::test]
async fn a_hook_reads_its_configuration_and_keeps_a_log() {
    let stage = Stage::new();
    let wasm = module::health(
        "(import \"tagfall:hooks/config@0.1.0\" \"get\" (func $get (param i32 i32 i32)))
         (import \"tagfall:hooks/log@0.1.0\" \"log\" (func $log (param i32 i32 i32 i32 i32)))",
        "(data (i32.const 1024) \"/cfg/port/cfg/gone\")",
        "(call $get (i32.const 1024) (i32.const 9) (i32.const 800))
         (call $get (i32.const 1033) (i32.const 9) (i32.const 900))
         (if (i32.load8_u (i32.const 900)) (then (unreachable)))
         (call $log (i32.const 3) (i32.const 1024) (i32.const 9) (i32.const 0) (i32.const 0))
         (call $report (i32.const 0) (i32.load (i32.const 804)) (i32.load (i32.const 808)))",
    );
    let run = stage.check(&wasm, |_| {}).await;
    assert_eq!(health(&run), (HealthStatus::Ok, "8080"));
    assert_eq!(run.log.len(), 1);
    assert_eq!((run.log[0].level, run.log[0].message.as_str()), (Level::Warn, "/cfg/port"));
}

#[tokio::test]
async fn a_hook_is_told_its_context() {
    let stage = Stage::new();
    // The context's eighth field's text: `args-json` lies behind 5 texts, 2 numbers and a text.
    let wasm = module::health(
        "",
        "",
        "(call $report (i32.const 0) (i32.load offset=56 (local.get $context)) (i32.load offset=60 (local.get $context)))",
    );
    let run = stage.check(&wasm, |call| call.args_json = r#"{"url":"x"}"#.into()).await;
    assert_eq!(health(&run), (HealthStatus::Ok, r#"{"url":"x"}"#));
}

#[tokio::test]
async fn a_failure_of_its_own_is_no_trap() {
    let stage = Stage::new();
    let wasm = module::health(
        "",
        "(data (i32.const 1024) \"not-yetstill warming up\")",
        "(memory.fill (i32.const 512) (i32.const 0) (i32.const 40))
         (i32.store8 (i32.const 512) (i32.const 1))
         (i32.store (i32.const 516) (i32.const 1024)) (i32.store (i32.const 520) (i32.const 7))
         (i32.store (i32.const 524) (i32.const 1031)) (i32.store (i32.const 528) (i32.const 16))
         (i32.store8 (i32.const 532) (i32.const 1)) (i32.store (i32.const 536) (i32.const 1500))
         (i32.const 512)",
    );
    let run = stage.check(&wasm, |_| {}).await;
    let HookAnswer::Failed(failure) = &run.answer else { panic!("{:?}", run.answer) };
    assert_eq!((failure.reason, failure.message.as_str()), (HookFailed::Said, "still warming up (not-yet)"));
    assert_eq!(failure.retry_after, Some(std::time::Duration::from_millis(1500)));
    assert_eq!(run.answer.clone().into_check().status, HealthStatus::Unknown);
}

#[tokio::test]
async fn every_hook_is_found_and_called_by_its_name() {
    let stage = Stage::new();
    // One module for several hooks: each answers in the layout of its own type.
    let wasm = module::component(
        "export suitability; export reconfigure; export init; export post-stop;",
        "",
        "(func (export \"tagfall:hooks/suitability@0.1.0#rank\") (param i32) (result i32)
           (memory.fill (i32.const 512) (i32.const 0) (i32.const 40))
           (i64.store (i32.const 520) (i64.const 42)) (i32.const 512))
         (data (i32.const 1024) \"SIGHUPno such luck\")
         (func (export \"tagfall:hooks/reconfigure@0.1.0#run\") (param i32) (result i32)
           (memory.fill (i32.const 512) (i32.const 0) (i32.const 40))
           (i32.store8 (i32.const 516) (i32.const 1))
           (i32.store (i32.const 520) (i32.const 1024)) (i32.store (i32.const 524) (i32.const 6)) (i32.const 512))
         (func (export \"tagfall:hooks/init@0.1.0#run\") (param i32) (result i32)
           (memory.fill (i32.const 512) (i32.const 0) (i32.const 40)) (i32.const 512))
         (func (export \"tagfall:hooks/post-stop@0.1.0#run\") (param i32) (result i32)
           (memory.fill (i32.const 512) (i32.const 0) (i32.const 40))
           (i32.store8 (i32.const 512) (i32.const 1))
           (i32.store (i32.const 524) (i32.const 1030)) (i32.store (i32.const 528) (i32.const 12)) (i32.const 512))",
    );
    let inspected = stage.admit(&wasm).await.unwrap();
    assert_eq!(inspected.hooks, [HookKind::Init, HookKind::Reconfigure, HookKind::Suitability, HookKind::PostStop]);
    let call = async |input: HookInput| stage.check(&wasm, |call| call.input = input).await.answer;
    assert_eq!(call(HookInput::Suitability).await, HookAnswer::Rank(42));
    let outcome = |action| HookAnswer::Outcome { action, message: String::new() };
    let changed = vec!["a.conf".to_owned()];
    assert_eq!(call(HookInput::Reconfigure { changed }).await, outcome(HookAction::Signal("SIGHUP".to_owned())));
    assert_eq!(call(HookInput::Init).await, outcome(HookAction::Done));
    let ended = call(HookInput::PostStop { code: Some(1), signal: None }).await;
    assert_eq!(ended, HookAnswer::Failed(HookFailure::new(HookFailed::Said, "no such luck")));
    let missing = call(HookInput::PreStop).await;
    let why = "the module does not export `tagfall:hooks/pre-stop@0.1.0`";
    assert_eq!(missing, HookAnswer::Failed(HookFailure::new(HookFailed::Invalid, why)));
}

#[tokio::test]
async fn the_same_resource_is_reached_through_every_interface_of_wasi() {
    let stage = Stage::new();
    let imports = "
        (import \"wasi:io/poll@0.2.6\" \"[method]pollable.block\" (func $block (param i32)))
        (import \"wasi:io/poll@0.2.6\" \"[resource-drop]pollable\" (func $drop_pollable (param i32)))
        (import \"wasi:io/error@0.2.6\" \"[resource-drop]error\" (func $drop_error (param i32)))
        (import \"wasi:io/streams@0.2.6\" \"[method]input-stream.blocking-read\" (func $read (param i32 i64 i32)))
        (import \"wasi:io/streams@0.2.6\" \"[method]input-stream.subscribe\" (func $subscribe (param i32) (result i32)))
        (import \"wasi:io/streams@0.2.6\" \"[method]output-stream.blocking-write-and-flush\" (func $write (param i32 i32 i32 i32)))
        (import \"wasi:clocks/monotonic-clock@0.2.6\" \"subscribe-duration\" (func $timer (param i64) (result i32)))
        (import \"wasi:cli/stdin@0.2.6\" \"get-stdin\" (func $stdin (result i32)))
        (import \"wasi:cli/stdout@0.2.6\" \"get-stdout\" (func $stdout (result i32)))
        (import \"wasi:cli/terminal-stdout@0.2.6\" \"get-terminal-stdout\" (func $terminal (param i32)))
        (import \"wasi:sockets/tcp-create-socket@0.2.6\" \"create-tcp-socket\" (func $socket (param i32 i32)))
        (import \"wasi:sockets/instance-network@0.2.6\" \"instance-network\" (func $network (result i32)))";
    let interfaces = [
        "io/poll",
        "io/error",
        "io/streams",
        "clocks/monotonic-clock",
        "cli/stdin",
        "cli/stdout",
        "cli/terminal-stdout",
        "sockets/instance-network",
        "sockets/tcp-create-socket",
    ];
    let world: String = interfaces.iter().map(|name| format!("import wasi:{name}@0.2.6;")).collect();
    // There is no terminal, no socket and nothing to read, a stream's pollable is ready, a timer passes, and what is written is said.
    let code = "(data (i32.const 1024) \"written\\n\")
        (func (export \"tagfall:hooks/health-check@0.1.0#check\") (param $context i32) (result i32)
          (call $terminal (i32.const 800))
          (if (i32.load8_u (i32.const 800)) (then (unreachable)))
          (drop (call $network))
          (call $socket (i32.const 0) (i32.const 800))
          (if (i32.ne (i32.load8_u (i32.const 800)) (i32.const 1)) (then (unreachable)))
          (if (i32.ne (i32.load8_u (i32.const 804)) (i32.const 1)) (then (unreachable)))
          (call $read (call $stdin) (i64.const 1) (i32.const 800))
          (if (i32.ne (i32.load8_u (i32.const 804)) (i32.const 1)) (then (unreachable)))
          (call $block (call $subscribe (call $stdin)))
          (call $block (call $timer (i64.const 1000)))
          (call $write (call $stdout) (i32.const 1024) (i32.const 8) (i32.const 800))
          (if (i32.load8_u (i32.const 800)) (then (unreachable)))
          (call $report (i32.const 0) (i32.const 1024) (i32.const 7)))";
    let wasm = module::component(&format!("{world}export health-check;"), imports, code);
    stage.admit(&wasm).await.unwrap();
    let run = stage.check(&wasm, |_| {}).await;
    assert_eq!(health(&run), (HealthStatus::Ok, "written"));
    assert_eq!(run.log[0].message, "written");
}
