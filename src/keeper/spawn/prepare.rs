//! What can be found out about a start before there is a process: user, groups, environment, program, directory.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chownat, mkdirat, openat, statat};
use rustix::process::Rlimit;
use rustix::thread::CapabilitySet;

use super::{Handed, Identity, Mounts, Plan, Strict};
use crate::keeper::cgroup::Place;
use crate::keeper::mounts::published;
use crate::keeper::rights::Rights;
use crate::keeper::unit::VARIABLES;
use crate::model::{CAPABILITIES, Hardening, Launch, View};
use crate::sys::process::{Image, User, groups_of, user_by_name};

/// Where programs are looked up: systemd's default for services.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is to be started.
pub(in crate::keeper) struct Order<'a> {
    pub(in crate::keeper) launch: &'a Launch,
    /// Variables beside those of the launch; they win.
    pub(in crate::keeper) env: Vec<(String, String)>,
    /// What it shall see in a mount namespace of its own.
    pub(in crate::keeper) view: Option<&'a View>,
    /// A process whose mount namespace it shall be in instead.
    pub(in crate::keeper) beside: Option<OwnedFd>,
    pub(in crate::keeper) stdio: [OwnedFd; 3],
    /// It is a service of its own, and no command beside one.
    pub(in crate::keeper) service: bool,
    /// It may have a mount namespace of its own.
    pub(in crate::keeper) may_mount: bool,
    /// What it gets beside them.
    pub(in crate::keeper) handed: Handed,
}

/// Finds all that a start needs. The error says what is missing and what to do.
pub(in crate::keeper) fn prepare(
    order: Order<'_>,
    rights: &Rights,
    limit: Option<CapabilitySet>,
    data_dir: &Path,
) -> Result<Plan, String> {
    let launch = order.launch;
    let (user, identity) = find_user(launch.user.as_deref(), rights)?;
    let environment = environment(&user, launch, order.env);
    let owner = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    make_directory(&launch.working_dir, data_dir, identity.is_some().then_some(owner))?;
    // So that the program can open `/dev/stdout` anew, which asks for the rights of a file.
    if identity.is_some() {
        for output in &order.stdio[1..] {
            rustix::fs::fchown(output, Some(owner.0), Some(owner.1))
                .map_err(|error| format!("its output cannot be given to user `{}`: {}", user.name, io::Error::from(error)))?;
        }
    }
    let mounts = match (order.beside, order.view) {
        (Some(pidfd), _) => Mounts::Of(pidfd),
        (None, Some(view)) => {
            let mount = published(view).map_err(|error| {
                format!("publication `{}` cannot be mounted: {error}; it is not started without", view.source)
            })?;
            Mounts::Own { view: Some((mount, view.point.clone())) }
        }
        (None, None) if order.may_mount && launch.hardening == Some(Hardening::Strict) => Mounts::Own { view: None },
        (None, None) => Mounts::Host,
    };
    let strict = (launch.hardening == Some(Hardening::Strict)).then(|| {
        let sees = matches!(mounts, Mounts::Own { .. } | Mounts::Of(_));
        Strict::new(launch, (order.view, order.service), sees, rights, data_dir)
    });
    let unenforced = strict.as_ref().filter(|_| order.service).and_then(|strict| strict.not_enforced(rights));
    let limit = limit.filter(|_| rights.uid == 0);
    let narrowed = limit.filter(|_| order.service && launch.hardening == Some(Hardening::None)).map(|kept| {
        let names: Vec<&str> =
            CAPABILITIES.into_iter().enumerate().filter(|(at, _)| kept.bits() >> at & 1 == 1).map(|(_, name)| name).collect();
        format!(
            "this host leaves hardening `none` these capabilities at most: {}",
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        )
    });
    let directory_text = launch.working_dir.clone();
    Ok(Plan {
        image: image(&launch.argv, &environment)?,
        what: launch.argv.first().cloned().unwrap_or_default(),
        directory: c_string(&launch.working_dir)?,
        directory_text,
        identity,
        shut_in: launch.hardening != Some(Hardening::None),
        drop_bounding: rights.may_drop_bounding,
        known_capabilities: rights.known_capabilities,
        capability_limit: limit,
        open_files: open_files(launch, rights),
        mounts,
        stdio: order.stdio,
        lock: None,
        handed: order.handed.settle().map_err(|error| format!("its sockets cannot be handed over: {error}"))?,
        strict,
        place: Place::default(),
        oom_score: rights.oom_score.to_string(),
        notes: unenforced.into_iter().chain(narrowed).collect(),
    })
}

fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("`{}` holds a NUL character, which no program can be given", text.escape_debug()))
}

/// Lays out a program, looked up in PATH unless its name holds a slash.
fn image(argv: &[String], environment: &[(String, String)]) -> Result<Image, String> {
    let Some(program) = argv.first().filter(|program| !program.is_empty()) else {
        return Err("`exec` names no program".to_owned());
    };
    let candidates = if program.contains('/') {
        vec![c_string(program)?]
    } else {
        let path = environment.iter().find(|(key, _)| key == "PATH").map_or(DEFAULT_PATH, |(_, path)| path);
        let dirs = path.split(':').filter(|dir| !dir.is_empty());
        dirs.map(|dir| c_string(&format!("{dir}/{program}"))).collect::<Result<_, _>>()?
    };
    let arguments = argv.iter().map(|argument| c_string(argument)).collect::<Result<_, _>>()?;
    let variables = environment.iter().map(|(key, value)| c_string(&format!("{key}={value}")));
    Ok(Image::new(candidates, arguments, variables.collect::<Result<_, _>>()?))
}

/// The keeper's own environment with changes (`None`: without it), for the supervisor. What is not UTF-8 is taken as it is; what
/// a service manager asks of the keeper is the keeper's alone.
pub(in crate::keeper) fn environment_of_keeper(changes: &[(&str, Option<String>)]) -> Vec<CString> {
    let is_own = |name: &OsString| VARIABLES.iter().any(|variable| name == variable);
    let own = std::env::vars_os().filter(|(own, _)| changes.iter().all(|(key, _)| own != key) && !is_own(own));
    let own = own.map(|(mut key, value)| {
        key.push("=");
        key.push(value);
        key
    });
    let added = changes.iter().filter_map(|(key, value)| Some(OsString::from(format!("{key}={}", value.as_ref()?))));
    own.chain(added).filter_map(|variable| CString::new(variable.into_vec()).ok()).collect()
}

/// The user, and its ids where they differ from what the keeper runs with.
fn find_user(name: Option<&str>, rights: &Rights) -> Result<(User, Option<Identity>), String> {
    let Some(name) = name else { return Ok((rights.user.clone(), None)) };
    let c_name = c_string(name)?;
    let user = user_by_name(&c_name)
        .map_err(|error| format!("user `{name}` cannot be looked up: {error}"))?
        .ok_or_else(|| format!("user `{name}` does not exist on this host; create it, or change `user` in [service]"))?;
    if !rights.may_switch_user {
        if user.uid == rights.uid {
            return Ok((user, None));
        }
        return Err(format!(
            "it cannot run as user `{name}`: the supervisor runs as user id {} without the right to change it; start it as root, or leave out `user`",
            rights.uid
        ));
    }
    let groups = groups_of(&c_name, user.gid).map_err(|error| format!("groups of user `{name}` cannot be looked up: {error}"))?;
    let groups = groups.into_iter().map(Gid::from_raw).collect();
    let identity = Identity { uid: Uid::from_raw(user.uid), gid: Gid::from_raw(user.gid), groups };
    Ok((user, Some(identity)))
}

/// User and group that a service's own things belong to. An unknown user is named when the start itself looks for it.
pub(in crate::keeper) fn owner_of(user: Option<&str>, rights: &Rights) -> (u32, u32) {
    match find_user(user, rights) {
        Ok((user, Some(_))) => (user.uid, user.gid),
        Ok((_, None)) | Err(_) => (rights.uid, rustix::process::getegid().as_raw()),
    }
}

/// Only what is declared: later entries win over earlier ones.
fn environment(user: &User, launch: &Launch, added: Vec<(String, String)>) -> Vec<(String, String)> {
    let fixed = [
        ("PATH", DEFAULT_PATH),
        ("HOME", &user.home),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
        ("SHELL", &user.shell),
        ("LANG", "C.UTF-8"),
    ];
    let fixed = fixed.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut environment: Vec<(String, String)> = Vec::new();
    for (key, value) in fixed.into_iter().chain(launch.env.iter().cloned()).chain(added) {
        match environment.iter_mut().find(|(known, _)| *known == key) {
            Some(entry) => entry.1 = value,
            None => environment.push((key, value)),
        }
    }
    environment
}

fn open_files(launch: &Launch, rights: &Rights) -> Rlimit {
    match launch.limits.open_files {
        Some(limit) => Rlimit { current: Some(limit), maximum: Some(limit) },
        None => rights.open_files,
    }
}

