//! Temporary folders that do not pile up, even when their owner was killed.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::account::Account;

const PREFIX: &str = "contrail-scratch-";
/// Set by `cargo xtask test` for everything it starts, to tell its processes and folders from those of other runs.
pub const TEST_RUN_VARIABLE: &str = "CONTRAIL_TEST_RUN";
const OWNER_LOCK: &str = ".owner";

/// A folder that is removed when this is dropped. What a killed process could not remove, the next [`Scratch::new`] does:
/// the owner holds a lock on a file inside, and a lock goes away with its process.
#[derive(Debug)]
pub(crate) struct Scratch {
    // Field order: the folder is removed before the lock is released.
    folder: TempDir,
    _owner: File,
}

impl Scratch {
    /// An empty folder in the system's folder for temporary files, that only its owner can read: us, or `account` if there is one.
    /// When that account cannot reach the system's folder, it is in `/var/tmp`.
    pub(crate) fn new(account: Option<Account>) -> anyhow::Result<Self> {
        let scratch = Self::within(&std::env::temp_dir())?;
        let Some(account) = account else { return Ok(scratch) };
        account.own(scratch.path())?;
        if account.can_write(scratch.path()) {
            return Ok(scratch);
        }
        let scratch = Self::within(Path::new("/var/tmp"))?;
        account.own(scratch.path())?;
        Ok(scratch)
    }

    fn within(root: &Path) -> anyhow::Result<Self> {
        remove_abandoned(root);
        let prefix = std::env::var(TEST_RUN_VARIABLE).map_or_else(|_| PREFIX.to_owned(), |run| run_prefix(&run));
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir_in(root).context("create a temporary folder")?;
        // Locked before it gets the name that others look for, so that nobody finds it unlocked.
        let unnamed = folder.path().join(".owner-new");
        let owner = File::create(&unnamed).context("create the lock of a temporary folder")?;
        owner.lock().context("lock a temporary folder")?;
        fs::rename(&unnamed, folder.path().join(OWNER_LOCK)).context("name the lock of a temporary folder")?;
        Ok(Self { folder, _owner: owner })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Whether `path` lies in a folder that [`Scratch::new`] made in this test run.
pub(crate) fn is_of_run(path: &Path, run: &str) -> bool {
    let prefix = run_prefix(run);
    path.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(prefix.as_bytes()))
}

fn run_prefix(run: &str) -> String {
    format!("{PREFIX}{run}-")
}

/// Best effort: what cannot be read or removed now belongs to somebody else, or will be removed next time.
fn remove_abandoned(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) && is_abandoned(&entry.path()) {
            // The files of a server that is just dying may still appear while we remove; the next call gets the rest.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_abandoned(folder: &Path) -> bool {
    let lock: PathBuf = folder.join(OWNER_LOCK);
    let Ok(file) = File::open(lock) else { return false };
    match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owned_folder_is_not_abandoned_and_goes_away_with_its_owner() {
        let scratch = Scratch::new(None).unwrap();
        let path = scratch.path().to_owned();
        assert!(!is_abandoned(&path));
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_whose_owner_died_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let left_behind = root.path().join(format!("{PREFIX}left-behind"));
        fs::create_dir(&left_behind).unwrap();
        File::create(left_behind.join(OWNER_LOCK)).unwrap();
        remove_abandoned(root.path());
        assert!(!left_behind.exists());
    }
}
