//! What a module that is tried is told and granted: from the command line, and from a group's folder where one is named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::CliError;
use crate::cli::render::input::{Input, Whole};
use crate::cli::repository;
use crate::hooks::{Inspected, unread_probes};
use crate::model::{
    Check, Digest, Grants, GroupName, Hook, HookCall, HookContext, HookInput, HookKind, HookMember, ObjectId, Probe, Probes,
    TagName,
};
use crate::render;

/// Of a hook where no `group.toml` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(2);
const MEMORY_BYTES: u64 = 64 << 20;
const GROUP: &str = "try";

#[derive(Debug, clap::Args)]
pub(super) struct Setting {
    /// Which hook to call [default: the one that the group has the module for, else its only one, else `health-check`]
    #[arg(long, value_name = "HOOK", value_parser = kind)]
    pub(super) hook: Option<HookKind>,
    /// A group's folder: arguments, grants, limits and config are those of its `group.toml`
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    group: Option<PathBuf>,
    /// Grant something: `net=HOST:PORT`, `net=unix:PATH`, `read=PATH`, `write=PATH`, `env=NAME`, `exec=NAME=PROGRAM ARGUMENT …`
    #[arg(long, value_name = "GRANT", value_parser = grant)]
    allow: Vec<Grant>,
    /// Ask something before a command begins; it reads the answer: `NAME=http://…`, `NAME=HOST:PORT` or `NAME=unix:/PATH`
    #[arg(long, value_name = "PROBE", value_parser = probe)]
    probe: Vec<(String, Probe)>,
    /// `args`, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    args: Option<Value>,
    /// What the hook sees of the configuration, as a JSON object with `cfg`, `svc`, `sys`, `bind`
    #[arg(long, value_name = "JSON", value_parser = object)]
    config: Option<Value>,
    /// What it is told of the call, as a JSON object: `release`, `commit`, `reason`, `attempt`, `extra`, and what the hook itself
    /// takes: `pid`, `changed`, `paths`, `next`, `previous`, `code`, `signal`
    #[arg(long, value_name = "JSON", value_parser = object)]
    context: Option<Value>,
    /// Longest time of a call [default: the group's, else 2s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Most memory of a call, in MiB [default: the group's, else 64]
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,
}

/// One `--allow`.
#[derive(Debug, Clone)]
enum Grant {
    Net(String),
    Read(String),
    Write(String),
    Env(String),
    Exec(String, Vec<String>),
}

pub(super) fn kind(text: &str) -> Result<HookKind, String> {
    HookKind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
        let names: Vec<&str> = HookKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("the hooks are {}", names.join(", "))
    })
}

