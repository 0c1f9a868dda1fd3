//! A gateway with faults: orders wait, and none is lost or charged twice.

use std::{collections::BTreeMap, time::Duration};

use domain::{OrderId, order::OrderStatus, payment::PaymentStatus};
use payment_simulator::{Faults, Latency};
use reactors::{
    RetryBudget, Surroundings,
    breaker::{Breaker, Limits},
    payments::Payments,
};

use crate::{
    eventually,
    gateway::Gateway,
    running::{self, Dashboard},
    shop::{ONE_TEA, PRICE, Shop, receive},
    squeamish::Squeamish,
    trail::Trail,
};

/// Less than an event waits for an instance that does not report back: what happens within it was handed back.
const WELL_WITHIN_ACK_WAIT: Duration = Duration::from_secs(15);
/// Calls to a gateway that fails, until the breaker opens: 64 at the same time, and one more for each that failed before the last that counts.
const CALLS_UNTIL_OPEN: u64 = 64 + 9;

async fn open() -> (Shop, Gateway, Trail) {
    let (shop, gateway) = tokio::join!(Shop::open(), Gateway::open());
    shop.receive("TEA", 1_000).await;
    let trail = Trail::of(&shop.store);
    (shop, gateway, trail)
}

fn away_for_a_minute() -> Faults {
    Faults { outage: true, retry_after_s: Some(60), ..Faults::default() }
}

async fn assert_charged_once(gateway: &Gateway, orders: &[OrderId]) {
    let once: BTreeMap<_, _> = orders.iter().map(|order| (order.to_string(), vec![PRICE])).collect();
    assert_eq!(gateway.money().await.charges, once);
}

#[tokio::test]
async fn orders_wait_while_the_gateway_is_down_and_are_each_charged_once_when_it_is_back() {
    let (shop, gateway, mut trail) = open().await;
    let dashboard = Dashboard::of(&shop.store);
    let _running = [running::allocator(&shop.store), running::payments_on(dashboard.surroundings.clone(), gateway.adapter())];
    let changes = |phase| dashboard.breaker_changes(Payments::GATEWAY, phase);
    assert_eq!((changes("closed"), changes("open"), changes("half-open")), (1, 0, 0));
    gateway.set_faults(Faults { outage: true, ..Faults::default() });
    // More than are worked on at the same time.
    let orders = shop.place_many("o", 150, ONE_TEA).await;
    trail.until("all are reserved", |trail| trail.all_are(&orders, OrderStatus::Reserved)).await;
    let opened = async || (changes("open") >= 3).then_some(());
    eventually("the breaker is opened again and again", opened).await;
    trail.catch_up(&shop.store).await;
    assert!(trail.all_are(&orders, OrderStatus::Reserved));
    assert_eq!(shop.dead_letters().await, []);
    let (asked, probes) = (gateway.counted("unavailable").await, changes("half-open"));
    assert!(asked <= CALLS_UNTIL_OPEN + probes, "the gateway is left alone: {asked} calls and {probes} probes");
    assert_eq!(changes("closed"), 1);
    gateway.set_faults(Faults::default());
    trail.until("all are confirmed", |trail| trail.all_are(&orders, OrderStatus::Confirmed)).await;
    assert_charged_once(&gateway, &orders).await;
    assert_eq!(shop.dead_letters().await, []);
    assert_eq!(changes("closed"), 2);
}

#[tokio::test]
async fn a_gateway_that_takes_so_many_calls_a_second_is_asked_no_faster() {
    const TAKEN_PER_S: u32 = 25;
    let (shop, gateway, mut trail) = open().await;
    let dashboard = Dashboard::of(&shop.store);
    gateway.set_faults(Faults { outage: true, ..Faults::default() });
    let _running = [running::allocator(&shop.store), running::payments_on(dashboard.surroundings.clone(), gateway.adapter())];
    let changes = |phase| dashboard.breaker_changes(Payments::GATEWAY, phase);
    // As after an outage: all at once.
    let orders = shop.place_many("o", 200, ONE_TEA).await;
    trail.until("all are reserved", |trail| trail.all_are(&orders, OrderStatus::Reserved)).await;
    eventually("the breaker is open", async || (changes("open") >= 1).then_some(())).await;
    gateway.set_faults(Faults { requests_per_s_max: Some(TAKEN_PER_S), ..Faults::default() });
    eventually("it is back", async || (changes("closed") == 2).then_some(())).await;
    let opened = changes("open");
    trail.until("all are confirmed", |trail| trail.all_are(&orders, OrderStatus::Confirmed)).await;
    assert_eq!(changes("open"), opened, "a gateway that is asked too much is not away");
    assert_charged_once(&gateway, &orders).await;
    assert_eq!(shop.dead_letters().await, []);
    let (taken, refused) = (gateway.counted("charged").await, gateway.counted("too_many").await);
    assert!(refused > 0 && refused <= taken, "{taken} calls were taken and {refused} refused");
}

/// Whatever `cut_off` has been asked about while it is away waits for a minute; the rest another instance, with a gateway that works, charges.
async fn another_instance_gets_what_was_not_asked(cut_off: &Gateway, before_it_goes_away: impl AsyncFnOnce(&Gateway)) {
    let (shop, gateway, mut trail) = open().await;
    let dashboard = Dashboard::of(&shop.store);
    let _allocator = running::allocator(&shop.store);
    let _cut_off = running::payments_on(dashboard.surroundings.clone(), cut_off.adapter());
    let orders = shop.place_many("o", 200, ONE_TEA).await;
    // Some may be charged by now.
    let reserved = |trail: &Trail| trail.count(&orders, OrderStatus::Reserved) + trail.count(&orders, OrderStatus::Confirmed);
    trail.until("all are reserved", |trail| reserved(trail) == orders.len()).await;
    before_it_goes_away(cut_off).await;
    cut_off.set_faults(away_for_a_minute());
    let opened = async || (dashboard.breaker_changes(Payments::GATEWAY, "open") == 1).then_some(());
    eventually("one instance leaves its gateway alone", opened).await;
    let _other = running::payments(&shop.connect().await, gateway.adapter());
    // Those that were asked about have to wait for as long as their gateway wanted.
    let others =
        |trail: &Trail| trail.count(&orders, OrderStatus::Confirmed) >= orders.len() - usize::try_from(CALLS_UNTIL_OPEN).unwrap();
    trail.until_within(WELL_WITHIN_ACK_WAIT, "the others are confirmed", others).await;
}

