//! Clocks that jump: a service's wall clock is put forward or back, and right again, by libfaketime. How time passes is left alone, as it is
//! when a real clock is set: timers run on.
//!
//! Where libfaketime is not installed, clocks do not jump. nats-server and Postgres keep the machine's time: the one is linked without a C
//! library, the other is none of ours.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use local_stack::running::Running;
use local_stack::stack::Stack;

/// Who has a clock of its own.
pub(super) const CLOCKS: [&str; 4] = ["command-api", "reactors", "projectors", "query-api"];
/// Where Debian and Ubuntu put the library, in a folder for each architecture.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// Where the library makes two files for each process. It leaves them there when the process is killed, or was started by another program
/// that it was loaded into.
const SHARED_MEMORY: &str = "/dev/shm";
/// How their names begin; the rest is the process id.
const SHARED_FILES: [&str; 2] = ["faketime_shm_", "sem.faketime_sem_"];

/// The clocks of a stack's services.
#[derive(Clone, Debug)]
pub(super) struct Clocks {
    directory: PathBuf,
}

impl Clocks {
    /// From their next start on, the services look at clocks that can be set. `None` where there is no library to do it with.
    pub(super) fn give_to(stack: &mut Stack) -> anyhow::Result<Option<Self>> {
        let Some(library) = library() else { return Ok(None) };
        // Of a run that was interrupted.
        remove_leftovers();
        let clocks = Self { directory: stack.directory().to_owned() };
        for service in CLOCKS {
            clocks.set(service, 0)?;
            let file =
                clocks.file(service).into_os_string().into_string().ok().context("the stack's folder has a name in UTF-8")?;
            stack.set(service, "LD_PRELOAD", library.clone())?;
            stack.set(service, "FAKETIME_TIMESTAMP_FILE", file)?;
            stack.set(service, "FAKETIME_CACHE_DURATION", "1".to_owned())?;
            stack.set(service, "FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())?;
        }
        Ok(Some(clocks))
    }

    /// The clock of `service` is so many seconds fast from within a second from now on, or slow.
    pub(super) fn set(&self, service: &str, fast_by_s: i64) -> anyhow::Result<()> {
        let file = self.file(service);
        // Replaced as a whole: it may be read at any moment.
        let unfinished = file.with_extension("new");
        let written = fs::write(&unfinished, format!("{fast_by_s:+}\n")).and_then(|()| fs::rename(&unfinished, &file));
        written.with_context(|| format!("write {}", file.display()))
    }

    fn file(&self, service: &str) -> PathBuf {
        self.directory.join(format!("clock-{service}"))
    }
}

/// Removes what libfaketime has left in memory for processes that are gone. Best effort: what is another user's stays.
pub fn remove_leftovers() {
    for entry in fs::read_dir(SHARED_MEMORY).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| SHARED_FILES.iter().find_map(|prefix| name.strip_prefix(prefix)));
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| Running::now(pid).is_none()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn library() -> Option<String> {
    let folders = fs::read_dir(LIBRARIES).ok()?;
    let mut candidates = folders.flatten().map(|folder| folder.path().join(LIBRARY)).filter(|path: &PathBuf| Path::is_file(path));
    candidates.next()?.into_os_string().into_string().ok()
}
