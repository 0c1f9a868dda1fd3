//! `cargo xtask bench NAME`: figures, each with the limit that was measured in the same run.

use std::thread;
use std::time::Duration;

use ::bench::Options;
use anyhow::{Context as _, ensure};
use clap::CommandFactory as _;
use clap::error::ErrorKind;
use tokio::sync::oneshot;

use crate::interrupt::Interrupts;
use crate::{EXIT_INTERRUPTED, arguments};

/// The services were built by the launcher, together with this program.
pub(crate) fn run(arguments: arguments::Bench) -> anyhow::Result<()> {
    let arguments::Bench { name, json, runs, quick, case, orders, events, rate } = arguments;
    if let Err(unknown) = name.check_cases(&case) {
        arguments::Arguments::command().error(ErrorKind::InvalidValue, unknown).exit();
    }
    ensure!(
        !cfg!(debug_assertions),
        "this is a debug build, whose figures mean nothing; `cargo xtask bench` makes a release build"
    );
    let options = Options { runs, quick, cases: case, orders, events, rate };
    let interrupts = Interrupts::listen()?;
    let (interrupt, interrupted) = oneshot::channel();
    let running = thread::Builder::new()
        .name("bench".to_owned())
        .spawn(move || {
            ::bench::run(name, &options, async {
                // The sender lives as long as this thread's result is waited for.
                let _ = interrupted.await;
            })
        })
        .context("start a thread")?;
    let mut interrupt = Some(interrupt);
    while !running.is_finished() {
        if interrupts.within(Duration::from_millis(50)).is_some() {
            match interrupt.take() {
                Some(interrupt) => {
                    eprintln!("interrupted, removing the benchmark's servers and their data");
                    let _ = interrupt.send(());
                }
                // In a hurry: the processes die with this one, and the next benchmark removes their data.
                None => std::process::exit(EXIT_INTERRUPTED.into()),
            }
        }
    }
    let Some(report) = running.join().expect("a benchmark reports its failures")? else {
        std::process::exit(EXIT_INTERRUPTED.into());
    };
    if json {
        println!("{}", report.to_json()?);
    } else {
        println!("{}", report.to_table());
    }
    Ok(())
}
