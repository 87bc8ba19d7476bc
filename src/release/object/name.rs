//! Names in trees: what may become a path on a disk.

use crate::model::{Reason, Refusal};
use crate::release::refuse;

/// Longest name of one file or folder, in bytes: what Linux file systems take.
pub const NAME_MAX_BYTES: usize = 255;
/// Longest path below the repository's root, in bytes: leaves room for where it is published (PATH_MAX is 4,096).
pub const PATH_MAX_BYTES: usize = 2_048;

/// Code points that HFS+ leaves out when it compares names, so that `.g\u{200c}it` would be `.git` there.
const HFS_IGNORED: [std::ops::RangeInclusive<char>; 4] =
    ['\u{200c}'..='\u{200f}', '\u{202a}'..='\u{202e}', '\u{206a}'..='\u{206f}', '\u{feff}'..='\u{feff}'];

/// A name as file systems that ignore case compare it.
pub fn fold(name: &str) -> String {
    name.to_lowercase()
}

/// Checks one name of a tree, found in the folder `within` (for the message).
///
/// # Errors
/// `UnsafePath` with what is wrong.
pub fn check_name<'a>(raw: &'a [u8], within: &str) -> Result<&'a str, Refusal> {
    let fail = |what: &str| {
        let shown = String::from_utf8_lossy(&raw[..raw.len().min(NAME_MAX_BYTES)]);
        let within = if within.is_empty() { "the repository's root".to_owned() } else { format!("`{within}`") };
        Err(refuse(
            Reason::UnsafePath,
            format!("the name `{}` in {within} {what}; rename it and tag again", shown.escape_debug()),
        ))
    };
    if raw.is_empty() {
        return fail("is empty");
    }
    if raw.len() > NAME_MAX_BYTES {
        return fail(&format!("is longer than {NAME_MAX_BYTES} bytes"));
    }
    let Ok(name) = std::str::from_utf8(raw) else {
        return fail("is not UTF-8");
    };
    if name.contains('/') {
        return fail("has a `/` in it");
    }
    if name.chars().any(char::is_control) {
        return fail("has a control character in it");
    }
    if name == "." || name == ".." {
        return fail("leads out of its folder");
    }
    if is_hfs_dot_git(name) || name.split('\\').any(is_ntfs_dot_git) {
        return fail("stands for `.git` on some file system");
    }
    Ok(name)
}

fn is_hfs_dot_git(name: &str) -> bool {
    let kept = name.chars().filter(|c| !HFS_IGNORED.iter().any(|range| range.contains(c)));
    kept.flat_map(char::to_lowercase).eq(".git".chars())
}

/// NTFS drops dots and spaces at the end and takes `:` for a stream's name; `git~1` is the short name of `.git`.
fn is_ntfs_dot_git(part: &str) -> bool {
    let part = part.split(':').next().unwrap_or_default().trim_end_matches([' ', '.']);
    part.eq_ignore_ascii_case(".git") || part.eq_ignore_ascii_case("git~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_names_are_refused() {
        let cases = [
            "",
            ".",
            "..",
            "a/b",
            "/",
            "a\0b",
            "a\nb",
            "\u{7f}",
            "\u{85}",
            ".git",
            ".GIT",
            ".Git",
            ".g\u{200c}it",
            "\u{feff}.git",
            ".git ",
            ".git.",
            ".git. .",
            "git~1",
            "GIT~1",
            ".git::$INDEX_ALLOCATION",
            "x\\.git",
            ".git\\x",
        ];
        for case in cases {
            let refusal = check_name(case.as_bytes(), "groups/web").unwrap_err();
            assert_eq!(refusal.reason, Reason::UnsafePath, "{case:?}");
            assert!(!refusal.message.contains(char::is_control), "{refusal:?}");
        }
        assert!(check_name(b"caf\xe9", "").is_err(), "Latin-1");
        assert!(check_name(&[b'a'; NAME_MAX_BYTES + 1], "").is_err());
    }

    #[test]
    fn usual_names_pass() {
        for case in
            [".gitignore", ".gitattributes", "git", "git~2", "...", "a b", "ä", "dev-disk\\x2dlabel.mount", "a:b", ".github", "~"]
        {
            assert_eq!(check_name(case.as_bytes(), "").unwrap(), case);
        }
        assert!(check_name(&[b'a'; NAME_MAX_BYTES], "").is_ok());
    }
}
