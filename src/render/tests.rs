//! Strictness, Habitat's bytes, data, content, bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{
    ConfigFile, Count, Digest, Group, Mount, ObjectId, OnFailure, Strategy as Rollout, TagName, Templates, Topology, Update,
};

pub(super) fn group(config: Value) -> Group {
    Group {
        name: "redis.default".parse().unwrap(),
        revision: Digest::of(b""),
        placement: BTreeMap::new(),
        service: None,
        config: config.clone(),
        config_default: config,
        config_ring: json!({}),
        config_open: Vec::new(),
        mount: Some(Mount { path: "/etc/redis".into(), keep: 3 }),
        templates: Templates::Strict,
        files: Vec::new(),
        modules: Vec::new(),
        exports: BTreeMap::from([
            ("port".into(), "port".into()),
            ("name".into(), "db.name".into()),
            ("no".into(), "no.no".into()),
        ]),
        binds: BTreeMap::new(),
        topology: Topology::Standalone,
        update: Update {
            strategy: Rollout::Rolling,
            max_unavailable: Count::Members(1),
            canary: Count::Members(1),
            min_healthy: Duration::from_secs(10),
            deadline: Duration::from_secs(300),
            on_failure: OnFailure::Rollback,
        },
        hooks: BTreeMap::new(),
    }
}

fn host(ip: &str) -> Host {
    Host {
        ip: ip.into(),
        member_id: format!("id-{ip}"),
        data_dir: "/var/lib/tagfall".into(),
        user: "root".into(),
        ..Host::default()
    }
}

fn release() -> (TagName, ObjectId) {
    (TagName::new("v1.2.0"), ObjectId::from_bytes([0xab; 20]))
}

/// Data in the manner of a redis plan.
fn cfg() -> Value {
    json!({"cfg": {"port": 6379, "load": 1.0, "on": true, "zero": 0, "text": "", "none": null,
        "list": ["a", "b"], "empty": [], "table": {"x": 1, "y": "two"}, "people": [{"name": "Ann"}, {"name": "Bob"}]}})
}

fn strict(template: &str) -> Result<String, RenderError> {
    render_text("t.hbs", template, &cfg(), Templates::Strict)
}

// --- strictness

#[test]
fn every_missing_name_is_told_with_its_place() {
    let template = "port {{cfg.port}}\n{{#if cfg.on}}\n  {{cfg.nope}} {{cfg.table.zz}}\n{{/if}}\n{{toUppercase cfg.gone}}\n\
        {{#each cfg.people}}{{name}}{{surname}}{{../cfg.up}}{{/each}}\n{{strJoin cfg.nolist \",\"}}{{toJson cfg.nojson}}\n\
        {{lookup cfg.table \"k\"}}{{strConcat \"a\" (toLowercase cfg.deep)}}{{cfg.list[7]}}{{cfg.nope}}\n\
        {{{cfg.braces}}}{{len cfg.nolen}}{{@nolocal}}{{cfg.list.word}}";
    let mut group = group(json!({}));
    group.files = vec![file("a.conf.hbs")];
    let errors = render_files(&group, &mut |_| Ok(template.into()), &cfg()).unwrap_err();
    let told: Vec<(usize, usize, &str)> =
        errors.iter().map(|e| (e.line, e.column, e.name.as_deref().unwrap_or_default())).collect();
    assert_eq!(
        told,
        [
            (3, 3, "cfg.nope"),
            (3, 16, "cfg.table.zz"),
            (5, 1, "cfg.gone"),
            (6, 29, "surname"),
            (6, 40, "../cfg.up"),
            (7, 1, "cfg.nolist"),
            (7, 27, "cfg.nojson"),
            (8, 1, "cfg.table.k"),
            (8, 25, "cfg.deep"),
            (8, 65, "cfg.list.7"),
            (8, 80, "cfg.nope"),
            (9, 1, "cfg.braces"),
            (9, 17, "cfg.nolen"),
            (9, 34, "@nolocal"),
            (9, 46, "cfg.list.word"),
        ]
    );
    assert_eq!(errors[0].to_string(), "config/a.conf.hbs:3:3: `cfg.nope` is not set");
}

