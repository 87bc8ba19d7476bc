//! Log files on disk: where they are and what they are called. The keeper writes them, the supervisor reads them.

use std::path::{Path, PathBuf};

use crate::model::GroupName;

/// Most files of one service.
pub const LOG_FILES_MAX: u32 = 100;

/// Longest part of a line in bytes; a longer line is cut into parts.
pub const LOG_LINE_MAX_BYTES: usize = 16 * 1024;

/// Where a service's log files are.
pub fn log_dir(data_dir: &Path, group: &GroupName) -> PathBuf {
    data_dir.join("logs").join(group.to_string())
}

/// What the file of an age is called: 0 is being written, 1 was closed last.
pub fn log_file(age: u32) -> String {
    if age == 0 { "current.log".to_owned() } else { format!("older-{age}.log") }
}

/// The age of the file of a name; `None` for what is no log file.
pub fn log_age(name: &str) -> Option<u32> {
    if name == log_file(0) {
        return Some(0);
    }
    let age = name.strip_prefix("older-")?.strip_suffix(".log")?.parse().ok()?;
    (name == log_file(age)).then_some(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_age() {
        for age in [0, 1, 9, 100] {
            assert_eq!(log_age(&log_file(age)), Some(age));
        }
        for other in ["", "older-.log", "older-01.log", "older-0.log", "current.log.gz", "older-1"] {
            assert_eq!(log_age(other), None, "{other}");
        }
    }
}
