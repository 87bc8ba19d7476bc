//! `tagfall init`: what it makes is clean, runs under a real supervisor, and is reloaded.

use std::fs;
use std::process::Child;

use crate::folder::Folder;

#[test]
fn a_new_repository_is_clean_and_says_what_to_type() {
    let folder = Folder::new();
    let mount = folder.path("etc/hello").display().to_string();
    insta::assert_snapshot!(folder.run(&["init", "ops", "--mount", &mount]), @r#"
    exit 0
    A configuration repository is in ops. Next:

      cd ops
      tagfall check .
      git add --all && git commit --message "Begin"
      git tag --sign v1.0.0 --message "The first release"
      tagfall supervise --set source.url=HERE/ops \
        --set source.verify.allowed_signers=HERE/ops/.git/tagfall/allowed_signers

    and in another terminal: tagfall status

    Tags are signed with a new key, HERE/ops/.git/tagfall/signing_key, which Git uses in this repository;
    it is not part of it. README.md says how others sign.
    "#);
    assert_eq!(folder.run(&["check", "ops"]), "exit 0\nno errors: 1 group, 3 files\n");
    insta::assert_snapshot!(folder.run(&["render", "ops/groups/hello"]), @r#"
    exit 0
    # Made from groups/hello/config/hello.toml.hbs by v0.0.0: what is edited here is put back.
    listen = "127.0.0.1:8880"
    greeting = "Hello from Tagfall"
    "#);
    assert_eq!(fs::read_to_string(folder.path("ops/.git/HEAD")).unwrap(), "ref: refs/heads/main\n");
    // The lines it says do work.
    for line in [&["add", "--all"][..], &["commit", "--quiet", "-m", "Begin"], &["tag", "--sign", "v1.0.0", "-m", "First"]] {
        assert!(common::git(&folder.path("ops")).args(line).status().unwrap().success(), "{line:?}");
    }
    assert_eq!(folder.run(&["check", "ops", "--tag", "v1.0.0"]), "exit 0\nno errors: 1 group, 3 files\n");
    // What is there is not touched.
    insta::assert_snapshot!(folder.run(&["init", "ops"]), @r"
    exit 2
    --- said ---
    error: `ops` is not empty: `tagfall.toml` is in it
      hint: name a folder that is not there yet; nothing was written
    ");
    insta::assert_snapshot!(folder.run(&["init", "other", "--mount", "/etc"]), @r"
    exit 2
    --- said ---
    error: cannot write a group that can be checked
      caused by: error: `path` in [mount] must be a folder of the group's own, below those that the whole system shares, not `/etc`
      --> groups/hello/group.toml:22:8
    ");
    assert!(!folder.path("other").exists());
}

#[test]
fn the_first_group_runs_and_is_reloaded() {
    let folder = Folder::new();
    let repo = common::Repo::new(folder.0.path());
    let mount = folder.path("etc/hello").display().to_string();
    assert!(folder.run(&["init", "config", "--mount", &mount]).starts_with("exit 0\n"));
    let port = common::free_port();
    repo.replace("groups/hello/group.toml", "127.0.0.1:8880", &format!("127.0.0.1:{port}")).release("v1.0.0");
    let tagfall = common::Tagfall::new(env!("CARGO_BIN_EXE_tagfall"));
    let mut supervisor = common::Supervisor::start(&tagfall, folder.0.path(), repo.bare(), "{}");
    let before = supervisor.wait_ready("v1.0.0");
    assert_eq!(common::http_get(port, "/").unwrap().1.lines().next(), Some("Hello from Tagfall"));
    // A folder that asks for what runs changes nothing; one that asks for more says how it would come.
    let config = folder.path("supervisor.toml").display().to_string();
    let plan = || folder.run(&["plan", "--repo", "config", "--config", &config]);
    insta::assert_snapshot!(plan(), @r"
    exit 0
    v1.0.0 → the folder `config`: nothing would change
    ");
    repo.replace("groups/hello/group.toml", "Hello from Tagfall", "Good morning");
    insta::assert_snapshot!(plan(), @r"
    exit 1
    hello.default publish 1 file at `HERE/etc/hello`
    hello.default reload  its files change: told by SIGHUP
    v1.0.0 → the folder `config`: 2 steps
    ");
    repo.release("v1.0.1");
    let after = supervisor.wait_ready("v1.0.1");
    let greets = || common::http_get(port, "/").is_ok_and(|(_, body)| body.starts_with("Good morning\n"));
    common::wait_until("the new greeting", common::SHORT, greets);
    assert_eq!(before["groups"][0]["service"]["pid"], after["groups"][0]["service"]["pid"], "it was reloaded, not restarted");
    assert_eq!(supervisor.terminate(), Some(0));
}

#[test]
fn a_fresh_git_repository_is_filled() {
    let folder = Folder::new();
    let repo = common::Repo::new(folder.0.path());
    let before = fs::read_to_string(repo.clone_dir().join(".git/config")).unwrap();
    assert!(folder.run(&["init", "config", "--mount", "/srv/hello"]).starts_with("exit 0\n"));
    // What was set stays, and what was not is set for the new key.
    let after = fs::read_to_string(repo.clone_dir().join(".git/config")).unwrap();
    assert!(after.starts_with(&before) && after.contains("format = ssh"), "{before}{after}");
    assert!(repo.clone_dir().join(".git/tagfall/signing_key").exists());
    assert!(folder.run(&["check", "config"]).starts_with("exit 0\n"));
}

/// Ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(server: &Server, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(server.0.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn the_web_server_of_the_first_group_answers_and_reads_its_file_again() {
    let folder = Folder::new();
    let port = common::free_port();
    let page = |greeting: &str| format!("listen = \"127.0.0.1:{port}\"\ngreeting = \"{greeting}\"\n");
    folder.write("page.toml", &page("one"));
    let said = fs::File::create(folder.path("said")).unwrap();
    let mut server = Server(folder.program(&["demo-web", "page.toml"]).stderr(said).spawn().unwrap());
    let get = |path: &str| common::http_get(port, path);
    let greets =
        |text: &str| get("/").is_ok_and(|(status, body)| status == 200 && body.starts_with(&format!("{text}\n(process ")));
    common::wait_until("the first page", common::SHORT, || greets("one"));
    assert_eq!(get("/healthz").unwrap(), (200, "ok\n".to_owned()));
    assert_eq!(get("/else").unwrap().0, 404);
    folder.write("page.toml", &page("two"));
    signal(&server, rustix::process::Signal::HUP);
    common::wait_until("the second page", common::SHORT, || greets("two"));
    folder.write("page.toml", "not a page");
    signal(&server, rustix::process::Signal::HUP);
    let complained = || fs::read_to_string(folder.path("said")).unwrap().contains("everything stays as it was");
    common::wait_until("it complains", common::SHORT, complained);
    assert!(greets("two"), "a broken file changes nothing");
    signal(&server, rustix::process::Signal::TERM);
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
}
