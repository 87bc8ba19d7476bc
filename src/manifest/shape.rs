//! What may stand in a file: tables of keys with their kinds, defaults and words. The walker (`check`), the reader
//! (`read`) and the JSON Schemas (`schema`) all work from these tables, so they cannot drift apart.
//!
//! A new key is one line in a table (`group_keys`, `settings_keys`) and one `fields.get` where it is used. A new kind of
//! value is a variant of [`Kind`], an arm in `check::value` and one in `schema::kind`.

use crate::model::{Count, GroupName, LogForward, Signal};

use super::node::{Node, Value};
use super::text;

/// A table with known keys.
pub(crate) struct Shape {
    /// How messages call it: `[service]`; empty for a file's top level.
    pub(crate) name: &'static str,
    pub(crate) keys: &'static [Key],
}

/// One known key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    /// As it would be written, without quotes.
    pub(crate) default: Option<&'static str>,
    /// One sentence for editors and for the reference.
    pub(crate) doc: &'static str,
    /// What other tools call it: for hints only.
    pub(crate) also: &'static [&'static str],
}

/// What a key takes.
pub(crate) enum Kind {
    Text(Text),
    Choice(&'static [&'static str]),
    /// A signal's name; `restart` too where the flag is set.
    Signal {
        or_restart: bool,
    },
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    /// An integer or a float.
    Number {
        min: f64,
        max: f64,
    },
    /// A string such as `"30s"`; bounds as they would be written.
    Duration {
        min: &'static str,
        max: &'static str,
    },
    /// A string such as `"512MiB"`.
    Size {
        min: &'static str,
        max: &'static str,
    },
    /// An integer from 1, or a string such as `"25%"`.
    Count,
    List {
        of: &'static Kind,
        min: usize,
    },
    /// Free keys of one syntax, each with a value of one kind.
    Map {
        keys: Text,
        of: &'static Kind,
    },
    Table(&'static Shape),
    /// A table that this parser does not look into: data for templates and hooks.
    Data,
}

/// The syntax of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    /// Anything but control characters.
    Line,
    /// Anything without NUL that is not empty.
    Argument,
    /// Anything without NUL.
    Content,
    /// An absolute path.
    Path,
    /// An absolute path, or a template that becomes one.
    PathTemplate,
    MountPath,
    /// `a.b.c`, into config.
    Dotted,
    Group,
    Identifier,
    Variable,
    Label,
    /// A short printable name: of a ring, a user.
    Name,
    HostPort,
    HostPortTemplate,
    /// `HOST:PORT`, `unix:/PATH`, or a template.
    Reach,
    /// An IP address with its port.
    Listen,
    HttpUrl,
    Socket,
    PortMapping,
    Remote,
    TagPrefix,
    Version,
    VersionRange,
    /// Who gets a service's lines as well.
    Forward,
}

impl Key {
    pub(crate) const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, required: false, default: None, doc, also: &[] }
    }

    pub(crate) const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    pub(crate) const fn default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    pub(crate) const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }
}

impl Shape {
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// How messages name a key of this table.
    pub(crate) fn place(&self, key: &str) -> String {
        match self.name {
            "" => format!("`{key}`"),
            name => format!("`{key}` in {name}"),
        }
    }
}

impl Kind {
    /// Whether a default or an option's value is a string as it stands, not TOML.
    pub(crate) fn is_text(&self) -> bool {
        match self {
            Self::Text(_) | Self::Choice(_) | Self::Signal { .. } | Self::Duration { .. } | Self::Size { .. } => true,
            Self::Bool
            | Self::Integer { .. }
            | Self::Number { .. }
            | Self::Count
            | Self::List { .. }
            | Self::Map { .. }
            | Self::Table(_)
            | Self::Data => false,
        }
    }

    /// What is wanted, as the words after "must be".
    pub(crate) fn wanted(&self) -> String {
        match self {
            Self::Text(text) => text.wanted().to_owned(),
            Self::Choice(names) => one_of(names),
            Self::Signal { or_restart: true } => "`restart`, or a signal's name such as `SIGHUP`".to_owned(),
            Self::Signal { or_restart: false } => "a signal's name such as `SIGTERM`".to_owned(),
            Self::Bool => "`true` or `false`".to_owned(),
            Self::Integer { min, max } if min == max => format!("{min}"),
            Self::Integer { min, max } => format!("an integer from {min} to {max}"),
            Self::Number { min, max } => format!("a number from {min} to {max}"),
            Self::Duration { min, max } => format!("a duration from `{min}` to `{max}`, such as \"30s\""),
            Self::Size { min, max } => format!("a size from `{min}` to `{max}`, such as \"512MiB\""),
            Self::Count => "a number from 1 such as 2, or a share such as \"25%\"".to_owned(),
            Self::List { min: 0, .. } => "a list".to_owned(),
            Self::List { .. } => "a list that is not empty".to_owned(),
            Self::Map { .. } | Self::Table(_) | Self::Data => "a table".to_owned(),
        }
    }

    /// Whether a value that is not a list, map or table is what is wanted.
    pub(crate) fn accepts(&self, node: &Node) -> bool {
        match (self, &node.value) {
            (Self::Text(text), Value::Text(value)) => text.accepts(value),
            (Self::Choice(names), Value::Text(value)) => names.contains(&value.as_str()),
            (Self::Signal { or_restart }, Value::Text(value)) => {
                value.parse::<Signal>().is_ok() || (*or_restart && value == "restart")
            }
            (Self::Bool, Value::Bool(_)) => true,
            (Self::Integer { min, max }, Value::Integer(value)) => (min..=max).contains(&value),
            (Self::Number { min, max }, Value::Integer(_) | Value::Float(_)) => {
                number(node).is_some_and(|value| (*min..=*max).contains(&value))
            }
            (Self::Duration { min, max }, Value::Text(value)) => within(text::duration, min, value, max),
            (Self::Size { min, max }, Value::Text(value)) => within(text::size, min, value, max),
            (Self::Count, Value::Integer(_) | Value::Text(_)) => count(node).is_some(),
            _ => false,
        }
    }
}

