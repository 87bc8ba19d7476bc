//! Commit objects.

use super::header::Header;
use crate::model::{ObjectId, Reason, Refusal};
use crate::release::refuse;

/// Largest commit object that is read.
pub const COMMIT_MAX_BYTES: usize = 1 << 20;

/// Lines that may stand in a header only once and only in their place.
const FIXED_KEYS: [&[u8]; 4] = [b"tree", b"parent", b"author", b"committer"];

/// What a commit says that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its tree.
    pub tree: ObjectId,
    /// Its parents; their objects are not needed and usually not there.
    pub parents: Vec<ObjectId>,
    /// When it was made, in seconds since 1970, by its maker's word.
    pub committed_at_s: u64,
}

/// Reads a commit object.
///
/// # Errors
/// `InvalidGitObject` where it is malformed, `LimitExceeded` where it is larger than [`COMMIT_MAX_BYTES`].
pub fn parse_commit(bytes: &[u8]) -> Result<Commit, Refusal> {
    if bytes.len() > COMMIT_MAX_BYTES {
        let message = format!("the commit object has {} bytes, more than the {COMMIT_MAX_BYTES} allowed", bytes.len());
        return Err(refuse(Reason::LimitExceeded, message));
    }
    let mut header = Header::new("commit", bytes);
    let tree = header.required("tree")?;
    let tree = header.id("tree", tree)?;
    let mut parents = Vec::new();
    while let Some(parent) = header.optional("parent")? {
        parents.push(header.id("parent", parent)?);
    }
    let author = header.required("author")?;
    header.identity("author", author)?;
    let committer = header.required("committer")?;
    let committed_at_s = header.identity("committer", committer)?;
    check_other_lines(&header)?;
    Ok(Commit { tree, parents, committed_at_s })
}

/// The lines after `committer`: `encoding`, `gpgsig` with its continuation lines and the like, up to an empty line.
fn check_other_lines(header: &Header<'_>) -> Result<(), Refusal> {
    let mut rest = header.rest();
    let mut first = true;
    while !rest.is_empty() {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err(header.fault("its last header line has no end"));
        };
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            return Ok(());
        }
        if line.contains(&0) {
            return Err(header.fault("a NUL byte stands in its header"));
        }
        let continued = line[0] == b' ';
        let Some(space) = line.iter().position(|byte| *byte == b' ') else {
            return Err(header.fault("a header line has no value"));
        };
        if (continued && first) || FIXED_KEYS.contains(&&line[..space]) {
            return Err(header.fault("a header line stands twice or not in its place"));
        }
        first = false;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";
    const WHO: &str = "A B <a@b> 1700000000 +0000";

    #[test]
    fn well_made_commits_are_read() {
        let plain = format!("tree {ID}\nauthor {WHO}\ncommitter {WHO}\n\nmessage");
        assert_eq!(parse_commit(plain.as_bytes()).unwrap().parents, []);
        let signed = format!(
            "tree {ID}\nparent {ID}\nparent {ID}\nauthor {WHO}\ncommitter {WHO}\nencoding x\ngpgsig -----\n a\n \n b\n\nm\0m"
        );
        let commit = parse_commit(signed.as_bytes()).unwrap();
        assert_eq!((commit.parents.len(), commit.tree.to_string().as_str()), (2, ID));
        let bare = format!("tree {ID}\nauthor {WHO}\ncommitter {WHO}\n");
        assert_eq!(parse_commit(bare.as_bytes()).unwrap().committed_at_s, 1_700_000_000);
        let nameless = format!("tree {ID}\nauthor <> 0 -0700\ncommitter {WHO}\n\n");
        assert!(parse_commit(nameless.as_bytes()).is_ok());
    }

    #[test]
    fn every_malformed_commit_is_refused() {
        let cases = [
            String::new(),
            "junk".to_owned(),
            format!("tree {ID}\n"),
            format!("tree {ID}\ntree {ID}\nauthor {WHO}\ncommitter {WHO}\n\n"),
            format!("parent {ID}\ntree {ID}\nauthor {WHO}\ncommitter {WHO}\n\n"),
            format!("tree {ID}x\nauthor {WHO}\ncommitter {WHO}\n\n"),
            format!("tree {ID}\nauthor {WHO}\nauthor {WHO}\ncommitter {WHO}\n\n"),
            format!("tree {ID}\nauthor {WHO}\n\ncommitter {WHO}\n\n"),
            format!("tree {ID}\nauthor {WHO}\ncommitter {WHO}\nparent {ID}\n\n"),
            format!("tree {ID}\nauthor {WHO}\ncommitter {WHO}\ntree {ID}\n\n"),
            format!("tree {ID}\nauthor {WHO}\ncommitter {WHO}\n continued\n\n"),
            format!("tree {ID}\nauthor {WHO}\ncommitter {WHO}\nx\0 y\n\n"),
            format!("tree {ID}\nauthor {WHO}\ncommitter {WHO}\nnovalue\n\n"),
            format!("tree {ID}\nauthor {WHO}\ncommitter {WHO}\nno end"),
            format!("tree {ID}\nauthor {WHO}\0\ncommitter {WHO}\n\n"),
        ];
        for case in cases {
            assert_eq!(parse_commit(case.as_bytes()).unwrap_err().reason, Reason::InvalidGitObject, "{case:?}");
        }
        assert_eq!(parse_commit(&vec![b'x'; COMMIT_MAX_BYTES + 1]).unwrap_err().reason, Reason::LimitExceeded);
    }

    #[test]
    fn a_header_cut_anywhere_is_refused() {
        let bytes = format!("tree {ID}\nparent {ID}\nauthor {WHO}\ncommitter {WHO}\n");
        assert!(parse_commit(bytes.as_bytes()).is_ok());
        for end in 0..bytes.len() {
            assert!(parse_commit(&bytes.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }
}