fn object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("a JSON object is wanted: {\"name\": …}".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn grant(text: &str) -> Result<Grant, String> {
    let forms = "write net=HOST:PORT, net=unix:PATH, read=PATH, write=PATH, env=NAME or exec=NAME=PROGRAM ARGUMENT …";
    let (what, value) = text.split_once('=').filter(|(_, value)| !value.is_empty()).ok_or(forms)?;
    let value = value.to_owned();
    match what {
        "net" => Ok(Grant::Net(value)),
        "read" => Ok(Grant::Read(value)),
        "write" => Ok(Grant::Write(value)),
        "env" => Ok(Grant::Env(value)),
        "exec" => {
            let (name, command) = value.split_once('=').ok_or(forms)?;
            Ok(Grant::Exec(name.to_owned(), command.split_whitespace().map(str::to_owned).collect()))
        }
        _ => Err(forms.to_owned()),
    }
}

fn probe(text: &str) -> Result<(String, Probe), String> {
    let forms = "write NAME=http://HOST:PORT/PATH, NAME=HOST:PORT or NAME=unix:/PATH";
    let (name, to) = text.split_once('=').filter(|(name, to)| !name.is_empty() && !to.is_empty()).ok_or(forms)?;
    let probe = if to.contains("://") {
        Probe::Http { url: to.to_owned() }
    } else {
        Probe::Stream { address: to.to_owned(), send: String::new(), until: None }
    };
    Ok((name.to_owned(), probe))
}

/// What a group says of a module.
struct Declared {
    kind: HookKind,
    name: GroupName,
    args: Value,
    grants: Grants,
    probes: Probes,
    timeout: Duration,
    memory: u64,
    snapshot: String,
}

impl Setting {
    /// The call to make of a module that was looked at.
    pub(super) fn call(&self, path: &Path, wasm: &[u8], inspected: &Inspected) -> Result<HookCall, CliError> {
        let declared = self.group.as_deref().map(|folder| self.declared(folder, path)).transpose()?;
        let only = || match inspected.hooks.as_slice() {
            [only] => *only,
            _ => HookKind::HealthCheck,
        };
        let kind = self.hook.or(declared.as_ref().map(|declared| declared.kind)).unwrap_or_else(only);
        let stand_in = GROUP.parse().map_err(|error| CliError::could_not_run("name a group", error));
        let name = match &declared {
            Some(declared) => declared.name.clone(),
            None => stand_in?,
        };
        let mut grants = declared.as_ref().map(|declared| declared.grants.clone()).unwrap_or_default();
        for grant in self.allow.iter().cloned() {
            match grant {
                Grant::Net(entry) => grants.net.push(entry),
                Grant::Read(path) => grants.read.push(path),
                Grant::Write(path) => grants.write.push(path),
                Grant::Env(name) => grants.env.push(name),
                Grant::Exec(name, argv) => drop(grants.exec.insert(name, argv)),
            }
        }
        let mut probes = declared.as_ref().map(|declared| declared.probes.clone()).unwrap_or_default();
        probes.extend(self.probe.iter().cloned());
        if let Some(why) = unread_probes(kind, inspected, &probes) {
            return Err(CliError::failed(format!("call `{}`", path.display()), repository::Words(why)));
        }
        let env = grants.env.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?))).collect();
        let args = self.args.clone().or(declared.as_ref().map(|declared| declared.args.clone()));
        let config = self.config.as_ref().map(ToString::to_string);
        let config = config.or(declared.as_ref().map(|declared| declared.snapshot.clone()));
        let me = HookMember {
            id: "this-host".to_owned(),
            group: name.to_string(),
            address: "127.0.0.1".to_owned(),
            alive: true,
            healthy: true,
            leader: true,
            suitability: 0,
            is_me: true,
        };
        Ok(HookCall {
            group: name,
            module: Digest::of(wasm),
            input: self.input(kind),
            context: self.context(),
            args_json: args.unwrap_or_else(|| json!({})).to_string().into(),
            config_json: config.unwrap_or_else(|| "{}".to_owned()).into(),
            members: Arc::new([me]),
            grants: Arc::new(grants),
            probes: Arc::new(probes),
            env,
            timeout: self.timeout.or(declared.as_ref().map(|declared| declared.timeout)).unwrap_or(TIMEOUT),
            memory: self.memory.map(|mib| mib << 20).or(declared.as_ref().map(|own| own.memory)).unwrap_or(MEMORY_BYTES),
        })
    }

    fn declared(&self, folder: &Path, path: &Path) -> Result<Declared, CliError> {
        let whole = match Input::find(folder, None)? {
            Input::Group(whole) => whole,
            Input::Broken(found) => return Err(CliError::failed("read the group", Broken(found.len()))),
            Input::Alone { .. } => {
                return Err(CliError::usage("`--group` names no folder of a group", "name one, as `groups/web`"));
            }
        };
        let Whole { group, .. } = *whole;
        let of_module = |hook: &Hook| matches!(&hook.check, Check::Module(module) if path.ends_with(module));
        let found = match self.hook {
            Some(kind) => group.hooks.get_key_value(&kind),
            None => group.hooks.iter().find(|(_, hook)| of_module(hook)),
        };
        let Some((kind, hook)) = found else {
            let message = format!("{} has no hook for this module", group.name);
            return Err(CliError::usage(message, "`--hook` names one, or write it into its `group.toml`"));
        };
        let host = repository::host(None);
        let (config, _) = render::effective(&group, &[]);
        let (tag, commit): (TagName, ObjectId) = (TagName::new(repository::NO_TAG), repository::no_commit());
        let data = render::data(&host, &group, &config, (&tag, &commit));
        let rendered = render::render_hook(*kind, hook, &data, group.templates).map_err(|errors| {
            let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
            CliError::failed("render the hook", repository::Words(words.join("; ")))
        })?;
        Ok(Declared {
            kind: *kind,
            args: rendered.args,
            grants: rendered.grants,
            probes: rendered.probes,
            timeout: hook.timeout,
            memory: hook.memory,
            snapshot: render::snapshot(&data),
            name: group.name,
        })
    }

    fn told<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_value(self.context.as_ref()?.get(name)?.clone()).ok()
    }

    fn context(&self) -> HookContext {
        let extra: BTreeMap<String, String> = self.told("extra").unwrap_or_default();
        HookContext {
            release: self.told("release").unwrap_or_default(),
            commit: self.told("commit").unwrap_or_default(),
            reason: self.told("reason").unwrap_or_else(|| "manual".to_owned()),
            attempt: self.told("attempt").unwrap_or(1),
            trace_id: self.told("trace_id").unwrap_or_else(|| "try-1".to_owned()),
            extra: extra.into_iter().collect(),
        }
    }

    fn input(&self, kind: HookKind) -> HookInput {
        match HookInput::empty(kind) {
            HookInput::PostRun { .. } => HookInput::PostRun { pid: self.told("pid") },
            HookInput::Reconfigure { .. } => HookInput::Reconfigure { changed: self.told("changed").unwrap_or_default() },
            HookInput::FileUpdated { .. } => HookInput::FileUpdated { paths: self.told("paths").unwrap_or_default() },
            HookInput::PreUpdate { .. } => HookInput::PreUpdate { next: self.told("next").unwrap_or_default() },
            HookInput::PostUpdate { .. } => HookInput::PostUpdate { previous: self.told("previous").unwrap_or_default() },
            HookInput::PostStop { .. } => HookInput::PostStop { code: self.told("code"), signal: self.told("signal") },
            other @ (HookInput::HealthCheck | HookInput::Init | HookInput::Suitability | HookInput::PreStop) => other,
        }
    }
}

/// A group that `tagfall check` has more to say about.
#[derive(Debug, thiserror::Error)]
#[error("it has {0} errors: `tagfall check` lists them")]
struct Broken(usize);
