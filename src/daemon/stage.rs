//! Renders a group and writes its publication, without showing it to anybody.

use std::collections::BTreeMap;
use std::path::Path;

use super::context::{Commands, Context};
use super::effects::{chain, publish_failure};
use super::modules;
use crate::model::{Check, ConfigFile, ContainerLaunch, Group, HookKind, Launch, ObjectId, Reason, Service, TagName};
use crate::plan::{Failure, Prepared, Wanted};
use crate::publish::Reader;
use crate::render::{self, Host, Launched, Layer, RenderError, RenderedFile, RenderedHook};

/// A group, rendered.
pub(crate) struct Rendered {
    pub(crate) files: Vec<RenderedFile>,
    pub(crate) launch: Option<Launch>,
    pub(crate) check: Option<Check>,
    /// `allow.exec` of the health check.
    pub(crate) commands: Commands,
    /// Hooks that are modules.
    pub(crate) hooks: BTreeMap<HookKind, RenderedHook>,
    /// What those see of the data, as JSON.
    pub(crate) snapshot: String,
    /// Layers or keys that were left out, and why.
    pub(crate) notices: Vec<String>,
}

/// Reads the content of a file of the release, or says why not.
pub(crate) type ReadFile<'a> = dyn FnMut(&ConfigFile) -> Result<Vec<u8>, String> + 'a;

/// What rendering needs beside the group: where and for whom.
pub(crate) struct Place<'a> {
    pub(crate) host: &'a Host,
    pub(crate) data_dir: &'a Path,
    pub(crate) layers: &'a [Layer],
    /// Tag and commit that templates show.
    pub(crate) release: (&'a TagName, &'a ObjectId),
}

/// Renders everything of a group that is a template; every error is listed.
pub(crate) fn render(place: &Place<'_>, group: &Group, read: &mut ReadFile<'_>) -> Result<Rendered, Vec<String>> {
    let (config, left_out) = render::effective(group, place.layers);
    let data = render::data(place.host, group, &config, place.release);
    let mut errors: Vec<String> = Vec::new();
    let mut note = |found: Vec<RenderError>| errors.extend(found.iter().map(ToString::to_string));
    let files = render::render_files(group, read, &data).unwrap_or_else(|found| {
        note(found);
        Vec::new()
    });
    let service = group.service.as_ref();
    let launched = service.and_then(|service| render::render_launch(group, service, &data).map_err(&mut note).ok());
    let hook = group.hooks.get(&HookKind::HealthCheck);
    let mut hooks = BTreeMap::new();
    for (kind, hook) in group.hooks.iter().filter(|(_, hook)| matches!(hook.check, Check::Module(_))) {
        match render::render_hook(*kind, hook, &data, group.templates) {
            Ok(rendered) => drop(hooks.insert(*kind, rendered)),
            Err(found) => note(found),
        }
    }
    let snapshot = if hooks.is_empty() { String::new() } else { render::snapshot(&data) };
    let mut text = |key: &str, template: &str| {
        render::render_text(key, template, &data, group.templates).unwrap_or_else(|error| {
            note(vec![error]);
            String::new()
        })
    };
    let check = hook.map(|hook| check(&hook.check, &mut text));
    let commands = hook.map(|hook| commands(&hook.allow.exec, &mut text)).unwrap_or_default();
    let launch = service.zip(launched).map(|(service, launched)| launch(place.data_dir, group, service, launched, &mut text));
    let notices = left_out.iter().map(ToString::to_string).collect();
    if errors.is_empty() { Ok(Rendered { files, launch, check, commands, hooks, snapshot, notices }) } else { Err(errors) }
}

/// Renders one string of the manifest: its key, then its template.
type Text<'a> = dyn FnMut(&str, &str) -> String + 'a;

