//! A Habitat plan's folder: `default.toml` is `[config]`, every file of `config/` is a template, whatever its name, and a name
//! that is missing prints nothing. Its hooks and its plan are not looked at.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::input::{Input, Whole, read_below, read_bounded};
use crate::cli::{CliError, repository};
use crate::manifest::{parse_config_layer, parse_release};
use crate::model::{ConfigFile, Group, TreeFile};

/// The group that the templates are those of, where the folder's name is not one.
const NAME: &str = "plan";

/// Whether a folder is one.
pub(super) fn is_plan(folder: &Path) -> bool {
    folder.join("default.toml").is_file() && folder.join("config").is_dir() && !folder.join("group.toml").is_file()
}

/// Reads a plan as the group that it would be.
pub(super) fn read(folder: &Path, wanted: Option<String>) -> Result<Input, CliError> {
    let failed = |path: &Path, error| CliError::could_not_run(format!("read `{}`", path.display()), error);
    let defaults = folder.join("default.toml");
    let bytes = read_bounded(&defaults).map_err(|error| failed(&defaults, error))?;
    let text =
        String::from_utf8(bytes).map_err(|error| CliError::could_not_run(format!("read `{}`", defaults.display()), error))?;
    let config = match parse_config_layer(&defaults.display().to_string(), &text) {
        Ok(config) => config,
        Err(found) => return Ok(Input::Broken(found)),
    };
    let below = folder.join("config");
    let files = read_below(&below).map_err(|error| failed(&below, error))?;
    let contents: BTreeMap<_, _> = files.into_iter().map(|(path, bytes)| (format!("{path}.hbs"), bytes)).collect();
    let mut group = stand_in(folder).ok_or_else(|| CliError::usage("no group can be made of it", "give it a `group.toml`"))?;
    group.config.clone_from(&config);
    group.config_default = config;
    let file = |(path, bytes): (&String, &Vec<u8>)| ConfigFile {
        path: path.clone(),
        blob: repository::no_commit(),
        executable: false,
        size: bytes.len() as u64,
    };
    group.files = contents.iter().map(file).collect();
    let wanted = wanted.map(|path| format!("{path}.hbs"));
    let shown = folder.to_owned();
    Ok(Input::Group(Box::new(Whole { group, contents, shown, wanted, ring: None, is_habitat: true })))
}

/// A lenient group of the folder's name, published where Habitat would put it.
fn stand_in(folder: &Path) -> Option<Group> {
    let real = folder.canonicalize().ok();
    let name = real.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or(NAME);
    [name, NAME].into_iter().find_map(|name| {
        let text = format!("format = 1\ntemplates = \"lenient\"\n[placement]\n[mount]\npath = \"/hab/svc/{name}/config\"\n");
        let file = TreeFile {
            path: format!("groups/{name}/group.toml"),
            blob: repository::no_commit(),
            executable: false,
            size: text.len() as u64,
            content: Some(Arc::from(text.into_bytes())),
        };
        let parsed = parse_release(&[file], None).ok()?;
        parsed.groups.into_values().next().map(Arc::unwrap_or_clone)
    })
}