#[tokio::test]
async fn what_an_instance_had_in_hand_when_its_breaker_opened_another_one_gets() {
    let broken = Gateway::open().await;
    broken.set_faults(away_for_a_minute());
    another_instance_gets_what_was_not_asked(&broken, async |_| {}).await;
}

#[tokio::test]
async fn what_waits_for_a_slow_gateway_another_instance_gets_once_that_is_gone() {
    let slow = Gateway::open().await;
    slow.set_faults(Faults { requests_per_s_max: Some(5), ..Faults::default() });
    let is_asked_at_its_pace = async |slow: &Gateway| {
        eventually("it is asked at its pace", async || (slow.counted("too_many").await > 0).then_some(())).await;
    };
    another_instance_gets_what_was_not_asked(&slow, is_asked_at_its_pace).await;
}

#[tokio::test]
async fn an_event_that_fails_while_others_do_not_is_given_up_within_its_budget_and_one_that_fails_alone_is_not() {
    let shop = Shop::open().await;
    let budget = RetryBudget { failures: 3, time: Duration::from_millis(300) };
    let surroundings = Surroundings { budget, ..running::surroundings(&shop.store) };
    // One event's failures open it, so that the budget has to outlive being handed back.
    let limits = Limits { failures_in_a_row: 2, probes: 1, open_min: Duration::from_millis(50), ..Limits::default() };
    let breaker = Breaker::new("stomach", limits, &surroundings.metrics, &surroundings.health);
    let _running = running::run_on(Squeamish::new(&breaker), surroundings);
    let poison = receive(&shop.store, "EEL", 1).await;
    for _ in 0..3 {
        breaker.opened().await;
        breaker.not_open().await;
    }
    assert_eq!(shop.dead_letters().await, [], "it may be the system");
    let mut others = 0;
    let letters = loop {
        shop.receive("TEA", 1).await;
        others += 1;
        let letters = shop.dead_letters().await;
        if !letters.is_empty() || others > 1_000 {
            break letters;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((letter.position, letter.reactor.as_str()), (poison, "squeamish"));
    assert!(letter.attempts >= 5, "those that did not count are told, too: {letter:?}");
    assert_eq!(letter.error_chain, ["not that again"]);
    shop.idle("squeamish").await;
}

#[tokio::test]
async fn events_that_always_fail_do_not_keep_the_others_from_being_tried() {
    const ALWAYS_FAIL: u32 = 48;
    let shop = Shop::open().await;
    let surroundings = running::surroundings(&shop.store);
    // Each has been tried before it opens, none is ever given up, and there are more than take their turns while those that were tried last are put off.
    let (failures_in_a_row, open) = (ALWAYS_FAIL + 1, Duration::from_secs(2));
    let limits = Limits { failures_in_a_row, probes: 1, open_min: open, open_max: open, ..Limits::default() };
    let breaker = Breaker::new("stomach", Limits { failed_share: 2.0, ..limits }, &surroundings.metrics, &surroundings.health);
    let squeamish = Squeamish { retry_after: Some(Duration::from_secs(3)), ..Squeamish::new(&breaker) };
    let _running = running::run_on(squeamish, surroundings);
    for _ in 0..ALWAYS_FAIL {
        shop.receive("EEL", 1).await;
    }
    breaker.opened().await;
    let last = receive(&shop.store, "TEA", 1).await;
    let handled = async || shop.is_acknowledged("squeamish", last).await.then_some(());
    eventually("the other one is handled", handled).await;
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
    trail.until("it is released", |trail| trail.positions_of("stock.released").len() == 1).await;
    // A try that began before the order was cancelled would still charge it, and the money would have to be given back: the second from now
    // on began later.
    let tries = gateway.counted("unavailable").await;
    gateway.until_counted("unavailable", tries + 2).await;
    gateway.set_faults(Faults::default());
    let other = shop.place("p", ONE_TEA).await;
    trail.until("the next one is confirmed", |trail| trail.all_are(&[other], OrderStatus::Confirmed)).await;
    assert_eq!(trail.payment_status(order), PaymentStatus::None);
    assert_charged_once(&gateway, &[other]).await;
}

#[tokio::test]
async fn answers_that_are_lost_do_not_charge_or_refund_twice() {
    let (shop, gateway, mut trail) = open().await;
    let _running = [running::allocator(&shop.store), running::payments(&shop.store, gateway.adapter())];
    gateway.set_faults(Faults { lost_answer_rate: 1.0, ..Faults::default() });
    let orders = shop.place_many("o", 40, ONE_TEA).await;
    // At least: after so many lost answers the gateway is left alone.
    eventually("many are charged", async || (gateway.money().await.charges.len() >= 10).then_some(())).await;
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
    // More than it takes to open the breaker, and it is tried again after that.
    let orders = shop.place_many("o", 5, ONE_TEA).await;
    gateway.until_counted("refused", 12).await;
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
    gateway.until_counted("unavailable", 10).await;
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
