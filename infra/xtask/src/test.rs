//! `cargo xtask test`: the checks, then every test on real servers.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use local_stack::postgres::{PostgresOptions, PostgresServer};
use local_stack::process::{Lifetime, forget_other_servers};
use local_stack::running::{self, Running};
use local_stack::{Durability, TEST_RUN_VARIABLE, testing, toolchain};

use crate::interrupt::Interrupts;
use crate::{arguments, cargo, tidy};

pub(crate) fn run(arguments: &arguments::Test) -> anyhow::Result<()> {
    if !arguments.no_tidy {
        tidy::run()?;
    }
    // The tests of the whole system start the services as processes, the others do not need them.
    let is_selective = selects_packages(&arguments.arguments);
    if !is_selective {
        // The commands of the documents are tested, too.
        toolchain::program("curl")?;
        cargo::build_services_and_tests()?;
    } else if arguments.arguments.iter().any(|argument| argument.contains("e2e")) {
        cargo::build_services()?;
    }

    // A name for this run, which every process that it starts inherits.
    let this = Running::now(std::process::id()).context("find this process in /proc")?;
    let run = format!("{}-{}", this.pid, this.started_ticks);
    // Interrupted, the test runner stops its tests and ends; then we clean up as always.
    let interrupts = Interrupts::listen()?;
    let postgres = PostgresServer::start(PostgresOptions {
        directory: None,
        log: None,
        port: None,
        durability: Durability::PageCache,
        lifetime: Lifetime::Tied,
    })
    .context("start the Postgres server that the tests share")?;
    let on_test_servers = |mut command: Command| {
        forget_other_servers(&mut command);
        command.env(testing::POSTGRES_VARIABLE, postgres.admin_url()).env(TEST_RUN_VARIABLE, &run);
        cargo::run_until_interrupted(&mut command, &interrupts)
    };
    let mut outcome = on_test_servers(runner(&arguments.arguments)?);
    if outcome.is_ok() && arguments.arguments.is_empty() {
        let mut doc_tests = cargo::command();
        doc_tests.args(["test", "--workspace", "--doc"]);
        outcome = on_test_servers(doc_tests);
    }
    drop(postgres);
    let left_behind = end_what_is_left_behind(&run);
    outcome.and(left_behind)
}

/// cargo-nextest, which gives every test a process and a deadline of its own, or what comes with cargo.
fn runner(arguments: &[String]) -> anyhow::Result<Command> {
    let mut nextest = cargo::command();
    nextest.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut command = cargo::command();
    if nextest.status().context("run cargo")?.success() {
        command.args(["nextest", "run"]);
    } else {
        eprintln!("cargo-nextest is not installed, so `cargo test` runs the tests: one after the other, without deadlines");
        // The tests of the whole system must not run beside others, which nextest's groups see to.
        command.env("RUST_TEST_THREADS", "1").args(["test", "--tests"]);
    }
    if !selects_packages(arguments) {
        command.arg("--workspace");
    }
    command.args(arguments);
    Ok(command)
}

fn selects_packages(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument == "-p" || argument.starts_with("--package"))
}

/// A test that leaves a process behind has failed, even if it says otherwise.
fn end_what_is_left_behind(run: &str) -> anyhow::Result<()> {
    let left_behind = running::left_behind(run);
    if left_behind.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = left_behind.iter().map(|(process, command_line)| format!("{} {command_line}", process.pid)).collect();
    for (process, _) in &left_behind {
        process.kill();
    }
    bail!(
        "the tests left these processes behind (they are killed now); each test must stop what it has started:\n  {}",
        shown.join("\n  ")
    );
}
