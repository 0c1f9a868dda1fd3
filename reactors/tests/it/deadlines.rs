//! Orders that are not paid in time.

use std::time::Duration;

use domain::{
    OrderId,
    order::{Cause, OrderStatus},
    payment::PaymentStatus,
};
use event_store::Sharing;
use payment_simulator::{Faults, Latency};
use reactors::dead_letters::{self, Selection, Verdict};

use crate::{
    dead_letters::letter,
    eventually,
    gateway::Gateway,
    running,
    shop::{ONE_TEA, Shop},
    trail::Trail,
};

/// Short enough for a test, and longer than an order is held before its timer is set.
const WINDOW: Duration = Duration::from_secs(4);

async fn open() -> (Shop, Trail) {
    let shop = Shop::open().await;
    shop.receive("TEA", 1_000).await;
    let trail = Trail::of(&shop.store);
    (shop, trail)
}

fn assert_called_off_in_time(trail: &Trail, order_id: OrderId) {
    let order = &trail.orders[&order_id];
    let (due_at, cancellation) = (order.payment_due_at.unwrap(), order.cancellation.as_ref().unwrap());
    assert_eq!(cancellation.cause, Cause::PaymentDeadline);
    let late = cancellation.cancelled_at - due_at;
    assert!(late.is_positive() && late < time::Duration::seconds(5), "{late} after the deadline");
}

#[tokio::test]
async fn an_unpaid_order_is_called_off_at_its_deadline_and_its_stock_is_free_again() {
    let (shop, mut trail) = open().await;
    let _running = [running::allocator_with_window(&shop.store, WINDOW), running::deadlines(&shop.store)];
    let orders = shop.place_many("o", 50, ONE_TEA).await;
    trail.until("all are reserved", |trail| trail.all_are(&orders, OrderStatus::Reserved)).await;
    assert_eq!(trail.stock("TEA").reserved, 50);
    let (paid, unpaid) = orders.split_at(10);
    // Some at once, the others when their timers are set already.
    for (count, order) in paid.iter().enumerate() {
        if count == 5 {
            eventually("timers are set", async || (shop.timers().await >= 45).then_some(())).await;
        }
        shop.confirm(*order).await;
    }
    trail.until("the others are called off", |trail| trail.all_are(unpaid, OrderStatus::Cancelled)).await;
    trail.until("their stock is free", |trail| trail.stock("TEA").reserved == 10).await;
    for order in unpaid {
        assert_called_off_in_time(&trail, *order);
    }
    shop.idle("deadlines").await;
    trail.catch_up(&shop.store).await;
    assert!(trail.all_are(paid, OrderStatus::Confirmed));
    eventually("no timer is left", async || (shop.timers().await == 0).then_some(())).await;
}

#[tokio::test]
async fn orders_that_are_paid_at_once_cost_no_timer() {
    let (shop, mut trail) = open().await;
    let gateway = Gateway::open().await;
    let _running =
        [running::allocator(&shop.store), running::payments(&shop.store, gateway.adapter()), running::deadlines(&shop.store)];
    let orders = shop.place_many("o", 50, ONE_TEA).await;
    trail.until("all are confirmed", |trail| trail.all_are(&orders, OrderStatus::Confirmed)).await;
    shop.idle("deadlines").await;
    assert_eq!(shop.last_timer().await, 0);
}

#[tokio::test]
async fn a_deadline_that_passes_while_everything_is_down_is_met_afterwards() {
    let (mut shop, mut trail) = open().await;
    let (allocator, watching) = (running::allocator_with_window(&shop.store, WINDOW), running::deadlines(&shop.store));
    // One whose timer is set, and one whose event nobody has looked at.
    let first = shop.place("first", ONE_TEA).await;
    eventually("its timer is set", async || (shop.timers().await == 1).then_some(())).await;
    watching.kill().await;
    let second = shop.place("second", ONE_TEA).await;
    trail.until("both are reserved", |trail| trail.all_are(&[first, second], OrderStatus::Reserved)).await;
    allocator.kill().await;
    shop.server.kill();
    tokio::time::sleep(WINDOW + Duration::from_secs(1)).await;
    shop.server.start_again().unwrap();
    let store = shop.connect().await;
    let gateway = Gateway::open().await;
    let _running = [running::allocator(&store), running::payments(&store, gateway.adapter()), running::deadlines(&store)];
    trail.until("both are called off", |trail| trail.all_are(&[first, second], OrderStatus::Cancelled)).await;
    trail.until("their stock is free", |trail| trail.stock("TEA").reserved == 0).await;
    for order in [first, second] {
        assert_eq!(trail.orders[&order].cancellation.as_ref().unwrap().cause, Cause::PaymentDeadline);
    }
    assert!(gateway.money().await.charges.is_empty(), "nobody pays for what is overdue");
}

