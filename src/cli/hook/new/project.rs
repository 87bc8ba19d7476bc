//! The projects that `tagfall hook new` writes: one list of files for each language.
//!
//! A health check is the project of `examples/hooks`, as it stands there: `tests/run` builds it and `tests/hook_examples/` tries it
//! against a real server. Of Rust, whose examples are one workspace, only the check is; what makes it a project stands in `rust/`. The
//! other hooks are made from the frames in this folder, which answer and do nothing. A new language: an example, a variant of
//! `Language`, and a row in `health_check`.

use super::sdk;
use crate::model::HookKind;

/// What can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Language {
    /// A component, by the crate tagfall-hooks
    Rust,
    /// A component, through componentize-py
    Python,
    /// A component, through componentize-qjs
    #[value(alias = "js")]
    Javascript,
    /// A WASI command
    Go,
    /// A component, through `zig cc`
    C,
    /// A WASI command
    Zig,
    /// WebAssembly text: a component
    Wat,
}

impl Language {
    /// As it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::Javascript => "JavaScript",
            Self::Go => "Go",
            Self::C => "C",
            Self::Zig => "Zig",
            Self::Wat => "WebAssembly text",
        }
    }
}

/// The languages that have frames for other hooks than a health check.
pub(super) const OTHER_HOOKS: &str = "Rust, Python, JavaScript and Go";

/// One file of a project.
pub(super) struct File {
    /// Below the project's folder.
    pub(super) path: String,
    /// All of it.
    pub(super) content: String,
    /// Whether it is a program.
    pub(super) runs: bool,
}

/// A path and a content that the program carries.
pub(super) type Embedded = (&'static str, &'static str);

macro_rules! example {
    ($language:literal: $($path:literal)*) => {
        &[$(($path, include_str!(concat!("../../../../examples/hooks/", $language, "/", $path)))),*]
    };
}

const PYTHON: &[Embedded] =
    example!("python": "README.md" ".gitignore" "requirements.txt" "build" "app.py" "hook.toml" "wit/world.wit");
const JAVASCRIPT: &[Embedded] =
    example!("javascript": "README.md" ".gitignore" "package.json" "build" "hook.js" "hook.toml" "wit/world.wit");
const GO: &[Embedded] = example!("go": "README.md" ".gitignore" "requirements.txt" "build" "go.mod" "main.go" "hook.toml");
const C: &[Embedded] = example!("c": "README.md" ".gitignore" "requirements.txt" "package.json" "build" "component.mjs" "health.c"
    "bindings/hook.c" "bindings/hook.h" "hook.toml" "wit/world.wit");
const ZIG: &[Embedded] = example!("zig": "README.md" ".gitignore" "requirements.txt" "build" "main.zig" "hook.toml");
const WAT: &[Embedded] =
    example!("wat": "README.md" ".gitignore" "package.json" "build" "component.mjs" "health.wat" "hook.toml" "wit/world.wit");
const RUST: &[Embedded] = &[
    ("README.md", include_str!("rust/README.md")),
    (".gitignore", include_str!("rust/.gitignore")),
    (".cargo/config.toml", include_str!("rust/.cargo/config.toml")),
    ("build", include_str!("rust/build")),
    ("Cargo.toml", include_str!("rust/Cargo.toml")),
    ("src/lib.rs", include_str!("../../../../examples/hooks/rust/health/src/lib.rs")),
    ("hook.toml", include_str!("../../../../examples/hooks/rust/health/hook.toml")),
];

/// The interface, as components are built against it.
const WIT: &[Embedded] = &[
    ("wit/deps/tagfall-hooks/types.wit", include_str!("../../../../wit/0.1.0/types.wit")),
    ("wit/deps/tagfall-hooks/hooks.wit", include_str!("../../../../wit/0.1.0/hooks.wit")),
    ("wit/deps/tagfall-hooks/imports.wit", include_str!("../../../../wit/0.1.0/imports.wit")),
    ("wit/deps/tagfall-hooks/worlds.wit", include_str!("../../../../wit/0.1.0/worlds.wit")),
];

fn health_check(language: Language) -> &'static [Embedded] {
    match language {
        Language::Rust => RUST,
        Language::Python => PYTHON,
        Language::Javascript => JAVASCRIPT,
        Language::Go => GO,
        Language::C => C,
        Language::Zig => ZIG,
        Language::Wat => WAT,
    }
}

