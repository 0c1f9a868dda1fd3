//! `processes.json`: which processes belong to a stack, so that a later command can take it down.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::{SERVICE_STOP_DEADLINE, folder, info, services};
use crate::postgres;
use crate::process::Lifetime;
use crate::running::Running;

/// How long the owner of a stack may take to shut it down: as long as the services, the simulator and the servers together.
const OWNER_STOP_DEADLINE: Duration = Duration::from_secs(SERVICE_STOP_DEADLINE.as_secs() * 2 + 45);
const SERVER_STOP_DEADLINE: Duration = Duration::from_secs(30);

/// The processes of the stack in a folder, running or not.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StackRecord {
    /// The process that the others die with, if they are not detached.
    pub owner: Option<Running>,
    /// The others, by name.
    pub processes: BTreeMap<String, Running>,
}

impl StackRecord {
    /// The record of the stack in this folder; empty if there is none.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        match fs::read(directory.join("processes.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).context("decode processes.json"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).context("read processes.json"),
        }
    }

    /// Those of the processes that still run.
    pub fn alive(&self) -> Vec<(String, Running)> {
        self.processes.iter().filter(|(_, process)| process.is_alive()).map(|(name, process)| (name.clone(), *process)).collect()
    }
}

pub(super) fn write(directory: &Path, pids: &BTreeMap<String, u32>, lifetime: Lifetime) -> anyhow::Result<()> {
    let owner = if lifetime == Lifetime::Tied { Running::now(std::process::id()) } else { None };
    let processes = pids.iter().filter_map(|(name, pid)| Some((name.clone(), Running::now(*pid)?))).collect();
    info::replace(&directory.join("processes.json"), &StackRecord { owner, processes })
}

/// Once nothing runs, nothing says that something does.
pub(super) fn forget(directory: &Path) -> anyhow::Result<()> {
    for name in ["stack.json", "processes.json"] {
        folder::remove(&directory.join(name), |path| fs::remove_file(path))?;
    }
    Ok(())
}

/// Ends the stack in this folder, whoever started it, and keeps its data. Every process is told to stop, and killed after its
/// deadline (35 s for a service). Processes that only happen to have a recorded pid are left alone.
///
/// Returns the names of those that ran, each with whether it stopped by itself; empty if there was no stack.
pub fn take_down(directory: &Path) -> anyhow::Result<Vec<(String, bool)>> {
    let record = StackRecord::read(directory)?;
    let mut ended = Vec::new();
    let owner = record.owner.filter(Running::is_alive);
    if let Some(owner) = owner {
        // It knows best how to take its stack down; should it be stuck, it is killed, and the others die with it.
        let by_itself = owner.stop(Signal::SIGTERM, OWNER_STOP_DEADLINE);
        ended.extend(record.processes.keys().map(|name| (name.clone(), by_itself)));
    }
    for phase in services::STOP_PHASES {
        let running =
            phase.iter().filter_map(|name| Some((*name, record.processes.get(*name).filter(|process| process.is_alive())?)));
        thread::scope(|scope| {
            let stopping: Vec<_> = running.map(|(name, process)| (name, scope.spawn(|| stop(name, *process)))).collect();
            for (name, stopping) in stopping {
                ended.push((name.to_owned(), stopping.join().expect("stopping a process does not panic")));
            }
        });
    }
    forget(directory)?;
    Ok(ended)
}

/// SIGKILL for every process of the stack in this folder (not for its owner), for when there is no time to stop it; Postgres gets the signal that
/// comes next to that.
pub fn kill_processes(directory: &Path) -> anyhow::Result<()> {
    for (name, process) in StackRecord::read(directory)?.alive() {
        if name == services::POSTGRES {
            process.stop(postgres::IMMEDIATE_SHUTDOWN, SERVER_STOP_DEADLINE);
        } else {
            process.kill();
        }
    }
    Ok(())
}

fn stop(name: &str, process: Running) -> bool {
    match name {
        // To Postgres, SIGTERM means to wait until the last client has gone.
        services::POSTGRES => process.stop(Signal::SIGINT, SERVER_STOP_DEADLINE),
        services::NATS | "nats-1" | "nats-2" | "nats-3" => process.stop(Signal::SIGTERM, SERVER_STOP_DEADLINE),
        _ => process.stop(Signal::SIGTERM, SERVICE_STOP_DEADLINE),
    }
}
