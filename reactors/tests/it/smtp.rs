//! Mail by SMTP: a server that takes it, refuses some of it, and is away. The protocol's other end is held step by step here; a server
//! that others have written receives our mail in `infra/e2e/tests/it/interop.rs`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use domain::notification::{Notification, NotificationEvent};
use reactors::notifications::{Mailer, Notifications, Postbox, SmtpServer};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::{
    eventually,
    running::{self, Dashboard, Running},
    shop::{Ask, ONE_TEA, Shop},
    trail::Trail,
};

/// A mail server that answers commands, given by their first words, as it is told; with what it should by itself.
#[derive(Clone, Default)]
struct MailServer {
    answers: Arc<Mutex<BTreeMap<String, String>>>,
    received: Arc<Mutex<Vec<String>>>,
    commands: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    url: String,
}

impl MailServer {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}?tls=none", listener.local_addr().unwrap());
        let server = Self { url, ..Self::default() };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::Relaxed);
                let serving = serving.clone();
                // Whoever hangs up has heard enough.
                tokio::spawn(async move { serving.converse(stream).await.ok() });
            }
        });
        server
    }

    fn answer(&self, command: &str, answer: &str) {
        self.answers.lock().unwrap().insert(command.to_owned(), answer.to_owned());
    }

    fn answer_as_usual(&self) {
        self.answers.lock().unwrap().clear();
    }

    fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }

    fn told(&self, line: &str) -> Option<String> {
        let answers = self.answers.lock().unwrap();
        answers.iter().find(|(command, _)| line.starts_with(command.as_str())).map(|(_, answer)| answer.clone())
    }

    async fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        let (reading, mut writing) = stream.into_split();
        let mut lines = BufReader::new(reading).lines();
        let greeting = self.told("greeting").unwrap_or_else(|| "220 mail.example".to_owned());
        writing.write_all(format!("{greeting}\r\n").as_bytes()).await?;
        while let Some(line) = lines.next_line().await? {
            self.commands.lock().unwrap().push(line.clone());
            let answer = match self.told(&line) {
                Some(answer) if answer == "hang up" => return Ok(()),
                Some(answer) => answer,
                None if line == "DATA" => {
                    writing.write_all(b"354 go on\r\n").await?;
                    let mut mail = Vec::new();
                    while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                        mail.push(line);
                    }
                    let answer = self.told("end of data");
                    let hangs_up = answer.as_deref() == Some("hang up");
                    if answer.is_none() || hangs_up {
                        self.received.lock().unwrap().push(mail.join("\n"));
                    }
                    if hangs_up {
                        return Ok(());
                    }
                    answer.unwrap_or_else(|| "250 taken".to_owned())
                }
                None if line.starts_with("EHLO") => "250-mail.example\r\n250 8BITMIME".to_owned(),
                None => "250 yes".to_owned(),
            };
            writing.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
        Ok(())
    }

    fn notifications(&self, dashboard: &Dashboard) -> Running {
        self.notifications_from("orders@shop.example", dashboard)
    }

    fn notifications_from(&self, sender: &str, dashboard: &Dashboard) -> Running {
        let server = SmtpServer::new(&self.url.parse().unwrap(), None, "shop.example").unwrap();
        let mailer = Mailer::new(sender.parse().unwrap(), Postbox::Server(server));
        running::run_on(Notifications::new(mailer, &dashboard.surroundings), dashboard.surroundings.clone())
    }
}

async fn open() -> (Shop, MailServer, Dashboard, Trail) {
    let (shop, server) = tokio::join!(Shop::open(), MailServer::open());
    let (dashboard, trail) = (Dashboard::of(&shop.store), Trail::of(&shop.store));
    (shop, server, dashboard, trail)
}

async fn confirmed(shop: &Shop, key: &str, email: &str) {
    let order = shop.place(key, Ask { email, ..ONE_TEA }).await;
    shop.reserve_long_ago(order).await;
    shop.confirm(order).await;
}

fn reasons(trail: &Trail) -> Vec<String> {
    let events = trail.events.iter().filter(|(_, event)| event.metadata.aggregate_type == "notification");
    let failed = events.filter_map(|(_, event)| match event.decode().unwrap() {
        NotificationEvent::Failed(failed) => Some(failed.reason),
        NotificationEvent::Sent(_) => None,
    });
    failed.collect()
}

