//! The bindings in `src/generated/` are what wit-bindgen makes of the repository's `wit/0.1.0`: they stand in the crate so that
//! nobody who builds a hook has to build a generator first, and are compared here.
//!
//! `TAGFALL_BLESS=1 cargo test -p tagfall-hooks --test generated` writes them anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use wit_bindgen_core::{Files, WorldGenerator};
use wit_component::StringEncoding;
use wit_parser::{Resolve, UnresolvedPackageGroup, WorldId, WorldItem};

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
    let (mut resolve, world) = resolved();
    let options = wit_bindgen_rust::Opts {
        format: true,
        pub_export_macro: true,
        export_macro_name: Some("export_all".to_owned()),
        additional_derive_attributes: vec!["PartialEq".to_owned()],
        ..wit_bindgen_rust::Opts::default()
    };
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

/// Whoever adds a hook to the interface adds its macro: what it is called, when, and with what.
#[test]
fn every_hook_has_its_macro() {
    let macros = std::fs::read_to_string(crate_folder().join("src/hooks.rs")).unwrap();
    for hook in hooks() {
        let name = hook.replace('-', "_");
        assert!(macros.contains(&format!("macro_rules! {name} {{")), "src/hooks.rs has no macro `{name}` for the hook `{hook}`");
        assert!(macros.contains(&format!("Makes a function the hook `{hook}`.")), "the macro `{name}` does not name its hook");
    }
}

/// The repository's interface, and its world that has everything.
fn resolved() -> (Resolve, WorldId) {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(interface()).expect("the interface is valid");
    let world = resolve.select_world(&[package], Some(WORLD)).expect("the world is there");
    (resolve, world)
}

/// The names of the hooks, as the world exports them.
fn hooks() -> Vec<String> {
    let (resolve, world) = resolved();
    let exports = resolve.worlds[world].exports.values().map(|item| {
        let WorldItem::Interface { id, .. } = item else { panic!("a hook is an interface: {item:?}") };
        resolve.interfaces[*id].name.clone().expect("an interface of a package has a name")
    });
    exports.collect()
}

/// The type of a module with one hook.
fn section(hook: &str) -> Vec<u8> {
    let (mut resolve, _) = resolved();
    let text = format!("package tagfall:sdk;\nworld {hook}-hook {{ export tagfall:hooks/{hook}@0.1.0; }}\n");
    let group = UnresolvedPackageGroup::parse("world.wit", &text).expect("the hook's world is valid");
    let package = resolve.push_group(group).expect("the hook's world resolves");
    let world = resolve.select_world(&[package], None).expect("the package has one world");
    wit_component::metadata::encode(&resolve, world, StringEncoding::UTF8, None).expect("the world has a binary form")
}

fn literal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| byte.escape_ascii().to_string()).collect()
}
