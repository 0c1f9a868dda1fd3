//! The payment gateway is down for a while: orders wait, none is lost, each is charged once.

use std::time::Duration;

use e2e::load::{self, Load};
use e2e::outage::{self, Plan};
use e2e::workload::Workload;
use futures::future::join_all;
use serde_json::json;

use crate::running::{Running, order_of};

const ORDERS: u64 = 80;
/// Calls to a gateway that fails, until the breaker opens: 64 at the same time, and one more for each that failed before the last that counts.
const CALLS_UNTIL_OPEN: u64 = 64 + 9;

#[tokio::test(flavor = "multi_thread")]
async fn orders_placed_while_the_gateway_is_down_are_all_confirmed_after_it_recovers_each_charged_once() {
    let running = Running::start();
    let plan = Plan { orders_per_s: 40.0, before_and_after: Duration::from_secs(2), outage: Duration::from_secs(8) };
    let outcome = outage::run(running.stack(), &running.shop, "outage", &plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    // It opens for 1, 2 and 4 s.
    assert!(outcome.opened >= 3.0 && outcome.closed >= 1.0, "{outcome}");
    assert!(outcome.backlog >= 250, "orders were taken all the same: {outcome}");
    assert!(outcome.turned_away <= CALLS_UNTIL_OPEN + 10, "it was not left alone: {outcome}");
    let report = running.check_invariants().await;
    assert_eq!(report.orders, outcome.orders);
    running.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_fails_often_and_loses_answers_charges_nobody_twice() {
    let running = Running::start();
    let shop = &running.shop;
    shop.receive("TEA-1", 1_000, "receipt").await.unwrap();
    shop.set_gateway_faults(&json!({ "error_rate": 0.2, "lost_answer_rate": 0.2 })).await.unwrap();
    join_all((0..ORDERS).map(|index| async move {
        let placed = shop.place(&order_of("TEA-1", 1), &format!("order-{index}")).await.unwrap();
        if index % 8 == 0 {
            shop.cancel(placed.order_id, "changed my mind", &format!("cancel-{index}")).await.unwrap();
        }
    }))
    .await;
    let report = running.check_invariants().await;
    assert_eq!((report.orders, report.cancelled), (ORDERS, ORDERS / 8));
    running.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_tenth_of_errors_and_a_twentieth_of_lost_answers_each_order_is_charged_at_most_once_and_comes_to_its_end() {
    const ORDERS: u64 = 900;
    let running = Running::start();
    let shop = &running.shop;
    let workload = Workload::new("errors", 20_261_121, ORDERS);
    load::receive_stock(shop, &workload).await.unwrap();
    shop.set_gateway_faults(&json!({ "error_rate": 0.1, "lost_answer_rate": 0.05 })).await.unwrap();
    let load = Load { rate: Some(60.0), ..Load::default() };
    let placed = load::run(shop, &workload, &load).await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(placed.orders.len() as u64, ORDERS, "all have come to their ends");
    shop.set_gateway_faults(&json!({})).await.unwrap();
    let report = running.check_invariants().await;
    assert_eq!((report.orders, report.confirmed + report.rejected + report.cancelled), (ORDERS, ORDERS));
    running.finish();
}
