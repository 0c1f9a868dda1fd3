//! Mail: from a message to what travels, and how it travels.

mod folder;
mod smtp;

use std::error::Error;

use domain::NotificationId;
use lettre::{
    Address,
    message::{Mailbox, MultiPart, SinglePart},
};
use reqwest::Url;

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

/// A message as it travels.
#[derive(Debug)]
pub(super) struct Mail {
    id: NotificationId,
    mail: lettre::Message,
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
        // What has no other form is for the mail server to refuse.
        let email = address(from.email.as_ref()).unwrap_or_else(|_| from.email.clone());
        Self { from: Mailbox { email, ..from }, postbox }
    }

    /// How many mails are sent at the same time.
    pub(super) fn at_once(&self) -> usize {
        match &self.postbox {
            Postbox::Folder(_) => FILES_AT_ONCE,
            Postbox::Server(_) => smtp::CONNECTIONS_MAX,
        }
    }

    /// Sends `mail`.
    pub(super) async fn send(&self, mail: &Mail) -> Result<(), MailError> {
        match &self.postbox {
            Postbox::Folder(folder) => folder.put(format!("{}.eml", mail.id), mail.mail.formatted()).await,
            // Boxed, as it is large, and mail into a folder need not be.
            Postbox::Server(server) => Box::pin(server.send(mail.mail.envelope(), &mail.mail.formatted())).await,
        }
    }

    /// The mail that says `message`. The same message again is the same mail, by its `Message-ID` and, but for its date, byte by byte.
    ///
    /// # Errors
    ///
    /// [`MailError::Unaddressable`].
    pub(super) fn compose(&self, message: &Message) -> Result<Mail, MailError> {
        let mail = self.addressed(message).map_err(|error| MailError::Unaddressable(error.to_string()))?;
        Ok(Mail { id: message.id, mail })
    }

    fn addressed(&self, message: &Message) -> Result<lettre::Message, Box<dyn Error>> {
        // The log may hold names that the command API would refuse today, and lettre panics on a control character.
        let name = message.to_name.replace(char::is_control, " ");
        let to = Mailbox::new(Some(name), address(&message.to_email)?);
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

/// An address as every mail server takes it, as far as there is such a form: a domain beyond ASCII has one (RFC 5890).
fn address(text: &str) -> Result<Address, Box<dyn Error>> {
    let address: Address = text.parse()?;
    if address.domain().is_ascii() {
        return Ok(address);
    }
    let url = Url::parse(&format!("http://{}", address.domain()))?;
    let domain = url.domain().ok_or("its domain is none")?;
    Ok(Address::new(address.user(), domain)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_beyond_ascii_is_written_as_servers_take_it() {
        let written = |text: &str| address(text).map(|address| address.to_string()).ok();
        assert_eq!(written("ada@example.com").as_deref(), Some("ada@example.com"));
        assert_eq!(written("ada@bücher.example").as_deref(), Some("ada@xn--bcher-kva.example"));
        assert_eq!(written("müller@BÜCHER.example").as_deref(), Some("müller@xn--bcher-kva.example"));
        // These digits are none of ASCII.
        assert_eq!(written("ada@１.２"), None);
        assert_eq!(written("a..b@example.com"), None);
    }
}
