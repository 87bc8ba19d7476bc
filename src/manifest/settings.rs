//! The supervisor's own settings: file < environment < `--set`, each value with the place where it was written.
//! It opens no file and reads no environment: texts are handed in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::check::{self, Missing};
use super::diagnostic::{At, Diagnostic, Report, nearest};
use super::node::{self, Entry, Node, Table, Value};
use super::read::{Chosen, Fields, log_settings};
use super::settings_keys::SETTINGS;
use super::shape::{Key, Kind, Shape};
use crate::model::LogPolicy;

/// Where things are kept when root starts a supervisor that was told nothing.
pub const ROOT_DATA_DIR: &str = "/var/lib/tagfall";

/// Where root's supervisor listens for the CLI when it was told nothing.
pub const ROOT_SOCKET: &str = "/run/tagfall/supervisor.sock";

/// Variables below this prefix are read as settings.
const VARIABLE_PREFIX: &str = "TAGFALL_";

/// Variables with a meaning of their own: config layers, the client's address, the log's filter, the file's path, and
/// what a supervised service, and a keeper's supervisor, is told.
const OTHER_VARIABLES: [&str; 6] =
    ["TAGFALL_API", "TAGFALL_LOG", "TAGFALL_CONFIG", "TAGFALL_GROUP", "TAGFALL_RELEASE", "TAGFALL_KEEPER_FD"];

/// The supervisor's settings, defaults filled in. `None` stands where the default depends on who runs it, or where the
/// thing is not wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// This supervisor's name.
    pub name: String,
    /// What groups' placement is matched with.
    pub labels: BTreeMap<String, String>,
    /// `None`: [`ROOT_DATA_DIR`] as root, else a folder of the user's.
    pub data_dir: Option<PathBuf>,
    /// Folders below which groups may publish; `None`: anywhere that is not the system's own.
    pub mount_roots: Option<Vec<String>>,
    /// Folders below which hooks may write, where the supervisor is fenced in.
    pub hook_roots: Vec<PathBuf>,
    /// Whom the supervisor runs as when root starts it; `None`: a user of its own.
    pub user: Option<String>,
    /// What the keeper does for the supervisor at most.
    pub keeper: KeeperSettings,
    /// The configuration repository.
    pub source: SourceSettings,
    /// The peers, if any.
    pub ring: Option<RingSettings>,
    /// Where this supervisor is asked.
    pub api: ApiSettings,
    /// How lines of services are kept and passed on that do not say so themselves.
    pub logs: LogPolicy,
}

/// `[keeper]`: lists that hold whatever the supervisor asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeeperSettings {
    /// Users that services may run as; `None`: all.
    pub users: Option<Vec<String>>,
    /// Names of the capabilities that a service can have at most; `None`: those that its user has.
    pub capabilities: Option<Vec<String>>,
}

/// `[source]`.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSettings {
    /// A path, a URL, or `user@host:path`.
    pub url: String,
    /// What stands before the version in a tag's name.
    pub tag_prefix: String,
    /// The versions that are taken.
    pub semver: semver::VersionReq,
    /// Whether pre-releases are taken.
    pub prerelease: bool,
    /// How often a remote is asked.
    pub poll: Duration,
    /// Whose signatures a tag needs.
    pub verify: Verify,
    /// What a release may cost at most.
    pub limits: SourceLimits,
    /// What this supervisor shows to the remote.
    pub credentials: Credentials,
}

/// Whether tags must be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerifyMode {
    /// Unsigned tags are refused.
    Required,
    /// Anything is taken.
    Off,
}

/// `[source.verify]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    /// Whether tags must be signed.
    pub mode: VerifyMode,
    /// Trusted keys, in OpenSSH's format.
    pub allowed_signers: PathBuf,
    /// So many distinct signers.
    pub threshold: u32,
}

/// `[source.limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLimits {
    /// Bytes that one fetch brings.
    pub pack_bytes: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files of a release.
    pub tree_bytes: u64,
    /// Objects that one fetch brings.
    pub objects: u64,
    /// Files of a release.
    pub files: u64,
    /// Tags that the remote lists.
    pub tags: u64,
    /// Wall time of one fetch.
    pub seconds: u64,
    /// Bytes of a file's path.
    pub path_bytes: u32,
    /// Folders in one another.
    pub path_depth: u32,
}

/// `[source.credentials]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// The user name that goes with the token or key.
    pub username: Option<String>,
    /// A file that holds a token or password.
    pub token_file: Option<PathBuf>,
    /// A private SSH key.
    pub ssh_key_file: Option<PathBuf>,
    /// Host keys that are trusted.
    pub known_hosts_file: Option<PathBuf>,
    /// Certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// `[ring]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingSettings {
    /// The ring's name.
    pub name: String,
    /// Where peers are heard.
    pub listen: SocketAddr,
    /// Where peers find this supervisor, `HOST:PORT`.
    pub advertise: Option<String>,
    /// Who is asked first, `HOST:PORT` each.
    pub peers: Vec<String>,
    /// The ring's key.
    pub key_file: Option<PathBuf>,
}

