//! `tagfall hook run` and `inspect`, as a person types them.

use common::{Tagfall, module};

/// A folder with a module, and a place for compiled code that is not the user's.
fn run(folder: &std::path::Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Tagfall::new(env!("CARGO_BIN_EXE_tagfall")).command(arguments);
    let output = command.current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache")).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_module_is_tried_outside_any_ring() {
    let folder = common::temp_dir();
    std::fs::write(folder.path().join("good.wasm"), module::says(0, "all well")).unwrap();
    std::fs::write(folder.path().join("bad.wasm"), module::says(2, "not well")).unwrap();
    std::fs::write(folder.path().join("text.wasm"), "#!/bin/sh\n").unwrap();
    let (code, out, talk) = run(folder.path(), &["hook", "run", "good.wasm"]);
    assert_eq!((code, out.as_str()), (Some(0), "health-check ok: all well\n"), "{talk}");
    assert!(talk.contains("took "), "{talk}");
    let (code, out, _) = run(folder.path(), &["hook", "run", "bad.wasm"]);
    assert_eq!((code, out.as_str()), (Some(1), "health-check critical: not well\n"));
    let (code, out, talk) = run(folder.path(), &["hook", "run", "text.wasm"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(talk.contains("not WebAssembly"), "{talk}");
    let (code, out, _) = run(folder.path(), &["hook", "run", "good.wasm", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(json["answer"]["Health"]["status"], "ok");
}

#[test]
fn grants_come_from_the_command_line_or_the_group() {
    let folder = common::temp_dir();
    let note = folder.path().join("note");
    std::fs::write(&note, "from the file").unwrap();
    let note = note.display().to_string();
    let read = "(import \"tagfall:hooks/files@0.1.0\" \"read\" (func $read (param i32 i32 i32)))";
    let code = format!("(call $read (i32.const 1024) (i32.const {}) (i32.const 800)) (call $tell (i32.const 800))", note.len());
    let wasm = module::health(read, &format!("(data (i32.const 1024) {note:?})"), &code);
    let group = folder.path().join("groups/web");
    std::fs::create_dir_all(group.join("hooks")).unwrap();
    std::fs::write(group.join("hooks/h.wasm"), wasm).unwrap();
    let toml = format!(
        "format = 1\n[placement]\nlabels = {{}}\n[hooks.health-check]\nmodule = \"hooks/h.wasm\"\nallow = {{ read = [{note:?}] }}\n"
    );
    std::fs::write(group.join("group.toml"), toml).unwrap();
    let module = "groups/web/hooks/h.wasm";
    let (code, out, talk) = run(folder.path(), &["hook", "run", module]);
    assert_eq!(code, Some(1));
    assert!(out.contains("allow = { read = ["), "{out}");
    assert!(talk.contains("refused  it may not read"), "{talk}");
    let (code, out, talk) = run(folder.path(), &["hook", "run", module, "--allow", &format!("read={note}")]);
    assert_eq!((code, out.as_str()), (Some(0), "health-check ok: from the file\n"), "{talk}");
    let (code, out, talk) = run(folder.path(), &["hook", "run", module, "--group", "groups/web"]);
    assert_eq!((code, out.as_str()), (Some(0), "health-check ok: from the file\n"), "{talk}");
    let (code, out, talk) = run(folder.path(), &["hook", "inspect", module]);
    assert_eq!(code, Some(0), "{talk}");
    for line in [
        "form     component",
        "hooks    health-check",
        "imports  tagfall:hooks/files@0.1.0#read",
        "may need `allow.read and write` for `files`",
    ] {
        assert!(out.contains(line), "{out}");
    }
}

#[test]
fn a_commands_probes_come_from_the_group_or_the_command_line() {
    let folder = common::temp_dir();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let group = folder.path().join("groups/web");
    std::fs::create_dir_all(group.join("hooks")).unwrap();
    std::fs::write(group.join("hooks/h.wasm"), module::command("", "(func (export \"_start\"))")).unwrap();
    std::fs::write(group.join("hooks/c.wasm"), module::says(0, "fine")).unwrap();
    let toml = |module: &str| {
        let toml = format!(
            "format = 1\n[placement]\nlabels = {{}}\n[config]\nport = {port}\n[hooks.health-check]\nmodule = \"hooks/{module}\"\n\
             probes = {{ own = {{ address = \"127.0.0.1:{{{{cfg.port}}}}\" }} }}\n"
        );
        std::fs::write(group.join("group.toml"), toml).unwrap();
    };
    toml("h.wasm");
    let asked = format!("asked    probe `own` at 127.0.0.1:{port}: done");
    let (code, _, talk) = run(folder.path(), &["hook", "run", "groups/web/hooks/h.wasm", "--group", "groups/web"]);
    assert!(code == Some(0) && talk.contains(&asked), "{talk}");
    let probe = format!("own=127.0.0.1:{port}");
    let (code, _, talk) = run(folder.path(), &["hook", "run", "groups/web/hooks/h.wasm", "--probe", &probe]);
    assert!(code == Some(0) && talk.contains(&asked), "{talk}");
    toml("c.wasm");
    let (code, _, talk) = run(folder.path(), &["hook", "run", "groups/web/hooks/c.wasm", "--group", "groups/web"]);
    assert_eq!(code, Some(1), "{talk}");
    assert!(talk.contains("it is a component, and would never see the answers to the `probes`"), "{talk}");
}
