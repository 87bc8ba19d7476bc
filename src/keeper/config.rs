//! What the keeper is started with. It reads no file: whoever starts it has read them all.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the keeper needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeeperConfig {
    /// Where locks, journal, logs and working directories are.
    pub data_dir: PathBuf,
    /// Program of the supervisor; `None` = this same binary.
    pub supervisor_program: Option<PathBuf>,
    /// The supervisor's arguments behind the word `supervisor`.
    pub supervisor_args: Vec<OsString>,
}

impl KeeperConfig {
    /// The arguments of the hidden subcommand `keeper`: `DATA_DIR PROGRAM ARGS…`, with an empty PROGRAM for this binary.
    pub fn to_args(&self) -> Vec<OsString> {
        let program = self.supervisor_program.clone().unwrap_or_default();
        let mut args = vec![self.data_dir.clone().into_os_string(), program.into_os_string()];
        args.extend(self.supervisor_args.iter().cloned());
        args
    }

    /// Reads what [`KeeperConfig::to_args`] wrote; `None` where it did not.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut args = args.into_iter();
        let data_dir = PathBuf::from(args.next()?);
        let program = args.next()?;
        let supervisor_program = (!program.is_empty()).then(|| PathBuf::from(program));
        Some(Self { data_dir, supervisor_program, supervisor_args: args.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_read_back() {
        for supervisor_program in [None, Some(PathBuf::from("/bin/true"))] {
            let supervisor_args = vec![OsString::from("--config"), OsString::from("")];
            let config = KeeperConfig { data_dir: PathBuf::from("/data"), supervisor_program, supervisor_args };
            assert_eq!(KeeperConfig::from_args(config.to_args()), Some(config));
        }
        assert_eq!(KeeperConfig::from_args([OsString::from("/data")]), None);
    }
}
