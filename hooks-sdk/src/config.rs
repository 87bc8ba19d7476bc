//! What is configured: one snapshot, the same for the whole call. Needs no grant.
//!
//! ```no_run
//! use tagfall_hooks::prelude::*;
//!
//! # fn port() -> Result<()> {
//! let port: u16 = config::get("/cfg/port")?;
//! let host = config::find("/cfg/host")?.unwrap_or_else(|| "127.0.0.1".to_owned());
//! # Ok(()) }
//! ```

use serde::de::DeserializeOwned;

use crate::error::placeless;
use crate::host::config;
use crate::{Error, Result};

/// A value that must be there, by its JSON pointer: `/cfg/port`. The first name is one of `cfg`, `svc`, `sys` and `bind`.
///
/// # Errors
/// `no-config` where there is none, `bad-config` where it is of another type.
pub fn get<T: DeserializeOwned>(pointer: &str) -> Result<T> {
    find(pointer)?.ok_or_else(|| Error::new("no-config", format!("the configuration has no `{pointer}`")))
}

/// A value that may be there, by its JSON pointer.
///
/// # Errors
/// `bad-config` where it is of another type.
pub fn find<T: DeserializeOwned>(pointer: &str) -> Result<Option<T>> {
    config::get(pointer).map(|json| typed(pointer, &json)).transpose()
}

/// All of it: `{"cfg": …, "svc": …, "sys": …, "bind": …}`, as templates see them.
///
/// # Errors
/// `bad-config` where it is of another type.
pub fn snapshot<T: DeserializeOwned>() -> Result<T> {
    let json = config::snapshot_json();
    serde_json::from_str(&json)
        .map_err(|error| Error::new("bad-config", format!("the configuration does not fit: {}", placeless(&error))))
}

fn typed<T: DeserializeOwned>(pointer: &str, json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| {
        Error::new("bad-config", format!("`{pointer}` of the configuration does not fit: {}", placeless(&error)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_in_its_type() {
        assert_eq!(typed::<u16>("/cfg/port", "8080"), Ok(8080));
        let error = typed::<u16>("/cfg/port", "\"http\"").unwrap_err();
        assert_eq!(error.code(), "bad-config");
        assert_eq!(error.message(), "`/cfg/port` of the configuration does not fit: invalid type: string \"http\", expected u16");
        assert_eq!(get::<u16>("/cfg/port").unwrap_err().message(), "the configuration has no `/cfg/port`");
    }
}