#[tokio::test]
async fn mail_is_sent_over_few_connections_as_text_and_html() {
    let (shop, server, dashboard, mut trail) = open().await;
    let _running = server.notifications(&dashboard);
    for number in 0..20 {
        confirmed(&shop, &format!("o-{number}"), &format!("customer-{number}@example.com")).await;
    }
    trail.until("all are told", |trail| trail.notifications.len() == 20).await;
    assert!(trail.notifications.values().all(|notification| *notification == Notification::Sent));
    let received = server.received();
    assert_eq!(received.len(), 20);
    for part in [
        "From: orders@shop.example",
        "Content-Type: multipart/alternative",
        "Content-Type: text/plain",
        "Content-Type: text/html",
        "@contrail>",
    ] {
        assert!(received.iter().all(|mail| mail.contains(part)), "{part:?} is not in\n{}", received[0]);
    }
    assert!(server.connections.load(Ordering::Relaxed) <= 8);
}

#[tokio::test]
async fn a_refused_recipient_or_message_is_recorded_and_the_next_customer_is_told() {
    let (shop, server, dashboard, mut trail) = open().await;
    let _running = server.notifications(&dashboard);
    server.answer("RCPT TO:<gone@", "550 5.1.1 <gone@example.com> no such user");
    confirmed(&shop, "gone", "gone@example.com").await;
    trail.until("it is recorded", |trail| trail.notifications.len() == 1).await;
    server.answer("end of data", "554 5.7.1 that looks like spam");
    confirmed(&shop, "spam", "spam@example.com").await;
    trail.until("that, too", |trail| trail.notifications.len() == 2).await;
    server.answer_as_usual();
    confirmed(&shop, "good", "good@example.com").await;
    trail.until("the next one is told", |trail| trail.notifications.len() == 3).await;
    assert_eq!(reasons(&trail), ["the mail server refuses the recipient with 550", "the mail server refuses the message with 554"]);
    assert_eq!(server.received().len(), 1);
    assert_eq!(dashboard.breaker_changes("mail", "open"), 0, "the server is well");
    assert_eq!(shop.dead_letters().await, []);
}

#[tokio::test]
async fn addresses_beyond_ascii_are_written_as_the_server_takes_them() {
    let (shop, server, dashboard, mut trail) = open().await;
    let _running = server.notifications(&dashboard);
    confirmed(&shop, "domain", "ada@bücher.example").await;
    confirmed(&shop, "mailbox", "müller@example.com").await;
    trail.until("both are recorded", |trail| trail.notifications.len() == 2).await;
    assert_eq!(reasons(&trail), ["the message cannot be addressed: the mail server takes no addresses beyond ASCII"]);
    let said = |server: &MailServer, command: &str| server.commands.lock().unwrap().iter().any(|line| line == command);
    assert!(said(&server, "MAIL FROM:<orders@shop.example>") && said(&server, "RCPT TO:<ada@xn--bcher-kva.example>"));

    let (shop, modern, dashboard, mut trail) = open().await;
    modern.answer("EHLO", "250-mail.example\r\n250-8BITMIME\r\n250 SMTPUTF8");
    let _running = modern.notifications(&dashboard);
    confirmed(&shop, "mailbox", "müller@example.com").await;
    trail.until("it is recorded", |trail| trail.notifications.len() == 1).await;
    assert_eq!(reasons(&trail), [""; 0]);
    assert!(said(&modern, "MAIL FROM:<orders@shop.example> SMTPUTF8") && said(&modern, "RCPT TO:<müller@example.com>"));
}

#[tokio::test]
async fn mail_whose_sender_the_server_does_not_take_waits() {
    let (shop, server, dashboard, mut trail) = open().await;
    let running = server.notifications_from("müller@bücher.example", &dashboard);
    for number in 0..12 {
        confirmed(&shop, &format!("o-{number}"), "ada@example.com").await;
    }
    eventually("the breaker knows", async || (dashboard.breaker_changes("mail", "open") > 0).then_some(())).await;
    trail.catch_up(&shop.store).await;
    assert_eq!(trail.notifications.len(), 0, "nothing is recorded");
    running.drain().await;
    let dashboard = Dashboard::of(&shop.store);
    let _mended = server.notifications_from("orders@bücher.example", &dashboard);
    trail.until("all are told", |trail| trail.notifications.len() == 12).await;
    assert_eq!(reasons(&trail), [""; 0]);
    assert!(server.received()[0].contains("From: orders@xn--bcher-kva.example"), "{}", server.received()[0]);
}

