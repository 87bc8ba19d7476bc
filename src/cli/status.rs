//! `tagfall status`: one line a group, and why anything is not as it should be.

use std::time::Duration;

use super::client::Client;
use super::text::{BAD, Cell, DIM, GOOD, NAME, Out, PLAIN, WARN, cell, columns, commit, in_brackets, now, second, word};
use super::{CliError, Context, Exit, Form, group_name, read};
use crate::api::wire::{Group, Status};
use crate::model::{Condition, ConditionKind, GroupName, HealthStatus, Reason, ServiceState, Timestamp, Truth};

/// Events that come so close together are shown as one change.
const SETTLE: Duration = Duration::from_millis(100);
/// Clears the terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  tagfall status\n  tagfall status web\n  tagfall status --watch\n  \
    tagfall status -o json | jq '.groups[] | select(.waits != [])'")]
pub(super) struct Args {
    /// One group in full; `.default` may be left out
    #[arg(value_name = "GROUP", value_parser = group_name)]
    group: Option<GroupName>,
    /// Stay, and show it again with every event
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    form: Form,
}

pub(super) fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let client = context.client()?;
    context.wait(async {
        if args.watch {
            return watch(&args, &client, context.out).await;
        }
        let (bytes, text) = look(&args, &client).await?;
        if args.form.is_json() {
            context.out.bytes(&bytes)?
        } else {
            context.out.text(&text)?
        }
        Ok(Exit::Done)
    })
}

async fn look(args: &Args, client: &Client) -> Result<(Vec<u8>, String), CliError> {
    let path = match &args.group {
        Some(group) => format!("/v1/groups/{group}"),
        None => "/v1/status".to_owned(),
    };
    let bytes = client.get(&path).await?;
    let text = match &args.group {
        _ if args.form.is_json() => String::new(),
        Some(_) => one(&read(&bytes)?, now(), Out::width()),
        None => all(&read(&bytes)?, now(), Out::width()),
    };
    Ok((bytes, text))
}

async fn watch(args: &Args, client: &Client, out: Out) -> Result<Exit, CliError> {
    // Subscribed before the first look, so that nothing falls between them.
    let mut events = client.lines("/v1/events?since=latest").await?;
    loop {
        let (bytes, text) = look(args, client).await?;
        if args.form.is_json() {
            out.bytes(&bytes)?;
        } else if Out::is_terminal() {
            out.bytes(CLEAR.as_bytes())?;
            out.text(&text)?;
        } else {
            out.text(&format!("{text}\n"))?;
        }
        if events.next().await?.is_none() {
            return Ok(Exit::Done);
        }
        while let Ok(more) = tokio::time::timeout(SETTLE, events.next()).await {
            if more?.is_none() {
                return Ok(Exit::Done);
            }
        }
    }
}

/// The whole status.
pub(super) fn all(status: &Status, now: Timestamp, width: Option<usize>) -> String {
    let mut rows = Vec::new();
    for group in &status.groups {
        rows.extend(lines(group, now));
    }
    let mut out = columns(&rows, width);
    for refused in &status.refused {
        let (reason, since) = (word(&refused.reason), in_brackets(refused.since, now));
        out.push_str(&format!("{NAME}{}{NAME:#} {BAD}refused{BAD:#} {reason}: {}{since}\n", refused.tag, refused.message));
    }
    for condition in wrong(&status.conditions) {
        out.push_str(&format!("{NAME}supervisor{NAME:#} {}\n", said(condition, now)));
    }
    out.push_str(&summary(status));
    out
}

fn state(group: &Group) -> (String, anstyle::Style) {
    let style = if group.is_ready() { GOOD } else { WARN };
    let word = match &group.service {
        Some(service) => {
            let style = match service.state {
                ServiceState::Failed | ServiceState::Stuck | ServiceState::Backoff => BAD,
                ServiceState::Running | ServiceState::Done => style,
                ServiceState::Stopped | ServiceState::Unknown => WARN,
                ServiceState::Waiting | ServiceState::Starting | ServiceState::Reloading | ServiceState::Stopping => WARN,
            };
            return (word(&service.state), style);
        }
        None if group.is_ready() => "published",
        None => "waiting",
    };
    (word.to_owned(), style)
}

fn lines(group: &Group, now: Timestamp) -> Vec<Vec<Cell>> {
    let (state, style) = state(group);
    let release = group.release.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let mut words = causes(group, now).into_iter();
    let first = words.next().unwrap_or_default();
    let mut rows = vec![vec![Cell(group.name.to_string(), NAME), cell(release), Cell(state, style), cell(first)]];
    rows.extend(words.map(|more| vec![cell(""), cell(""), cell(""), cell(more)]));
    rows
}

