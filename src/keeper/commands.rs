//! Commands run for services: health checks by `exec`, and what hooks may call.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};

use super::engine::{Engine, Owner, now};
use super::poller::{Source, Token};
use super::proc;
use super::reserve::{self, Asks};
use super::services::own_variables;
use super::spawn::{Failure, Handed, Order, Plan, Spawned, prepare};
use super::wire::{Command, EXEC_OUTPUT_MAX_BYTES, ExecOutcome, Message};
use crate::model::{Exit, Launch, Moment};

/// Most commands at once; one more is refused.
const COMMANDS_MAX: usize = 512;

/// Longest timeout that is taken.
const TIMEOUT_MAX: Duration = Duration::from_secs(60 * 60);

/// Most reads of what an ended command has left in its pipe.
const LAST_READS: usize = 4;

/// A command that runs.
pub(super) struct Running {
    pid: u32,
    generation: u64,
    attempt: u64,
    what: String,
    status: OwnedFd,
    pipe: OwnedFd,
    token: Option<Token>,
    output: Vec<u8>,
    kill_at: Moment,
    timed_out: bool,
}

impl Running {
    /// When it is killed; nothing is due once it has been.
    pub(super) fn deadline(&self) -> Option<Moment> {
        (!self.timed_out).then_some(self.kill_at)
    }

    /// Reads once, and keeps the end of what came so far. `false`: there is no more for now, or for ever.
    fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let length = rustix::io::read(&self.pipe, &mut *buffer).ok()?;
        self.output.extend_from_slice(&buffer[..length]);
        let surplus = self.output.len().saturating_sub(EXEC_OUTPUT_MAX_BYTES);
        self.output.drain(..surplus);
        Some(length)
    }
}

impl Engine {
    /// Starts a command; its outcome is queued when it has ended.
    pub(super) fn start_command(&mut self, attempt: u64, command: &Command) -> Result<(), String> {
        if self.commands.len() >= COMMANDS_MAX {
            return Err(format!("{COMMANDS_MAX} commands run already; this one is not started"));
        }
        let known = self.services.values().filter(|entry| entry.process.is_some()).count();
        reserve::room(Asks::Command, known, self.poller.as_fd()).map_err(|why| format!("the command is not started: {why}"))?;
        let failed = |error: std::io::Error| format!("its output cannot be connected: {error}");
        let (pipe, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        rustix::io::ioctl_fionbio(&pipe, true).map_err(|error| failed(error.into()))?;
        let plan = self.plan_command(command, write).map_err(|why| format!("the command cannot be started: {why}"))?;
        let what = plan.what();
        let Spawned { pid, status } = plan.spawn(&self.one_thread)?;
        // The child holds the writing end now; ours would keep the pipe from ending.
        drop(plan);
        self.command_ids += 1;
        let id = self.command_ids;
        self.children.insert(pid, Owner::Command(id));
        let token = self.poller.add(&pipe, Source::Command(id)).ok();
        let kill_at = now().moment.after(command.timeout.min(TIMEOUT_MAX));
        let generation = self.link_generation;
        let running =
            Running { pid, generation, attempt, what, status, pipe, token, output: Vec::new(), kill_at, timed_out: false };
        self.commands.insert(id, running);
        Ok(())
    }

    fn plan_command(&self, command: &Command, output: OwnedFd) -> Result<Plan, String> {
        let failed = |error: std::io::Error| format!("its output cannot be connected: {error}");
        let entry = match &command.group {
            Some(group) => {
                let entry = self.services.get(group);
                if entry.is_none() && command.launch.is_none() {
                    return Err(format!("`{group}` is not known here"));
                }
                entry
            }
            None => None,
        };
        let known = entry.map(|entry| &entry.service.spec.launch);
        let mut launch = command.launch.as_ref().or(known).cloned().unwrap_or_default();
        launch.argv = command.argv.clone();
        launch.user = command.user.clone().or(launch.user);
        self.config.grants.check_user(launch.user.as_deref())?;
        let root = || "/".to_owned();
        let own_dir = Some(launch.working_dir).filter(|dir| !dir.is_empty());
        launch.working_dir = command.cwd.clone().or(own_dir).unwrap_or_else(root);
        let launch = Launch { listen: Vec::new(), ..launch };
        let mut env = entry.map(|entry| own_variables(&entry.service.spec)).unwrap_or_default();
        env.extend(command.env.iter().cloned());
        let process = entry.and_then(|entry| entry.process.as_ref()).filter(|process| process.namespace);
        let beside = process.map(|process| process.pidfd.try_clone()).transpose().map_err(failed)?;
        let null =
            rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty());
        let second = output.try_clone().map_err(failed)?;
        let stdio = [null.map_err(|error| failed(error.into()))?, output, second];
        let order = Order {
            launch: &launch,
            env,
            view: None,
            beside,
            stdio,
            service: false,
            may_mount: false,
            handed: Handed::default(),
        };
        let mut plan = prepare(order, &self.rights, self.config.grants.capability_limit(), &self.config.data_dir)?;
        // Only where there is a process: what is left in a group keeps the next start waiting.
        if let Some(entry) = entry.filter(|entry| entry.process.is_some()) {
            plan.place = self.cgroups.beside(&entry.service.spec.group, &entry.service.spec.launch.limits);
        }
        Ok(plan)
    }

    /// A command has written something.
    pub(super) fn read_command(&mut self, id: u64) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        if command.read(&mut self.buffer) == Some(0)
            && let Some(token) = command.token.take()
        {
            // It closed its output; its end is what counts.
            self.poller.remove(&command.pipe, token);
        }
    }

    /// Kills a command and all of its process group.
    pub(super) fn command_timed_out(&mut self, id: u64) {
        let Some(command) = self.commands.get_mut(&id) else { return };
        command.timed_out = true;
        for (pid, started) in proc::family(command.pid) {
            proc::kill_verified(pid, started);
        }
        if let Some(group) = proc::pid_of(command.pid) {
            // It is our child and not yet waited for: the number is its group's.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }

    /// A command's main process was waited for; its group was killed just before.
    pub(super) fn command_ended(&mut self, id: u64, exit: Exit) {
        let Some(mut command) = self.commands.remove(&id) else { return };
        for _ in 0..LAST_READS {
            if command.read(&mut self.buffer).is_none_or(|length| length == 0) {
                break;
            }
        }
        if let Some(token) = command.token.take() {
            self.poller.remove(&command.pipe, token);
        }
        if command.generation != self.link_generation {
            // Who asked is gone.
            return;
        }
        let attempt = command.attempt;
        let message = match Failure::read(&command.status) {
            Ok(Some(failure)) => Message::Reply { attempt, result: Err(Plan::explain(&command.what, &failure)) },
            Ok(None) | Err(()) => {
                let output = String::from_utf8_lossy(&command.output).into_owned();
                Message::ExecDone { attempt, outcome: ExecOutcome { exit, output, timed_out: command.timed_out } }
            }
        };
        self.reply(message);
    }
}
