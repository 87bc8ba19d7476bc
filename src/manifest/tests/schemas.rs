//! The JSON Schemas and the parser must know the same keys.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{HEAD, tree};
use crate::manifest::group_keys::{EXEC_ARGS, FILE_ARGS, GROUP, HTTP_ARGS, REPOSITORY, TCP_ARGS};
use crate::manifest::settings_keys::SETTINGS;
use crate::manifest::shape::{Key, Kind, Shape};
use crate::manifest::text::{duration, size};
use crate::manifest::{group_schema, parse_release, parse_settings, supervisor_schema};

/// All key paths of a schema; `*` for free keys, `[]` for items.
fn schema_paths(schema: &Value, prefix: &str, out: &mut Vec<String>) {
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        out.push(path.clone());
        schema_paths(below, &format!("{path}."), out);
    }
    if schema["additionalProperties"].is_object() {
        schema_paths(&schema["additionalProperties"], &format!("{prefix}*."), out);
    }
}

fn shape_paths(shape: &Shape, prefix: &str, out: &mut Vec<String>) {
    for key in shape.keys {
        let path = format!("{prefix}{}", key.name);
        out.push(path.clone());
        if let Kind::Table(below) = &key.kind {
            shape_paths(below, &format!("{path}."), out);
        } else if let Kind::Map { of: Kind::Table(below), .. } = &key.kind {
            shape_paths(below, &format!("{path}.*."), out);
        }
    }
}

#[test]
fn parser_and_schema_know_the_same_keys() {
    for (shape, schema) in [(&GROUP, group_schema()), (&SETTINGS, supervisor_schema())] {
        let (mut from_schema, mut from_shape) = (Vec::new(), Vec::new());
        schema_paths(&schema, "", &mut from_schema);
        shape_paths(shape, "", &mut from_shape);
        assert!(from_shape.len() > 30);
        assert_eq!(from_schema, from_shape);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    }
}

/// The parser itself, not its table: a key of the schema is never unknown to it, and one beside it always is.
#[test]
fn the_parser_takes_every_key_of_the_schema_and_no_other() {
    let unknown = |path: &[&str]| {
        let text = format!("{HEAD}{} = 1\n", path.join("."));
        let found = parse_release(&tree([("groups/web/group.toml", text)]), None).err().unwrap_or_default();
        found.iter().any(|found| found.message.contains("unknown key"))
    };
    let mut paths = Vec::new();
    schema_paths(&group_schema(), "", &mut paths);
    for path in paths.iter().filter(|path| !path.starts_with("placement") && *path != "format") {
        let mut parts: Vec<&str> = path.split('.').map(|part| if part == "*" { "any" } else { part }).collect();
        assert!(!unknown(&parts), "{path}");
        let Some(last) = parts.last_mut() else { continue };
        *last = "zzzzzz";
        let free = matches!(path.as_str(), "exports" | "binds") || path.contains('*') && parts.len() == 2;
        assert!(unknown(&parts) || free, "{path}");
    }
    let mut paths = Vec::new();
    schema_paths(&supervisor_schema(), "", &mut paths);
    for path in paths {
        let found = parse_settings(None, &[], &[format!("{path}=x")], "h").err().unwrap_or_default();
        assert!(found.iter().all(|found| !found.message.contains("unknown key")), "{path}: {found:?}");
        let found = parse_settings(None, &[], &[format!("{path}zzzzzz=x")], "h").unwrap_err();
        assert!(found.iter().any(|found| found.message.contains("unknown key")), "{path}: {found:?}");
    }
}

fn each_key(shape: &'static Shape, seen: &mut BTreeMap<String, ()>, visit: &mut dyn FnMut(&'static Shape, &'static Key)) {
    if seen.insert(shape.name.to_owned() + &shape.keys.len().to_string(), ()).is_some() {
        return;
    }
    for key in shape.keys {
        visit(shape, key);
        if let Kind::Table(below) | Kind::Map { of: Kind::Table(below), .. } = &key.kind {
            each_key(below, seen, visit);
        }
    }
}

#[test]
fn tables_are_well_formed() {
    let mut seen = BTreeMap::new();
    let shapes: [&'static Shape; 7] = [&GROUP, &SETTINGS, &REPOSITORY, &HTTP_ARGS, &TCP_ARGS, &FILE_ARGS, &EXEC_ARGS];
    for shape in shapes {
        each_key(shape, &mut seen, &mut |shape, key| {
            let place = format!("{} {}", shape.name, key.name);
            if let Some(default) = key.default_node() {
                assert!(key.kind.accepts(&default), "the default of {place} is not what the key takes");
            }
            assert!(key.doc.ends_with('.') && !key.doc.is_empty(), "{place}");
            for also in key.also {
                assert!(shape.key(also).is_none(), "{place}: `{also}` is a key itself");
                assert_eq!(*also, also.to_lowercase(), "{place}");
                let owners = shape.keys.iter().filter(|other| other.also.contains(also)).count();
                assert_eq!(owners, 1, "{place}: `{also}` is claimed twice");
            }
            if let Kind::Duration { min, max } = &key.kind {
                assert!(duration(min) < duration(max), "{place}");
            } else if let Kind::Size { min, max } = &key.kind {
                assert!(size(min) < size(max), "{place}");
            }
        });
    }
}
