//! The hooks of one group: modules that must be there, built-in checks with their arguments.

use std::collections::BTreeMap;

use crate::model::{Check, Grants, Hook, HookKind, Probe, Probes};

use super::check::{self, Missing};
use super::diagnostic::{Report, did_you_mean};
use super::folder::Folder;
use super::group::ordered;
use super::group_keys::{EXEC_ARGS, FILE_ARGS, HTTP_ARGS, PROBE, TCP_ARGS};
use super::node::{Node, Table};
use super::read::Fields;
use super::shape::Shape;

/// The checks that need no module.
const BUILTINS: [(&str, &Shape); 4] =
    [("builtin:http", &HTTP_ARGS), ("builtin:tcp", &TCP_ARGS), ("builtin:file", &FILE_ARGS), ("builtin:exec", &EXEC_ARGS)];

/// Probes of one hook: each is a connection of every call.
const PROBES_MAX: usize = 16;

/// Builds all hooks of a group.
pub(crate) fn build(report: &mut Report, group: Fields<'_>, folder: &Folder<'_>) -> BTreeMap<HookKind, Hook> {
    let hooks = group.below("hooks");
    let mut built = BTreeMap::new();
    for kind in HookKind::ALL {
        let Some(node) = hooks.node(kind.name()).filter(|node| node.table().is_some()) else { continue };
        if let Some(hook) = hook(report, kind, hooks.below(kind.name()), node, folder) {
            built.insert(kind, hook);
        }
    }
    built
}

fn hook(report: &mut Report, kind: HookKind, fields: Fields<'_>, node: &Node, folder: &Folder<'_>) -> Option<Hook> {
    let allow = grants(fields.below("allow"));
    let check = module(report, kind, fields, node, folder, &allow);
    let args = fields.node("args").filter(|args| args.table().is_some());
    let args = args.map_or_else(|| serde_json::Value::Object(serde_json::Map::new()), Node::to_json);
    let is_check = kind == HookKind::HealthCheck;
    let mut timeout = fields.value("timeout");
    let interval = if is_check { fields.value("interval") } else { std::time::Duration::ZERO };
    if is_check && timeout > interval {
        match fields.node("timeout") {
            Some(at) => ordered(report, at, ("timeout", timeout), ("interval", interval), fields.shape.name, "at most"),
            // An interval below the default timeout shortens it.
            None => timeout = interval,
        }
    }
    let failures = if is_check { fields.value("failures") } else { 1 };
    let probes = probes(report, fields);
    let check = check?;
    if let (Some(at), false) = (fields.node("probes"), matches!(check, Check::Module(_))) {
        let hint = Some("a built-in check asks by itself".to_owned());
        report.error_with(at.at, format!("`probes` in {} are for modules", fields.shape.name), hint);
    }
    Some(Hook { check, interval, timeout, failures, memory: fields.value("memory"), args, allow, probes })
}

fn probes(report: &mut Report, fields: Fields<'_>) -> Probes {
    let Some((node, table)) = fields.node("probes").and_then(|node| Some((node, node.table()?))) else { return Probes::new() };
    if table.0.len() > PROBES_MAX {
        let message = format!("`probes` in {} has {} of them, more than {PROBES_MAX}", fields.shape.name, table.0.len());
        report.error(node.at, message);
    }
    let named = table.0.iter().filter(|(_, entry)| entry.node.table().is_some());
    named.filter_map(|(name, entry)| Some((name.clone(), probe(report, name, &entry.node)?))).collect()
}

