//! Tag objects.

use super::header::Header;
use crate::model::{ObjectId, Reason, Refusal, TagName};
use crate::release::refuse;

/// Largest tag object that is read: room for long notes and many signatures.
pub const TAG_MAX_BYTES: usize = 1 << 20;

/// What an annotated tag says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag<'a> {
    /// The commit it points at, by its own word: the commit is still to be looked at.
    pub commit: ObjectId,
    /// When it was made, in seconds since 1970, by its maker's word.
    pub tagged_at_s: u64,
    /// Everything after the header: notes and signatures.
    pub message: &'a [u8],
}

/// The header of any tag object, and what follows it.
struct Parts<'a> {
    target: ObjectId,
    kind: &'a [u8],
    name: &'a [u8],
    tagged_at_s: u64,
    message: &'a [u8],
}

fn parts<'a>(bytes: &'a [u8], wanted: &TagName) -> Result<Parts<'a>, Refusal> {
    if bytes.len() > TAG_MAX_BYTES {
        let message = format!("the tag object of `{wanted}` has {} bytes, more than the {TAG_MAX_BYTES} allowed", bytes.len());
        return Err(refuse(Reason::LimitExceeded, message));
    }
    let mut header = Header::new("tag", bytes);
    let target = header.required("object")?;
    let target = header.id("object", target)?;
    let kind = header.required("type")?;
    let name = header.required("tag")?;
    let tagger = header.required("tagger")?;
    let tagged_at_s = header.identity("tagger", tagger)?;
    let rest = header.rest();
    let message = match rest.strip_prefix(b"\n") {
        Some(message) => message,
        None if rest.is_empty() => rest,
        None => return Err(header.fault("a line that does not belong there follows the `tagger` line")),
    };
    Ok(Parts { target, kind, name, tagged_at_s, message })
}

/// Refuses a tag object that was made under another name than the one of its ref.
fn check_own_name(name: &[u8], wanted: &TagName) -> Result<(), Refusal> {
    if name == wanted.as_str().as_bytes() {
        return Ok(());
    }
    let name = String::from_utf8_lossy(name);
    let message = format!(
        "the tag object under `{wanted}` was made as `{}`: a tag counts only under its own name; make a new tag",
        name.escape_debug()
    );
    Err(refuse(Reason::TagNameMismatch, message))
}

/// Reads the tag object that a ref of the short name `wanted` holds.
///
/// # Errors
/// `TagNameMismatch` where it was made under another name, `InvalidGitObject` where it is malformed or points at
/// anything but a commit, `LimitExceeded` where it is larger than [`TAG_MAX_BYTES`].
pub fn parse_tag<'a>(bytes: &'a [u8], wanted: &TagName) -> Result<Tag<'a>, Refusal> {
    let Parts { target, kind, name, tagged_at_s, message } = parts(bytes, wanted)?;
    if kind != b"commit" {
        let kind = String::from_utf8_lossy(kind);
        let message =
            format!("tag `{wanted}` points at a {}, and a release is a commit: tag the commit itself", kind.escape_debug());
        return Err(refuse(Reason::InvalidGitObject, message));
    }
    check_own_name(name, wanted)?;
    Ok(Tag { commit: target, tagged_at_s, message })
}

