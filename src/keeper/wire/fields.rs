//! Fields of a packet: tag (u16), length (u32), value; all little-endian. Repeated tags are lists.

use std::time::Duration;

/// Writes fields one after the other.
#[derive(Default)]
pub(in crate::keeper) struct Writer(Vec<u8>);

impl Writer {
    /// Begins a packet of a kind.
    pub(in crate::keeper) fn message(kind: u16) -> Self {
        Self(kind.to_le_bytes().to_vec())
    }

    pub(in crate::keeper) fn bytes(&mut self, tag: u16, value: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&tag.to_le_bytes());
        self.0.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.0.extend_from_slice(value);
        self
    }

    pub(in crate::keeper) fn text(&mut self, tag: u16, value: &str) -> &mut Self {
        self.bytes(tag, value.as_bytes())
    }

    pub(in crate::keeper) fn u64(&mut self, tag: u16, value: u64) -> &mut Self {
        self.bytes(tag, &value.to_le_bytes())
    }

    pub(in crate::keeper) fn i32(&mut self, tag: u16, value: i32) -> &mut Self {
        self.bytes(tag, &value.to_le_bytes())
    }

    /// Microseconds: what a configuration can say, and no float.
    pub(in crate::keeper) fn duration(&mut self, tag: u16, value: Duration) -> &mut Self {
        self.u64(tag, u64::try_from(value.as_micros()).unwrap_or(u64::MAX))
    }

    pub(in crate::keeper) fn record(&mut self, tag: u16, write: impl FnOnce(&mut Writer)) -> &mut Self {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(tag, &inner.0)
    }

    pub(in crate::keeper) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// What is wrong with a packet; the tag says where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::keeper) enum FieldError {
    #[error("it ends in the middle of a field")]
    Truncated,
    #[error("field {0} is missing")]
    Missing(u16),
    #[error("field {0} holds what is not allowed there")]
    Invalid(u16),
}

/// Fields as read; looks nothing up before it is asked for.
#[derive(Clone, Copy)]
pub(in crate::keeper) struct Fields<'a>(&'a [u8]);

fn split<'a>(rest: &mut &'a [u8]) -> Result<Option<(u16, &'a [u8])>, FieldError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (tag, after) = rest.split_first_chunk::<2>().ok_or(FieldError::Truncated)?;
    let (length, after) = after.split_first_chunk::<4>().ok_or(FieldError::Truncated)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| FieldError::Truncated)?;
    let (value, after) = after.split_at_checked(length).ok_or(FieldError::Truncated)?;
    *rest = after;
    Ok(Some((u16::from_le_bytes(*tag), value)))
}

impl<'a> Fields<'a> {
    /// Takes the fields of a packet or record; every length is checked here, once.
    pub(in crate::keeper) fn parse(bytes: &'a [u8]) -> Result<Self, FieldError> {
        let mut rest = bytes;
        while split(&mut rest)?.is_some() {}
        Ok(Self(bytes))
    }

    /// All values of a tag.
    pub(in crate::keeper) fn list(self, tag: u16) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        std::iter::from_fn(move || split(&mut rest).ok().flatten()).filter(move |(at, _)| *at == tag).map(|(_, value)| value)
    }

    pub(in crate::keeper) fn find(self, tag: u16) -> Option<&'a [u8]> {
        self.list(tag).next()
    }

    pub(in crate::keeper) fn bytes(self, tag: u16) -> Result<&'a [u8], FieldError> {
        self.find(tag).ok_or(FieldError::Missing(tag))
    }

    pub(in crate::keeper) fn text(self, tag: u16) -> Result<String, FieldError> {
        text(tag, self.bytes(tag)?)
    }

    pub(in crate::keeper) fn texts(self, tag: u16) -> Result<Vec<String>, FieldError> {
        self.list(tag).map(|value| text(tag, value)).collect()
    }

    pub(in crate::keeper) fn u64(self, tag: u16) -> Result<u64, FieldError> {
        Ok(u64::from_le_bytes(self.array(tag)?))
    }

    pub(in crate::keeper) fn i32(self, tag: u16) -> Result<i32, FieldError> {
        Ok(i32::from_le_bytes(self.array(tag)?))
    }

    pub(in crate::keeper) fn array<const N: usize>(self, tag: u16) -> Result<[u8; N], FieldError> {
        self.bytes(tag)?.try_into().map_err(|_| FieldError::Invalid(tag))
    }

    pub(in crate::keeper) fn duration(self, tag: u16) -> Result<Duration, FieldError> {
        self.u64(tag).map(Duration::from_micros)
    }

    pub(in crate::keeper) fn parsed<T: std::str::FromStr>(self, tag: u16) -> Result<T, FieldError> {
        let value = std::str::from_utf8(self.bytes(tag)?).map_err(|_| FieldError::Invalid(tag))?;
        value.parse().map_err(|_| FieldError::Invalid(tag))
    }

    pub(in crate::keeper) fn record(self, tag: u16) -> Result<Fields<'a>, FieldError> {
        Fields::parse(self.bytes(tag)?)
    }

    /// A field that may be missing.
    pub(in crate::keeper) fn optional<T>(
        self,
        tag: u16,
        read: impl FnOnce(Self, u16) -> Result<T, FieldError>,
    ) -> Result<Option<T>, FieldError> {
        if self.find(tag).is_some() { read(self, tag).map(Some) } else { Ok(None) }
    }
}

fn text(tag: u16, value: &[u8]) -> Result<String, FieldError> {
    String::from_utf8(value.to_vec()).map_err(|_| FieldError::Invalid(tag))
}
