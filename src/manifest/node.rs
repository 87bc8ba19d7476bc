//! A TOML document as an owned tree in which every key and value knows its place. Reading text and merging trees happen
//! here; what keys mean does not. A new kind of TOML value would be added to [`Value`] and to `convert`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml_parser::lexer::TokenKind;

use super::diagnostic::{At, Report};

/// Tables, arrays and dotted keys may lie so deep in one another: the parser's and our own recursion stay far below a
/// thread's stack.
const NESTING_MAX: usize = 64;

/// Bytes of one manifest; far above what a person writes.
const TEXT_MAX_BYTES: usize = 1 << 20;

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) value: Value,
}

/// What TOML can say.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    /// Kept as it would be printed: JSON and templates know no such type.
    Datetime(String),
    List(Vec<Node>),
    Table(Table),
}

/// Keys with their values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table(pub(crate) BTreeMap<String, Entry>);

/// One key of a table.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Where the key stands; also the order in which keys were written.
    pub(crate) key: At,
    pub(crate) node: Node,
}

impl Value {
    /// The type's name, with its article.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::Datetime(_) => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Datetime(_) | Value::List(_) | Value::Table(_) => None,
        }
    }

    pub(crate) fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Datetime(_) | Value::List(_) => None,
        }
    }

    pub(crate) fn list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(list) => Some(list),
            Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Datetime(_) | Value::Table(_) => None,
        }
    }

    /// The value as JSON, keys in the order in which they were written. `nan` and `inf` become null: they are reported
    /// by [`Node::check_data`].
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Text(text) | Value::Datetime(text) => serde_json::Value::String(text.clone()),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Bool(truth) => (*truth).into(),
            Value::List(list) => list.iter().map(Node::to_json).collect(),
            Value::Table(table) => {
                serde_json::Value::Object(table.ordered().map(|(key, entry)| (key.clone(), entry.node.to_json())).collect())
            }
        }
    }

    /// Reports numbers that data handed to templates and hooks cannot carry.
    pub(crate) fn check_data(&self, report: &mut Report) {
        match &self.value {
            Value::Float(number) if !number.is_finite() => {
                report.error(self.at, "`nan` and `inf` cannot be handed to templates or hooks");
            }
            Value::List(list) => list.iter().for_each(|node| node.check_data(report)),
            Value::Table(table) => table.0.values().for_each(|entry| entry.node.check_data(report)),
            Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Datetime(_) => {}
        }
    }

    /// One canonical form of the value: sorted keys, types told apart, nothing of how it was written.
    pub(crate) fn canonical(&self, out: &mut Vec<u8>) {
        let field = |out: &mut Vec<u8>, tag: u8, bytes: &[u8]| {
            out.push(tag);
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        match &self.value {
            Value::Text(text) => field(out, b's', text.as_bytes()),
            Value::Datetime(text) => field(out, b'd', text.as_bytes()),
            Value::Integer(number) => field(out, b'i', &number.to_le_bytes()),
            Value::Float(number) => field(out, b'f', &number.to_bits().to_le_bytes()),
            Value::Bool(truth) => field(out, b'b', &[u8::from(*truth)]),
            Value::List(list) => {
                field(out, b'l', &(list.len() as u64).to_le_bytes());
                list.iter().for_each(|node| node.canonical(out));
            }
            Value::Table(table) => {
                field(out, b't', &(table.0.len() as u64).to_le_bytes());
                for (key, entry) in &table.0 {
                    field(out, b'k', key.as_bytes());
                    entry.node.canonical(out);
                }
            }
        }
    }
}

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.0.get(key).map(|entry| &entry.node)
    }

    /// Entries in the order in which their keys were written.
    pub(crate) fn ordered(&self) -> impl Iterator<Item = (&String, &Entry)> {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by_key(|(_, entry)| entry.key);
        entries.into_iter()
    }

    /// Follows a dotted path.
    pub(crate) fn lookup<'a>(&self, mut path: impl Iterator<Item = &'a str>) -> Option<&Node> {
        let first = self.get(path.next()?)?;
        path.try_fold(first, |node, key| node.table()?.get(key))
    }

    /// Lays `over` above this table: tables merge by key, everything else is replaced.
    pub(crate) fn merge(&mut self, over: &Table) {
        for (key, entry) in &over.0 {
            match self.0.get_mut(key) {
                None => {
                    self.0.insert(key.clone(), entry.clone());
                }
                Some(below) => match (&mut below.node.value, &entry.node.value) {
                    (Value::Table(below), Value::Table(above)) => below.merge(above),
                    _ => below.node = entry.node.clone(),
                },
            }
        }
    }
}

