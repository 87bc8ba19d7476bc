//! What crosses the boundary, at random: whatever a guest hands over, it gets an error or is ended, and the host goes on.

use std::fmt::Write as _;
use std::time::Duration;

use common::module;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tagfall::hooks::HookRun;
use tagfall::model::{HookAnswer, HookCall, HookFailed};

use super::stage::*;

const CASES: u32 = 192;
/// Calls that one command makes.
const RECORDS: usize = 24;
/// Numbers of a record: which call, and the most arguments that one takes.
const WORDS: usize = 10;
/// A call that waits is given up soon.
const SHORT: Duration = Duration::from_millis(100);

/// Turns text into the bytes that it stands for, so that one compiled module serves all cases.
const DECODE: &str = "
  (func $digit (param $c i32) (result i32)
    (i32.sub (local.get $c) (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $c) (i32.const 58)))))
  (func $decode (param $from i32) (param $count i32) (param $to i32)
    (block $done (loop $more
      (br_if $done (i32.eqz (local.get $count)))
      (i32.store8 (local.get $to) (i32.or
        (i32.shl (call $digit (i32.load8_u (local.get $from))) (i32.const 4))
        (call $digit (i32.load8_u offset=1 (local.get $from)))))
      (local.set $from (i32.add (local.get $from) (i32.const 2)))
      (local.set $to (i32.add (local.get $to) (i32.const 1)))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br $more))))";

