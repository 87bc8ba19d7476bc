//! The command line as a tree: what holds for every command.

use super::*;

fn every(command: &clap::Command, visit: &mut impl FnMut(&clap::Command)) {
    visit(command);
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        every(inner, visit);
    }
}

#[test]
fn the_arguments_do_not_contradict_each_other() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_says_what_it_does_and_shows_an_example() {
    let mut seen = 0;
    every(&tree(), &mut |command| {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "`{name}` does not say what it does");
        if command.get_subcommands().next().is_none() {
            let more = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(more.contains("Example"), "`{name} --help` has no example");
        }
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            assert!(argument.get_help().is_some(), "`{name}`: `{}` is not explained", argument.get_id());
        }
        seen += 1;
    });
    assert!(seen > 20, "only {seen} commands were looked at");
}

#[test]
fn the_reference_has_every_command_and_no_value_of_this_machine() {
    let text = reference();
    for name in ["status", "why", "plan", "service stop", "service logs", "config show", "release list", "supervise", "demo"] {
        assert!(text.contains(&format!("# tagfall {name}\n")), "`{name}` is missing");
    }
    assert!(!text.contains("fetch-child"), "a hidden command is shown");
    assert!(!text.contains(env!("CARGO_MANIFEST_DIR")));
}

#[test]
fn wrong_lines_are_usage_errors() {
    for bad in [
        &["tagfall"][..],
        &["tagfall", "stauts"],
        &["tagfall", "status", "../etc"],
        &["tagfall", "service", "stop"],
        &["tagfall", "service", "stop", "web", "--until", "soon"],
        &["tagfall", "plan", "--tag", "v1", "--repo", "."],
        &["tagfall", "supervise", "--set", "novalue"],
        &["tagfall", "completions", "cobol"],
    ] {
        assert!(Cli::try_parse_from(bad).is_err(), "{bad:?} was accepted");
    }
    assert!(Cli::try_parse_from(["tagfall", "service", "stop", "web", "--until", "2h", "--reason", "x"]).is_ok());
}
