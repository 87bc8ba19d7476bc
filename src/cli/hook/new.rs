//! `tagfall hook new`: writes a project that builds to a hook, in a language of one's choice.
//!
//! What is written stands in `project.rs`. Nothing that is there already is touched.

mod project;
mod sdk;

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::cli::init::{is_free, quoted_for_shell, write_new};
use crate::cli::{CliError, Context, Exit};
use crate::model::HookKind;
use project::Language;

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Makes a project with a hook that works: its source, a script `build`, what goes into group.toml, and a README \
    with what to install. It says what to type next.\n\n\
    Components (rust, python, javascript, c, wat) may ask Tagfall for connections; WASI commands (go, zig) read files.\n\n\
    Examples:\n  tagfall hook new check --lang python\n  \
    tagfall hook new reload --lang javascript --hook reconfigure"
)]
pub(in crate::cli) struct Args {
    /// The folder to make; an existing one must be empty
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    /// The language to write it in
    #[arg(long, value_name = "LANG", value_enum)]
    lang: Language,
    /// Which hook it is to be
    #[arg(long, value_name = "HOOK", default_value = "health-check", value_parser = super::setting::kind)]
    hook: HookKind,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let dir = &args.dir;
    let Some(files) = project::files(args.lang, args.hook) else {
        let message = format!("there is no project for `{}` in {} to begin with", args.hook.name(), args.lang.name());
        let hint = format!("{} have one; for `health-check` every language has one", project::OTHER_HOOKS);
        return Err(CliError::usage(message, hint));
    };
    is_free(dir)?;
    for file in &files {
        let path = dir.join(&file.path);
        let written = write_new(&path, &file.content).and_then(|()| if file.runs { make_runnable(&path) } else { Ok(()) });
        written.map_err(|error| CliError::failed(format!("write `{}`", path.display()), error))?;
    }
    context.out.text(&next(args, &files))?;
    Ok(Exit::Done)
}

fn make_runnable(path: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// What to type next, from the project's own README: what is tested there is what is said here.
fn next(args: &Args, files: &[project::File]) -> String {
    let find = |name: &str| files.iter().find(|file| file.path == name).map_or("", |file| file.content.as_str());
    let indented = |text: &str| text.lines().fold(String::new(), |out, line| out + "  " + line + "\n");
    let dir = quoted_for_shell(&args.dir);
    let mut out = format!("A `{}` in {} is in {dir}. Next:\n\n  cd {dir}\n", args.hook.name(), args.lang.name());
    for block in shell_blocks(find("README.md")) {
        out.push_str(&indented(block));
    }
    let toml = indented(find("hook.toml"));
    let module = toml.split('"').find(|text| text.ends_with(".wasm")).unwrap_or_default();
    let _ = write!(
        out,
        "\nWhen it does what it should, copy the module into a group, groups/GROUP/{module}, and add to groups/GROUP/group.toml:\n\n\
         {toml}\nThen, in the configuration repository:\n\n  \
         tagfall hook run groups/GROUP/{module} --group groups/GROUP\n  \
         tagfall check .\n  \
         git add groups && git commit --message \"Hooks of GROUP\"\n  \
         git tag --annotate v1.0.1 --message \"Hooks of GROUP\" && git push --follow-tags\n"
    );
    out
}

/// What stands between ```` ```sh ```` and its end.
fn shell_blocks(page: &str) -> impl Iterator<Item = &str> {
    page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next())
}
