//! `tagfall plan --repo`: a folder against what a data folder remembers.

use std::fs;

use crate::folder::{Folder, WEB, web};

#[test]
fn a_folder_is_planned_without_a_supervisor() {
    let folder = web();
    let data = format!("data_dir={}", folder.path("data").display());
    let plan = |more: &[&str]| folder.run(&[&["plan", "--repo", ".", "--set", &data][..], more].concat());
    insta::assert_snapshot!(plan(&[]), @r"
    exit 1
    web.default publish 1 file at `/etc/web`
    web.default start   `/bin/web /etc/web/app`
    no release → the folder `.`: 2 steps
    ");
    insta::assert_snapshot!(plan(&["-o", "json"]), @r#"
    exit 1
    {"from":null,"to":null,"steps":[{"group":"web.default","action":"publish","message":"1 file at `/etc/web`"},{"group":"web.default","action":"start","message":"`/bin/web /etc/web/app`"}]}
    "#);
    assert!(!folder.path("data").exists(), "planning writes nothing");
    folder.write("groups/web/group.toml", &WEB.replace("[placement]", "[placement]\nlabels = { role = \"web\" }"));
    insta::assert_snapshot!(plan(&[]), @r"
    exit 0
    no release → the folder `.`: nothing would change
    --- said ---
    not for a host without labels: 1 of 1 groups; `--config` or `--set` gives it some
    ");
    assert!(plan(&["--set", "labels={ role = \"web\" }"]).starts_with("exit 1\n"));
    folder.write(
        "supervisor.toml",
        &format!("data_dir = \"{}\"\nlabels = {{ role = \"web\" }}\n[source]\nurl = \"/x\"\n", folder.path("data").display()),
    );
    assert!(folder.run(&["plan", "--repo", ".", "--config", "supervisor.toml"]).starts_with("exit 1\n"));
    insta::assert_snapshot!(folder.run(&["plan", "--repo", ".", "--config", "none.toml"]), @r"
    exit 2
    --- said ---
    error: cannot read the supervisor's file `none.toml`
      caused by: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(folder.run(&["plan", "--set", &data]), @r"
    exit 2
    --- said ---
    error: a running supervisor has its own settings
      hint: `--config` and `--set` go with `--repo`
    ");
    folder.write("groups/web/group.toml", WEB);
    folder.write("groups/web/config/app.hbs", "{{cfg.prot}}");
    insta::assert_snapshot!(plan(&[]), @r"
    exit 2
    --- said ---
    error: cannot plan: the folder `.` would be refused
      caused by: web.default: config/app.hbs:1:1: `cfg.prot` is not set
    ");
    folder.write("groups/web/group.toml", "format = 2\n");
    insta::assert_snapshot!(plan(&[]), @r#"
    exit 2
    --- said ---
    error: cannot plan: the folder `.` would be refused
      caused by: error: [placement] is missing
      --> groups/web/group.toml:1:1
      hint: Where the group runs; empty labels mean every supervisor.
    error: `groups/web/config` has files such as `app.hbs`, and [mount] is missing
      --> groups/web/group.toml:1:1
      hint: say where they are published: [mount] path = "/etc/NAME"
    error: `format` must be 1, not 2
      --> groups/web/group.toml:1:10
    "#);
}

/// What a supervisor leaves in its data folder, as far as planning looks at it: the state, what is shown, the objects.
fn remember(folder: &Folder, repo: &common::Repo, tag: &str, object: &str, first: &serde_json::Value) {
    use tagfall::model::Timestamp;
    use tagfall::store::{Accepted, Store};
    let data = folder.path("data");
    let mut opened = Store::open(&data).unwrap();
    opened.state.accepted = Some(Accepted {
        tag: tagfall::model::TagName::new(tag),
        tag_object: object.parse().unwrap(),
        commit: repo.run(&["rev-parse", &format!("{tag}^{{commit}}")]).parse().unwrap(),
        signers: Vec::new(),
        accepted_at: Timestamp(1),
        applied_at: None,
    });
    opened.state.first_tags = serde_json::from_value(first.clone()).unwrap();
    opened.store.save(&opened.state).unwrap();
    common::copy_tree(repo.bare(), &data.join("git"));
}

#[test]
fn a_folder_is_compared_with_what_a_data_folder_remembers() {
    let folder = Folder::new();
    let repo = common::Repo::new(folder.0.path());
    let mount = folder.path("etc/web");
    let manifest = WEB.replace("/etc/web", &mount.display().to_string());
    repo.write("groups/web/group.toml", &manifest).write("groups/web/config/app.hbs", "port {{cfg.port}} of {{release.tag}}\n");
    repo.write("groups/old/group.toml", "format = 1\n[placement]\n[service]\nexec = [\"/bin/old\"]\n").commit("v1.0.0");
    let object = repo.tag_annotated("v1.0.0");
    repo.push_tags();
    let tree = tagfall::source::read_repository(repo.clone_dir(), "v1.0.0").unwrap();
    let groups = tagfall::manifest::parse_release(&tree.files, None).unwrap().groups;
    let commit = tree.commit.unwrap();
    let first = groups.iter().map(|(name, group)| {
        (name.to_string(), serde_json::json!({ "revision": group.revision, "tag": "v1.0.0", "commit": commit }))
    });
    remember(&folder, &repo, "v1.0.0", &object, &first.collect());
    let publisher = tagfall::publish::Publisher::open(&folder.path("data")).unwrap();
    let file = tagfall::render::RenderedFile { path: "app".into(), bytes: b"port 80 of v1.0.0\n".to_vec(), executable: false };
    let name = "web".parse().unwrap();
    let id = publisher.write(&name, &[file], None, false).unwrap();
    publisher.switch(&name, id, &mount.display().to_string()).unwrap();

    let data = format!("data_dir={}", folder.path("data").display());
    let plan = || folder.run(&["plan", "--repo", "config", "--set", &data]);
    insta::assert_snapshot!(plan(), @r"
    exit 0
    v1.0.0 → the folder `config`: nothing would change
    ");
    repo.replace("groups/web/config/app.hbs", "port {{", "PORT {{");
    insta::assert_snapshot!(plan(), @r"
    exit 1
    web.default publish 1 file at `HERE/etc/web`
    web.default restart its files change, and `reload_signal` is `restart`
    v1.0.0 → the folder `config`: 2 steps
    ");
    repo.replace("groups/web/group.toml", "/bin/web", "/bin/wob");
    fs::remove_dir_all(repo.clone_dir().join("groups/old")).unwrap();
    insta::assert_snapshot!(plan(), @r"
    exit 1
    old.default remove  not placed here by this release: stopped, its files taken away
    web.default publish 1 file at `HERE/etc/web`
    web.default restart what it is started with changes
    v1.0.0 → the folder `config`: 3 steps
    ");
    fs::remove_dir_all(folder.path("data/git")).unwrap();
    assert!(plan().contains("every service counts as not started yet"));
}
