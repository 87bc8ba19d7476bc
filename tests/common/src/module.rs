//! Hook modules made from WebAssembly text, as a compiler of a language would make them: no toolchain is needed.
//!
//! A guest is a body of WAT between a frame that has memory, an allocator and a few functions to answer with. Those leave the
//! canonical ABI's layouts to this file: `$report` answers a check, `$tell` makes a check's answer of what an import gave back.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, UnresolvedPackageGroup};

/// What a guest is framed with: `$report status pointer length`, `$text` of a result at a pointer, and room from 1024 on.
const FRAME: &str = r#"
  (memory (export "memory") 4)
  (global $heap (mut i32) (i32.const 65536))
  (func $realloc (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32) (local $end i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
    (local.set $end (i32.add (local.get $at) (local.get $size)))
    (block $fits
      (br_if $fits (i32.le_u (local.get $end) (i32.mul (memory.size) (i32.const 65536))))
      (br_if $fits (i32.ne (i32.const -1)
        (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get $size) (i32.const 65536))))))
      (unreachable))
    (global.set $heap (local.get $end))
    (memory.copy (local.get $at) (local.get $old) (local.get $old_size))
    (local.get $at))
  ;; A check's answer, at 512: result<report, failure>.
  (func $report (param $status i32) (param $pointer i32) (param $length i32) (result i32)
    (memory.fill (i32.const 512) (i32.const 0) (i32.const 40))
    (i32.store8 (i32.const 516) (local.get $status))
    (i32.store (i32.const 520) (local.get $pointer))
    (i32.store (i32.const 524) (local.get $length))
    (i32.const 512))
  ;; What an import gave back at $result, as a check's answer: its list, or critical with the message of its error.
  (func $tell (param $result i32) (result i32)
    (if (result i32) (i32.load8_u (local.get $result))
      (then (call $report (i32.const 2) (i32.load offset=12 (local.get $result)) (i32.load offset=16 (local.get $result))))
      (else (call $report (i32.const 0) (i32.load offset=4 (local.get $result)) (i32.load offset=8 (local.get $result))))))
  ;; The same for HTTP: the body, or the message.
  (func $tell_http (param $result i32) (result i32)
    (if (result i32) (i32.load8_u (local.get $result))
      (then (call $report (i32.const 2) (i32.load offset=16 (local.get $result)) (i32.load offset=20 (local.get $result))))
      (else (call $report (i32.const 0) (i32.load offset=20 (local.get $result)) (i32.load offset=24 (local.get $result))))))
  ;; The same for a command: what it wrote, or the message.
  (func $tell_exec (param $result i32) (result i32)
    (if (result i32) (i32.load8_u (local.get $result))
      (then (call $report (i32.const 2) (i32.load offset=12 (local.get $result)) (i32.load offset=16 (local.get $result))))
      (else (call $report (i32.const 0) (i32.load offset=24 (local.get $result)) (i32.load offset=28 (local.get $result))))))
"#;

/// A component of a world that is written here: `import log; export health-check;`, with core code between the frame.
///
/// # Panics
/// Where the text is no WebAssembly, or does not fit the world: a fixture that could not be made proves nothing.
pub fn component(world: &str, imports: &str, code: &str) -> Vec<u8> {
    encode(world, &format!("(module {imports} {FRAME} {code})"))
}

