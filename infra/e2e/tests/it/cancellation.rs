//! A customer changes their mind: the money comes back and the stock is free again.

use std::time::Duration;

use e2e::eventually::eventually;
use e2e::settle::settle;
use e2e::shop::Shop;
use futures::future::join_all;
use serde_json::json;

use crate::running::{Running, order_of};

const SEEN_DEADLINE: Duration = Duration::from_secs(20);

async fn has_status(shop: &Shop, order_id: &str, status: &str, payment_status: &str) {
    let what = format!("order {order_id} is {status} and {payment_status}");
    let seen = eventually(&what, SEEN_DEADLINE, async || {
        let seen = shop.order(order_id, None).await?;
        Ok(seen.filter(|order| order.status == status && order.payment_status == payment_status))
    });
    seen.await.unwrap_or_else(|error| panic!("{error:#}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_cancelled_after_it_was_paid_is_refunded_and_its_stock_released() {
    let running = Running::start();
    let shop = &running.shop;
    shop.receive("TEA-1", 3, "receipt").await.unwrap();
    let placed = shop.place(&order_of("TEA-1", 3), "order").await.unwrap();
    let order_id = placed.order_id.to_string();
    has_status(shop, &order_id, "CONFIRMED", "CAPTURED").await;

    let cancelled = shop.cancel(placed.order_id, "found it cheaper", "cancel").await.unwrap();
    assert_eq!(cancelled.status, "CANCELLED");
    has_status(shop, &order_id, "CANCELLED", "REFUNDED").await;
    let ledger = shop.gateway_ledger().await.unwrap();
    assert_eq!(ledger.charges.iter().map(|charge| charge.amount).collect::<Vec<_>>(), [3_750]);
    assert_eq!(ledger.refunds.iter().map(|refund| refund.amount).collect::<Vec<_>>(), [3_750]);
    assert_eq!(ledger.refunds[0].order_id.as_deref(), Some(order_id.as_str()));

    settle(running.info(), shop).await.unwrap();
    let stock = shop.stock_item("TEA-1", None).await.unwrap().unwrap();
    assert_eq!((stock.on_hand, stock.reserved, stock.available), (3, 0, 3));
    // The pieces can be had by somebody else.
    let next = shop.place(&order_of("TEA-1", 3), "next").await.unwrap();
    has_status(shop, &next.order_id.to_string(), "CONFIRMED", "CAPTURED").await;
    running.check_invariants().await;
    running.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_are_cancelled_while_they_are_being_charged_end_with_the_money_back() {
    let running = Running::start();
    let shop = &running.shop;
    // The gateway takes its time, so that the cancellations meet charges in flight.
    shop.set_gateway_faults(&json!({ "latency_ms": {"min": 20, "max": 120} })).await.unwrap();
    shop.receive("TEA-1", 1_000, "receipt").await.unwrap();
    let orders = join_all((0..60_u64).map(|index| async move {
        let placed = shop.place(&order_of("TEA-1", 1), &format!("order-{index}")).await.unwrap();
        // Some customers think longer than others: the cancellations meet orders in every state.
        tokio::time::sleep(Duration::from_millis(index * 4)).await;
        shop.cancel(placed.order_id, "changed my mind", &format!("cancel-{index}")).await.unwrap();
    }));
    orders.await;
    let report = running.check_invariants().await;
    assert_eq!(report.cancelled, 60);
    let ledger = shop.gateway_ledger().await.unwrap();
    assert_eq!(ledger.charges.len(), ledger.refunds.len());
    assert!(!ledger.charges.is_empty(), "no cancellation came late enough to meet a charge");
    let stock = shop.stock_item("TEA-1", None).await.unwrap().unwrap();
    assert_eq!((stock.on_hand, stock.reserved), (1_000, 0));
    running.finish();
}
