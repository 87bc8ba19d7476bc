//! The whole of it with a thousand groups: from `tagfall supervise` to all of them ready, and from the signal to all ended.

use std::process::Command;

use crate::Failure;
use crate::clock::{ms_between, now_ns};
use crate::program::Ear;
use crate::rest::{kib, ticks};
use crate::stage::{Stage, small_service};
use crate::table::Row;

const GROUPS: usize = 1_000;
/// Clock ticks of /proc per millisecond.
const TICKS_PER_MS: f64 = 0.1;

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let mut stage = Stage::new();
    let ear = Ear::new(&stage.path("fifo"))?;
    for number in 0..GROUPS {
        let exec = format!("exec = [\"{}\", \"serve\", \"{}\"]", small_service()?, ear.path.display());
        let text = format!("format = 1\n[placement]\nlabels = {{}}\n[service]\n{exec}\n");
        stage.repo.write(&format!("groups/web{number}/group.toml"), &text);
    }
    stage.repo.release("v1.0.0");
    let begun = now_ns();
    stage.supervise()?;
    let status = stage.wait_applied("v1.0.0")?;
    let started = ms_between(begun, now_ns());
    let supervisor = u32::try_from(status["supervisor"]["pid"].as_u64().ok_or("no pid in the status")?)?;
    let pids = [stage.keeper_pid(), supervisor];
    let spent = pids.map(|pid| ticks(pid) / TICKS_PER_MS);
    let memory = pids.map(|pid| kib(pid, "status", "VmRSS:") * 1024.0 / 1e6);
    let running = stage.pids()?.len();
    if running != GROUPS {
        return Err(format!("{running} of {GROUPS} services run").into());
    }
    let begun = now_ns();
    drop(Command::new("kill").args(["-TERM", &stage.keeper_pid().to_string()]).status());
    stage.wait_ended();
    let stopped = ms_between(begun, now_ns());
    let parts = format!("{started:.0} ms; processor time: keeper {:.0} ms, supervisor {:.0} ms", spent[0], spent[1]);
    Ok(vec![
        Row::told(format!("`tagfall supervise` → release with {GROUPS} groups applied"), parts),
        Row::told(format!("RSS with {GROUPS} groups"), format!("keeper {:.1} MB, supervisor {:.1} MB", memory[0], memory[1])),
        Row::told(format!("SIGTERM → all of {GROUPS} groups ended in order"), format!("{stopped:.0} ms")),
    ])
}
