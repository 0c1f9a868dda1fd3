//! Mail as files in a folder: one RFC 5322 message each, named after the notification.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lettre::message::{Mailbox, header::ContentType};
use tokio::sync::Semaphore;

use super::message::Message;

/// How many files this process has begun: their temporary names must differ.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// Files written at the same time. Each is a thread while it is, and a thread keeps some megabytes of memory that it once had: with no
/// bound there were 265 of them after 300,000 orders, and 1.1 GiB.
const WRITES_MAX: usize = 4;

/// Writes each message to `<folder>/<notification id>.eml`.
#[derive(Clone, Debug)]
pub struct MailFolder {
    folder: PathBuf,
    from: Mailbox,
    writes: Arc<Semaphore>,
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
    /// Mail from `from` into `folder`, which is created if need be.
    pub fn new(folder: PathBuf, from: Mailbox) -> Self {
        Self { folder, from, writes: Arc::new(Semaphore::new(WRITES_MAX)) }
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
        let turn = Arc::clone(&self.writes).acquire_owned().await.map_err(io::Error::other).map_err(MailError::Folder)?;
        let written = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            write_whole(&folder, &name, &text)
        });
        // The task is aborted by nobody; should it have panicked, the mail is not there.
        written.await.map_err(io::Error::other).flatten().map_err(MailError::Folder)
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
