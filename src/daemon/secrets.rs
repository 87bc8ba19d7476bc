//! Values that no output shows.

/// Names whose values are kept back, as a part between separators of the last segment of a dotted path.
const SECRET_WORDS: [&str; 10] =
    ["password", "passwd", "passphrase", "secret", "token", "credential", "credentials", "apikey", "privatekey", "key"];

/// What stands in place of a secret.
pub(crate) const HIDDEN: &str = "(secret)";

/// Shorter secrets are not searched for in texts: they would hide ordinary words.
const SECRET_MIN_CHARS: usize = 4;

/// Whether a dotted path names a secret: `db.password`, `api-key`, `tls.private_key`.
pub(crate) fn is_secret(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or(path).to_lowercase();
    let words: Vec<&str> = last.split(['-', '_', ' ']).collect();
    words.iter().any(|word| SECRET_WORDS.contains(word)) || SECRET_WORDS.contains(&words.concat().as_str())
}

/// Collects the secret values of a config, for hiding them in rendered text.
pub(super) fn values(path: &str, value: &serde_json::Value, out: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(table) => {
            for (key, inner) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                values(&path, inner, out);
            }
        }
        serde_json::Value::String(text) if is_secret(path) && text.chars().count() >= SECRET_MIN_CHARS => out.push(text.clone()),
        serde_json::Value::Array(items) => items.iter().for_each(|item| values(path, item, out)),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) | serde_json::Value::String(_) => {}
    }
}

/// A text without any of the secrets.
pub(super) fn hide(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_secrets() {
        for secret in ["password", "db.password", "api_key", "api-key", "tls.private_key", "TOKEN", "auth.client-secret"] {
            assert!(is_secret(secret), "{secret}");
        }
        for open in ["port", "keyspace", "db.host", "token.lifetime", "monkey"] {
            assert!(!is_secret(open), "{open}");
        }
    }

    #[test]
    fn secrets_vanish_from_texts() {
        let config = serde_json::json!({ "db": { "password": "hunter22" }, "pin": { "secret": "1" } });
        let mut secrets = Vec::new();
        values("", &config, &mut secrets);
        assert_eq!(hide("pass hunter22 1", &secrets), "pass (secret) 1");
    }
}