#[test]
fn a_missing_name_in_a_condition_is_false_or_empty() {
    for (template, wanted) in [
        ("{{#if cfg.nope}}a{{else}}b{{/if}}", "b"),
        ("{{#unless cfg.nope}}a{{/unless}}", "a"),
        ("{{#each cfg.nope}}a{{else}}b{{/each}}|{{#each cfg.nope.deep}}a{{/each}}", "b|"),
        ("{{#with cfg.nope}}a{{else}}b{{/with}}", "b"),
        ("{{#if cfg.list.word}}a{{else if cfg.table.zz}}b{{else}}c{{/if}}", "c"),
        ("{{#if (lookup cfg.table \"zz\")}}a{{else}}b{{/if}}", "b"),
        ("{{#if (eq cfg.nope \"x\")}}a{{else}}b{{/if}}{{#eq cfg.nope 1}}a{{else}}b{{/eq}}", "bb"),
        ("{{#if (toUppercase cfg.nope)}}a{{else}}b{{/if}}", "b"),
        ("{{#if (not cfg.nope)}}a{{/if}}{{#if (and cfg.on cfg.nope)}}b{{/if}}", "a"),
        ("{{#eachAlive cfg.nope}}a{{else}}b{{/eachAlive}}", "b"),
        ("{{cfg.none}}|{{#if cfg.none}}a{{/if}}", "|"),
    ] {
        assert_eq!(strict(template).as_deref(), Ok(wanted), "{template}");
    }
}

#[test]
fn lenient_prints_nothing_and_says_what_was_missing() {
    let template = "a{{cfg.nope}}b\n{{#each cfg.list}}{{x}}{{/each}}{{lookup cfg.table \"k\"}}";
    assert_eq!(render_text("t", template, &cfg(), Templates::Lenient).unwrap(), "ab\n");
    let missing: Vec<_> = missing_names("t", template, &cfg()).into_iter().map(|e| (e.line, e.name.unwrap())).collect();
    assert_eq!(missing, [(1, "cfg.nope".to_owned()), (2, "x".to_owned()), (2, "cfg.table.k".to_owned())]);
    assert_eq!(render_text("t", "{{strConcat \"a\" cfg.nope}}", &cfg(), Templates::Lenient).unwrap(), "anull", "as Habitat");
    assert!(render_text("t", "{{toUppercase cfg.nope}}", &cfg(), Templates::Lenient).is_err(), "as Habitat");
}

#[test]
fn wrong_templates_are_told_with_their_place() {
    for (template, line, column, words) in [
        ("a\n{{#if cfg.on}}", 2, 15, "syntax"),
        ("a\n  {{#if x}}{{/each}}", 2, 12, "closing"),
        ("{{cfg.a.}}", 1, 9, "syntax"),
        ("a\n {{toUppercase cfg.port}}", 2, 2, "`toUppercase`: argument 1 must be a string"),
        ("{{strJoin cfg.port \",\"}}", 1, 1, "must be a list"),
        ("\n{{toUpper cfg.text}}", 2, 1, "did you mean `toUppercase`?"),
        ("{{cfg.list[0]}} {{> other}}", 1, 17, "no template `other`"),
        ("{{#eachAlive cfg.port}}{{/eachAlive}}", 1, 1, "list of members"),
        ("{{#each}}{{/each}}", 1, 1, "each"),
    ] {
        let error = strict(template).unwrap_err();
        assert_eq!((error.line, error.column), (line, column), "{template}: {error}");
        assert!(error.message.contains(words), "{template}: {error}");
    }
    assert!(check_template("t", "{{cfg.whatever}}{{toJson x}}").is_ok());
    assert_eq!(check_template("t", "x\n{{foo bar}}").unwrap_err().line, 2);
}

// --- Habitat's bytes

