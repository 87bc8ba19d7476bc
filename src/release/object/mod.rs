//! Strict readers of raw Git objects: tag, commit, tree.
//!
//! libgit2 checks nothing of this (it cuts names at NUL, normalises modes, takes `..` and `.git` in trees), so what
//! decides about a release is read here, from the bytes whose hash is the object's id: the rules of `git fsck` in its
//! strict form, and what a published path needs beyond. Readers borrow from the bytes, allocate nothing that the input
//! could make large, and name the first fault they meet. A new rule comes with a bad input in the tests beside it.

mod commit;
mod header;
mod name;
mod tag;
mod tree;

pub use commit::{COMMIT_MAX_BYTES, Commit, parse_commit};
pub use name::{NAME_MAX_BYTES, PATH_MAX_BYTES, check_name, fold};
pub use tag::{TAG_MAX_BYTES, Tag, parse_cosignature, parse_tag};
pub use tree::{Entry, Mode, TREE_MAX_BYTES, check_case, parse_tree};
