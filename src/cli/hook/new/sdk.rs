//! The crate `tagfall-hooks`, as projects in Rust carry it until it is published: its sources, and a manifest that stands alone.

use super::project::Embedded;

macro_rules! crate_files {
    ($($path:literal)*) => {
        &[
            ("tagfall-hooks/Cargo.toml", include_str!("rust/tagfall-hooks/Cargo.toml")),
            $((concat!("tagfall-hooks/", $path), include_str!(concat!("../../../../hooks-sdk/", $path)))),*
        ]
    };
}

/// All of it. Its README is part of its sources: it is the crate's documentation.
pub(super) const FILES: &[Embedded] = crate_files!(
    "README.md" "src/answer.rs" "src/call.rs" "src/census.rs" "src/clock.rs" "src/config.rs" "src/error.rs" "src/exec.rs"
    "src/files.rs" "src/generated.rs" "src/generated/bindings.rs" "src/generated/types.rs" "src/hooks.rs" "src/host.rs"
    "src/http.rs" "src/lib.rs" "src/log.rs" "src/net.rs" "src/serve.rs"
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use toml::Table;

    use super::*;

    fn sdk() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks-sdk")
    }

    #[test]
    fn every_source_of_the_crate_is_carried() {
        let (mut there, mut folders) = (BTreeSet::new(), vec![sdk().join("src")]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    there.insert(format!("tagfall-hooks/{}", path.strip_prefix(sdk()).unwrap().display()));
                }
            }
        }
        let carried: BTreeSet<String> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        let missing: Vec<&String> = there.difference(&carried).collect();
        assert!(missing.is_empty() && there.len() > 10, "not in FILES: {missing:?}");
    }

    /// The manifest says what the crate's own says, where that leaves it to the workspace.
    #[test]
    fn the_manifest_is_that_of_the_crate() {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap().parse::<Table>().unwrap();
        let (own, workspace) = (read(&sdk().join("Cargo.toml")), read(&sdk().join("../Cargo.toml")));
        let carried: Table = FILES[0].1.parse().unwrap();
        assert_eq!(carried["dependencies"], own["dependencies"]);
        for (name, value) in carried["package"].as_table().unwrap() {
            let own = &own["package"][name];
            let theirs = if own.is_table() { &workspace["workspace"]["package"][name] } else { own };
            assert_eq!(value, theirs, "{name}");
        }
    }
}
