//! What is done for a supervisor at most: lists of the operator's, which came in the keeper's arguments and which no message
//! can widen. Who may ask root to start anything as anybody *is* root, unless these say less.
//!
//! Nothing here is carried out. To add a list: a field, its option in [`Grants::to_args`], and a check that names the key.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::thread::CapabilitySet;

use crate::model::{CAPABILITIES, GroupName, ServiceSpec, View, is_below_or_same, may_be_published};
use crate::sys::process::{user_by_id, user_by_name};

/// The user that a supervisor gets where nobody made one for it: below what systemd hands out to its dynamic users (61184
/// and on), above what people and packages get.
pub const NAMELESS_ID: u32 = 60_963;

/// Name of the user that a package makes for it.
pub const DEFAULT_USER: &str = "tagfall";

/// The user that the supervisor runs as, where the keeper itself is root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// Its name, or its number where it has none.
    pub name: String,
    /// Its id.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// The operator named it: without it, nothing begins.
    pub chosen: bool,
}

impl RunAs {
    /// Finds the user for a supervisor that this process is about to start: `None`, where it is to be this process's own.
    /// The error says what to write instead.
    pub fn find(setting: Option<&str>) -> Result<Option<Self>, String> {
        let own = rustix::process::geteuid().as_raw();
        let look_up = |name: &str| {
            let c_name = CString::new(name).map_err(|_| format!("`user` is `{}`, which is no name", name.escape_debug()))?;
            user_by_name(&c_name).map_err(|error| format!("user `{name}` cannot be looked up: {error}"))
        };
        let Some(name) = setting else {
            if own != 0 {
                return Ok(None);
            }
            if let Some(user) = look_up(DEFAULT_USER)?.filter(|user| user.uid != 0) {
                return Ok(Some(Self { name: user.name, uid: user.uid, gid: user.gid, chosen: false }));
            }
            if let Some(user) = user_by_id(NAMELESS_ID).ok().flatten() {
                let name = user.name;
                return Err(format!(
                    "user id {NAMELESS_ID} belongs to `{name}` here: make a user `{DEFAULT_USER}`, or set `user`"
                ));
            }
            return Ok(Some(Self { name: NAMELESS_ID.to_string(), uid: NAMELESS_ID, gid: NAMELESS_ID, chosen: false }));
        };
        let user = look_up(name)?;
        let user =
            user.ok_or_else(|| format!("user `{name}` of `user` does not exist on this host: create it, or change `user`"))?;
        match (own, user.uid) {
            (0, 0) => Ok(None),
            (0, _) => Ok(Some(Self { name: user.name, uid: user.uid, gid: user.gid, chosen: true })),
            (own, uid) if own == uid => Ok(None),
            (own, _) => {
                Err(format!("`user` is `{name}`, but only root can start a supervisor as another user, and this is user {own}"))
            }
        }
    }

    fn print(&self) -> String {
        let chosen = if self.chosen { ":chosen" } else { "" };
        format!("{}:{}:{}{chosen}", self.name, self.uid, self.gid)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(':');
        let (name, uid, gid) = (words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { name, uid, gid, chosen: words.next() == Some("chosen") })
    }
}

/// What is done for a supervisor at most.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// Whom it runs as; `None`: as the keeper.
    pub run_as: Option<RunAs>,
    /// Users that services may run as; `None`: all.
    pub users: Option<Vec<String>>,
    /// Folders below which a link at a mount path may be made; `None`: where a group may publish at all.
    pub mount_roots: Option<Vec<String>>,
    /// Folders that the supervisor may write in beside its own: those of hooks.
    pub hook_roots: Vec<PathBuf>,
    /// Names of the capabilities that a service can have at most; `None`: those that its user has.
    pub capabilities: Option<Vec<String>>,
    /// Where its socket is to be: made for it, where it is missing.
    pub socket_folder: Option<PathBuf>,
}

