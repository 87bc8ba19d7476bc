//! Tree objects.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::name::{check_name, fold};
use crate::model::{ObjectId, Reason, Refusal};
use crate::release::refuse;

/// Largest tree object (one folder) that is read: about 100,000 names.
pub const TREE_MAX_BYTES: usize = 8 << 20;

/// Bytes of an id in a tree.
const ID_BYTES: usize = 20;

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `40000`.
    Folder,
    /// `100644`.
    File,
    /// `100755`.
    Executable,
    /// `120000`.
    Symlink,
    /// `160000`: a commit of another repository.
    Submodule,
}

/// One name of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it is.
    pub mode: Mode,
    /// Its name, checked by [`check_name`].
    pub name: &'a str,
    /// The object's id.
    pub id: ObjectId,
}

/// Reads a tree object: the folder `within`, which is empty for the root.
///
/// # Errors
/// `UnsafePath` for a name, `InvalidGitObject` where it is malformed or not in Git's order, `LimitExceeded` where it is
/// larger than [`TREE_MAX_BYTES`].
pub fn parse_tree<'a>(bytes: &'a [u8], within: &str) -> Result<Vec<Entry<'a>>, Refusal> {
    let fault = |what: String| {
        let within = if within.is_empty() { "the root" } else { within };
        refuse(Reason::InvalidGitObject, format!("the tree of `{within}` is not as Git writes it: {what}"))
    };
    if bytes.len() > TREE_MAX_BYTES {
        let message =
            format!("the folder `{within}` has a tree of {} bytes, more than the {TREE_MAX_BYTES} allowed", bytes.len());
        return Err(refuse(Reason::LimitExceeded, message));
    }
    let mut entries: Vec<Entry<'a>> = Vec::new();
    let mut names = BTreeSet::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let cut = || fault("it is cut off".to_owned());
        let space = rest.iter().position(|byte| *byte == b' ').ok_or_else(cut)?;
        let (mode, after) = (&rest[..space], &rest[space + 1..]);
        let nul = after.iter().position(|byte| *byte == 0).ok_or_else(cut)?;
        let (raw, after) = (&after[..nul], &after[nul + 1..]);
        let (id, after) = after.split_first_chunk::<ID_BYTES>().ok_or_else(cut)?;
        rest = after;
        let name = check_name(raw, within)?;
        let mode = parse_mode(mode).ok_or_else(|| {
            let mode = String::from_utf8_lossy(&mode[..mode.len().min(16)]);
            fault(format!("`{name}` has the mode `{}`", mode.escape_debug()))
        })?;
        let entry = Entry { mode, name, id: ObjectId::from_bytes(*id) };
        if id == &[0; ID_BYTES] {
            return Err(fault(format!("`{name}` has no object")));
        }
        if !names.insert(name) {
            return Err(fault(format!("`{name}` stands in it twice")));
        }
        if entries.last().is_some_and(|last| order(last, &entry) != Ordering::Less) {
            return Err(fault(format!("`{name}` is not in its place")));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// Checks that no two names of a folder differ in case only.
///
/// # Errors
/// `UnsafePath` with both names.
pub fn check_case<'a>(names: impl IntoIterator<Item = &'a str>, within: &str) -> Result<(), Refusal> {
    let mut folded = BTreeMap::new();
    for name in names {
        if let Some(other) = folded.insert(fold(name), name) {
            let within = if within.is_empty() { "the repository's root" } else { within };
            let message = format!("`{other}` and `{name}` in `{within}` differ in case only; rename one of them and tag again");
            return Err(refuse(Reason::UnsafePath, message));
        }
    }
    Ok(())
}

fn parse_mode(spelled: &[u8]) -> Option<Mode> {
    match spelled {
        b"40000" => Some(Mode::Folder),
        b"100644" => Some(Mode::File),
        b"100755" => Some(Mode::Executable),
        b"120000" => Some(Mode::Symlink),
        b"160000" => Some(Mode::Submodule),
        _ => None,
    }
}

/// Git's order: by bytes, a folder as if its name ended in `/`.
fn order(a: &Entry<'_>, b: &Entry<'_>) -> Ordering {
    key(a).cmp(key(b))
}

