//! Running cargo in this workspace.

use std::env;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use local_stack::running::Running;

use crate::interrupt::{Interrupt, Interrupts};

/// cargo, at the workspace root. When cargo runs xtask, it says which cargo that is.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(local_stack::workspace_root());
    // Meant for the process that cargo started, which is this one, not for its children.
    for variable in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(variable);
    }
    command
}

/// Runs to the end, with our own standard output and error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("run {}", shown(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", shown(command));
    Ok(())
}

/// A signal to this process has ended what it did.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// As [`run`], but a signal to this process ends the command, which is then given the time to clean up; fails with [`Interrupted`] then.
pub(crate) fn run_until_interrupted(command: &mut Command, interrupts: &Interrupts) -> anyhow::Result<()> {
    const CLEAN_UP_DEADLINE: Duration = Duration::from_mins(1);
    const POLL_INTERVAL: Duration = Duration::from_millis(50);
    let mut child = command.spawn().with_context(|| format!("run {}", shown(command)))?;
    let process = Running::now(child.id());
    let mut is_interrupted = false;
    let status = loop {
        if let Some(status) = child.try_wait().context("wait for a command")? {
            break status;
        }
        // Ctrl-C has reached the command as well; to pass it on would mean that we are in a hurry.
        let interrupt = interrupts.within(POLL_INTERVAL);
        is_interrupted |= interrupt.is_some();
        if interrupt == Some(Interrupt::FromElsewhere)
            && let Some(process) = process
        {
            process.stop_politely(CLEAN_UP_DEADLINE);
        }
    };
    if is_interrupted && !status.success() {
        return Err(Interrupted.into());
    }
    ensure!(status.success(), "`{}` failed ({status})", shown(command));
    Ok(())
}

/// Runs to the end. Returns standard output; the error, if it fails, has standard error.
pub(crate) fn read(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("run {}", shown(command)))?;
    ensure!(
        output.status.success(),
        "`{}` failed ({}):\n{}",
        shown(command),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    String::from_utf8(output.stdout).with_context(|| format!("read what {} prints", shown(command)))
}

/// Builds the services with the profile that xtask was built with, so that they end up beside it. cargo shows its progress.
pub(crate) fn build_services() -> anyhow::Result<()> {
    build(&["--bins"])
}

/// Builds the services and all tests, in one go: cargo chooses the features of a dependency for all that it builds together, and would
/// build many of them twice otherwise.
pub(crate) fn build_services_and_tests() -> anyhow::Result<()> {
    build(&["--all-targets"])
}

fn build(targets: &[&str]) -> anyhow::Result<()> {
    let executable = env::current_exe().context("find the running executable")?;
    let mut command = command();
    command.args(["build", "--workspace"]).args(targets);
    if executable.parent().is_some_and(|folder| folder.ends_with("release")) {
        command.arg("--release");
    }
    run(&mut command)
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