impl Grants {
    /// As options, before all other arguments of the keeper.
    pub(super) fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        args.extend(self.run_as.as_ref().map(|user| format!("--run-as={}", user.print()).into()));
        let lists = [
            ("--users", "--user", &self.users),
            ("--mounts", "--mount", &self.mount_roots),
            ("--caps", "--cap", &self.capabilities),
        ];
        for (all, one, list) in lists {
            let Some(list) = list else { continue };
            args.push(all.into());
            args.extend(list.iter().map(|entry| format!("{one}={entry}").into()));
        }
        let folders = self.hook_roots.iter().map(|folder| ("--hook-root=", folder));
        for (key, folder) in folders.chain(self.socket_folder.iter().map(|folder| ("--socket-folder=", folder))) {
            let mut arg = OsString::from(key);
            arg.push(folder);
            args.push(arg);
        }
        args
    }

    /// Takes one option of [`Grants::to_args`]; `None` where it is none of them.
    pub(super) fn take(&mut self, argument: &OsStr) -> Option<()> {
        let bytes = argument.as_bytes();
        let (key, value) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
            None => (bytes, None),
        };
        let text = || value.and_then(|value| std::str::from_utf8(value).ok());
        match key {
            b"--run-as" => self.run_as = Some(RunAs::parse(text()?)?),
            b"--users" => self.users = Some(Vec::new()),
            b"--mounts" => self.mount_roots = Some(Vec::new()),
            b"--caps" => self.capabilities = Some(Vec::new()),
            b"--user" => self.users.as_mut()?.push(text()?.to_owned()),
            b"--mount" => self.mount_roots.as_mut()?.push(text()?.to_owned()),
            b"--cap" => self.capabilities.as_mut()?.push(text()?.to_owned()),
            b"--hook-root" => self.hook_roots.push(PathBuf::from(OsString::from_vec(value?.to_vec()))),
            b"--socket-folder" => self.socket_folder = Some(PathBuf::from(OsString::from_vec(value?.to_vec()))),
            _ => return None,
        }
        Some(())
    }

    /// Capabilities that a service can have at most; `None`: no limit of the operator's.
    pub(super) fn capability_limit(&self) -> Option<CapabilitySet> {
        let names = self.capabilities.as_ref()?;
        let bit = |name: &String| CAPABILITIES.iter().position(|known| known == name).map_or(0, |at| 1_u64 << at);
        Some(CapabilitySet::from_bits_retain(names.iter().map(bit).fold(0, |bits, bit| bits | bit)))
    }

    /// Whether something may run as this user; `None` is the keeper's own.
    pub(super) fn check_user(&self, user: Option<&str>) -> Result<(), String> {
        let Some(users) = &self.users else { return Ok(()) };
        let own = || {
            let own = rustix::process::geteuid().as_raw();
            user_by_id(own).ok().flatten().map_or_else(|| own.to_string(), |user| user.name)
        };
        let name = user.map_or_else(own, str::to_owned);
        if users.contains(&name) {
            return Ok(());
        }
        let allowed = if users.is_empty() { "nobody".to_owned() } else { users.join(", ") };
        Err(format!(
            "this host's keeper starts nothing as user `{name}`, only as {allowed}: its `users` in [keeper] of supervisor.toml \
             must name it, and then `tagfall supervise` be started anew"
        ))
    }

    /// Whether a service may be as its spec says.
    pub(super) fn check_spec(&self, spec: &ServiceSpec, data_dir: &Path) -> Result<(), String> {
        self.check_user(spec.launch.user.as_deref())?;
        spec.view.as_ref().map_or(Ok(()), |view| check_view(&spec.group, view, data_dir))
    }

    /// Whether a link may be made at a path.
    pub(super) fn check_mount(&self, path: &str, data_dir: &Path) -> Result<(), String> {
        let plain = Path::new(path).components().skip(1).all(|part| matches!(part, Component::Normal(_)));
        let same: PathBuf = Path::new(path).components().collect();
        if !path.starts_with('/') || !plain || same.as_os_str().as_bytes() != path.as_bytes() {
            return Err(format!("`{}` is no plain absolute path, so nothing is shown there", path.escape_debug()));
        }
        may_be_published(path).map_err(|must_be| format!("nothing is shown at `{path}`: it must be {must_be}"))?;
        let ours = |folder: &Path| Path::new(path).starts_with(folder) && !Path::new(path).starts_with(folder.join("var"));
        if ours(data_dir) || data_dir.canonicalize().is_ok_and(|folder| ours(&folder)) {
            return Err(format!("nothing is shown at `{path}`: it lies in a folder where Tagfall keeps its own data"));
        }
        let Some(roots) = &self.mount_roots else { return Ok(()) };
        let below = |root: &String| path != root && is_below_or_same(path, root);
        if roots.iter().any(below) {
            return Ok(());
        }
        let allowed = if roots.is_empty() { "nowhere".to_owned() } else { format!("only below {}", roots.join(", ")) };
        Err(format!(
            "this host's keeper shows nothing at `{path}`, {allowed}: `mount_roots` of its supervisor.toml must name a folder above \
             it, and then `tagfall supervise` be started anew"
        ))
    }
}

