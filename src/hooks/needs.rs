//! What a module's imports tell of the grants that it will ask for: pure.

use super::doors::allow_line;
use super::wire::{Form, Inspected};
use crate::model::{Grants, HookKind, Probes};

/// The interfaces that tools for dynamic languages import as a whole, used or not.
const ALL: [&str; 7] = ["log", "config", "census", "probe", "exec", "files", "clock"];

/// Grants that a hook asks for by what it imports, and that `allow` does not give: each in words, with the line to write.
///
/// A module that imports every interface there is says nothing by that, as tools for Python and JavaScript make them so: what it
/// really asks for is seen when it asks.
pub fn missing_grants(kind: HookKind, inspected: &Inspected, grants: &Grants) -> Vec<String> {
    let imports = |interface: &str| {
        let name = format!("tagfall:hooks/{interface}@");
        inspected.imports.iter().any(|import| import.starts_with(&name))
    };
    if ALL.iter().all(|interface| imports(interface)) {
        return Vec::new();
    }
    let function = |interface: &str, names: &[&str]| {
        let start = format!("tagfall:hooks/{interface}@");
        let is_one = |import: &&String| {
            import.starts_with(&start) && import.rsplit_once('#').is_some_and(|(_, name)| names.contains(&name))
        };
        inspected.imports.iter().find(is_one).cloned()
    };
    let mut out = Vec::new();
    let mut need = |import: Option<String>, given: bool, add: fn(&mut Grants)| {
        let Some(import) = import.filter(|_| !given) else { return };
        let mut grants = grants.clone();
        add(&mut grants);
        out.push(format!(
            "it imports `{import}`, which nothing in its `allow` opens: `[hooks.{}]` in group.toml would need  {}",
            kind.name(),
            allow_line(&grants)
        ));
    };
    need(function("probe", &["http", "tcp", "unix"]), !grants.net.is_empty(), |grants| grants.net.push("HOST:PORT".to_owned()));
    need(function("exec", &["run"]), !grants.exec.is_empty(), |grants| {
        grants.exec.insert("NAME".to_owned(), vec!["/path/of/program".to_owned()]);
    });
    need(function("files", &["write", "remove"]), !grants.write.is_empty(), |grants| grants.write.push("/PATH".to_owned()));
    let readable = !grants.read.is_empty() || !grants.write.is_empty();
    need(function("files", &["read", "list-dir"]), readable, |grants| grants.read.push("/PATH".to_owned()));
    out
}

/// Why a module takes no `probes`: only a command finds their answers, in its input.
pub fn unread_probes(kind: HookKind, inspected: &Inspected, probes: &Probes) -> Option<String> {
    let unread = inspected.form == Form::Component && !probes.is_empty();
    let why = || {
        format!(
            "it is a component, and would never see the answers to the `probes` of `[hooks.{}]`: those are in the input of a \
             WASI command; a component asks by itself, with `probe` of `tagfall:hooks` and  allow = {{ net = [\"HOST:PORT\"] }}",
            kind.name()
        )
    };
    unread.then(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Probe;

    fn inspected(imports: &[&str]) -> Inspected {
        let imports = imports.iter().map(|import| format!("tagfall:hooks/{}", import.replace('#', "@0.1.0#"))).collect();
        Inspected { form: Form::Component, hooks: Vec::new(), imports, unknown_exports: Vec::new(), memory: 0 }
    }

    #[test]
    fn what_is_imported_and_not_granted_is_named_with_the_line() {
        let module = inspected(&["log#log", "probe#http", "files#read"]);
        let grants = Grants { read: vec!["/etc/web".to_owned()], ..Grants::default() };
        let missing = missing_grants(HookKind::Init, &module, &grants);
        assert_eq!(missing.len(), 1);
        assert!(
            missing[0]
                .ends_with(r#"`[hooks.init]` in group.toml would need  allow = { net = ["HOST:PORT"], read = ["/etc/web"] }"#),
            "{missing:?}"
        );
        let grants = Grants { net: vec!["a:1".to_owned()], write: vec!["/x".to_owned()], ..Grants::default() };
        assert_eq!(missing_grants(HookKind::Init, &module, &grants), [""; 0]);
        let module = inspected(&["files#write", "exec#run"]);
        assert_eq!(missing_grants(HookKind::Init, &module, &Grants::default()).len(), 2);
    }

    #[test]
    fn a_module_that_imports_everything_says_nothing_by_it() {
        let all = ["log#log", "config#get", "census#me", "probe#http", "exec#run", "files#write", "clock#sleep-ms"];
        assert_eq!(missing_grants(HookKind::Init, &inspected(&all), &Grants::default()), [""; 0]);
    }

    #[test]
    fn probes_are_for_commands() {
        let component = inspected(&["probe#http"]);
        let command = Inspected { form: Form::Command, ..component.clone() };
        let probes = Probes::from([("web".to_owned(), Probe::Http { url: "http://a/".to_owned() })]);
        assert!(unread_probes(HookKind::Init, &component, &probes).is_some_and(|why| why.contains("`[hooks.init]`")));
        assert_eq!(unread_probes(HookKind::Init, &component, &Probes::new()), None);
        assert_eq!(unread_probes(HookKind::Init, &command, &probes), None);
    }
}
