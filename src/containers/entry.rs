//! One service of the room: its state by the keeper's rules, and what is under way for it.

use std::collections::VecDeque;

use tokio::task::JoinHandle;

use super::logs::Kept;
use crate::keeper::state::{Action, Service};
use crate::model::{Exit, Now, PublicationId, ServiceReport, ServiceState};

pub(super) struct Entry {
    pub(super) service: Service,
    /// The plan has handed in the whole spec: without it nothing can be started.
    pub(super) known: bool,
    /// The container, from its making to its removal.
    pub(super) id: Option<String>,
    /// Its labels, where it was taken up again.
    pub(super) labels: serde_json::Value,
    /// Carries out one thing; the rest waits.
    pub(super) busy: bool,
    pub(super) todo: VecDeque<Action>,
    /// What the container under way will have seen when it is there.
    pub(super) publication: Option<PublicationId>,
    /// A container ended before it was known that it had begun.
    pub(super) ended: Option<(String, Exit)>,
    /// By which rules its lines are kept.
    pub(super) kept: Kept,
    /// Follows the output.
    pub(super) logs: Option<JoinHandle<()>>,
    /// The engine said that it ran out of memory.
    pub(super) out_of_memory: bool,
    /// Its image is being fetched.
    pub(super) pulling: bool,
    /// Why its image could not be fetched.
    pub(super) pull_failed: Option<String>,
    told: Option<ServiceReport>,
}

impl Entry {
    pub(super) fn new(service: Service, known: bool) -> Self {
        Self {
            kept: Kept::new(known.then_some(&service.spec)),
            service,
            known,
            id: None,
            labels: serde_json::Value::Null,
            busy: false,
            todo: VecDeque::new(),
            publication: None,
            ended: None,
            logs: None,
            out_of_memory: false,
            pulling: false,
            pull_failed: None,
            told: None,
        }
    }

    /// What is to be done next; a removal that was asked for twice is one.
    pub(super) fn next(&mut self) -> Option<Action> {
        let next = self.todo.pop_front()?;
        if next == Action::Clear {
            self.todo.retain(|action| *action != Action::Clear);
        }
        Some(next)
    }

    /// The report, where it says something new.
    pub(super) fn news(&mut self, now: Now) -> Option<ServiceReport> {
        let mut report = self.service.report(now);
        report.logs = self.kept.losses();
        if self.out_of_memory && report.state != ServiceState::Running {
            let limit = self.service.spec.launch.limits.memory;
            let limit = limit.map(|bytes| format!(" (limits.memory is {bytes} bytes)")).unwrap_or_default();
            report.message.push_str(&format!("; it ran out of memory{limit}"));
        }
        if self.told.as_ref() == Some(&report) {
            return None;
        }
        self.told = Some(report.clone());
        Some(report)
    }
}
