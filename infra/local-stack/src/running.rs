//! Processes that were started by somebody else: are they still the same ones, and how to end them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::{probe, process, scratch};

/// How long the kernel may take to end a process.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Process id.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub started_ticks: u64,
}

impl Running {
    /// The process that has this pid now; `None` when there is none, or only its zombie.
    pub fn now(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses, which may contain anything.
        let (_, after_name) = stat.rsplit_once(") ")?;
        let mut fields = after_name.split(' ');
        let state = fields.next()?;
        if matches!(state, "Z" | "X") {
            return None;
        }
        let started_ticks = fields.nth(18)?.parse().ok()?;
        Some(Self { pid, started_ticks })
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        Self::now(self.pid).as_ref() == Some(self)
    }

    /// SIGKILL, if it still runs; returns when it is gone.
    pub fn kill(&self) {
        self.stop(Signal::SIGKILL, KILL_DEADLINE);
    }

    /// SIGTERM; after `deadline` SIGKILL. Returns whether it went by itself.
    pub fn stop_politely(&self, deadline: Duration) -> bool {
        self.stop(Signal::SIGTERM, deadline)
    }

    /// Sends `signal` and waits until it is gone; after `deadline` SIGKILL. Returns whether it went by itself.
    pub fn stop(&self, signal: Signal, deadline: Duration) -> bool {
        let gone_within = |deadline| {
            let gone = probe::poll(deadline, || Ok::<_, std::convert::Infallible>((!self.is_alive()).then_some(())));
            matches!(gone, Ok(Some(())))
        };
        if !self.is_alive() {
            return true;
        }
        process::send(self.pid, signal);
        if gone_within(deadline) {
            return true;
        }
        if self.is_alive() {
            process::send(self.pid, Signal::SIGKILL);
            gone_within(KILL_DEADLINE);
        }
        false
    }
}

/// Processes that the test run `run` left behind, with their command lines: those that have [`TEST_RUN_VARIABLE`] set to it, and
/// those that work in one of its temporary folders (Postgres overwrites its environment). The calling process is left out.
///
/// [`TEST_RUN_VARIABLE`]: crate::TEST_RUN_VARIABLE
pub fn left_behind(run: &str) -> Vec<(Running, String)> {
    let marker = format!("{}={run}", scratch::TEST_RUN_VARIABLE);
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids: BTreeSet<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let found = pids.into_iter().filter(|pid| *pid != std::process::id()).filter_map(|pid| {
        let folder = Path::new("/proc").join(pid.to_string());
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        let is_marked = environment.split(|byte| *byte == 0).any(|entry| entry == marker.as_bytes());
        let works_in_scratch = fs::read_link(folder.join("cwd")).is_ok_and(|path| scratch::is_of_run(&path, run));
        if !is_marked && !works_in_scratch {
            return None;
        }
        let command_line = fs::read(folder.join("cmdline")).unwrap_or_default();
        let command_line = String::from_utf8_lossy(&command_line).replace('\0', " ").trim().to_owned();
        Some((Running::now(pid)?, command_line))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_apart_from_another_with_its_pid() {
        let us = Running::now(std::process::id()).unwrap();
        assert!(us.is_alive());
        assert!(!Running { started_ticks: us.started_ticks + 1, ..us }.is_alive());
    }

    #[test]
    fn what_a_test_run_left_behind_is_found_and_other_processes_are_not() {
        let run = format!("{}-unit-test", std::process::id());
        let start = |run: &str| {
            let mut command = std::process::Command::new("sleep");
            let child = command.arg("60").env(scratch::TEST_RUN_VARIABLE, run).spawn().unwrap();
            // It is there before the kernel says what it was started with.
            while std::fs::read(format!("/proc/{}/environ", child.id())).unwrap().is_empty() {
                std::thread::yield_now();
            }
            child
        };
        let (mut left, mut of_another_run) = (start(&run), start("another"));
        let found = left_behind(&run);
        for child in [&mut left, &mut of_another_run] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let found: Vec<(u32, &str)> = found.iter().map(|(process, command_line)| (process.pid, command_line.as_str())).collect();
        assert_eq!(found, [(left.id(), "sleep 60")]);
    }

    #[test]
    fn stopping_a_process_that_is_gone_sends_nothing() {
        let us = Running::now(std::process::id()).unwrap();
        let other_with_our_pid = Running { started_ticks: us.started_ticks + 1, ..us };
        assert!(other_with_our_pid.stop(Signal::SIGKILL, Duration::from_secs(1)));
    }
}
