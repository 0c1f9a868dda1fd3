//! Running a service's other subcommands, in the environment of a stack.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use local_stack::Stack;
use tokio::process::Command;
use tokio::time::timeout;

/// Replaying and exporting a large log takes its time.
const DEADLINE: Duration = Duration::from_mins(5);

/// Runs `projectors` with these arguments to its end. Fails, with what it said, when it does; else returns its standard output.
pub(super) async fn projectors(stack: &Stack, arguments: &[&str]) -> anyhow::Result<String> {
    let shown = format!("projectors {}", arguments.join(" "));
    let mut command = Command::from(stack.command("projectors")?);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await.with_context(|| format!("`{shown}` does not end"))?;
    let output = output.with_context(|| format!("run `{shown}`"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "`{shown}` ended with {}:\n{stdout}\n{stderr}", output.status);
    Ok(stdout)
}
