//! `tagfall supervise`: this process becomes the keeper.

mod reach;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::error::Problems;
use super::{CliError, Context, Exit};
use crate::api::default_socket;
use crate::daemon::{self, Setup};
use crate::keeper::{Grants, KeeperConfig, RunAs};
use crate::manifest::{Settings, VerifyMode, parse_settings};

/// Where the supervisor's own file is, unless said otherwise.
pub(super) const DEFAULT_CONFIG: &str = "/etc/tagfall/supervisor.toml";

#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "SIGTERM, SIGINT and SIGQUIT stop the services in order, take the mounts away and exit 0.\n\
    SIGHUP exchanges the program for the one that is in its place now; services run on.\n\n\
    Examples:\n  tagfall supervise\n  tagfall supervise --config ./supervisor.toml\n  \
    tagfall supervise --set source.url=/srv/config.git --set source.verify.mode=off --set data_dir=./data\n  \
    TAGFALL_SOURCE__URL=/srv/config.git tagfall supervise")]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) place: SettingsArgs,
}

/// Where a supervisor's settings come from.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct SettingsArgs {
    /// The supervisor's own file; it may be missing where `--set` and the environment say enough
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CONFIG, value_hint = clap::ValueHint::FilePath)]
    pub(super) config: PathBuf,
    /// Override one key of the file: strings as they are, tables and lists as TOML
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) set: Vec<String>,
}

fn key_value(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        Some(_) | None => Err("it takes the form KEY=VALUE, for example source.url=/srv/config.git".to_owned()),
    }
}

impl SettingsArgs {
    /// Reads the settings; every error is listed.
    pub(super) fn read(&self) -> Result<Settings, CliError> {
        let text = self.text()?;
        if text.is_none() && self.set.is_empty() && environment().keys().all(|key| !key.starts_with("TAGFALL_SOURCE")) {
            return Err(self.unread(rustix::io::Errno::NOENT.into()));
        }
        self.parse(text.as_deref(), &self.set)
    }

    /// For a command that needs no supervisor: where there is no file, one that only names the repository stands in for it.
    pub(super) fn read_beside(&self, repository: &Path) -> Result<Settings, CliError> {
        let text = self.text()?;
        if text.is_none() && self.config != Path::new(DEFAULT_CONFIG) {
            return Err(self.unread(rustix::io::Errno::NOENT.into()));
        }
        let mut set = Vec::new();
        if text.is_none() {
            set = vec![format!("source.url={}", repository.display()), "source.verify.mode=off".to_owned()];
        }
        set.extend(self.set.iter().cloned());
        self.parse(text.as_deref(), &set)
    }

    /// Whether anything was said on the command line.
    pub(super) fn is_given(&self) -> bool {
        !self.set.is_empty() || self.config != Path::new(DEFAULT_CONFIG)
    }

    fn text(&self) -> Result<Option<String>, CliError> {
        match std::fs::read_to_string(&self.config) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.unread(error)),
        }
    }

    fn unread(&self, error: std::io::Error) -> CliError {
        if error.kind() == std::io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root() {
            let step = format!("read the supervisor's file `{}`", self.config.display());
            return CliError::could_not_run(step, reach::closed_to_me(&self.config));
        }
        CliError::could_not_run(format!("read the supervisor's file `{}`", self.config.display()), error)
    }

    fn parse(&self, text: Option<&str>, set: &[String]) -> Result<Settings, CliError> {
        let path = self.config.display().to_string();
        let env: Vec<(String, String)> = environment().into_iter().collect();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let file = text.map(|text| (path.as_str(), text));
        parse_settings(file, &env, set, &host)
            .map_err(|found| Problems::new(found).could_not_run("read the supervisor's settings"))
    }

    fn to_args(&self) -> Vec<OsString> {
        let mut args = vec!["--config".into(), self.config.clone().into_os_string()];
        for set in &self.set {
            args.push("--set".into());
            args.push(set.into());
        }
        args
    }
}

