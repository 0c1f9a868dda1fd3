//! Where the mail of the measured stack goes: into memory.
//!
//! A mail server is not ours and not measured. Files on the disk would be one new inode for each order, in the journal that every
//! fsync of the log waits for.

use std::{fs, os::unix, path::Path};

use anyhow::Context as _;
use tempfile::TempDir;

const MEMORY: &str = "/dev/shm";
const PREFIX: &str = "contrail-bench-mail-";

/// Lets the stack in this folder, which is yet to be started, have its mail folder in memory for as long as what is returned lives; on
/// disk where the system has no such place.
pub(super) fn keep_in_memory(stack: &Path) -> anyhow::Result<Option<TempDir>> {
    let memory = Path::new(MEMORY);
    if !memory.is_dir() {
        return Ok(None);
    }
    remove_abandoned(memory);
    let prefix = format!("{PREFIX}{}-", std::process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(memory).context("create the mail folder")?;
    fs::create_dir_all(stack)
        .and_then(|()| unix::fs::symlink(folder.path(), stack.join("mail")))
        .context("link the mail folder")?;
    Ok(Some(folder))
}

/// Removes what benchmarks that were killed have left behind.
fn remove_abandoned(memory: &Path) {
    for folder in fs::read_dir(memory).into_iter().flatten().flatten() {
        let name = folder.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Best effort, as it is about the past.
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_benchmark_left_in_memory_is_removed_and_what_lives_is_not() {
        let memory = tempfile::tempdir().unwrap();
        let living = memory.path().join(format!("{PREFIX}{}-a", std::process::id()));
        // Above the highest process id that Linux gives out.
        let dead = memory.path().join(format!("{PREFIX}4194305-a"));
        let foreign = memory.path().join("something-4194305-a");
        for folder in [&living, &dead, &foreign] {
            fs::create_dir(folder).unwrap();
        }
        remove_abandoned(memory.path());
        assert!(living.exists() && foreign.exists() && !dead.exists());
    }
}