/// Everything that keeps a group from being as it should, in words, each once.
fn causes(group: &Group, now: Timestamp) -> Vec<String> {
    let waiting_since = group.condition(ConditionKind::Ready).filter(|ready| ready.status != Truth::True);
    let mut words: Vec<String> = Vec::new();
    for wait in &group.waits {
        let since = waiting_since.map(|ready| in_brackets(ready.since, now)).unwrap_or_default();
        words.push(format!("{}{since}", wait.message));
    }
    for condition in wrong(&group.conditions) {
        let told = group.waits.iter().any(|wait| wait.message == condition.message || wait.reason == condition.reason);
        if !told {
            words.push(said(condition, now));
        }
    }
    if let (HealthStatus::Warning | HealthStatus::Critical, None) = (group.health.status, group.condition(ConditionKind::Healthy))
    {
        words.push(format!("health {}: {}", word(&group.health.status), group.health.message));
    }
    if words.is_empty()
        && let Some(ready) = waiting_since
    {
        words.push(format!("{}{}", ready.message, in_brackets(ready.since, now)));
    }
    words.extend(group.notices.iter().map(|notice| format!("note: {notice}")));
    words.dedup();
    words
}

/// Conditions that a person should hear of. `Ready` is told by the waits; an unverified source by the last line.
fn wrong(conditions: &[Condition]) -> impl Iterator<Item = &Condition> {
    conditions.iter().filter(|condition| match condition.kind {
        ConditionKind::Ready | ConditionKind::Reconciling => false,
        ConditionKind::Stalled
        | ConditionKind::DriftDetected
        | ConditionKind::Suspended
        | ConditionKind::FreezeSuspected
        | ConditionKind::RolloutPaused => condition.status != Truth::False,
        ConditionKind::SourceVerified => condition.status != Truth::True && condition.reason != Reason::Unverified,
        ConditionKind::Healthy => condition.status != Truth::True,
    })
}

fn said(condition: &Condition, now: Timestamp) -> String {
    let holds = matches!(condition.kind, ConditionKind::Healthy | ConditionKind::SourceVerified);
    let not = match (holds, condition.status) {
        (true, Truth::False) => "not ",
        (true, Truth::Unknown) => "perhaps not ",
        (false, Truth::Unknown) => "perhaps ",
        (_, Truth::True | Truth::False) => "",
    };
    let name = match condition.kind {
        ConditionKind::Ready => "ready",
        ConditionKind::Reconciling => "reconciling",
        ConditionKind::Stalled => "stalled",
        ConditionKind::SourceVerified => "verified",
        ConditionKind::Healthy => "healthy",
        ConditionKind::DriftDetected => "drift detected",
        ConditionKind::Suspended => "suspended",
        ConditionKind::FreezeSuspected => "freeze suspected",
        ConditionKind::RolloutPaused => "rollout paused",
    };
    format!("{not}{name}: {} [{}]{}", condition.message, word(&condition.reason), in_brackets(condition.since, now))
}

fn summary(status: &Status) -> String {
    let name = &status.supervisor.name;
    let release = match &status.release {
        Some(release) => {
            let unverified =
                status.condition(ConditionKind::SourceVerified).is_none_or(|found| found.reason == Reason::Unverified);
            let trust = if release.signers.is_empty() || unverified {
                format!("{WARN}verification off{WARN:#}")
            } else {
                format!("signed by {}", release.signers.join(", "))
            };
            let way = if release.applied_at.is_some() { "" } else { ", on its way" };
            format!("release {NAME}{}{NAME:#} ({}, {trust}){way}", release.tag, commit(&release.commit))
        }
        None => {
            let ready = status.condition(ConditionKind::Ready);
            format!("no release yet: {}", ready.map_or("nothing was looked at so far", |ready| ready.message.as_str()))
        }
    };
    let members = &status.ring.members;
    let ring = if members.len() < 2 {
        String::new()
    } else {
        let alive = members.iter().filter(|member| member.state == "alive").count();
        let wanted = status.release.as_ref().map(|release| &release.tag);
        let alive_ones = members.iter().filter(|member| member.state == "alive");
        let behind = alive_ones.filter(|member| wanted.is_some() && member.release.as_ref() != wanted).count();
        let behind = if behind == 0 { String::new() } else { format!(", {behind} behind") };
        format!(" · {alive} of {} peers alive{behind}", members.len())
    };
    format!("{name}: {release}{ring}\n")
}

