//! `tagfall check`: what is told of good and bad trees, word for word.

use std::fs;
use std::os::unix::fs::symlink;

use crate::folder::{Folder, WEB, web};

#[test]
fn a_clean_tree_is_told_in_one_line() {
    let folder = web();
    assert_eq!(folder.run(&["check"]), "exit 0\nno errors: 1 group, 2 files\n");
    assert_eq!(folder.run(&["check", "-o", "json"]), "exit 0\n[]\n");
}

#[test]
fn a_mistake_is_told_with_its_place_and_what_was_meant() {
    let folder = web();
    folder.write("groups/web/group.toml", &WEB.replace("[config]", "restart_max = 3\n[config]"));
    insta::assert_snapshot!(folder.run(&["check", "."]), @r"
    exit 1
    error: unknown key `restart_max` in [service]
      --> groups/web/group.toml:5:1
      hint: did you mean `backoff`?
    1 error. This tree would be refused whole; a running release would stay.
    ");
}

#[test]
fn every_error_of_every_group_is_told_at_once() {
    let folder = web();
    folder.write("groups/web/config/app.hbs", "a\n\n  {{cfg.prot}} {{cfg.port}}\n{{#if cfg.no}}x{{/if}}\n{{> part}}");
    folder.write("groups/web/config/part.hbs", "{{svc.me.ipp}}");
    folder.write("groups/web/config/syntax.hbs", "{{#if cfg.port}}\n{{nothere 1}}\n{{/if}}");
    let hook = "[hooks.health-check]\nmodule = \"builtin:tcp\"\nargs = { address = \"127.0.0.1:{{cfg.porto}}\" }\n";
    let binds = "[binds]\ndb = { group = \"db\" }\n";
    folder.write("groups/web/group.toml", &format!("{}{hook}{binds}", WEB.replace("{{mount.path}}/app", "x{{mount.pth}}")));
    folder.write("groups/web/rings/prod.toml", "[service]\nenv = { A = \"{{cfg.only_here}}\" }\n");
    folder.write("groups/db/group.toml", "format = 1\n[placement]\n[moutn]\n");
    folder.write("tagfall.toml", "format = 1\n\nmin_version = \"99.0.0\"\n");
    insta::assert_snapshot!(folder.run(&["check"]), @r"
    exit 1
    error: unknown key `moutn`
      --> groups/db/group.toml:3:2
      hint: did you mean `mount`?
    error: `cfg.prot` is not set
      --> groups/web/config/app.hbs:3:3
      hint: did you mean `cfg.port`?
    error: `svc.me.ipp` is not set
      --> groups/web/config/part.hbs:1:1
      hint: did you mean `svc.me.ip`?
    error: there is no helper `nothere`; did you mean `not`?
      --> groups/web/config/syntax.hbs:2:1
    error: `mount.pth` is not set
      --> groups/web/group.toml:4:23
      hint: did you mean `mount.path`?
    error: `cfg.porto` is not set
      --> groups/web/group.toml:11:31
      hint: did you mean `cfg.port`?
    error: `cfg.only_here` is not set in ring `prod`
      --> groups/web/rings/prod.toml:2:14
    error: this repository needs Tagfall 99.0.0, and this is 0.1.0
      --> tagfall.toml:3:15
      hint: check it with a newer `tagfall`; older supervisors refuse it
    note: bind `db` to db.default: this version neither waits for it nor shows its members (groups/web)
    note: without the right to mount, a service may read old and new files together while they are switched: a reload or restart follows (groups/web)
    8 errors. This tree would be refused whole; a running release would stay.
    ");
}

#[test]
fn one_ring_is_checked_with_its_own_overlay() {
    let folder = web();
    folder.write("groups/web/rings/one.toml", "[service]\nexec = [\"/bin/web\", \"{{cfg.one}}\"]\n");
    folder.write("groups/web/rings/two.toml", "[service]\nexec = [\"/bin/web\", \"{{cfg.two}}\"]\n");
    let all = folder.run(&["check"]);
    assert!(all.contains("cfg.one") && all.contains("cfg.two"), "{all}");
    let one = folder.run(&["check", "--ring", "one"]);
    assert!(one.contains("groups/web/rings/one.toml:2:22") && !one.contains("cfg.two"), "{one}");
    assert!(folder.run(&["check", "--ring", "three"]).starts_with("exit 0\n"));
}

#[test]
fn a_lenient_group_is_warned_and_not_refused() {
    let folder = web();
    folder.write("groups/web/group.toml", &WEB.replace("format = 1", "format = 1\ntemplates = \"lenient\""));
    folder.write("groups/web/config/app.hbs", "x {{cfg.none}}\n");
    insta::assert_snapshot!(folder.run(&["check"]), @r#"
    exit 0
    warning: `cfg.none` is not set
      --> groups/web/config/app.hbs:1:3
      hint: it prints nothing, because `templates` is "lenient"
    no errors, 1 warning: 1 group, 2 files
    "#);
}

#[test]
fn what_is_not_carried_out_is_noted() {
    let folder = Folder::new();
    for name in ["a", "b", "c", "d"] {
        folder.write(&format!("groups/{name}/group.toml"), "format = 1\n[placement]\n[topology]\nkind = \"leader\"\n");
    }
    insta::assert_snapshot!(folder.run(&["check"]), @r"
    exit 0
    note: topology `leader`: this version elects nobody; a supervisor alone leads (groups/a, groups/b, groups/c, 1 more)
    no errors: 4 groups, 4 files
    ");
    let json: serde_json::Value = serde_json::from_str(&folder.run(&["check", "-o", "json"])["exit 0\n".len()..]).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 4);
    assert_eq!(json[3]["severity"], "note");
    assert_eq!(json[3]["file"], "groups/d/group.toml");
}

#[test]
fn findings_have_one_form_in_json() {
    let folder = web();
    folder.write("groups/web/config/app.hbs", "\n {{cfg.prot}}\n");
    insta::assert_snapshot!(folder.run(&["check", "-o", "json"]), @r#"
    exit 1
    [
      {
        "severity": "error",
        "file": "groups/web/config/app.hbs",
        "line": 2,
        "column": 2,
        "message": "`cfg.prot` is not set",
        "hint": "did you mean `cfg.port`?"
      }
    ]
    "#);
}

#[test]
fn what_git_may_not_hold_is_an_error_and_what_is_not_there_is_not() {
    let folder = web();
    symlink("/etc/passwd", folder.path("groups/web/config/link")).unwrap();
    insta::assert_snapshot!(folder.run(&["check"]), @r"
    exit 1
    error: `groups/web/config/link` is a symbolic link; put the file itself there and tag again
      --> groups/web/config/link:1:1
    1 error. This tree would be refused whole; a running release would stay.
    ");
    insta::assert_snapshot!(folder.run(&["check", "nowhere"]), @r"
    exit 2
    --- said ---
    error: cannot read the folder `nowhere`
      caused by: there is no folder `nowhere`
    ");
    fs::create_dir(folder.path("empty")).unwrap();
    insta::assert_snapshot!(folder.run(&["check", "empty"]), @r"
    exit 2
    --- said ---
    error: `empty` has neither a folder `groups` nor a file `tagfall.toml`
      hint: DIR names the root of a configuration repository; `tagfall init DIR` makes one
    ");
    insta::assert_snapshot!(folder.run(&["check", "--tag", "v1.0.0"]), @r"
    exit 2
    --- said ---
    error: cannot read `v1.0.0` of `.`
      caused by: there is no Git repository at `.`
    ");
    fs::create_dir(folder.path("empty/groups")).unwrap();
    insta::assert_snapshot!(folder.run(&["check", "empty"]), @r"
    exit 0
    warning: there is no group: a supervisor that takes this tree stops and removes all that it runs
      --> groups:1:1
      hint: each group is a folder `groups/NAME` with a `group.toml`
    no errors, 1 warning: 0 groups, 0 files
    ");
}

#[test]
fn a_tag_is_checked_as_a_supervisor_would() {
    let folder = Folder::new();
    let repo = common::Repo::new(folder.0.path());
    repo.write("groups/web/group.toml", WEB).write("groups/web/config/app.hbs", "port {{cfg.port}}\n").release("v1.0.0");
    repo.replace("groups/web/config/app.hbs", "cfg.port", "cfg.prot").release("v1.1.0");
    repo.run(&["tag", "v1.2.0"]);
    // The folder as it stands is what counts without `--tag`, committed or not.
    repo.replace("groups/web/config/app.hbs", "cfg.prot", "release.tag");
    assert!(folder.run(&["check", "config"]).starts_with("exit 0\n"));
    assert!(folder.run(&["check", "config", "--tag", "v1.0.0"]).starts_with("exit 0\n"));
    insta::assert_snapshot!(folder.run(&["check", "config", "--tag", "v1.1.0"]), @r"
    exit 1
    error: `cfg.prot` is not set
      --> groups/web/config/app.hbs:1:6
      hint: did you mean `cfg.port`?
    1 error. This tree would be refused whole; a running release would stay.
    ");
    insta::assert_snapshot!(folder.run(&["check", "config", "--tag", "v1.2.0"]), @r"
    exit 1
    error: tag `v1.2.0` points straight at a commit; a release is an annotated tag: `git tag -a` (or -s) and push it anew
      --> v1.2.0:1:1
    1 error. This tree would be refused whole; a running release would stay.
    ");
    assert!(folder.run(&["check", "config.git", "--tag", "v1.0.0"]).starts_with("exit 0\n"), "a bare repository has tags too");
}

#[test]
fn templates_of_probes_are_checked() {
    let folder = web();
    folder.write("groups/web/hooks/h.wasm", "not looked into");
    let hook = "[hooks.health-check]\nmodule = \"hooks/h.wasm\"\n[hooks.health-check.probes]\n\
                a = { url = \"http://127.0.0.1:{{cfg.porto}}/\" }\nb = { address = \"127.0.0.1:{{cfg.port}}\", send = \"{{cfg.wrod}}\" }\n";
    folder.write("groups/web/group.toml", &format!("{WEB}{hook}"));
    let told = folder.run(&["check"]);
    for words in ["`cfg.porto` is not set", "`cfg.wrod` is not set", "2 errors."] {
        assert!(told.contains(words), "{told}");
    }
}
