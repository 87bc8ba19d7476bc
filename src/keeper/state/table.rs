//! The table of all states, as a page for people: made of what [`super::walk`] finds, so that it cannot say anything else than
//! the program does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::walk::{Cause, Place, Step, Treated, walk};
use super::{Action, Next, Phase};
use crate::model::{GroupName, ServiceKind};

/// Places of the page in their order: its words for them, and what the status calls them.
const PLACES: [(&str, &str); 15] = [
    ("stopped", "stopped"),
    ("to be forked", "starting"),
    ("being started", "starting"),
    ("up", "starting"),
    ("ready", "running"),
    ("reloading", "reloading"),
    ("told to end", "stopping"),
    ("killed", "stopping"),
    ("clearing", "stopping"),
    ("cannot be killed", "stuck"),
    ("waiting", "backoff"),
    ("due", "waiting"),
    ("done", "done"),
    ("failed", "failed"),
    ("not ours", "unknown"),
];

/// What each of them is.
const MEANINGS: [&str; 15] = [
    "Nothing of it runs, and nothing will by itself.",
    "A process is being made. That takes no time: nothing else can happen meanwhile.",
    "Its process is there, and is not the program yet.",
    "The program runs, and is not ready.",
    "The program runs, and is ready.",
    "It was ready, and said that it reloads.",
    "It got the signal to end, or (its watchdog) SIGABRT; after `stop_timeout` it is killed.",
    "All of it got SIGKILL, again and again until it is gone.",
    "Its main process has ended; whatever else it started is being killed.",
    "SIGKILL was 5 s ago, and something of it is still there.",
    "It is started again later.",
    "It is to be started, and has hooks that come before: the supervisor runs them, and then asks for the start.",
    "A task that has done its work for this revision.",
    "It must not be started again by itself.",
    "Processes of it run that no record tells of: they are left alone until somebody asks for a restart.",
];

const KINDS: [Treated; 4] =
    [(ServiceKind::Daemon, false), (ServiceKind::Task, false), (ServiceKind::Daemon, true), (ServiceKind::Task, true)];

/// On what an outcome depends beside place and cause: the kind, who starts it, and what is to follow once nothing is left.
type Condition = (&'static str, &'static str, &'static str);

type Row = BTreeMap<String, BTreeSet<Condition>>;

fn kind_words((kind, asked): Treated) -> (&'static str, &'static str) {
    let kind = match kind {
        ServiceKind::Daemon => "daemon",
        ServiceKind::Task => "task",
    };
    (kind, if asked { "with hooks that come first" } else { "" })
}

/// Which of [`PLACES`] it is.
fn name(place: &Place) -> &'static str {
    if place.forking {
        return "to be forked";
    }
    if place.service.stuck() {
        return "cannot be killed";
    }
    match place.service.phase {
        Phase::Stopped => "stopped",
        Phase::Done => "done",
        Phase::Failed => "failed",
        Phase::Backoff { .. } => "waiting",
        Phase::Waiting => "due",
        Phase::Spawning { .. } => "being started",
        Phase::Up { ready: None, .. } => "up",
        Phase::Up { ready: Some(_), .. } if place.service.state() == crate::model::ServiceState::Reloading => "reloading",
        Phase::Up { ready: Some(_), .. } => "ready",
        Phase::Stopping { killed: None, .. } => "told to end",
        Phase::Stopping { killed: Some(_), .. } => "killed",
        Phase::Clearing { .. } => "clearing",
        Phase::Foreign => "not ours",
    }
}

/// What follows once nothing is left, where something is still there.
fn follows(place: &Place) -> &'static str {
    match (place.service.phase, place.service.next) {
        (Phase::Stopping { .. } | Phase::Clearing { .. } | Phase::Foreign, next) => match next {
            Next::Start => "then a start",
            Next::Retry { .. } => "then a start later",
            Next::Stop => "then stopped",
            Next::Done => "then done",
            Next::Fail => "then failed",
        },
        _ => "",
    }
}

