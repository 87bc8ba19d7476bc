//! `tagfall init`: writes what stands in `init/`, with the paths of this machine put in.
//!
//! Nothing that is there already is touched. The new repository is not committed: that is done under a person's name.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{CliError, Context, Exit};
use crate::source;

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Makes a Git repository with one group that runs on any Linux host: `tagfall` itself as a small web \
    server, with a template, a health check and a CI job. It says what to type next.\n\n\
    Examples:\n  tagfall init config        make ./config, ready to commit, tag and push\n  \
    tagfall init .             make it here, in an empty folder or a fresh Git repository\n  \
    tagfall init config --mount /srv/hello/etc"
)]
pub(super) struct Args {
    /// The folder to make; an existing one must be empty
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(super) dir: PathBuf,
    /// Where the group's files are published [default: /etc/hello for root, else below ~/.local/share]
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    pub(super) mount: Option<String>,
}

/// Path in the repository → its content, with `@NAME@` for what depends on the machine.
const FILES: [(&str, &str); 5] = [
    ("tagfall.toml", include_str!("init/tagfall.toml")),
    ("groups/hello/group.toml", include_str!("init/group.toml")),
    ("groups/hello/config/hello.toml.hbs", include_str!("init/hello.toml.hbs")),
    ("README.md", include_str!("init/README.md")),
    (".github/workflows/check.yml", include_str!("init/check.yml")),
];

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let dir = &args.dir;
    let step = || format!("make a configuration repository in `{}`", dir.display());
    let program = std::env::current_exe().map_err(|error| CliError::failed("find out where this program is", error))?;
    let program = text(&program)?;
    let mount = match args.mount {
        Some(mount) => mount,
        None => mount()?,
    };
    let has_git = is_free(dir)?;
    let quoted = |text: String| toml::Value::String(text).to_string();
    let (program, mount) = (quoted(program), quoted(mount));
    let filled = |content: &str| {
        let content = content.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
        content.replace("@PROGRAM@", &program).replace("@MOUNT@", &mount)
    };
    let files: Vec<(&str, String)> = FILES.iter().map(|(path, content)| (*path, filled(content))).collect();
    refuse_what_check_would(&files)?;
    for (path, content) in &files {
        write_new(&dir.join(path), content).map_err(|error| CliError::failed(step(), error))?;
    }
    if !has_git {
        begin(dir).map_err(|error| CliError::failed(step(), error))?;
    }
    context.out.text(&next(dir)?)?;
    Ok(Exit::Done)
}

/// Whether there is a Git repository already, in a folder that has nothing else.
pub(super) fn is_free(dir: &Path) -> Result<bool, CliError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(CliError::could_not_run(format!("look into `{}`", dir.display()), error)),
    };
    let mut has_git = false;
    for entry in entries {
        let entry = entry.map_err(|error| CliError::could_not_run(format!("look into `{}`", dir.display()), error))?;
        if entry.file_name() != ".git" {
            let message = format!("`{}` is not empty: `{}` is in it", dir.display(), entry.file_name().display());
            return Err(CliError::usage(message, "name a folder that is not there yet; nothing was written"));
        }
        has_git = true;
    }
    Ok(has_git)
}

/// A place that whoever runs this may write to.
fn mount() -> Result<String, CliError> {
    if rustix::process::geteuid().is_root() {
        return Ok("/etc/hello".to_owned());
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let home = home.ok_or_else(|| {
        CliError::usage("`HOME` names no folder to publish files below", "`--mount PATH` says where they are to be")
    })?;
    text(&home.join(".local/share/hello"))
}

fn text(path: &Path) -> Result<String, CliError> {
    let found = path.to_str().filter(|text| !text.contains("{{")).map(str::to_owned);
    found.ok_or_else(|| {
        CliError::usage(format!("`{}` cannot be written into a manifest", path.display()), "move it to a plain path")
    })
}

/// A mount path that was typed may be one that no group may have.
fn refuse_what_check_would(files: &[(&str, String)]) -> Result<(), CliError> {
    let file = |(path, content): &(&str, String)| crate::model::TreeFile {
        path: (*path).to_owned(),
        blob: super::repository::no_commit(),
        executable: false,
        size: content.len() as u64,
        content: Some(content.as_bytes().into()),
    };
    let files: Vec<_> = files.iter().map(file).collect();
    let parsed = crate::manifest::parse_release(&files, None);
    parsed.map(|_| ()).map_err(|found| super::error::Problems::new(found).could_not_run("write a group that can be checked"))
}

/// Writes a file that is not there yet, with the folders above it.
pub(super) fn write_new(path: &Path, content: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::File::options().write(true).create_new(true).open(path)?.write_all(content.as_bytes())
}

/// A Git repository on the branch `main`, made without any template of the host.
fn begin(dir: &Path) -> Result<(), git2::Error> {
    source::prepare();
    let mut options = git2::RepositoryInitOptions::new();
    options.external_template(false).initial_head("main").no_reinit(true);
    git2::Repository::init_opts(dir, &options).map(|_| ())
}

/// What to type next.
fn next(dir: &Path) -> Result<String, CliError> {
    let whole = dir.canonicalize().map_err(|error| CliError::failed(format!("find `{}`", dir.display()), error))?;
    let url = quoted_for_shell(&whole);
    Ok(format!(
        "A configuration repository is in {shown}. Next:\n\n  \
        cd {shown}\n  \
        tagfall check .\n  \
        git add --all && git commit --message \"Begin\"\n  \
        git tag --annotate v1.0.0 --message \"The first release\"\n  \
        tagfall supervise --set source.url={url} --set source.verify.mode=off\n\n\
        and in another terminal: tagfall status\n",
        shown = quoted_for_shell(dir),
    ))
}

/// A path as a shell takes it.
pub(super) fn quoted_for_shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_a_path_as_one_word() {
        for (path, word) in
            [("/a/b-c.d", "/a/b-c.d"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("$HOME", "'$HOME'"), ("-x", "'-x'")]
        {
            assert_eq!(quoted_for_shell(Path::new(path)), word);
        }
    }
}
