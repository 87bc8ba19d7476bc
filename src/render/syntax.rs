//! A template's text before it is parsed: bounds on its nesting, and the old way to write an index.
//!
//! Knows only where tags begin and end, what is quoted, and what nests; whether a tag means anything is the parser's
//! question.

/// Blocks within blocks, links of `else` chains counted. Parsing, rendering and dropping a template all recurse.
const NESTING_MAX_BLOCKS: usize = 64;

/// Brackets within brackets of one tag.
const NESTING_MAX_BRACKETS: usize = 32;

/// A text that is nested too deeply to be parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TooDeep {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) message: String,
}

/// The text to parse, with what was changed in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Prepared {
    pub(super) text: String,
    /// Line, column and growth of each change, in places of the new text.
    changes: Vec<(usize, usize, isize)>,
}

impl Prepared {
    /// The column in the text as it was written.
    pub(super) fn column(&self, line: usize, column: usize) -> usize {
        let grown: isize = self.changes.iter().filter(|(at, from, _)| *at == line && *from < column).map(|(_, _, by)| by).sum();
        column.saturating_add_signed(-grown)
    }
}

/// Checks the nesting and writes `name[0]` and `name["key"]` as `name.[0]` and `name.[key]`.
pub(super) fn prepare(source: &str) -> Result<Prepared, TooDeep> {
    let mut scan = Scan { rest: source, line: 1, column: 1, source_column: 1, blocks: Vec::new(), out: Prepared::default() };
    while !scan.rest.is_empty() {
        scan.text();
        scan.tag()?;
    }
    Ok(scan.out)
}

struct Scan<'a> {
    rest: &'a str,
    line: usize,
    column: usize,
    source_column: usize,
    /// For each open block, how many levels its chain of `else` takes.
    blocks: Vec<usize>,
    out: Prepared,
}

