//! A stack for one command: started with it, and nothing of it is left when it ends, fails or is interrupted, but for the logs of a failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use local_stack::process;
use local_stack::stack::{self, Stack, StackOptions};

use crate::interrupt::Interrupts;
use crate::progress::Progress;
use crate::{EXIT_INTERRUPTED, cargo};

/// Builds the services, starts a stack in a folder named after `purpose` with what `change` makes of the usual options, does `work` on it, and
/// takes it down.
pub(crate) fn run(
    purpose: &'static str,
    change: impl FnOnce(&mut StackOptions),
    work: impl FnOnce(&mut Stack) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    cargo::build_services()?;
    remove_abandoned(purpose)?;
    let directory = local_stack::data_directory().join(format!("{purpose}-{}", std::process::id()));
    let interrupts = Interrupts::listen()?;
    let mut options = StackOptions::new(&directory);
    change(&mut options);
    let running =
        thread::Builder::new().name(purpose.to_owned()).spawn(move || start_and_work(options, work)).context("start a thread")?;
    while !running.is_finished() {
        if interrupts.within(Duration::from_millis(50)).is_some() {
            eprintln!("interrupted, removing the stack of this {purpose}");
            stack::kill_processes(&directory)?;
            remove(&directory)?;
            process::reap();
            std::process::exit(EXIT_INTERRUPTED.into());
        }
    }
    let outcome = running.join().expect("the work reports its failures");
    // The logs explain a failure best.
    if outcome.is_err() {
        eprintln!("the logs are in {}, until the next {purpose}", directory.join("logs").display());
        return outcome;
    }
    remove(&directory)
}

fn start_and_work(options: StackOptions, work: impl FnOnce(&mut Stack) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let progress = Progress::start();
    let mut stack = Stack::start(options, |step| progress.step(step))?;
    drop(progress);
    let outcome = work(&mut stack);
    let shut_down = stack.shut_down();
    outcome.and(shut_down)
}

/// What a command that was killed, or has failed, has left behind.
fn remove_abandoned(purpose: &str) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(local_stack::data_directory()) else { return Ok(()) };
    let prefix = format!("{purpose}-");
    let is_abandoned = |path: &PathBuf| {
        let pid = path.file_name().and_then(|name| name.to_str()?.strip_prefix(&prefix)?.parse::<u32>().ok());
        pid.is_some() && stack::ensure_not_running(path).is_ok()
    };
    for folder in entries.flatten().map(|entry| entry.path()).filter(is_abandoned) {
        remove(&folder)?;
    }
    Ok(())
}

fn remove(directory: &Path) -> anyhow::Result<()> {
    stack::remove_data(directory)?;
    fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))
}
