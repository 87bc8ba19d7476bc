//! What is to be rendered: a whole group, one file of a group, a Habitat plan, or a template that stands alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Rendered, alone, data, diagnostic, habitat};
use crate::cli::CliError;
use crate::cli::repository::{self, Reading, Words};
use crate::manifest::{Diagnostic, Severity};
use crate::model::{ConfigFile, Group, ObjectId, TagName, TreeFile};
use crate::render::{self, RenderError};

/// Longest file that is read, and most files of one group.
const FILE_MAX_BYTES: u64 = 32 * 1024 * 1024;
const FILES_MAX: usize = 10_000;

/// What was named.
pub(in crate::cli) enum Input {
    /// A group, or one file of it.
    Group(Box<Whole>),
    /// A group that cannot be read, and why.
    Broken(Vec<Diagnostic>),
    /// A template that belongs to nothing.
    Alone { shown: String, target: String, bytes: Vec<u8> },
}

/// A group with its files' contents.
pub(in crate::cli) struct Whole {
    pub(in crate::cli) group: Group,
    /// By their paths below `config/`, as the group has them.
    pub(super) contents: BTreeMap<String, Vec<u8>>,
    /// The folder as it was typed, for messages.
    pub(super) shown: PathBuf,
    /// The one file that is wanted, by its path in `group`.
    pub(super) wanted: Option<String>,
    pub(super) ring: Option<String>,
    pub(super) is_habitat: bool,
}

impl Input {
    pub(in crate::cli) fn find(path: &Path, ring: Option<&str>) -> Result<Self, CliError> {
        let failed = |error| CliError::could_not_run(format!("read `{}`", path.display()), error);
        let found = fs::metadata(path).map_err(failed)?;
        if found.is_dir() {
            return group(path, path, None, ring);
        }
        if let Some((folder, file)) = owner(path) {
            return group(path, &folder, Some(file), ring);
        }
        if ring.is_some() {
            let message = format!("`{}` belongs to no group, so no ring has an overlay for it", path.display());
            return Err(CliError::usage(message, "name a group's folder, or a file in its `config`"));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let target = name.strip_suffix(".hbs").unwrap_or(&name).to_owned();
        let bytes = read_bounded(path).map_err(failed)?;
        Ok(Self::Alone { shown: path.display().to_string(), target, bytes })
    }

    pub(super) fn is_habitat(&self) -> bool {
        matches!(self, Self::Group(whole) if whole.is_habitat)
    }

    pub(super) fn render(self, over: Option<Map<String, Value>>) -> Rendered {
        match self {
            Self::Group(whole) => whole.render(over),
            Self::Broken(found) => Err(found),
            Self::Alone { shown, target, bytes } => alone(&shown, &target, bytes, &Value::Object(over.unwrap_or_default())),
        }
    }
}

/// The folder of the group that a file belongs to, as it was typed where it was, and the file's path below `config/`.
fn owner(typed: &Path) -> Option<(PathBuf, String)> {
    let real = typed.canonicalize().ok()?;
    let config = real.ancestors().skip(1).find(|folder| {
        let of = |parent: &Path| parent.join("group.toml").is_file() || habitat::is_plan(parent);
        folder.file_name().is_some_and(|name| name == "config") && folder.parent().is_some_and(of)
    })?;
    let inner = real.strip_prefix(config).ok()?;
    let below = Path::new("config").join(inner);
    let folder = if typed.ends_with(&below) { typed.ancestors().nth(below.components().count()) } else { config.parent() };
    let folder = folder?.to_path_buf();
    let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
    Some((folder, inner.to_str()?.to_owned()))
}

fn group(typed: &Path, folder: &Path, wanted: Option<String>, ring: Option<&str>) -> Result<Input, CliError> {
    let failed = |error| CliError::could_not_run(format!("read `{}`", folder.display()), error);
    let real = folder.canonicalize().map_err(failed)?;
    if !real.join("group.toml").is_file() {
        if habitat::is_plan(&real) {
            return habitat::read(folder, wanted);
        }
        let message = format!("`{}` has no `group.toml`", typed.display());
        return Err(CliError::usage(message, "name a group's folder, as `groups/web`, or one template"));
    }
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let prefix = format!("groups/{name}/");
    let mut contents = BTreeMap::new();
    for (path, bytes) in read_below(&real).map_err(failed)? {
        contents.insert(path, bytes);
    }
    let mut files: Vec<TreeFile> = contents.iter().map(|(path, bytes)| tree_file(format!("{prefix}{path}"), bytes)).collect();
    files.extend(neighbours(&real, &name));
    let reading = Reading::of(&files, ring);
    let group = name.parse().ok().and_then(|name| reading.groups.get(&name).cloned());
    let Some(group) = group else { return Ok(Input::Broken(broken(reading.found, &prefix, folder))) };
    let below = |(path, bytes): (String, Vec<u8>)| Some((path.strip_prefix("config/")?.to_owned(), bytes));
    let contents = contents.into_iter().filter_map(below).collect();
    let ring = ring.map(str::to_owned);
    let group = Arc::unwrap_or_clone(group);
    Ok(Input::Group(Box::new(Whole { group, contents, shown: folder.to_owned(), wanted, ring, is_habitat: false })))
}

/// The errors of the group itself; of its neighbours only where it has none.
fn broken(found: Vec<Diagnostic>, prefix: &str, folder: &Path) -> Vec<Diagnostic> {
    let errors = found.into_iter().filter(|found| found.severity == Severity::Error);
    let (own, others): (Vec<_>, Vec<_>) = errors.partition(|error| error.file.starts_with(prefix));
    let shown = |mut error: Diagnostic| {
        if let Some(inner) = error.file.strip_prefix(prefix) {
            error.file = folder.join(inner).display().to_string();
        }
        error
    };
    let told = if own.is_empty() { others } else { own };
    told.into_iter().map(shown).collect()
}

fn tree_file(path: String, bytes: &[u8]) -> TreeFile {
    let content = path.ends_with(".toml").then(|| Arc::from(bytes));
    TreeFile { path, blob: repository::no_commit(), executable: false, size: bytes.len() as u64, content }
}

/// The manifests of the groups beside this one, which it may bind, and the repository's defaults.
fn neighbours(folder: &Path, own: &str) -> Vec<TreeFile> {
    let Some(groups) = folder.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "groups")) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    let mut take = |path: String, place: &Path| {
        if let Ok(bytes) = read_bounded(place) {
            files.push(tree_file(path, &bytes));
        }
    };
    take("tagfall.toml".to_owned(), &groups.with_file_name("tagfall.toml"));
    for entry in fs::read_dir(groups).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name != own {
            take(format!("groups/{name}/group.toml"), &entry.path().join("group.toml"));
        }
    }
    files
}

