//! `builtin:file`: whether a file is there, and not too old.

use std::io;
use std::time::{Duration, SystemTime};

use super::{critical, in_words, ok};
use crate::model::CheckResult;

pub(super) async fn check(path: &str, max_age: Option<Duration>) -> CheckResult {
    let place = path.to_owned();
    // On the blocking pool: a dead network file system hangs in stat(2).
    let found = tokio::task::spawn_blocking(move || std::fs::metadata(place)).await;
    let found = match found.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return critical(format!("`{path}` is not there")),
        Err(error) => return critical(format!("could not look at `{path}`: {}", in_words(&error))),
    };
    if !found.is_file() {
        return critical(format!("`{path}` is not a regular file"));
    }
    let Some(max_age) = max_age else { return ok(format!("`{path}` is there")) };
    match found.modified() {
        Ok(modified) => by_age(path, SystemTime::now().duration_since(modified).unwrap_or_default(), max_age),
        Err(error) => critical(format!("could not tell the age of `{path}`: {}", in_words(&error))),
    }
}

/// A time that lies ahead (a clock that was set back) is no age at all.
fn by_age(path: &str, age: Duration, max_age: Duration) -> CheckResult {
    let words = humantime::format_duration(Duration::from_secs(age.as_secs()));
    if age > max_age {
        return critical(format!("`{path}` was written {words} ago, wanted at most {}", humantime::format_duration(max_age)));
    }
    ok(format!("`{path}` was written {words} ago"))
}
