//! OpenSSH's `allowed_signers`: `PRINCIPALS [OPTIONS] KEYTYPE BASE64 [COMMENT]`, one key a line.
//!
//! Read as ssh-keygen(1) reads it, with three differences, each refused by name where it matters: principals are people, so
//! patterns (`*@example.com`, `!bob`) are not taken; certificate authorities are not followed; dates are UTC.

use ssh_key::public::KeyData;
use ssh_key::{Algorithm, EcdsaCurve, PublicKey};

use super::{FILE_MAX_BYTES, File, NAMESPACE, RSA_MIN_BITS, TrustError, Window, dates, shown};

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    /// The names of one person; the first is shown.
    pub(super) principals: Vec<String>,
    pub(super) key: KeyData,
    pub(super) window: Window,
    /// Patterns of `namespaces=`; `None` = all.
    pub(super) namespaces: Option<Vec<String>>,
    /// `PATH:LINE`
    pub(super) place: String,
}

impl Signer {
    /// Whether it may sign what Git signs.
    pub(super) fn signs_git(&self) -> bool {
        self.namespaces.as_ref().is_none_or(|patterns| matches(patterns, NAMESPACE))
    }
}

/// Reads the file; what is wrong goes to `errors`, with its line.
pub(super) fn read(file: File<'_>, errors: &mut Vec<TrustError>) -> Vec<Signer> {
    if file.bytes.len() > FILE_MAX_BYTES {
        errors.push(TrustError { place: file.name.to_owned(), message: format!("it has more than {FILE_MAX_BYTES} bytes") });
        return Vec::new();
    }
    let mut signers = Vec::new();
    for (number, line) in file.bytes.split(|byte| *byte == b'\n').enumerate() {
        let place = format!("{}:{}", file.name, number + 1);
        let read = match std::str::from_utf8(line) {
            Ok(line) => signer(line.trim_matches([' ', '\t', '\r']), &place),
            Err(_) => Err("the line is not UTF-8".to_owned()),
        };
        match read {
            Ok(found) => signers.extend(found),
            Err(message) => errors.push(TrustError { place, message }),
        }
    }
    signers
}

fn signer(line: &str, place: &str) -> Result<Option<Signer>, String> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (principals, rest) = word(line)?;
    let principals = principals_of(&principals)?;
    let rest = rest.trim_start_matches([' ', '\t']);
    if rest.is_empty() {
        return Err("a key is missing: a line is `PRINCIPAL [OPTIONS] KEYTYPE BASE64`".to_owned());
    }
    let first = rest.split([' ', '\t']).next().unwrap_or_default();
    let (options, key) = if is_key_type(first) { (Options::default(), rest) } else { options(rest)? };
    let key = key_of(key.trim_start_matches([' ', '\t']))?;
    let window = Window { from_s: options.from_s.unwrap_or(0), until_s: options.until_s };
    if window.until_s.is_some_and(|end| end <= window.from_s) {
        return Err("`valid-before` is not after `valid-after`".to_owned());
    }
    Ok(Some(Signer { principals, key, window, namespaces: options.namespaces, place: place.to_owned() }))
}

/// The first word, in double quotes or not, and what follows.
fn word(line: &str) -> Result<(String, &str), String> {
    if let Some(rest) = line.strip_prefix('"') {
        let (value, rest) = rest.split_once('"').ok_or("a quotation mark is not closed")?;
        return Ok((value.to_owned(), rest));
    }
    let end = line.find([' ', '\t']).unwrap_or(line.len());
    Ok((line[..end].to_owned(), &line[end..]))
}

fn principals_of(text: &str) -> Result<Vec<String>, String> {
    let mut principals = Vec::new();
    for name in text.split(',') {
        if name.is_empty() {
            return Err(format!("a principal in `{}` is empty", shown(text)));
        }
        if name.contains(['*', '?']) || name.starts_with('!') {
            return Err(format!(
                "the principal `{}` is a pattern, which names no person, and people are counted here: write the names of whoever \
                 holds this key",
                shown(name)
            ));
        }
        if name.contains(char::is_control) {
            return Err(format!("the principal `{}` holds a control character", shown(name)));
        }
        principals.push(name.to_owned());
    }
    Ok(principals)
}

#[derive(Default)]
struct Options {
    namespaces: Option<Vec<String>>,
    from_s: Option<u64>,
    /// One second after the last at which the key is valid.
    until_s: Option<u64>,
}

