//! Typed reading of tables that the walker has looked at. It reports nothing: what was not as it should be reads as its
//! default, so that one mistake is told once. A new type that can be read is a line in the macro call below.

use std::time::Duration;

use crate::model::{Count, GroupName, LogForward, LogSettings, Signal};

use super::node::{Node, Table, Value};
use super::shape::{Key, Kind, Shape, count, number};
use super::text;

/// Typed access to a table that `check` has looked at: what is not as it should be has been reported and reads as if it
/// were not there, so its default stands in.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) shape: &'static Shape,
    pub(crate) table: Option<&'a Table>,
}

/// A type that can be read from a checked value.
pub(crate) trait Read: Sized {
    fn read(node: &Node) -> Option<Self>;
}

impl<'a> Fields<'a> {
    pub(crate) fn new(shape: &'static Shape, node: Option<&'a Node>) -> Self {
        Self { shape, table: node.and_then(Node::table) }
    }

    /// The value as it was written, if it is what the key takes.
    pub(crate) fn node(&self, key: &str) -> Option<&'a Node> {
        debug_assert!(self.shape.key(key).is_some(), "`{key}` is read from {} but not in its table", self.shape.name);
        self.table?.get(key)
    }

    /// The value, or the key's default.
    pub(crate) fn get<T: Read>(&self, key: &str) -> Option<T> {
        let known = self.shape.key(key)?;
        let written = self.node(key).filter(|node| {
            let composed = matches!(known.kind, Kind::List { .. } | Kind::Map { .. } | Kind::Table(_) | Kind::Data);
            composed || known.kind.accepts(node)
        });
        match written.and_then(T::read) {
            Some(value) => Some(value),
            None => T::read(&known.default_node()?),
        }
    }

    /// The value of a key that has a default.
    pub(crate) fn value<T: Read + Default>(&self, key: &str) -> T {
        self.get(key).unwrap_or_default()
    }

    /// The fields of a table below.
    pub(crate) fn below(&self, key: &str) -> Fields<'a> {
        let shape = match self.shape.key(key).map(|key| &key.kind) {
            Some(Kind::Table(shape)) => shape,
            _ => self.shape,
        };
        debug_assert!(!std::ptr::eq(shape, self.shape), "`{key}` is not a table of {}", self.shape.name);
        Fields::new(shape, self.node(key))
    }
}

impl Key {
    /// The default as a node without a place.
    pub(crate) fn default_node(&self) -> Option<Node> {
        let text = self.default?;
        let value = if self.kind.is_text() {
            Value::Text(text.to_owned())
        } else if let Ok(value) = text.parse() {
            Value::Integer(value)
        } else if let Ok(value) = text.parse() {
            Value::Bool(value)
        } else if let Ok(value) = text.parse() {
            Value::Float(value)
        } else {
            Value::Text(text.to_owned())
        };
        Some(Node { at: super::diagnostic::At { source: u32::MAX, offset: 0 }, value })
    }
}

macro_rules! read {
    ($($type:ty: $node:ident => $value:expr;)+) => {
        $(impl Read for $type {
            fn read($node: &Node) -> Option<Self> {
                $value
            }
        })+
    };
}

read! {
    String: node => node.text().map(str::to_owned);
    std::path::PathBuf: node => node.text().map(Self::from);
    Duration: node => text::duration(node.text()?);
    Signal: node => node.text()?.parse().ok();
    f64: node => number(node);
    Count: node => count(node);
    LogForward: node => node.text()?.parse().ok();
    GroupName: node => node.text()?.parse().ok();
    semver::Version: node => node.text()?.parse().ok();
    semver::VersionReq: node => node.text()?.parse().ok();
    std::net::SocketAddr: node => node.text()?.parse().ok();
    bool: node => if let Value::Bool(value) = node.value { Some(value) } else { None };
    u16: node => u64::read(node)?.try_into().ok();
    u32: node => u64::read(node)?.try_into().ok();
    u64: node => match &node.value {
        Value::Integer(value) => u64::try_from(*value).ok(),
        Value::Text(value) => text::size(value),
        Value::Float(_) | Value::Bool(_) | Value::Datetime(_) | Value::List(_) | Value::Table(_) => None,
    };
}

impl<T: Read> Read for Vec<T> {
    fn read(node: &Node) -> Option<Self> {
        Some(node.list()?.iter().filter_map(T::read).collect())
    }
}

impl<T: Read> Read for std::collections::BTreeMap<String, T> {
    fn read(node: &Node) -> Option<Self> {
        let entries = node.table()?.0.iter();
        Some(entries.filter_map(|(key, entry)| Some((key.clone(), T::read(&entry.node)?))).collect())
    }
}

/// Where and how lines are kept, in `group.toml` and `supervisor.toml` alike.
pub(crate) fn log_settings(fields: Fields<'_>) -> LogSettings {
    LogSettings {
        max_size: fields.get("max_size"),
        files: fields.get("files"),
        format: fields.get("format").map(|Chosen(format)| format),
        forward: fields.get("forward"),
    }
}

/// A [`super::choice::Choice`], read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen<T>(pub(crate) T);

impl<T: super::choice::Choice> Read for Chosen<T> {
    fn read(node: &Node) -> Option<Self> {
        T::of(node.text()?).map(Chosen)
    }
}