#[test]
fn habitat_bytes() {
    for (template, wanted) in [
        ("{{cfg.port}} {{cfg.load}} {{cfg.on}} {{cfg.none}}.", "6379 1.0 true ."),
        ("{{cfg.list}} {{cfg.table}} {{cfg.text}}<\"&>", "[a, b] [object] <\"&>"),
        ("{{{cfg.port}}} {{& cfg.port}}", "6379 6379"),
        ("a\n{{#if cfg.on}}\nb\n{{/if}}\nc\n", "a\nb\nc\n"),
        ("a\n  {{#if cfg.on}}\n  b\n  {{else}}\n  x\n  {{/if}}\nc", "a\n  b\nc"),
        ("{{#each cfg.list ~}}\n  - {{this}}\n{{/each ~}}\n\nx", "- a\n- b\nx"),
        ("a\n{{~#if cfg.on}}\nb\n{{~/if}}\nc", "abc"),
        ("a\n{{! gone }}\nb {{!-- {{x}} --}}c", "a\nb c"),
        ("{{#each cfg.list}}{{@index}}{{@first}}{{@last}}{{this}};{{/each}}", "0truefalsea;1falsetrueb;"),
        ("{{#each cfg.table}}{{@key}}={{this}};{{/each}}", "x=1;y=two;"),
        ("{{#each cfg.list as |item at|}}{{at}}{{item}}{{/each}}", "0a1b"),
        (
            "{{#each cfg.people}}{{name}} {{../cfg.port}} {{@root.cfg.port}}{{#unless @last}},{{/unless}}{{/each}}",
            "Ann 6379 6379,Bob 6379 6379",
        ),
        ("{{#with cfg.table}}{{x}}{{../cfg.port}}{{this.y}}{{./y}}{{/with}}", "16379twotwo"),
        ("{{#with cfg.table as |t|}}{{t.x}}{{/with}}", "1"),
        ("{{#if cfg.zero}}a{{else if cfg.text}}b{{else if cfg.empty}}c{{else}}d{{/if}}", "d"),
        ("{{#each cfg.empty}}a{{else}}b{{/each}}", "b"),
        ("{{cfg.list[0]}}{{cfg.list.[1]}}{{cfg.list.0}}{{cfg.people[1].name}}{{cfg.table[\"y\"]}}", "abaBobtwo"),
        ("\\{{cfg.port}} \\\\{{cfg.port}}", "{{cfg.port}} \\6379"),
        ("{{{{raw}}}}{{cfg.port}}{{{{/raw}}}}", "{{cfg.port}}"),
        ("{{lookup cfg.list 1}}{{lookup cfg.table \"x\"}}", "b1"),
        ("{{toUppercase \"straße\"}}{{toLowercase \"ÄB\"}}", "STRASSEäb"),
        ("{{strReplace \"a.b.c\" \".\" \"-\"}}", "a-b-c"),
        (
            "{{strJoin cfg.list \", \"}}|{{strJoin cfg.people \",\"}}|{{strConcat \"a\" 1 true cfg.list cfg.table}}",
            "a, b||a1true[a,b]",
        ),
        ("{{strConcat \"say \\\"x\\\"\"}}", "say \\x\\"),
        ("{{toJson cfg.table}}{{toJson cfg.port}}{{toJson cfg.empty}}", "{\n  \"x\": 1,\n  \"y\": \"two\"\n}6379[]"),
        ("{{toYaml cfg.table}}{{toYaml cfg.people}}", "x: 1\ny: two\n- name: Ann\n- name: Bob\n"),
        (
            "{{toToml cfg.table}}{{toToml cfg.list}}{{toToml cfg.load}}{{toToml \"q\"}}",
            "x = 1\ny = \"two\"\n[\"a\", \"b\"]1.0\"q\"",
        ),
        ("{{#if (toUppercase \"a\")}}{{toUppercase (strConcat \"a\" cfg.port)}}{{/if}}", "A6379"),
        ("{{#*inline \"p\"}}<{{name}}>{{/inline}}{{#each cfg.people}}{{> p}}{{/each}}{{> p name=\"Eve\"}}", "<Ann><Bob><Eve>"),
    ] {
        assert_eq!(strict(template).as_deref(), Ok(wanted), "{template}");
        assert_eq!(render_text("t", template, &cfg(), Templates::Lenient).as_deref(), Ok(wanted), "{template}");
    }
}

#[test]
fn each_alive_skips_the_others() {
    let member = |name: &str, alive: bool| json!({"name": name, "alive": alive, "sys": {"ip": name}});
    let data = json!({"m": [member("x", false), member("a", true), member("b", true), 3, member("y", false)], "none": [member("x", false)]});
    for (template, wanted) in [
        ("{{#eachAlive m}}{{@index}}{{@first}}{{@last}}{{sys.ip}};{{/eachAlive}}", "1truefalsea;2falsetrueb;"),
        ("{{#eachAlive m as |one|}}{{one.name}}{{#unless @last}},{{/unless}}{{/eachAlive}}", "a,b"),
        ("{{#eachAlive none}}a{{else}}b{{/eachAlive}}", ""),
        ("{{#eachAlive m}}{{../none.0.name}}{{/eachAlive}}", "xx"),
    ] {
        assert_eq!(render_text("t", template, &data, Templates::Strict).as_deref(), Ok(wanted), "{template}");
    }
}

