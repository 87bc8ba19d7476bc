//! Pages that are made from the code: they stand in the repository so that readers find them, and are compared here.
//!
//! `TAGFALL_BLESS=1 cargo test --test generated` writes them anew.

use std::path::{Path, PathBuf};

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("site/src").join(name)
}

fn compare(name: &str, made: &str) {
    let path = page(name);
    if std::env::var_os("TAGFALL_BLESS").is_some() {
        let written = std::fs::create_dir_all(path.parent().expect("a folder")).and_then(|()| std::fs::write(&path, made));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "{name} is not what the code says: TAGFALL_BLESS=1 cargo test --test generated");
}

fn pretty(schema: &serde_json::Value) -> String {
    format!("{schema:#}\n")
}

#[test]
fn the_command_line_reference() {
    compare("reference/cli.md", &tagfall::cli::reference());
}

#[test]
fn the_states_of_a_service() {
    let group = "web".parse().expect("a valid name");
    compare("reference/states.md", &tagfall::keeper::states_page(&group));
}

#[test]
fn the_schema_of_group_toml() {
    compare("schema/group.json", &pretty(&tagfall::manifest::group_schema()));
}

#[test]
fn the_schema_of_supervisor_toml() {
    compare("schema/supervisor.json", &pretty(&tagfall::manifest::supervisor_schema()));
}
