//! What no message may widen: the names of capabilities, and the folders that no group publishes in.

/// Capabilities by their names, each at the place of its number (capabilities(7)).
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Folders that the system or Tagfall itself owns: nothing is published at them or below.
const CLOSED_TREES: [&str; 6] = ["/proc", "/sys", "/dev", "/boot", "/run/tagfall", "/var/run/tagfall"];

/// Well-known folders that everything shares: a group may own a folder below, never one of these.
const SHARED_FOLDERS: [&str; 32] = [
    "/etc/systemd",
    "/etc/ssl",
    "/etc/ssh",
    "/etc/init.d",
    "/etc/cron.d",
    "/etc/pam.d",
    "/etc/apt",
    "/etc/default",
    "/etc/tagfall",
    "/run/user",
    "/run/lock",
    "/run/systemd",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/include",
    "/usr/local",
    "/usr/share",
    "/usr/src",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/local/lib",
    "/usr/local/etc",
    "/usr/local/share",
    "/var/lib",
    "/var/log",
    "/var/run",
    "/var/cache",
    "/var/spool",
    "/var/tmp",
];

/// Whether a plain absolute path is a folder that a group may have for its own; if not, the words after "must be".
pub fn may_be_published(path: &str) -> Result<(), String> {
    if let Some(tree) = CLOSED_TREES.iter().find(|tree| is_below_or_same(path, tree)) {
        return Err(format!("a path outside of `{tree}`"));
    }
    if path.matches('/').count() < 2 || SHARED_FOLDERS.contains(&path) {
        return Err("a folder of the group's own, below those that the whole system shares".to_owned());
    }
    Ok(())
}

/// Whether `path` is `tree` or lies below it.
pub fn is_below_or_same(path: &str, tree: &str) -> bool {
    path.strip_prefix(tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || tree == "/")
}
