//! Names and content ids.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// Longest name of a service or of a group, in bytes (Habitat's and DNS labels' limit).
const NAME_MAX_BYTES: usize = 63;

/// A name that does not follow the rules for names of services and groups.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a group name: {rule}")]
pub struct InvalidName {
    name: String,
    rule: &'static str,
}

/// `SERVICE.GROUP`: the same service on every supervisor where it is placed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName {
    service: String,
    group: String,
}

impl GroupName {
    /// The group that is meant where none is named.
    pub const DEFAULT_GROUP: &'static str = "default";

    /// What runs: the part before the dot.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The part after the dot.
    pub fn group(&self) -> &str {
        &self.group
    }
}

fn checked_part(whole: &str, part: &str) -> Result<String, InvalidName> {
    let fail = |rule| Err(InvalidName { name: whole.to_owned(), rule });
    if part.is_empty() {
        return fail("a part of it is empty");
    }
    if part.len() > NAME_MAX_BYTES {
        return fail("a part of it is longer than 63 bytes");
    }
    if !part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return fail("only letters, digits, `-` and `_` may stand in it, with one dot between service and group");
    }
    if !part.as_bytes()[0].is_ascii_alphanumeric() {
        return fail("each part begins with a letter or digit");
    }
    Ok(part.to_owned())
}

impl FromStr for GroupName {
    type Err = InvalidName;

    /// Reads `SERVICE.GROUP`, or `SERVICE` for `SERVICE.default`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (service, group) = text.split_once('.').unwrap_or((text, Self::DEFAULT_GROUP));
        Ok(Self { service: checked_part(text, service)?, group: checked_part(text, group)? })
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.group)
    }
}

/// The short name of a tag (`v1.2.0`), without `refs/tags/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagName(String);

impl TagName {
    /// Takes a short name as a remote reported it; whether it names a version is `release`'s question.
    pub fn new(short: impl Into<String>) -> Self {
        Self(short.into())
    }

    /// The short name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The stable id of a supervisor: 32 lower-case hexadecimal digits, made once per data folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(String);

impl MemberId {
    /// Takes an id as it was stored.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is not an id of the wanted length in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id of {1} hexadecimal digits")]
pub struct InvalidHex(String, usize);

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

fn read_hex<const N: usize>(text: &str) -> Result<[u8; N], InvalidHex> {
    let invalid = || InvalidHex(text.to_owned(), N * 2);
    if text.len() != N * 2 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(invalid());
    }
    let mut out = [0; N];
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).map_err(|_| invalid())?;
    }
    Ok(out)
}

/// A Git object id (SHA-1, 20 bytes).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; 20]);

/// A SHA-256 digest (32 bytes).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

macro_rules! hex_id {
    ($name:ident, $bytes:literal) => {
        impl $name {
            /// From its raw bytes.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Its raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// The first twelve digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidHex;

            fn from_str(text: &str) -> Result<Self, InvalidHex> {
                read_hex(text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(input)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id!(ObjectId, 20);
hex_id!(Digest, 32);

impl Digest {
    /// SHA-256 of one run of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// A digest over several fields. Each field is preceded by its length, so that no two lists of fields collide.
#[derive(Default)]
pub struct DigestBuilder(Sha256);

impl DigestBuilder {
    /// Starts a digest for one purpose; different purposes never yield the same digest.
    pub fn new(purpose: &str) -> Self {
        Self::default().field(purpose.as_bytes())
    }

    /// Adds one field.
    #[must_use]
    pub fn field(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Ends the digest.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

macro_rules! text_serde {
    ($name:ident, $read:expr) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                let text = String::deserialize(input)?;
                let read: fn(String) -> Result<Self, String> = $read;
                read(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_serde!(GroupName, |text| text.parse().map_err(|error: InvalidName| error.to_string()));
text_serde!(TagName, |text| Ok(TagName(text)));
text_serde!(MemberId, |text| Ok(MemberId(text)));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_name_may_leave_out_default() {
        let name: GroupName = "redis".parse().unwrap();
        assert_eq!(name.to_string(), "redis.default");
        assert_eq!("redis.default".parse::<GroupName>().unwrap(), name);
    }

    #[test]
    fn names_that_could_be_paths_or_options_are_refused() {
        for bad in ["", ".", "a.", ".b", "a/b", "a.b.c", "../a", "-a", "a b", "é"] {
            assert!(bad.parse::<GroupName>().is_err(), "{bad:?} was accepted");
        }
        assert!("a".repeat(64).parse::<GroupName>().is_err());
    }

    #[test]
    fn ids_read_back_what_they_print() {
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!("ABCD".parse::<ObjectId>().is_err());
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let one = DigestBuilder::new("t").field(b"ab").field(b"c").finish();
        let two = DigestBuilder::new("t").field(b"a").field(b"bc").finish();
        assert_ne!(one, two);
    }
}
