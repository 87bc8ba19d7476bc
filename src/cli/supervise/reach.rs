//! Whether the supervisor's user gets at what the settings name, looked at before it is too late to say so on the terminal.

use std::path::{Path, PathBuf};

use crate::api::ServeError;
use crate::cli::CliError;
use crate::keeper::{Need, RunAs, closed_to};
use crate::manifest::{ROOT_SOCKET, Settings};

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
    let mut needs: Vec<(PathBuf, Need)> = files.chain(repository).map(|path| (path, Need::Read)).collect();
    needs.push((data_dir.to_owned(), Need::Reach));
    // The usual one is the keeper's to give to that user.
    let folder = socket.parent().filter(|_| socket != Path::new(ROOT_SOCKET));
    needs.extend(folder.map(|folder| (folder.to_owned(), Need::Make)));
    // What keeps this from being tried is said by the keeper, which does without that user or does not begin.
    let closed = closed_to(user, &needs).unwrap_or_default();
    let Some((path, error)) = closed.into_iter().next() else { return Ok(()) };
    if Some(path.as_path()) == folder {
        let why = ServeError::Closed { folder: path.clone(), user: user.uid };
        return Err(CliError::could_not_run(format!("listen in `{}`", path.display()), why));
    }
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
