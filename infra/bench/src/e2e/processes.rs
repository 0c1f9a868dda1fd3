//! What the processes of a stack use: time on the CPU and memory, as Linux accounts for them.

use std::{collections::BTreeMap, fs};

use anyhow::Context as _;
use local_stack::{StackInfo, stack::POSTGRES};

/// `sysconf(_SC_CLK_TCK)` is 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;
/// The name under which the load itself appears.
pub(super) const LOAD: &str = "load";

/// Seconds on the CPU and resident memory of one process, with its children where it has some.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    pub(super) cpu_s: f64,
    pub(super) rss_mb: f64,
}

/// What every process of the stack has used so far, by name, and this process as [`LOAD`].
pub(super) fn usage(info: &StackInfo) -> anyhow::Result<BTreeMap<String, Usage>> {
    let mut usage = BTreeMap::new();
    for (name, pid) in &info.pids {
        let mut process = Process::read(*pid).with_context(|| format!("look at {name}"))?;
        if name == POSTGRES {
            // One process per connection. What ended ones used is in the parent's account. Their memory is mostly shared, so
            // the sum of what each has for itself is counted.
            for child in children_of(*pid) {
                process.cpu_ticks += child.cpu_ticks;
                process.rss_kib += child.rss_kib;
            }
        }
        usage.insert(name.clone(), process.usage());
    }
    usage.insert(LOAD.to_owned(), Process::read(std::process::id()).context("look at this process")?.usage());
    Ok(usage)
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Process {
    parent: u32,
    cpu_ticks: u64,
    rss_kib: u64,
}

impl Process {
    fn read(pid: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Self::parse(&stat, &status).with_context(|| format!("understand /proc/{pid}/stat"))
    }

    /// From proc(5): after the command in parentheses come the state, the parent (field 4), …, utime, stime, cutime, cstime (14 to 17).
    fn parse(stat: &str, status: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let cpu_ticks = number(14)? + number(15)? + number(16)? + number(17)?;
        // Pages of its own; those that Postgres' processes share would be counted once for each.
        let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let rss_kib = own.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        Some(Self { parent: u32::try_from(number(4)?).ok()?, cpu_ticks, rss_kib })
    }

    #[expect(clippy::cast_precision_loss, reason = "neither ticks nor KiB come near 2^53")]
    fn usage(self) -> Usage {
        Usage { cpu_s: self.cpu_ticks as f64 / TICKS_PER_SECOND, rss_mb: self.rss_kib as f64 / 1024.0 }
    }
}

fn children_of(parent: u32) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // One that ends meanwhile is none any more.
    pids.filter_map(|pid| Process::read(pid).ok()).filter(|process| process.parent == parent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_memory_are_read_also_after_a_strange_command() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 3 0 100 1000000 500 18446744073709551615";
        let status = "Name:\ta) b\nVmRSS:\t   4096 kB\nRssAnon:\t    2048 kB\nRssFile:\t    2048 kB\n";
        let process = Process::parse(stat, status).unwrap();
        assert_eq!(process, Process { parent: 7, cpu_ticks: 110, rss_kib: 2048 });
        assert_eq!(process.usage(), Usage { cpu_s: 1.1, rss_mb: 2.0 });
        assert_eq!(Process::parse("nonsense", ""), None);
    }

    #[test]
    fn this_process_is_found() {
        assert!(Process::read(std::process::id()).unwrap().rss_kib > 0);
    }
}
