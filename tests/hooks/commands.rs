//! Plain WASI commands: by arguments, standard input, exit code and the last line of output.

use std::sync::Arc;

use common::module;
use tagfall::hooks::{Form, HookRun};
use tagfall::model::*;

use super::stage::*;

const EXIT: &str = "(import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))";
const WRITE: &str = "(import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))";
const READ: &str = "(import \"wasi_snapshot_preview1\" \"fd_read\" (func $read (param i32 i32 i32 i32) (result i32)))";
const OPEN: &str =
    "(import \"wasi_snapshot_preview1\" \"path_open\" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))";
const SIZES: &str = "(import \"wasi_snapshot_preview1\" \"environ_sizes_get\" (func $sizes (param i32 i32) (result i32)))";
const POLL: &str = "(import \"wasi_snapshot_preview1\" \"poll_oneoff\" (func $poll (param i32 i32 i32 i32) (result i32)))";

/// Writes `length` bytes at `from` to standard output.
const PRINT: &str = "(func $print (param $from i32) (param $length i32)
    (i32.store (i32.const 16) (local.get $from)) (i32.store (i32.const 20) (local.get $length))
    (if (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)) (then (unreachable))))";

fn says(code: u8, text: &str) -> Vec<u8> {
    let body = format!(
        "{PRINT} (data (i32.const 1024) {text:?})
         (func (export \"_start\") (call $print (i32.const 1024) (i32.const {})) (call $exit (i32.const {code})))",
        text.len()
    );
    module::command(&format!("{EXIT}{WRITE}"), &body)
}

#[tokio::test]
async fn exit_code_and_last_line_are_the_answer() {
    let stage = Stage::new();
    for (code, status) in
        [(0, HealthStatus::Ok), (1, HealthStatus::Warning), (2, HealthStatus::Critical), (3, HealthStatus::Unknown)]
    {
        let wasm = says(code, "looking\nas it is\n\n");
        let inspected = stage.admit(&wasm).await.unwrap();
        assert_eq!(inspected.form, Form::Command);
        let run = stage.check(&wasm, |_| {}).await;
        let (found, message) = health(&run);
        assert_eq!(found, status);
        assert_eq!(message, if code == 3 { "code 3: as it is" } else { "as it is" });
        assert_eq!(run.log.len(), 2);
    }
    let wasm = says(0, "signal SIGHUP\n");
    let input = HookInput::Reconfigure { changed: Vec::new() };
    let run = stage.check(&wasm, |call| call.input = input).await;
    let signal = HookAction::Signal("SIGHUP".to_owned());
    assert_eq!(run.answer, HookAnswer::Outcome { action: signal, message: "signal SIGHUP".to_owned() });
}

/// Says the first bytes of standard input.
fn echo() -> Vec<u8> {
    module::command(
        &format!("{WRITE}{READ}"),
        &format!(
            "{PRINT} (func (export \"_start\")
               (i32.store (i32.const 32) (i32.const 1024)) (i32.store (i32.const 36) (i32.const 8000))
               (if (call $read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 40)) (then (unreachable)))
               (call $print (i32.const 1024) (i32.load (i32.const 40))))"
        ),
    )
}

