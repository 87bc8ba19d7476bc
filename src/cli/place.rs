//! Where a value stands in TOML: from `service.exec[1]` to line and column. Looks at text only; what the value means is the
//! manifest's question.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Line and column, from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// The place of a value; `None` where the text has none of this name. `within` is a column of the value's text, from 1: a
/// place in the file where the string is written plainly.
pub(super) fn of(text: &str, path: &str, within: Option<usize>) -> Option<Place> {
    let table = DeTable::parse(text).ok()?;
    let span = in_table(table.get_ref(), path)?;
    let raw = text.get(span.clone())?;
    let quote = raw.chars().next().filter(|first| matches!(first, '"' | '\''));
    let is_plain = quote.is_some_and(|quote| {
        let long: String = std::iter::repeat_n(quote, 3).collect();
        !raw.starts_with(&long) && (quote == '\'' || !raw.contains('\\'))
    });
    let mut place = position(text, span.start);
    if let Some(column) = within.filter(|_| is_plain) {
        place.column += column;
    }
    Some(place)
}

/// Line and column of a byte.
pub(super) fn position(text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// Names may have dots in them: every key that the rest begins with is tried.
fn in_table(table: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    table.iter().find_map(|(key, value)| {
        let rest = path.strip_prefix(key.get_ref().as_ref())?;
        in_value(value.get_ref(), value.span(), rest)
    })
}

fn in_value(value: &DeValue<'_>, span: Range<usize>, rest: &str) -> Option<Range<usize>> {
    if rest.is_empty() {
        return Some(span);
    }
    if let Some(name) = rest.strip_prefix('.') {
        return in_table(value.as_table()?, name);
    }
    let (index, rest) = rest.strip_prefix('[')?.split_once(']')?;
    let item = value.as_array()?.get(index.parse::<usize>().ok()?)?;
    in_value(item.get_ref(), item.span(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_where_they_stand() {
        let text = "format = 1\n[service]\nexec = [\n  \"/bin/é\", '{{a}}', \"\\t{{b}}\",\n]\nenv = { \"A.B\" = \"x\" }\n\n[hooks.health-check]\nargs = { list = [{ n = \"\"\"x\"\"\" }] }\n";
        for (path, within, place) in [
            ("format", None, Some((1, 10))),
            ("service.exec[0]", Some(1), Some((4, 4))),
            ("service.exec[1]", Some(3), Some((4, 16))),
            ("service.exec[2]", Some(3), Some((4, 22))),
            ("service.exec[3]", Some(1), None),
            ("service.env.A.B", Some(1), Some((6, 18))),
            ("service.env.A", None, None),
            ("hooks.health-check.args.list[0].n", Some(9), Some((9, 24))),
            ("hooks.health", None, None),
            ("service[0]", None, None),
            ("", None, None),
        ] {
            let found = of(text, path, within).map(|place| (place.line, place.column));
            assert_eq!(found, place, "{path}");
        }
        assert_eq!(of("not toml", "a", None), None);
    }
}
