//! The command line: what was typed → one call → exit code.
//!
//! One file per command, its arguments on top and the function below. Data goes to standard output, talk to standard error.
//! Exit codes are decided in `error.rs` alone; nothing else in the program ends the process.
//!
//! To add a command: a file with `Args` (and an example in its `after_long_help`, which a test demands) and `run`, one
//! variant of `Command`, one line in `dispatch`. The reference on the site is generated from the same arguments.

mod check;
mod client;
mod completions;
mod config;
mod demo;
mod demo_web;
mod diff;
mod error;
mod events;
mod hidden;
mod hook;
mod init;
pub mod log;
mod man;
mod place;
mod plan;
mod release;
mod render;
mod repository;
mod service;
mod status;
mod supervise;
mod text;
mod trace;
mod why;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use self::client::{Address, Client};
use self::error::{CliError, Exit};
use self::text::Out;
use crate::api::default_socket;

pub use self::man::reference;

/// A declarative GitOps supervisor: push a tag, and every host rolls it out.
#[derive(Debug, Parser)]
#[command(name = "tagfall", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
#[command(
    after_long_help = "Exit codes: 0 done · 1 it could not be done, `check` found errors, `plan` or `diff` found changes · \
    2 usage, or could not run · 3 no supervisor answers · 4 refused by policy.\n\n\
    Example:\n  tagfall demo        a supervisor on this machine, with a repository to push tags to"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// The supervisor to talk to: `unix:PATH` or `http://HOST:PORT` [default: the socket of this user's supervisor]
    #[arg(
        long,
        global = true,
        env = "TAGFALL_API",
        hide_env_values = true,
        value_name = "ADDRESS",
        help_heading = "Global options"
    )]
    api: Option<String>,
    /// A file with the API token, for a supervisor on TCP
    #[arg(long, global = true, env = "TAGFALL_API_TOKEN_FILE", hide_env_values = true, value_name = "PATH")]
    #[arg(help_heading = "Global options")]
    token_file: Option<PathBuf>,
    /// Whether to write colours; `auto`: on a terminal, and never with `NO_COLOR`
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    color: Color,
    /// Say more on standard error: each request to the supervisor, or what a supervisor does; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    verbose: u8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

/// `-o`, for commands with something to read.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Form {
    /// `json`: the same bytes that the API gives
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl Form {
    fn is_json(self) -> bool {
        self.output == Output::Json
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new configuration repository with a working group
    Init(init::Args),
    /// Check a configuration repository: every error, with file, line and column
    Check(check::Args),
    /// Run the supervisor on this host
    Supervise(supervise::Args),
    /// Show what runs, from which tag, and why anything is not as it should be
    Status(status::Args),
    /// Show the chain of reasons that holds a group back
    Why(why::Args),
    /// Show what would change on this supervisor
    Plan(plan::Args),
    /// Render a group's config, or one template, offline
    Render(render::Args),
    /// Compare effective config and files of two releases
    Diff(diff::Args),
    /// Look at releases
    #[command(subcommand)]
    Release(release::Verb),
    /// Look at a group's effective config
    #[command(subcommand)]
    Config(config::Verb),
    /// Start, stop or restart a group's service, or read its output
    #[command(subcommand)]
    Service(service::Verb),
    /// Try a hook, look at it, time it
    #[command(subcommand)]
    Hook(hook::Verb),
    /// Show what happened
    Events(events::Args),
    /// Show where a published file comes from
    Trace(trace::Args),
    /// Run a supervisor on this machine, with a repository to push tags to
    Demo(demo::Args),
    /// Write a shell's completions
    Completions(completions::Args),
    /// Write the manual pages
    Man(man::Args),
    /// A small web server to try things with: the service of what `init` and `demo` make
    #[command(hide = true)]
    DemoWeb(demo_web::Args),
}

/// What every command gets beside its arguments.
#[derive(Debug)]
struct Context {
    global: Global,
    out: Out,
}

impl Context {
    /// The way to the supervisor that was named, or to this user's.
    fn client(&self) -> Result<Client, CliError> {
        let address = match &self.global.api {
            Some(text) => Address::parse(text)?,
            None => Address::Unix(default_socket()),
        };
        let token = match &self.global.token_file {
            Some(path) => {
                let failed = |error| CliError::could_not_run(format!("read the token file `{}`", path.display()), error);
                Some(std::fs::read_to_string(path).map_err(failed)?.trim().to_owned())
            }
            None => None,
        };
        let talk = (self.global.verbose > 0).then_some(self.out);
        Ok(Client { address, token, talk })
    }

    /// Runs what talks to a supervisor: one thread, gone with the command.
    fn wait<T>(&self, work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| CliError::could_not_run("begin", error))?.block_on(work)
    }

    /// Reads a path of the API and shows it: its bytes, or what `text` makes of them.
    fn show<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        form: Form,
        text: impl FnOnce(&T) -> String,
    ) -> Result<T, CliError> {
        let client = self.client()?;
        let bytes = self.wait(client.get(path))?;
        let value = read(&bytes)?;
        if form.is_json() {
            self.out.bytes(&bytes)?;
        } else {
            self.out.text(&text(&value))?;
        }
        Ok(value)
    }
}