/// Makes a working directory under DATA_DIR/var, each new part owned by the service's user. One that lies elsewhere is the
/// operator's to make. No link is followed: parts of the path may belong to the service.
fn make_directory(directory: &str, data_dir: &Path, owner: Option<(Uid, Gid)>) -> Result<(), String> {
    let var = data_dir.join("var");
    let Ok(below) = Path::new(directory).strip_prefix(&var) else { return Ok(()) };
    let failed = |error: io::Error| format!("working directory `{directory}` cannot be made: {error}");
    std::fs::create_dir_all(&var).map_err(failed)?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let mut parent: OwnedFd = std::fs::File::open(&var).map_err(failed)?.into();
    for (depth, part) in below.components().enumerate() {
        let Component::Normal(part) = part else {
            return Err(format!("working directory `{directory}` holds `..`; name it without"));
        };
        let made = match mkdirat(&parent, part, Mode::from_raw_mode(0o750)) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(error) => return Err(failed(error.into())),
        };
        // The first part lies in a directory of ours, so it can be given to another user than at the last start.
        if let Some((uid, gid)) = owner
            && (made || depth == 0)
        {
            let stat = statat(&parent, part, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| failed(error.into()))?;
            if (stat.st_uid, stat.st_gid) != (uid.as_raw(), gid.as_raw()) {
                let (uid, gid) = (Some(uid), Some(gid));
                chownat(&parent, part, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| failed(error.into()))?;
            }
        }
        parent = openat(&parent, part, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User { name: "web".to_owned(), uid: 1, gid: 1, home: "/home/web".to_owned(), shell: "/bin/sh".to_owned() }
    }

    #[test]
    fn the_environment_is_what_is_declared_and_nothing_else() {
        let env = vec![("A".to_owned(), "1".to_owned()), ("PATH".to_owned(), "/bin".to_owned())];
        let launch = Launch { env, ..Launch::default() };
        let found = environment(&user(), &launch, vec![("TAGFALL_GROUP".to_owned(), "web.default".to_owned())]);
        let found: Vec<String> = found.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let wanted = [
            "PATH=/bin",
            "HOME=/home/web",
            "USER=web",
            "LOGNAME=web",
            "SHELL=/bin/sh",
            "LANG=C.UTF-8",
            "A=1",
            "TAGFALL_GROUP=web.default",
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_no_program_can_be_given_is_refused_with_its_name() {
        assert!(image(&[], &[]).is_err());
        assert!(image(&[String::new()], &[]).is_err());
        let error = image(&["/bin/true".to_owned(), "a\0b".to_owned()], &[]).err().unwrap();
        assert!(error.contains("NUL"), "{error}");
    }

    #[test]
    fn working_directories_are_made_below_var_only_and_never_through_a_link() {
        let data = tempfile::tempdir().unwrap();
        let var = data.path().join("var");
        let inside = var.join("web.default/sub");
        make_directory(inside.to_str().unwrap(), data.path(), None).unwrap();
        assert!(inside.is_dir());
        let outside = data.path().join("elsewhere");
        make_directory(outside.to_str().unwrap(), data.path(), None).unwrap();
        assert!(!outside.exists());
        std::os::unix::fs::symlink(data.path(), var.join("web.default/link")).unwrap();
        let through = var.join("web.default/link/made");
        assert!(make_directory(through.to_str().unwrap(), data.path(), None).is_err());
        assert!(!data.path().join("made").exists());
        assert!(make_directory(var.join("../up").to_str().unwrap(), data.path(), None).is_err());
    }

    #[test]
    fn an_unknown_user_is_named() {
        let rights = Rights {
            uid: rustix::process::geteuid().as_raw(),
            user: user(),
            may_switch_user: false,
            may_drop_bounding: false,
            may_give: false,
            namespaces: Ok(()),
            missing: crate::keeper::spawn::shield::Missing::default(),
            landlock: Ok(()),
            open_files: Rlimit { current: None, maximum: None },
            known_capabilities: rustix::thread::CapabilitySet::empty(),
            oom_score: 0,
        };
        let error = find_user(Some("no-such-user-here"), &rights).err().unwrap();
        assert!(error.contains("`no-such-user-here` does not exist"), "{error}");
        let stranger = Rights { uid: 4242, ..rights };
        let error = find_user(Some("root"), &stranger).err().unwrap();
        assert!(error.contains("4242"), "{error}");
    }
}