/// Options up to the first blank outside of quotes, and what follows.
fn options(text: &str) -> Result<(Options, &str), String> {
    let mut options = Options::default();
    let mut rest = text;
    loop {
        let end = rest.find(['=', ',', ' ', '\t']).unwrap_or(rest.len());
        let name = rest[..end].to_ascii_lowercase();
        rest = &rest[end..];
        let value = match rest.strip_prefix('=') {
            Some(after) => {
                let (value, after) =
                    quoted(after).ok_or_else(|| format!("the value of `{}` must stand in quotes", shown(&name)))?;
                rest = after;
                Some(value)
            }
            None => None,
        };
        set(&mut options, &name, value)?;
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with([' ', '\t']) => return Ok((options, rest)),
            None => return Err("a key is missing behind the options".to_owned()),
        }
    }
}

/// A string in double quotes, `\"` in it for a quotation mark; and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut chars = inner.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &inner[at + 1..])),
            '\\' if chars.peek().is_some_and(|(_, next)| *next == '"') => {
                chars.next();
                value.push('"');
            }
            other => value.push(other),
        }
    }
    None
}

fn set(options: &mut Options, name: &str, value: Option<String>) -> Result<(), String> {
    let date = |value: &str| {
        dates::seconds(value).ok_or_else(|| {
            format!("`{name}` holds `{}`, which is no date: write `YYYYMMDD` or `YYYYMMDDHHMM`, in UTC", shown(value))
        })
    };
    let twice = || Err(format!("`{name}` stands twice"));
    match (name, value) {
        ("cert-authority", _) => {
            Err("certificate authorities (`cert-authority`) are not followed: name the keys themselves".to_owned())
        }
        ("namespaces", Some(value)) => {
            if options.namespaces.is_some() {
                return twice();
            }
            options.namespaces = Some(value.split(',').map(str::to_owned).collect());
            Ok(())
        }
        ("valid-after", Some(value)) => {
            if options.from_s.is_some() {
                return twice();
            }
            options.from_s = Some(date(&value)?);
            Ok(())
        }
        ("valid-before", Some(value)) => {
            if options.until_s.is_some() {
                return twice();
            }
            options.until_s = Some(date(&value)?.saturating_add(1));
            Ok(())
        }
        ("namespaces" | "valid-after" | "valid-before", None) => Err(format!("`{name}` has no value")),
        (other, _) => Err(format!(
            "`{}` is neither a key type nor an option that is known: `namespaces=`, `valid-after=` and `valid-before=` are",
            shown(other)
        )),
    }
}

/// How the types of keys begin.
const KEY_TYPES: [&str; 4] = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];

fn is_key_type(word: &str) -> bool {
    KEY_TYPES.iter().any(|begin| word.starts_with(begin))
}

fn key_of(text: &str) -> Result<KeyData, String> {
    let kind = text.split([' ', '\t']).next().unwrap_or_default();
    if kind.contains("-cert-v01@") {
        return Err(format!("`{}` is a certificate, and certificates are not followed: name the key itself", shown(kind)));
    }
    // Runs of blanks stand between words in files that people line up.
    let words: Vec<&str> = text.split_whitespace().collect();
    let key = PublicKey::from_openssh(&words.join(" "))
        .map_err(|error| format!("the `{}` key cannot be read: {error}", shown(kind)))?;
    check_key(key.key_data())?;
    Ok(key.key_data().clone())
}

/// Whether signatures of this key can be verified, and are worth it.
pub(super) fn check_key(key: &KeyData) -> Result<(), String> {
    let kind = key.algorithm();
    let curves = [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521].map(|curve| Algorithm::Ecdsa { curve });
    let others = [Algorithm::Ed25519, Algorithm::SkEd25519, Algorithm::SkEcdsaSha2NistP256];
    if others.contains(&kind) || curves.contains(&kind) {
        return Ok(());
    }
    if let Some(rsa) = key.rsa() {
        let bits = rsa.n.as_positive_bytes().map_or(0, bits);
        if bits < RSA_MIN_BITS {
            return Err(format!("the RSA key has {bits} bits, and {RSA_MIN_BITS} are needed"));
        }
        return Ok(());
    }
    if kind == Algorithm::Dsa {
        return Err("DSA keys are too weak to count: make an `ssh-ed25519` key".to_owned());
    }
    Err(format!("keys of type `{}` are not known here: make an `ssh-ed25519` key", shown(kind.as_str())))
}

fn bits(modulus: &[u8]) -> usize {
    modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize)
}

/// OpenSSH's pattern lists: `*`, `?`, and `!` for what is left out.
fn matches(patterns: &[String], text: &str) -> bool {
    let mut found = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches_one(pattern.as_bytes(), text.as_bytes()) => return false,
            Some(_) => {}
            None => found |= matches_one(pattern.as_bytes(), text.as_bytes()),
        }
    }
    found
}