/// Reads an answer of the API.
fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, CliError> {
    serde_json::from_slice(bytes).map_err(|error| {
        CliError::could_not_run(
            "read the supervisor's answer, which another version may have written: `-o json` shows it as it is",
            error,
        )
    })
}

/// A group's name, where `.default` may be left out.
fn group_name(text: &str) -> Result<crate::model::GroupName, crate::model::InvalidName> {
    text.parse()
}

/// The whole program: reads the command line, carries it out, and says how it went.
pub fn main() -> ExitCode {
    if let Some(exit) = hidden::door(std::env::args_os()) {
        return exit;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let color = match cli.global.color {
        Color::Auto => anstream::ColorChoice::Auto,
        Color::Always => anstream::ColorChoice::Always,
        Color::Never => anstream::ColorChoice::Never,
    };
    let context = Context { global: cli.global, out: Out { color } };
    let asks_for_changes = matches!(cli.command, Command::Plan(_) | Command::Diff(_));
    match dispatch(cli.command, &context) {
        Ok(exit) => exit,
        Err(error) => {
            context.out.talk(&error::describe(&error));
            let exit = error.exit();
            // 1 says "there are changes" there, so a failure must be another number.
            if exit == Exit::Failed && asks_for_changes { Exit::Usage.into() } else { exit.into() }
        }
    }
}

fn dispatch(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    let exit = match command {
        Command::Init(args) => init::run(args, context),
        Command::Check(args) => check::run(args, context),
        Command::Supervise(args) => supervise::run(args, context),
        Command::Status(args) => status::run(args, context),
        Command::Why(args) => why::run(args, context),
        Command::Plan(args) => plan::run(args, context),
        Command::Render(args) => render::run(args, context),
        Command::Diff(args) => diff::run(args, context),
        Command::Release(verb) => release::run(verb, context),
        Command::Config(verb) => config::run(verb, context),
        Command::Service(verb) => service::run(verb, context),
        Command::Hook(verb) => hook::run(verb, context),
        Command::Events(args) => events::run(args, context),
        Command::Trace(args) => trace::run(args, context),
        Command::Demo(args) => demo::run(args, context),
        Command::Completions(args) => completions::run(args, context),
        Command::Man(args) => man::run(args, context),
        Command::DemoWeb(args) => demo_web::run(args, context),
    };
    exit.map(ExitCode::from)
}

/// The tree of commands and arguments, for completions, manual pages and the reference.
fn tree() -> clap::Command {
    let mut tree = Cli::command();
    tree.build();
    tree
}