/// As much of WASI as fixtures import, with interfaces that hand the resources of others on.
const WASI: [&str; 4] = [
    "package wasi:io@0.2.6;
     interface error { resource error { to-debug-string: func() -> string; } }
     interface poll { resource pollable { ready: func() -> bool; block: func(); } poll: func(on: list<borrow<pollable>>) -> list<u32>; }
     interface streams {
       use error.{error};
       use poll.{pollable};
       variant stream-error { last-operation-failed(error), closed }
       resource input-stream {
         blocking-read: func(len: u64) -> result<list<u8>, stream-error>;
         subscribe: func() -> pollable;
       }
       resource output-stream {
         blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
         splice: func(src: borrow<input-stream>, len: u64) -> result<u64, stream-error>;
       }
     }",
    "package wasi:clocks@0.2.6;
     interface monotonic-clock { use wasi:io/poll@0.2.6.{pollable}; subscribe-duration: func(when: u64) -> pollable; }",
    "package wasi:cli@0.2.6;
     interface stdin { use wasi:io/streams@0.2.6.{input-stream}; get-stdin: func() -> input-stream; }
     interface stdout { use wasi:io/streams@0.2.6.{output-stream}; get-stdout: func() -> output-stream; }
     interface terminal-output { resource terminal-output; }
     interface terminal-stdout { use terminal-output.{terminal-output}; get-terminal-stdout: func() -> option<terminal-output>; }",
    "package wasi:sockets@0.2.6;
     interface network { resource network; enum error-code { unknown, access-denied } enum ip-address-family { ipv4, ipv6 } }
     interface tcp { resource tcp-socket; }
     interface instance-network { use network.{network}; instance-network: func() -> network; }
     interface tcp-create-socket {
       use network.{error-code, ip-address-family};
       use tcp.{tcp-socket};
       create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>;
     }",
];

/// A component from a whole core module.
///
/// # Panics
/// As [`component`].
pub fn encode(world: &str, core: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/0.1.0");
    resolve.push_dir(&wit).expect("the interface is valid");
    for text in WASI {
        let package = UnresolvedPackageGroup::parse("wasi.wit", text).expect("the text of WASI is valid");
        resolve.push_group(package).expect("WASI resolves");
    }
    let qualified: Vec<String> = world
        .split(';')
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (what, name) = line.split_once(' ').expect("`import NAME` or `export NAME`");
            if name.contains(':') { format!("{what} {name};") } else { format!("{what} tagfall:hooks/{name}@0.1.0;") }
        })
        .collect();
    let text = format!("package test:hook;\nworld it {{ {} }}\n", qualified.join(" "));
    let group = UnresolvedPackageGroup::parse("test.wit", &text).expect("the test's world is valid");
    let package = resolve.push_group(group).expect("the test's world resolves");
    let world = resolve.select_world(&[package], Some("it")).expect("the test's world is there");
    let mut module = wat::parse_str(core).unwrap_or_else(|error| panic!("{error}"));
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("the module takes its world");
    let encoder = ComponentEncoder::default().validate(true).module(&module);
    encoder.and_then(|mut encoder| encoder.encode()).unwrap_or_else(|error| panic!("{error:?}"))
}

/// A health check whose body is `code`: it has `$context` and leaves a pointer as `$report` gives one.
///
/// # Panics
/// As [`component`].
pub fn health(imports: &str, more: &str, code: &str) -> Vec<u8> {
    let interfaces: Vec<&str> = ["log", "config", "census", "probe", "exec", "files", "clock"]
        .into_iter()
        .filter(|name| imports.contains(&format!("tagfall:hooks/{name}@")))
        .collect();
    let mut world: String = interfaces.iter().map(|name| format!("import {name};")).collect();
    world.push_str("export health-check;");
    let check = "(func (export \"tagfall:hooks/health-check@0.1.0#check\") (param $context i32) (result i32)";
    component(&world, imports, &format!("{more} {check} {code})"))
}

/// A health check that always says the same: 0 ok, 1 warning, 2 critical, 3 unknown.
pub fn says(status: u8, message: &str) -> Vec<u8> {
    let data = format!("(data (i32.const 1024) {message:?})");
    health("", &data, &format!("(call $report (i32.const {status}) (i32.const 1024) (i32.const {}))", message.len()))
}

/// A plain WASI command with its code.
///
/// # Panics
/// Where the text is no WebAssembly.
pub fn command(imports: &str, code: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {imports} (memory (export \"memory\") 4) {code})")).unwrap_or_else(|error| panic!("{error}"))
}

/// Any WebAssembly from its text.
///
/// # Panics
/// Where the text is none.
pub fn text(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}
