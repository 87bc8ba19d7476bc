//! One group: its merged manifest and its files → [`Group`], with the rules that hold inside one group. What a group's
//! neighbours must say is the question of `mounts` and `binds`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{
    Backoff, Bind, BindMode, ConfigFile, Container, Count, Digest, DigestBuilder, Group, GroupName, Hardening, HookKind, Limits,
    Mount, OnFailure, OnUnhealthy, Ready, Reload, Service, ServiceKind, Signal, Strategy, Templates, Topology, Update,
};

use super::diagnostic::{Report, did_you_mean};
use super::folder::Folder;
use super::group_keys::{BIND, GROUP};
use super::hooks;
use super::node::{Node, Table};
use super::read::{Chosen, Fields, log_settings};
use super::shape::Text;
use super::text;

/// Variables that tell a service who it is.
const OWN_VARIABLES: [&str; 2] = ["TAGFALL_GROUP", "TAGFALL_RELEASE"];

/// So many paths of a config are looked through for the nearest name.
const CANDIDATES_MAX: usize = 2_000;

/// A group with the tree that it was read from, for whoever must point into it.
pub(crate) struct Built {
    pub(crate) group: Group,
    pub(crate) manifest: Node,
    /// Its file has syntax errors: what it seems to lack may stand in the part that could not be read.
    pub(crate) broken: bool,
}

/// A group's manifest as one ring sees it, and the parts that it was merged from.
pub(crate) struct Written<'a> {
    /// Everything together.
    pub(crate) manifest: Node,
    /// The group's own manifest, where an overlay was merged over it.
    pub(crate) alone: Option<&'a Node>,
    pub(crate) overlay: Option<&'a Node>,
    /// Whether one of the files has syntax errors.
    pub(crate) broken: bool,
}

/// Builds a group of one ring's view.
pub(crate) fn build(report: &mut Report, name: &GroupName, folder: &Folder<'_>, written: Written<'_>) -> Built {
    let Written { manifest, alone, overlay, broken } = written;
    let fields = Fields::new(&GROUP, Some(&manifest));
    let config = |node: Option<&Node>| node.filter(|node| node.table().is_some()).map_or_else(empty_object, Node::to_json);
    let config_node = fields.node("config");
    check_config_paths(report, fields);
    check_publication(report, fields, folder, &manifest, broken);
    let hooks = hooks::build(report, fields, folder);
    let has_health_check = hooks.contains_key(&HookKind::HealthCheck);
    let service = fields.node("service").filter(|node| node.table().is_some());
    let group = Group {
        name: name.clone(),
        revision: revision(&manifest, folder),
        placement: fields.below("placement").value("labels"),
        service: service.map(|node| build_service(report, fields.below("service"), node, has_health_check, broken)),
        config: config(config_node),
        config_default: config(alone.unwrap_or(&manifest).table().and_then(|table| table.get("config"))),
        config_ring: config(overlay.and_then(Node::table).and_then(|table| table.get("config"))),
        config_open: fields.value("config_open"),
        mount: mount(fields),
        templates: fields.get("templates").map_or(Templates::Strict, |Chosen(value)| value),
        files: folder.config.clone(),
        modules: folder.hooks.iter().filter(|file| file.path.ends_with(".wasm")).cloned().collect(),
        exports: fields.value("exports"),
        binds: binds(fields),
        topology: fields.below("topology").get("kind").map_or(Topology::Standalone, |Chosen(value)| value),
        update: update(report, fields),
        hooks,
    };
    Built { group, manifest, broken }
}

fn empty_object() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

fn mount(fields: Fields<'_>) -> Option<Mount> {
    let mount = fields.below("mount");
    Some(Mount { path: mount.get("path")?, keep: mount.value("keep") })
}

/// SHA-256 over what of a release concerns the group: the manifest's canonical form, and names, modes and ids of its files.
fn revision(manifest: &Node, folder: &Folder<'_>) -> Digest {
    let mut canonical = Vec::new();
    manifest.canonical(&mut canonical);
    let mut digest = DigestBuilder::new("group revision").field(&canonical);
    let mut add = |kind: &[u8], file: &ConfigFile| {
        let own = std::mem::take(&mut digest);
        digest = own.field(kind).field(file.path.as_bytes()).field(&[u8::from(file.executable)]).field(file.blob.as_bytes());
    };
    folder.config.iter().for_each(|file| add(b"config", file));
    folder.hooks.iter().for_each(|file| add(b"hook", file));
    digest.finish()
}

