//! What a module is handed: its arguments and grants with their templates rendered, and the snapshot of what templates see.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::engine::{RenderError, render_text};
use crate::model::{Grants, Hook, HookKind, Probe, Probes, Templates};

/// What of the data a hook sees.
const SNAPSHOT: [&str; 8] = ["cfg", "svc", "sys", "bind", "pkg", "mount", "release", "member"];

/// A hook of the manifest, rendered.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderedHook {
    /// `args`: an object.
    pub args: Value,
    /// `allow`.
    pub grants: Grants,
    /// `probes`.
    pub probes: Probes,
}

/// Renders every string of a hook that is a template; every error is listed.
///
/// # Errors
/// All templates that print a missing name, or are none.
pub fn render_hook(kind: HookKind, hook: &Hook, data: &Value, mode: Templates) -> Result<RenderedHook, Vec<RenderError>> {
    let mut errors = Vec::new();
    let mut text = |key: String, template: &str| {
        render_text(&format!("hooks.{}.{key}", kind.name()), template, data, mode).unwrap_or_else(|error| {
            errors.push(error);
            String::new()
        })
    };
    let args = value(&hook.args, "args", &mut text);
    let mut list = |key: &str, entries: &[String]| -> Vec<String> {
        entries.iter().map(|entry| text(format!("allow.{key}"), entry)).collect()
    };
    let (net, read, write) = (list("net", &hook.allow.net), list("read", &hook.allow.read), list("write", &hook.allow.write));
    let exec: BTreeMap<String, Vec<String>> =
        hook.allow.exec.iter().map(|(name, argv)| (name.clone(), list(&format!("exec.{name}"), argv))).collect();
    let grants = Grants { net, read, write, env: hook.allow.env.clone(), exec };
    let probes = hook.probes.iter().map(|(name, declared)| (name.clone(), probe(name, declared, &mut text))).collect();
    if errors.is_empty() { Ok(RenderedHook { args, grants, probes }) } else { Err(errors) }
}

fn probe(name: &str, declared: &Probe, text: &mut impl FnMut(String, &str) -> String) -> Probe {
    let mut text = |key: &str, template: &str| text(format!("probes.{name}.{key}"), template);
    match declared {
        Probe::Http { url } => Probe::Http { url: text("url", url) },
        Probe::Stream { address, send, until } => {
            Probe::Stream { address: text("address", address), send: text("send", send), until: *until }
        }
    }
}

fn value(declared: &Value, key: &str, text: &mut impl FnMut(String, &str) -> String) -> Value {
    match declared {
        Value::String(template) => Value::String(text(key.to_owned(), template)),
        Value::Array(values) => Value::Array(values.iter().map(|inner| value(inner, key, text)).collect()),
        Value::Object(values) => {
            let inner = |(name, inner): (&String, &Value)| (name.clone(), value(inner, &format!("{key}.{name}"), text));
            Value::Object(values.iter().map(inner).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => declared.clone(),
    }
}

/// The data that templates see, as a hook reads it.
pub fn snapshot(data: &Value) -> String {
    let named = |name: &&str| Some(((*name).to_owned(), data.get(*name)?.clone()));
    Value::Object(SNAPSHOT.iter().filter_map(named).collect::<Map<String, Value>>()).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::model::Check;

    #[test]
    fn templates_in_arguments_and_grants_are_rendered_and_errors_name_the_key() {
        let hook = |port: &str| Hook {
            check: Check::Module("hooks/a.wasm".to_owned()),
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            failures: 1,
            memory: 0,
            args: json!({ "url": format!("http://127.0.0.1:{port}/"), "deep": [{ "n": 1, "t": port }] }),
            allow: Grants {
                net: vec![format!("127.0.0.1:{port}")],
                exec: BTreeMap::from([("x".to_owned(), vec!["/bin/x".to_owned(), port.to_owned()])]),
                ..Grants::default()
            },
            probes: Probes::from([
                ("web".to_owned(), Probe::Http { url: format!("http://a:{port}/") }),
                ("raw".to_owned(), Probe::Stream { address: format!("a:{port}"), send: port.to_owned(), until: Some(1) }),
            ]),
        };
        let data = json!({ "cfg": { "port": 80 }, "own": 1 });
        let rendered = render_hook(HookKind::Init, &hook("{{cfg.port}}"), &data, Templates::Strict).unwrap();
        assert_eq!(rendered.args, json!({ "url": "http://127.0.0.1:80/", "deep": [{ "n": 1, "t": "80" }] }));
        assert_eq!(rendered.grants.net, ["127.0.0.1:80"]);
        assert_eq!(rendered.grants.exec["x"], ["/bin/x", "80"]);
        assert_eq!(rendered.probes["web"], Probe::Http { url: "http://a:80/".to_owned() });
        let raw = Probe::Stream { address: "a:80".to_owned(), send: "80".to_owned(), until: Some(1) };
        assert_eq!(rendered.probes["raw"], raw);
        let errors = render_hook(HookKind::Init, &hook("{{cfg.gone}}"), &data, Templates::Strict).unwrap_err();
        assert_eq!(errors.len(), 7);
        assert!(errors[0].to_string().contains("hooks.init.args"), "{}", errors[0]);
        assert_eq!(snapshot(&data), r#"{"cfg":{"port":80}}"#);
    }
}
