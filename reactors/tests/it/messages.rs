//! What customers are told, and how often.

use std::{collections::BTreeMap, fs, path::Path};

use domain::{
    NotificationId, OrderId,
    envelope::StoredEvent,
    notification::{Notification, NotificationEvent, Topic},
    order::{self, Order, OrderCommand, Shortage},
    payment::{Payment, PaymentCaptured, PaymentRefunded},
};
use event_store::{Expected, Transaction};
use reactors::{News, Reactor as _};

use crate::{
    running,
    shop::{Ask, NOW, ONE_TEA, PRICE, Shop, context},
    trail::Trail,
};

/// The mail in `folder` by file name, without ".eml".
fn mail(folder: &Path) -> BTreeMap<String, String> {
    let files = fs::read_dir(folder).into_iter().flatten().map(|file| file.unwrap().path());
    files
        .map(|file| {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let name = name.strip_suffix(".eml").filter(|name| !name.starts_with('.')).expect("whole messages only").to_owned();
            (name, fs::read_to_string(file).unwrap())
        })
        .collect()
}

async fn reserve(shop: &Shop, order_id: OrderId) {
    let command = order::RecordReservation { reserved_at: NOW, payment_due_at: NOW };
    shop.order(order_id, OrderCommand::RecordReservation(command)).await.unwrap();
}

/// An order that was placed, reserved and confirmed, and the event that confirmed it.
async fn confirmed(shop: &Shop, key: &str, ask: Ask<'_>) -> (OrderId, StoredEvent) {
    let order_id = shop.place(key, ask).await;
    reserve(shop, order_id).await;
    shop.confirm(order_id).await;
    let events = shop.store.events_of("order", &order_id.to_string()).await.unwrap();
    (order_id, events.last().unwrap().event.clone())
}

fn id_for(event: &StoredEvent) -> String {
    NotificationId::derive(event.metadata.event_id, "email").to_string()
}

#[tokio::test]
async fn a_confirmed_order_is_announced_once_to_its_customer() {
    let shop = Shop::open().await;
    let folder = tempfile::tempdir().unwrap();
    let _notifications = running::notifications(&shop.store, &folder.path().join("created/if/need/be"));
    let (order_id, event) = confirmed(&shop, "o", Ask { name: "Ada Lovelace", ..ONE_TEA }).await;
    let mut trail = Trail::of(&shop.store);
    trail.until("it is recorded", |trail| trail.notifications.contains_key(&id_for(&event))).await;
    let mail = mail(&folder.path().join("created/if/need/be"));
    assert_eq!(mail.keys().collect::<Vec<_>>(), [&id_for(&event)]);
    let message = &mail[&id_for(&event)];
    for line in [
        "From: orders@shop.example\r\n",
        "To: \"Ada Lovelace\" <ada@example.com>\r\n",
        "Subject: Your order is confirmed\r\n",
        &format!("Message-ID: <{}@contrail>\r\n", id_for(&event)),
        "12.50 EUR",
        &order_id.to_string(),
    ] {
        assert!(message.contains(line), "{line:?} is not in\n{message}");
    }
    let (_, recorded) = trail.events.last().unwrap();
    let NotificationEvent::Sent(sent) = recorded.decode().unwrap() else { panic!("{recorded:?}") };
    assert_eq!((sent.order_id, sent.topic, sent.channel.as_str()), (order_id, Topic::OrderConfirmed, "email"));
    assert_eq!(recorded.metadata.causation_id, Some(event.metadata.event_id.to_string()));
}

#[tokio::test]
async fn an_event_that_is_handled_twice_is_announced_once() {
    let shop = Shop::open().await;
    let folder = tempfile::tempdir().unwrap();
    let mailer = running::mailer(&running::surroundings(&shop.store), folder.path());
    let (_, event) = confirmed(&shop, "o", ONE_TEA).await;
    // A second instance at the same time.
    let (first, second) = tokio::join!(mailer.handle(&event, News::Fresh), mailer.handle(&event, News::Fresh));
    first.unwrap();
    second.unwrap();
    let head = shop.store.head().await.unwrap();
    assert_eq!(mail(folder.path()).len(), 1);
    // And again after it was recorded: what was sent is not even written again.
    fs::remove_file(folder.path().join(format!("{}.eml", id_for(&event)))).unwrap();
    mailer.handle(&event, News::Stale).await.unwrap();
    assert_eq!(mail(folder.path()).len(), 0);
    assert_eq!(shop.store.head().await.unwrap(), head);
    let notification = shop.store.load::<Notification>(&id_for(&event)).await.unwrap();
    assert_eq!((notification.aggregate, notification.version), (Notification::Sent, 1));
}

#[tokio::test]
async fn an_address_that_is_none_is_recorded_as_failed_and_the_next_customer_is_told() {
    let shop = Shop::open().await;
    let folder = tempfile::tempdir().unwrap();
    let _notifications = running::notifications(&shop.store, folder.path());
    let (order_id, bad) = confirmed(&shop, "bad", Ask { email: "not an address", ..ONE_TEA }).await;
    let (_, good) = confirmed(&shop, "good", ONE_TEA).await;
    let mut trail = Trail::of(&shop.store);
    trail.until("both are recorded", |trail| trail.notifications.len() == 2).await;
    assert_eq!(trail.notifications[&id_for(&bad)], Notification::Failed);
    assert_eq!(mail(folder.path()).into_keys().collect::<Vec<_>>(), [id_for(&good)]);
    let (_, recorded) = trail.events.iter().find(|(_, event)| event.metadata.aggregate_id == id_for(&bad)).unwrap();
    let NotificationEvent::Failed(failed) = recorded.decode().unwrap() else { panic!("{recorded:?}") };
    assert_eq!((failed.order_id, failed.topic), (order_id, Topic::OrderConfirmed));
    assert!(!failed.reason.is_empty() && !failed.reason.contains("not an address"), "{:?}", failed.reason);
    assert_eq!(shop.dead_letters().await, []);
}