// --- data

const SLAVEOF: &str = "{{~#if svc.me.follower}}\n{{~#with svc.leader}}\nslaveof {{ip}} {{cfg.port}}\n{{~/with}}\n{{~/if}}\n";

fn two_members(group: &Group, config: &Config, me: usize) -> Value {
    let (tag, commit) = release();
    let mut members = ["10.0.0.1", "10.0.0.2"].map(|ip| alone(&host(ip), group, config, (&tag, &commit)));
    members[1].leader = false;
    members[1].follower = true;
    let binds = BTreeMap::new();
    let census = Census { members: &members, me, election: Election::Finished, binds: &binds };
    data_in(&members[me].host, group, config, (&tag, &commit), &census)
}

#[test]
fn a_follower_follows_and_a_leader_does_not() {
    let mut group = group(json!({"port": 6379}));
    group.topology = Topology::Leader;
    let (config, _) = effective(&group, &[]);
    let follower = two_members(&group, &config, 1);
    assert_eq!(render_text("t", SLAVEOF, &follower, Templates::Strict).unwrap(), "slaveof 10.0.0.1 6379");
    let leader = two_members(&group, &config, 0);
    assert_eq!(render_text("t", SLAVEOF, &leader, Templates::Strict).unwrap(), "");
    let (tag, commit) = release();
    let single = data(&host("10.0.0.1"), &group, &config, (&tag, &commit));
    assert_eq!(render_text("t", SLAVEOF, &single, Templates::Strict).unwrap(), "");
}

#[test]
fn the_data_of_a_single_member() {
    let mut group = group(json!({"port": 6379, "db": {"name": "x"}}));
    group.binds.insert(
        "db".into(),
        crate::model::Bind { group: "pg.default".parse().unwrap(), needs: vec![], mode: crate::model::BindMode::Relaxed },
    );
    let (config, _) = effective(&group, &[]);
    let (tag, commit) = release();
    let single = data(&host("10.0.0.1"), &group, &config, (&tag, &commit));
    for (template, wanted) in [
        ("{{sys.ip}} {{sys.gossip_port}} {{sys.member_id}}", "10.0.0.1 0 id-10.0.0.1"),
        ("{{svc.service}}.{{svc.group}} {{svc.me.cfg.port}} {{svc.me.cfg.name}} {{svc.me.leader}}", "redis.default 6379 x false"),
        ("{{#if svc.leader}}l{{/if}}{{svc.first.ip}}{{svc.members[0].alive}}{{svc.election_is_finished}}", "10.0.0.1truefalse"),
        ("{{#each bind.db.members}}x{{else}}nobody{{/each}}{{#with bind.db.first}}x{{/with}}", "nobody"),
        (
            "{{pkg.name}} {{pkg.version}} {{pkg.svc_config_path}} {{pkg.svc_var_path}}",
            "redis v1.2.0 /etc/redis /var/lib/tagfall/var/redis.default",
        ),
        ("{{mount.path}} {{release.tag}} {{release.commit}}", "/etc/redis v1.2.0 abababababababababababababababababababab"),
    ] {
        assert_eq!(render_text("t", template, &single, Templates::Strict).as_deref(), Ok(wanted), "{template}");
    }
    assert_eq!(
        render_text("t", "{{bind.db.first.ip}}", &single, Templates::Strict).unwrap_err().name.as_deref(),
        Some("bind.db.first.ip")
    );
    assert!(single["svc"]["me"]["cfg"].get("no").is_none(), "what is not set is not exported");
    group.mount = None;
    let unmounted = data(&host("10.0.0.1"), &group, &config, (&tag, &commit));
    assert!(render_text("t", "{{mount.path}}", &unmounted, Templates::Strict).is_err());
}

// --- content

fn file(path: &str) -> ConfigFile {
    ConfigFile { path: path.into(), blob: ObjectId::from_bytes([0; 20]), executable: path.ends_with(".sh"), size: 0 }
}

