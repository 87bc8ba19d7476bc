//! Config layers: which value wins, who set it, and what a layer may set.
//!
//! Knows nothing of where a layer was read. A new layer is a new [`Origin`], in the order of precedence.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use crate::model::Group;

/// Who set a value, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// `[config]` of `group.toml`.
    Default,
    /// `rings/RING.toml`.
    Ring,
    /// The supervisor's environment.
    Environment,
    /// The file of this host.
    User,
    /// `tagfall config apply`.
    Override,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Ring => "ring",
            Self::Environment => "environment",
            Self::User => "user",
            Self::Override => "override",
        })
    }
}

/// One layer above those of Git.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Who set it.
    pub origin: Origin,
    /// An object.
    pub values: Value,
}

/// What holds after all layers.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// An object: `cfg.*`.
    pub values: Value,
    /// The layer of each leaf, by its dotted path; lists and empty tables are leaves.
    pub origins: BTreeMap<String, Origin>,
}

/// Why a layer is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` of the {origin} layer of config: {message}; the whole layer is left out")]
pub struct LayerError {
    /// Which layer.
    pub origin: Origin,
    /// Dotted path of the value, empty for the layer itself.
    pub path: String,
    /// What is wrong with it, and what was meant.
    pub message: String,
}

/// Lays `above` over the group's own config, lowest origin first. A layer with errors is left out whole.
pub fn effective(group: &Group, above: &[Layer]) -> (Config, Vec<LayerError>) {
    let mut config = Config { values: Value::Object(Map::new()), origins: BTreeMap::new() };
    lay(&mut config, &group.config_default, Origin::Default);
    lay(&mut config, &group.config_ring, Origin::Ring);
    let shape = config.values.clone();
    let mut layers: Vec<&Layer> = above.iter().collect();
    layers.sort_by_key(|layer| layer.origin);
    let mut errors = Vec::new();
    for layer in layers {
        let mut found = Vec::new();
        match (&layer.values, &shape) {
            (Value::Object(values), Value::Object(shape)) => {
                check(values, shape, &Place { origin: layer.origin, open: &group.config_open, names: Vec::new() }, &mut found);
            }
            (other, _) => found.push(LayerError {
                origin: layer.origin,
                path: String::new(),
                message: format!("{} stands where a table is needed", kind(other)),
            }),
        }
        if found.is_empty() {
            lay(&mut config, &layer.values, layer.origin);
        }
        errors.append(&mut found);
    }
    sort_like_habitat(&mut config.values);
    (config, errors)
}

/// Where in a layer the check stands.
struct Place<'a> {
    origin: Origin,
    open: &'a [String],
    names: Vec<&'a str>,
}

impl<'a> Place<'a> {
    fn below(&self, name: &'a str) -> Self {
        let mut names = self.names.clone();
        names.push(name);
        Self { origin: self.origin, open: self.open, names }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for name in &self.names {
            push_name(&mut path, name);
        }
        path
    }

    fn is_open(&self) -> bool {
        let path = self.path();
        self.open.contains(&path)
    }

    fn error(&self, message: String) -> LayerError {
        LayerError { origin: self.origin, path: self.path(), message }
    }
}

fn check<'a>(values: &'a Map<String, Value>, shape: &Map<String, Value>, at: &Place<'a>, errors: &mut Vec<LayerError>) {
    for (name, value) in values {
        let at = at.below(name);
        match (shape.get(name), value) {
            (None, _) => errors.push(at.error(unknown(name, shape))),
            (Some(Value::Object(_)), Value::Object(_)) if at.is_open() => {}
            (Some(Value::Object(shape)), Value::Object(values)) => check(values, shape, &at, errors),
            (Some(was), is) if kind(was) == kind(is) => {}
            (Some(was), is) => errors.push(at.error(format!("{} stands where the default has {}", kind(is), kind(was)))),
        }
    }
}

