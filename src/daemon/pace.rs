//! When how things stand is told anew, and when memory is given back: pure, it is handed events and the time.
//!
//! A hundred services with health checks make twenty turns a second in which nothing is new but the time of the last check.
//! That is shown at most once in [`QUIET`]; everything else at once.

use std::time::Duration;

use crate::model::{GroupName, HealthStatus, Moment, Wait};
use crate::plan::{Core, Event, Key, Outcome, Overview, Plan};

/// A check that found what the one before had found is shown within this time.
const QUIET: Duration = Duration::from_secs(1);

/// What was taken in since it was last told how things stand.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Something that is told at once.
    pub(super) loud: bool,
    /// Something that may wait a little.
    quiet: bool,
    shown: Moment,
    /// Nothing but looking was done since memory was last given back.
    pub(super) rested: bool,
}

impl Pace {
    /// Takes note of an event before the core observes it.
    pub(super) fn note(&mut self, event: &Event, core: &Core) {
        if says_nothing_new(event, core) {
            self.quiet = true;
        } else {
            self.loud = true;
        }
    }

    /// Whether it is to be told now how things stand; if later, when.
    pub(super) fn show(&mut self, now: Moment, changed: bool) -> (bool, Option<Moment>) {
        let due = self.shown.after(QUIET);
        let quiet_is_due = self.quiet && due <= now;
        if !(self.loud || changed || quiet_is_due) {
            return (false, self.quiet.then_some(due));
        }
        (self.loud, self.quiet, self.shown) = (false, false, now);
        (true, None)
    }
}

/// A check of a healthy service that found it healthy again.
fn says_nothing_new(event: &Event, core: &Core) -> bool {
    let Event::Done { key: Key::Group(name, _), outcome: Outcome::Checked { incarnation, result }, .. } = event else {
        return false;
    };
    let Some(known) = core.observed().groups.get(name).map(|facts| &facts.health) else { return false };
    let healthy = known.passed && known.criticals == 0 && known.incarnation == *incarnation;
    let same = known.last.as_ref().is_some_and(|(last, _)| last.status == result.status);
    healthy && same && result.status == HealthStatus::Ok
}

/// Whether a plan waits for what was told last.
pub(super) fn says_the_same(plan: &Plan, told: &Overview) -> bool {
    let waiting = told.groups.iter().map(|(name, status)| (name, &status.waits)).filter(|(_, waits)| !waits.is_empty());
    let waits: Vec<(&GroupName, &Vec<Wait>)> = waiting.collect();
    plan.waits == told.waits && plan.groups.iter().eq(waits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Moment = Moment(10_000);

    #[test]
    fn what_is_loud_is_told_at_once_and_once() {
        let mut pace = Pace { loud: true, shown: AT, ..Pace::default() };
        assert_eq!(pace.show(AT, false), (true, None));
        assert_eq!(pace.show(AT, false), (false, None));
        assert_eq!(pace.show(AT, true), (true, None));
    }

    #[test]
    fn what_is_quiet_is_told_within_its_time() {
        let mut pace = Pace { quiet: true, shown: AT, ..Pace::default() };
        let due = AT.after(QUIET);
        assert_eq!(pace.show(AT, false), (false, Some(due)));
        assert_eq!(pace.show(due, false), (true, None));
        assert_eq!(pace.show(due, false), (false, None));
    }

    #[test]
    fn other_waits_are_news() {
        let (mut plan, told) = (Plan::default(), Overview::default());
        assert!(says_the_same(&plan, &told));
        let wait = Wait { reason: crate::model::Reason::Starting, message: "starting".to_owned() };
        plan.groups.insert("web".parse().unwrap(), vec![wait.clone()]);
        assert!(!says_the_same(&plan, &told));
        plan.groups.clear();
        plan.waits.push(wait);
        assert!(!says_the_same(&plan, &told));
    }
}
