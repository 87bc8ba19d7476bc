//! The config layers above a release: the environment once, the user's files whenever they change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use notify::{RecursiveMode, Watcher};
use serde_json::Value;

use super::context::Context;
use crate::manifest::parse_config_layer;
use crate::model::{Digest, GroupName};
use crate::plan::Layers;
use crate::render::{Layer, Origin};

/// Longest layer that is read, in bytes.
const LAYER_MAX_BYTES: u64 = 1024 * 1024;

/// Variables whose rest names a service: `TAGFALL_CFG_REDIS` or `TAGFALL_CFG_REDIS_DEFAULT`.
const VARIABLE_PREFIX: &str = "TAGFALL_CFG_";

/// The folder of the user's layers.
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("user")
}

/// Reads the layers of one group, keeps their values in the context and says what planning needs to know of them. A layer that
/// cannot be read is left out whole, by name.
pub(super) fn read(context: &Context, group: &GroupName) -> Layers {
    let (layers, errors) = gather(&context.env, &context.data_dir, group);
    let digest = if layers.is_empty() { None } else { Some(digest(&layers)) };
    context.set_layers(group, layers);
    Layers { digest, errors }
}

/// The layers of one group, and why any was left out.
pub(crate) fn gather(env: &BTreeMap<String, String>, data_dir: &Path, group: &GroupName) -> (Vec<Layer>, Vec<String>) {
    let mut layers = Vec::new();
    let mut errors = Vec::new();
    for name in variables(group) {
        if let Some(text) = env.get(&name) {
            take(Origin::Environment, &name, text, &mut layers, &mut errors);
        }
    }
    let path = folder(data_dir).join(format!("{group}.toml"));
    match read_file(&path) {
        Ok(Some(text)) => take(Origin::User, &path.display().to_string(), &text, &mut layers, &mut errors),
        Ok(None) => {}
        Err(error) => errors.push(format!("layer `{}` is left out: {error}", path.display())),
    }
    (layers, errors)
}

fn variables(group: &GroupName) -> Vec<String> {
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let service = format!("{VARIABLE_PREFIX}{}", upper(group.service()));
    let whole = format!("{service}_{}", upper(group.group()));
    vec![service, whole]
}

fn read_file(path: &Path) -> std::io::Result<Option<String>> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > LAYER_MAX_BYTES => {
            Err(std::io::Error::other(format!("it is longer than {LAYER_MAX_BYTES} bytes")))
        }
        Ok(_) => std::fs::read_to_string(path).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn take(origin: Origin, name: &str, text: &str, layers: &mut Vec<Layer>, errors: &mut Vec<String>) {
    match parse_config_layer(name, text) {
        Ok(values) => layers.push(Layer { origin, values }),
        Err(found) => {
            let words: Vec<String> =
                found.iter().map(|error| format!("{}:{}:{}: {}", error.file, error.line, error.column, error.message)).collect();
            errors.push(format!("layer `{name}` is left out: {}", words.join("; ")));
        }
    }
}

fn digest(layers: &[Layer]) -> Digest {
    let values: Vec<&Value> = layers.iter().map(|layer| &layer.values).collect();
    Digest::of(format!("{values:?}").as_bytes())
}

/// Watches the user's folder: `changed` gets the group of every file that may be another now.
pub(super) fn watch(data_dir: &Path, changed: impl Fn(GroupName) + Send + 'static) -> notify::Result<notify::RecommendedWatcher> {
    let folder = folder(data_dir);
    std::fs::create_dir_all(&folder).map_err(notify::Error::io)?;
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        if event.kind.is_access() {
            return;
        }
        for path in &event.paths {
            let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".toml"));
            if let Some(group) = stem.and_then(|stem| stem.parse().ok()) {
                changed(group);
            }
        }
    })?;
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