/// A project; nothing where there is none for this hook in this language.
pub(super) fn files(language: Language, hook: HookKind) -> Option<Vec<File>> {
    let project = health_check(language);
    let mut files: Vec<File> = if hook == HookKind::HealthCheck {
        project.iter().map(|(path, content)| file(path, (*content).to_owned())).collect()
    } else {
        let frame = Frame::of(language)?;
        let kept = project.iter().filter(|(path, _)| frame.kept.contains(path));
        let kept = kept.map(|(path, content)| file(path, (*content).to_owned()));
        kept.chain(frame.files.iter().map(|(path, content)| file(path, frame.filled(content, hook)))).collect()
    };
    if files.iter().any(|file| file.path == "wit/world.wit") {
        files.extend(WIT.iter().map(|(path, content)| file(path, (*content).to_owned())));
    }
    if language == Language::Rust {
        files.extend(sdk::FILES.iter().map(|(path, content)| file(path, (*content).to_owned())));
    }
    Some(files)
}

fn file(path: &str, content: String) -> File {
    File { path: path.to_owned(), content, runs: path == "build" }
}

/// What a hook other than a health check is made from: `@NAME@` stands for what depends on the hook.
struct Frame {
    language: Language,
    /// What it takes over from the language's health check.
    kept: &'static [&'static str],
    files: &'static [Embedded],
    source: &'static str,
    needs: &'static str,
    install: &'static str,
}

const HOOK_TOML: Embedded = ("hook.toml", include_str!("hook.toml"));
const WORLD: Embedded = ("wit/world.wit", include_str!("world.wit"));
const COMPONENT: Embedded = ("README.md", include_str!("README.md"));
const COMMAND: Embedded = ("README.md", include_str!("command.md"));
const VENV: &str = "python3 -m venv .venv\n.venv/bin/pip install -r requirements.txt";

const FRAMES: [Frame; 4] = [
    Frame {
        language: Language::Rust,
        kept: &[".gitignore", ".cargo/config.toml", "build", "Cargo.toml"],
        files: &[("README.md", include_str!("rust/hook.md")), HOOK_TOML, ("src/lib.rs", include_str!("rust/lib.rs"))],
        source: "src/lib.rs",
        needs: "Rust 1.95 or newer, with `rustup`",
        install: "rustup target add wasm32-unknown-unknown",
    },
    Frame {
        language: Language::Python,
        kept: &[".gitignore", "requirements.txt", "build"],
        files: &[COMPONENT, HOOK_TOML, WORLD, ("app.py", include_str!("python/app.py"))],
        source: "app.py",
        needs: "Python 3.10 or newer, with `venv`",
        install: VENV,
    },
    Frame {
        language: Language::Javascript,
        kept: &[".gitignore", "package.json", "build"],
        files: &[COMPONENT, HOOK_TOML, WORLD, ("hook.js", include_str!("javascript/hook.js"))],
        source: "hook.js",
        needs: "Node.js 20 or newer",
        install: "npm install",
    },
    Frame {
        language: Language::Go,
        kept: &[".gitignore", "requirements.txt", "build", "go.mod"],
        files: &[COMMAND, HOOK_TOML, ("main.go", include_str!("go/main.go"))],
        source: "main.go",
        needs: "Go 1.21 or newer; `requirements.txt` brings one with pip where there is none",
        install: VENV,
    },
];

/// What a hook takes beside its context, and answers.
fn shape(hook: HookKind) -> (&'static str, Answer) {
    match hook {
        HookKind::Init | HookKind::PreStop => ("", Answer::Done),
        HookKind::PostRun => ("pid", Answer::Done),
        HookKind::PreUpdate => ("next", Answer::Done),
        HookKind::PostStop => ("exit", Answer::Done),
        HookKind::Reconfigure => ("changed", Answer::Outcome),
        HookKind::FileUpdated => ("paths", Answer::Outcome),
        HookKind::Suitability => ("", Answer::Rank),
        HookKind::HealthCheck => ("", Answer::Report),
        HookKind::PostUpdate => ("previous", Answer::Report),
    }
}

/// The type in Rust of what a hook takes beside its context.
fn typed(parameter: &str) -> Option<&'static str> {
    match parameter {
        "pid" => Some("Option<u32>"),
        "exit" => Some("&ExitStatus"),
        "changed" | "paths" => Some("&[String]"),
        "next" | "previous" => Some("&str"),
        _ => None,
    }
}

#[derive(Clone, Copy)]
enum Answer {
    Done,
    Outcome,
    Rank,
    Report,
}

