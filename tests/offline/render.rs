//! `tagfall render`: groups, files of groups, Habitat plans, lone templates.

use std::fs;
use std::os::unix::fs::symlink;

use crate::folder::{Folder, web};

const REDIS: &str = "\
# {{pkg.name}}
bind {{cfg.bind}}
port {{cfg.port}}
{{#each cfg.save as |rule| ~}}
save {{rule}}
{{/each ~}}
{{#if cfg.requirepass ~}}
requirepass {{cfg.requirepass}}
{{/if ~}}
{{~#if svc.me.follower}}
{{~#with svc.leader}}
slaveof {{ip}} {{cfg.port}}
{{~/with}}
{{~/if}}
";

fn redis() -> Folder {
    let manifest = "format = 1\n[placement]\n[topology]\nkind = \"leader\"\n[config]\nbind = \"127.0.0.1\"\nport = 6379\n\
        save = [\"900 1\", \"300 10\"]\nrequirepass = \"\"\n[mount]\npath = \"/etc/redis-x\"\n";
    Folder::with(&[("groups/redis/group.toml", manifest), ("groups/redis/config/redis.conf.hbs", REDIS)])
}

#[test]
fn a_template_is_rendered_to_the_byte() {
    let folder = redis();
    let leader = folder.program(&["render", "groups/redis/config/redis.conf.hbs"]).output().unwrap();
    assert_eq!(leader.stdout, b"# redis\nbind 127.0.0.1\nport 6379\nsave 900 1\nsave 300 10\n");
    let follower =
        r#"{"cfg": {"port": 7000}, "svc": {"me": {"follower": true}, "leader": {"ip": "10.0.0.9", "cfg": {"port": 6379}}}}"#;
    assert_eq!(
        folder.fed(&["render", "groups/redis", "--data", "-"], follower),
        "exit 0\n# redis\nbind 127.0.0.1\nport 7000\nsave 900 1\nsave 300 10\nslaveof 10.0.0.9 6379"
    );
}

#[test]
fn a_group_renders_with_its_data_and_its_ring() {
    let folder = redis();
    folder.write("groups/redis/rings/prod.toml", "[config]\nport = 6400\n");
    folder.write("over.json", r#"{"cfg": {"bind": "0.0.0.0"}}"#);
    let text = folder.run(&["render", "groups/redis", "--ring", "prod", "--data", "over.json"]);
    assert!(text.contains("bind 0.0.0.0\nport 6400\n"), "{text}");
    let mut inside = folder.program(&["render", "redis.conf.hbs"]);
    let text = folder.report(&inside.current_dir(folder.path("groups/redis/config")).output().unwrap());
    assert!(text.contains("port 6379\n"), "{text}");
}

#[test]
fn a_group_is_written_whole_or_one_file_of_it_is_named() {
    let folder = redis();
    folder.write("groups/redis/config/conf.d/extra", "{{not a template}}");
    insta::assert_snapshot!(folder.run(&["render", "groups/redis"]), @r"
    exit 2
    --- said ---
    error: this group has 2 files, and standard output takes one
      hint: `-o DIR` writes them into a folder; or name one of them
    ");
    insta::assert_snapshot!(folder.run(&["render", "groups/redis/config/conf.d/extra"]), @r"
    exit 0
    {{not a template}}
    ");
    insta::assert_snapshot!(folder.run(&["render", "groups/redis", "-o", "out/new"]), @r"
    exit 0
    --- said ---
    2 files written into `out/new`
    ");
    assert_eq!(fs::read_to_string(folder.path("out/new/conf.d/extra")).unwrap(), "{{not a template}}");
    folder.write("precious", "kept");
    fs::remove_file(folder.path("out/new/redis.conf")).unwrap();
    symlink(folder.path("precious"), folder.path("out/new/redis.conf")).unwrap();
    insta::assert_snapshot!(folder.run(&["render", "groups/redis", "-o", "out/new"]), @r"
    exit 1
    --- said ---
    error: cannot write `out/new/redis.conf`
      caused by: `out/new/redis.conf` is a symbolic link: remove it, or name another folder
    ");
    assert_eq!(fs::read_to_string(folder.path("precious")).unwrap(), "kept");
}

#[test]
fn what_cannot_be_rendered_is_told_with_its_place() {
    let folder = redis();
    folder.write("groups/redis/config/redis.conf.hbs", "ok\n {{cfg.prot}}{{> part}}");
    folder.write("groups/redis/config/part.hbs", "{{cfg.part}}");
    folder.write("groups/redis/config/other.hbs", "{{cfg.bind}}");
    insta::assert_snapshot!(folder.run(&["render", "groups/redis", "-o", "out"]), @r"
    exit 1
    --- said ---
    error: `cfg.part` is not set
      --> groups/redis/config/part.hbs:1:1
      hint: did you mean `cfg.port`?
    error: `cfg.prot` is not set
      --> groups/redis/config/redis.conf.hbs:2:2
      hint: did you mean `cfg.port`?
    ");
    insta::assert_snapshot!(folder.run(&["render", "groups/redis/config/redis.conf.hbs"]), @r"
    exit 1
    --- said ---
    error: `cfg.prot` is not set
      --> groups/redis/config/redis.conf.hbs:2:2
      hint: did you mean `cfg.port`?
    ");
    assert_eq!(folder.run(&["render", "groups/redis/config/other.hbs"]), "exit 0\n127.0.0.1", "errors of others are not its own");
    assert!(!folder.path("out").exists());
    folder.write("groups/redis/group.toml", "format = 1\n[placement]\nx = \n");
    insta::assert_snapshot!(folder.run(&["render", "groups/redis"]), @r"
    exit 1
    --- said ---
    error: invalid TOML: string values must be quoted, expected literal string
      --> groups/redis/group.toml:3:5
    ");
    insta::assert_snapshot!(folder.run(&["render", "groups"]), @r"
    exit 2
    --- said ---
    error: `groups` has no `group.toml`
      hint: name a group's folder, as `groups/web`, or one template
    ");
}

#[test]
fn a_template_that_belongs_to_no_group_has_the_given_data_alone() {
    let folder = Folder::with(&[("x.conf", "port {{cfg.port}} {{toJson cfg.list}}\n")]);
    insta::assert_snapshot!(folder.fed(&["render", "x.conf", "--data", "-"], r#"{"cfg": {"port": 1, "list": [1]}}"#), @r"
    exit 0
    port 1 [
      1
    ]
    ");
    insta::assert_snapshot!(folder.run(&["render", "x.conf"]), @r"
    exit 1
    --- said ---
    error: `cfg.port` is not set
      --> x.conf:1:6
    error: `cfg.list` is not set
      --> x.conf:1:19
    ");
    insta::assert_snapshot!(folder.fed(&["render", "x.conf", "--data", "-"], "[1]"), @r#"
    exit 2
    --- said ---
    error: the data from standard input is not a JSON object
      hint: for example {"cfg": {"port": 80}}
    "#);
    insta::assert_snapshot!(folder.fed(&["render", "x.conf", "--data", "-"], "{\n  \"a\": }"), @r"
    exit 2
    --- said ---
    error: cannot read the data from standard input
      caused by: expected value at line 2 column 8
    ");
    insta::assert_snapshot!(folder.run(&["render", "x.conf", "--ring", "a"]), @r"
    exit 2
    --- said ---
    error: `x.conf` belongs to no group, so no ring has an overlay for it
      hint: name a group's folder, or a file in its `config`
    ");
    insta::assert_snapshot!(folder.run(&["render", "nowhere"]), @r"
    exit 2
    --- said ---
    error: cannot read `nowhere`
      caused by: No such file or directory (os error 2)
    ");
}

#[test]
fn a_habitat_plan_is_rendered_as_it_lies_there() {
    let folder = Folder::with(&[
        ("redis/default.toml", "port = 6379\nunset = \"\"\n[tls]\non = false\n"),
        (
            "redis/config/redis.conf",
            "port {{cfg.port}}\n{{#if cfg.tls.on}}tls{{/if}}{{cfg.missing}}dir {{pkg.svc_config_path}}\n",
        ),
        ("redis/config/sub/other", "{{svc.service}}.{{svc.group}}\n"),
    ]);
    insta::assert_snapshot!(folder.run(&["render", "redis/config/redis.conf"]), @r"
    exit 0
    port 6379
    dir /hab/svc/redis/config
    --- said ---
    no `group.toml` here, but a `default.toml`: rendered as Habitat does, and what is missing prints nothing
    ");
    insta::assert_snapshot!(folder.run(&["render", "redis", "-o", "out"]), @r"
    exit 0
    --- said ---
    no `group.toml` here, but a `default.toml`: rendered as Habitat does, and what is missing prints nothing
    2 files written into `out`
    ");
    assert_eq!(fs::read_to_string(folder.path("out/sub/other")).unwrap(), "redis.default\n");
    folder.write("redis/config/redis.conf", "\n{{nohelper 1}}\n");
    insta::assert_snapshot!(folder.run(&["render", "redis/config/redis.conf"]), @r"
    exit 1
    --- said ---
    no `group.toml` here, but a `default.toml`: rendered as Habitat does, and what is missing prints nothing
    error: there is no helper `nohelper`
      --> redis/config/redis.conf:2:1
    ");
}

#[test]
fn paths_are_told_from_where_one_stands() {
    let folder = web();
    let mut program = folder.program(&["render", "config/app.hbs"]);
    let text = folder.report(&program.current_dir(folder.path("groups/web")).output().unwrap());
    assert_eq!(text, "exit 0\nport 80\n");
}