#[test]
fn templates_are_rendered_and_all_else_is_copied() {
    let mut group = group(json!({}));
    group.files = vec![file("z.conf.hbs"), file("bin/run.sh"), file("part.hbs"), file("raw.bin")];
    let mut contents = |file: &ConfigFile| {
        Ok(match file.path.as_str() {
            "z.conf.hbs" => b"{{> part}}port {{cfg.port}}".to_vec(),
            "part.hbs" => b"# {{cfg.list}}\n".to_vec(),
            "bin/run.sh" => b"{{not a template".to_vec(),
            _ => vec![0xff, 0],
        })
    };
    let files = render_files(&group, &mut contents, &cfg()).unwrap();
    let seen: Vec<(&str, &[u8], bool)> = files.iter().map(|f| (f.path.as_str(), f.bytes.as_slice(), f.executable)).collect();
    assert_eq!(
        seen,
        [
            ("bin/run.sh", b"{{not a template".as_slice(), true),
            ("part", b"# [a, b]\n", false),
            ("raw.bin", &[0xff, 0], false),
            ("z.conf", b"# [a, b]\nport 6379", false),
        ]
    );
    let mut turned = files.clone();
    turned.reverse();
    assert_eq!(content_digest(&files), content_digest(&turned));
    for change in [
        |f: &mut RenderedFile| f.executable = true,
        |f: &mut RenderedFile| f.path.push('x'),
        |f: &mut RenderedFile| f.bytes.push(0),
    ] {
        let mut other = files.clone();
        change(&mut other[2]);
        assert_ne!(content_digest(&files), content_digest(&other));
    }
}

#[test]
fn all_errors_of_all_files_are_told() {
    let mut group = group(json!({}));
    group.files = vec![file("a.hbs"), file("b.hbs"), file("c.hbs"), file("d.hbs"), file("e")];
    let mut contents = |file: &ConfigFile| match file.path.as_str() {
        "a.hbs" => Ok(b"{{x}}\n{{y}}".to_vec()),
        "b.hbs" => Ok(b"{{#if}".to_vec()),
        "c.hbs" => Ok(vec![0xff]),
        "d.hbs" => Ok(b"{{> a}}".to_vec()),
        _ => Err("the blob is gone".to_owned()),
    };
    let errors = render_files(&group, &mut contents, &cfg()).unwrap_err();
    let told: Vec<(&str, usize)> = errors.iter().map(|error| (error.file.as_str(), error.line)).collect();
    assert_eq!(told, [("config/b.hbs", 1), ("config/c.hbs", 0), ("config/e", 0), ("config/a.hbs", 1), ("config/a.hbs", 2)]);
}

#[test]
fn a_launch_is_rendered_argument_by_argument() {
    let mut group = group(json!({}));
    let mut service = service();
    service.exec = vec!["/bin/x".into(), "--port={{cfg.port}}".into(), "{{cfg.text}}".into(), "a b".into()];
    service.env = BTreeMap::from([("L".into(), "{{cfg.list.[0]}}".into())]);
    let (argv, env) = render_launch(&group, &service, &cfg()).unwrap();
    assert_eq!(argv, ["/bin/x", "--port=6379", "", "a b"]);
    assert_eq!(env, [("L".to_owned(), "a".to_owned())]);
    service.exec.push("{{nope}}".into());
    service.env.insert("M".into(), "{{cfg.no}}".into());
    let errors = render_launch(&group, &service, &cfg()).unwrap_err();
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["service.exec[4]:1:1: `nope` is not set", "service.env.M:1:1: `cfg.no` is not set"]);
    group.templates = Templates::Lenient;
    assert_eq!(render_launch(&group, &service, &cfg()).unwrap().0[4], "");
    let args = json!({"url": "http://x:{{cfg.port}}", "n": [1, "{{cfg.on}}"]});
    assert_eq!(
        render_value("hooks.init.args", &args, &cfg(), Templates::Strict).unwrap(),
        json!({"url": "http://x:6379", "n": [1, "true"]})
    );
    assert_eq!(render_value("args", &json!({"a": ["{{x}}"]}), &cfg(), Templates::Strict).unwrap_err()[0].file, "args.a[0]");
}

fn service() -> crate::model::Service {
    use crate::model::{Backoff, Hardening, Limits, OnUnhealthy, Ready, Reload, Service, ServiceKind, Signal};
    let second = Duration::from_secs(1);
    Service {
        exec: Vec::new(),
        user: None,
        env: BTreeMap::new(),
        working_dir: None,
        kind: ServiceKind::Daemon,
        stop_signal: Signal::TERM,
        stop_timeout: second,
        reload: Reload::Restart,
        backoff: Backoff { min: second, max: second, reset_after: second },
        limits: Limits::default(),
        ready: Ready::Started,
        start_timeout: second,
        watchdog: None,
        listen: Vec::new(),
        hardening: Hardening::Default,
        on_unhealthy: OnUnhealthy::Report,
        container: None,
        logs: crate::model::LogSettings::default(),
    }
}

