//! The bindings in `src/generated/` are what wit-bindgen makes of the repository's `wit/0.1.0`: they stand in the crate so that
//! nobody who builds a hook has to build a generator first, and are compared here.
//!
//! `TAGFALL_BLESS=1 cargo test -p tagfall-hooks --test generated` writes them anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use wit_bindgen_core::{Files, WorldGenerator};
use wit_component::StringEncoding;
use wit_parser::{Resolve, UnresolvedPackageGroup, WorldItem};

/// The world that has everything.
const WORLD: &str = "all";
/// Where the macro begins that exports all hooks at once, which no module does, and where it ends.
const EXPORT_ALL: [&str; 2] = ["/// Generates `#[unsafe(no_mangle)]` functions to export", "as export_all;\n"];

fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn interface() -> PathBuf {
    crate_folder().join("../wit/0.1.0")
}

fn compare(name: &str, made: &str) {
    let path = crate_folder().join("src/generated").join(name);
    if std::env::var_os("TAGFALL_BLESS").is_some() {
        std::fs::write(&path, made).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "src/generated/{name} is not made from wit/0.1.0: TAGFALL_BLESS=1 cargo test -p tagfall-hooks --test generated"
    );
}

#[test]
fn the_bindings_are_of_this_interface() {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(&interface()).unwrap();
    let world = resolve.select_world(&[package], Some(WORLD)).unwrap();
    let mut options = wit_bindgen_rust::Opts::default();
    options.format = true;
    options.pub_export_macro = true;
    options.export_macro_name = Some("export_all".to_owned());
    options.additional_derive_attributes = vec!["PartialEq".to_owned()];
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).unwrap();
    let (_, text) = files.iter().next().unwrap();
    let text = std::str::from_utf8(text).unwrap();
    let from = text.find(EXPORT_ALL[0]).unwrap();
    let to = from + text[from..].find(EXPORT_ALL[1]).unwrap() + EXPORT_ALL[1].len();
    compare(
        "bindings.rs",
        &format!("//! What wit-bindgen makes of `wit/0.1.0`: see `tests/generated.rs`.\n\n{}{}", &text[..from], &text[to..]),
    );
}

/// One macro for each hook: it lays the type of a module that exports this hook into a section, from which the linker learns how
/// to make the module a component. It unites the sections of several hooks with the one of the imports, which the bindings have.
#[test]
fn the_types_are_of_this_interface() {
    let mut text = String::from(
        "//! The types of the worlds that have one hook each, in the binary form in which linkers take them: see\n\
         //! `tests/generated.rs`.\n",
    );
    for hook in hooks() {
        let section = section(&hook);
        let macro_name = hook.replace('-', "_");
        let (length, bytes) = (section.len(), literal(&section));
        write!(
            text,
            "\n#[doc(hidden)]\n#[macro_export]\nmacro_rules! __type_of_{macro_name} {{\n    () => {{\n        #[used]\n        \
             #[unsafe(link_section = \"component-type:tagfall-hooks:0.1.0:{hook}\")]\n        \
             static TYPE: [u8; {length}] = *b\"{bytes}\";\n    }};\n}}\n"
        )
        .unwrap();
    }
    compare("types.rs", &text);
}

/// The names of the hooks, as the world exports them.
fn hooks() -> Vec<String> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(&interface()).unwrap();
    let world = resolve.select_world(&[package], Some(WORLD)).unwrap();
    let exports = resolve.worlds[world].exports.values().map(|item| match item {
        WorldItem::Interface { id, .. } => resolve.interfaces[*id].name.clone().unwrap(),
        other => panic!("a hook is an interface: {other:?}"),
    });
    exports.collect()
}

/// The type of a module with one hook.
fn section(hook: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_dir(&interface()).unwrap();
    let world = format!("world {hook}-hook {{ export tagfall:hooks/{hook}@0.1.0; }}");
    let group = UnresolvedPackageGroup::parse("world.wit", &format!("package tagfall:sdk;\n{world}\n")).unwrap();
    let package = resolve.push_group(group).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    wit_component::metadata::encode(&resolve, world, StringEncoding::UTF8, None).unwrap()
}

fn literal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| byte.escape_ascii().to_string()).collect()
}