#[tokio::test]
async fn a_mailbox_that_is_put_off_does_not_hold_up_the_others() {
    let (shop, server, dashboard, mut trail) = open().await;
    let _running = server.notifications(&dashboard);
    server.answer("RCPT TO:<full@", "452 4.2.2 mailbox full");
    for number in 0..15 {
        confirmed(&shop, &format!("full-{number}"), "full@example.com").await;
    }
    confirmed(&shop, "good", "good@example.com").await;
    trail.until("the other one is told", |trail| trail.notifications.len() == 1).await;
    assert_eq!((server.received().len(), dashboard.breaker_changes("mail", "open")), (1, 0));
    assert_eq!(shop.dead_letters().await, []);
}

#[tokio::test]
async fn mail_waits_while_the_server_does_not_take_any_whatever_the_reason() {
    for (command, answer) in [
        ("MAIL FROM", "550 5.7.1 sender unknown"),
        ("RCPT TO", "554 5.7.1 relay access denied"),
        ("DATA", "554 5.7.1 client host blocked"),
        ("greeting", "554 no mail today"),
        ("EHLO", "hang up"),
    ] {
        let (shop, server, dashboard, mut trail) = open().await;
        server.answer(command, answer);
        let _running = server.notifications(&dashboard);
        for number in 0..15 {
            confirmed(&shop, &format!("o-{number}"), "ada@example.com").await;
        }
        let opened = async || (dashboard.breaker_changes("mail", "open") >= 1).then_some(());
        eventually("it is left alone", opened).await;
        trail.catch_up(&shop.store).await;
        assert!(trail.notifications.is_empty(), "{command}: nobody's notification has failed");
        server.answer_as_usual();
        trail.until("all are told", |trail| trail.notifications.len() == 15).await;
        assert_eq!((server.received().len(), reasons(&trail).len()), (15, 0), "{command}");
    }
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_replaced() {
    let (shop, server, dashboard, mut trail) = open().await;
    let _running = server.notifications(&dashboard);
    confirmed(&shop, "first", "ada@example.com").await;
    trail.until("one is told", |trail| trail.notifications.len() == 1).await;
    // As after a pause that was too long for the server.
    server.answer("MAIL FROM", "hang up");
    let closes = async || {
        confirmed(&shop, &format!("another-{}", server.connections.load(Ordering::Relaxed)), "ada@example.com").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        (server.connections.load(Ordering::Relaxed) >= 3).then_some(())
    };
    eventually("connections are closed", closes).await;
    server.answer_as_usual();
    confirmed(&shop, "last", "last@example.com").await;
    trail.until("it is told over a new one", |trail| !trail.notifications.is_empty() && server.received().len() >= 2).await;
    shop.idle("notifications").await;
}

#[tokio::test]
async fn a_mail_that_may_have_been_taken_is_not_sent_again_at_once() {
    let (shop, server, dashboard, mut trail) = open().await;
    let _running = server.notifications(&dashboard);
    confirmed(&shop, "first", "ada@example.com").await;
    trail.until("one is told", |trail| trail.notifications.len() == 1).await;
    server.answer("end of data", "hang up");
    confirmed(&shop, "second", "bob@example.com").await;
    eventually("the server has it", async || (server.received().len() >= 2).then_some(())).await;
    // The connection was used before: what fails on it before the message is tried on a new one.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.received().len(), 2);
    trail.catch_up(&shop.store).await;
    assert_eq!((trail.notifications.len(), reasons(&trail).len()), (1, 0), "nobody knows yet");
    server.answer_as_usual();
    confirmed(&shop, "third", "cyd@example.com").await;
    trail.until("others need not wait", |trail| trail.notifications.len() == 2).await;
    assert_eq!(server.received().len(), 3);
}

#[tokio::test]
async fn a_mail_that_was_sent_is_not_sent_again_while_the_log_does_not_take_that() {
    let (shop, server, dashboard, mut trail) = open().await;
    confirmed(&shop, "first", "ada@example.com").await;
    shop.be_full(true).await;
    let _running = server.notifications(&dashboard);
    eventually("the server has it", async || (!server.received().is_empty()).then_some(())).await;
    // An append gives up after eight seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    shop.be_full(false).await;
    trail.until("it is recorded", |trail| trail.notifications.len() == 1).await;
    shop.idle("notifications").await;
    assert_eq!((server.received().len(), reasons(&trail).len()), (1, 0));
}