/// Every file below a folder but those of names that begin with a dot; links are told, not followed.
pub(super) fn read_below(root: &Path) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(std::io::Error::other(format!("a name in `{}` is not UTF-8", root.join(&folder).display())));
            };
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                files.push((path, read_bounded(&entry.path())?));
            } else {
                let message = format!("`{}` is neither a file nor a folder; no release may have it", entry.path().display());
                return Err(std::io::Error::other(message));
            }
            if files.len() > FILES_MAX {
                return Err(std::io::Error::other(format!("it has more than {FILES_MAX} files")));
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

pub(super) fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let length = fs::metadata(path)?.len();
    if length > FILE_MAX_BYTES {
        return Err(std::io::Error::other(format!("`{}` is longer than {FILE_MAX_BYTES} bytes", path.display())));
    }
    fs::read(path)
}

impl Whole {
    fn render(self, over: Option<Map<String, Value>>) -> Rendered {
        let host = repository::host(self.ring.as_deref());
        let (config, _) = render::effective(&self.group, &[]);
        let (tag, commit): (TagName, ObjectId) = (TagName::new(repository::NO_TAG), repository::no_commit());
        let mut values = render::data(&host, &self.group, &config, (&tag, &commit));
        data::merge(&mut values, over.unwrap_or_default());
        let done = match &self.wanted {
            Some(wanted) => self.one(wanted, &values),
            None => self.files(&self.group, &values),
        };
        done.map_err(|errors| {
            let place = |file: &str| {
                let file = if self.is_habitat { file.strip_suffix(".hbs").unwrap_or(file) } else { file };
                self.shown.join(file).display().to_string()
            };
            let mut found: Vec<Diagnostic> = errors.into_iter().map(|error| diagnostic(error, &values, place)).collect();
            found.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
            found
        })
    }

    fn files(&self, group: &Group, values: &Value) -> Result<Vec<render::RenderedFile>, Vec<RenderError>> {
        let mut read = |file: &ConfigFile| {
            let found = self.contents.get(&file.path).cloned();
            found.ok_or_else(|| Words("it was listed and could not be read".to_owned()).to_string())
        };
        render::render_files(group, &mut read, values)
    }

    /// One file, with the others at hand for it to include. Errors of others are not its own, unless it cannot do without them.
    fn one(&self, wanted: &str, values: &Value) -> Result<Vec<render::RenderedFile>, Vec<RenderError>> {
        let whole = self.files(&self.group, values);
        let named = format!("config/{wanted}");
        let done = match whole {
            Err(errors) if errors.iter().all(|error| error.file != named) => {
                let mut group = self.group.clone();
                group.files.retain(|file| errors.iter().all(|error| error.file != format!("config/{}", file.path)));
                self.files(&group, values).map_err(|_| errors)
            }
            Err(mut errors) => {
                errors.retain(|error| error.file == named);
                Err(errors)
            }
            Ok(files) => Ok(files),
        };
        let target = wanted.strip_suffix(".hbs").unwrap_or(wanted);
        done.map(|files| files.into_iter().filter(|file| file.path == target).collect())
    }
}