/// Calls of preview 1 with their arguments: `i` is an `i32`, `I` an `i64`.
const WASI: &[(&str, &str)] = &[
    ("args_sizes_get", "ii"),
    ("args_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("environ_get", "ii"),
    ("clock_res_get", "ii"),
    ("clock_time_get", "iIi"),
    ("random_get", "ii"),
    ("sched_yield", ""),
    ("poll_oneoff", "iiii"),
    ("proc_raise", "i"),
    ("fd_close", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_prestat_get", "ii"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_renumber", "ii"),
    ("fd_read", "iiii"),
    ("fd_pread", "iiiIi"),
    ("fd_write", "iiii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_seek", "iIii"),
    ("fd_tell", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_sync", "i"),
    ("fd_datasync", "i"),
    ("fd_advise", "iIIi"),
    ("fd_readdir", "iiiIi"),
    ("fd_allocate", "iII"),
    ("fd_filestat_set_times", "iIIi"),
    ("path_open", "iiiiiIIii"),
    ("path_filestat_get", "iiiii"),
    ("path_create_directory", "iii"),
    ("path_remove_directory", "iii"),
    ("path_unlink_file", "iii"),
    ("path_rename", "iiiiii"),
    ("path_link", "iiiiiii"),
    ("path_symlink", "iiiii"),
    ("path_readlink", "iiiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// Interfaces of our own with their functions; all arguments are `i32`.
const OURS: &[(&str, &str, usize)] = &[
    ("log", "log", 5),
    ("config", "get", 3),
    ("census", "members", 3),
    ("files", "read", 3),
    ("files", "list-dir", 3),
    ("files", "write", 5),
    ("files", "remove", 3),
    ("exec", "run", 4),
    ("probe", "http", 11),
    ("probe", "tcp", 8),
    ("probe", "unix", 7),
];

/// Where a number would do harm: small, near the beginning and the end of memory, of a text, or anything.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0_u32..10,
        2 => 500_u32..600,
        3 => 1024_u32..1040,
        1 => 262_130_u32..262_150,
        1 => 0x7fff_fff0_u32..0x8000_0010,
        1 => 0xffff_fff0_u32..=0xffff_ffff,
        1 => any::<u32>(),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A command that makes the calls that its variable `X` tells.
fn caller() -> Vec<u8> {
    let (mut imports, mut calls) = (String::new(), String::new());
    for (at, (name, arguments)) in WASI.iter().enumerate() {
        let types: Vec<&str> = arguments.chars().map(|kind| if kind == 'I' { "i64" } else { "i32" }).collect();
        let _ = write!(
            imports,
            "(import \"wasi_snapshot_preview1\" {name:?} (func ${name} (param {}) (result i32)))",
            types.join(" ")
        );
        let load = |(at, kind): (usize, char)| {
            let load = format!("(i64.load offset={} (local.get $at))", 8 * (at + 1));
            if kind == 'I' { load } else { format!("(i32.wrap_i64 {load})") }
        };
        let values: Vec<String> = arguments.chars().enumerate().map(load).collect();
        let _ = writeln!(
            calls,
            "(if (i32.eq (local.get $which) (i32.const {at})) (then (drop (call ${name} {}))))",
            values.join(" ")
        );
    }
    let code = format!(
        "{DECODE} (data (i32.const 1024) \"a\\00sub/b\\00../a\\00/etc/passwd\\00\")
         (func (export \"_start\") (local $at i32) (local $left i32) (local $which i32)
           (drop (call $environ_get (i32.const 16) (i32.const 196608)))
           (call $decode (i32.const 196610) (i32.const {}) (i32.const 131072))
           (local.set $at (i32.const 131072)) (local.set $left (i32.const {RECORDS}))
           (loop $more
             (local.set $which (i32.wrap_i64 (i64.load (local.get $at))))
             {calls}
             ;; What follows finds pointers in memory, too.
             (i64.store (i32.and (i32.wrap_i64 (i64.load offset=72 (local.get $at))) (i32.const 2047))
               (i64.load offset=64 (local.get $at)))
             (local.set $at (i32.add (local.get $at) (i32.const {})))
             (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))",
        RECORDS * WORDS * 8,
        WORDS * 8,
    );
    module::command(&imports, &code)
}

#[track_caller]
fn goes_on(run: &HookRun) {
    if let HookAnswer::Failed(failure) = &run.answer {
        let ended = matches!(failure.reason, HookFailed::HostGone | HookFailed::Invalid);
        assert!(!ended, "the host did not go on: {failure:?}");
    }
}

/// Calls one module with what `case` makes of each case, in one host that outlives them all.
fn fuzz<S: Strategy>(wasm: &[u8], strategy: &S, case: impl Fn(&mut HookCall, S::Value)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (stage, before) = runtime.block_on(async {
        let stage = Stage::new();
        stage.admit(wasm).await.unwrap();
        let before = stage.hooks.host_pid();
        (stage, before)
    });
    let top = stage.folder.path().join("top").display().to_string();
    std::fs::create_dir_all(format!("{top}/sub")).unwrap();
    std::fs::write(format!("{top}/a"), "content").unwrap();
    let asked = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(CASES) });
    let done = runner.run(strategy, |value| {
        let run = runtime.block_on(stage.check(wasm, |call| {
            call.timeout = SHORT;
            call.grants = grants(&["127.0.0.1:1"], &[], &[&top], &["fail"]);
            case(call, value);
        }));
        goes_on(&run);
        asked.set(asked.get() + run.seen.len());
        Ok(())
    });
    done.unwrap_or_else(|error| panic!("{error}"));
    assert!(asked.get() > 10, "what was handed over hardly ever came further than to the host: {} questions", asked.get());
    assert_eq!(runtime.block_on(async { stage.hooks.host_pid() }), before);
}

#[test]
fn whatever_a_command_hands_to_wasi_the_host_goes_on() {
    let which = 0..WASI.len();
    let wide = || prop_oneof![6 => number().prop_map(u64::from), 1 => any::<u64>()];
    let any_call = (which, prop::collection::vec(wide(), WORDS - 1));
    // Some that come further: a name below the folder that was granted.
    let named = |name: &str| WASI.iter().position(|(own, _)| *own == name).unwrap();
    let looks = prop::sample::select(vec![named("path_open"), named("path_filestat_get")]);
    let changes = ["path_create_directory", "path_remove_directory", "path_unlink_file", "path_rename"].map(named);
    let name = || (3_u64..5, prop::sample::select(vec![1024_u64, 1026, 1032, 1036]), 1_u64..6);
    let look =
        (looks, name(), prop::collection::vec(wide(), WORDS - 1)).prop_map(|(which, (folder, from, length), mut words)| {
            words[..4].copy_from_slice(&[folder, 0, from, length]);
            (which, words)
        });
    let change = (prop::sample::select(changes.to_vec()), name(), name(), prop::collection::vec(wide(), WORDS - 1));
    let change = change.prop_map(|(which, from, to, mut words)| {
        words[..6].copy_from_slice(&[from.0, from.1, from.2, to.0, to.1, to.2]);
        (which, words)
    });
    let record = prop_oneof![6 => any_call, 1 => look, 1 => change];
    let records = prop::collection::vec(record, RECORDS);
    fuzz(&caller(), &records, |call, records| {
        let words = records.iter().flat_map(|(which, words)| std::iter::once(*which as u64).chain(words.iter().copied()));
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        call.env = std::sync::Arc::new([("X".to_owned(), hex(&bytes))]);
    });
}

#[test]
fn whatever_a_component_hands_over_or_answers_the_host_goes_on() {
    let (mut imports, mut calls) = (String::new(), String::new());
    for (at, (interface, name, count)) in OURS.iter().enumerate() {
        let types = vec!["i32"; *count].join(" ");
        let _ = write!(imports, "(import \"tagfall:hooks/{interface}@0.1.0\" {name:?} (func $f{at} (param {types})))");
        let values: Vec<String> = (0..*count).map(|word| format!("(i32.load (i32.const {}))", 131_076 + 4 * word)).collect();
        let _ = writeln!(
            calls,
            "(if (i32.eq (i32.load (i32.const 131072)) (i32.const {at})) (then (call $f{at} {})))",
            values.join(" ")
        );
    }
    // Which, eleven arguments, the pointer of the answer, and what lies where answers lie.
    let code = format!(
        "(call $decode (i32.load offset=56 (local.get $context)) (i32.const 116) (i32.const 131072))
         (memory.copy (i32.const 512) (i32.const 131124) (i32.const 64))
         {calls}
         (i32.load (i32.const 131120))"
    );
    let wasm = module::health(&imports, &format!("{DECODE} (data (i32.const 1024) \"GEThttp://127.0.0.1:1/\")"), &code);
    let which = 0..u32::try_from(OURS.len() + 4).unwrap();
    let pointer = prop_oneof![3 => Just(512_u32), 1 => number()];
    let lying = prop_oneof![3 => 0_u8..4, 1 => any::<u8>()];
    let case = (which, prop::collection::vec(number(), 11), pointer, prop::collection::vec(lying, 64));
    fuzz(&wasm, &case, |call, (which, arguments, pointer, bytes)| {
        let words = std::iter::once(which).chain(arguments).chain([pointer]);
        let whole: Vec<u8> = words.flat_map(u32::to_le_bytes).chain(bytes).collect();
        call.args_json = hex(&whole).into();
    });
}
