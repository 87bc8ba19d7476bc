//! JSON Schemas (draft 2020-12) of the files that people write, made from the same tables as the walker, for editors.

use serde_json::{Map, Value, json};

use crate::model::Signal;

use super::group_keys::GROUP;
use super::settings_keys::SETTINGS;
use super::shape::{Key, Kind, Shape, Text};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of `group.toml`.
pub fn group_schema() -> Value {
    document(&GROUP, "group.toml", "A service group of a Tagfall configuration repository.")
}

/// The schema of `supervisor.toml`.
pub fn supervisor_schema() -> Value {
    document(&SETTINGS, "supervisor.toml", "The settings of one Tagfall supervisor.")
}

fn document(shape: &Shape, title: &str, description: &str) -> Value {
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), DIALECT.into());
    schema.insert("title".to_owned(), title.into());
    schema.insert("description".to_owned(), description.into());
    schema.extend(table(shape));
    Value::Object(schema)
}

fn table(shape: &Shape) -> Map<String, Value> {
    let properties: Map<String, Value> = shape.keys.iter().map(|known| (known.name.to_owned(), key(known))).collect();
    let required: Vec<&str> = shape.keys.iter().filter(|known| known.required).map(|known| known.name).collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    schema.insert("properties".to_owned(), properties.into());
    schema.insert("patternProperties".to_owned(), json!({ "^x-": true }));
    schema.insert("additionalProperties".to_owned(), false.into());
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

fn key(known: &Key) -> Value {
    let mut schema = kind(&known.kind);
    schema.insert("description".to_owned(), known.doc.into());
    if let Some(default) = known.default_node() {
        schema.insert("default".to_owned(), default.to_json());
    }
    Value::Object(schema)
}

fn kind(kind_: &Kind) -> Map<String, Value> {
    let object = match kind_ {
        Kind::Text(text) => return string(*text),
        Kind::Table(shape) => return table(shape),
        Kind::Choice(names) => json!({ "enum": names }),
        Kind::Signal { or_restart } => {
            let names: Vec<&str> = or_restart.then_some("restart").into_iter().chain(Signal::names()).collect();
            json!({ "enum": names })
        }
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Number { min, max } => json!({ "type": "number", "minimum": min, "maximum": max }),
        Kind::Duration { .. } => json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$" }),
        Kind::Size { .. } => json!({ "type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB|TiB|KB|MB|GB)$" }),
        Kind::Count => json!({ "oneOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^([1-9][0-9]?|100)%$" },
        ] }),
        Kind::List { of, min } => json!({ "type": "array", "items": kind(of), "minItems": min }),
        Kind::Map { keys, of } => json!({ "type": "object", "propertyNames": string(*keys), "additionalProperties": kind(of) }),
        Kind::Data => json!({ "type": "object" }),
    };
    if let Value::Object(object) = object { object } else { Map::new() }
}

/// A string's schema: a pattern where one says it well; the walker knows the rest.
fn string(text: Text) -> Map<String, Value> {
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "string".into());
    let pattern = match text {
        Text::Path | Text::MountPath => Some("^/"),
        Text::PathTemplate => Some("^/|\\{\\{"),
        Text::Group => Some("^[A-Za-z0-9][A-Za-z0-9_-]*(\\.[A-Za-z0-9][A-Za-z0-9_-]*)?$"),
        Text::Identifier => Some("^[A-Za-z_][A-Za-z0-9_-]*$"),
        Text::Variable => Some("^[A-Za-z_][A-Za-z0-9_]*$"),
        Text::Name => Some("^[A-Za-z0-9_][A-Za-z0-9_.-]*$"),
        Text::HostPort => Some(":[0-9]+$"),
        Text::HostPortTemplate => Some(":[0-9]+$|\\{\\{"),
        Text::Reach => Some(":[0-9]+$|^unix:/|\\{\\{"),
        Text::HttpUrl => Some("^http://|\\{\\{"),
        Text::Forward => Some("^none$|^(journald|syslog)(:/.+)?$"),
        Text::Socket => Some("^(tcp|udp|unix)://|\\{\\{"),
        Text::Argument | Text::Label | Text::Remote | Text::Dotted => Some("."),
        Text::Line | Text::Content | Text::Listen | Text::PortMapping | Text::TagPrefix | Text::Version | Text::VersionRange => {
            None
        }
    };
    if let Some(pattern) = pattern {
        schema.insert("pattern".to_owned(), pattern.into());
    }
    schema
}