fn check_publication(report: &mut Report, fields: Fields<'_>, folder: &Folder<'_>, manifest: &Node, broken: bool) {
    let Some(first) = folder.config.first() else { return };
    if fields.node("mount").is_none() && !broken {
        let message = format!("`{}/config` has files such as `{}`, and [mount] is missing", folder.path, first.path);
        report.error_with(manifest.at, message, Some("say where they are published: [mount] path = \"/etc/NAME\"".to_owned()));
    }
}

/// Exports and open tables must be there in the config.
fn check_config_paths(report: &mut Report, fields: Fields<'_>) {
    let empty = Table::default();
    let config = fields.node("config").and_then(Node::table).unwrap_or(&empty);
    let exports = fields.node("exports").and_then(Node::table);
    for entry in exports.iter().flat_map(|table| table.0.values()) {
        if let Some(path) = entry.node.text().filter(|path| Text::Dotted.accepts(path))
            && config.lookup(path.split('.')).is_none()
        {
            let message = format!("the export's path `{}` is not in [config]", path.escape_debug());
            report.error_with(entry.node.at, message, nearest_path(config, path));
        }
    }
    for node in fields.node("config_open").and_then(Node::list).unwrap_or_default() {
        let Some(path) = node.text().filter(|path| Text::Dotted.accepts(path)) else { continue };
        match config.lookup(path.split('.')) {
            None => {
                let message = format!("`config_open` names `{}`, which is not in [config]", path.escape_debug());
                report.error_with(node.at, message, nearest_path(config, path));
            }
            Some(found) if found.table().is_none() => {
                let message =
                    format!("`config_open` names `{}`, which is {}, not a table", path.escape_debug(), found.value.kind());
                report.error(node.at, message);
            }
            Some(_) => {}
        }
    }
}

fn nearest_path(config: &Table, path: &str) -> Option<String> {
    let mut paths = Vec::new();
    let mut open: Vec<(String, &Table)> = vec![(String::new(), config)];
    while let Some((prefix, table)) = open.pop() {
        for (key, entry) in &table.0 {
            if paths.len() == CANDIDATES_MAX {
                break;
            }
            let whole = format!("{prefix}{key}");
            if let Some(below) = entry.node.table() {
                open.push((format!("{whole}."), below));
            }
            paths.push(whole);
        }
    }
    did_you_mean(path, paths.iter().map(String::as_str))
}

fn binds(fields: Fields<'_>) -> BTreeMap<String, Bind> {
    let Some(table) = fields.node("binds").and_then(Node::table) else { return BTreeMap::new() };
    let read = |(name, entry): (&String, &super::node::Entry)| {
        let fields = Fields::new(&BIND, Some(&entry.node));
        let mode = fields.get("mode").map_or(BindMode::Strict, |Chosen(mode)| mode);
        Some((name.clone(), Bind { group: fields.get("group")?, needs: fields.value("needs"), mode }))
    };
    table.0.iter().filter_map(read).collect()
}

fn update(report: &mut Report, fields: Fields<'_>) -> Update {
    let fields = fields.below("update");
    let update = Update {
        strategy: fields.get("strategy").map_or(Strategy::Rolling, |Chosen(value)| value),
        max_unavailable: fields.get("max_unavailable").unwrap_or(Count::Members(1)),
        canary: fields.get("canary").unwrap_or(Count::Members(1)),
        min_healthy: fields.value("min_healthy"),
        deadline: fields.value("deadline"),
        on_failure: fields.get("on_failure").map_or(OnFailure::Rollback, |Chosen(value)| value),
    };
    let node = fields.node("min_healthy").or(fields.node("deadline"));
    if let Some(node) = node.filter(|_| update.min_healthy >= update.deadline) {
        ordered(report, node, ("min_healthy", update.min_healthy), ("deadline", update.deadline), "[update]", "shorter than");
    }
    update
}

/// The message for two durations in the wrong order.
pub(crate) fn ordered(
    report: &mut Report,
    at: &Node,
    less: (&str, Duration),
    more: (&str, Duration),
    place: &str,
    relation: &str,
) {
    let (less, less_value) = (less.0, text::duration_text(less.1));
    let (more, more_value) = (more.0, text::duration_text(more.1));
    report.error(at.at, format!("`{less}` ({less_value}) must be {relation} `{more}` ({more_value}) in {place}"));
}

