//! The folder that a stack lives in.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::AlreadyRunning;
use super::passwords;
use super::record::StackRecord;
use super::services::{self, NATS, NATS_CLUSTER};
use crate::postgres;

/// Removes everything that a stack has left in its folder, wherever its database lies: the data is lost. The stack must not run.
pub fn remove_data(directory: &Path) -> anyhow::Result<()> {
    postgres::remove(&directory.join("postgres"))?;
    for name in [NATS, "mail", "logs"].into_iter().chain(NATS_CLUSTER) {
        remove(&directory.join(name), |path| fs::remove_dir_all(path))?;
    }
    let secrets = ["audit-key.pem", services::TOKEN_KEY, services::KEY_SET, passwords::FILE];
    for name in secrets.into_iter().chain(["ledger.jsonl", "ports.json", "stack.json", "processes.json", "lock"]) {
        remove(&directory.join(name), |path| fs::remove_file(path))?;
    }
    Ok(())
}

pub(super) fn remove(path: &Path, how: impl FnOnce(&Path) -> io::Result<()>) -> anyhow::Result<()> {
    match how(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(|| format!("remove {}", path.display())),
        _ => Ok(()),
    }
}

pub(super) fn create(directory: &Path) -> anyhow::Result<()> {
    for folder in [directory.to_owned(), directory.join("logs"), directory.join("mail")] {
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    }
    // Mail and logs are about customers.
    for folder in ["logs", "mail"] {
        let folder = directory.join(folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("make {} private", folder.display()))?;
    }
    Ok(())
}

/// Fails with [`AlreadyRunning`] if a stack runs in this folder, or is just being started.
pub fn ensure_not_running(directory: &Path) -> anyhow::Result<()> {
    if directory.join("lock").exists() {
        lock(directory)?;
    }
    Ok(())
}

/// Makes sure that no other process starts, or has started, a stack in this folder.
pub(super) fn lock(directory: &Path) -> anyhow::Result<File> {
    let file = File::options().create(true).append(true).open(directory.join("lock")).context("create the lock of the stack")?;
    let is_locked = match file.try_lock() {
        Ok(()) => false,
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(error)) => return Err(error).context("lock the stack"),
    };
    let record = StackRecord::read(directory)?;
    let (alive, dead): (Vec<_>, Vec<_>) = record.processes.iter().partition(|(_, process)| process.is_alive());
    if !is_locked && alive.is_empty() {
        return Ok(file);
    }
    let alive: Vec<String> = alive.into_iter().map(|(name, process)| format!("{name} (pid {})", process.pid)).collect();
    let dead: Vec<&str> = dead.into_iter().map(|(name, _)| name.as_str()).collect();
    let running = match (alive.is_empty(), dead.is_empty()) {
        (true, _) => "another process is just starting it".to_owned(),
        (false, true) => alive.join(", "),
        (false, false) => format!("{}; not any more: {}", alive.join(", "), dead.join(", ")),
    };
    Err(AlreadyRunning { directory: directory.to_owned(), running }.into())
}

pub(super) fn log_file(directory: &Path, name: &str) -> PathBuf {
    directory.join("logs").join(format!("{name}.log"))
}