impl<'a> Scan<'a> {
    /// Takes `bytes` bytes over as they are.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        for c in taken.chars() {
            if c == '\n' {
                self.line += 1;
                self.column = 1;
                self.source_column = 1;
            } else {
                self.column += 1;
                self.source_column += 1;
            }
        }
        self.out.text.push_str(taken);
        self.rest = rest;
        taken
    }

    /// Takes everything up to the next tag that is not escaped.
    fn text(&mut self) {
        while let Some(at) = self.rest.find("{{") {
            let before = self.take(at);
            let slashes = before.bytes().rev().take_while(|b| *b == b'\\').count();
            if slashes != 1 {
                return;
            }
            let braces = self.rest.bytes().take_while(|b| *b == b'{').count();
            self.take(braces);
        }
        self.take(self.rest.len());
    }

    fn take_through(&mut self, end: &str) {
        let bytes = self.rest.find(end).map_or(self.rest.len(), |at| at + end.len());
        self.take(bytes);
    }

    fn tag(&mut self) -> Result<(), TooDeep> {
        if self.rest.is_empty() {
            return Ok(());
        }
        if self.rest.starts_with("{{!--") {
            self.take_through("--}}");
            return Ok(());
        }
        if self.rest.starts_with("{{!") {
            self.take_through("}}");
            return Ok(());
        }
        let raw = self.rest.starts_with("{{{{");
        let braces = self.rest.bytes().take(4).take_while(|b| *b == b'{').count();
        self.take(braces);
        self.nest()?;
        self.inside()?;
        if raw {
            self.take_through("{{{{/");
            self.inside()?;
        }
        Ok(())
    }

    /// Counts the block that this tag opens, continues or ends.
    fn nest(&mut self) -> Result<(), TooDeep> {
        let tag = self.rest.trim_start_matches(['~', ' ', '\t', '\r', '\n']);
        if tag.starts_with('#') {
            self.blocks.push(1);
        } else if tag.starts_with('/') {
            self.blocks.pop();
        } else if let Some(after) = tag.strip_prefix("else").or_else(|| tag.strip_prefix('^'))
            && !after.trim_start().trim_start_matches('~').trim_start().starts_with("}}")
            && let Some(block) = self.blocks.last_mut()
        {
            *block += 1;
        }
        if self.blocks.iter().sum::<usize>() > NESTING_MAX_BLOCKS {
            return Err(self.too_deep(format!("more than {NESTING_MAX_BLOCKS} blocks stand within one another")));
        }
        Ok(())
    }

    fn too_deep(&self, message: String) -> TooDeep {
        TooDeep { line: self.line, column: self.source_column, message }
    }

    /// Takes the inside of a tag with its closing braces.
    fn inside(&mut self) -> Result<(), TooDeep> {
        let mut brackets: usize = 0;
        let mut last = ' ';
        while let Some(c) = self.rest.chars().next() {
            match c {
                '}' if self.rest.starts_with("}}") && brackets == 0 => {
                    let braces = self.rest.bytes().take(4).take_while(|b| *b == b'}').count();
                    self.take(braces);
                    return Ok(());
                }
                '"' | '\'' => self.quoted(c),
                '[' if last == '.' || last == '/' => self.take_through("]"),
                '[' if last.is_alphanumeric() || matches!(last, '_' | '-' | '$' | ']') => self.index(),
                '[' | '(' | '{' => {
                    brackets += 1;
                    self.take(1);
                }
                ']' | ')' | '}' => {
                    brackets = brackets.saturating_sub(1);
                    self.take(1);
                }
                c => {
                    self.take(c.len_utf8());
                }
            }
            if brackets > NESTING_MAX_BRACKETS {
                return Err(self.too_deep(format!("more than {NESTING_MAX_BRACKETS} brackets stand within one another")));
            }
            last = self.out.text.chars().next_back().unwrap_or(' ');
        }
        Ok(())
    }

    fn quoted(&mut self, quote: char) {
        self.take(1);
        let mut escaped = false;
        while let Some(c) = self.rest.chars().next() {
            self.take(c.len_utf8());
            if c == quote && !escaped {
                return;
            }
            escaped = c == '\\' && !escaped;
        }
    }

    /// `[0]` or `["key"]` right behind a name.
    fn index(&mut self) {
        let Some(end) = self.rest.find(']') else {
            self.take(self.rest.len());
            return;
        };
        let inner = &self.rest[1..end];
        let bare = inner.trim_matches(['"', '\'']);
        let written = format!(".[{bare}]");
        let old = self.rest[..=end].chars().count();
        let new = written.chars().count();
        self.out.text.push_str(&written);
        self.out.changes.push((self.line, self.column, new.cast_signed() - old.cast_signed()));
        self.column += new;
        self.source_column += old;
        self.rest = &self.rest[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::prepare;

    #[test]
    fn an_index_gets_its_dot() {
        for (old, new) in [
            ("{{a[0]}}", "{{a.[0]}}"),
            ("{{a[0][1].b}}", "{{a.[0].[1].b}}"),
            ("{{a[\"k y\"]}}", "{{a.[k y]}}"),
            ("{{#each a.b[0].c}}x[0]{{/each}}", "{{#each a.b.[0].c}}x[0]{{/each}}"),
            ("{{a.[0]}}", "{{a.[0]}}"),
            ("{{lookup a [1, 2]}}", "{{lookup a [1, 2]}}"),
            ("{{toUppercase \"a[0]\"}}", "{{toUppercase \"a[0]\"}}"),
            ("\\{{a[0]}}", "\\{{a[0]}}"),
            ("{{! a[0] }}{{!-- a[0] }} --}}", "{{! a[0] }}{{!-- a[0] }} --}}"),
            ("{{{{raw}}}}{{a[0]}}{{{{/raw}}}}{{a[0]}}", "{{{{raw}}}}{{a[0]}}{{{{/raw}}}}{{a.[0]}}"),
            ("é[0] {{", "é[0] {{"),
        ] {
            assert_eq!(prepare(old).unwrap().text, new, "{old}");
        }
    }

    #[test]
    fn columns_are_those_of_the_written_text() {
        let prepared = prepare("x\n{{a[0]}}{{b}} {{c[\"d\"]}}{{e}}").unwrap();
        assert_eq!(prepared.text, "x\n{{a.[0]}}{{b}} {{c.[d]}}{{e}}");
        assert_eq!(prepared.column(2, 1), 1);
        assert_eq!(prepared.column(2, 10), 9);
        assert_eq!(prepared.column(2, 26), 26);
        assert_eq!(prepared.column(1, 9), 9);
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(prepare(&"{{#if a}}".repeat(64)).is_ok());
        assert!(prepare(&"{{~ #if a}}".repeat(65)).is_err());
        assert!(prepare(&"{{#if a}}{{/if}}".repeat(500)).is_ok());
        assert!(prepare(&format!("{{{{#if a}}}}{}{{{{/if}}}}", "{{else if a}}".repeat(80))).is_err());
        assert!(prepare(&format!("{{{{#if a}}}}{}{{{{/if}}}}", "{{else}}".repeat(80))).is_ok());
        let error = prepare(&format!("\n{{{{a {}", "(b ".repeat(40))).unwrap_err();
        assert_eq!(error.line, 2);
    }
}
