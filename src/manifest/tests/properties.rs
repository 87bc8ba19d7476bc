//! What must hold for any input.

use proptest::prelude::*;

use super::tree;
use crate::manifest::{parse_config_layer, parse_release, parse_settings};

const MANIFEST: &str = r#"format = 1
placement.labels = { role = "web" }
[service]
exec = ["/bin/web", "a # b"]
stop_timeout = "8s"
[config]
port = 8080
names = ["a", "b"]
[config.deep]
text = "= [ # ]"
[mount]
path = "/etc/web"
[hooks.health-check]
module = "builtin:tcp"
args = { address = "127.0.0.1:80" }
"#;

/// Pieces that lead deeper into the parser than random bytes do.
fn piece() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "format = 1\n",
        "[placement]\n",
        "[service]\n",
        "exec = [",
        "]",
        "}",
        "{",
        "\"",
        "[config.",
        "a.b.c = ",
        "= 1\n",
        "binds.x = ",
        "group = \"web\"",
        "[hooks.health-check]\n",
        "module = \"builtin:http\"\n",
        "args = {",
        "[mount]\npath = \"/etc/x\"\n",
        "\n",
        "[[x]]\n",
        "'''",
        "\"\"\"",
        "0x",
        "1e999",
        "9999-99-99",
        "é",
        "\u{0}",
        "\r",
        "config_open = [\"a\"]\n",
        "exports.a = \"a.b\"\n",
        "{{mount.path}}",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => any::<String>()]
}

fn texts() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_make_the_parser_panic(group in any::<Vec<u8>>(), ring in texts(), root in texts(), name in "[a-z./-]{0,12}") {
        let files = tree([
            ("tagfall.toml".to_owned(), root.as_bytes()),
            (format!("groups/{name}/group.toml"), group.as_slice()),
            (format!("groups/{name}/rings/{name}.toml"), ring.as_bytes()),
            (format!("groups/web/{name}"), &[]),
            ("groups/web/group.toml".to_owned(), ring.as_bytes()),
            ("groups/web/rings/r.toml".to_owned(), group.as_slice()),
        ]);
        if let Err(found) = parse_release(&files, Some("r")) {
            prop_assert!(!found.is_empty());
            prop_assert!(found.iter().all(|found| found.line > 0 && found.column > 0 && !found.message.is_empty()));
        }
    }

    #[test]
    fn no_text_makes_settings_or_layers_panic(text in texts(), key in "[A-Z_]{0,12}", set in texts()) {
        let _ = parse_settings(Some(("s", &text)), &[(format!("TAGFALL_{key}"), set.clone())], &[set.clone(), format!("{set}={text}")], "h");
        let _ = parse_config_layer("f", &text);
    }

    /// Blank lines, spaces, comments and the order of tables are how it is written, not what it means.
    #[test]
    fn formatting_leaves_the_revision_alone(
        edits in prop::collection::vec((0_usize..16, prop::sample::select(vec!["", "# words", "   ", "\t# [service]", "#\"" ])), 0..12),
        indent in "[ \t]{0,3}",
        crlf in any::<bool>(),
        swap in any::<bool>(),
    ) {
        let revision = |text: &str| {
            let parsed = parse_release(&tree([("groups/web/group.toml", text)]), None).unwrap();
            parsed.groups.values().next().unwrap().revision
        };
        let mut text = MANIFEST.to_owned();
        if swap {
            let (head, tail) = text.split_once("[mount]").unwrap();
            let (top, tables) = head.split_once("[service]").unwrap();
            text = format!("{top}[mount]{tail}[service]{tables}");
        }
        let mut lines: Vec<String> = text.lines().map(|line| format!("{indent}{}{indent}", line.replace(" = ", "\t=  "))).collect();
        for (at, extra) in edits {
            lines.insert(at.min(lines.len()), extra.to_owned());
        }
        // `= ` stands in a string too, whose content is meaning.
        let text = lines.join(if crlf { "\r\n" } else { "\n" });
        prop_assert_eq!(revision(&text), revision(MANIFEST));
    }

    #[test]
    fn every_other_value_changes_the_revision(port in any::<i64>()) {
        let revision = |text: &str| {
            let parsed = parse_release(&tree([("groups/web/group.toml", text)]), None).unwrap();
            parsed.groups.values().next().unwrap().revision
        };
        let other = MANIFEST.replace("8080", &port.to_string());
        prop_assert_eq!(revision(&other) == revision(MANIFEST), port == 8080);
    }
}