impl Answer {
    fn method(self) -> &'static str {
        match self {
            Self::Done | Self::Outcome => "run",
            Self::Rank => "rank",
            Self::Report => "check",
        }
    }

    /// Its type in Rust.
    fn result(self) -> &'static str {
        match self {
            Self::Done => "()",
            Self::Outcome => "Outcome",
            Self::Rank => "u64",
            Self::Report => "Report",
        }
    }

    /// As the source says it; commands say it as their last line.
    fn text(self, language: Language) -> &'static str {
        match (language, self) {
            (Language::Python, Self::Done) => "None",
            (Language::Python, Self::Outcome) => "types.Outcome(types.Action_Done(), \"nothing to be done\", [])",
            (Language::Python, Self::Report) => "types.Report(types.Health.OK, \"all is well\", None, [])",
            (Language::Javascript, Self::Done) => "undefined",
            (Language::Javascript, Self::Outcome) => "{ action: { tag: \"done\" }, message: \"nothing to be done\", extra: [] }",
            (Language::Javascript, Self::Report) => "{ health: \"ok\", message: \"all is well\", extra: [] }",
            (Language::Rust, Self::Done) => "()",
            (Language::Rust, Self::Outcome) => "Outcome::done().because(\"nothing to be done\")",
            (Language::Rust, Self::Report) => "Report::ok(\"all is well\")",
            (_, Self::Rank) => "0",
            (_, Self::Done | Self::Outcome | Self::Report) => "done",
        }
    }
}

impl Frame {
    fn of(language: Language) -> Option<&'static Self> {
        FRAMES.iter().find(|frame| frame.language == language)
    }

    fn filled(&self, content: &str, hook: HookKind) -> String {
        let (parameter, answer) = shape(hook);
        let parameters = match (self.language, parameter) {
            (Language::Rust, _) => typed(parameter).map(|typed| format!(", {parameter}: {typed}")).unwrap_or_default(),
            (_, "") => "ctx".to_owned(),
            _ => format!("ctx, {parameter}"),
        };
        let shown = if parameter.is_empty() { String::new() } else { format!(": {{{parameter}:?}}") };
        let said = format!("\"{{:?}} of {{}}{shown}\", call.reason, call.group");
        let class = capitalised(hook.name());
        let object = class.chars().take(1).flat_map(char::to_lowercase).chain(class.chars().skip(1)).collect::<String>();
        let function = hook.name().replace('-', "_");
        let words = [
            ("@HOOK@", hook.name()),
            ("@LANGUAGE@", self.language.name()),
            ("@SOURCE@", self.source),
            ("@NEEDS@", self.needs),
            ("@INSTALL@", self.install),
            ("@CLASS@", &class),
            ("@OBJECT@", &object),
            ("@METHOD@", answer.method()),
            ("@FUNCTION@", &function),
            ("@PARAMETERS@", &parameters),
            ("@RESULT@", answer.result()),
            ("@SAID@", &said),
            ("@ANSWER@", answer.text(self.language)),
        ];
        words.iter().fold(content.to_owned(), |text, (name, word)| text.replace(name, word))
    }
}

/// `post-stop` → `PostStop`.
fn capitalised(name: &str) -> String {
    let word = |word: &str| word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect::<String>();
    name.split('-').map(word).collect()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_language_has_a_health_check_that_can_be_built() {
        for language in Language::value_variants() {
            let files = files(*language, HookKind::HealthCheck).unwrap_or_default();
            for name in ["README.md", "build", "hook.toml", ".gitignore"] {
                assert!(files.iter().any(|file| file.path == name), "{language:?} has no {name}");
            }
        }
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        for language in [Language::Rust, Language::Python, Language::Javascript, Language::Go] {
            for hook in HookKind::ALL {
                let files = files(language, hook).unwrap_or_default();
                assert!(files.len() >= 6, "{language:?} {hook:?}");
                for file in files {
                    // `@0.1.0` is a version.
                    let left = file.content.split('@').skip(1).any(|word| word.starts_with(|c: char| c.is_ascii_uppercase()));
                    assert!(!left, "{}: {}", file.path, file.content);
                }
            }
        }
        assert!(files(Language::C, HookKind::Init).is_none());
    }

    #[test]
    fn names_are_those_that_the_bindings_have() {
        assert_eq!(capitalised("post-stop"), "PostStop");
        assert_eq!(capitalised("init"), "Init");
    }
}