fn build_service(report: &mut Report, fields: Fields<'_>, node: &Node, has_health_check: bool, broken: bool) -> Service {
    let exec: Vec<String> = fields.value("exec");
    let container = container(fields);
    check_command(report, fields, node, broken);
    check_service(report, fields, has_health_check, broken);
    let default_ready = if has_health_check { Ready::Health } else { Ready::Started };
    Service {
        exec,
        user: fields.get("user"),
        env: fields.value("env"),
        working_dir: fields.get("working_dir"),
        kind: fields.get("kind").map_or(ServiceKind::Daemon, |Chosen(value)| value),
        stop_signal: fields.get("stop_signal").unwrap_or(Signal::TERM),
        stop_timeout: fields.value("stop_timeout"),
        reload: fields.get("reload_signal").map_or(Reload::Restart, Reload::Signal),
        backoff: backoff(report, fields),
        limits: limits(fields.below("limits")),
        ready: fields.get("ready").map_or(default_ready, |Chosen(value)| value),
        start_timeout: fields.value("start_timeout"),
        watchdog: fields.get("watchdog"),
        listen: fields.value("listen"),
        hardening: fields.get("hardening").map_or(Hardening::Default, |Chosen(value)| value),
        on_unhealthy: fields.get("on_unhealthy").map_or(OnUnhealthy::Report, |Chosen(value)| value),
        container,
        logs: log_settings(fields.below("logs")),
    }
}

/// One of `exec` and `container`, and a program that can be found.
fn check_command(report: &mut Report, fields: Fields<'_>, node: &Node, broken: bool) {
    match (fields.node("exec"), fields.node("container")) {
        (Some(_), Some(container)) => {
            let hint = Some("leave one of them out; a container's arguments are `command` in [service.container]".to_owned());
            report.error_with(container.at, "`exec` and `container` cannot both stand in [service]", hint);
        }
        (None, None) if !broken => {
            let hint = Some("exec = [\"/usr/bin/program\", \"--argument\"]".to_owned());
            report.error_with(node.at, "[service] has neither `exec` nor `container`", hint);
        }
        (None, _) | (_, None) => {}
    }
    let program = fields.node("exec").and_then(Node::list).and_then(<[Node]>::first);
    if let Some((node, program)) = program.and_then(|node| Some((node, node.text()?)))
        && Text::Argument.accepts(program)
        && !text::is_template(program)
        && program.contains('/')
        && text::absolute_path(program).is_err()
    {
        let message =
            format!("the program `{}` must be an absolute path, or a name that is looked up in PATH", program.escape_debug());
        report.error(node.at, message);
    }
}

fn check_service(report: &mut Report, fields: Fields<'_>, has_health_check: bool, broken: bool) {
    if let Some(node) = fields.node("ready").filter(|node| node.text() == Some("health") && !has_health_check && !broken) {
        let hint = Some("add [hooks.health-check], or choose `started`, `notify` or `fd`".to_owned());
        report.error_with(node.at, "`ready` in [service] is `health`, and there is no health check", hint);
    }
    let variables = fields.node("env").and_then(Node::table);
    for (name, entry) in variables.iter().flat_map(|table| &table.0) {
        if OWN_VARIABLES.contains(&name.as_str()) {
            report.error(entry.key, format!("`{name}` in `env` is set by the supervisor and cannot be set here"));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for node in fields.node("listen").and_then(Node::list).unwrap_or_default() {
        if let Some(socket) = node.text().filter(|socket| !seen.insert(*socket)) {
            report.error(node.at, format!("`{}` stands twice in `listen`", socket.escape_debug()));
        }
    }
}

fn backoff(report: &mut Report, fields: Fields<'_>) -> Backoff {
    let fields = fields.below("backoff");
    let backoff = Backoff { min: fields.value("min"), max: fields.value("max"), reset_after: fields.value("reset_after") };
    if let Some(node) = fields.node("min").or(fields.node("max")).filter(|_| backoff.min > backoff.max) {
        ordered(report, node, ("min", backoff.min), ("max", backoff.max), "[service.backoff]", "at most");
    }
    backoff
}

fn limits(fields: Fields<'_>) -> Limits {
    Limits {
        memory: fields.get("memory"),
        pids: fields.get("pids"),
        open_files: fields.get("open_files"),
        cpu: fields.get("cpu"),
    }
}

fn container(fields: Fields<'_>) -> Option<Container> {
    fields.node("container")?.table()?;
    let fields = fields.below("container");
    let (command, env, ports) = (fields.value("command"), fields.value("env"), fields.value("ports"));
    Some(Container { image: fields.value("image"), command, env, ports })
}