// --- bounds

#[test]
fn a_template_always_ends() {
    let big = json!({"l": vec![0; 2000], "s": "x".repeat(1 << 20)});
    let nested = |times: usize| format!("{}{}", "{{#each @root.l}}".repeat(times), "{{/each}}".repeat(times));
    let print = "{{#each l}}{{@root.s}}{{/each}}".to_owned();
    for (template, words) in [
        (nested(5), "work"),
        (print, "longer than"),
        ("{{#*inline \"a\"}}{{> a}}{{/inline}}{{> a}}".to_owned(), "partials"),
        ("{{#each l}}{{strConcat @root.s @root.s}}{{/each}}".to_owned(), "longer than"),
        ("{{#each l}}{{#if (strConcat @root.s)}}{{/if}}{{/each}}".to_owned(), "work"),
        ("{{#if a}}".repeat(10_000), "blocks"),
        (format!("{{{{{}", "(a ".repeat(10_000)), "brackets"),
    ] {
        let error = render_text("t", &template, &big, Templates::Strict).unwrap_err();
        assert!(error.message.contains(words), "{error}");
    }
    let mut group = group(json!({}));
    group.files = vec![file("a.hbs"), file("b.hbs")];
    let mut contents = |file: &ConfigFile| Ok(if file.path == "a.hbs" { b"{{> b}}".to_vec() } else { b"{{> a}}".to_vec() });
    assert!(render_files(&group, &mut contents, &cfg()).is_err());
    let deep = format!("{}x{}", "{{#if cfg.on}}".repeat(64), "{{/if}}".repeat(64));
    assert_eq!(strict(&deep).as_deref(), Ok("x"));
}

proptest! {
    #[test]
    fn nothing_panics(text in "(\\{\\{|\\}\\}|\\{|\\}|~|#|/|else|if |each |with |eachAlive |cfg\\.|list|port|this|\\.\\./|\\[|\\]|0|\"|'|\\(|\\)|>|\\*|!|--|&|@|as |\\||=|toJson |lookup |\\\\|\n| |é|\\PC){0,40}") {
        let lenient = render_text("t", &text, &cfg(), Templates::Lenient);
        let strict = render_text("t", &text, &cfg(), Templates::Strict);
        if let (Ok(lenient), Ok(strict)) = (lenient, strict) {
            prop_assert_eq!(lenient, strict);
        }
    }

    /// What is put into templates to watch them changes no byte.
    #[test]
    fn watched_templates_print_what_unwatched_ones_print(parts in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..12)) {
        let text = parts.concat();
        let mut plain = handlebars::Handlebars::new();
        plain.register_escape_fn(handlebars::no_escape);
        if let Ok(wanted) = plain.render_template(&text, &cfg()) {
            prop_assert_eq!(render_text("t", &text, &cfg(), Templates::Lenient).ok(), Some(wanted));
        }
    }
}

/// Pieces of templates that mean the same to the bare crate; many sequences of them do not parse, enough do.
const PARTS: [&str; 30] = [
    "{{~ #if cfg.on }}",
    "{{~ else ~}}",
    "{{ cfg.port }}",
    "{{#each cfg.people as |p i|}}{{p.name}}{{i}}",
    "a",
    "\n",
    "  ",
    " x\n",
    "{{cfg.port}}",
    "{{cfg.nope}}",
    "{{cfg.list}}",
    "{{#if cfg.on}}",
    "{{~#if cfg.zero}}",
    "{{/if}}",
    "{{~/if~}}",
    "{{else}}",
    "{{~else}}",
    "{{else if cfg.on}}",
    "{{#each cfg.list}}",
    "{{#each cfg.table ~}}",
    "{{/each}}",
    "{{this}}",
    "{{@key}}{{@index}}",
    "{{#with cfg.table}}",
    "{{/with}}",
    "{{x}}",
    "{{../cfg.port}}",
    "{{! c }}",
    "{{#unless cfg.nope}}",
    "{{/unless}}",
];