fn unknown(name: &str, shape: &Map<String, Value>) -> String {
    let near = shape.keys().map(|known| (strsim::jaro_winkler(name, known), known)).filter(|(score, _)| *score > 0.8);
    match near.max_by(|one, two| one.0.total_cmp(&two.0)) {
        Some((_, known)) => format!("the default layer has no such key; did you mean `{known}`?"),
        None => "the default layer has no such key, and only keys that it has can be set".to_owned(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a float",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

fn lay(config: &mut Config, values: &Value, origin: Origin) {
    let (Value::Object(over), Value::Object(under)) = (values, &mut config.values) else { return };
    merge(under, over, "", origin, &mut config.origins);
}

/// Tables merge by key, everything else is replaced.
fn merge(
    under: &mut Map<String, Value>,
    over: &Map<String, Value>,
    prefix: &str,
    origin: Origin,
    origins: &mut BTreeMap<String, Origin>,
) {
    for (name, value) in over {
        let mut path = prefix.to_owned();
        push_name(&mut path, name);
        let Value::Object(value) = value else {
            forget_below(origins, &path);
            origins.insert(path, origin);
            under.insert(name.clone(), value.clone());
            continue;
        };
        if !under.get(name).is_some_and(Value::is_object) {
            under.insert(name.clone(), Value::Object(Map::new()));
            origins.insert(path.clone(), origin);
        }
        if let Some(Value::Object(table)) = under.get_mut(name) {
            if !value.is_empty() {
                origins.remove(&path);
            }
            merge(table, value, &path, origin, origins);
        }
    }
}

fn forget_below(origins: &mut BTreeMap<String, Origin>, path: &str) {
    let below = format!("{path}.");
    origins.retain(|known, _| !known.starts_with(&below));
}

/// Adds a key to a dotted path; one that TOML would quote is quoted.
fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        path.push_str(name);
    } else {
        path.push_str(&Value::String(name.to_owned()).to_string());
    }
}

/// The order in which Habitat hands tables to templates: plain values and lists of them, then lists with tables, then
/// tables, each as they were written. `{{#each}}`, `toJson`, `toToml` and `toYaml` show it.
fn sort_like_habitat(value: &mut Value) {
    match value {
        Value::Object(table) => {
            let mut entries: Vec<(String, Value)> = std::mem::take(table).into_iter().collect();
            entries.sort_by_key(|(_, value)| match value {
                Value::Array(list) if list.iter().any(Value::is_object) => 1,
                Value::Object(_) => 2,
                Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
            });
            entries.iter_mut().for_each(|(_, value)| sort_like_habitat(value));
            table.extend(entries);
        }
        Value::Array(list) => list.iter_mut().for_each(sort_like_habitat),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::group;
    use super::{Layer, Origin, effective};

    fn layer(origin: Origin, values: Value) -> Layer {
        Layer { origin, values }
    }

    #[test]
    fn later_layers_win_and_are_named() {
        let mut group = group(json!({"port": 1, "host": "a", "db": {"name": "x", "size": 3}, "list": [1, 2], "free": {}}));
        group.config_ring = json!({"db": {"size": 4}});
        let (config, errors) = effective(
            &group,
            &[
                layer(Origin::Override, json!({"port": 9})),
                layer(Origin::Environment, json!({"port": 2, "host": "b"})),
                layer(Origin::User, json!({"list": [7]})),
            ],
        );
        assert_eq!(errors, []);
        assert_eq!(config.values, json!({"port": 9, "host": "b", "list": [7], "db": {"name": "x", "size": 4}, "free": {}}));
        let origins: Vec<(&str, Origin)> = config.origins.iter().map(|(path, origin)| (path.as_str(), *origin)).collect();
        assert_eq!(
            origins,
            [
                ("db.name", Origin::Default),
                ("db.size", Origin::Ring),
                ("free", Origin::Default),
                ("host", Origin::Environment),
                ("list", Origin::User),
                ("port", Origin::Override),
            ]
        );
    }

    #[test]
    fn a_layer_may_set_what_the_default_layer_has_and_nothing_else() {
        let mut group = group(json!({"port": 1, "load": 1.5, "db": {"name": "x"}, "list": [1], "extra": {"known": 1}, "a.b": 1}));
        group.config_open = vec!["extra".into()];
        let wrong = |values: Value| {
            let (config, errors) = effective(&group, &[layer(Origin::User, values)]);
            assert_eq!(config, effective(&group, &[]).0, "a layer with errors is left out whole");
            errors.into_iter().map(|error| (error.path, error.message)).collect::<Vec<_>>()
        };
        for (values, path, words) in [
            (json!({"port": 2, "prt": 3}), "prt", "did you mean `port`?"),
            (json!({"port": "2"}), "port", "a string stands where the default has an integer"),
            (json!({"port": 2.0}), "port", "a float stands where the default has an integer"),
            (json!({"load": 2}), "load", "an integer stands where the default has a float"),
            (json!({"db": 3}), "db", "an integer stands where the default has a table"),
            (json!({"db": {"zzz": 3}}), "db.zzz", "only keys that it has can be set"),
            (json!({"list": {}}), "list", "a table stands where the default has a list"),
            (json!({"extra": 1}), "extra", "an integer stands where the default has a table"),
            (json!({"port": null}), "port", "nothing stands where the default has an integer"),
            (json!({"a.b": "x"}), "\"a.b\"", "a string stands"),
            (json!([1]), "", "a list stands where a table is needed"),
        ] {
            let errors = wrong(values.clone());
            assert_eq!(errors.len(), 1, "{values}: {errors:?}");
            assert_eq!(errors[0].0, path, "{values}");
            assert!(errors[0].1.contains(words), "{values}: {}", errors[0].1);
        }
        assert_eq!(wrong(json!({"x": 1, "port": "a", "db": {"name": 1}})).len(), 3, "each error is named");
        let (config, errors) =
            effective(&group, &[layer(Origin::User, json!({"extra": {"new": {"deep": [1]}, "known": "text"}}))]);
        assert_eq!((errors.len(), config.origins.get("extra.new.deep")), (0, Some(&Origin::User)));
    }

    #[test]
    fn one_bad_layer_does_not_take_others_along() {
        let group = group(json!({"port": 1, "host": "a"}));
        let (config, errors) =
            effective(&group, &[layer(Origin::User, json!({"port": "x"})), layer(Origin::Override, json!({"host": "c"}))]);
        assert_eq!(config.values, json!({"port": 1, "host": "c"}));
        let told = errors[0].to_string();
        assert_eq!(
            told,
            "`port` of the user layer of config: a string stands where the default has an integer; the whole layer is left out"
        );
    }

    #[test]
    fn tables_come_last_as_in_habitat() {
        let group = group(json!({"t": {"b": {"x": 1}, "a": 1}, "rows": [{"u": {}, "v": 1}], "z": 1, "l": [1]}));
        let (config, _) = effective(&group, &[]);
        assert_eq!(config.values.to_string(), r#"{"z":1,"l":[1],"rows":[{"v":1,"u":{}}],"t":{"a":1,"b":{"x":1}}}"#);
    }
}
