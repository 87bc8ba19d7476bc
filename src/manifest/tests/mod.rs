//! Tests of the whole room: bad input first.

mod bad;
mod good;
mod overlays;
mod properties;
mod schemas;
mod supervisor;
mod trees;

use std::sync::Arc;

use crate::model::{Digest, ObjectId, TreeFile};

use super::{Diagnostic, parse_release};

/// A tree of texts; ids follow the content.
fn tree<P: AsRef<str>, C: AsRef<[u8]>>(files: impl IntoIterator<Item = (P, C)>) -> Vec<TreeFile> {
    let file = |(path, content): (P, C)| {
        let (path, content) = (path.as_ref().to_owned(), content.as_ref());
        let digest = Digest::of(content);
        let blob = ObjectId::from_bytes(digest.as_bytes()[..20].try_into().unwrap());
        let read = path.ends_with(".toml") || path.ends_with(".hbs");
        let size = content.len() as u64;
        TreeFile { path, blob, executable: false, size, content: read.then(|| Arc::from(content)) }
    };
    files.into_iter().map(file).collect()
}

/// `LINE:COLUMN MESSAGE (HINT)`.
fn line(found: &Diagnostic) -> String {
    let hint = found.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
    format!("{}:{} {}{hint}", found.line, found.column, found.message)
}

/// `FILE:LINE:COLUMN MESSAGE (HINT)` of all that is wrong with a tree; `groups/` is left out of the files.
fn errors<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let found = parse_release(&tree(files), None).err().unwrap_or_default();
    found.iter().map(|found| format!("{}:{}", found.file.trim_start_matches("groups/"), line(found))).collect()
}

const HEAD: &str = "format = 1\nplacement.labels = {}\n";
const REDIS: &str = "format = 1\nplacement.labels = {}\n[config]\nport = 6379\n[exports]\nport = \"port\"\n";
