//! What is written into a group before its service is in it, and what the kernel has counted there.

use std::fs;
use std::io;
use std::path::Path;

use super::Controller;
use crate::model::Limits;

/// Over which time processor time is shared out, in microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

/// Smallest quota that the kernel takes, in microseconds.
const CPU_QUOTA_MIN_US: u64 = 1_000;

/// Writes to a file of the kernel's, in one call.
pub(super) fn put(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    // Not created: a file that the kernel does not have is an error.
    use std::io::Write as _;
    fs::OpenOptions::new().write(true).open(dir.join(file))?.write_all(value.as_bytes())
}

/// Sets one limit, or takes it away.
pub(super) fn set(controller: Controller, unified: bool, dir: &Path, limits: &Limits) -> io::Result<()> {
    match controller {
        Controller::Memory if unified => {
            put(dir, "memory.max", &or(limits.memory, "max"))?;
            // Without it the surplus would only move to the disk. Kernels without swap do not have the file.
            let swap = if limits.memory.is_some() { "0" } else { "max" };
            absent_is_fine(put(dir, "memory.swap.max", swap))
        }
        Controller::Memory => {
            // The sum with swap may never be the smaller one, so it is raised before and lowered after.
            absent_is_fine(put(dir, "memory.memsw.limit_in_bytes", "-1"))?;
            put(dir, "memory.limit_in_bytes", &or(limits.memory, "-1"))?;
            absent_is_fine(put(dir, "memory.memsw.limit_in_bytes", &or(limits.memory, "-1")))
        }
        Controller::Pids => put(dir, "pids.max", &or(limits.pids, "max")),
        Controller::Cpu if unified => put(dir, "cpu.max", &format!("{} {CPU_PERIOD_US}", or(limits.cpu.map(quota_us), "max"))),
        Controller::Cpu => {
            put(dir, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
            put(dir, "cpu.cfs_quota_us", &or(limits.cpu.map(quota_us), "-1"))
        }
        Controller::Freezer => Ok(()),
    }
}

fn or(limit: Option<u64>, none: &str) -> String {
    limit.map_or_else(|| none.to_owned(), |limit| limit.to_string())
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Microseconds of processor time per period.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float beyond the range becomes its end")]
pub(super) fn quota_us(cores: f64) -> u64 {
    ((cores * CPU_PERIOD_US as f64).round() as u64).max(CPU_QUOTA_MIN_US)
}

/// How often the kernel has killed a process of this group for want of memory. On kernels that do not count it, how often
/// the limit was hit.
pub(super) fn ooms(unified: bool, dir: &Path) -> u64 {
    let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
    if unified {
        return field(&read("memory.events"), "oom_kill").unwrap_or(0);
    }
    let counted = field(&read("memory.oom_control"), "oom_kill");
    counted.or_else(|| read("memory.failcnt").trim().parse().ok()).unwrap_or(0)
}

/// A value of a file with lines `name value`.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().filter_map(|line| line.split_once(' ')).find(|(key, _)| *key == name)?.1.trim().parse().ok()
}
