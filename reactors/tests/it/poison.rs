//! What should not be in the log: it is set aside with the reason, and everything else goes on.

use domain::{OrderId, envelope::StoredEvent, order::OrderStatus};
use event_store::{DeadLetter, WorkSource};
use reactors::{Failure, News, Reactor};

use crate::{
    gateway::Gateway,
    running::{self, Running},
    shop::{ONE_TEA, Shop},
    trail::Trail,
};

async fn open() -> (Shop, tempfile::TempDir, [Running; 4]) {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    let folder = tempfile::tempdir().unwrap();
    shop.receive("TEA", 10).await;
    let running = [
        running::allocator(&shop.store),
        running::payments(&shop.store, gateway.adapter()),
        running::notifications(&shop.store, folder.path()),
        running::deadlines(&shop.store),
    ];
    (shop, folder, running)
}

/// Every reactor is past what is in the log now, and still does its work.
async fn assert_all_go_on(shop: &Shop) {
    let order = shop.place("good", ONE_TEA).await;
    let mut trail = Trail::of(&shop.store);
    trail.until("a good order is confirmed", |trail| trail.status(order) == Some(OrderStatus::Confirmed)).await;
    trail.until("its customer is told", |trail| !trail.notifications.is_empty()).await;
    for reactor in ["allocator", "payments", "notifications", "deadlines"] {
        shop.idle(reactor).await;
    }
}

fn by_reactor(letters: &[DeadLetter]) -> Vec<(&str, u64, &str)> {
    let mut letters: Vec<_> =
        letters.iter().map(|letter| (letter.reactor.as_str(), letter.position, letter.event_type.as_str())).collect();
    letters.sort_unstable();
    letters
}

#[tokio::test]
async fn an_event_that_cannot_be_decoded_is_set_aside_by_every_reactor() {
    let (shop, _folder, _running) = open().await;
    let stranger = OrderId::derive("shop", "stranger");
    let first = shop.publish_raw(format!("events.order.{stranger}"), b"not JSON at all".to_vec()).await;
    let second = shop.publish_raw(format!("events.order.{stranger}"), b"{\"specversion\":\"1.0\"}".to_vec()).await;
    assert_all_go_on(&shop).await;
    let letters = shop.dead_letters().await;
    let expected: Vec<_> = ["allocator", "deadlines", "notifications", "payments"]
        .into_iter()
        .flat_map(|reactor| [first, second].map(|position| (reactor, position, "undecodable")))
        .collect();
    assert_eq!(by_reactor(&letters), expected);
    for letter in letters {
        let [outer, cause] = letter.error_chain.as_slice() else { panic!("{letter:?}") };
        assert_eq!(outer, "read the event's envelope");
        assert!(cause.contains("line 1 column"), "{letter:?}");
        assert_eq!(letter.attempts, 1);
    }
}

#[tokio::test]
async fn an_event_with_wrong_data_is_set_aside_by_the_reactors_that_need_it() {
    let (shop, _folder, _running) = open().await;
    let id = |key| OrderId::derive("shop", key).to_string();
    let placed = shop.publish_with_wrong_data("order", &id("a"), "contrail.order.placed.v1", 1).await;
    let reserved = shop.publish_with_wrong_data("order", &id("b"), "contrail.order.stock_reserved.v1", 1).await;
    let shipped = shop.publish_with_wrong_data("order", &id("c"), "contrail.order.shipped.v1", 1).await;
    let unknown = shop.publish_with_wrong_data("order", &id("d"), "contrail.order.placed.v2", 1).await;
    assert_all_go_on(&shop).await;
    let (of_unknown, letters): (Vec<_>, Vec<_>) =
        shop.dead_letters().await.into_iter().partition(|letter| letter.position == unknown);
    // None of them can tell whether it would have something to do.
    let reactors = ["allocator", "deadlines", "notifications", "payments"];
    assert_eq!(by_reactor(&of_unknown), reactors.map(|reactor| (reactor, unknown, "contrail.order.placed.v2")));
    for letter in of_unknown {
        assert_eq!(letter.error_chain, ["event type contrail.order.placed.v2 is unknown to this build"]);
    }
    let expected = [
        ("allocator", placed, "contrail.order.placed.v1"),
        ("allocator", shipped, "contrail.order.shipped.v1"),
        ("deadlines", reserved, "contrail.order.stock_reserved.v1"),
        ("notifications", shipped, "contrail.order.shipped.v1"),
        ("payments", reserved, "contrail.order.stock_reserved.v1"),
    ];
    assert_eq!(by_reactor(&letters), expected);
    for letter in letters {
        let chain = letter.error_chain.join(": ");
        assert!(chain.contains("read the data of an event of type contrail.order."), "{letter:?}");
        assert!(letter.error_chain.last().unwrap().starts_with("missing field"), "{letter:?}");
    }
}

#[tokio::test]
async fn an_event_of_another_order_than_its_subject_says_is_set_aside() {
    let (shop, _folder, _running) = open().await;
    let good = shop.place("one", ONE_TEA).await;
    let bytes = shop.store.events_of("order", &good.to_string()).await.unwrap()[0].event.to_json();
    let (subject, claimed) = (OrderId::derive("shop", "subject"), OrderId::derive("shop", "claimed"));
    let bytes = String::from_utf8(bytes).unwrap().replace(&good.to_string(), &claimed.to_string());
    let bytes = bytes.replace(crate::shop::SOURCE, crate::shop::POISON);
    let position = shop.publish_raw(format!("events.order.{subject}"), bytes.into_bytes()).await;
    assert_all_go_on(&shop).await;
    assert_eq!(by_reactor(&shop.dead_letters().await), [("allocator", position, "contrail.order.placed.v1")]);
}

