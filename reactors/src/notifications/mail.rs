//! Mail: from a message to what travels, and how it travels.

mod folder;
mod smtp;

use std::error::Error;

use lettre::message::{Mailbox, MultiPart, SinglePart};

pub use self::{
    folder::MailFolder,
    smtp::{SmtpServer, SmtpUrlError},
};
use super::message::Message;

/// Files that wait to be written: writing one takes no time worth mentioning.
const FILES_AT_ONCE: usize = 1_024;

/// Where mail goes.
#[derive(Debug)]
pub enum Postbox {
    /// Files in a folder, one for each message.
    Folder(MailFolder),
    /// A mail server.
    Server(SmtpServer),
}

/// What sends mail.
#[derive(Debug)]
pub struct Mailer {
    from: Mailbox,
    postbox: Postbox,
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The message cannot be sent to anyone: its address is not one.
    #[error("the message cannot be addressed: {0}")]
    Unaddressable(String),
    /// The mail server does not take this message to this recipient, ever.
    #[error("the mail server refuses the {part} with {code}")]
    Refused {
        /// What it refuses: the recipient, or the message.
        part: &'static str,
        /// Its code of three digits.
        code: String,
    },
    /// The mail server takes mail, but not this one now: it knows the recipient too little, or the mailbox is full.
    #[error("the mail server puts the {part} off with {code}")]
    PutOff {
        /// What it puts off: the recipient, or the message.
        part: &'static str,
        /// Its code of three digits. Its words may hold the address.
        code: String,
    },
    /// The mail server has the whole message and does not say whether it takes it. Sent again, it may arrive twice.
    #[error("the mail server did not say whether it has taken the message")]
    Unanswered(#[source] Box<dyn Error + Send + Sync>),
    /// No mail can be sent now.
    #[error("{doing}")]
    Away {
        /// What was being done.
        doing: &'static str,
        /// What happened.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl MailError {
    /// Whether this is about the mail server or folder, and not about one message.
    pub(super) fn is_of_the_postbox(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Unanswered(_))
    }

    fn unanswered(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unanswered(source.into())
    }

    fn away(doing: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Away { doing, source: source.into() }
    }
}

impl Mailer {
    /// Sends mail from `from` into `postbox`.
    pub fn new(from: Mailbox, postbox: Postbox) -> Self {
        Self { from, postbox }
    }

    /// How many mails are sent at the same time.
    pub(super) fn at_once(&self) -> usize {
        match &self.postbox {
            Postbox::Folder(_) => FILES_AT_ONCE,
            Postbox::Server(_) => smtp::CONNECTIONS_MAX,
        }
    }

    /// Sends `message`. The same message again is the same mail, by its `Message-ID` and, but for its date, byte by byte.
    pub(super) async fn send(&self, message: &Message) -> Result<(), MailError> {
        let mail = self.compose(message).map_err(|error| MailError::Unaddressable(error.to_string()))?;
        match &self.postbox {
            Postbox::Folder(folder) => folder.put(format!("{}.eml", message.id), mail.formatted()).await,
            // Boxed, as it is large, and mail into a folder need not be.
            Postbox::Server(server) => Box::pin(server.send(mail.envelope(), &mail.formatted())).await,
        }
    }

    fn compose(&self, message: &Message) -> Result<lettre::Message, Box<dyn Error>> {
        // The log may hold names that the command API would refuse today, and lettre panics on a control character.
        let name = message.to_name.replace(char::is_control, " ");
        let to = Mailbox::new(Some(name), message.to_email.parse()?);
        let alternatives = MultiPart::alternative()
            .boundary(message.id.to_string())
            .singlepart(SinglePart::plain(message.text.clone()))
            .singlepart(SinglePart::html(message.html.clone()));
        let mail = lettre::Message::builder()
            .from(self.from.clone())
            .to(to)
            .message_id(Some(format!("<{}@contrail>", message.id)))
            .subject(&message.subject)
            .multipart(alternatives)?;
        Ok(mail)
    }
}
