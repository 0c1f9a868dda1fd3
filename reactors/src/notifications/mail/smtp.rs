//! Mail by SMTP (RFC 5321), to addresses beyond ASCII where the server takes them (RFC 6531), encrypted unless told otherwise (RFC 3207, RFC 8314).
//!
//! What the server says about one recipient or one message is not what it says about us: a refused mailbox is recorded and over, while
//! a wrong password, an unknown sender or a server that is away lets all mail wait. So the conversation is held step by step.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::MailError;
use lettre::{
    Address,
    address::Envelope,
    transport::smtp::{
        Error as SmtpError,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Certificate, TlsParameters},
        commands::{Data, Mail, Rcpt, Rset},
        extension::{ClientId, Extension, MailParameter},
    },
};
use reqwest::Url;

/// How long the server may take to let a mail be sent to it: sender, recipient, and that the message may begin.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it may then take to say whether it has taken the message. Whoever gives up earlier and sends it again makes two of it, and servers
/// look for spam meanwhile (RFC 5321, section 4.5.3.2.6).
const TAKE_TIMEOUT: Duration = Duration::from_mins(10);
/// How long connecting may take, with encryption and log-in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at the same time; servers frown on more.
pub(super) const CONNECTIONS_MAX: usize = 8;

const CONNECT: &str = "connect to the mail server";
const CONVERSE: &str = "speak to the mail server";
const MESSAGE: &str = "message";
const NOT_TAKEN: &str = "the mail server takes no addresses beyond ASCII";

/// A mail server, and how to speak to it.
pub struct SmtpServer {
    host: String,
    port: u16,
    encryption: Encryption,
    credentials: Option<Credentials>,
    hello: ClientId,
    /// Connections that may be used again.
    idle: Mutex<Vec<AsyncSmtpConnection>>,
}

enum Encryption {
    /// From the first byte.
    Implicit(TlsParameters),
    /// By STARTTLS, or not at all.
    StartTls(TlsParameters),
    None,
}

impl fmt::Debug for SmtpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpServer").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Why there can be no mail server.
#[derive(Debug, thiserror::Error)]
pub enum SmtpUrlError {
    /// The URL is not one of a mail server.
    #[error("not of the form smtps://user:password@host:port, or smtp:// for STARTTLS, or smtp://…?tls=none")]
    Form,
    /// A password would be sent for everybody to read.
    #[error("a password is not sent to another machine without encryption")]
    OpenPassword,
    /// The certificates cannot be used.
    #[error("the certificates cannot be used: {0}")]
    Certificates(String),
}