#[tokio::test]
async fn a_reservation_of_what_is_no_order_does_not_keep_others_from_their_deadlines() {
    let shop = Shop::open().await;
    shop.receive("TEA", 10).await;
    let _allocator = running::allocator(&shop.store);
    let order = shop.place("one", ONE_TEA).await;
    let mut trail = Trail::of(&shop.store);
    trail.until("it is reserved", |trail| trail.status(order) == Some(OrderStatus::Reserved)).await;
    let reserved = shop.store.events_of("order", &order.to_string()).await.unwrap()[1].event.to_json();
    let forged = String::from_utf8(reserved).unwrap().replace(&order.to_string(), "größe");
    let forged = forged.replace(crate::shop::SOURCE, crate::shop::POISON);
    let position = shop.publish_raw("events.order.größe".to_owned(), forged.into_bytes()).await;
    let _deadlines = running::deadlines(&shop.store);
    crate::eventually("the order has its timer", async || (shop.timers().await == 1).then_some(())).await;
    assert_eq!(by_reactor(&shop.dead_letters().await), [("deadlines", position, "contrail.order.stock_reserved.v1")]);
}

#[tokio::test]
async fn a_cancellation_out_of_its_place_among_the_orders_events_releases_nothing() {
    let shop = Shop::open().await;
    shop.receive("TEA", 10).await;
    let order = shop.place("one", ONE_TEA).await;
    let _allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    trail.until("it is reserved", |trail| trail.status(order) == Some(OrderStatus::Reserved)).await;
    let placed = shop.store.events_of("order", &order.to_string()).await.unwrap()[0].event.to_json();
    let mut forged: serde_json::Value = serde_json::from_slice(&placed).unwrap();
    // Number 1 is taken: the order was placed with it.
    assert_eq!(forged["sequence"], "1");
    forged["type"] = "contrail.order.cancelled.v1".into();
    forged["data"] = serde_json::json!({"cause": "operator", "reason": "forged", "cancelled_at": "2026-11-20T12:00:00Z"});
    let forged = forged.to_string().replace(crate::shop::SOURCE, crate::shop::POISON);
    let position = shop.publish_raw(format!("events.order.{order}"), forged.into_bytes()).await;
    shop.idle("allocator").await;
    trail.catch_up(&shop.store).await;
    assert_eq!(by_reactor(&shop.dead_letters().await), [("allocator", position, "contrail.order.cancelled.v1")]);
    assert_eq!(trail.stock("TEA").open.len(), 1);
}

#[tokio::test]
async fn an_order_whose_later_events_cannot_be_read_does_not_hold_up_its_batch() {
    let shop = Shop::open().await;
    shop.receive("TEA", 10).await;
    let poisoned = shop.place("poisoned", ONE_TEA).await;
    shop.publish_with_wrong_data("order", &poisoned.to_string(), "contrail.order.stock_reserved.v1", 2).await;
    let good = shop.place_many("good", 9, ONE_TEA).await;
    let _allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    trail.until("the others are reserved", |trail| trail.all_are(&good, OrderStatus::Reserved)).await;
    shop.idle("allocator").await;
    trail.catch_up(&shop.store).await;
    assert_eq!(trail.status(poisoned), Some(OrderStatus::Placed));
    let letters = shop.dead_letters().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].error_chain[0].starts_with("decode the event at position"), "{letters:?}");
    assert!(letters[0].error_chain.len() >= 3, "{letters:?}");
    assert_eq!(trail.stock("TEA").open.len(), 9);
}

#[tokio::test]
async fn orders_wait_for_a_sku_that_cannot_be_read_and_the_others_go_on() {
    let shop = Shop::open().await;
    shop.receive("TEA", 10).await;
    shop.publish_with_wrong_data("stock", "CUP", "contrail.stock.received.v1", 1).await;
    let waiting = shop.place_lines("waiting", &[("TEA", 1), ("CUP", 1)]).await;
    let good = shop.place_many("good", 9, ONE_TEA).await;
    let _allocator = running::allocator(&shop.store);
    let mut trail = Trail::of(&shop.store);
    trail.until("the others are reserved", |trail| trail.all_are(&good, OrderStatus::Reserved)).await;
    let late = shop.place("late", ONE_TEA).await;
    trail.until("later ones are reserved", |trail| trail.status(late) == Some(OrderStatus::Reserved)).await;
    assert_eq!(trail.status(waiting), Some(OrderStatus::Placed));
    assert_eq!(shop.dead_letters().await, []);
}

/// Whatever it is given, it panics over some of it.
struct Nervous;

impl Reactor for Nervous {
    const NAME: &'static str = "nervous";
    const SOURCE: WorkSource = WorkSource::Log(&["stock"]);
    const CONCURRENCY: usize = 4;

    fn wants(&self, _event_type: &str) -> bool {
        true
    }

    async fn handle(&self, event: &StoredEvent, _: News) -> Result<(), Failure> {
        assert_ne!(event.metadata.aggregate_id, "CUP", "cups are frightening");
        Ok(())
    }
}

#[tokio::test]
async fn an_event_that_makes_a_reactor_panic_is_set_aside() {
    let shop = Shop::open().await;
    for sku in ["TEA", "CUP", "POT"] {
        shop.receive(sku, 1).await;
    }
    let _nervous = running::run(&shop.store, Nervous);
    shop.idle("nervous").await;
    let letters = shop.dead_letters().await;
    assert_eq!(by_reactor(&letters), [("nervous", 2, "contrail.stock.received.v1")]);
    assert!(letters[0].error_chain[0].contains("cups are frightening"), "{letters:?}");
}