/// Reads a TOML text: what could be understood, with every syntax error reported. `None` where nothing could be.
pub(crate) fn parse(report: &mut Report, start: At, bytes: &Arc<[u8]>) -> Option<Node> {
    let place = |offset: usize| At { offset: u32::try_from(offset).unwrap_or(u32::MAX), ..start };
    if bytes.len() > TEXT_MAX_BYTES {
        report.syntax(start, format!("this file is larger than {TEXT_MAX_BYTES} bytes"));
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            report.syntax(place(error.valid_up_to()), "this file is not UTF-8 text");
            return None;
        }
    };
    if let Some(offset) = too_deep(text) {
        report.syntax(place(offset), format!("tables, lists and dotted keys lie more than {NESTING_MAX} levels deep here"));
        return None;
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let offset = error.span().map_or(0, |span| span.start);
        report.syntax(place(offset), format!("invalid TOML: {}", error.message()));
    }
    let mut reader = Reader { report, start };
    let table = reader.table(table.into_inner());
    Some(Node { at: start, value: Value::Table(table) })
}

/// Reads one TOML value (of an option or a variable).
pub(crate) fn parse_value(report: &mut Report, start: At, text: &str) -> Option<Node> {
    if text.len() > TEXT_MAX_BYTES || too_deep(text).is_some() {
        report.syntax(start, "this value is too large, or nested too deep");
        return None;
    }
    let (value, errors) = DeValue::parse_recoverable(text);
    if let Some(error) = errors.first() {
        report.syntax(start, format!("invalid TOML: {}", error.message()));
        return None;
    }
    let mut node = Reader { report, start }.value(value);
    node.at = start;
    Some(node)
}

/// Where the text first nests deeper than [`NESTING_MAX`]. The parser builds one table per dot of a key without a bound of
/// its own, so this runs before it.
fn too_deep(text: &str) -> Option<usize> {
    // Each level costs one of these, so most files need no closer look.
    if text.bytes().filter(|byte| matches!(byte, b'.' | b'[' | b'{')).count() <= NESTING_MAX {
        return None;
    }
    let (mut outer, mut depth, mut here) = (Vec::new(), 0, 0);
    for token in toml_parser::Source::new(text).lex() {
        match token.kind() {
            TokenKind::Dot => here += 1,
            TokenKind::LeftCurlyBracket | TokenKind::LeftSquareBracket => {
                outer.push(here + 1);
                depth += here + 1;
                here = 0;
            }
            TokenKind::RightCurlyBracket | TokenKind::RightSquareBracket => {
                depth -= outer.pop().unwrap_or(0);
                here = 0;
            }
            TokenKind::Comma | TokenKind::Newline => here = 0,
            TokenKind::Equals
            | TokenKind::Comment
            | TokenKind::Whitespace
            | TokenKind::LiteralString
            | TokenKind::BasicString
            | TokenKind::MlLiteralString
            | TokenKind::MlBasicString
            | TokenKind::Atom
            | TokenKind::Eof => {}
        }
        if depth + here > NESTING_MAX {
            return Some(token.span().start());
        }
    }
    None
}

struct Reader<'r> {
    report: &'r mut Report,
    start: At,
}

impl Reader<'_> {
    fn at(&self, span: Range<usize>) -> At {
        At { offset: u32::try_from(span.start).unwrap_or(u32::MAX), ..self.start }
    }

    fn table(&mut self, table: DeTable<'_>) -> Table {
        let entries = table.into_iter().map(|(key, value)| {
            let entry = Entry { key: self.at(key.span()), node: self.value(value) };
            (key.into_inner().into_owned(), entry)
        });
        Table(entries.collect())
    }

    fn value(&mut self, value: Spanned<DeValue<'_>>) -> Node {
        let at = self.at(value.span());
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => {
                    self.report.syntax(at, format!("the integer `{number}` does not fit into 64 bits"));
                    Value::Integer(0)
                }
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(value) if value.is_finite() || number.as_str().contains("inf") || number.as_str().contains("nan") => {
                    Value::Float(value)
                }
                Ok(_) | Err(_) => {
                    self.report.syntax(at, format!("the float `{number}` does not fit into 64 bits"));
                    Value::Float(0.0)
                }
            },
            DeValue::Boolean(truth) => Value::Bool(truth),
            DeValue::Datetime(time) => Value::Datetime(time.to_string()),
            DeValue::Array(list) => Value::List(list.into_iter().map(|item| self.value(item)).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { at, value }
    }
}
