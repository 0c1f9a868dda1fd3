//! A gateway with faults: orders wait, and none is lost or charged twice.

use std::{collections::BTreeMap, time::Duration};

use domain::{OrderId, order::OrderStatus, payment::PaymentStatus};
use payment_simulator::{Faults, Latency};

use crate::{
    eventually,
    gateway::Gateway,
    running,
    shop::{ONE_TEA, PRICE, Shop},
    trail::Trail,
};

/// Less than an event waits for an instance that does not report back: what happens within it was handed back.
const WELL_WITHIN_ACK_WAIT: Duration = Duration::from_secs(15);

async fn open() -> (Shop, Gateway, Trail) {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    shop.receive("TEA", 1_000).await;
    let trail = Trail::of(&shop.store);
    (shop, gateway, trail)
}

async fn assert_charged_once(gateway: &Gateway, orders: &[OrderId]) {
    let once: BTreeMap<_, _> = orders.iter().map(|order| (order.to_string(), vec![PRICE])).collect();
    assert_eq!(gateway.money().await.charges, once);
}

#[tokio::test]
async fn orders_wait_while_the_gateway_is_down_and_are_each_charged_once_when_it_is_back() {
    let (shop, gateway, mut trail) = open().await;
    let _running = [running::allocator(&shop.store), running::payments(&shop.store, gateway.adapter())];
    gateway.set_faults(Faults { outage: true, ..Faults::default() });
    // More than are worked on at the same time.
    let orders = shop.place_many("o", 150, ONE_TEA).await;
    trail.until("all are reserved", |trail| trail.all_are(&orders, OrderStatus::Reserved)).await;
    gateway.until_counted("unavailable", 200).await;
    trail.catch_up(&shop.store).await;
    assert!(trail.all_are(&orders, OrderStatus::Reserved));
    assert_eq!(shop.dead_letters().await, []);
    gateway.set_faults(Faults::default());
    trail.until("all are confirmed", |trail| trail.all_are(&orders, OrderStatus::Confirmed)).await;
    assert_charged_once(&gateway, &orders).await;
    assert_eq!(shop.dead_letters().await, []);
}

#[tokio::test]
async fn an_order_cancelled_while_the_gateway_is_down_is_not_charged_when_it_is_back() {
    let (shop, gateway, mut trail) = open().await;
    let _running = [running::allocator(&shop.store), running::payments(&shop.store, gateway.adapter())];
    gateway.set_faults(Faults { outage: true, ..Faults::default() });
    let order = shop.place("o", ONE_TEA).await;
    gateway.until_counted("unavailable", 1).await;
    shop.cancel(order).await.unwrap();
    gateway.set_faults(Faults::default());
    trail.until("it is released", |trail| trail.positions_of("stock.released").len() == 1).await;
    shop.idle("payments").await;
    trail.catch_up(&shop.store).await;
    assert_eq!(trail.payment_status(order), PaymentStatus::None);
    assert_charged_once(&gateway, &[]).await;
}

#[tokio::test]
async fn answers_that_are_lost_do_not_charge_or_refund_twice() {
    let (shop, gateway, mut trail) = open().await;
    let _running = [running::allocator(&shop.store), running::payments(&shop.store, gateway.adapter())];
    gateway.set_faults(Faults { lost_answer_rate: 1.0, ..Faults::default() });
    let orders = shop.place_many("o", 40, ONE_TEA).await;
    eventually("all are charged", async || (gateway.money().await.charges.len() == 40).then_some(())).await;
    trail.catch_up(&shop.store).await;
    assert!(trail.all_are(&orders, OrderStatus::Reserved), "nobody has heard of the charges");
    gateway.set_faults(Faults::default());
    trail.until("all are confirmed", |trail| trail.all_are(&orders, OrderStatus::Confirmed)).await;
    assert_charged_once(&gateway, &orders).await;

    gateway.set_faults(Faults { lost_answer_rate: 0.3, ..Faults::default() });
    let (refunded, _) = orders.split_at(8);
    for order in refunded {
        shop.cancel(*order).await.unwrap();
    }
    eventually("all are refunded", async || (gateway.money().await.refunds.len() == 8).then_some(())).await;
    gateway.set_faults(Faults::default());
    let all_recorded = |trail: &Trail| refunded.iter().all(|order| trail.payment_status(*order) == PaymentStatus::Refunded);
    trail.until("all refunds are recorded", all_recorded).await;
    let once: BTreeMap<_, _> = refunded.iter().map(|order| (order.to_string(), vec![PRICE])).collect();
    assert_eq!(gateway.money().await.refunds, once);
    assert_eq!(shop.dead_letters().await, []);
}

