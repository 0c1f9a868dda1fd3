//! Where a benchmark works: a folder on the checkout's own disk, with its servers, gone when it ends.
//!
//! Not in the system's folder for temporary files, which may be in memory: there an fsync would cost nothing.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use event_store::JetStreamEventStore;
use local_stack::{
    Durability,
    nats::{NatsOptions, NatsServer},
    process::Lifetime,
    stack,
};

const PREFIX: &str = "bench-";
const LOCK: &str = "lock";
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long processes that were killed may go on to write into their folders.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(10);
const REMOVAL_PAUSE: Duration = Duration::from_millis(100);
/// A folder in the folder of every stack that has a database of its own.
const STACK_MARK: &str = "postgres";
/// How deep a stack's folder may lie in ours.
const STACK_DEPTH_MAX: usize = 2;

/// The folder of one benchmark. Dropping it removes the folder; what uses it must be gone by then.
#[derive(Debug)]
pub struct Workplace {
    folder: PathBuf,
    // Held while the benchmark lives, so that others know that it does.
    _lock: File,
}

impl Workplace {
    /// A fresh folder. What benchmarks that were killed have left behind is removed first.
    pub fn create() -> anyhow::Result<Self> {
        let root = local_stack::data_directory();
        fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        remove_abandoned(&root);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&root).context("create the benchmark's folder")?;
        // Locked before it gets the name that others look for, so that nobody finds it unlocked.
        let unnamed = folder.path().join("lock-new");
        let lock = File::create(&unnamed).context("create the benchmark's lock")?;
        lock.lock().context("lock the benchmark's folder")?;
        fs::rename(&unnamed, folder.path().join(LOCK)).context("name the benchmark's lock")?;
        Ok(Self { folder: folder.keep(), _lock: lock })
    }

    /// A folder inside, empty, for a server or a stack.
    pub fn subfolder(&self) -> anyhow::Result<Subfolder> {
        let folder = tempfile::Builder::new().prefix("part-").tempdir_in(&self.folder).context("create a folder for a server")?;
        Ok(Subfolder(folder.keep()))
    }

    /// A nats-server with an empty log and nothing else.
    ///
    /// Blocks the thread while the server starts.
    pub async fn log(&self, durability: Durability) -> anyhow::Result<Log> {
        let folder = self.subfolder()?;
        let directory = Some(folder.path().to_owned());
        let options = NatsOptions { directory, log: None, port: None, durability, lifetime: Lifetime::Tied, passwords: None };
        let server = tokio::task::block_in_place(|| NatsServer::start(options)).context("start nats-server")?;
        let log = Log { server, _folder: folder };
        let store = log.connect().await?;
        store.set_up(Some(1)).await.context("create the streams")?;
        Ok(log)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// A folder within a [`Workplace`]. Dropping it removes it, and what the stacks in it have elsewhere.
#[derive(Debug)]
pub struct Subfolder(PathBuf);

impl Subfolder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Subfolder {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// A nats-server with the streams of the log. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Log {
    // Field order: the server is gone before its data is removed.
    server: NatsServer,
    _folder: Subfolder,
}

impl Log {
    /// `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// An event store on a connection of its own that is ready, as a service's is before it takes work.
    pub async fn open(&self) -> anyhow::Result<JetStreamEventStore> {
        let store = self.connect().await?;
        let ready = tokio::time::timeout(CONNECT_DEADLINE, store.wait_until_ready(|_| {})).await;
        ready.context("the log is not there")?;
        Ok(store)
    }

    async fn connect(&self) -> anyhow::Result<JetStreamEventStore> {
        let store = JetStreamEventStore::connect(self.url(), "bench").await.context("connect to NATS")?;
        let connected = async {
            while !store.is_connected() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(CONNECT_DEADLINE, connected).await.context("nats-server does not answer")?;
        Ok(store)
    }
}

/// Best effort, as it is about the past: what cannot be removed now will be the next time.
fn remove_abandoned(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for folder in entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())) {
        if is_abandoned(&folder.path()) {
            remove(&folder.path());
        }
    }
}

fn is_abandoned(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(LOCK)) else { return false };
    match lock.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}

/// Removes the folder and what the stacks in it have elsewhere. The processes of a server that was killed may still write for a
/// moment, so a failure is tried again; in the end it is told, and the next benchmark tries once more.
fn remove(folder: &Path) {
    let ends = Instant::now() + REMOVAL_DEADLINE;
    while let Err(error) = remove_once(folder) {
        if Instant::now() > ends {
            eprintln!("{} could not be removed: {error:#}", folder.display());
            return;
        }
        thread::sleep(REMOVAL_PAUSE);
    }
}

fn remove_once(folder: &Path) -> anyhow::Result<()> {
    remove_stacks(folder, STACK_DEPTH_MAX)?;
    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))
}

/// A stack's database lies elsewhere where its account cannot reach our folder.
fn remove_stacks(folder: &Path, depth: usize) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?.flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_stacks(&entry.path(), depth - 1)?;
        }
    }
    let is_stack = folder.join(STACK_MARK).is_dir();
    if is_stack { stack::remove_data(folder) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workplace_is_not_abandoned_while_it_lives_and_leaves_nothing() {
        let workplace = Workplace::create().unwrap();
        let folder = workplace.folder.clone();
        let subfolder = workplace.subfolder().unwrap();
        fs::write(subfolder.path().join("data"), "x").unwrap();
        let path = subfolder.path().to_owned();
        drop(subfolder);
        assert!(!path.exists() && folder.exists() && !is_abandoned(&folder));
        drop(workplace);
        assert!(!folder.exists());
    }

    #[test]
    fn what_a_killed_benchmark_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let left_behind = root.path().join("bench-left");
        fs::create_dir(&left_behind).unwrap();
        File::create(left_behind.join(LOCK)).unwrap();
        let other = root.path().join("nats");
        fs::create_dir(&other).unwrap();
        remove_abandoned(root.path());
        assert!(!left_behind.exists() && other.exists());
    }
}