impl SmtpServer {
    /// The server at `url`: `smtps://` is encrypted from the first byte (port 465 unless said otherwise), `smtp://` by STARTTLS (port 587),
    /// `smtp://…?tls=none` not at all (port 25). `certificates` are trusted beside the system's: a PEM file's text.
    ///
    /// Talks to nobody yet. It presents itself by `hello`, which should be our domain.
    pub fn new(url: &Url, certificates: Option<&str>, hello: &str) -> Result<Self, SmtpUrlError> {
        let host = url.host_str().ok_or(SmtpUrlError::Form)?.trim_matches(['[', ']']).to_owned();
        let options: Vec<_> = url.query_pairs().collect();
        let is_open = match options.as_slice() {
            [] => false,
            [(name, value)] if name == "tls" && value == "none" => true,
            [(name, value)] if name == "tls" && value == "required" => false,
            _ => return Err(SmtpUrlError::Form),
        };
        let tls = || tls_parameters(&host, certificates);
        let (encryption, usual_port) = match (url.scheme(), is_open) {
            ("smtps", false) => (Encryption::Implicit(tls()?), 465),
            ("smtp", false) => (Encryption::StartTls(tls()?), 587),
            ("smtp", true) => (Encryption::None, 25),
            _ => return Err(SmtpUrlError::Form),
        };
        let decoded = |text: &str| percent_decoded(text).ok_or(SmtpUrlError::Form);
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some(Credentials::new(decoded(user)?, decoded(password.unwrap_or_default())?)),
        };
        let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if is_open && credentials.is_some() && !is_here {
            return Err(SmtpUrlError::OpenPassword);
        }
        Ok(Self {
            host,
            port: url.port().unwrap_or(usual_port),
            encryption,
            credentials,
            hello: ClientId::Domain(hello.to_owned()),
            idle: Mutex::default(),
        })
    }

    pub(super) async fn send(&self, envelope: &Envelope, mail: &[u8]) -> Result<(), MailError> {
        let used = self.idle().pop();
        if let Some(connection) = used {
            match self.send_over(connection, envelope, mail).await {
                // The server may have closed it meanwhile. It has seen nothing of the message.
                Err(error @ MailError::Away { .. }) => tracing::debug!("connecting to the mail server again: {error}"),
                outcome => return outcome,
            }
        }
        let connection = self.connect().await?;
        self.send_over(connection, envelope, mail).await
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, MailError> {
        let connecting = async {
            let (address, hello) = ((self.host.as_str(), self.port), &self.hello);
            let implicit = match &self.encryption {
                Encryption::Implicit(tls) => Some(tls.clone()),
                Encryption::StartTls(_) | Encryption::None => None,
            };
            let mut connection = AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT_TIMEOUT), hello, implicit, None).await?;
            if let Encryption::StartTls(tls) = &self.encryption {
                // An error, if the server does not offer it.
                connection.starttls(tls.clone(), hello).await?;
            }
            if let Some(credentials) = &self.credentials {
                connection.auth(DEFAULT_MECHANISMS, credentials).await?;
            }
            Ok(connection)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error: SmtpError| away(CONNECT, error)),
            Err(late) => Err(MailError::away(CONNECT, late)),
        }
    }

    async fn send_over(&self, mut connection: AsyncSmtpConnection, envelope: &Envelope, mail: &[u8]) -> Result<(), MailError> {
        let addressing = tokio::time::timeout(ADDRESS_TIMEOUT, address(&mut connection, envelope)).await;
        let outcome = match addressing.map_err(|late| MailError::away(CONVERSE, late)).flatten() {
            Ok(()) => hand_over(&mut connection, mail).await,
            refused => refused,
        };
        let can_be_used_again = match &outcome {
            Ok(()) => true,
            Err(MailError::Refused { .. } | MailError::PutOff { .. } | MailError::Unaddressable(_)) => {
                // Forgets the recipients that it had.
                matches!(tokio::time::timeout(ADDRESS_TIMEOUT, connection.command(Rset)).await, Ok(Ok(_)))
            }
            Err(_) => false,
        };
        if can_be_used_again && !connection.has_broken() {
            self.idle().push(connection);
        }
        outcome
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<AsyncSmtpConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that comes before the message, step by step: who refuses what.
async fn address(connection: &mut AsyncSmtpConnection, envelope: &Envelope) -> Result<(), MailError> {
    let of_us = |error: SmtpError| away(CONVERSE, error);
    // Many servers say only now what they have against us: that we may not relay, or have to log in.
    let about = |part: &'static str| {
        move |error: SmtpError| match refusal(part, &error) {
            Some(refusal) if !is_about_us(&error) => refusal,
            _ => of_us(error),
        }
    };
    let is_beyond_ascii = |address: &Address| !address.to_string().is_ascii();
    let (from, to) = (envelope.from().is_some_and(is_beyond_ascii), envelope.to().iter().any(is_beyond_ascii));
    if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
        // All mail has this sender: it waits until that setting is mended.
        if from {
            return Err(MailError::away(CONVERSE, NOT_TAKEN));
        }
        if to {
            return Err(MailError::Unaddressable(NOT_TAKEN.to_owned()));
        }
    }
    let parameters = Vec::from_iter((from || to).then_some(MailParameter::SmtpUtfEight));
    connection.command(Mail::new(envelope.from().cloned(), parameters)).await.map_err(of_us)?;
    for recipient in envelope.to() {
        connection.command(Rcpt::new(recipient.clone(), Vec::new())).await.map_err(about("recipient"))?;
    }
    connection.command(Data).await.map_err(about(MESSAGE))?;
    Ok(())
}

/// The message itself. Whatever prevents the server's answer, it may have taken it.
async fn hand_over(connection: &mut AsyncSmtpConnection, mail: &[u8]) -> Result<(), MailError> {
    match tokio::time::timeout(TAKE_TIMEOUT, connection.message(mail)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(refusal(MESSAGE, &error).unwrap_or_else(|| MailError::unanswered(error))),
        Err(late) => Err(MailError::unanswered(late)),
    }
}

/// What the server says against this `part` of the mail, if that is what it says.
fn refusal(part: &'static str, error: &SmtpError) -> Option<MailError> {
    let code = error.status()?.to_string();
    match (error.is_permanent(), error.is_transient()) {
        (true, _) => Some(MailError::Refused { part, code }),
        (_, true) => Some(MailError::PutOff { part, code }),
        _ => None,
    }
}

/// Whether what the server says about a recipient is about who sends: log-in and encryption (530, 535, 538, 454), or policy (5.7.x and
/// 4.7.x of RFC 3463, as for a relay that is denied or an address that is blocked).
fn is_about_us(error: &SmtpError) -> bool {
    let about_log_in = error.status().is_some_and(|code| ["530", "535", "538", "454"].contains(&code.to_string().as_str()));
    about_log_in || detail(error).is_some_and(|detail| detail.starts_with("5.7.") || detail.starts_with("4.7."))
}

/// The detail in the server's answer (RFC 3463), such as `5.7.1`.
fn detail(error: &SmtpError) -> Option<String> {
    let said = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let is_detail = |word: &&str| {
        let mut numbers = word.split('.');
        let is_class = matches!(numbers.next(), Some("2" | "4" | "5"));
        let rest: Vec<_> = numbers.collect();
        is_class && rest.len() == 2 && rest.iter().all(|number| number.parse::<u16>().is_ok())
    };
    let said = format!("{error} {said}");
    let words = said.split(|c: char| c.is_whitespace() || matches!(c, ':' | '-'));
    words.map(|word| word.trim_matches(|c: char| !c.is_ascii_digit())).find(is_detail).map(str::to_owned)
}