#[tokio::test]
async fn what_a_component_is_told_a_command_reads() {
    let stage = Stage::new();
    let wasm = echo();
    let run = stage
        .check(&wasm, |call| {
            call.input = HookInput::PostStop { code: None, signal: Some("SIGKILL".to_owned()) };
            call.args_json = format!(r#"{{"n":1,"long":"{}"}}"#, "x".repeat(512)).into();
        })
        .await;
    let HookAnswer::Outcome { message, .. } = &run.answer else { panic!("{:?}", run.answer) };
    // An answer has at most 512 bytes; the log has the whole line.
    assert_eq!(message.len(), 512);
    let told: serde_json::Value = serde_json::from_str(&run.log[0].message).unwrap();
    assert_eq!(told["hook"], "post-stop");
    assert_eq!(told["exit"]["signal"], "SIGKILL");
    assert_eq!(told["args"]["n"], 1);
    assert_eq!(told["config"]["cfg"]["port"], 8080);
    assert_eq!(told["context"]["group"], "web.default");
}

/// Opens `path` below the first granted folder and says its content, or ends with the number of the error.
fn opener(path: &str, rights: u32) -> Vec<u8> {
    module::command(
        &format!("{EXIT}{WRITE}{READ}{OPEN}"),
        &format!(
            "{PRINT} (data (i32.const 1024) {path:?})
             (func (export \"_start\") (local $error i32)
               (local.set $error (call $open (i32.const 3) (i32.const 1) (i32.const 1024) (i32.const {}) (i32.const 0)
                 (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 48)))
               (if (local.get $error) (then (call $exit (local.get $error))))
               (i32.store (i32.const 32) (i32.const 4096)) (i32.store (i32.const 36) (i32.const 8000))
               (if (call $read (i32.load (i32.const 48)) (i32.const 32) (i32.const 1) (i32.const 40)) (then (unreachable)))
               (call $print (i32.const 4096) (i32.load (i32.const 40))))",
            path.len()
        ),
    )
}

#[tokio::test]
async fn granted_folders_are_opened_and_nothing_beside_them() {
    let stage = Stage::new();
    let top = stage.folder.path().display().to_string();
    std::fs::create_dir(format!("{top}/open")).unwrap();
    std::fs::write(format!("{top}/open/a"), "content").unwrap();
    std::fs::write(format!("{top}/secret"), "secret").unwrap();
    std::os::unix::fs::symlink("/etc/shadow", format!("{top}/open/shadow")).unwrap();
    let open = format!("{top}/open");
    let run = async |wasm: &[u8], allow: Arc<Grants>| stage.check(wasm, |call| call.grants = allow).await;
    let message = |run: &HookRun| health(run).1.to_owned();
    let readable = || grants(&[], &[&open], &[], &[]);
    assert_eq!(message(&run(&opener("a", 2), readable()).await), "content");
    // ACCES for what leads out, NOTCAPABLE for an absolute path, BADF where nothing was granted.
    for (path, rights, ending) in [("shadow", 2, 2), ("../secret", 2, 2), ("/etc/shadow", 2, 76), ("a", 64, 2), ("gone", 2, 44)] {
        let found = run(&opener(path, rights), readable()).await;
        let wanted = format!("it ended with code {ending}");
        let found = message(&found);
        let hint = format!("write = [\"{open}/a\"]");
        assert!(found.starts_with(&wanted) && found.contains(&hint) == (rights == 64), "{path}: {found}");
    }
    assert_eq!(message(&run(&opener("a", 2), Arc::default()).await), "it ended with code 8");
}

#[tokio::test]
async fn the_environment_is_what_was_granted() {
    let stage = Stage::new();
    let wasm = module::command(
        &format!("{EXIT}{SIZES}"),
        "(func (export \"_start\")
           (if (call $sizes (i32.const 16) (i32.const 20)) (then (unreachable)))
           (call $exit (i32.add (i32.const 10) (i32.load (i32.const 16)))))",
    );
    let none = stage.check(&wasm, |_| {}).await;
    assert_eq!(health(&none).1, "it ended with code 10");
    let one = stage.check(&wasm, |call| call.env = Arc::new([("TZ".to_owned(), "UTC".to_owned())])).await;
    assert_eq!(health(&one).1, "it ended with code 11");
}

#[tokio::test]
async fn a_gigabyte_of_output_is_not_kept() {
    let stage = Stage::new();
    let wasm = module::command(
        WRITE,
        &format!(
            "{PRINT} (func (export \"_start\") (local $left i32)
               (memory.fill (i32.const 1024) (i32.const 120) (i32.const 200000)) (i32.store8 (i32.const 201023) (i32.const 10))
               (local.set $left (i32.const 5400))
               (loop $more (call $print (i32.const 1024) (i32.const 200000))
                 (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))"
        ),
    );
    let run = stage.check(&wasm, |_| {}).await;
    assert_eq!(health(&run).0, HealthStatus::Ok);
    let kept: usize = run.log.iter().map(|line| line.message.len()).sum();
    assert!(kept <= 32 << 10, "{kept}");
}

#[tokio::test]
async fn a_command_that_loops_or_sleeps_or_traps_is_ended() {
    let stage = Stage::new();
    let end = async |wasm: Vec<u8>| {
        let run = stage.check(&wasm, |call| call.timeout = std::time::Duration::from_millis(300)).await;
        failed(&run).0
    };
    let spin = module::command("", "(func (export \"_start\") (loop $for_ever (br $for_ever)))");
    assert_eq!(end(spin).await, HookFailed::Timeout);
    // A clock that is due in an hour.
    let sleep = module::command(
        POLL,
        "(func (export \"_start\") (i32.store (i32.const 80) (i32.const 1)) (i64.store (i32.const 88) (i64.const 3600000000000))
           (drop (call $poll (i32.const 64) (i32.const 256) (i32.const 1) (i32.const 16))))",
    );
    assert_eq!(end(sleep).await, HookFailed::Timeout);
    let trap = module::command("", "(func (export \"_start\") (unreachable))");
    assert_eq!(end(trap).await, HookFailed::Trap);
    let bomb = module::command(
        "",
        "(func (export \"_start\") (loop $more (br_if $more (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) (unreachable))",
    );
    assert_eq!(end(bomb).await, HookFailed::Memory);
    let wild = module::command(
        WRITE,
        "(func (export \"_start\") (if (i32.ne (call $write (i32.const 1) (i32.const -8) (i32.const 1) (i32.const 0)) (i32.const 21)) (then (unreachable))))",
    );
    assert_eq!(health(&stage.check(&wild, |_| {}).await).0, HealthStatus::Ok);
}
