//! `tagfall service`

use std::time::Duration;

use super::client::encoded;
use super::text::{DIM, WARN, now, second};
use super::{CliError, Context, Exit, Form, group_name, read};
use crate::api::wire::ServiceRequest;
use crate::model::{GroupName, LogLine, LogStream, Timestamp};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Start a service that was stopped
    Start(Order),
    /// Stop a service until `service start` or a new revision
    Stop(Stop),
    /// Stop a service and start it again
    Restart(Order),
    /// Read a service's output
    Logs(Logs),
}

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  tagfall service start web\n  tagfall service restart web --reason 'stuck on an old DNS answer'"
)]
pub(super) struct Order {
    /// The group; `.default` may be left out
    #[arg(value_name = "GROUP", value_parser = group_name)]
    group: GroupName,
    /// Why: kept in the events, with who and when
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  tagfall service stop web --reason 'disk is being replaced'\n  tagfall service stop web --until 2h"
)]
pub(super) struct Stop {
    #[command(flatten)]
    order: Order,
    /// Start it again then: a duration from now, or a time (RFC 3339)
    #[arg(long, value_name = "WHEN", value_parser = ahead)]
    until: Option<Timestamp>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  tagfall service logs web -n 20\n  tagfall service logs web -f --grep ERROR\n  tagfall service logs web --since 10m"
)]
pub(super) struct Logs {
    /// The group; `.default` may be left out
    #[arg(value_name = "GROUP", value_parser = group_name)]
    group: GroupName,
    /// Stay, and show lines as they come
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the newest lines [default: 100; with `--since`, all]
    #[arg(short = 'n', long, value_name = "COUNT")]
    lines: Option<usize>,
    /// Only lines that are not older: a duration back from now, or a time (RFC 3339)
    #[arg(long, value_name = "WHEN", value_parser = back)]
    since: Option<Timestamp>,
    /// Only lines with this text in them
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    #[command(flatten)]
    form: Form,
}

pub(super) fn ahead(text: &str) -> Result<Timestamp, String> {
    moment(text, |passed| Timestamp(now().0.saturating_add(passed)))
}

fn back(text: &str) -> Result<Timestamp, String> {
    moment(text, |passed| Timestamp(now().0.saturating_sub(passed)))
}

fn moment(text: &str, from_now: impl Fn(u64) -> Timestamp) -> Result<Timestamp, String> {
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if let Ok(duration) = humantime::parse_duration(text) {
        return Ok(from_now(milliseconds(duration)));
    }
    let wrong = "it takes a duration such as `10m`, or a time such as `2026-01-31T12:00:00Z`".to_owned();
    let time = humantime::parse_rfc3339(text).map_err(|_| wrong.clone())?;
    time.duration_since(std::time::UNIX_EPOCH).map(|since| Timestamp(milliseconds(since))).map_err(|_| wrong)
}

pub(super) fn run(verb: Verb, context: &Context) -> Result<Exit, CliError> {
    match verb {
        Verb::Start(order) => command("start", order, None, context),
        Verb::Stop(Stop { order, until }) => command("stop", order, until, context),
        Verb::Restart(order) => command("restart", order, None, context),
        Verb::Logs(args) => logs(args, context),
    }
}

fn command(verb: &str, order: Order, until: Option<Timestamp>, context: &Context) -> Result<Exit, CliError> {
    let Order { group, reason } = order;
    let client = context.client()?;
    let body = ServiceRequest { reason, until };
    context.wait(client.post(&format!("/v1/groups/{group}/service/{verb}"), &body))?;
    let lasts = match (verb, until) {
        ("stop", Some(until)) => format!(" until {}", second(until)),
        ("stop", None) => " until `tagfall service start` or a new revision".to_owned(),
        _ => String::new(),
    };
    context.out.talk(&format!("{group}: {verb} taken over{lasts}; `tagfall status {group}` shows how it goes\n"));
    Ok(Exit::Done)
}

fn logs(args: Logs, context: &Context) -> Result<Exit, CliError> {
    let mut query = format!("?follow={}", args.follow);
    if let Some(lines) = args.lines {
        query.push_str(&format!("&lines={lines}"));
    }
    if let Some(since) = args.since {
        query.push_str(&format!("&since={}", encoded(&since.to_string())));
    }
    if let Some(text) = &args.grep {
        query.push_str(&format!("&grep={}", encoded(text)));
    }
    let client = context.client()?;
    context.wait(async {
        let mut lines = client.lines(&format!("/v1/groups/{}/logs{query}", args.group)).await?;
        while let Some(line) = lines.next().await? {
            if args.form.is_json() {
                context.out.bytes(&[&line, b"\n".as_slice()].concat())?;
            } else {
                context.out.text(&text(&read(&line)?))?;
            }
        }
        Ok(Exit::Done)
    })
}

fn text(line: &LogLine) -> String {
    let style = match line.stream {
        LogStream::Stdout => super::text::PLAIN,
        LogStream::Stderr => WARN,
    };
    format!("{DIM}{}{DIM:#} {style}{}{style:#}\n", line.time, line.text)
}