fn within<T: PartialOrd>(read: fn(&str) -> Option<T>, min: &str, value: &str, max: &str) -> bool {
    let Some(value) = read(value) else { return false };
    read(min).is_none_or(|min| value >= min) && read(max).is_none_or(|max| value <= max)
}

/// `a`, `b` or `c`.
pub(crate) fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// An integer or float as a float.
pub(crate) fn number(node: &Node) -> Option<f64> {
    match node.value {
        #[expect(clippy::cast_precision_loss, reason = "limits in cores are small numbers")]
        Value::Integer(value) => Some(value as f64),
        Value::Float(value) => Some(value),
        Value::Text(_) | Value::Bool(_) | Value::Datetime(_) | Value::List(_) | Value::Table(_) => None,
    }
}

/// A count of members.
pub(crate) fn count(node: &Node) -> Option<Count> {
    match &node.value {
        Value::Integer(value) => u32::try_from(*value).ok().filter(|value| *value > 0).map(Count::Members),
        Value::Text(value) => text::percent(value),
        Value::Float(_) | Value::Bool(_) | Value::Datetime(_) | Value::List(_) | Value::Table(_) => None,
    }
}

impl Text {
    /// What is wanted, as the words after "must be".
    pub(crate) const fn wanted(self) -> &'static str {
        match self {
            Self::Line => "a string of one line",
            Self::Argument => "a string that is not empty and has no NUL",
            Self::Content => "a string without NUL",
            Self::Path => "an absolute path without `//`, `.` and `..`",
            Self::PathTemplate => "an absolute path without `//`, `.` and `..`, or a template",
            Self::MountPath => "an absolute path of at least two parts, such as `/etc/guestbook`",
            Self::Dotted => "a dotted path into [config], such as `db.port`",
            Self::Group => "a group's name, such as `redis.default`",
            Self::Identifier => "a name of letters, digits, `_` and `-` that begins with a letter",
            Self::Variable => "a variable's name of letters, digits and `_`",
            Self::Label => "a label of 1 to 253 bytes without control characters",
            Self::Name => "a name of letters, digits, `_`, `-` and `.`, at most 63 bytes long",
            Self::HostPort => "`HOST:PORT`",
            Self::HostPortTemplate => "`HOST:PORT`, or a template",
            Self::Reach => "`HOST:PORT`, `unix:/PATH`, or a template",
            Self::Listen => "an IP address with its port, such as `0.0.0.0:9638`",
            Self::HttpUrl => "an `http://` URL, or a template",
            Self::Socket => "`tcp://IP:PORT`, `udp://IP:PORT` or `unix:///PATH`",
            Self::PortMapping => "`HOST:CONTAINER`, such as `8080:80`",
            Self::Remote => "a path, a URL (`file://`, `https://`, `http://`, `ssh://`) or `user@host:path`",
            Self::TagPrefix => "what may stand in a tag's name",
            Self::Version => "a semantic version, such as `1.2.0`",
            Self::VersionRange => "a range of versions, such as `>=1.0.0, <2.0.0`",
            Self::Forward => "`none`, `journald` or `syslog`, or one of these with the path of its socket: `syslog:/dev/log`",
        }
    }

    /// Whether a string has this syntax.
    pub(crate) fn accepts(self, value: &str) -> bool {
        match self {
            Self::Line => !value.chars().any(char::is_control),
            Self::Argument => !value.is_empty() && !value.contains('\0'),
            Self::Content => !value.contains('\0'),
            Self::Path => text::absolute_path(value).is_ok(),
            Self::PathTemplate => !value.contains('\0') && (text::is_template(value) || text::absolute_path(value).is_ok()),
            Self::MountPath => text::mount_path(value).is_ok(),
            Self::Dotted => value.split('.').all(|part| !part.is_empty()),
            Self::Group => value.parse::<GroupName>().is_ok(),
            Self::Identifier => text::identifier(value),
            Self::Variable => text::variable(value),
            Self::Label => text::label(value),
            Self::Name => text::plain_name(value),
            Self::HostPort => text::host_port(value),
            Self::HostPortTemplate => text::is_template(value) || text::host_port(value),
            Self::Reach => text::is_template(value) || text::host_port(value) || text::unix_path(value),
            Self::Listen => value.parse::<std::net::SocketAddr>().is_ok(),
            Self::HttpUrl => text::is_template(value) || text::http_url(value),
            Self::Socket => text::is_template(value) || text::socket(value),
            Self::PortMapping => text::is_template(value) || text::port_mapping(value),
            Self::Remote => !value.is_empty() && !value.starts_with('-') && !value.chars().any(char::is_control),
            Self::TagPrefix => tag_prefix(value),
            Self::Version => semver::Version::parse(value).is_ok(),
            Self::VersionRange => semver::VersionReq::parse(value).is_ok(),
            Self::Forward => value.parse::<LogForward>().is_ok(),
        }
    }
}

/// The rules of `git check-ref-format` that can bite at the beginning of a name.
fn tag_prefix(value: &str) -> bool {
    let banned = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let parts_are_fine = value.split('/').all(|part| !part.starts_with('.') && !part.ends_with(".lock"));
    let whole_is_fine = !value.starts_with(['/', '-']) && !value.contains("//") && !value.contains("..") && !value.contains("@{");
    value.len() <= 200 && !value.chars().any(banned) && parts_are_fine && whole_is_fine
}