/// One of `url` and `address`, and what goes with it.
fn probe(report: &mut Report, name: &str, node: &Node) -> Option<Probe> {
    let fields = Fields::new(&PROBE, Some(node));
    let name = name.escape_debug();
    match (fields.node("url"), fields.node("address")) {
        (Some(_), Some(address)) => {
            report.error(address.at, format!("`url` and `address` cannot both stand in the probe `{name}`"));
            None
        }
        (None, None) => {
            let hint = Some("url = \"http://127.0.0.1:8080/healthz\"".to_owned());
            report.error_with(node.at, format!("the probe `{name}` has neither `url` nor `address`"), hint);
            None
        }
        (Some(_), None) => {
            for key in ["send", "until"] {
                if let Some(found) = fields.node(key) {
                    report.error(found.at, format!("`{key}` of the probe `{name}` goes with `address`, not with `url`"));
                }
            }
            Some(Probe::Http { url: fields.get("url")? })
        }
        (None, Some(_)) => {
            Some(Probe::Stream { address: fields.get("address")?, send: fields.value("send"), until: fields.get("until") })
        }
    }
}

fn grants(fields: Fields<'_>) -> Grants {
    Grants {
        net: fields.value("net"),
        read: fields.value("read"),
        write: fields.value("write"),
        env: fields.value("env"),
        exec: fields.value("exec"),
    }
}

fn module(
    report: &mut Report,
    kind: HookKind,
    fields: Fields<'_>,
    hook: &Node,
    folder: &Folder<'_>,
    allow: &Grants,
) -> Option<Check> {
    let node = fields.node("module")?;
    let written = node.text()?;
    let place = fields.shape.name;
    if let Some((name, shape)) = BUILTINS.iter().find(|(name, _)| *name == written) {
        if kind != HookKind::HealthCheck {
            report.error(node.at, format!("`{name}` is a health check and cannot be the module of {place}"));
            return None;
        }
        return builtin(report, name, shape, fields, hook, allow);
    }
    let modules = folder.hooks.iter().map(|file| file.path.as_str());
    if written.starts_with("hooks/") && written.ends_with(".wasm") && modules.clone().any(|path| path == written) {
        return Some(Check::Module(written.to_owned()));
    }
    let known = BUILTINS.iter().map(|(name, _)| *name).filter(|_| kind == HookKind::HealthCheck);
    let hint = did_you_mean(written, modules.filter(|path| path.ends_with(".wasm")).chain(known));
    let written = written.escape_debug();
    let message = if written.clone().to_string().starts_with("builtin:") {
        format!(
            "there is no built-in check `{written}`; there are `builtin:http`, `builtin:tcp`, `builtin:file` and `builtin:exec`"
        )
    } else {
        format!("the module `{written}` of {place} is not a `.wasm` file below `{}/hooks`", folder.path)
    };
    report.error_with(node.at, message, hint);
    None
}

fn builtin(
    report: &mut Report,
    name: &str,
    shape: &'static Shape,
    fields: Fields<'_>,
    hook: &Node,
    allow: &Grants,
) -> Option<Check> {
    let args = fields.node("args");
    let empty = Table::default();
    let table = args.and_then(Node::table).unwrap_or(&empty);
    check::table(report, shape, args.map_or(hook.at, |args| args.at), table, Missing::Report);
    let fields = Fields { shape, table: Some(table) };
    match name {
        "builtin:http" => Some(Check::Http { url: fields.get("url")?, status: fields.get("status"), body: fields.get("body") }),
        "builtin:tcp" => Some(Check::Tcp { address: fields.get("address")? }),
        "builtin:file" => Some(Check::File { path: fields.get("path")?, max_age: fields.get("max_age") }),
        _ => {
            let command: String = fields.get("command")?;
            if !allow.exec.contains_key(&command) {
                let at = fields.node("command").map_or(hook.at, |node| node.at);
                let hint = did_you_mean(&command, allow.exec.keys().map(String::as_str));
                let hint = hint.unwrap_or_else(|| format!("allow = {{ exec = {{ {command} = [\"/path/of/program\"] }} }}"));
                report.error_with(at, format!("`{command}` is not a command of this hook's `allow.exec`"), Some(hint));
                return None;
            }
            Some(Check::Exec { command })
        }
    }
}
