//! The payment gateway is down for a while: orders wait, none is lost, each is charged once.

use std::time::Duration;

use e2e::eventually::eventually;
use e2e::settle::settle;
use futures::future::join_all;
use serde_json::json;

use crate::running::{Running, order_of};

const ORDERS: u64 = 80;
/// Requests that the gateway turns away before it comes back: enough for several rounds of retries.
const REFUSALS: u64 = 200;
const OUTAGE_DEADLINE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn orders_placed_while_the_gateway_is_down_are_all_confirmed_after_it_recovers_each_charged_once() {
    let running = Running::start();
    let shop = &running.shop;
    shop.receive("TEA-1", 1_000, "receipt").await.unwrap();
    shop.set_gateway_faults(&json!({ "outage": true })).await.unwrap();
    join_all((0..ORDERS).map(|index| async move {
        shop.place(&order_of("TEA-1", 1), &format!("order-{index}")).await.unwrap();
    }))
    .await;

    let refused = eventually("the gateway turns charges away", OUTAGE_DEADLINE, async || {
        let state = shop.gateway_state().await?;
        Ok(state["counts"]["unavailable"].as_u64().filter(|count| *count >= REFUSALS))
    });
    refused.await.unwrap_or_else(|error| panic!("{error:#}"));
    // Orders are taken and stock is set aside all the same.
    let reserved = eventually("all orders have their stock", OUTAGE_DEADLINE, async || {
        Ok(shop.stock_item("TEA-1", None).await?.filter(|stock| stock.reserved == i64::try_from(ORDERS).unwrap()))
    });
    reserved.await.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(shop.gateway_ledger().await.unwrap().charges.is_empty());

    shop.set_gateway_faults(&json!({})).await.unwrap();
    settle(running.info(), shop).await.unwrap();
    let report = running.check_invariants().await;
    assert_eq!((report.orders, report.confirmed), (ORDERS, ORDERS));
    assert_eq!(shop.gateway_ledger().await.unwrap().charges.len() as u64, ORDERS);
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
