//! Output of one service that writes as fast as it can: how much of it the keeper takes in, and what that costs it.
//!
//! What is wanted is a rate for a quarter of a core, so it is measured by the keeper's own processor time, without a cap: bytes
//! over seconds spent, a quarter of that. The service, its pipe and the disk's own threads are not the keeper's.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use crate::Failure;
use crate::clock::{now_ns, pause};
use crate::stage::{Stage, me};
use crate::table::Row;

const BYTES: u64 = 2_000_000_000;
const WANTED_MB: f64 = 200.0;
const WANTED_PEAK_KB: u64 = 16 * 1024;

/// How the service writes: bytes of a line, and of each write.
struct Way {
    what: &'static str,
    line: usize,
    block: usize,
    format: &'static str,
    held: bool,
}

const WAYS: [Way; 5] = [
    Way { what: "lines of 100 bytes, in blocks", line: 100, block: 64_000, format: "text", held: true },
    Way { what: "lines of 1 KB, in blocks", line: 1_000, block: 64_000, format: "text", held: true },
    Way { what: "lines of 100 bytes, in blocks, as JSON", line: 100, block: 64_000, format: "json", held: false },
    Way { what: "lines of 1 KB, in blocks, as JSON", line: 1_000, block: 64_000, format: "json", held: false },
    Way { what: "lines of 100 bytes, a write each", line: 100, block: 100, format: "text", held: false },
];

pub(crate) fn measure() -> Result<Vec<Row>, Failure> {
    let mut stage = Stage::new();
    let mut rows = Vec::new();
    for (number, way) in WAYS.iter().enumerate() {
        let done = stage.path(&format!("done-{number}"));
        let tag = format!("v1.0.{number}");
        stage.repo.write("groups/writer/group.toml", &group(way, &done)?).release(&tag);
        if number == 0 {
            stage.supervise()?;
        }
        while !done.with_extension("ready").exists() {
            pause(Duration::from_millis(5));
        }
        let keeper = stage.keeper_pid();
        // Let it come to rest: only lines are to be measured.
        pause(Duration::from_millis(500));
        let (spent, begun) = (spent_s(keeper)?, now_ns());
        std::fs::write(done.with_extension("go"), "")?;
        while !done.exists() {
            pause(Duration::from_millis(5));
        }
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds and bytes of a benchmark fit")]
        let (seconds, megabytes) = ((now_ns() - begun) as f64 / 1e9, BYTES as f64 / 1e6);
        stage.wait_applied(&tag)?;
        let spent = spent_s(keeper)? - spent;
        let quarter = megabytes / spent / 4.0;
        let said = format!(
            "{quarter:.0} MB/s per quarter of a core ({:.0} MB/s at {:.2} of a core)",
            megabytes / seconds,
            spent / seconds
        );
        rows.push(match way.held {
            true => Row::new(way.what, format!(">= {WANTED_MB:.0} MB/s at 0.25 core"), said, quarter >= WANTED_MB),
            false => Row::told(way.what, said),
        });
    }
    let peak = peak_kb(stage.keeper_pid())?;
    rows.push(Row::new("the keeper's memory at its peak", "bounded", format!("{peak} KB"), peak <= WANTED_PEAK_KB));
    Ok(rows)
}

fn group(way: &Way, done: &Path) -> Result<String, Failure> {
    let Way { line, block, format, .. } = way;
    Ok(format!(
        "format = 1\n[placement]\nlabels = {{}}\n[service]\nkind = \"task\"\n\
         exec = [\"{}\", \"writer\", \"{}\", \"{line}\", \"{block}\"]\n[service.logs]\nformat = \"{format}\"\n",
        me()?,
        done.display()
    ))
}

/// The service: waits for the word, writes, says that it is done.
pub(crate) fn write_lines(done: &str, line: &str, block: &str) -> Result<bool, Failure> {
    let done = Path::new(done);
    let (line, block): (usize, usize) = (line.parse()?, block.parse()?);
    let text = format!("{}\n", "x".repeat(line - 1)).repeat(block / line);
    std::fs::write(done.with_extension("ready"), "")?;
    while !done.with_extension("go").exists() {
        pause(Duration::from_millis(1));
    }
    // Past the buffer that would cut it at lines.
    let mut out = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let mut left = BYTES;
    while left > 0 {
        out.write_all(text.as_bytes())?;
        left = left.saturating_sub(text.len() as u64);
    }
    std::fs::write(done, "")?;
    Ok(true)
}

/// Processor time of a process, of all its threads, in seconds.
fn spent_s(pid: u32) -> Result<f64, Failure> {
    let mut ns = 0.0;
    for thread in common::threads(pid) {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat"))?;
        ns += stat.split(' ').next().ok_or("no time in schedstat")?.parse::<f64>()?;
    }
    Ok(ns / 1e9)
}

fn peak_kb(pid: u32) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(peak.trim().trim_end_matches(" kB").parse()?)
}
