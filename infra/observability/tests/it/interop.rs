//! What Prometheus' own tool says of our files. It is in Debian's package `prometheus`, so these tests run when they are asked for:
//!
//! `cargo xtask test -- -p observability --run-ignored only -E 'test(interop)'`

use std::process::Command;

use observability::folder;

use super::files;

fn promtool(arguments: &[&str], files: &[std::path::PathBuf]) {
    let output = Command::new("promtool").args(arguments).args(files).current_dir(folder()).output();
    let output = output.unwrap_or_else(|error| panic!("promtool, of Debian's package prometheus: {error}"));
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "promtool {}: {said}", arguments.join(" "));
    println!("{said}");
}

#[test]
#[ignore = "needs promtool"]
fn interop_promtool_finds_no_fault_with_the_rules() {
    promtool(&["check", "rules", "--lint-fatal"], &files("prometheus/rules", "yaml"));
    promtool(&["check", "config", "--lint-fatal"], &[folder().join("prometheus/prometheus.yaml")]);
}

#[test]
#[ignore = "needs promtool"]
fn interop_every_alert_fires_when_it_should_and_only_then() {
    promtool(&["test", "rules"], &files("prometheus/tests", "yaml"));
}