/// Whether a view is what a group of this name can have: one of its own publications, at its own point.
pub(super) fn check_view(group: &GroupName, view: &View, data_dir: &Path) -> Result<(), String> {
    let (name, id) = (group.to_string(), view.publication.to_string());
    let fits = |folder: &Path| {
        let source = folder.join("publications").join(&name).join(&id);
        source == Path::new(&view.source) && folder.join("view").join(&name) == Path::new(&view.point)
    };
    if fits(data_dir) || data_dir.canonicalize().is_ok_and(|folder| fits(&folder)) {
        return Ok(());
    }
    Err(format!(
        "`{name}` can be shown its own publications at its own place below the data folder, and nothing else: not `{}` at `{}`",
        view.source, view.point
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, PublicationId};

    fn list(entries: &[&str]) -> Option<Vec<String>> {
        Some(entries.iter().map(|entry| (*entry).to_owned()).collect())
    }

    #[test]
    fn what_a_list_does_not_name_is_refused_with_the_key_to_change() {
        let data = Path::new("/var/lib/tagfall");
        let grants = Grants { users: list(&["web"]), mount_roots: list(&["/srv", "/etc/app"]), ..Grants::default() };
        assert_eq!(grants.check_user(Some("web")), Ok(()));
        for user in [Some("root"), Some("Web"), Some(""), Some("web "), None] {
            let why = grants.check_user(user).unwrap_err();
            assert!(why.contains("`users` in [keeper]"), "{why}");
        }
        for good in ["/srv/a", "/srv/a/b", "/etc/app/x"] {
            assert_eq!(grants.check_mount(good, data), Ok(()), "{good}");
        }
        for bad in [
            "",
            "srv/a",
            "/",
            "/srv",
            "/srv/",
            "/srv/../etc/x",
            "/srv/./x",
            "/srv//x",
            "/srvx/a",
            "/etc/x",
            "/etc/app",
            "/srv/a/..",
            "/proc/x",
        ] {
            assert!(grants.check_mount(bad, data).is_err(), "{bad}");
        }
        let anywhere = Grants::default();
        for bad in ["/proc/x", "/etc/ssh", "/etc", "/var/lib/tagfall/state/x", "/var/lib/tagfall/keeper", "/run/tagfall/x"] {
            assert!(anywhere.check_mount(bad, data).is_err(), "{bad}");
        }
        assert_eq!(anywhere.check_mount("/var/lib/tagfall/var/web.default/etc", data), Ok(()));
        assert_eq!(anywhere.check_user(None), Ok(()));
    }

    #[test]
    fn nothing_is_allowed_by_a_list_that_is_empty() {
        let grants = Grants { users: list(&[]), mount_roots: list(&[]), capabilities: list(&[]), ..Grants::default() };
        assert!(grants.check_user(Some("web")).unwrap_err().contains("only as nobody"));
        assert!(grants.check_mount("/srv/a", Path::new("/data")).unwrap_err().contains("nowhere"));
        assert_eq!(grants.capability_limit(), Some(CapabilitySet::empty()));
        assert_eq!(Grants::default().capability_limit(), None);
    }

    #[test]
    fn capabilities_have_the_numbers_of_the_kernel() {
        let grants = Grants { capabilities: list(&["CAP_NET_BIND_SERVICE", "CAP_CHOWN"]), ..Grants::default() };
        assert_eq!(grants.capability_limit(), Some(CapabilitySet::NET_BIND_SERVICE | CapabilitySet::CHOWN));
        assert_eq!(CapabilitySet::CHECKPOINT_RESTORE.bits(), 1 << (CAPABILITIES.len() - 1));
    }

    #[test]
    fn a_view_is_the_groups_own() {
        let data = Path::new("/data");
        let (group, other): (GroupName, GroupName) = ("web".parse().unwrap(), "db".parse().unwrap());
        let publication = PublicationId { content: Digest::of(b"x"), copy: 1 };
        let source = format!("/data/publications/web.default/{publication}");
        let good = View { publication, source: source.clone(), point: "/data/view/web.default".to_owned() };
        assert_eq!(check_view(&group, &good, data), Ok(()));
        assert!(check_view(&other, &good, data).is_err());
        for (source, point) in [
            ("/etc", "/data/view/web.default"),
            (source.as_str(), "/etc"),
            (source.as_str(), "/data/view/db.default"),
            ("/data/publications/web.default/../../keeper", "/data/view/web.default"),
        ] {
            let bad = View { publication, source: source.to_owned(), point: point.to_owned() };
            assert!(check_view(&group, &bad, data).is_err(), "{source} {point}");
        }
    }
}