/// `[api]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiSettings {
    /// `None`: [`ROOT_SOCKET`] as root, else a path of the user's.
    pub socket: Option<PathBuf>,
    /// `None`: no TCP.
    pub listen: Option<SocketAddr>,
    /// A file that holds the token.
    pub token_file: Option<PathBuf>,
    /// Certificates for `listen`.
    pub tls: Option<TlsSettings>,
}

/// `[api.tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Clients must show a certificate of this authority.
    pub client_ca: Option<PathBuf>,
}

/// Reads the settings: `file` is (path, text), `env` the process's whole environment, `sets` the values of `--set`
/// (`a.b=value`). Later sources win by key. A variable's name is a key in capitals with `__` for each dot
/// (`TAGFALL_SOURCE__URL`, `TAGFALL_LABELS__ROLE`); its parts are read in lower case.
pub fn parse_settings(
    file: Option<(&str, &str)>,
    env: &[(String, String)],
    sets: &[String],
    host_name: &str,
) -> Result<Settings, Vec<Diagnostic>> {
    let mut report = Report::default();
    let (path, text) = file.unwrap_or(("--set", ""));
    let text: Arc<[u8]> = text.as_bytes().into();
    let start = report.source(path, text.clone());
    let mut whole = Table::default();
    let mut missing = Missing::Allow;
    if let Some(Node { value: Value::Table(table), .. }) = node::parse(&mut report, start, &text) {
        // What a broken file leaves out may stand in the part that could not be read.
        missing = if report.has_errors() { Missing::Allow } else { Missing::Report };
        check::table(&mut report, &SETTINGS, start, &table, Missing::Allow);
        whole = table;
    }
    let mut variables: Vec<_> = env.iter().filter_map(|(key, value)| Some((variable_path(key)?, key, value))).collect();
    variables.sort();
    for (path, key, value) in variables {
        let at = report.source(key, value.as_bytes().into());
        lay(&mut report, &mut whole, at, &path, value);
    }
    for set in sets {
        let at = report.source(format!("--set {set}"), set.as_bytes().into());
        match set.split_once('=').and_then(|(path, value)| Some((option_path(path.trim())?, value))) {
            Some((path, value)) => lay(&mut report, &mut whole, at, &path, value),
            None => report.error_with(at, "this is not `KEY=VALUE`", Some("for example `--set source.poll=10s`".to_owned())),
        }
    }
    check::table(&mut report, &SETTINGS, start, &whole, missing);
    let whole = Node { at: start, value: Value::Table(whole) };
    let fields = Fields::new(&SETTINGS, Some(&whole));
    together(&mut report, fields);
    let settings = build(fields, host_name);
    match settings {
        Some(settings) if !report.has_errors() => Ok(settings),
        _ => Err(report.finish()),
    }
}

/// The setting that a variable names; `None` where it is somebody else's.
fn variable_path(key: &str) -> Option<Vec<String>> {
    if OTHER_VARIABLES.contains(&key) || key.starts_with("TAGFALL_CFG_") {
        return None;
    }
    let path: Vec<_> = key.strip_prefix(VARIABLE_PREFIX)?.to_lowercase().split("__").map(str::to_owned).collect();
    // Container runtimes set variables such as `TAGFALL_PORT` for a service that happens to have this name: what is one
    // word and resembles no key is not ours.
    let first = path.first()?;
    let resembles = nearest(first, SETTINGS.keys.iter().map(|key| key.name)).is_some();
    (path.len() > 1 || resembles).then_some(path)
}

/// `a.b."c.d"` as its parts.
fn option_path(path: &str) -> Option<Vec<String>> {
    let mut scratch = Report::default();
    let text: Arc<[u8]> = format!("{path} = 0").into_bytes().into();
    let start = scratch.source("", text.clone());
    let parsed = node::parse(&mut scratch, start, &text).filter(|_| !scratch.has_errors())?;
    let mut parts = Vec::new();
    let mut table = parsed.table();
    while let Some((key, entry)) = table.and_then(|table| table.0.first_key_value()) {
        parts.push(key.clone());
        table = entry.node.table();
    }
    Some(parts)
}

