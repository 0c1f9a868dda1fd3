//! A gateway without faults: every order is charged once, or its money given back.

use std::{collections::BTreeMap, time::Duration};

use domain::{
    OrderId,
    order::{Cause, OrderStatus},
    payment::PaymentStatus,
};
use payment_simulator::{Faults, Latency};

use crate::{
    eventually,
    gateway::{Gateway, Money},
    running::{self, Running},
    shop::{Ask, ONE_TEA, PRICE, Shop},
    trail::Trail,
};

/// A shop with 100 TEA, an allocator and payments, and a gateway without faults.
async fn open() -> (Shop, Gateway, Trail, [Running; 2]) {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    shop.receive("TEA", 100).await;
    let running = [running::allocator(&shop.store), running::payments(&shop.store, gateway.adapter())];
    let trail = Trail::of(&shop.store);
    (shop, gateway, trail, running)
}

fn once(orders: &[OrderId], amount: i64) -> BTreeMap<String, Vec<i64>> {
    orders.iter().map(|order| (order.to_string(), vec![amount])).collect()
}

#[tokio::test]
async fn a_charge_is_captured_and_confirmed_in_one_transaction() {
    let (shop, gateway, mut trail, _running) = open().await;
    let order = shop.place_lines("o", &[("TEA", 3)]).await;
    trail.until("it is confirmed", |trail| trail.status(order) == Some(OrderStatus::Confirmed)).await;
    let (captured, confirmed) = (trail.positions_of("payment.captured"), trail.positions_of("order.confirmed"));
    assert_eq!((captured.len(), confirmed.as_slice()), (1, [captured[0] + 1].as_slice()));
    let capture = trail.payments[&order].capture.clone().unwrap();
    assert_eq!(capture.amount.to_string(), "37.50 EUR");
    assert_eq!(trail.orders[&order].payment_intent_id, Some(capture.payment_intent_id));
    assert_eq!(gateway.money().await, Money { charges: once(&[order], 3 * PRICE), refunds: BTreeMap::new() });
}

#[tokio::test]
async fn a_declined_charge_cancels_the_order_in_one_transaction_and_releases_its_stock() {
    let (shop, gateway, mut trail, _running) = open().await;
    let ask = Ask { payment_method: "pm_card_chargeDeclinedInsufficientFunds", ..ONE_TEA };
    let order = shop.place("o", ask).await;
    trail.until("it is cancelled", |trail| trail.status(order) == Some(OrderStatus::Cancelled)).await;
    let (declined, cancelled) = (trail.positions_of("payment.declined"), trail.positions_of("order.cancelled"));
    assert_eq!((declined.len(), cancelled.as_slice()), (1, [declined[0] + 1].as_slice()));
    let cancellation = trail.orders[&order].cancellation.clone().unwrap();
    assert_eq!(cancellation.cause, Cause::PaymentDeclined);
    assert_eq!(cancellation.reason, "Your card has insufficient funds.");
    let decline = trail.payments[&order].decline.clone().unwrap();
    assert_eq!(decline.0, "insufficient_funds");
    trail.until("its stock is released", |trail| trail.stock("TEA").reserved == 0).await;
    assert_eq!(gateway.money().await, Money::default());
    shop.idle("payments").await;
    assert_eq!(shop.dead_letters().await, []);
}

#[tokio::test]
async fn a_card_that_the_gateway_does_not_know_ends_its_own_order_only() {
    let (shop, _gateway, mut trail, _running) = open().await;
    let unknown = shop.place("unknown", Ask { payment_method: "no such card", ..ONE_TEA }).await;
    let good = shop.place("good", ONE_TEA).await;
    trail.until("one is confirmed", |trail| trail.status(good) == Some(OrderStatus::Confirmed)).await;
    trail.until("one is cancelled", |trail| trail.status(unknown) == Some(OrderStatus::Cancelled)).await;
    assert_eq!(trail.payment_status(unknown), PaymentStatus::Declined);
}

#[tokio::test]
async fn an_order_cancelled_after_it_was_charged_is_refunded_once() {
    let (shop, gateway, mut trail, _running) = open().await;
    let order = shop.place_lines("o", &[("TEA", 2)]).await;
    trail.until("it is confirmed", |trail| trail.status(order) == Some(OrderStatus::Confirmed)).await;
    shop.cancel(order).await.unwrap();
    trail.until("it is refunded", |trail| trail.payment_status(order) == PaymentStatus::Refunded).await;
    trail.until("its stock is released", |trail| trail.stock("TEA").reserved == 0).await;
    shop.idle("payments").await;
    let both = once(&[order], 2 * PRICE);
    assert_eq!(gateway.money().await, Money { charges: both.clone(), refunds: both });
}

#[tokio::test]
async fn orders_cancelled_while_their_charges_are_in_flight_end_refunded() {
    let (shop, gateway, mut trail, _running) = open().await;
    gateway.set_faults(Faults { latency_ms: Latency::Fixed(700), ..Faults::default() });
    let orders = shop.place_many("o", 10, ONE_TEA).await;
    trail.until("all are reserved", |trail| trail.all_are(&orders, OrderStatus::Reserved)).await;
    gateway.until_in_flight().await;
    for order in &orders {
        shop.cancel(*order).await.unwrap();
    }
    shop.idle("payments").await;
    trail.catch_up(&shop.store).await;
    assert!(trail.all_are(&orders, OrderStatus::Cancelled));
    assert_eq!(trail.positions_of("order.confirmed"), [0; 0]);
    let money = gateway.money().await;
    assert!(!money.charges.is_empty(), "at least one charge was in flight");
    assert_eq!(money.charges, money.refunds, "what was taken was given back, once");
    for order in &orders {
        let charged = money.charges.contains_key(&order.to_string());
        let expected = if charged { PaymentStatus::Refunded } else { PaymentStatus::None };
        assert_eq!(trail.payment_status(*order), expected, "{order}");
    }
}

