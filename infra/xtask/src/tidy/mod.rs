//! `cargo xtask tidy`: what can be held by a machine. Each check is a function in a file of its own, and its error says what to do.

mod dependencies;
mod documents;
mod golden;

use std::process::Stdio;

use anyhow::{Context as _, bail};

use crate::cargo;

type Check = fn() -> anyhow::Result<()>;

const CHECKS: [(&str, Check); 5] = [
    ("dependency rules", dependencies::check),
    ("golden files", golden::check),
    ("commands in the documents", documents::check),
    ("formatting", formatting),
    ("lints", lints),
];

/// Runs every check, also after one has failed.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        match check() {
            Ok(()) => eprintln!("tidy: {name}: ok"),
            Err(error) => {
                eprintln!("tidy: {name}: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("not tidy: {}", failed.join(", "));
    }
    Ok(())
}

/// Whether cargo has this subcommand. What a minimal toolchain lacks is not checked there, and `.ci/run` does not do without.
fn can_check(what: &str, subcommand: &str, component: &str) -> anyhow::Result<bool> {
    let mut version = cargo::command();
    version.args([subcommand, "--version"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let is_there = version.status().context("run cargo")?.success();
    if !is_there {
        eprintln!("tidy: {what} not checked, as {component} is not installed: `rustup component add {component}`");
    }
    Ok(is_there)
}

fn formatting() -> anyhow::Result<()> {
    if !can_check("formatting is", "fmt", "rustfmt")? {
        return Ok(());
    }
    cargo::run(cargo::command().args(["fmt", "--all", "--check"])).map_err(|error| error.context("run `cargo fmt --all`"))
}

fn lints() -> anyhow::Result<()> {
    if !can_check("lints are", "clippy", "clippy")? {
        return Ok(());
    }
    cargo::run(cargo::command().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
        .map_err(|error| error.context("follow what clippy says above, or say why not with `#[expect(…, reason = \"…\")]`"))
}
