//! Outputs in the loop: who is read in a turn, what is tried again later, what of it the supervisor is told.

use std::time::Duration;

use super::engine::{Engine, now};
use super::log::{Output, Rules};
use super::poller::{Poller, Source, Token};
use super::reserve::{self, Asks};
use super::services::Entry;
use crate::model::{GroupName, LogLosses, LogStream, Moment, Now, ServiceReport};

/// How soon losses are told and what could not be written is tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Registrations of a service's output, and what was told of it.
#[derive(Default)]
pub(super) struct OutputTokens {
    streams: Vec<(LogStream, Token)>,
    forward: Option<Token>,
    /// Whether the loop waits for the forward to take more.
    blocked: bool,
    told: LogLosses,
}

impl Entry {
    /// How a service stands, its lines included.
    pub(super) fn report(&mut self, now: Now, unwritten: Option<&str>) -> ServiceReport {
        let mut report = self.service.report(now);
        if let Some(output) = &self.output {
            report.logs = output.losses();
        }
        self.output_tokens.told = report.logs.clone();
        if let Some(why) = unwritten.filter(|_| self.unsaved) {
            let words = format!("it cannot be written down that it stands so: {why}; a next keeper would not know it");
            report.message = if report.message.is_empty() { words } else { format!("{}; {words}", report.message) };
        }
        report
    }

    /// Takes the last lines, and the FIFOs away.
    pub(super) fn close_output(&mut self, poller: &mut Poller, buffer: &mut [u8]) {
        let Some(mut output) = self.output.take() else { return };
        output.drain(buffer, now().wall);
        for (stream, token) in self.output_tokens.streams.drain(..) {
            poller.remove(output.keeper_end(stream), token);
        }
        self.output_tokens.end_forward(&output, poller);
        output.remove();
    }

    fn rules(&self) -> Rules<'_> {
        Rules { policy: &self.service.spec.policy.logs, release: &self.service.spec.release }
    }
}

impl OutputTokens {
    /// Waits for the forward to take more, or no longer.
    fn follow_forward(&mut self, group: &GroupName, output: &Output, poller: &mut Poller) {
        let blocked = output.blocked_on().is_some();
        if blocked == self.blocked {
            return;
        }
        let Some(socket) = output.forward_end() else { return };
        if self.forward.is_none() {
            self.forward = poller.add(socket, Source::Forward(group.clone())).ok();
        }
        // Where it cannot be waited on, it is tried again with the next line and after a while.
        self.blocked = self.forward.is_some_and(|token| poller.want(socket, token, false, blocked).is_ok()) && blocked;
    }

    fn end_forward(&mut self, output: &Output, poller: &mut Poller) {
        if let Some((token, socket)) = self.forward.take().zip(output.forward_end()) {
            poller.remove(socket, token);
        }
        self.blocked = false;
    }
}

impl Engine {
    pub(super) fn open_output(&mut self, group: &GroupName) -> Result<(), String> {
        if self.services.get(group).is_none_or(|entry| entry.output.is_some()) {
            return Ok(());
        }
        // Of those that wait for room themselves, nothing is held.
        let known = self.services.values().filter(|entry| entry.output.is_some()).count();
        let Some(entry) = self.services.get_mut(group) else { return Ok(()) };
        if entry.process.is_none() {
            reserve::room(Asks::Service, known, self.poller.as_fd())?;
        }
        let failed = |error: std::io::Error| format!("its output cannot be connected: {error}");
        let output = Output::open(&self.config.data_dir, group, entry.rules(), &self.scratch).map_err(failed)?;
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let source = Source::Output(group.clone(), stream);
            let token = self.poller.add_for_news(output.keeper_end(stream), source).map_err(failed)?;
            entry.output_tokens.streams.push((stream, token));
        }
        entry.output = Some(output);
        Ok(())
    }

    /// After an event: its rules may be others.
    pub(super) fn set_output_rules(&mut self, group: &GroupName) {
        let Some(entry) = self.services.get_mut(group) else { return };
        let Entry { output: Some(output), output_tokens, service, .. } = entry else { return };
        let rules = Rules { policy: &service.spec.policy.logs, release: &service.spec.release };
        if output.forwards_elsewhere(rules) {
            output_tokens.end_forward(output, &mut self.poller);
        }
        output.set_rules(rules);
    }

    /// Something was written; it is read behind everything else of this turn.
    pub(super) fn output_written(&mut self, group: GroupName, stream: LogStream) {
        self.unread.insert((group, stream));
    }

    /// Reads a bounded part of each output that has something.
    pub(super) fn read_outputs(&mut self) {
        for (group, stream) in std::mem::take(&mut self.unread) {
            let Some(entry) = self.services.get_mut(&group) else { continue };
            let Some(output) = &mut entry.output else { continue };
            if output.take(stream, &mut self.buffer, now().wall) {
                self.unread.insert((group.clone(), stream));
            }
            self.after_lines(&group);
        }
    }

    /// Whoever gets its lines takes more.
    pub(super) fn forward_ready(&mut self, group: &GroupName) {
        if let Some(output) = self.services.get_mut(group).and_then(|entry| entry.output.as_mut()) {
            output.try_again(now().wall);
        }
        self.after_lines(group);
    }

    /// Takes what is left of a service's output, and ends its last line.
    pub(super) fn drain_output(&mut self, group: &GroupName) {
        if let Some(output) = self.services.get_mut(group).and_then(|entry| entry.output.as_mut()) {
            output.drain(&mut self.buffer, now().wall);
        }
        self.after_lines(group);
    }

    fn after_lines(&mut self, group: &GroupName) {
        let Some(entry) = self.services.get_mut(group) else { return };
        let Entry { output: Some(output), output_tokens, .. } = entry else { return };
        output_tokens.follow_forward(group, output, &mut self.poller);
        if self.outputs_due.is_none() && (output.waits() || output.losses() != output_tokens.told) {
            self.outputs_due = Some(now().moment.after(LOOK_AGAIN));
        }
    }

    /// Tries again what could not be written, and tells what got lost: once in a while, whatever a flood does.
    pub(super) fn look_after_outputs(&mut self, moment: Moment) {
        if self.outputs_due.is_none_or(|due| due > moment) {
            return;
        }
        self.outputs_due = None;
        let groups: Vec<GroupName> = self.services.keys().cloned().collect();
        for group in groups {
            let Some(entry) = self.services.get_mut(&group) else { continue };
            let Entry { output: Some(output), output_tokens, dirty, .. } = entry else { continue };
            if output.waits() {
                output.try_again(now().wall);
            }
            if output.losses() != output_tokens.told {
                output_tokens.told = output.losses();
                *dirty = true;
            }
            self.after_lines(&group);
        }
    }
}
