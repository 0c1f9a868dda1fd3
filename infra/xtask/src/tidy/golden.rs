//! Events are stored for ever, so a golden file, which shows how a version of an event was stored, is never edited.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::bail;

use crate::cargo;

const FOLDER: &str = "domain/tests/golden";

/// Every golden file that has ever been committed is there, and is what its first commit says.
pub(super) fn check() -> anyhow::Result<()> {
    if cargo::read(git().args(["rev-parse", "--verify", "--quiet", "HEAD"])).is_err() {
        // No repository, or nothing committed yet: there is no history to hold the files against.
        return Ok(());
    }
    let history =
        ["log", "--reverse", "--no-renames", "--diff-filter=A", "--raw", "--no-abbrev", "--format=", "--relative", "--", FOLDER];
    let mut changed = Vec::new();
    for (file, first) in first_versions(&cargo::read(git().args(history))?) {
        let now = cargo::read(git().args(["hash-object", "--", &file])).unwrap_or_default();
        if now.trim() != first {
            changed.push(format!("{file} (`git show {first}` has the original)"));
        }
    }
    if !changed.is_empty() {
        bail!(
            "stored events never change, so neither does a golden file. Restore these, and for another shape of an event add a version \
             (.v2) with a golden file of its own, and an upcaster:\n  {}",
            changed.join("\n  ")
        );
    }
    Ok(())
}

/// The first blob of each file, from `git log --reverse --raw` of additions: `:000000 100644 0000… <blob> A<tab><file>`.
fn first_versions(log: &str) -> BTreeMap<String, String> {
    let mut first = BTreeMap::new();
    for line in log.lines() {
        let Some((description, file)) = line.split_once('\t') else { continue };
        if let Some(blob) = description.split(' ').nth(3) {
            first.entry(file.to_owned()).or_insert_with(|| blob.to_owned());
        }
    }
    first
}

fn git() -> Command {
    let mut git = Command::new("git");
    // File names as they are, whatever they contain.
    git.args(["-c", "core.quotePath=false"]).current_dir(local_stack::workspace_root());
    git
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_of_a_file_counts() {
        let log = "\
:000000 100644 0000000 aaa A\tdomain/tests/golden/order.placed.v1.json
\n:000000 100644 0000000 bbb A\tdomain/tests/golden/order.placed.v1.json
:000000 100644 0000000 ccc A\tdomain/tests/golden/with space.json
";
        let first = first_versions(log);
        assert_eq!(first["domain/tests/golden/order.placed.v1.json"], "aaa");
        assert_eq!(first["domain/tests/golden/with space.json"], "ccc");
        assert_eq!(first.len(), 2);
    }
}
