//! TOML as written → its meaning for this supervisor, with every diagnostic of every file at once.
//!
//! Pure: texts come in, meaning or diagnostics go out. It opens no file, asks no clock and knows no Git; of the other
//! rooms it knows only `model`. The way through it: `node` reads TOML into trees that know their places, `check` walks
//! them against the tables of keys, `read` takes typed values out, `group` and `hooks` build one group, `mounts` and
//! `binds` look at all groups together, `release` leads. To add a key: a line in `group_keys` or `settings_keys`, and one
//! where it is read; messages and the JSON Schemas follow from the table.

mod binds;
mod check;
mod choice;
mod diagnostic;
mod folder;
mod group;
mod group_keys;
mod hooks;
mod layer;
mod mounts;
mod node;
mod overlay;
mod read;
mod release;
mod schema;
mod settings;
mod settings_keys;
mod shape;
mod text;

#[cfg(test)]
mod tests;

pub use diagnostic::{Diagnostic, Severity};
pub use layer::parse_config_layer;
pub use release::{Parsed, parse_release};
pub use schema::{group_schema, supervisor_schema};
pub use settings::{
    ApiSettings, Credentials, Heartbeat, ROOT_DATA_DIR, ROOT_SOCKET, RingSettings, Settings, SourceLimits, SourceSettings,
    TlsSettings, Verify, VerifyMode, parse_settings,
};