/// One group in full.
fn one(group: &Group, now: Timestamp, width: Option<usize>) -> String {
    let (state, style) = state(group);
    let mut rows = vec![("group", group.name.to_string(), NAME)];
    rows.push(("release", group.release.as_ref().map_or_else(|| "none yet".to_owned(), ToString::to_string), PLAIN));
    rows.push(("revision", group.revision.clone(), PLAIN));
    match &group.service {
        Some(service) => {
            let pid = service.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
            let restarts = if service.restarts == 0 { String::new() } else { format!(", {} restarts", service.restarts) };
            let since = second(service.since);
            rows.push(("service", format!("{state}{pid}{restarts}, since {since}"), style));
        }
        None => rows.push(("service", "none: this group only publishes".to_owned(), DIM)),
    }
    let health = match group.health.status {
        HealthStatus::Ok => GOOD,
        HealthStatus::Warning | HealthStatus::Unknown => WARN,
        HealthStatus::Critical => BAD,
    };
    let said_so = if group.health.message.is_empty() { String::new() } else { format!(": {}", group.health.message) };
    rows.push(("health", format!("{}{said_so}", word(&group.health.status)), health));
    if let Some(mount) = &group.mount {
        let publication = mount.publication.as_deref().map_or("nothing yet", |id| id.get(..12).unwrap_or(id));
        rows.push(("mount", format!("{} shows {publication}, mode {}", mount.path, word(&mount.mode)), PLAIN));
    }
    let rollout = &group.rollout;
    rows.push(("rollout", format!("{}, {} of {} updated", word(&rollout.phase), rollout.updated, rollout.total), PLAIN));
    for wait in &group.waits {
        rows.push(("waits", format!("{} [{}]", wait.message, word(&wait.reason)), WARN));
    }
    if let Some(service) = group.service.as_ref().filter(|service| !service.message.is_empty()) {
        rows.push(("note", service.message.clone(), WARN));
    }
    for notice in &group.notices {
        rows.push(("notice", notice.clone(), WARN));
    }
    for condition in &group.conditions {
        let since = in_brackets(condition.since, now);
        let told =
            format!("{}={} [{}] {}", word(&condition.kind), word(&condition.status), word(&condition.reason), condition.message);
        rows.push(("condition", format!("{}{since}", told.trim_end()), PLAIN));
    }
    let rows: Vec<_> = rows.into_iter().map(|(key, value, style)| vec![Cell(key.to_owned(), DIM), Cell(value, style)]).collect();
    columns(&rows, width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::Member;
    use crate::model::{MemberId, TagName};

    fn sample() -> Status {
        serde_json::from_str(include_str!("../../tests/cli/status.json")).unwrap()
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn the_last_line_tells_signers_and_ring() {
        let mut status = sample();
        status.conditions[1].status = Truth::True;
        status.conditions[1].reason = Reason::Converged;
        let release = status.release.as_mut().unwrap();
        release.signers = vec!["ops@example.com".to_owned()];
        release.applied_at = Some(Timestamp(0));
        let member = |name: &str, state: &str, release: &str| Member {
            name: name.to_owned(),
            member_id: MemberId::new(name),
            address: String::new(),
            state: state.to_owned(),
            release: Some(TagName::new(release)),
        };
        status.ring.members = vec![member("a", "alive", "v1.4.2"), member("b", "alive", "v1.4.1"), member("c", "down", "v1.4.1")];
        let line = "ams-1: release v1.4.2 (9f3c2a1, signed by ops@example.com) · 2 of 3 peers alive, 1 behind\n";
        assert_eq!(plain(&summary(&status)), line);
        status.release = None;
        assert_eq!(plain(&summary(&status)), "ams-1: no release yet: 2 groups are on their way · 2 of 3 peers alive\n");
    }

    #[test]
    fn a_group_that_is_not_ready_is_never_shown_without_a_cause() {
        let mut group = sample().groups.remove(2);
        let since = group.conditions[0].since;
        let later = Timestamp(since.0 + 3_500);
        assert_eq!(causes(&group, later)[0], "for bind db: redis.default has no healthy member (3s)");
        group.waits.clear();
        group.conditions.truncate(1);
        assert_eq!(causes(&group, later), ["for bind db: redis.default has no healthy member (3s)"]);
    }

    #[test]
    fn every_condition_that_is_not_as_it_should_be_is_told() {
        let told = |kind, status| {
            let condition = Condition { kind, status, reason: Reason::Waiting, message: "m".to_owned(), since: Timestamp(0) };
            wrong(&[condition]).map(|found| said(found, Timestamp(0))).next()
        };
        for (kind, status, want) in [
            (ConditionKind::Healthy, Truth::True, None),
            (ConditionKind::Healthy, Truth::False, Some("not healthy: m [Waiting]")),
            (ConditionKind::Healthy, Truth::Unknown, Some("perhaps not healthy: m [Waiting]")),
            (ConditionKind::SourceVerified, Truth::False, Some("not verified: m [Waiting]")),
            (ConditionKind::Stalled, Truth::False, None),
            (ConditionKind::Stalled, Truth::True, Some("stalled: m [Waiting]")),
            (ConditionKind::DriftDetected, Truth::Unknown, Some("perhaps drift detected: m [Waiting]")),
            (ConditionKind::Suspended, Truth::True, Some("suspended: m [Waiting]")),
            (ConditionKind::RolloutPaused, Truth::True, Some("rollout paused: m [Waiting]")),
            (ConditionKind::Reconciling, Truth::True, None),
        ] {
            assert_eq!(told(kind, status).as_deref(), want, "{kind:?} {status:?}");
        }
    }
}
