//! The data of `--data`: a JSON object, laid over what a group has.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::cli::CliError;

/// Longest data that is read.
const DATA_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Reads an object from a file, or from standard input where the path is `-`.
pub(super) fn read(path: &Path) -> Result<Map<String, Value>, CliError> {
    let (name, bytes) = if path.as_os_str() == "-" {
        ("standard input".to_owned(), bounded(std::io::stdin()))
    } else {
        (format!("`{}`", path.display()), std::fs::File::open(path).and_then(bounded))
    };
    let bytes = bytes.map_err(|error| CliError::could_not_run(format!("read the data from {name}"), error))?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(data)) => Ok(data),
        Ok(_) => {
            Err(CliError::usage(format!("the data from {name} is not a JSON object"), "for example {\"cfg\": {\"port\": 80}}"))
        }
        Err(error) => Err(CliError::could_not_run(format!("read the data from {name}"), error)),
    }
}

fn bounded(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(DATA_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DATA_MAX_BYTES {
        return Err(std::io::Error::other(format!("it is longer than {DATA_MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Tables merge by key, everything else is replaced.
pub(super) fn merge(under: &mut Value, over: Map<String, Value>) {
    let Value::Object(table) = under else {
        *under = Value::Object(over);
        return;
    };
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(known @ Value::Object(_)), Value::Object(inner)) => merge(known, inner),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_merge_and_all_else_is_replaced() {
        let mut under = json!({"cfg": {"a": 1, "t": {"x": 1, "y": 2}, "l": [1, 2]}, "sys": {"ip": "1"}});
        let over = json!({"cfg": {"t": {"y": 3}, "l": [9], "a": {"now": "a table"}}, "new": null});
        let Value::Object(over) = over else { unreachable!() };
        merge(&mut under, over);
        let wanted = json!({"cfg": {"a": {"now": "a table"}, "t": {"x": 1, "y": 3}, "l": [9]}, "sys": {"ip": "1"}, "new": null});
        assert_eq!(under, wanted);
        merge(&mut under, Map::new());
        assert_eq!(under, wanted, "nothing changes nothing");
    }
}
