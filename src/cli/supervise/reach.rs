//! Whether the supervisor's user gets at what the settings name, looked at before it is too late to say so on the terminal.

use std::path::{Path, PathBuf};

use crate::cli::CliError;
use crate::keeper::{RunAs, unreadable};
use crate::manifest::Settings;

/// Refuses to begin where a file or folder that the supervisor needs is closed to its user.
pub(super) fn check(user: &RunAs, config: &Path, settings: &Settings, data_dir: &Path, socket: &Path) -> Result<(), CliError> {
    let credentials = &settings.source.credentials;
    let files = [
        Some(config),
        credentials.token_file.as_deref(),
        credentials.ssh_key_file.as_deref(),
        credentials.known_hosts_file.as_deref(),
        credentials.ca_file.as_deref(),
        settings.api.token_file.as_deref(),
    ];
    let files = files.into_iter().flatten().map(Path::to_owned);
    let repository = local(&settings.source.url);
    // Whether a folder can be passed through shows by what is in it, be it there or not.
    let inside = [data_dir, socket.parent().unwrap_or(data_dir)].map(|folder| folder.join("-"));
    let paths: Vec<PathBuf> = files.chain(repository).chain(inside).collect();
    let closed = match unreadable(user, &paths) {
        Ok(closed) => closed,
        // Not what this is about: the keeper says it, or does without.
        Err(_) => return Ok(()),
    };
    let Some((path, error)) = closed.into_iter().next() else { return Ok(()) };
    let path = if path.ends_with("-") { path.parent().unwrap_or(&path).to_owned() } else { path };
    Err(CliError::could_not_run(
        format!("let the supervisor read `{}`", path.display()),
        words(&path, &user.name, &error.to_string()),
    ))
}

/// A repository on this host: what of it must be readable.
fn local(url: &str) -> Option<PathBuf> {
    let path = Path::new(url.strip_prefix("file://").unwrap_or(url));
    path.is_absolute().then(|| path.join("HEAD"))
}

/// What to do about a file that this process's user may not read.
pub(super) fn closed_to_me(path: &Path) -> String {
    let uid = rustix::process::geteuid().as_raw();
    let user = crate::sys::process::user_by_id(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
    words(path, &user, "Permission denied")
}

fn words(path: &Path, user: &str, error: &str) -> String {
    let path = path.display();
    format!(
        "it runs as user `{user}`, who may not ({error}): `chgrp {user} {path} && chmod g+r {path}`, with `chmod a+x` for the folders \
         above where they are closed; or name another user by `user` in supervisor.toml"
    )
}