/// What the server answered, without its words, which may hold the address.
#[derive(Debug, thiserror::Error)]
#[error("it answers {0}")]
struct Answer(String);

/// That no mail can be sent now.
fn away(doing: &'static str, error: SmtpError) -> MailError {
    match error.status() {
        None => MailError::away(doing, error),
        Some(code) => {
            let detail = detail(&error).map(|detail| format!(" {detail}")).unwrap_or_default();
            MailError::away(doing, Answer(format!("{code}{detail}")))
        }
    }
}

fn tls_parameters(host: &str, certificates: Option<&str>) -> Result<TlsParameters, SmtpUrlError> {
    let unusable = |error: SmtpError| SmtpUrlError::Certificates(error.to_string());
    let mut builder = TlsParameters::builder(host.to_owned());
    for certificate in certificates.map(certificates_of).unwrap_or_default() {
        builder = builder.add_root_certificate(Certificate::from_pem(certificate.as_bytes()).map_err(unusable)?);
    }
    builder.build_rustls().map_err(unusable)
}

/// The certificates of a PEM file's text, one by one.
fn certificates_of(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    text.split_inclusive(END).filter(|part| part.contains(END)).map(|part| part.trim().to_owned()).collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

    use super::*;

    fn server(url: &str) -> Result<SmtpServer, SmtpUrlError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        SmtpServer::new(&url.parse().expect("a URL"), None, "shop.example")
    }

    #[test]
    fn a_url_tells_how_to_speak_and_a_password_does_not_travel_in_the_open() {
        let ports = [
            "smtps://mail.example",
            "smtp://mail.example",
            "smtp://mail.example?tls=none",
            "smtp://mail.example:2525?tls=required",
        ];
        assert_eq!(ports.map(|url| server(url).expect(url).port), [465, 587, 25, 2525]);
        for wrong in ["http://mail.example", "smtps://mail.example?tls=none", "smtp://mail.example?tls=maybe", "smtp:nobody"] {
            assert!(matches!(server(wrong), Err(SmtpUrlError::Form)), "{wrong}");
        }
        assert!(matches!(server("smtp://me:secret@mail.example?tls=none"), Err(SmtpUrlError::OpenPassword)));
        let secret = server("smtp://me:s%40cret@127.0.0.1?tls=none").expect("it stays here");
        assert!(secret.credentials.is_some() && !format!("{secret:?}").contains("cret"));
        assert_eq!(percent_decoded("a%40b%2").as_deref(), None);
        assert_eq!(percent_decoded("a%40b").as_deref(), Some("a@b"));
    }

    /// A server that answers `command` with `answer`, and everything else as it should.
    async fn that_answers(command: &'static str, answer: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("somebody comes");
            let (reading, mut writing) = stream.into_split();
            let mut lines = BufReader::new(reading).lines();
            let mut answers = "220 mail.example";
            while writing.write_all(format!("{answers}\r\n").as_bytes()).await.is_ok()
                && let Ok(Some(line)) = lines.next_line().await
            {
                answers = match line {
                    line if line.starts_with(command) => answer,
                    line if line.starts_with("EHLO") => "250-mail.example\r\n250 AUTH PLAIN",
                    _ => "250 yes",
                };
            }
        });
        format!("smtp://me:secret@{address}?tls=none")
    }

    #[tokio::test]
    async fn what_the_server_says_is_told_by_its_numbers_as_its_words_may_hold_an_address() {
        for (command, answer, told) in [
            ("MAIL", "550 5.7.1 <ada@example.com> not yours", "speak to the mail server: it answers 550 5.7.1"),
            (
                "RCPT",
                "554-5.7.1 <ada@example.com>:\r\n554 5.7.1 Relay access denied",
                "speak to the mail server: it answers 554 5.7.1",
            ),
            ("RCPT", "454 ada@example.com must log in", "speak to the mail server: it answers 454"),
            ("AUTH", "535 5.7.8 ada@example.com is not known", "connect to the mail server: it answers 535 5.7.8"),
            ("RCPT", "550 5.1.1 <ada@example.com> no such user", "the mail server refuses the recipient with 550"),
        ] {
            let envelope = Envelope::new(None, vec!["ada@example.com".parse().expect("an address")]).expect("a recipient");
            let server = server(&that_answers(command, answer).await).expect("a URL");
            let error = server.send(&envelope, b"Hello").await.expect_err(answer);
            let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
            assert_eq!(chain.map(ToString::to_string).collect::<Vec<_>>().join(": "), told);
            assert!(!format!("{error:?}").contains("ada@"), "{error:?}");
        }
    }
}