/// The environment, where it is text.
pub(super) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// Reads the settings once, so that what is wrong is said here, then becomes the keeper: a fresh program with a small heap.
pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    crate::keeper::hold_signals().map_err(|error| CliError::could_not_run("hold signals back", error))?;
    let settings = args.place.read()?;
    if settings.source.verify.mode == VerifyMode::Required {
        return Err(CliError::could_not_run("start", daemon::DaemonError::VerifyRequired));
    }
    let data_dir = absolute(&daemon::data_dir(&settings))?;
    std::fs::create_dir_all(&data_dir)
        .map_err(|error| CliError::could_not_run(format!("make the data folder `{}`", data_dir.display()), error))?;
    let run_as = RunAs::find(settings.user.as_deref())
        .map_err(|why| CliError::could_not_run("choose whom the supervisor runs as", why))?;
    let socket = absolute(&settings.api.socket.clone().unwrap_or_else(default_socket))?;
    if let Some(user) = &run_as {
        reach::check(user, &args.place.config, &settings, &data_dir, &socket)?;
    }
    let mut supervisor_args = args.place.to_args();
    supervisor_args.extend([
        "--data-dir".into(),
        data_dir.clone().into_os_string(),
        "--socket".into(),
        socket.clone().into_os_string(),
    ]);
    supervisor_args.extend(std::iter::repeat_n("--verbose".into(), usize::from(context.global.verbose)));
    let grants = Grants {
        run_as,
        users: settings.keeper.users,
        mount_roots: settings.mount_roots,
        hook_roots: settings.hook_roots,
        capabilities: settings.keeper.capabilities,
        socket_folder: socket.parent().map(Path::to_owned),
    };
    let config = KeeperConfig { data_dir, supervisor_program: None, supervisor_args, grants };
    let error = std::process::Command::new("/proc/self/exe").arg0(own_name()).arg("keeper").args(config.to_args()).exec();
    Err(CliError::could_not_run("become the keeper", error))
}

/// The path under which this program was started, by which the keeper finds the next one after an upgrade, be it through a
/// link; its name alone where that is not known.
fn own_name() -> OsString {
    let first = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let candidates = if first.components().count() > 1 {
        vec![first]
    } else {
        std::env::split_paths(&folders).map(|folder| folder.join(&first)).collect()
    };
    let own = std::env::current_exe().ok();
    let is_own = |path: &PathBuf| std::fs::canonicalize(path).ok().is_some_and(|found| Some(found) == own);
    let found = candidates.into_iter().find(is_own).and_then(|path| std::path::absolute(path).ok());
    found.map_or_else(|| "tagfall".into(), PathBuf::into_os_string)
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|error| CliError::could_not_run(format!("find `{}`", path.display()), error))
}

/// What the keeper hands to the supervisor: the same arguments, read again, so that a restart takes over an edited file.
#[derive(Debug, Parser)]
#[command(name = "supervisor", no_binary_name = true)]
struct Handed {
    #[command(flatten)]
    place: SettingsArgs,
    /// Where the keeper has its data: a folder for this supervisor's life, whatever the file says by now.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where to listen, unless the file says otherwise: the default is that of whoever started the keeper.
    #[arg(long)]
    socket: Option<PathBuf>,
    #[arg(long, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// Runs the supervisor: the body of the hidden command that the keeper starts.
pub(super) fn supervise(args: Vec<OsString>) -> Result<Exit, CliError> {
    let handed = Handed::try_parse_from(args)
        .map_err(|error| CliError::usage(error.to_string(), "only the keeper starts this command: `tagfall supervise`"))?;
    super::log::start(handed.verbose);
    let mut settings = handed.place.read()?;
    settings.data_dir = handed.data_dir.or(settings.data_dir);
    settings.api.socket = settings.api.socket.or(handed.socket);
    let keeper = keeper_socket()?;
    let setup = Setup { settings, keeper, env: environment() };
    daemon::run(setup).map_err(|error| CliError::could_not_run("supervise", error))?;
    Ok(Exit::Done)
}

fn keeper_socket() -> Result<std::os::fd::OwnedFd, CliError> {
    let variable = crate::keeper::wire::SOCKET_ENV;
    let number = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    let Some(number) = number else {
        return Err(CliError::usage(
            format!("`{variable}` names no descriptor"),
            "only the keeper starts this command: `tagfall supervise`",
        ));
    };
    crate::sys::process::inherited_fd(number).map_err(|error| CliError::could_not_run("take the keeper's socket over", error))
}