/// A hook's check with its templates rendered.
fn check(declared: &Check, text: &mut Text<'_>) -> Check {
    match declared {
        Check::Module(path) => Check::Module(path.clone()),
        Check::Http { url, status, body } => {
            Check::Http { url: text("args.url", url), status: *status, body: body.as_ref().map(|body| text("args.body", body)) }
        }
        Check::Tcp { address } => Check::Tcp { address: text("args.address", address) },
        Check::File { path, max_age } => Check::File { path: text("args.path", path), max_age: *max_age },
        Check::Exec { command } => Check::Exec { command: command.clone() },
    }
}

fn commands(declared: &Commands, text: &mut Text<'_>) -> Commands {
    let render = |(name, argv): (&String, &Vec<String>)| {
        let key = format!("allow.exec.{name}");
        (name.clone(), argv.iter().map(|argument| text(&key, argument)).collect())
    };
    declared.iter().map(render).collect()
}

fn launch(data_dir: &Path, group: &Group, service: &Service, (argv, env): Launched, text: &mut Text<'_>) -> Launch {
    let var = || data_dir.join("var").join(group.name.to_string()).display().to_string();
    let container = service.container.as_ref().map(|container| ContainerLaunch {
        image: text("service.container.image", &container.image),
        ports: container.ports.clone(),
        mount_path: group.mount.as_ref().map(|mount| mount.path.clone()),
    });
    let default_dir = || if service.container.is_some() { String::new() } else { var() };
    Launch {
        argv,
        env,
        user: service.user.clone(),
        working_dir: service.working_dir.as_ref().map_or_else(default_dir, |folder| text("service.working_dir", folder)),
        container,
        limits: service.limits,
        listen: service.listen.iter().map(|socket| text("service.listen", socket)).collect(),
        hardening: Some(service.hardening),
    }
}

/// Renders with the context's layers and the store's files.
pub(super) fn render_here(context: &Context, group: &Group, release: (&TagName, &ObjectId)) -> Result<Rendered, Vec<String>> {
    let layers = context.layers(&group.name);
    let place = Place { host: &context.host, data_dir: &context.data_dir, layers: &layers, release };
    let mut read = |file: &ConfigFile| context.source.read_blob(file.blob).map_err(|error| chain(&error));
    render(&place, group, &mut read)
}

/// The primary group of a user; `None` for one that is not there: then everybody may read, and the start says what is wrong.
fn reader_of(user: &str) -> Option<Reader> {
    let name = std::ffi::CString::new(user).ok()?;
    let found = crate::sys::process::user_by_name(&name).ok().flatten()?;
    Some(Reader { user: user.to_owned(), gid: found.gid })
}

/// Renders and writes. What is shown is not touched.
pub(super) fn stage(context: &Context, wanted: &Wanted, fresh_copy: bool) -> Result<Prepared, Failure> {
    let group = &wanted.group;
    let rendered = render_here(context, group, (&wanted.first.tag, &wanted.first.commit))
        .map_err(|errors| Failure::new(Reason::RenderFailed, errors.join("; ")))?;
    let release = (&wanted.first.tag, &wanted.first.commit);
    let hooks = modules::prepare(context, group, &rendered, release)
        .map_err(|why| Failure::new(Reason::RenderFailed, format!("a module cannot be read: {why}")))?;
    let publication = match &group.mount {
        Some(_) => {
            // The users of a container are those of its image: everybody may read.
            let service = group.service.as_ref().filter(|service| service.container.is_none());
            let user = service.and_then(|service| service.user.as_deref());
            // Only root can give files to another group; for others, everybody may read.
            let reader = user.filter(|_| context.publisher.gives_to_groups()).and_then(reader_of);
            let written = context.publisher.write(&group.name, &rendered.files, reader.as_ref(), fresh_copy);
            Some(written.map_err(|error| publish_failure(&error))?)
        }
        None => None,
    };
    let copies = context.publisher.list(&group.name).map_err(|error| publish_failure(&error))?;
    context.set_commands(&group.name, rendered.commands.clone());
    context.set_modules(&group.name, hooks.values().map(|hook| hook.module).collect());
    let Rendered { launch, check, notices, .. } = rendered;
    Ok(Prepared { publication, launch, check, hooks, copies, notices })
}
