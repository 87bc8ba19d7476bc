//! From `git push` of one tag to a local bare repository to a service that was told and has read the new file at its mount.

use std::time::Duration;

use crate::Failure;
use crate::clock::{ms_between, now_ns, pause};
use crate::program::Ear;
use crate::stage::{Stage, group};
use crate::table::{Row, Sample};

const PUSHES: u32 = 120;
const GROUPS: u32 = 20;
const BOUND: Duration = Duration::from_secs(20);

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let mut rows = series(1)?;
    rows.extend(series(GROUPS)?);
    Ok(rows)
}

/// `groups` groups, of which each push changes the first.
fn series(groups: u32) -> Result<Vec<Row>, Failure> {
    let mut stage = Stage::new();
    let mut ear = Ear::new(&stage.path("fifo"))?;
    let quiet = Ear::new(&stage.path("quiet"))?;
    for number in 0..groups {
        let (name, fifo) = (format!("web{number}"), if number == 0 { &ear.path } else { &quiet.path });
        let text = group(&name, fifo, Some(&stage.path(&format!("mount-{name}"))), "")?;
        stage.repo.write(&format!("groups/{name}/group.toml"), &text);
        stage.repo.write(&format!("groups/{name}/config/app.conf.hbs"), "{{cfg.version}}\n");
    }
    stage.repo.release("v1.0.0");
    stage.supervise()?;
    stage.wait_applied("v1.0.0")?;
    let (mut since_exit, mut since_start) = (Vec::new(), Vec::new());
    for number in 1..=PUSHES {
        let (old, tag) = (number - 1, format!("v1.{number}.0"));
        let line = |version: u32| format!("version = \"{version}\"");
        stage.repo.replace("groups/web0/group.toml", &line(old), &line(number));
        stage.repo.commit(&tag);
        stage.repo.tag_annotated(&tag);
        // Not in step with anything of the supervisor.
        pause(Duration::from_millis(u64::from(150 + number * 37 % 100)));
        let start = now_ns();
        stage.repo.run(&["push", "--quiet", "origin", &tag]);
        let exit = now_ns();
        let told = ear.wait(BOUND, |line| line.kind == "told" && line.text == number.to_string());
        let told = told.ok_or_else(|| format!("the service was not told of {tag}"))?;
        since_exit.push(ms_between(exit, told.at));
        since_start.push(ms_between(start, told.at));
        stage.wait_applied(&tag)?;
    }
    let (since_exit, since_start) = (Sample::new(since_exit), Sample::new(since_start));
    let met = since_exit.percentile(50) <= 100.0 && since_exit.percentile(99) <= 300.0;
    Ok(vec![
        Row::new(
            format!("end of `git push` → service told, {groups} group(s)"),
            "p50 <= 100, p99 <= 300 ms",
            since_exit.words("ms"),
            met,
        ),
        Row::told(format!("start of `git push` → service told, {groups} group(s)"), since_start.words("ms")),
    ])
}
