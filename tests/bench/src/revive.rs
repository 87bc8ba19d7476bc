//! SIGKILL of the supervisor, ten times in a row: when its API answers again, and whether any service noticed.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::Failure;
use crate::clock::{ms_between, now_ns, pause};
use crate::program::Ear;
use crate::stage::{Stage, group};
use crate::table::{Row, Sample};

const KILLS: u32 = 10;
const GROUPS: u32 = 20;
const BOUND_MS: f64 = 10_000.0;
const WANTED_MS: f64 = 2_000.0;

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let mut stage = Stage::new();
    let ear = Ear::new(&stage.path("fifo"))?;
    for number in 0..GROUPS {
        let name = format!("web{number}");
        let text = group(&name, &ear.path, Some(&stage.path(&format!("mount-{name}"))), "")?;
        stage.repo.write(&format!("groups/{name}/group.toml"), &text);
        stage.repo.write(&format!("groups/{name}/config/app.conf.hbs"), "{{cfg.version}}\n");
    }
    stage.repo.release("v1.0.0");
    stage.supervise()?;
    stage.wait_applied("v1.0.0")?;
    pause(Duration::from_secs(1));
    let before = stage.pids()?;
    let (mut answers, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..KILLS {
        let old = supervisor_pid(&stage)?;
        let pid = i32::try_from(old).ok().and_then(Pid::from_raw).ok_or("no process id")?;
        let killed = now_ns();
        kill_process(pid, Signal::KILL)?;
        answers.push(wait(&stage, killed, |status| status["supervisor"]["pid"] != old)?);
        whole.push(wait(&stage, killed, |status| {
            status["groups"].as_array().is_some_and(|groups| groups.len() == GROUPS as usize)
        })?);
    }
    let restarts = before.len() - stage.pids()?.iter().filter(|pid| before.contains(pid)).count();
    let answers = Sample::new(answers);
    Ok(vec![
        Row::new(
            format!("SIGKILL of the supervisor → API answers, {KILLS} in a row"),
            "each <= 2000 ms",
            answers.words("ms"),
            answers.max() <= WANTED_MS,
        ),
        Row::new(format!("services restarted by it, of {}", before.len()), "0", restarts.to_string(), restarts == 0),
        Row::told("SIGKILL of the supervisor → all groups in the status", Sample::new(whole).words("ms")),
    ])
}

fn supervisor_pid(stage: &Stage) -> Result<u64, Failure> {
    Ok(stage.status()?["supervisor"]["pid"].as_u64().ok_or("no pid in the status")?)
}

fn wait(stage: &Stage, since: u64, wanted: impl Fn(&serde_json::Value) -> bool) -> Result<f64, Failure> {
    loop {
        if stage.status().is_ok_and(|status| wanted(&status)) {
            return Ok(ms_between(since, now_ns()));
        }
        if ms_between(since, now_ns()) > BOUND_MS {
            return Err("the API did not answer in time".into());
        }
        pause(Duration::from_millis(1));
    }
}