#[tokio::test]
async fn a_customers_name_cannot_add_headers() {
    let shop = Shop::open().await;
    let folder = tempfile::tempdir().unwrap();
    let mailer = running::mailer(&running::surroundings(&shop.store), folder.path());
    let long = "Zoë ".repeat(100);
    let names = [
        "A\r\nBcc: eve@example.com",
        "A\nBcc: eve@example.com",
        "\"A\" <eve@example.com>, ",
        "Zoë, 東京 \\ \"x\"",
        "\0\u{7f}\u{85}",
        long.trim(),
    ];
    for name in names {
        let (_, event) = confirmed(&shop, name, Ask { name, ..ONE_TEA }).await;
        mailer.handle(&event, News::Stale).await.unwrap();
        let mail = mail(folder.path());
        let message = &mail[&id_for(&event)];
        let (headers, _) = message.split_once("\r\n\r\n").unwrap();
        let names: Vec<_> = headers.lines().filter(|line| !line.starts_with([' ', '\t'])).collect();
        assert!(names.iter().all(|line| !line.to_ascii_lowercase().starts_with("bcc")), "{headers}");
        let recipients = names.iter().filter(|line| line.starts_with("To: ")).count();
        assert_eq!(recipients, 1, "{headers}");
        assert!(headers.contains("<ada@example.com>"), "{headers}");
    }
}

#[tokio::test]
async fn every_end_of_an_order_is_told() {
    let shop = Shop::open().await;
    let folder = tempfile::tempdir().unwrap();
    let _notifications = running::notifications(&shop.store, folder.path());
    let (delivered, _) = confirmed(&shop, "delivered", ONE_TEA).await;
    shop.ship(delivered).await;
    let deliver = OrderCommand::Deliver(order::Deliver { delivered_at: NOW, request: None });
    shop.order(delivered, deliver).await.unwrap();
    let rejected = shop.place("rejected", ONE_TEA).await;
    let shortages = vec![Shortage { sku: "TEA".parse().unwrap(), requested: 1, available: 0 }];
    let reject = OrderCommand::Reject(order::Reject { shortages, rejected_at: NOW });
    shop.order(rejected, reject).await.unwrap();
    let cancelled = shop.place("cancelled", ONE_TEA).await;
    shop.cancel(cancelled).await.unwrap();
    refund(&shop, cancelled).await;
    let mut trail = Trail::of(&shop.store);
    trail.until("all are recorded", |trail| trail.notifications.len() == 6).await;
    assert!(trail.notifications.values().all(|notification| *notification == Notification::Sent));
    let mail = mail(folder.path());
    for (subject, news) in [
        ("Your order is confirmed", "12.50 EUR"),
        ("Your order is on its way", "DHL, number JD014"),
        ("Your order has arrived", "delivered"),
        ("We could not fulfil your order", "do not have enough of TEA"),
        ("Your order was cancelled", "changed my mind"),
        ("Your money is on its way back", "refunded 12.50 EUR"),
    ] {
        let about: Vec<_> = mail.values().filter(|mail| mail.contains(&format!("Subject: {subject}\r\n"))).collect();
        assert_eq!(about.len(), 1, "{subject}");
        assert!(about[0].contains(news), "{news:?} is not in\n{}", about[0]);
    }
}

async fn refund(shop: &Shop, order_id: OrderId) {
    let id = order_id.to_string();
    let amount = domain::Money::new(PRICE, "EUR".parse().unwrap());
    let captured = PaymentCaptured { payment_intent_id: "pi_1".to_owned(), amount, captured_at: NOW };
    let refunded = PaymentRefunded { refund_id: "re_1".to_owned(), amount, refunded_at: NOW };
    let mut transaction = Transaction::new();
    transaction.push::<Payment>(&id, Expected::NEW, &[captured.into(), refunded.into()], &context(&id));
    shop.store.append(transaction).await.unwrap();
}

#[tokio::test]
async fn mail_waits_for_a_folder_that_cannot_be_written_to() {
    let shop = Shop::open().await;
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("mail");
    fs::write(&folder, "a file where the folder should be").unwrap();
    let mailer = running::mailer(&running::surroundings(&shop.store), &folder);
    let (_, event) = confirmed(&shop, "o", ONE_TEA).await;
    assert!(matches!(mailer.handle(&event, News::Stale).await, Err(reactors::Failure::Transient { .. })));
    let _notifications = running::notifications(&shop.store, &folder);
    fs::remove_file(&folder).unwrap();
    let mut trail = Trail::of(&shop.store);
    trail.until("it is sent", |trail| trail.notifications.contains_key(&id_for(&event))).await;
    assert_eq!(mail(&folder).len(), 1);
    assert_eq!(shop.store.load::<Order>(&event.metadata.aggregate_id).await.unwrap().version, 3);
}
