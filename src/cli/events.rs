//! `tagfall events`

use super::text::{Cell, DIM, GOOD, NAME, Out, WARN, cell, columns, second, word};
use super::{CliError, Context, Exit, Form, read};
use crate::api::wire::{Event, EventKind};

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  tagfall events\n  tagfall events --follow --since latest       only what happens from now on\n  \
    tagfall events -o json                       one JSON list\n  tagfall events --follow -o json              one JSON object a line"
)]
pub(super) struct Args {
    /// Stay, and show events as they happen
    #[arg(short, long)]
    follow: bool,
    /// Only events after the one with this id, or `latest` for none of those that are kept
    #[arg(long, value_name = "ID")]
    since: Option<String>,
    #[command(flatten)]
    form: Form,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let since = args.since.map(|id| format!("&since={}", super::client::encoded(&id))).unwrap_or_default();
    if !args.follow {
        context.show(&format!("/v1/events?follow=false{since}"), args.form, |events: &Vec<Event>| text(events))?;
        return Ok(Exit::Done);
    }
    let client = context.client()?;
    context.wait(async {
        let mut lines = client.lines(&format!("/v1/events?follow=true{since}")).await?;
        while let Some(line) = lines.next().await? {
            let Some(json) = line.strip_prefix(b"data: ") else { continue };
            if args.form.is_json() {
                context.out.bytes(&[json, b"\n"].concat())?;
            } else {
                context.out.text(&columns(&[row(&read(json)?)], Out::width()))?;
            }
        }
        Ok(Exit::Done)
    })
}

fn text(events: &[Event]) -> String {
    columns(&events.iter().map(row).collect::<Vec<_>>(), Out::width())
}

fn row(event: &Event) -> Vec<Cell> {
    let style = match event.kind {
        EventKind::Normal => GOOD,
        EventKind::Warning => WARN,
    };
    vec![Cell(second(event.time), DIM), Cell(word(&event.reason), style), Cell(event.object.clone(), NAME), cell(&event.message)]
}
