//! What the keeper is started with. It reads no file: whoever starts it has read them all.

use std::ffi::OsString;
use std::path::PathBuf;

use super::grants::Grants;

/// What the keeper needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeeperConfig {
    /// Where locks, journal, logs and working directories are; absolute.
    pub data_dir: PathBuf,
    /// Program of the supervisor; `None` = this same binary.
    pub supervisor_program: Option<PathBuf>,
    /// The supervisor's arguments behind the word `supervisor`.
    pub supervisor_args: Vec<OsString>,
    /// What the supervisor may have done for it.
    pub grants: Grants,
}

impl KeeperConfig {
    /// The arguments of the hidden subcommand `keeper`: `GRANTS… DATA_DIR PROGRAM ARGS…`, with an empty PROGRAM for this binary.
    /// Each of GRANTS begins with `--`, which no absolute path does.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args = self.grants.to_args();
        let program = self.supervisor_program.clone().unwrap_or_default();
        args.extend([self.data_dir.clone().into_os_string(), program.into_os_string()]);
        args.extend(self.supervisor_args.iter().cloned());
        args
    }

    /// Reads what [`KeeperConfig::to_args`] wrote; `None` where it did not.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut args = args.into_iter();
        let mut grants = Grants::default();
        let mut first = args.next()?;
        while first.as_encoded_bytes().starts_with(b"--") {
            grants.take(&first)?;
            first = args.next()?;
        }
        let data_dir = PathBuf::from(first);
        let program = args.next()?;
        let supervisor_program = (!program.is_empty()).then(|| PathBuf::from(program));
        Some(Self { data_dir, supervisor_program, supervisor_args: args.collect(), grants })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeper::grants::RunAs;

    #[test]
    fn arguments_read_back() {
        let list = |entries: &[&str]| Some(entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>());
        let run_as = RunAs { name: "tagfall".to_owned(), uid: 998, gid: 997, chosen: true };
        let narrow = Grants {
            run_as: Some(run_as.clone()),
            users: list(&["web", "db"]),
            mount_roots: list(&["/srv/a=b,c"]),
            hook_roots: vec![PathBuf::from("/var/lib/a=b"), PathBuf::from("/srv")],
            capabilities: list(&[]),
            socket_folder: Some(PathBuf::from("/run/tagfall")),
        };
        let open = Grants { run_as: Some(RunAs { chosen: false, ..run_as }), ..Grants::default() };
        for grants in [Grants::default(), open, narrow] {
            for supervisor_program in [None, Some(PathBuf::from("/bin/true"))] {
                let supervisor_args = vec![OsString::from("--config"), OsString::from("")];
                let data_dir = PathBuf::from("/data");
                let config = KeeperConfig { data_dir, supervisor_program, supervisor_args, grants: grants.clone() };
                assert_eq!(KeeperConfig::from_args(config.to_args()), Some(config));
            }
        }
        for bad in [&["/data"][..], &["--nonsense", "/data", ""], &["--user=web", "/data", ""], &["--run-as=x:y", "/data", ""]] {
            assert_eq!(KeeperConfig::from_args(bad.iter().map(OsString::from)), None, "{bad:?}");
        }
    }
}
