//! Over the network, through libgit2: http(s), ssh, git.
//!
//! Depth one into the quarantine folder, which borrows the store's objects, so that only the change is sent. Who is on the
//! other side may say anything: a credential is offered once, a redirect to another host is refused, an unknown host key
//! or certificate ends it, and every cause is told in words that say what to do.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;
use std::time::Duration;

use git2::cert::Cert;
use git2::{
    AutotagOption, CertificateCheckStatus, Cred, CredentialType, Direction, Error, ErrorClass, ErrorCode, FetchOptions,
    FetchPrune, ProxyOptions, RemoteCallbacks, RemoteRedirect, Repository,
};

use super::{Request, in_folder, met, ssh_home};
use crate::model::{ObjectId, Reason, Refusal, RemoteTag};
use crate::source::refuse;
use crate::source::store::open_objects;
use crate::source::walk::{Objects, object_id, oid, over_large};

/// Until a server accepts a connection, and between two of its bytes, unless the whole has less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest token file.
const TOKEN_MAX_BYTES: u64 = 64 << 10;
/// Who signs in where nobody is named.
const DEFAULT_USER: &str = "git";
/// Where the fetched tag lies in the quarantine folder.
const FETCHED: &str = "refs/fetched/tag";
/// Ends the names of what a tag points at, in a listing.
const PEELED: &str = "^{}";

pub(super) fn list(request: &Request, url: &str) -> Result<Vec<(String, ObjectId)>, Refusal> {
    prepare(request)?;
    let talk = Talk::new(request, url);
    // Not detached: the folder's configuration forbids redirects to other hosts.
    let repository = Repository::open(&request.folder).map_err(|error| talk.refusal(&error))?;
    let mut remote = repository.remote_anonymous(url).map_err(|error| talk.refusal(&error))?;
    let connected = remote.connect_auth(Direction::Fetch, Some(talk.callbacks()), Some(proxy()));
    let connection = connected.map_err(|error| talk.refusal(&error))?;
    let mut tags = Vec::new();
    for head in connection.list().map_err(|error| talk.refusal(&error))? {
        let Some(name) = head.name().strip_prefix("refs/tags/").filter(|name| is_shown(name)) else { continue };
        tags.push((name.to_owned(), object_id(head.oid())));
        let limit = request.limits.tags;
        if tags.len() as u64 > limit {
            let message =
                format!("`{}` has more than {limit} tags; raise `source.limits.tags` or remove some", request.origin.shown());
            return Err(refuse(Reason::LimitExceeded, message));
        }
    }
    Ok(tags)
}

/// Fetches one tag at depth one; gives received bytes and objects.
pub(super) fn fetch(request: &Request, url: &str, tag: &RemoteTag, have: &[ObjectId]) -> Result<(u64, u64), Refusal> {
    prepare(request)?;
    borrow(request, have).map_err(|error| in_folder(request, &error))?;
    let talk = Talk::new(request, url);
    let repository = Repository::open(&request.folder).map_err(|error| talk.refusal(&error))?;
    let mut remote = repository.remote_anonymous(url).map_err(|error| talk.refusal(&error))?;
    let mut options = FetchOptions::new();
    options.remote_callbacks(talk.callbacks()).proxy_options(proxy()).download_tags(AutotagOption::None);
    options.prune(FetchPrune::Off).update_fetchhead(false).depth(1).follow_redirects(RemoteRedirect::None);
    let wanted = format!("+refs/tags/{}:{FETCHED}", tag.name);
    remote.fetch(&[&wanted], Some(&mut options), None).map_err(|error| talk.refusal(&error))?;
    let stats = remote.stats();
    let moved = (stats.received_bytes() as u64, stats.total_objects() as u64);
    let found = repository.refname_to_id(FETCHED).ok().map(object_id);
    if found == Some(tag.object) {
        return Ok(moved);
    }
    let what = if found.is_some() { "was moved" } else { "was removed" };
    let message = format!("tag `{}` {what} at `{}` while it was fetched; nothing was kept", tag.name, request.origin.shown());
    Err(refuse(Reason::GitOperationFailed, message))
}

/// What holds for both: a private home, timeouts, certificate authorities.
fn prepare(request: &Request) -> Result<(), Refusal> {
    ssh_home::make(request).map_err(|error| in_folder(request, &error))?;
    let whole = Duration::from_secs(request.limits.seconds);
    crate::sys::git::set_timeouts(CONNECT_TIMEOUT.min(whole), SILENCE_TIMEOUT.min(whole));
    if let Some(path) = &request.credentials.ca_file {
        crate::sys::git::set_ca_file(path).map_err(|error| {
            let message = format!("`{}` (`source.ca_file`) holds no readable certificates: {}", path.display(), error.message());
            refuse(Reason::AuthenticationFailed, message)
        })?;
    }
    Ok(())
}

