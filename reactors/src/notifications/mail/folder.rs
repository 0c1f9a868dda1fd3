//! Mail as files in a folder: one RFC 5322 message each, named after the notification. For trying things out, not for customers: nothing waits
//! until a file is on the disk, so a power cut may take the last ones with it, of which the log says that they are sent.

use std::{
    fs, io, panic,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use tokio::sync::oneshot;

use super::MailError;

/// How many files this process has begun: their temporary names must differ.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Threads that write. They are the folder's own, not the runtime's for blocking work: there nearly every mail started a new one, up to
/// 512, each of which keeps memory that it once had; and lookups of names that hang could hold all of them.
const WRITERS: usize = 4;

const WRITE: &str = "write to the mail folder";

/// Writes each message to `<folder>/<notification id>.eml`.
#[derive(Clone, Debug)]
pub struct MailFolder {
    folder: PathBuf,
    /// The writers end with the last clone of this. What waits here is bounded by the notifications that are worked on.
    files: mpsc::Sender<MailFile>,
}

#[derive(Debug)]
struct MailFile {
    folder: PathBuf,
    name: String,
    text: Vec<u8>,
    written: oneshot::Sender<io::Result<()>>,
}

impl MailFolder {
    /// Mail into `folder`, which is created if need be. Fails if the system gives no thread to write it.
    pub fn new(folder: PathBuf) -> io::Result<Self> {
        let (files, to_write) = mpsc::channel();
        let to_write = Arc::new(Mutex::new(to_write));
        for _ in 0..WRITERS {
            let to_write = Arc::clone(&to_write);
            thread::Builder::new().name("mail".to_owned()).spawn(move || write_all(&to_write))?;
        }
        Ok(Self { folder, files })
    }

    /// Writes one file. Writing it again replaces it.
    pub(super) async fn put(&self, name: String, text: Vec<u8>) -> Result<(), MailError> {
        let (written, answer) = oneshot::channel();
        let file = MailFile { folder: self.folder.clone(), name, text, written };
        self.files.send(file).map_err(|_| MailError::away(WRITE, "nobody writes mail any more"))?;
        let written = answer.await.map_err(|_| MailError::away(WRITE, "whoever wrote it is gone"))?;
        written.map_err(|error| MailError::away(WRITE, error))
    }
}

/// Writes what comes, until no more can come.
fn write_all(to_write: &Mutex<mpsc::Receiver<MailFile>>) {
    loop {
        // One waits for a file, the others for their turn to wait.
        let next = to_write.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(MailFile { folder, name, text, written }) = next else { return };
        // A fault in one mail must not take the writer from all others.
        let outcome = panic::catch_unwind(|| write_whole(&folder, &name, &text));
        let outcome = outcome.unwrap_or_else(|_| Err(io::Error::other("writing it panicked")));
        // Whoever asked may have gone; the mail is none the less sent.
        let _ = written.send(outcome);
    }
}

/// A reader of the folder sees whole files only, also when two of us write the same one.
fn write_whole(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let (process, write) = (std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
    let unfinished = folder.join(format!(".{name}.{process}-{write}"));
    match fs::write(&unfinished, text) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            fs::write(&unfinished, text)?;
        }
        written => written?,
    }
    fs::rename(unfinished, folder.join(name))
}
