//! `cargo xtask up`: the whole system on this machine.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use comfy_table::{Table, presets};
use local_stack::process::{self, Lifetime};
use local_stack::stack::{self, Stack, StackInfo, StackOptions};

use crate::interrupt::Interrupts;
use crate::progress::Progress;
use crate::{EXIT_INTERRUPTED, arguments, cargo};

/// How often a process that ends by itself is started again before we leave it dead.
const RESTARTS_MAX: u32 = 5;
const SUPERVISION_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: arguments::Up) -> anyhow::Result<()> {
    let directory = local_stack::data_directory();
    // Known before the build, which takes its time.
    stack::ensure_not_running(&directory)?;
    cargo::build_services()?;

    let started = Instant::now();
    let interrupts = Interrupts::listen()?;
    let options = StackOptions {
        lifetime: if arguments.detach { Lifetime::Detached } else { Lifetime::Tied },
        nats_url: arguments.nats_url.filter(|url| !url.is_empty()),
        database_url: arguments.database_url.filter(|url| !url.is_empty()),
        // Whoever is to mend that needs the system for it.
        may_be_halted: true,
        ..StackOptions::new(&directory)
    };
    // Often these are left over in a shell from a look at an earlier stack.
    for (variable, given) in [("NATS_URL", &options.nats_url), ("DATABASE_URL", &options.database_url)] {
        if given.is_some() {
            eprintln!("using the server of {variable} instead of starting one");
        }
    }
    let stack = start(options, &interrupts)?;

    println!("{}", table(stack.info()));
    if let Some(token) = stack.info().tokens.get("auditor") {
        // The page takes the token from there; what follows a # is not sent to anybody.
        println!("GraphiQL as an auditor: {}/#token={token}", stack.info().query_api);
    }
    println!("Details: {}   Logs: {}", shown(&stack, "stack.json"), shown(&stack, "logs"));
    let halted = stack.halted();
    for halt in halted {
        eprintln!("{halt}");
    }
    if halted.is_empty() {
        eprintln!("ready after {:.1} s", started.elapsed().as_secs_f64());
    } else {
        eprintln!(
            "all else is ready; a halted projection goes on with a build that can apply the event, or after `projectors skip`"
        );
    }
    if arguments.detach {
        println!("`cargo xtask down` stops it.");
        stack.leave_running();
        return Ok(());
    }
    println!("Ctrl-C stops it.");
    supervise(stack, &interrupts)
}

/// Starts the stack; an interrupt meanwhile takes down what has been started and ends this process.
fn start(options: StackOptions, interrupts: &Interrupts) -> anyhow::Result<Stack> {
    let directory = options.directory.clone();
    let starting = thread::Builder::new()
        .name("start".to_owned())
        .spawn(move || {
            let progress = Progress::start();
            Stack::start(options, |step| progress.step(step))
        })
        .context("start a thread")?;
    let mut is_interrupted = false;
    while !starting.is_finished() {
        if interrupts.within(Duration::from_millis(100)).is_some() && !is_interrupted {
            is_interrupted = true;
            eprintln!("interrupted, taking down what has been started");
        }
        if is_interrupted {
            // Its processes gone, the start fails, if it has not just succeeded.
            stack::kill_processes(&directory)?;
        }
    }
    let outcome = starting.join().expect("starting a stack does not panic");
    if is_interrupted {
        drop(outcome);
        stack::kill_processes(&directory)?;
        process::reap();
        std::process::exit(EXIT_INTERRUPTED.into());
    }
    outcome
}

/// Keeps the stack running until somebody interrupts us.
fn supervise(mut stack: Stack, interrupts: &Interrupts) -> anyhow::Result<()> {
    let mut restarts: BTreeMap<&str, u32> = BTreeMap::new();
    while interrupts.within(SUPERVISION_INTERVAL).is_none() {
        for (name, how) in stack.ended() {
            let restarts = restarts.entry(name).or_default();
            *restarts += 1;
            if *restarts > RESTARTS_MAX {
                continue;
            }
            eprintln!("{name} ended ({how}), starting it again");
            if let Err(error) = stack.spawn(name) {
                eprintln!("{error:#}");
            }
            if *restarts == RESTARTS_MAX {
                eprintln!(
                    "{name} has ended {RESTARTS_MAX} times; the next time it stays down. Its log: {}",
                    stack.log(name).display()
                );
            }
        }
    }
    eprintln!("stopping");
    // Whoever is impatient interrupts again, and everything dies with us.
    let finished = thread::spawn(move || stack.shut_down());
    while !finished.is_finished() {
        if interrupts.within(Duration::from_millis(50)).is_some() {
            std::process::exit(EXIT_INTERRUPTED.into());
        }
    }
    finished.join().expect("shutting down does not panic")
}

fn table(info: &StackInfo) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.add_row(["place orders (HTTP)", &format!("{}/v1", info.command_api)]);
    table.add_row(["its documentation", &format!("{}/docs", info.command_api)]);
    table.add_row(["its OpenAPI document", &format!("{}/openapi.json", info.command_api)]);
    table.add_row(["query orders (GraphiQL)", &format!("{}/", info.query_api)]);
    table.add_row(["query orders (GraphQL)", &format!("{}/graphql", info.query_api)]);
    table.add_row(["projectors", &format!("{}/ready", info.projectors)]);
    table.add_row(["reactors", &format!("{}/ready", info.reactors)]);
    table.add_row(["payment simulator", &format!("{}/_control", info.payment_simulator)]);
    table.add_row(["NATS", &without_password(&info.nats)]);
    table.add_row(["Postgres", &without_password(&info.database)]);
    table.add_row(["bearer tokens", "`cargo xtask token --role customer|service|operator|auditor`"]);
    table
}

/// The password is in `stack.json`, which only its owner can read; a terminal is seen by others.
fn without_password(url: &str) -> String {
    let hidden = || {
        let (scheme, rest) = url.split_once("://")?;
        let (credentials, location) = rest.rsplit_once('@')?;
        let (user, _) = credentials.split_once(':')?;
        Some(format!("{scheme}://{user}:…@{location}"))
    };
    hidden().unwrap_or_else(|| url.to_owned())
}

fn shown(stack: &Stack, name: &str) -> String {
    let path = stack.directory().join(name);
    path.strip_prefix(local_stack::workspace_root()).unwrap_or(&path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(
            without_password("postgres://contrail:secret@127.0.0.1:5432/contrail"),
            "postgres://contrail:…@127.0.0.1:5432/contrail"
        );
        assert_eq!(without_password("postgres://127.0.0.1/contrail"), "postgres://127.0.0.1/contrail");
    }
}
