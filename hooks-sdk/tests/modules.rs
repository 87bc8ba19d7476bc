//! Modules as their authors build them: the examples, with an ordinary `cargo build`. A module exports the hooks that it declares,
//! and imports what it calls, to the function: whatever else it imported would have to be granted.

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Skipped, need};
use wit_component::DecodedWasm;
use wit_parser::{Resolve, WorldItem, WorldKey};

/// A line that `rustc` prints.
fn rustc(arguments: &[&str]) -> PathBuf {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(arguments).output().expect("rustc runs");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Builds an example's modules and gives the folder that they are in. `for_target` is what the example's own settings say.
fn build(example: &str, for_target: &str) -> Result<PathBuf, Skipped> {
    let library = rustc(&["--print", "target-libdir", "--target", for_target]);
    need(library.is_dir(), &format!("the Rust target {for_target} is not installed"))?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/hooks").join(example);
    // One for all that is built in tests, so that what they have in common is compiled once.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("modules");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--locked", "--quiet"]).current_dir(folder).env("CARGO_TARGET_DIR", &target);
    // Flags for this machine are none for a module.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_BUILD_TARGET");
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(target.join(for_target).join("release"))
}

/// An interface of ours with each of its functions: `log#log`; one of somebody else is shown whole.
fn functions<'a>(resolve: &Resolve, items: impl Iterator<Item = (&'a WorldKey, &'a WorldItem)>) -> Vec<String> {
    let mut out = Vec::new();
    for (key, item) in items {
        let name = resolve.name_world_key(key);
        let ours = name.strip_prefix("tagfall:hooks/").and_then(|rest| rest.strip_suffix("@0.1.0"));
        let WorldItem::Interface { id, .. } = item else { panic!("`{name}` is no interface") };
        let functions = resolve.interfaces[*id].functions.keys();
        out.extend(functions.map(|function| format!("{}#{function}", ours.unwrap_or(&name))));
    }
    out.sort();
    out
}

/// What a module exports, and what it imports.
fn edges(module: &Path) -> (Vec<String>, Vec<String>) {
    let bytes = std::fs::read(module).unwrap_or_else(|error| panic!("{}: {error}", module.display()));
    let decoded = wit_component::decode(&bytes).unwrap_or_else(|error| panic!("{}: {error:#}", module.display()));
    let DecodedWasm::Component(resolve, world) = decoded else { panic!("{} is no component", module.display()) };
    let world = &resolve.worlds[world];
    (functions(&resolve, world.exports.iter()), functions(&resolve, world.imports.iter()))
}

#[test]
fn modules_have_the_hooks_that_they_declare_and_import_what_they_call() {
    let Ok(folder) = build("rust", "wasm32-unknown-unknown") else { return };
    for (module, exports, imports) in [
        ("health", vec!["health-check#check"], vec!["log#log", "probe#http"]),
        ("init", vec!["init#run"], vec!["exec#run", "log#log"]),
        ("decide", vec!["reconfigure#run", "suitability#rank"], vec!["census#me", "config#get", "log#log"]),
    ] {
        let (exported, imported) = edges(&folder.join(module).with_extension("wasm"));
        assert_eq!(exported, exports, "{module} exports");
        assert_eq!(imported, imports, "{module} imports");
    }
}

#[test]
fn a_command_needs_nothing_of_this_crate() {
    let Ok(folder) = build("rust-command", "wasm32-wasip1") else { return };
    let bytes = std::fs::read(folder.join("file-age.wasm")).unwrap();
    assert!(bytes.starts_with(b"\0asm\x01\0\0\0"), "a command is a plain module, and no component");
}
