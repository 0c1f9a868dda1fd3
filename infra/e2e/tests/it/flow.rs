//! An order, from POST to DELIVERED, and two hundred at once.

use std::time::Duration;

use e2e::eventually::eventually;
use e2e::load::{self, Load};
use e2e::workload::Workload;

use crate::running::{Running, order_of};

const SEEN_DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn an_order_goes_from_placed_to_delivered_and_a_customer_sees_each_step() {
    let running = Running::start();
    let shop = &running.shop;
    shop.receive("TEA-1", 10, "receipt").await.unwrap();

    let placed = shop.place(&order_of("TEA-1", 2), "order").await.unwrap();
    assert_eq!((placed.status.as_str(), placed.version), ("PLACED", 1));
    let order_id = placed.order_id.to_string();
    // What the checkout was told, its next query sees.
    let seen = shop.order(&order_id, Some(placed.position)).await.unwrap().expect("the order is there");
    assert_eq!((seen.order_id.as_str(), seen.total.minor_units.as_str()), (order_id.as_str(), "2500"));

    let confirmed = eventually("the order is confirmed", SEEN_DEADLINE, async || {
        let seen = shop.order(&order_id, None).await?.expect("an order never disappears");
        Ok((seen.status == "CONFIRMED").then_some(seen))
    });
    let confirmed = confirmed.await.unwrap();
    assert_eq!((confirmed.payment_status.as_str(), confirmed.version), ("CAPTURED", 3));
    // The inventory is a read model of its own: it may be behind the order, unless it is asked not to be.
    let stock = shop.stock_item("TEA-1", Some(confirmed.position.parse().unwrap())).await.unwrap().unwrap();
    assert_eq!((stock.on_hand, stock.reserved, stock.available), (10, 2, 8));

    let shipped = shop.ship(placed.order_id, "CT-1", "ship").await.unwrap();
    assert_eq!((shipped.status.as_str(), shipped.version), ("SHIPPED", 4));
    let seen = shop.order(&order_id, Some(shipped.position)).await.unwrap().unwrap();
    assert_eq!(seen.status, "SHIPPED");
    let delivered = shop.deliver(placed.order_id, "deliver").await.unwrap();
    let seen = shop.order(&order_id, Some(delivered.position)).await.unwrap().unwrap();
    assert_eq!((seen.status.as_str(), seen.version), ("DELIVERED", 5));
    assert_eq!(shop.cancel(placed.order_id, "too late", "cancel").await.unwrap_err().status(), Some(409));

    let history = shop.history(&order_id, Some(delivered.position)).await.unwrap();
    let types: Vec<_> = history.iter().map(|event| event.event_type.trim_start_matches("contrail.")).collect();
    assert_eq!(
        types,
        [
            "order.placed.v1",
            "order.stock_reserved.v1",
            "payment.captured.v1",
            "order.confirmed.v1",
            "order.shipped.v1",
            "order.delivered.v1"
        ]
    );
    running.check_invariants().await;
    let stock = shop.stock_item("TEA-1", None).await.unwrap().unwrap();
    assert_eq!((stock.on_hand, stock.reserved), (8, 0), "what was shipped has left the shelf");
    running.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_orders_at_once_end_in_every_way_and_all_invariants_hold() {
    let running = Running::start();
    let workload = Workload::new("flow", 7, 200);
    load::receive_stock(&running.shop, &workload).await.unwrap();
    let placed = load::run(&running.shop, &workload, &Load::default()).await.unwrap_or_else(|error| panic!("{error:#}"));
    let report = running.check_invariants().await;

    assert_eq!(report.orders, 200);
    assert_eq!(report.rejected, 6, "of 12 orders for the scarce tea half are rejected");
    // 8 cards are declined and 4 customers change their minds.
    assert_eq!(report.cancelled, 12);
    assert_eq!(report.confirmed, 182);
    let seen = ["CONFIRMED", "REJECTED", "CANCELLED"].map(|status| placed.count(status));
    assert_eq!(seen, [report.confirmed, report.rejected, report.cancelled], "what customers saw is what is in the log");
    running.finish();
}