/// Lends the quarantine folder the store's objects and tells it, as refs and shallow commits, which of them to name to
/// the server. Nothing is lent where nothing is known.
fn borrow(request: &Request, have: &[ObjectId]) -> std::io::Result<()> {
    let alternates = request.folder.join("objects/info/alternates");
    let haves = request.folder.join("refs/have");
    if have.is_empty() {
        for result in [fs::remove_file(alternates), fs::remove_file(request.folder.join("shallow")), fs::remove_dir_all(haves)] {
            result.or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        }
        return Ok(());
    }
    let stored = request.store.join("objects");
    fs::write(alternates, format!("{}\n", stored.display()))?;
    fs::create_dir_all(&haves)?;
    let commits = commits_of(request, &stored, have);
    for (number, commit) in commits.iter().enumerate() {
        fs::write(haves.join(number.to_string()), format!("{commit}\n"))?;
    }
    // Every commit here came without its parents.
    fs::write(request.folder.join("shallow"), commits.iter().map(|commit| format!("{commit}\n")).collect::<String>())
}

fn commits_of(request: &Request, stored: &Path, have: &[ObjectId]) -> Vec<ObjectId> {
    let Ok(odb) = open_objects(&[stored]) else { return Vec::new() };
    let objects = Objects { odb: &odb, limits: &request.limits, contents: false };
    let mut commits: Vec<ObjectId> = have
        .iter()
        .filter_map(|id| {
            let tag = odb.read(oid(*id)).ok()?;
            let line = tag.data().split(|byte| *byte == b'\n').next()?;
            let commit = std::str::from_utf8(line.strip_prefix(b"object ")?).ok()?.parse().ok()?;
            objects.read_commit(commit).ok().map(|_| commit)
        })
        .collect();
    commits.sort_unstable();
    commits.dedup();
    commits
}

/// As the supervisor's environment says (`https_proxy`, `no_proxy`); there is no other configuration to read.
fn proxy() -> ProxyOptions<'static> {
    let mut proxy = ProxyOptions::new();
    proxy.auto();
    proxy
}

/// One conversation: what was offered, and the true cause of a failure, which libgit2's own words seldom name.
struct Talk<'a> {
    request: &'a Request,
    url: &'a str,
    offered: Cell<u32>,
    user_asked: Cell<u32>,
    cause: RefCell<Option<Refusal>>,
    host_key: RefCell<Option<String>>,
}

impl<'a> Talk<'a> {
    fn new(request: &'a Request, url: &'a str) -> Self {
        Self {
            request,
            url,
            offered: Cell::new(0),
            user_asked: Cell::new(0),
            cause: RefCell::new(None),
            host_key: RefCell::new(None),
        }
    }

