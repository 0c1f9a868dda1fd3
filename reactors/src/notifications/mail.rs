//! Mail as files in a folder: one RFC 5322 message each, named after the notification.

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

use lettre::message::{Mailbox, header::ContentType};
use tokio::sync::oneshot;

use super::message::Message;

/// How many files this process has begun: their temporary names must differ.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Threads that write. They are the folder's own, not the runtime's for blocking work: there nearly every mail started a new one, up to
/// 512, each of which keeps memory that it once had; and lookups of names that hang could hold all of them.
const WRITERS: usize = 4;

/// Writes each message to `<folder>/<notification id>.eml`.
#[derive(Clone, Debug)]
pub struct MailFolder {
    folder: PathBuf,
    from: Mailbox,
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

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The message cannot be sent to anyone: its address is not one.
    #[error("the message cannot be addressed: {0}")]
    Message(String),
    /// The folder could not be written to; another try may succeed.
    #[error("write to the mail folder")]
    Folder(#[source] io::Error),
}

impl MailFolder {
    /// Mail from `from` into `folder`, which is created if need be. Fails if the system gives no thread to write it.
    pub fn new(folder: PathBuf, from: Mailbox) -> io::Result<Self> {
        let (files, to_write) = mpsc::channel();
        let to_write = Arc::new(Mutex::new(to_write));
        for _ in 0..WRITERS {
            let to_write = Arc::clone(&to_write);
            thread::Builder::new().name("mail".to_owned()).spawn(move || write_all(&to_write))?;
        }
        Ok(Self { folder, from, files })
    }

    /// Writes `message`. Writing the same message again replaces the file by an equal one.
    pub(super) async fn send(&self, message: &Message) -> Result<(), MailError> {
        // The log may hold names that the command API would refuse today, and lettre panics on a control character.
        let name = message.to_name.replace(char::is_control, " ");
        let address = message.to_email.parse().map_err(|error| MailError::Message(format!("{error}")))?;
        let mail = lettre::Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(Some(name), address))
            .message_id(Some(format!("<{}@contrail>", message.id)))
            .subject(&message.subject)
            .header(ContentType::TEXT_PLAIN)
            .body(message.text.clone())
            .map_err(|error| MailError::Message(error.to_string()))?;
        let (folder, name, text) = (self.folder.clone(), format!("{}.eml", message.id), mail.formatted());
        let (written, answer) = oneshot::channel();
        let file = MailFile { folder, name, text, written };
        let failed = |why: &'static str| MailError::Folder(io::Error::other(why));
        self.files.send(file).map_err(|_| failed("nobody writes mail any more"))?;
        answer.await.map_err(|_| failed("whoever wrote it is gone"))?.map_err(MailError::Folder)
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