/// In time that grows with the product of both lengths at most.
fn matches_one(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from, mut star) = (0, 0, None);
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[from] => {
                at += 1;
                from += 1;
            }
            Some(_) | None => match star {
                Some((back, begun)) => {
                    star = Some((back, begun + 1));
                    at = back + 1;
                    from = begun + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdhvLOTzbgT8GvFTwpnkTsK9/k7ewxjgXdc5KnvoJn2";

    fn list(text: &str) -> Result<Vec<Signer>, Vec<String>> {
        let mut errors = Vec::new();
        let signers = read(File { name: "f", bytes: text.as_bytes() }, &mut errors);
        if errors.is_empty() { Ok(signers) } else { Err(errors.iter().map(ToString::to_string).collect()) }
    }

    #[test]
    fn lines_are_read_as_ssh_keygen_reads_them() {
        for (line, names) in [
            (format!("a@b {KEY}"), vec!["a@b"]),
            (format!("  a@b,c@d\t {KEY} a comment of words \r"), vec!["a@b", "c@d"]),
            (format!("\"a b\" {KEY}"), vec!["a b"]),
            (format!("a@b namespaces=\"git\" {KEY}"), vec!["a@b"]),
            (format!("a@b Namespaces=\"file,g?t\",valid-after=\"20200101\"  {KEY}"), vec!["a@b"]),
        ] {
            let signers = list(&format!("# head\n\n{line}\n")).unwrap();
            assert_eq!(signers[0].principals, names, "{line}");
            assert_eq!(signers[0].place, "f:3");
            assert!(signers[0].signs_git(), "{line}");
        }
    }

    #[test]
    fn options_bound_what_a_key_may_say() {
        let one = |options: &str| list(&format!("a@b {options} {KEY}")).unwrap().remove(0);
        assert!(!one("namespaces=\"file\"").signs_git());
        assert!(!one("namespaces=\"*,!git\"").signs_git());
        assert!(one("namespaces=\"*\"").signs_git());
        let window = one("valid-after=\"20260102030405\",valid-before=\"20260102030406Z\"").window;
        assert_eq!((window.from_s, window.until_s), (1_767_323_045, Some(1_767_323_047)), "the last second counts");
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_line() {
        let dsa = "ssh-dss AAAAB3NzaC1kc3MAAACBAP";
        for (bad, words) in [
            ("a@b".to_owned(), "key is missing"),
            (format!("*@b {KEY}"), "pattern"),
            (format!("a@b,!c@d {KEY}"), "pattern"),
            (format!("a@b,,c {KEY}"), "empty"),
            (format!("\"a@b {KEY}"), "not closed"),
            (format!("a@b cert-authority {KEY}"), "cert-authority"),
            (format!("a@b namespaces=git {KEY}"), "quotes"),
            (format!("a@b namespaces {KEY}"), "no value"),
            (format!("a@b namespaces=\"a\",namespaces=\"b\" {KEY}"), "twice"),
            (format!("a@b valid-after=\"soon\" {KEY}"), "no date"),
            (format!("a@b valid-after=\"20260102\",valid-before=\"20260101\" {KEY}"), "not after"),
            (format!("a@b no-touch-required {KEY}"), "no-touch-required"),
            ("a@b namespaces=\"git\"".to_owned(), "missing behind"),
            ("a@b ssh-ed25519 AAAA".to_owned(), "cannot be read"),
            ("a@b ssh-ed25519-cert-v01@openssh.com AAAA".to_owned(), "certificate"),
            (format!("a@b {dsa}"), "cannot be read"),
            (format!("{KEY}"), "neither a key type nor an option"),
        ] {
            let errors = list(&format!("#\n{bad}\n")).unwrap_err();
            assert!(errors.len() == 1 && errors[0].starts_with("f:2: ") && errors[0].contains(words), "{bad}: {errors:?}");
        }
        assert_eq!(list("x\ny\n").unwrap_err().len(), 2, "every error is told");
    }

    #[test]
    fn patterns_match_as_opensshs_do() {
        for (pattern, text, wanted) in [
            ("git", "git", true),
            ("git", "gitx", false),
            ("g*", "git", true),
            ("*t", "git", true),
            ("g?t", "git", true),
            ("?", "", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
        ] {
            assert_eq!(matches_one(pattern.as_bytes(), text.as_bytes()), wanted, "{pattern} {text}");
        }
        let hostile = "*a".repeat(40);
        assert!(!matches_one(hostile.as_bytes(), "a".repeat(39).as_bytes()));
    }
}
