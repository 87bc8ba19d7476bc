//! Taking requests: each is answered once, with what came of it or why nothing did.

use super::engine::Engine;
use super::grants::check_view;
use super::state::Event;
use super::wire::{Message, Request};
use crate::model::{GroupName, ServiceSpec, Signal};

impl Engine {
    /// Carries a request out, and queues its answer unless that comes later.
    pub(super) fn take_request(&mut self, attempt: u64, request: Request) {
        let result = match request {
            Request::Run(spec) => self.request_run(*spec),
            Request::Amend { group, revision, release, policy } => {
                self.request(&group, Event::Amend { revision, release, policy })
            }
            Request::Stop { group } => self.request(&group, Event::Stop),
            Request::Restart { group } if self.ending.is_some() => Err(ends(&group)),
            Request::Restart { group } => self.request(&group, Event::Restart),
            Request::Signal { group, signal } => check_signal(signal).and_then(|()| self.signal(&group, signal)),
            Request::Reload { group, view, signal } => {
                let fits = check_view(&group, &view, &self.config.data_dir).and_then(|()| check_optional(signal));
                let asked = fits.and_then(|()| self.request(&group, Event::Reload { view, signal }));
                let failed = self.services.get_mut(&group).and_then(|entry| entry.show_failed.take());
                asked.and(failed.map_or(Ok(()), Err))
            }
            Request::MarkReady { group, incarnation } => self.request(&group, Event::MarkReady { incarnation }),
            Request::Forget { group } => self.request_forget(&group),
            Request::Link { .. } | Request::Unlink { .. } | Request::Readers { .. } | Request::Reclaim { .. } => {
                match self.start_errand(attempt, |work| work.carry_out(&request)) {
                    // Its end is the answer.
                    Ok(()) => return,
                    Err(why) => Err(why),
                }
            }
            Request::Exec(command) => match self.start_command(attempt, &command) {
                // Its outcome is the answer.
                Ok(()) => return,
                Err(why) => Err(why),
            },
            Request::Serving => {
                self.supervisor.serving = true;
                Ok(())
            }
            Request::Finished => {
                self.supervisor_finished();
                Ok(())
            }
        };
        self.reply(Message::Reply { attempt, result });
    }

    fn request_run(&mut self, spec: ServiceSpec) -> Result<(), String> {
        let group = spec.group.clone();
        if self.ending.is_some() {
            return Err(ends(&group));
        }
        check_signal(spec.policy.stop_signal)?;
        self.config.grants.check_spec(&spec, &self.config.data_dir).map_err(|why| format!("`{group}` is not started: {why}"))?;
        if !self.services.contains_key(&group) {
            self.add_service(&spec);
        }
        self.request(&group, Event::Run(Box::new(spec)))
    }

    fn request(&mut self, group: &GroupName, event: Event) -> Result<(), String> {
        if !self.services.contains_key(group) {
            return Err(format!("`{group}` is not known here; say first what it is, by `Run`"));
        }
        self.feed(group, event);
        Ok(())
    }

    fn request_forget(&mut self, group: &GroupName) -> Result<(), String> {
        let Some(entry) = self.services.get(group) else { return Ok(()) };
        if !entry.service.at_rest() {
            return Err(format!("`{group}` has not stopped yet, so it cannot be forgotten"));
        }
        self.forget_service(group);
        Ok(())
    }
}

fn ends(group: &GroupName) -> String {
    format!("`{group}` is not started: this keeper is about to end")
}

fn check_signal(signal: Signal) -> Result<(), String> {
    if (1..=64).contains(&signal.0) { Ok(()) } else { Err(format!("{} is not the number of a signal", signal.0)) }
}

fn check_optional(signal: Option<Signal>) -> Result<(), String> {
    signal.map_or(Ok(()), check_signal)
}
