//! What a group publishes and starts: its files, its arguments, its environment, rendered.
//!
//! Every file of `config/` is read through the caller's closure; those named `.hbs` are templates, all else is copied
//! byte for byte. All errors of all files are told together.

use std::collections::BTreeMap;

use handlebars::Context;
use serde_json::Value;

use super::engine::{Engine, RenderError};
use crate::model::{ConfigFile, Digest, DigestBuilder, Group, Service, Templates};

/// One file of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedFile {
    /// Path below the mount point, `/`-separated.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Whether it may be run.
    pub executable: bool,
}

/// Arguments and environment of a service.
pub type Launched = (Vec<String>, Vec<(String, String)>);

/// Renders a group's files, in the order of their published paths. A template may include another of the group by its
/// published path, as in Habitat: `{{> nginx/common.conf}}`.
pub fn render_files(
    group: &Group,
    contents: &mut dyn FnMut(&ConfigFile) -> Result<Vec<u8>, String>,
    data: &Value,
) -> Result<Vec<RenderedFile>, Vec<RenderError>> {
    let mut engine = Engine::new();
    let mut files = Vec::new();
    let mut templates = Vec::new();
    let mut errors = Vec::new();
    for file in &group.files {
        let (target, is_template) = file.target();
        let named = format!("config/{}", file.path);
        match contents(file) {
            Err(message) => errors.push(RenderError::whole(&named, message)),
            Ok(bytes) if is_template => match std::str::from_utf8(&bytes) {
                Ok(text) => match engine.add(target, &named, text) {
                    Ok(()) => templates.push((target, named, file.executable)),
                    Err(mut failed) => errors.append(&mut failed),
                },
                Err(_) => errors.push(RenderError::whole(&named, "a template must be UTF-8 text".to_owned())),
            },
            Ok(bytes) => files.push(RenderedFile { path: target.to_owned(), bytes, executable: file.executable }),
        }
    }
    let whole = errors.is_empty();
    let data = Context::from(data.clone());
    for (target, named, executable) in templates {
        match engine.render(target, &named, &data, group.templates) {
            Ok(done) => files.push(RenderedFile { path: target.to_owned(), bytes: done.text.into_bytes(), executable }),
            // An error of a template that several include is told once, and what a broken one cannot give to those
            // that include it is not their error.
            Err(failed) => {
                for error in failed {
                    if (whole || error.name.is_some()) && !errors.contains(&error) {
                        errors.push(error);
                    }
                }
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    files.sort_by(|one, two| one.path.cmp(&two.path));
    Ok(files)
}

/// Renders the arguments and the environment of a service; an argument stays one argument, whatever is in it.
pub fn render_launch(group: &Group, service: &Service, data: &Value) -> Result<Launched, Vec<RenderError>> {
    let mut errors = Vec::new();
    let data = Context::from(data.clone());
    let mut render = |key: String, text: &str| one(&key, text, &data, group.templates, &mut errors);
    let (key, argv) = match &service.container {
        Some(container) => ("service.container.command", &container.command),
        None => ("service.exec", &service.exec),
    };
    let argv = argv.iter().enumerate().map(|(nth, text)| render(format!("{key}[{nth}]"), text)).collect();
    let own = service.env.iter().map(|(name, text)| (name, ("service.env", text)));
    let inner = service.container.iter().flat_map(|container| &container.env);
    let inner = inner.map(|(name, text)| (name, ("service.container.env", text)));
    let env: BTreeMap<_, _> = own.chain(inner).collect();
    let env = env.into_iter().map(|(name, (key, text))| (name.clone(), render(format!("{key}.{name}"), text))).collect();
    if errors.is_empty() { Ok((argv, env)) } else { Err(errors) }
}

/// Renders every string within a value, such as a hook's `args`. `key` is what errors call it.
pub fn render_value(key: &str, value: &Value, data: &Value, mode: Templates) -> Result<Value, Vec<RenderError>> {
    let mut errors = Vec::new();
    let done = within(key, value, &Context::from(data.clone()), mode, &mut errors);
    if errors.is_empty() { Ok(done) } else { Err(errors) }
}

fn within(key: &str, value: &Value, data: &Context, mode: Templates, errors: &mut Vec<RenderError>) -> Value {
    match value {
        Value::String(text) => Value::String(one(key, text, data, mode, errors)),
        Value::Array(list) => {
            let parts = list.iter().enumerate();
            parts.map(|(nth, part)| within(&format!("{key}[{nth}]"), part, data, mode, errors)).collect()
        }
        Value::Object(table) => {
            let parts = table.iter();
            parts.map(|(name, part)| (name.clone(), within(&format!("{key}.{name}"), part, data, mode, errors))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Renders one string; most have nothing to render.
fn one(key: &str, text: &str, data: &Context, mode: Templates, errors: &mut Vec<RenderError>) -> String {
    if !text.contains("{{") {
        return text.to_owned();
    }
    let mut engine = Engine::new();
    let done = engine.add(key, key, text).and_then(|()| engine.render(key, key, data, mode));
    match done {
        Ok(done) => done.text,
        Err(mut failed) => {
            errors.append(&mut failed);
            String::new()
        }
    }
}

/// A digest of names, modes and contents, whatever the order.
pub fn content_digest(files: &[RenderedFile]) -> Digest {
    let mut files: Vec<&RenderedFile> = files.iter().collect();
    files.sort_by(|one, two| one.path.cmp(&two.path));
    let mut digest = DigestBuilder::new("publication");
    for file in files {
        let mode: &[u8] = if file.executable { b"x" } else { b"-" };
        digest = digest.field(file.path.as_bytes()).field(mode).field(&file.bytes);
    }
    digest.finish()
}
