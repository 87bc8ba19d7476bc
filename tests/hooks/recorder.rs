//! A command that can be any hook: it writes down what it was told, and answers as files beside that say.
//!
//! In the first granted folder: `calls` gets a line of JSON for each call; a hook fails while `fail-HOOK` is there and does not
//! end while `hold-HOOK` is; what is in `say-HOOK` is what it says.

use common::module;

const IMPORTS: &str = r#"
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
"#;

const CODE: &str = r#"
  (data (i32.const 512) "fail-hold-say-calls\n")
  (global $name (mut i32) (i32.const 0))
  (global $length (mut i32) (i32.const 0))
  (func $must (param $error i32) (if (local.get $error) (then (unreachable))))
  ;; Opens PREFIX + the hook's name; a descriptor, or -1.
  (func $beside (param $prefix i32) (param $size i32) (result i32)
    (memory.copy (i32.const 256) (local.get $prefix) (local.get $size))
    (memory.copy (i32.add (i32.const 256) (local.get $size)) (global.get $name) (global.get $length))
    (if (result i32)
      (call $open (i32.const 3) (i32.const 1) (i32.const 256) (i32.add (local.get $size) (global.get $length)) (i32.const 0)
        (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 48))
      (then (i32.const -1)) (else (i32.load (i32.const 48)))))
  (func $is_there (param $prefix i32) (param $size i32) (result i32) (local $fd i32)
    (local.set $fd (call $beside (local.get $prefix) (local.get $size)))
    (if (i32.eq (local.get $fd) (i32.const -1)) (then (return (i32.const 0))))
    (call $must (call $close (local.get $fd)))
    (i32.const 1))
  (func $put (param $fd i32) (param $from i32) (param $size i32)
    (i32.store (i32.const 16) (local.get $from)) (i32.store (i32.const 20) (local.get $size))
    (call $must (call $write (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 24))))
  (func $get (param $fd i32) (param $to i32) (result i32) (local $sum i32)
    (loop $more
      (i32.store (i32.const 32) (i32.add (local.get $to) (local.get $sum))) (i32.store (i32.const 36) (i32.const 4096))
      (call $must (call $read (local.get $fd) (i32.const 32) (i32.const 1) (i32.const 40)))
      (local.set $sum (i32.add (local.get $sum) (i32.load (i32.const 40))))
      (br_if $more (i32.load (i32.const 40))))
    (local.get $sum))
  (func (export "_start") (local $size i32) (local $fd i32)
    (call $must (call $args (i32.const 64) (i32.const 128)))
    (global.set $name (i32.load (i32.const 68)))
    (loop $scan
      (if (i32.load8_u (i32.add (global.get $name) (global.get $length)))
        (then (global.set $length (i32.add (global.get $length) (i32.const 1))) (br $scan))))
    ;; One line, in one write: calls of several hooks may go on at once.
    (local.set $size (call $get (i32.const 0) (i32.const 8192)))
    (i32.store8 (i32.add (i32.const 8192) (local.get $size)) (i32.const 10))
    (call $must (call $open (i32.const 3) (i32.const 1) (i32.const 526) (i32.const 5) (i32.const 1) (i64.const 64) (i64.const 0)
      (i32.const 1) (i32.const 48)))
    (local.set $fd (i32.load (i32.const 48)))
    (call $put (local.get $fd) (i32.const 8192) (i32.add (local.get $size) (i32.const 1)))
    (call $must (call $close (local.get $fd)))
    ;; Waits for 20 ms at a time: subscription at 4096, event at 4160.
    (loop $hold
      (if (call $is_there (i32.const 517) (i32.const 5))
        (then
          (memory.fill (i32.const 4096) (i32.const 0) (i32.const 48))
          (i32.store (i32.const 4112) (i32.const 1))
          (i64.store (i32.const 4120) (i64.const 20000000))
          (call $must (call $poll (i32.const 4096) (i32.const 4160) (i32.const 1) (i32.const 4224)))
          (br $hold))))
    (local.set $fd (call $beside (i32.const 522) (i32.const 4)))
    (if (i32.ne (local.get $fd) (i32.const -1))
      (then (call $put (i32.const 1) (i32.const 32768) (call $get (local.get $fd) (i32.const 32768)))))
    (if (call $is_there (i32.const 512) (i32.const 5)) (then (call $exit (i32.const 1)))))
"#;

/// The module.
pub(crate) fn wasm() -> Vec<u8> {
    module::command(IMPORTS, CODE)
}