fn key(entry: &Entry<'_>) -> impl Iterator<Item = u8> {
    entry.name.bytes().chain((entry.mode == Mode::Folder).then_some(b'/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (mode, name) in entries {
            bytes.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            bytes.extend_from_slice(&[7; ID_BYTES]);
        }
        bytes
    }

    #[test]
    fn a_well_made_tree_is_read() {
        let bytes = tree(&[("100644", "a"), ("100755", "a.b"), ("40000", "a.c"), ("120000", "b"), ("160000", "c")]);
        let modes: Vec<Mode> = parse_tree(&bytes, "").unwrap().iter().map(|entry| entry.mode).collect();
        assert_eq!(modes, [Mode::File, Mode::Executable, Mode::Folder, Mode::Symlink, Mode::Submodule]);
        assert_eq!(parse_tree(b"", "").unwrap(), []);
        assert!(parse_tree(&tree(&[("100644", "a.b"), ("40000", "a"), ("100644", "a0")]), "").is_ok(), "a folder sorts as `a/`");
    }

    #[test]
    fn every_malformed_tree_is_refused() {
        let cases: [(&[(&str, &str)], Reason); 18] = [
            (&[("100644", "b"), ("100644", "a")], Reason::InvalidGitObject),
            (&[("100644", "a"), ("100644", "a")], Reason::InvalidGitObject),
            (&[("100644", "a"), ("100644", "a.b"), ("40000", "a")], Reason::InvalidGitObject),
            (&[("40000", "a"), ("100644", "a.b")], Reason::InvalidGitObject),
            (&[("040000", "a")], Reason::InvalidGitObject),
            (&[("0100644", "a")], Reason::InvalidGitObject),
            (&[("100664", "a")], Reason::InvalidGitObject),
            (&[("777", "a")], Reason::InvalidGitObject),
            (&[("0", "a")], Reason::InvalidGitObject),
            (&[("", "a")], Reason::InvalidGitObject),
            (&[("100644", "")], Reason::UnsafePath),
            (&[("40000", "..")], Reason::UnsafePath),
            (&[("40000", ".")], Reason::UnsafePath),
            (&[("40000", ".git")], Reason::UnsafePath),
            (&[("40000", ".Git")], Reason::UnsafePath),
            (&[("100644", "git~1")], Reason::UnsafePath),
            (&[("100644", "a/b")], Reason::UnsafePath),
            (&[("100644", "a\nb")], Reason::UnsafePath),
        ];
        for (entries, reason) in cases {
            assert_eq!(parse_tree(&tree(entries), "groups").unwrap_err().reason, reason, "{entries:?}");
        }
        let whole = tree(&[("100644", "a")]);
        for end in 1..whole.len() {
            assert_eq!(parse_tree(&whole[..end], "").unwrap_err().reason, Reason::InvalidGitObject, "cut at {end}");
        }
        let mut no_object = tree(&[("100644", "a")]);
        no_object.truncate(9);
        no_object.extend_from_slice(&[0; ID_BYTES]);
        assert!(parse_tree(&no_object, "").is_err());
        assert_eq!(parse_tree(&vec![0; TREE_MAX_BYTES + 1], "").unwrap_err().reason, Reason::LimitExceeded);
    }

    #[test]
    fn names_that_differ_in_case_only_collide() {
        let bytes = tree(&[("100644", "README"), ("100644", "Readme")]);
        let entries = parse_tree(&bytes, "groups/web").unwrap();
        assert_eq!(check_case(entries.iter().map(|entry| entry.name), "groups/web").unwrap_err().reason, Reason::UnsafePath);
        let bytes = tree(&[("100644", "a"), ("100644", "b")]);
        assert!(check_case(parse_tree(&bytes, "").unwrap().iter().map(|entry| entry.name), "").is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(entries) = parse_tree(&bytes, "x") {
                let length: usize = entries.iter().map(|e| e.name.len()).sum();
                prop_assert!(length <= bytes.len());
            }
        }

        #[test]
        fn what_is_sorted_as_git_sorts_is_taken(names in proptest::collection::btree_set("[a-z.]{3,6}", 0..20)) {
            let list: Vec<(&str, &str)> = names.iter().map(|name| ("100644", name.as_str())).collect();
            let safe = names.iter().all(|name| check_name(name.as_bytes(), "").is_ok());
            prop_assert_eq!(parse_tree(&tree(&list), "").is_ok(), safe);
        }
    }
}
