//! `cargo xtask demo`: a stack of its own, a load of orders, a verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use local_stack::stack::{self, Stack, StackOptions};

use crate::interrupt::Interrupts;
use crate::progress::Progress;
use crate::{EXIT_INTERRUPTED, arguments, cargo};

const FOLDER_PREFIX: &str = "demo-";

pub(crate) fn run(arguments: &arguments::Demo) -> anyhow::Result<()> {
    cargo::build_services()?;
    remove_abandoned()?;
    let directory = local_stack::data_directory().join(format!("{FOLDER_PREFIX}{}", std::process::id()));
    let interrupts = Interrupts::listen()?;
    let load = e2e::demo::Options { orders: arguments.orders, rate: arguments.rate, json: arguments.json };
    let options = StackOptions::new(&directory);
    let running =
        thread::Builder::new().name("demo".to_owned()).spawn(move || start_and_load(options, load)).context("start a thread")?;
    while !running.is_finished() {
        if interrupts.within(Duration::from_millis(50)).is_some() {
            eprintln!("interrupted, removing the demo's stack");
            stack::kill_processes(&directory)?;
            remove(&directory)?;
            std::process::exit(EXIT_INTERRUPTED.into());
        }
    }
    let outcome = running.join().expect("a demo reports its failures");
    // The logs explain a failure best.
    if outcome.is_err() {
        eprintln!("the logs are in {}, until the next demo", directory.join("logs").display());
        return outcome;
    }
    remove(&directory)
}

fn start_and_load(options: StackOptions, load: e2e::demo::Options) -> anyhow::Result<()> {
    let progress = Progress::start();
    let mut stack = Stack::start(options, |step| progress.step(step))?;
    drop(progress);
    let outcome = e2e::demo::run(&mut stack, load).map(drop);
    let shut_down = stack.shut_down();
    outcome.and(shut_down)
}

/// What a demo that was killed, or has failed, has left behind.
fn remove_abandoned() -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(local_stack::data_directory()) else { return Ok(()) };
    let is_abandoned = |path: &PathBuf| {
        let pid = path.file_name().and_then(|name| name.to_str()?.strip_prefix(FOLDER_PREFIX)?.parse::<u32>().ok());
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