#[tokio::test]
async fn without_the_deadlines_reactor_nothing_overdue_is_charged_either() {
    let (shop, mut trail) = open().await;
    let gateway = Gateway::open().await;
    gateway.set_faults(Faults { outage: true, ..Faults::default() });
    let window = Duration::from_secs(1);
    let _running = [running::allocator_with_window(&shop.store, window), running::payments(&shop.store, gateway.adapter())];
    let order = shop.place("o", ONE_TEA).await;
    trail.until("it is reserved", |trail| trail.status(order) == Some(OrderStatus::Reserved)).await;
    tokio::time::sleep(window).await;
    gateway.set_faults(Faults::default());
    trail.until("its stock is free", |trail| trail.positions_of("stock.released").len() == 1).await;
    assert_eq!(trail.orders[&order].cancellation.as_ref().unwrap().cause, Cause::PaymentDeadline);
    shop.idle("payments").await;
    assert!(gateway.money().await.charges.is_empty());
}

#[tokio::test]
async fn a_charge_that_is_in_flight_at_the_deadline_is_given_back() {
    let (shop, mut trail) = open().await;
    let gateway = Gateway::open().await;
    // The gateway takes the money and says so after the deadline.
    gateway.set_faults(Faults { latency_ms: Latency::Fixed(2_500), ..Faults::default() });
    let _running = [
        running::allocator_with_window(&shop.store, Duration::from_secs(1)),
        running::payments(&shop.store, gateway.adapter()),
        running::deadlines(&shop.store),
    ];
    let orders = shop.place_many("o", 20, ONE_TEA).await;
    let refunded = |trail: &Trail| orders.iter().all(|order| trail.payment_status(*order) == PaymentStatus::Refunded);
    trail.until("all are refunded", refunded).await;
    assert!(trail.all_are(&orders, OrderStatus::Cancelled));
    trail.until("their stock is free", |trail| trail.stock("TEA").reserved == 0).await;
    let money = gateway.money().await;
    assert_eq!((money.charges.len(), &money.charges), (20, &money.refunds));
}

#[tokio::test]
async fn two_instances_call_each_order_off_once_also_when_one_of_them_dies() {
    let (shop, mut trail) = open().await;
    let _allocator = running::allocator_with_window(&shop.store, WINDOW);
    let first = running::deadlines(&shop.connect().await);
    let _second = running::deadlines(&shop.connect().await);
    let orders = shop.place_many("o", 60, ONE_TEA).await;
    trail.until("all are reserved", |trail| trail.all_are(&orders, OrderStatus::Reserved)).await;
    first.kill().await;
    trail.until("all are called off", |trail| trail.all_are(&orders, OrderStatus::Cancelled)).await;
    trail.until("their stock is free", |trail| trail.stock("TEA").reserved == 0).await;
    assert_eq!(trail.positions_of("order.cancelled").len(), 60);
}

#[tokio::test]
async fn a_deadline_that_was_given_up_is_met_when_it_is_redriven() {
    let (shop, mut trail) = open().await;
    let _allocator = running::allocator_with_window(&shop.store, WINDOW);
    let order = shop.place("o", ONE_TEA).await;
    trail.until("it is reserved", |trail| trail.status(order) == Some(OrderStatus::Reserved)).await;
    // As if an older build had given it up: no timer is set.
    shop.acknowledge_all("deadlines", &["order"], Sharing::OneActive).await;
    shop.store.put_dead_letter(&letter("deadlines", trail.positions_of("order.stock_reserved")[0])).await.unwrap();
    let _deadlines = running::deadlines(&shop.store);
    let redriven = async || {
        let letters = dead_letters::select(&shop.store, &Selection::default()).await.unwrap();
        dead_letters::redrive(&shop.store, &letters).await.pop().map(|redriven| redriven.outcome)
    };
    assert_eq!(redriven().await, Some(Verdict::NotNow), "it is not due yet, or nobody listens yet");
    let done = async || (redriven().await == Some(Verdict::Done)).then_some(());
    eventually("it is due", done).await;
    trail.until("it is called off", |trail| trail.status(order) == Some(OrderStatus::Cancelled)).await;
    assert_called_off_in_time(&trail, order);
    assert_eq!(dead_letters::select(&shop.store, &Selection::default()).await.unwrap(), []);
}
