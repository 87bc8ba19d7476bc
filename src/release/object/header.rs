//! Header lines, ids and identities, as tags and commits share them.

use std::str;

use crate::model::{ObjectId, Reason, Refusal};
use crate::release::refuse;

/// Hexadecimal digits of an object id.
const HEX_DIGITS: usize = 40;

/// The header of an object, read line by line from the front.
pub(super) struct Header<'a> {
    /// `tag` or `commit`, for messages.
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Header<'a> {
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub(super) fn fault(&self, fault: impl AsRef<str>) -> Refusal {
        let what = self.what;
        refuse(Reason::InvalidGitObject, format!("the {what} object is not as Git writes it: {}", fault.as_ref()))
    }

    /// The next line without its newline, where it begins with `key` and a space: what follows these.
    pub(super) fn optional(&mut self, key: &str) -> Result<Option<&'a [u8]>, Refusal> {
        let Some(rest) = self.rest.strip_prefix(key.as_bytes()).and_then(|rest| rest.strip_prefix(b" ")) else {
            return Ok(None);
        };
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err(self.fault(format!("the `{key}` line has no end")));
        };
        let (value, rest) = (&rest[..end], &rest[end + 1..]);
        if value.contains(&0) {
            return Err(self.fault(format!("a NUL byte stands in the `{key}` line")));
        }
        self.rest = rest;
        Ok(Some(value))
    }

    /// The same, of a line that must be there.
    pub(super) fn required(&mut self, key: &str) -> Result<&'a [u8], Refusal> {
        self.optional(key)?.ok_or_else(|| self.fault(format!("the `{key}` line is missing or not in its place")))
    }

    /// An id of forty lower-case hexadecimal digits.
    pub(super) fn id(&self, key: &str, value: &[u8]) -> Result<ObjectId, Refusal> {
        let text = str::from_utf8(value).ok().filter(|text| text.len() == HEX_DIGITS);
        let id = text.and_then(|text| text.parse().ok());
        id.ok_or_else(|| self.fault(format!("the `{key}` line does not hold an id of {HEX_DIGITS} hexadecimal digits")))
    }

    /// `NAME <EMAIL> SECONDS ZONE`; gives the seconds.
    pub(super) fn identity(&self, key: &str, value: &[u8]) -> Result<u64, Refusal> {
        let fault = |what: &str| self.fault(format!("the `{key}` line {what}"));
        let open = value.iter().position(|byte| *byte == b'<').ok_or_else(|| fault("has no `<EMAIL>`"))?;
        let (name, rest) = (&value[..open], &value[open + 1..]);
        if !(name.is_empty() || name.ends_with(b" ")) || name.contains(&b'>') {
            return Err(fault("has a malformed name"));
        }
        let close = rest.iter().position(|byte| matches!(byte, b'>' | b'<')).filter(|at| rest[*at] == b'>');
        let close = close.ok_or_else(|| fault("has a malformed `<EMAIL>`"))?;
        let when = str::from_utf8(&rest[close + 1..]).ok().and_then(|when| when.strip_prefix(' '));
        let (seconds, zone) = when.and_then(|when| when.split_once(' ')).ok_or_else(|| fault("has no date and zone"))?;
        let zone = zone.as_bytes();
        let zone_ok = zone.len() == 5 && matches!(zone[0], b'+' | b'-') && zone[1..].iter().all(u8::is_ascii_digit);
        if !zone_ok {
            return Err(fault("has a malformed time zone"));
        }
        let digits = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || (seconds.len() > 1 && seconds.starts_with('0')) {
            return Err(fault("has a malformed date"));
        }
        let seconds: Option<u64> = seconds.parse().ok().filter(|seconds| i64::try_from(*seconds).is_ok());
        seconds.ok_or_else(|| fault("has a date out of range"))
    }

    /// What is left: the rest of the header and the message.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}
