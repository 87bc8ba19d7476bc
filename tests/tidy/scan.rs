//! Rust text as the checks need it: comments and literals blanked, split into tokens, paths and regions of test code found.
//!
//! Knows nothing of rooms or rules. It reads text, not syntax trees: enough for code that rustfmt has formatted.

use std::ops::Range;

/// Stands for every character inside a literal: no token, yet not blank.
const INSIDE_LITERAL: char = '~';

/// The same text, same lines, with comments blanked and the insides of literals made unreadable.
pub(crate) fn mask(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = element_end(&chars, at);
        let element = &chars[at..end];
        let comment = element.len() > 1 && element[0] == '/';
        for &c in element {
            let shown = match c {
                '\n' => '\n',
                _ if element.len() == 1 => c,
                _ if comment => ' ',
                c if c.is_whitespace() => ' ',
                _ => INSIDE_LITERAL,
            };
            out.push(shown);
        }
        at = end;
    }
    out
}

/// Where the comment, the literal or the single character that begins at `at` ends.
fn element_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    let after_word = at > 0 && is_word(chars[at - 1]);
    match chars[at] {
        '/' if next == Some('/') => (at..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len()),
        '/' if next == Some('*') => block_comment_end(chars, at),
        '"' => quoted_end(chars, at + 1, '"'),
        '\'' => char_literal_end(chars, at),
        'r' if !after_word => raw_string_end(chars, at + 1).unwrap_or(at + 1),
        'b' | 'c' if !after_word && next == Some('r') => raw_string_end(chars, at + 2).unwrap_or(at + 1),
        _ => at + 1,
    }
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], mut i: usize, quote: char) -> usize {
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// A lifetime has no closing quote: then only the quote itself.
fn char_literal_end(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => quoted_end(chars, at + 1, '\''),
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

/// `at` is behind the `r`.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|&&c| c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return None;
    }
    let mut i = at + hashes + 1;
    while i < chars.len() {
        if chars[i] == '"' && chars[i + 1..].iter().take_while(|&&c| c == '#').count() >= hashes {
            return Some(i + 1 + hashes);
        }
        i += 1;
    }
    Some(chars.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A word, `::`, or one other visible character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// The tokens of masked text.
pub(crate) fn tokens(masked: &str) -> Vec<Token> {
    let mut out = Vec::new();
    for (index, line) in masked.lines().enumerate() {
        let chars: Vec<char> = line.chars().collect();
        let mut at = 0;
        while at < chars.len() {
            let len = if is_word(chars[at]) {
                chars[at..].iter().take_while(|&&c| is_word(c)).count()
            } else if chars[at..].starts_with(&[':', ':']) {
                2
            } else {
                1
            };
            let text: String = chars[at..at + len].iter().collect();
            if !text.trim().is_empty() && text != "~" {
                out.push(Token { text, line: index + 1 });
            }
            at += len;
        }
    }
    out
}

/// Index of the token that closes the bracket at `open`; the last token where nothing closes it.
pub(crate) fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index;
        }
    }
    tokens.len().saturating_sub(1)
}

/// The lines (from 1, end exclusive) of `#[cfg(test)] mod NAME { … }`.
pub(crate) fn test_lines(tokens: &[Token]) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    for start in 0..tokens.len() {
        let head = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
        let found = head.iter().enumerate().all(|(i, word)| tokens.get(start + i).is_some_and(|t| t.text == *word));
        if found && tokens.get(start + head.len() + 1).is_some_and(|t| t.text == "{") {
            let end = closing(tokens, start + head.len() + 1);
            out.push(tokens[start].line..tokens[end].line + 1);
        }
    }
    out
}

/// A path as written: `["crate", "model", "Group"]`; a macro's last part ends in `!`, a glob is `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) parts: Vec<String>,
    pub(crate) line: usize,
    /// Whether a `use` names it.
    pub(crate) imported: bool,
    /// Inline modules of this file around it, outermost first.
    pub(crate) inside: Vec<String>,
}

/// Every path of the file: leaves of `use` trees flattened, and those in expressions, types and attributes.
pub(crate) fn paths(tokens: &[Token]) -> Vec<Path> {
    let mut out = Vec::new();
    let mut inside: Vec<(String, usize)> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        inside.retain(|(_, end)| at < *end);
        let names = || inside.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let word = tokens[at].text.as_str();
        if word == "mod" && tokens.get(at + 2).is_some_and(|t| t.text == "{") {
            inside.push((tokens[at + 1].text.clone(), closing(tokens, at + 2)));
            at += 3;
        } else if word == "use" {
            at = use_tree(tokens, at + 1, &[], &names(), &mut out);
        } else if starts_word(word) {
            at = plain_path(tokens, at, names(), &mut out);
        } else {
            at += 1;
        }
    }
    out
}

fn starts_word(text: &str) -> bool {
    text.starts_with(|c: char| is_word(c))
}

fn plain_path(tokens: &[Token], at: usize, inside: Vec<String>, out: &mut Vec<Path>) -> usize {
    let mut parts = vec![tokens[at].text.clone()];
    let mut end = at + 1;
    while tokens.get(end).is_some_and(|t| t.text == "::") && tokens.get(end + 1).is_some_and(|t| starts_word(&t.text)) {
        parts.push(tokens[end + 1].text.clone());
        end += 2;
    }
    let is_macro = tokens.get(end).is_some_and(|t| t.text == "!") && tokens.get(end + 1).is_none_or(|t| t.text != "=");
    if let (true, Some(last)) = (is_macro, parts.last_mut()) {
        last.push('!');
    }
    out.push(Path { parts, line: tokens[at].line, imported: false, inside });
    end
}

/// Reads one use tree; returns the index of the token behind it.
fn use_tree(tokens: &[Token], mut at: usize, prefix: &[String], inside: &[String], out: &mut Vec<Path>) -> usize {
    let mut parts = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "::" => at += 1,
            "{" => {
                let end = closing(tokens, at);
                at += 1;
                while at < end {
                    at = if tokens[at].text == "," { at + 1 } else { use_tree(tokens, at, &parts, inside, out) };
                }
                return end + 1;
            }
            "as" => at += 2,
            text if text == "*" || starts_word(text) => {
                if text != "self" || prefix.is_empty() {
                    parts.push(text.to_owned());
                }
                at += 1;
            }
            _ => break,
        }
    }
    let line = tokens.get(at.saturating_sub(1)).map_or(0, |t| t.line);
    out.push(Path { parts, line, imported: true, inside: inside.to_vec() });
    at
}
