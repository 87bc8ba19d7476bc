//! `tagfall man`, and the reference on the site: both from the arguments themselves.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{CliError, Context, Exit, tree};

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  tagfall man | man -l -\n  tagfall man service stop | man -l -\n  tagfall man --dir /usr/local/share/man/man1"
)]
pub(super) struct Args {
    /// The page of this command [default: of the program]
    #[arg(value_name = "COMMAND", conflicts_with_all = ["dir", "markdown"])]
    command: Vec<String>,
    /// Write every page into this folder
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// Write the reference of all commands in Markdown
    #[arg(long, hide = true, conflicts_with = "dir")]
    markdown: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    if args.markdown {
        context.out.bytes(reference().as_bytes())?;
        return Ok(Exit::Done);
    }
    if let Some(dir) = args.dir {
        let failed = |error| CliError::could_not_run(format!("write the manual pages into `{}`", dir.display()), error);
        std::fs::create_dir_all(&dir).and_then(|()| pages(&tree(), &dir)).map_err(failed)?;
        return Ok(Exit::Done);
    }
    let mut command = &tree();
    for name in &args.command {
        let unknown = || CliError::usage(format!("there is no command `{name}`"), "`tagfall --help` lists them");
        command = command.find_subcommand(name).ok_or_else(unknown)?;
    }
    let page = page(command).map_err(|error| CliError::could_not_run("write the manual page", error))?;
    context.out.bytes(&page)?;
    Ok(Exit::Done)
}

fn page(command: &clap::Command) -> std::io::Result<Vec<u8>> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut page = Vec::new();
    let source = concat!("tagfall ", env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command.clone()).title(name).source(source).render(&mut page)?;
    Ok(page)
}

fn pages(command: &clap::Command, dir: &Path) -> std::io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    std::fs::write(dir.join(format!("{name}.1")), page(command)?)?;
    shown(command).try_for_each(|inner| pages(inner, dir))
}

/// The commands below this one that a person may type.
fn shown(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help")
}

/// The reference of the command line in Markdown, as the site shows it.
pub fn reference() -> String {
    let tree = tree();
    let mut out = String::from("# Command line\n\n");
    section(&tree, "tagfall", &mut out);
    let global: Vec<_> = tree.get_arguments().filter(|argument| argument.is_global_set()).collect();
    out.push_str("## Global options\n\nTaken by every command.\n\n");
    table(&global, &mut out);
    for command in shown(&tree) {
        let name = format!("tagfall {}", command.get_name());
        let _ = writeln!(out, "## {name}\n");
        section(command, &name, &mut out);
        for inner in shown(command) {
            let name = format!("{name} {}", inner.get_name());
            let _ = writeln!(out, "### {name}\n");
            section(inner, &name, &mut out);
        }
    }
    while out.ends_with("\n\n") {
        out.pop();
    }
    out
}

fn section(command: &clap::Command, name: &str, out: &mut String) {
    if let Some(about) = command.get_about() {
        let _ = writeln!(out, "{about}.\n");
    }
    let own = |argument: &&clap::Arg| !argument.is_hide_set() && !argument.is_global_set() && argument.get_id() != "help";
    let arguments: Vec<_> = command.get_arguments().filter(own).filter(|argument| argument.get_id() != "version").collect();
    let mut usage = name.to_owned();
    for argument in arguments.iter().filter(|argument| argument.is_positional()) {
        let form = if argument.is_required_set() { values(argument) } else { format!("[{}]", values(argument)) };
        let _ = write!(usage, " {form}");
    }
    if shown(command).next().is_some() {
        usage.push_str(" COMMAND");
    }
    if arguments.iter().any(|argument| !argument.is_positional()) {
        usage.push_str(" [OPTIONS]");
    }
    let _ = writeln!(out, "```text\n{usage}\n```\n");
    table(&arguments, out);
    if let Some(more) = command.get_after_long_help() {
        let text = more.to_string();
        let (words, examples) = match text.find("Example") {
            Some(at) => text.split_at(at),
            None => (text.as_str(), ""),
        };
        if !words.trim().is_empty() {
            let _ = writeln!(out, "{}\n", words.trim());
        }
        let lines: Vec<_> = examples.lines().skip(1).map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
        if !lines.is_empty() {
            let _ = writeln!(out, "```text\n{}\n```\n", lines.join("\n"));
        }
    }
}

fn values(argument: &clap::Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let mut text = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
    if argument.get_num_args().is_some_and(|count| count.max_values() > 1) {
        text.push('…');
    }
    text
}

fn table(arguments: &[&clap::Arg], out: &mut String) {
    if arguments.is_empty() {
        return;
    }
    out.push_str("| argument | meaning |\n| --- | --- |\n");
    for argument in arguments {
        let short = argument.get_short().map(|short| format!("-{short}"));
        let long = argument.get_long().map(|long| format!("--{long}"));
        let takes = argument.get_action().takes_values();
        let mut form = [short, long].into_iter().flatten().collect::<Vec<_>>().join(", ");
        if takes {
            let gap = if form.is_empty() { "" } else { " " };
            let _ = write!(form, "{gap}{}", values(argument));
        }
        let mut meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let choices: Vec<_> = argument.get_possible_values().iter().map(|choice| format!("`{}`", choice.get_name())).collect();
        if takes && !choices.is_empty() {
            let _ = write!(meaning, ". One of {}", choices.join(", "));
        }
        if let [default] = argument.get_default_values()
            && takes
        {
            let _ = write!(meaning, " (default `{}`)", default.to_string_lossy());
        }
        if let Some(variable) = argument.get_env() {
            let _ = write!(meaning, ". Environment: `{}`", variable.to_string_lossy());
        }
        let _ = writeln!(out, "| `{}` | {} |", form.replace('|', "\\|"), meaning.replace('|', "\\|"));
    }
    out.push('\n');
}