fn action_words(action: &Action) -> Option<&'static str> {
    match action {
        // The place that it leads to says it.
        Action::Spawn => None,
        Action::Signal(signal) if signal.0 == 6 => Some("SIGABRT"),
        Action::Signal(_) => Some("`stop_signal`"),
        Action::Clear => Some("SIGKILL to all of it"),
        Action::Show(..) => Some("it is shown the publication, and told"),
    }
}

/// What comes of a step; empty where nothing does.
fn outcome(step: &Step) -> String {
    let (before, after) = ((name(&step.from), follows(&step.from)), (name(&step.to), follows(&step.to)));
    let mut words = Vec::new();
    if before != after {
        words.push(if before.0 == after.0 { "the same".to_owned() } else { format!("**{}**", after.0) });
        if before.1 != after.1 && !after.1.is_empty() {
            words.push(after.1.to_owned());
        }
    }
    words.extend(step.actions.iter().filter_map(action_words).map(str::to_owned));
    words.join(", ")
}

/// Outcomes of one place and cause, with what they depend on, as far as the page tells that.
fn row_words(row: &Row) -> String {
    let all: BTreeSet<Condition> = row.values().flatten().copied().collect();
    let words = row.iter().map(|(outcome, when)| {
        let outcome = if outcome.is_empty() { "nothing" } else { outcome };
        let only = |part: fn(&Condition) -> &'static str| {
            let mine: BTreeSet<_> = when.iter().map(part).collect();
            let whole: BTreeSet<_> = all.iter().filter(|one| mine.contains(part(one))).copied().collect();
            (mine.len() == 1 && whole == *when && *when != all).then(|| mine.into_iter().next().unwrap_or_default())
        };
        match only(|(_, _, next)| next).or_else(|| only(|(kind, ..)| kind)).or_else(|| only(|(_, asked, _)| asked)) {
            Some(condition) if !condition.is_empty() => format!("{condition}: {outcome}"),
            _ => outcome.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join("<br>")
}

/// The page.
pub(in crate::keeper) fn page(group: &GroupName) -> String {
    let mut table: BTreeMap<&str, BTreeMap<Cause, Row>> = BTreeMap::new();
    for kind in KINDS {
        walk(group, kind, |step| {
            let row = table.entry(name(&step.from)).or_default().entry(step.cause).or_default();
            let (kind, asked) = kind_words(kind);
            row.entry(outcome(step)).or_default().insert((kind, asked, follows(&step.from)));
        });
    }
    let mut page = HEAD.to_owned();
    for ((place, state), meaning) in PLACES.into_iter().zip(MEANINGS) {
        // A text takes whatever is written.
        let _ = write!(page, "\n## {place}\n\n{meaning} In the status: `{state}`.\n\n");
        print_section(&mut page, table.get(place).unwrap_or(&BTreeMap::new()));
    }
    page
}

fn print_section(page: &mut String, rows: &BTreeMap<Cause, Row>) {
    let nothing = |row: &Row| row.keys().all(String::is_empty);
    let _ = write!(page, "| what happens | what comes of it |\n| --- | --- |\n");
    for (cause, row) in rows.iter().filter(|(_, row)| !nothing(row)) {
        let _ = writeln!(page, "| {} | {} |", cause.words(), row_words(row));
    }
    let idle: Vec<&str> = rows.iter().filter(|(_, row)| nothing(row)).map(|(cause, _)| cause.words()).collect();
    if !idle.is_empty() {
        let _ = write!(page, "\nNothing comes of: {}.\n", idle.join(" · "));
    }
}

const HEAD: &str = "# States of a service, one by one

This page is printed from the keeper's code, by walking through everything that can happen to a service: what is not in a table cannot happen
there. The keeper decides by nothing else. What it writes down of a service is enough for the next keeper to be in the same place.

Where several things can come of something, the page says what decides between them if that is the kind of the service, or what was to follow
anyway. The rest is: the revision for which a task is done, the count of ends in a row, and whether what runs was started alike.
";
