//! Mail as files in a folder: one RFC 5322 message each, named after the notification.

use std::{
    fs, io,
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

/// Threads that write. They are the folder's own: of the runtime's, which may be 512, nearly each mail got a new one, because the last
/// was still putting itself to rest, and each keeps memory that it once had; and a name server that does not answer can hold all of those.
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
        let gone = || MailError::Folder(io::Error::other("nobody writes mail any more"));
        self.files.send(file).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(MailError::Folder)
    }
}

/// Writes what comes, until no more can come.
fn write_all(to_write: &Mutex<mpsc::Receiver<MailFile>>) {
    loop {
        // One waits for a file, the others for their turn to wait.
        let next = to_write.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(MailFile { folder, name, text, written }) = next else { return };
        // Whoever asked may have gone; the mail is none the less sent.
        let _ = written.send(write_whole(&folder, &name, &text));
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
