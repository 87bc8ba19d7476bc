//! Modules under a real supervisor: pushed, admitted, called, refused.

use common::{LONG, Repo, Supervisor, Tagfall, module, wait_for};
use serde_json::Value;

fn group(module: &str, allow: &str) -> String {
    format!(
        "format = 1\n[placement]\nlabels = {{}}\n[service]\nexec = [\"sleep\", \"1000\"]\n\
         [hooks.health-check]\nmodule = \"hooks/{module}\"\ninterval = \"100ms\"\n{allow}\n"
    )
}

fn write(repo: &Repo, path: &str, bytes: &[u8]) {
    let file = repo.clone_dir().join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, bytes).unwrap();
}

fn wait_status(supervisor: &Supervisor, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, LONG, || {
        let output = supervisor.client(&["status", "-o", "json"]);
        let status: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        if holds(&status) { Ok(status) } else { Err(format!("{status:#}\n{}", supervisor.log())) }
    })
}

#[test]
fn a_module_decides_whether_a_service_is_healthy() {
    let folder = common::temp_dir();
    let repo = Repo::new(folder.path());
    write(&repo, "groups/web/hooks/health.wasm", &module::says(0, "said by a module"));
    repo.write("groups/web/group.toml", &group("health.wasm", "")).release("v1.0.0");
    let tagfall = Tagfall::new(env!("CARGO_BIN_EXE_tagfall"));
    let supervisor = Supervisor::start(&tagfall, folder.path(), repo.bare(), "{}");
    let healthy = |status: &Value| {
        let health = &status["groups"][0]["health"];
        health["status"] == "ok" && health["message"] == "said by a module"
    };
    let status = wait_status(&supervisor, "the module's answer is shown", healthy);
    let service = status["groups"][0]["service"]["pid"].as_u64().unwrap();

    // The host dies: a service does not notice, and checks go on.
    let host = wait_status(&supervisor, "the host is shown", |status| status["supervisor"]["hook_host_pid"].is_u64());
    let host = host["supervisor"]["hook_host_pid"].as_u64().unwrap();
    Supervisor::signal(host, "KILL");
    let status = wait_status(&supervisor, "another host answers", |status| {
        let other = &status["supervisor"]["hook_host_pid"];
        other.is_u64() && *other != host && healthy(status)
    });
    assert_eq!(status["groups"][0]["service"]["pid"], service);

    // Modules that cannot be taken refuse their release by name; what runs goes on.
    for (tag, file, bytes, words) in [
        ("v1.1.0", "broken.wasm", b"no module".to_vec(), "not WebAssembly"),
        ("v1.2.0", "other.wasm", init_only(), "does not export `tagfall:hooks/health-check@0.1.0`"),
        ("v1.3.0", "wants.wasm", wants_files(), "would need  allow = { read = [\"/PATH\"] }"),
        ("v1.3.1", "probed.wasm", module::says(0, "fine"), "would never see the answers to the `probes`"),
    ] {
        let probes = if file == "probed.wasm" { "probes = { web = { url = \"http://127.0.0.1/\" } }" } else { "" };
        write(&repo, &format!("groups/web/hooks/{file}"), &bytes);
        repo.write("groups/web/group.toml", &group(file, probes)).release(tag);
        let status = wait_status(&supervisor, "the release is refused", |status| {
            let refused = status["refused"].as_array().into_iter().flatten();
            refused.into_iter().any(|refused| refused["tag"] == tag)
        });
        let refused = status["refused"].as_array().unwrap().iter().find(|refused| refused["tag"] == tag).unwrap();
        assert_eq!(refused["reason"], "InvalidHook", "{refused}");
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains("web.default: hook `health-check`") && message.contains(words), "{message}");
        assert_eq!(status["release"]["tag"], "v1.0.0");
        assert_eq!(status["groups"][0]["service"]["pid"], service);
    }

    // One that says no, with its grant.
    write(&repo, "groups/web/hooks/critical.wasm", &module::says(2, "the module says no"));
    repo.write("groups/web/group.toml", &group("critical.wasm", "failures = 1")).release("v1.4.0");
    wait_status(&supervisor, "the module's no is shown", |status| {
        let health = &status["groups"][0]["health"];
        health["status"] == "critical" && health["message"] == "the module says no"
    });
}

fn init_only() -> Vec<u8> {
    let code = "(func (export \"tagfall:hooks/init@0.1.0#run\") (param i32) (result i32) (i32.const 512))";
    module::component("export init;", "", code)
}

fn wants_files() -> Vec<u8> {
    let read = "(import \"tagfall:hooks/files@0.1.0\" \"read\" (func $read (param i32 i32 i32)))";
    module::health(read, "", "(call $read (i32.const 0) (i32.const 0) (i32.const 800)) (call $tell (i32.const 800))")
}