#[tokio::test]
async fn errors_and_latency_delay_orders_and_nothing_else() {
    let (shop, gateway, mut trail) = open().await;
    let _running = [running::allocator(&shop.store), running::payments(&shop.store, gateway.adapter())];
    let latency_ms = Latency::Between { min: 0, max: 40 };
    gateway.set_faults(Faults { latency_ms, error_rate: 0.2, lost_answer_rate: 0.1, ..Faults::default() });
    let orders = shop.place_many("o", 60, ONE_TEA).await;
    trail.until("all are confirmed", |trail| trail.all_are(&orders, OrderStatus::Confirmed)).await;
    assert_charged_once(&gateway, &orders).await;
    assert_eq!(shop.dead_letters().await, []);
}

#[tokio::test]
async fn with_a_wrong_key_orders_wait_until_it_is_mended_and_none_is_cancelled() {
    let (shop, gateway, mut trail) = open().await;
    let _allocator = running::allocator(&shop.store);
    let wrong = running::payments(&shop.store, gateway.adapter_with_key("not a secret key"));
    let orders = shop.place_many("o", 5, ONE_TEA).await;
    gateway.until_counted("refused", 15).await;
    trail.catch_up(&shop.store).await;
    assert!(trail.all_are(&orders, OrderStatus::Reserved));
    wrong.drain().await;
    let _right = running::payments(&shop.store, gateway.adapter());
    let confirmed = |trail: &Trail| trail.all_are(&orders, OrderStatus::Confirmed);
    trail.until_within(WELL_WITHIN_ACK_WAIT, "all are confirmed", confirmed).await;
    assert_eq!(shop.dead_letters().await, []);
}

#[tokio::test]
async fn what_a_drained_instance_had_in_hand_the_next_one_gets_at_once() {
    let (shop, gateway, mut trail) = open().await;
    let _allocator = running::allocator(&shop.store);
    let first = running::payments(&shop.connect().await, gateway.adapter());
    gateway.set_faults(Faults { outage: true, ..Faults::default() });
    let orders = shop.place_many("o", 20, ONE_TEA).await;
    gateway.until_counted("unavailable", 20).await;
    first.drain().await;
    gateway.set_faults(Faults::default());
    let _second = running::payments(&shop.connect().await, gateway.adapter());
    let confirmed = |trail: &Trail| trail.all_are(&orders, OrderStatus::Confirmed);
    trail.until_within(WELL_WITHIN_ACK_WAIT, "all are confirmed", confirmed).await;
    assert_charged_once(&gateway, &orders).await;
}

#[tokio::test]
async fn a_draining_instance_finishes_its_charges_and_begins_no_more() {
    let (shop, gateway, mut trail) = open().await;
    let _allocator = running::allocator(&shop.store);
    let first = running::payments(&shop.connect().await, gateway.adapter());
    gateway.set_faults(Faults { latency_ms: Latency::Fixed(1_500), ..Faults::default() });
    let orders = shop.place_many("o", 128, ONE_TEA).await;
    trail.until("all are reserved", |trail| trail.all_are(&orders, OrderStatus::Reserved)).await;
    gateway.until_in_flight().await;
    first.drain().await;
    trail.catch_up(&shop.store).await;
    let confirmed = trail.count(&orders, OrderStatus::Confirmed);
    assert_eq!(gateway.money().await.charges.len(), confirmed, "what it charged it has recorded");
    assert!((1..=64).contains(&confirmed), "{confirmed} were in hand when the drain began");
}
