//! A module that was loaded: linked against what there is, and looked at for the hooks that it is.

use std::collections::BTreeSet;
use std::fs::File;

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Engine, Store};

use super::bindings::{All, exports::tagfall::hooks as exported};
use super::command::{self, Command};
use super::guest::Guest;
use super::wasi;
use crate::hooks::wire::{Form, Inspected};
use crate::model::HookKind;

/// The package whose interfaces are ours, and its version.
const PACKAGE: &str = "tagfall:hooks/";
const VERSION: &str = "@0.1.0";
/// Versions of WASI that one component may name.
const WASI_VERSIONS_MAX: usize = 8;
/// The interfaces that may be imported, as they are written down.
const IMPORTS: &str = include_str!("../../../wit/0.1.0/imports.wit");
/// The interface of types alone, which every component names.
const TYPES: &str = "types";

/// A component is whole, but not what a hook must be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unfit(String);

impl Unfit {
    /// It lacks a hook that is to be called.
    pub(super) fn without(kind: HookKind) -> Self {
        Self(format!("the module does not export `{PACKAGE}{}{VERSION}`", kind.name()))
    }
}

/// A module that can be called.
pub(super) enum Loaded {
    Component(Box<Hooks>),
    Command(Command),
}

/// A linked component, and where its hooks are.
pub(super) struct Hooks {
    pub(super) pre: InstancePre<Guest>,
    pub(super) init: Option<exported::init::GuestIndices>,
    pub(super) post_run: Option<exported::post_run::GuestIndices>,
    pub(super) health_check: Option<exported::health_check::GuestIndices>,
    pub(super) reconfigure: Option<exported::reconfigure::GuestIndices>,
    pub(super) file_updated: Option<exported::file_updated::GuestIndices>,
    pub(super) suitability: Option<exported::suitability::GuestIndices>,
    pub(super) pre_update: Option<exported::pre_update::GuestIndices>,
    pub(super) post_update: Option<exported::post_update::GuestIndices>,
    pub(super) pre_stop: Option<exported::pre_stop::GuestIndices>,
    pub(super) post_stop: Option<exported::post_stop::GuestIndices>,
}

/// What modules are linked against.
pub(super) struct Linkers {
    component: Linker<Guest>,
    command: wasmtime::Linker<Guest>,
}

impl Linkers {
    pub(super) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut component = Linker::new(engine);
        All::add_to_linker::<_, HasSelf<_>>(&mut component, |guest: &mut Guest| guest)?;
        Ok(Self { component, command: command::linker(engine)? })
    }

    /// Maps and links a compiled module; an error is for whoever wrote the module.
    pub(super) fn load(&self, engine: &Engine, form: Form, file: File) -> Result<Loaded, String> {
        match form {
            Form::Component => {
                let component = crate::sys::wasm::component(engine, &file).map_err(|error| words(&error))?;
                self.link(engine, &component).map(Box::new).map(Loaded::Component)
            }
            Form::Command => {
                let module = crate::sys::wasm::module(engine, file).map_err(|error| words(&error))?;
                Command::link(&self.command, module).map(Loaded::Command)
            }
        }
    }

    fn link(&self, engine: &Engine, component: &Component) -> Result<Hooks, String> {
        check_imports(engine, component)?;
        let mut linker = self.component.clone();
        for version in wasi_versions(engine, component)? {
            wasi::link(&mut linker, &version).map_err(|error| words(&error))?;
        }
        wasi::resources(&mut linker, engine, component).map_err(|error| words(&error))?;
        // Only WASI's are left: what is not served ends a call that needs it.
        linker.define_unknown_imports_as_traps(component).map_err(|error| words(&error))?;
        let pre = linker.instantiate_pre(component).map_err(|error| format!("it does not link: {}", words(&error)))?;
        macro_rules! find {
            ($module:ident, $name:literal) => {{
                let interface = concat!("tagfall:hooks/", $name, "@0.1.0");
                match pre.component().get_export_index(None, interface) {
                    None => None,
                    Some(_) => Some(exported::$module::GuestIndices::new(&pre).map_err(|error| words(&error))?),
                }
            }};
        }
        Ok(Hooks {
            init: find!(init, "init"),
            post_run: find!(post_run, "post-run"),
            health_check: find!(health_check, "health-check"),
            reconfigure: find!(reconfigure, "reconfigure"),
            file_updated: find!(file_updated, "file-updated"),
            suitability: find!(suitability, "suitability"),
            pre_update: find!(pre_update, "pre-update"),
            post_update: find!(post_update, "post-update"),
            pre_stop: find!(pre_stop, "pre-stop"),
            post_stop: find!(post_stop, "post-stop"),
            pre,
        })
    }
}

/// The versions of WASI 0.2 that a component names.
fn wasi_versions(engine: &Engine, component: &Component) -> Result<BTreeSet<String>, String> {
    let types = component.component_type();
    let named = types.imports(engine).filter(|(name, _)| name.starts_with("wasi:"));
    let versions = named.filter_map(|(name, _)| Some(name.rsplit_once('@')?.1.to_owned()));
    let versions: BTreeSet<String> = versions.filter(|version| version.starts_with("0.2.")).collect();
    if versions.len() > WASI_VERSIONS_MAX { Err("it names too many versions of WASI".to_owned()) } else { Ok(versions) }
}