    fn callbacks(&self) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        callbacks.credentials(|_, user, kinds| self.credential(user, kinds));
        callbacks.certificate_check(|certificate, host| Ok(self.look_at(certificate, host)));
        callbacks.transfer_progress(|progress| {
            let refusal = met(&progress, &self.request.limits);
            let go_on = refusal.is_none();
            if let Some(refusal) = refusal {
                self.cause.replace(Some(refusal));
            }
            go_on
        });
        callbacks
    }

    fn fail(&self, message: String) -> Error {
        self.cause.replace(Some(refuse(Reason::AuthenticationFailed, message)));
        Error::from_str("authentication ended")
    }

    fn credential(&self, user: Option<&str>, kinds: CredentialType) -> Result<Cred, Error> {
        let credentials = &self.request.credentials;
        let at = self.request.origin.shown();
        let user = user.or(credentials.username.as_deref()).unwrap_or(DEFAULT_USER);
        if kinds.contains(CredentialType::USERNAME) {
            self.user_asked.set(self.user_asked.get() + 1);
            if self.user_asked.get() > 1 {
                return Err(self.fail(format!("`{at}` does not take the user `{user}`")));
            }
            return Cred::username(user);
        }
        self.offered.set(self.offered.get() + 1);
        let refused = self.offered.get() > 1;
        if kinds.contains(CredentialType::SSH_KEY) {
            let Some(key) = &credentials.ssh_key_file else {
                return Err(self.fail(format!("`{at}` asks for a key, and none is set: set `source.ssh_key_file`")));
            };
            if refused {
                let message =
                    format!("`{at}` refuses the key `{}` for the user `{user}`: add its public half there", key.display());
                return Err(self.fail(message));
            }
            return Cred::ssh_key(user, None, key, None);
        }
        if kinds.contains(CredentialType::USER_PASS_PLAINTEXT) {
            return self.token(user, refused, &at);
        }
        Err(self.fail(format!("`{at}` asks for a way to sign in that is not spoken here: use a token or an ssh key")))
    }

    fn token(&self, user: &str, refused: bool, at: &str) -> Result<Cred, Error> {
        let Some(path) = &self.request.credentials.token_file else {
            let refused = has_password(self.url);
            let what = if refused { "refuses the password in its address" } else { "asks for a token, and none is set" };
            return Err(self.fail(format!("`{at}` {what}: set `source.token_file`")));
        };
        if refused {
            let message =
                format!("`{at}` refuses the token in `{}` for the user `{user}`: put one there that may read it", path.display());
            return Err(self.fail(message));
        }
        let token = read_token(path).map_err(|error| {
            self.fail(format!("the token file `{}` cannot be read: {error}; `source.token_file` names it", path.display()))
        })?;
        Cred::userpass_plaintext(user, &token)
    }

    /// libgit2 has compared both with what is trusted; this only remembers a host key, to name it where it is unknown.
    fn look_at(&self, certificate: &Cert<'_>, host: &str) -> CertificateCheckStatus {
        if let Some(hash) = certificate.as_hostkey().and_then(|key| key.hash_sha256()) {
            self.host_key.replace(Some(format!("`{host}` shows the key SHA256:{}", ssh_home::base64(hash))));
        }
        CertificateCheckStatus::CertificatePassthrough
    }

    /// The cause in our words, libgit2's as the rest.
    fn refusal(&self, error: &Error) -> Refusal {
        if let Some(refusal) = self.cause.take().or_else(|| over_large(error)) {
            return refusal;
        }
        let at = self.request.origin.shown();
        let words = error.message().replace(self.url, &at);
        let said =
            |reason, advice: &str| refuse(reason, format!("`{at}` cannot be reached as a Git repository: {words}; {advice}"));
        if error.class() == ErrorClass::NoMemory {
            return refuse(
                Reason::LimitExceeded,
                format!("`{at}` answers with more than {} bytes of memory hold", self.request.limits.memory_bytes),
            );
        }
        if error.class() == ErrorClass::Ssh && words.contains("hostkey") {
            let key = self.host_key.take().unwrap_or_default();
            let file = self.request.credentials.known_hosts_file.as_deref().unwrap_or(Path::new("~/.ssh/known_hosts"));
            let message = format!(
                "{key}, which is not known for it in `{}`; compare it with the server's and add it there (`ssh-keyscan`)",
                file.display()
            );
            return refuse(Reason::AuthenticationFailed, message);
        }
        if error.code() == ErrorCode::Certificate || error.class() == ErrorClass::Ssl {
            let advice =
                "name its certificate authority in `source.ca_file`, or give the host a certificate that holds for its name";
            return said(Reason::AuthenticationFailed, advice);
        }
        let denied = ["401", "403"].iter().any(|status| words.contains(&format!("status code: {status}")));
        if error.code() == ErrorCode::Auth || denied {
            return said(Reason::AuthenticationFailed, "see that the token or key may read this repository");
        }
        if words.contains("content-type") || words.contains("redirect") {
            let advice = "what answers is no Git server, perhaps a page to sign in: see the address, and set `source.token_file`";
            return said(Reason::GitOperationFailed, advice);
        }
        if error.code() == ErrorCode::Timeout || words.contains("timed out") || words.contains("temporarily unavailable") {
            return said(Reason::GitOperationFailed, "it did not answer in time; it is tried again");
        }
        said(Reason::GitOperationFailed, "see the address and the server; it is tried again")
    }
}

/// Neither what a tag points at nor a name that no Git allows and no terminal should see.
fn is_shown(name: &str) -> bool {
    !name.ends_with(PEELED) && !name.contains(char::is_control)
}

fn has_password(url: &str) -> bool {
    url.split_once("://").and_then(|(_, rest)| rest.split('/').next()).is_some_and(|authority| authority.contains('@'))
}

fn read_token(path: &Path) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind, Read};
    let mut text = String::new();
    fs::File::open(path)?.take(TOKEN_MAX_BYTES).read_to_string(&mut text)?;
    let token = text.trim();
    if token.is_empty() {
        return Err(Error::new(ErrorKind::InvalidData, "it is empty"));
    }
    Ok(token.to_owned())
}
