//! `tagfall release`

use super::client::encoded;
use super::text::{BAD, Cell, DIM, GOOD, NAME, Out, PLAIN, WARN, cell, columns, commit, in_brackets, now, second, word};
use super::{CliError, Context, Exit, Form};
use crate::api::wire::{Release, ReleaseState};
use crate::model::Timestamp;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List every tag that this supervisor knows of, and where each stands
    List(List),
    /// Show one tag: its ids, its signers, and why it runs or does not
    Show(Show),
}

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  tagfall release list")]
pub(super) struct List {
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  tagfall release show v1.4.0")]
pub(super) struct Show {
    /// The tag
    #[arg(value_name = "TAG")]
    tag: String,
    #[command(flatten)]
    form: Form,
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, CliError> {
    match verb {
        Verb::List(args) => {
            context.show("/v1/releases", args.form, |releases: &Vec<Release>| list(releases, now()))?;
        }
        Verb::Show(args) => {
            context.show(&format!("/v1/releases/{}", encoded(&args.tag)), args.form, one)?;
        }
    }
    Ok(Exit::Done)
}

fn style(state: ReleaseState) -> anstyle::Style {
    match state {
        ReleaseState::Running => GOOD,
        ReleaseState::Accepted => WARN,
        ReleaseState::Refused | ReleaseState::Rejected => BAD,
        ReleaseState::Superseded => DIM,
    }
}

fn list(releases: &[Release], now: Timestamp) -> String {
    if releases.is_empty() {
        return "no tag is known yet\n".to_owned();
    }
    let row = |release: &Release| {
        let id = release.commit.as_ref().map_or_else(|| "-".to_owned(), commit);
        let why = match &release.reason {
            Some(reason) => format!("{}: {}", word(reason), release.message),
            None => release.message.clone(),
        };
        let words = format!("{why}{}", in_brackets(release.since, now));
        let state = Cell(word(&release.state), style(release.state));
        vec![Cell(release.tag.to_string(), NAME), state, Cell(id, DIM), cell(words.trim_start())]
    };
    columns(&releases.iter().map(row).collect::<Vec<_>>(), Out::width())
}

fn one(release: &Release) -> String {
    let signers = if release.signers.is_empty() { "none checked".to_owned() } else { release.signers.join(", ") };
    let mut rows = vec![
        ("tag", release.tag.to_string(), NAME),
        ("state", format!("{}, since {}", word(&release.state), second(release.since)), style(release.state)),
        ("tag object", release.tag_object.to_string(), PLAIN),
        ("commit", release.commit.map_or_else(|| "not known".to_owned(), |id| id.to_string()), PLAIN),
        ("signers", signers, PLAIN),
    ];
    if let Some(reason) = &release.reason {
        rows.push(("reason", format!("{}: {}", word(reason), release.message), PLAIN));
    }
    let rows: Vec<_> = rows.into_iter().map(|(key, value, style)| vec![Cell(key.to_owned(), DIM), Cell(value, style)]).collect();
    columns(&rows, Out::width())
}