#[tokio::test]
async fn a_charge_that_the_gateways_search_does_not_know_yet_is_found_later_and_given_back() {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    shop.receive("TEA", 10).await;
    let mut trail = Trail::of(&shop.store);
    let _allocator = running::allocator(&shop.store);
    // Charged, and nobody has heard of it when the order is called off; nor does the search know for longer than it takes until
    // everything that the dead instance had in hand has come again.
    let search_lag_ms = 8_000;
    gateway.set_faults(Faults { lost_answer_rate: 1.0, search_lag_ms, ..Faults::default() });
    let first = running::payments(&shop.connect().await, gateway.adapter());
    let order = shop.place("o", ONE_TEA).await;
    eventually("it is charged", async || gateway.money().await.charges.contains_key(&order.to_string()).then_some(())).await;
    first.drain().await;
    shop.cancel_now(order).await.unwrap();
    gateway.set_faults(Faults { search_lag_ms, ..Faults::default() });
    let checks = vec![Duration::from_millis(1), Duration::from_millis(search_lag_ms + 2_000)];
    let _second = running::payments_with_checks(&shop.connect().await, gateway.adapter(), checks);
    eventually("a timer is set", async || (shop.timers().await == 1).then_some(())).await;
    trail.catch_up(&shop.store).await;
    assert_eq!(trail.payment_status(order), PaymentStatus::None);
    trail.until("it is refunded", |trail| trail.payment_status(order) == PaymentStatus::Refunded).await;
    let money = gateway.money().await;
    assert_eq!((&money.charges[&order.to_string()], &money.charges), (&vec![PRICE], &money.refunds));
    eventually("no timer is left", async || (shop.timers().await == 0).then_some(())).await;
}

#[tokio::test]
async fn an_order_that_has_waited_until_the_gateway_has_forgotten_its_key_is_not_charged_again() {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    shop.receive("TEA", 10).await;
    let orders = [shop.place("charged", ONE_TEA).await, shop.place("not charged", ONE_TEA).await];
    for order in orders {
        shop.reserve_long_ago(order).await;
    }
    // As if somebody had charged it then, and died before it was recorded.
    gateway.charge_by_hand(Some(orders[0]), PRICE).await;
    let _payments = running::payments(&shop.store, gateway.adapter());
    let mut trail = Trail::of(&shop.store);
    trail.until("both are confirmed", |trail| trail.all_are(&orders, OrderStatus::Confirmed)).await;
    assert_eq!(gateway.money().await.charges, once(&orders, PRICE));
}

#[tokio::test]
async fn a_charge_that_was_given_back_by_hand_pays_for_nothing() {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    shop.receive("TEA", 10).await;
    let order = shop.place("given back", ONE_TEA).await;
    shop.reserve_long_ago(order).await;
    let charge = gateway.charge_by_hand(Some(order), PRICE).await;
    gateway.refund_by_hand(&charge, order, PRICE).await;
    let _payments = running::payments(&shop.store, gateway.adapter());
    let letters = async || Some(shop.dead_letters().await).filter(|letters| !letters.is_empty());
    let letters = eventually("somebody has to look", letters).await;
    assert!(letters[0].error_chain[0].ends_with("the order was not called off: cancel it"), "{letters:?}");
    let mut trail = Trail::of(&shop.store);
    trail.until("it is on record", |trail| !trail.positions_of("payment.given_up").is_empty()).await;
    assert_eq!((trail.status(order), trail.payment_status(order)), (Some(OrderStatus::Reserved), PaymentStatus::None));
}

#[tokio::test]
async fn two_instances_charge_every_order_once() {
    let (shop, gateway, mut trail, _running) = open().await;
    let _second = running::payments(&shop.connect().await, gateway.adapter());
    let orders = shop.place_many("o", 80, ONE_TEA).await;
    trail.until("all are confirmed", |trail| trail.all_are(&orders, OrderStatus::Confirmed)).await;
    shop.idle("payments").await;
    trail.catch_up(&shop.store).await;
    assert_eq!(trail.positions_of("payment.captured").len(), 80);
    assert_eq!(gateway.money().await, Money { charges: once(&orders, PRICE), refunds: BTreeMap::new() });
}

#[tokio::test]
async fn a_refund_that_the_gateway_refuses_is_given_up_for_somebody_to_look_at() {
    let (shop, gateway, mut trail, _running) = open().await;
    let order = shop.place("o", ONE_TEA).await;
    trail.until("it is confirmed", |trail| trail.status(order) == Some(OrderStatus::Confirmed)).await;
    let intent = trail.orders[&order].payment_intent_id.clone().unwrap();
    gateway.refund_by_hand(&intent, order, 250).await;
    shop.cancel(order).await.unwrap();
    shop.idle("payments").await;
    let letters = shop.dead_letters().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((letters[0].reactor.as_str(), letters[0].event_type.as_str()), ("payments", "contrail.order.cancelled.v1"));
    assert!(letters[0].error_chain[0].contains("refund an order: the gateway refused with 400"), "{:?}", letters[0].error_chain);
    assert_eq!(gateway.money().await.refunds[&order.to_string()], [250], "and no money moves until then");
    trail.catch_up(&shop.store).await;
    let given_up = trail.payments[&order].given_up.clone().unwrap();
    assert_eq!(given_up.position, letters[0].position, "whoever looks at the order sees it");
    assert_eq!(given_up.reason, letters[0].error_chain.join(": "));
}