/// Everything that is imported must be ours, to the function, or WASI's, which has nothing behind it.
fn check_imports(engine: &Engine, component: &Component) -> Result<(), String> {
    for (name, item) in component.component_type().imports(engine) {
        if name.starts_with("wasi:") {
            continue;
        }
        let interface = name.strip_prefix(PACKAGE).map(|rest| rest.split('@').next().unwrap_or_default());
        let Some(functions) = interface.and_then(functions) else {
            return Err(format!(
                "it imports `{}`, which is not there: a module may import the interfaces of `tagfall:hooks{VERSION}`, and WASI's",
                shown(name)
            ));
        };
        let ComponentItem::ComponentInstance(instance) = item.ty else { continue };
        let imported = instance.exports(engine).filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
        if let Some((function, _)) = imported.into_iter().find(|(function, _)| !functions.contains(function)) {
            return Err(format!("it does not link: `{}` has no function `{}`", shown(name), shown(function)));
        }
    }
    Ok(())
}

/// The functions of an interface that may be imported; `None` where there is no such interface.
fn functions(interface: &str) -> Option<Vec<&'static str>> {
    if interface == TYPES {
        return Some(Vec::new());
    }
    let lines =
        IMPORTS.lines().map(str::trim).skip_while(|line| line.strip_prefix("interface ") != Some(&format!("{interface} {{")));
    let mut body = lines.peekable();
    body.next()?;
    let body = body.take_while(|line| !line.starts_with("interface "));
    Some(body.filter_map(|line| Some(line.split_once(": func(")?.0)).collect())
}

/// A name out of a module, as it may be shown.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(128).collect::<String>().escape_debug().to_string()
}

/// An error with its causes, in one line.
pub(super) fn words(error: &wasmtime::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}

impl Loaded {
    /// Makes an instance, which runs what a module does first, and checks the types of its hooks.
    pub(super) async fn inspect(&self, engine: &Engine, store: &mut Store<Guest>) -> Result<Inspected, wasmtime::Error> {
        match self {
            Self::Component(hooks) => hooks.inspect(engine, store).await,
            Self::Command(command) => Ok(command.inspect()),
        }
    }
}

impl Hooks {
    async fn inspect(&self, engine: &Engine, store: &mut Store<Guest>) -> Result<Inspected, wasmtime::Error> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let mut hooks = Vec::new();
        macro_rules! load {
            ($field:ident, $kind:ident) => {
                if let Some(indices) = &self.$field {
                    let wrong = |error| Unfit(format!("its hook `{}` is not of its type: {error:#}", HookKind::$kind.name()));
                    indices.load(&mut *store, &instance).map_err(wrong)?;
                    hooks.push(HookKind::$kind);
                }
            };
        }
        load!(health_check, HealthCheck);
        load!(init, Init);
        load!(post_run, PostRun);
        load!(reconfigure, Reconfigure);
        load!(file_updated, FileUpdated);
        load!(suitability, Suitability);
        load!(pre_update, PreUpdate);
        load!(post_update, PostUpdate);
        load!(pre_stop, PreStop);
        load!(post_stop, PostStop);
        let types = self.pre.component().component_type();
        let mut imports = Vec::new();
        for (name, item) in types.imports(engine) {
            match item.ty {
                ComponentItem::ComponentInstance(instance) => {
                    let functions =
                        instance.exports(engine).filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
                    imports.extend(functions.map(|(function, _)| format!("{}#{}", shown(name), shown(function))));
                }
                ComponentItem::ComponentFunc(_)
                | ComponentItem::CoreFunc(_)
                | ComponentItem::Module(_)
                | ComponentItem::Component(_)
                | ComponentItem::Type(_)
                | ComponentItem::Resource(_) => imports.push(shown(name)),
            }
        }
        let ours = |name: &str| {
            let interface = name.strip_prefix(PACKAGE).map(|rest| rest.split('@').next().unwrap_or_default());
            interface.is_some_and(|interface| HookKind::ALL.iter().any(|kind| kind.name() == interface))
        };
        let unknown_exports = types.exports(engine).filter(|(name, _)| !ours(name)).map(|(name, _)| shown(name)).collect();
        if hooks.is_empty() {
            let why = "it has no hook: a component exports at least one interface of `tagfall:hooks`";
            return Err(wasmtime::Error::new(Unfit(why.to_owned())));
        }
        let memory = store.data().limits.peak as u64;
        Ok(Inspected { form: Form::Component, hooks, imports, unknown_exports, memory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_imported_is_what_is_written_down() {
        assert_eq!(functions("log"), Some(vec!["log"]));
        assert_eq!(functions("probe"), Some(vec!["http", "tcp", "unix"]));
        assert_eq!(functions("clock"), Some(vec!["now-unix-ms", "monotonic-ns", "sleep-ms"]));
        assert_eq!(functions("types"), Some(Vec::new()));
        assert_eq!((functions("telepathy"), functions("")), (None, None));
    }
}