/// Reads a tag object that somebody made beside the tag object `of`, to sign it as well: it must point at it, and carry the
/// name of its ref. Tells when it was made, in seconds since 1970, by its maker's word.
///
/// # Errors
/// As [`parse_tag`].
pub fn parse_cosignature(bytes: &[u8], wanted: &TagName, of: ObjectId) -> Result<u64, Refusal> {
    let Parts { target, kind, name, tagged_at_s, .. } = parts(bytes, wanted)?;
    check_own_name(name, wanted)?;
    if kind != b"tag" || target != of {
        let kind = String::from_utf8_lossy(kind);
        let message = format!(
            "tag `{wanted}` points at the {} {target} and not at the tag object {of} that it is to sign: make it with `git tag -s {wanted} TAG`",
            kind.escape_debug()
        );
        return Err(refuse(Reason::InvalidGitObject, message));
    }
    Ok(tagged_at_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";
    const WHO: &str = "A B <a@b> 1700000000 +0000";

    fn reason(bytes: &[u8]) -> Reason {
        parse_tag(bytes, &TagName::new("v1.0.0")).unwrap_err().reason
    }

    #[test]
    fn a_well_made_tag_is_read() {
        let bytes = format!("object {ID}\ntype commit\ntag v1.0.0\ntagger {WHO}\n\nnotes\n");
        let tag = parse_tag(bytes.as_bytes(), &TagName::new("v1.0.0")).unwrap();
        assert_eq!((tag.commit.to_string().as_str(), tag.tagged_at_s, tag.message), (ID, 1_700_000_000, &b"notes\n"[..]));
    }

    #[test]
    fn every_malformed_tag_is_refused() {
        let cases = [
            String::new(),
            "object".to_owned(),
            format!("object {ID}"),
            format!("object {}\ntype commit\ntag v1.0.0\ntagger {WHO}\n\n", &ID[1..]),
            format!("object {}\ntype commit\ntag v1.0.0\ntagger {WHO}\n\n", ID.to_uppercase()),
            format!("object {ID}\ntype tree\ntag v1.0.0\ntagger {WHO}\n\n"),
            format!("object {ID}\ntype tag\ntag v1.0.0\ntagger {WHO}\n\n"),
            format!("type commit\nobject {ID}\ntag v1.0.0\ntagger {WHO}\n\n"),
            format!("object {ID}\nobject {ID}\ntype commit\ntag v1.0.0\ntagger {WHO}\n\n"),
            format!("object {ID}\ntype commit\ntag v1.0.0\ntag v1.0.0\ntagger {WHO}\n\n"),
            format!("object {ID}\ntype commit\ntag v1.0.0\0\ntagger {WHO}\n\n"),
            format!("object {ID}\ntype commit\ntag v1.0.0\n\n"),
            format!("object {ID}\ntype commit\ntag v1.0.0\ntagger {WHO}\nextra x\n\n"),
            format!("object {ID}\ntype commit\ntag v1.0.0\ntagger {WHO}\nno blank line"),
            format!("object {ID}\ntype commit\ntag v1.0.0\ntagger A B a@b 1 +0000\n\n"),
            format!("object {ID}\ntype commit\ntag v1.0.0\ntagger A B<a@b> 1 +0000\n\n"),
            format!("object {ID}\ntype commit\ntag v1.0.0\ntagger A B <a@b>1 +0000\n\n"),
            format!("object {ID}\ntype commit\ntag v1.0.0\ntagger A B <a<b> 1 +0000\n\n"),
            format!("object {ID}\ntype commit\ntag v1.0.0\ntagger A B <a@b> 01 +0000\n\n"),
            format!("object {ID}\ntype commit\ntag v1.0.0\ntagger A B <a@b> 99999999999999999999 +0000\n\n"),
            format!("object {ID}\ntype commit\ntag v1.0.0\ntagger A B <a@b> 1 0000\n\n"),
        ];
        for case in cases {
            assert_eq!(reason(case.as_bytes()), Reason::InvalidGitObject, "{case:?}");
        }
    }

    #[test]
    fn a_tag_counts_only_under_its_own_name() {
        for name in ["v2.0.0", "../../x", "refs/tags/v1.0.0", "v1.0.0 ", "V1.0.0", ""] {
            let bytes = format!("object {ID}\ntype commit\ntag {name}\ntagger {WHO}\n\n");
            assert_eq!(reason(bytes.as_bytes()), Reason::TagNameMismatch, "{name:?}");
        }
    }

    #[test]
    fn a_huge_tag_is_refused() {
        assert_eq!(reason(&vec![b'x'; TAG_MAX_BYTES + 1]), Reason::LimitExceeded);
    }

    #[test]
    fn a_header_cut_anywhere_is_refused() {
        let bytes = format!("object {ID}\ntype commit\ntag v1.0.0\ntagger {WHO}\n");
        assert!(parse_tag(bytes.as_bytes(), &TagName::new("v1.0.0")).is_ok());
        for end in 0..bytes.len() {
            assert_eq!(reason(&bytes.as_bytes()[..end]), Reason::InvalidGitObject, "cut at {end}");
        }
    }
}