/// What the tables say of a path.
enum Known {
    Key(&'static Kind),
    Unknown,
}

fn known(path: &[String]) -> Known {
    let mut shape: &'static Shape = &SETTINGS;
    let mut kind: Option<&'static Kind> = None;
    for part in path {
        kind = match kind {
            Some(Kind::Map { of, .. }) => Some(of),
            Some(_) => return Known::Unknown,
            None => match shape.key(part) {
                Some(Key { kind: Kind::Table(below), .. }) => {
                    shape = below;
                    continue;
                }
                Some(key) => Some(&key.kind),
                None => return Known::Unknown,
            },
        };
    }
    kind.map_or(Known::Unknown, Known::Key)
}

/// Lays one value over the others, typed by its key: strings as they are, everything else as TOML.
fn lay(report: &mut Report, whole: &mut Table, at: At, path: &[String], value: &str) {
    let node = match known(path) {
        Known::Key(kind) if kind.is_text() => Some(Node { at, value: Value::Text(value.to_owned()) }),
        Known::Key(_) => node::parse_value(report, at, value.trim()),
        // A whole table, or an unknown key, which the walker reports with the nearest name.
        Known::Unknown if value.trim_start().starts_with('{') => node::parse_value(report, at, value.trim()),
        Known::Unknown => Some(Node { at, value: Value::Text(value.to_owned()) }),
    };
    let Some(node) = node else { return };
    let nested = path.iter().rev().fold(node, |node, part| {
        let entry = Entry { key: at, node };
        Node { at, value: Value::Table(Table(BTreeMap::from([(part.clone(), entry)]))) }
    });
    if let Value::Table(over) = &nested.value {
        check::table(report, &SETTINGS, at, over, Missing::Allow);
        whole.merge(over);
    }
}

/// What values must be together.
fn together(report: &mut Report, fields: Fields<'_>) {
    let api = fields.below("api");
    if let (Some(listen), Some(node)) = (api.get::<SocketAddr>("listen"), api.node("listen"))
        && !listen.ip().is_loopback()
        && api.node("token_file").is_none()
    {
        let hint = Some("set `token_file`, or listen on 127.0.0.1".to_owned());
        report.error_with(
            node.at,
            format!("`listen` in [api] is `{listen}`, which others can reach, and no token is asked for"),
            hint,
        );
    }
}

fn build(fields: Fields<'_>, host_name: &str) -> Option<Settings> {
    let keeper = fields.below("keeper");
    let source = fields.below("source");
    let ring = fields.below("ring");
    let api = fields.below("api");
    let tls = api.below("tls");
    let verify = source.below("verify");
    let credentials = source.below("credentials");
    Some(Settings {
        name: fields.get("name").unwrap_or_else(|| host_name.to_owned()),
        labels: fields.value("labels"),
        data_dir: fields.get("data_dir"),
        mount_roots: fields.get("mount_roots"),
        hook_roots: fields.value("hook_roots"),
        user: fields.get("user"),
        keeper: KeeperSettings { users: keeper.get("users"), capabilities: keeper.get("capabilities") },
        source: SourceSettings {
            url: source.get("url")?,
            tag_prefix: source.value("tag_prefix"),
            semver: source.value("semver"),
            prerelease: source.value("prerelease"),
            poll: source.value("poll"),
            verify: Verify {
                mode: verify.get("mode").map_or(VerifyMode::Required, |Chosen(mode)| mode),
                allowed_signers: verify.value("allowed_signers"),
                threshold: verify.value("threshold"),
            },
            limits: limits(source.below("limits")),
            credentials: Credentials {
                username: credentials.get("username"),
                token_file: credentials.get("token_file"),
                ssh_key_file: credentials.get("ssh_key_file"),
                known_hosts_file: credentials.get("known_hosts_file"),
                ca_file: credentials.get("ca_file"),
            },
        },
        ring: match ring.get("name") {
            None => None,
            Some(name) => Some(RingSettings {
                name,
                listen: ring.get("listen")?,
                advertise: ring.get("advertise"),
                peers: ring.value("peers"),
                key_file: ring.get("key_file"),
            }),
        },
        logs: log_settings(fields.below("logs")).over(&LogPolicy::default()),
        api: ApiSettings {
            socket: api.get("socket"),
            listen: api.get("listen"),
            token_file: api.get("token_file"),
            tls: match (tls.get("cert"), tls.get("key")) {
                (Some(cert), Some(key)) => Some(TlsSettings { cert, key, client_ca: tls.get("client_ca") }),
                _ => None,
            },
        },
    })
}

fn limits(fields: Fields<'_>) -> SourceLimits {
    SourceLimits {
        pack_bytes: fields.value("pack_bytes"),
        file_bytes: fields.value("file_bytes"),
        tree_bytes: fields.value("tree_bytes"),
        objects: fields.value("objects"),
        files: fields.value("files"),
        tags: fields.value("tags"),
        seconds: fields.value("seconds"),
        path_bytes: fields.value("path_bytes"),
        path_depth: fields.value("path_depth"),
    }
}
