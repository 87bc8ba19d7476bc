//! Processes as /proc shows them: whose children, which number in another namespace, how much memory.

use std::fmt::Display;

fn status_line(pid: impl Display, name: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}

/// The threads of a process.
pub fn threads(pid: impl Display) -> Vec<u32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The children of a process, of all its threads: the kernel lists them by the thread that made them. None of one that is gone.
pub fn children(pid: impl Display) -> Vec<u32> {
    let list = |thread: u32| std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).ok();
    let lists = threads(&pid).into_iter().filter_map(list);
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// How many children of a process have ended and were not collected.
pub fn zombies(pid: impl Display) -> usize {
    let ended = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    };
    children(pid).iter().filter(|pid| ended(pid)).count()
}

/// The number out here of the process that has number `inside` in a namespace below this one: `root` itself or one that
/// descends from it.
pub fn number_of(root: u32, inside: u32) -> Option<u32> {
    let mut all = vec![root];
    while let Some(pid) = all.pop() {
        let numbers = status_line(pid, "NSpid:").unwrap_or_default();
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        if numbers.len() > 1 && numbers.last().is_some_and(|last| last.parse() == Ok(inside)) {
            return Some(pid);
        }
        all.extend(children(pid));
    }
    None
}

/// Memory of a process that is its own and backed by no file, in KiB.
pub fn memory_kib(pid: impl Display) -> Option<u64> {
    status_line(pid, "RssAnon:")?.trim().trim_end_matches(" kB").parse().ok()
}
