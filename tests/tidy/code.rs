//! What a single file of Rust may look like: its head, its size, its words, its attributes.

use std::ops::Range;

use super::scan::{self, Path, Token};

/// Most lines of code in a file; blank lines, comments and a trailing `#[cfg(test)] mod` do not count.
pub(crate) const FILE_MAX_LINES: usize = 500;
/// Most lines of code in a function, its signature included.
pub(crate) const FUNCTION_MAX_LINES: usize = 70;

/// Words that some rooms may not use, and why. Tests inside a room may.
pub(crate) struct Ban {
    /// Rooms it is for; empty = all.
    pub(crate) rooms: &'static [&'static str],
    pub(crate) words: &'static [&'static str],
    pub(crate) reason: &'static str,
}

/// One file, read once.
pub(crate) struct Source<'a> {
    name: &'a str,
    text: &'a str,
    masked: String,
    tokens: Vec<Token>,
    tests: Vec<Range<usize>>,
}

impl<'a> Source<'a> {
    /// Scans a file; `name` is its path from the repository's root.
    pub(crate) fn new(name: &'a str, text: &'a str) -> Self {
        let masked = scan::mask(text);
        let tokens = scan::tokens(&masked);
        let only_tests = name.starts_with("tests/") || name.ends_with("tests.rs") || name.contains("/tests/");
        let tests = if only_tests { std::iter::once(0..usize::MAX).collect() } else { scan::test_lines(&tokens) };
        Self { name, text, masked, tokens, tests }
    }

    fn is_test(&self, line: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&line))
    }

    /// All that is wrong with it as a file.
    pub(crate) fn findings(&self, bans: &[Ban]) -> Vec<String> {
        let mut out = self.head();
        out.extend(self.file_size());
        out.extend(self.function_sizes());
        out.extend(self.attributes());
        let paths = scan::paths(&self.tokens);
        out.extend(self.banned(&paths, bans));
        out.extend(self.sleeps(&paths));
        out
    }

    fn head(&self) -> Vec<String> {
        let headed = self.text.starts_with("//!");
        if headed { Vec::new() } else { vec![format!("{}:1: begins without `//!`: say what the file is for", self.name)] }
    }

    fn code_lines(&self, lines: Range<usize>) -> usize {
        self.masked.lines().skip(lines.start - 1).take(lines.len()).filter(|line| !line.trim().is_empty()).count()
    }

    fn file_size(&self) -> Vec<String> {
        let last = self.masked.lines().count() + 1;
        let end = self.tests.last().filter(|tests| tests.start > 0).map_or(last, |tests| tests.start);
        let lines = self.code_lines(1..end.max(1));
        let wrong = lines > FILE_MAX_LINES;
        let finding = || format!("{}: {lines} lines of code, more than {FILE_MAX_LINES}: split it by question", self.name);
        wrong.then(finding).into_iter().collect()
    }

    fn function_sizes(&self) -> Vec<String> {
        let mut out = Vec::new();
        for (at, token) in self.tokens.iter().enumerate().filter(|(_, token)| token.text == "fn") {
            let Some(name) = self.tokens.get(at + 1).filter(|name| name.text != "(") else { continue };
            let Some(open) = body(&self.tokens, at) else { continue };
            let end = self.tokens[scan::closing(&self.tokens, open)].line;
            let lines = self.code_lines(token.line..end + 1);
            if lines > FUNCTION_MAX_LINES {
                let (file, line, name) = (self.name, token.line, &name.text);
                out.push(format!("{file}:{line}: `{name}` has {lines} lines of code, more than {FUNCTION_MAX_LINES}"));
            }
        }
        out
    }

    fn attributes(&self) -> Vec<String> {
        let mut out = Vec::new();
        for (at, token) in self.tokens.iter().enumerate().filter(|(_, token)| token.text == "#") {
            let inner = usize::from(self.tokens.get(at + 1).is_some_and(|t| t.text == "!"));
            let open = at + 1 + inner;
            if self.tokens.get(open).is_none_or(|t| t.text != "[") {
                continue;
            }
            let attribute = &self.tokens[open..scan::closing(&self.tokens, open)];
            let calls = |word: &str| attribute.windows(2).any(|pair| pair[0].text == word && pair[1].text == "(");
            let finding = |what: &str| format!("{}:{}: {what}", self.name, token.line);
            if calls("allow") {
                out.push(finding("`allow(…)`: use `expect(…, reason = …)`, which tells when it is no longer needed"));
            }
            if calls("expect") && !attribute.iter().any(|t| t.text == "reason") {
                out.push(finding("`expect(…)` without `reason`"));
            }
            if attribute.get(1).is_some_and(|t| t.text == "ignore") {
                out.push(finding("`#[ignore]`: a test runs, or says through tests/common what it is skipped for"));
            }
        }
        out
    }

    fn banned(&self, paths: &[Path], bans: &[Ban]) -> Vec<String> {
        let room = self.name.strip_prefix("src/").and_then(|rest| rest.split(['/', '.']).next()).unwrap_or_default();
        let mut out = Vec::new();
        for ban in bans.iter().filter(|ban| ban.rooms.is_empty() || ban.rooms.contains(&room)) {
            for word in ban.words {
                let hits = paths.iter().filter(|path| contains(&path.parts, word) && !self.is_test(path.line));
                out.extend(hits.map(|path| format!("{}:{}: `{word}`: {}", self.name, path.line, ban.reason)));
            }
        }
        let of_kernel = self.name == "src/sys.rs" || self.name.starts_with("src/sys/");
        let is_unsafe = self.tokens.iter().filter(|token| token.text == "unsafe" && !of_kernel);
        out.extend(is_unsafe.map(|token| format!("{}:{}: `unsafe`: only src/sys may", self.name, token.line)));
        out
    }

    fn sleeps(&self, paths: &[Path]) -> Vec<String> {
        let sleeping = |path: &&Path| contains(&path.parts, "thread::sleep") || contains(&path.parts, "time::sleep");
        let hits = paths.iter().filter(sleeping).filter(|path| self.is_test(path.line));
        let finding = |path: &Path| format!("{}:{}: a test sleeps: wait for a condition, with a bound", self.name, path.line);
        hits.map(finding).collect()
    }
}

fn contains(parts: &[String], word: &str) -> bool {
    let wanted: Vec<&str> = word.split("::").collect();
    parts.windows(wanted.len()).any(|window| window == wanted.as_slice())
}

/// The `{` that opens the body of the function at `at`; `None` for one without.
fn body(tokens: &[Token], at: usize) -> Option<usize> {
    let mut index = at;
    loop {
        match tokens.get(index)?.text.as_str() {
            "(" | "[" => index = scan::closing(tokens, index) + 1,
            "{" => return Some(index),
            ";" => return None,
            _ => index += 1,
        }
    }
}
