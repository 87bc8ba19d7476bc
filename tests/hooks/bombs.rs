//! Modules that mean harm before they run: to the compiler, to the linker, to whoever looks at them.

use std::time::{Duration, Instant};

use common::module;
use tagfall::hooks::NotAdmitted;

use super::stage::*;

/// By when a bomb is refused, on a machine that does other things as well.
const REFUSED_MAX: Duration = Duration::from_secs(60);

fn leb(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        if number == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len()), content].concat()
}

/// A core module of so many functions with the same body.
fn functions(count: usize, body: &[u8]) -> Vec<u8> {
    let body = [&leb(body.len()), body].concat();
    let types = section(1, &[1, 0x60, 0, 0]);
    let declared = section(3, &[leb(count), vec![0; count]].concat());
    let code = section(10, &[leb(count), body.repeat(count)].concat());
    [b"\0asm\x01\0\0\0".to_vec(), types, declared, code].concat()
}

/// The largest that this process ever was, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[tokio::test]
async fn bombs_for_the_compiler_cost_only_the_compiler() {
    // Instances of instances of instances: a million of them in some hundred bytes.
    let mut nested = "(component $c0 (core module $m (func (export \"f\"))) (core instance (instantiate $m)))".to_owned();
    for level in 1..=6 {
        let below = format!("(instance (instantiate $c{}))", level - 1).repeat(10);
        nested.push_str(&format!("(component $c{level} {below})"));
    }
    let nested = common::module::text(&format!("(component {nested} (instance (instantiate $c6)))"));
    let deep = [&[0][..], &[0x02, 0x40].repeat(200_000), &[0x0b].repeat(200_001)].concat();
    let locals = [&[1][..], &leb(50_000), &[0x7b, 0x0b]].concat();
    // So many additions of what was just computed that each is needed until the end.
    let live = [&[0][..], &[0x41, 1].repeat(200_000), &[0x6a].repeat(199_999), &[0x1a, 0x0b]].concat();
    let bombs = [
        ("nested instances", nested),
        ("a million functions", functions(1_000_000, &[0, 0x0b])),
        ("functions of huge locals", functions(2_000, &locals)),
        ("deep nesting", functions(1, &deep)),
        ("everything live", functions(40, &live)),
    ];
    let stage = Stage::new();
    // The host first, whose start is not what is measured.
    stage.admit(&module::says(0, "fine")).await.unwrap();
    let pid = stage.hooks.host_pid();
    for (what, wasm) in bombs {
        let (begun, before) = (Instant::now(), peak_mib());
        let why = stage.refused(&wasm).await;
        let (took, grown) = (begun.elapsed(), peak_mib() - before);
        assert!(took < REFUSED_MAX, "{what}: {took:?}");
        assert!(grown < 64, "{what}: this process grew by {grown} MiB");
        // The second time nothing is compiled.
        let again = Instant::now();
        assert_eq!(stage.refused(&wasm).await, why, "{what}");
        assert!(again.elapsed() < took.max(Duration::from_secs(1)), "{what}");
        assert_eq!(stage.hooks.host_pid(), pid, "{what}: {why}");
    }
}

#[tokio::test]
async fn a_module_of_a_hundred_megabytes_is_refused_for_its_size() {
    let stage = Stage::new();
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    wasm.resize(100 << 20, 0);
    assert_eq!(stage.refused(&wasm).await, "it has 100 MiB, and a module may have 64");
}

#[tokio::test]
async fn what_is_no_module_is_refused_in_words() {
    let stage = Stage::new();
    let good = module::says(0, "fine");
    assert!(stage.refused(b"").await.contains("not WebAssembly"));
    assert!(stage.refused(b"#!/bin/sh\nexit 0\n").await.contains("not WebAssembly"));
    for cut in [4, 8, 9, good.len() / 4, good.len() / 2, good.len() - 1] {
        let why = stage.refused(&good[..cut]).await;
        assert!(!why.is_empty() && why.len() < 1000, "{cut}: {why}");
    }
    // A bit flipped here and there: refused, or harmless.
    for at in (8..good.len()).step_by(good.len() / 12) {
        let mut flipped = good.clone();
        flipped[at] ^= 0x11;
        match stage.admit(&flipped).await {
            Ok(_) | Err(NotAdmitted::Refused(_)) => {}
            Err(NotAdmitted::Failed(why)) => panic!("byte {at}: {why}"),
        }
    }
}

#[tokio::test]
async fn imports_that_are_not_there_and_wrong_types_are_named() {
    let stage = Stage::new();
    let refused = async |text: &str| stage.refused(&common::module::text(text)).await;
    for (name, text) in [
        ("evil:thing/x@1.0.0", "(component (import \"evil:thing/x@1.0.0\" (instance (export \"f\" (func)))))"),
        (
            "tagfall:hooks/telepathy@0.1.0",
            "(component (import \"tagfall:hooks/telepathy@0.1.0\" (instance (export \"f\" (func)))))",
        ),
        ("env#system", "(module (import \"env\" \"system\" (func)) (memory (export \"memory\") 1) (func (export \"_start\")))"),
    ] {
        let why = refused(text).await;
        assert!(why.contains(name) && why.contains("not there"), "{why}");
    }
    let why = refused("(component (import \"tagfall:hooks/log@0.1.0\" (instance (export \"shout\" (func)))))").await;
    assert!(why.contains("does not link") && why.contains("shout"), "{why}");
    let wrong = "(component (core module $m (func (export \"check\") (result i32) (i32.const 1)))
        (core instance $i (instantiate $m)) (func $f (result u32) (canon lift (core func $i \"check\")))
        (instance $h (export \"check\" (func $f))) (export \"tagfall:hooks/health-check@0.1.0\" (instance $h)))";
    let why = refused(wrong).await;
    assert!(why.contains("type"), "{why}");
    let why = refused("(module (func (export \"_start\")))").await;
    assert!(why.contains("does not export its memory"), "{why}");
    // One that breaks off before it has begun.
    let why =
        refused("(component (core module $m (func $boom (unreachable)) (start $boom)) (core instance (instantiate $m)))").await;
    assert!(why.contains("unreachable"), "{why}");
    // Nothing that is named by a module is shown as it stands.
    let why = refused("(component (import \"a:b/c\" (instance)))").await;
    assert!(why.contains("`a:b/c`"), "{why}");
}
