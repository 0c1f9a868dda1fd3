//! Orders whose customers do not pay in time.

use std::time::Duration;

use e2e::eventually::eventually;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::running::{Running, order_of};

const ORDERS: u64 = 30;
/// How long customers have to pay.
const WINDOW: Duration = Duration::from_secs(10);
const FLOW_DEADLINE: Duration = Duration::from_mins(1);
/// What has to be down for nobody to notice that time passes.
const EVERYTHING: [&str; 7] = ["command-api", "query-api", "projectors", "reactors", "payment-simulator", "nats", "postgres"];

#[tokio::test(flavor = "multi_thread")]
async fn orders_whose_deadline_passed_while_everything_was_down_are_called_off_and_their_stock_is_free() {
    let window = || ("reactors", "PAYMENT_WINDOW_S", WINDOW.as_secs().to_string());
    let mut running = Running::start_as(|options| options.settings.push(window()));
    let shop = running.shop.clone();
    shop.receive("TEA-1", 1_000, "receipt").await.unwrap();
    let paid = shop.place(&order_of("TEA-1", 1), "paid").await.unwrap();
    let is_paid = eventually("one is paid", FLOW_DEADLINE, async || {
        let seen = shop.order(&paid.order_id.to_string(), None).await?;
        Ok(seen.filter(|order| order.status == "CONFIRMED"))
    });
    is_paid.await.unwrap_or_else(|error| panic!("{error:#}"));
    shop.set_gateway_faults(&json!({ "outage": true })).await.unwrap();
    let placed = join_all((0..ORDERS).map(|index| {
        let shop = &shop;
        async move { shop.place(&order_of("TEA-1", 1), &format!("order-{index}")).await.unwrap() }
    }));
    let placed = placed.await;
    let reserved = eventually("the others have their stock", FLOW_DEADLINE, async || {
        Ok(shop.stock_item("TEA-1", None).await?.filter(|stock| stock.reserved == i64::try_from(ORDERS).unwrap() + 1))
    });
    reserved.await.unwrap_or_else(|error| panic!("{error:#}"));

    for name in EVERYTHING {
        running.kill(name);
    }
    tokio::time::sleep(WINDOW + Duration::from_secs(2)).await;
    EVERYTHING.into_iter().rev().for_each(|name| running.spawn(name));
    EVERYTHING.into_iter().rev().for_each(|name| running.wait_until_ready(name));

    let freed = eventually("their stock is free", FLOW_DEADLINE, async || {
        Ok(shop.stock_item("TEA-1", None).await?.filter(|stock| stock.reserved == 1))
    });
    freed.await.unwrap_or_else(|error| panic!("{error:#}"));
    let query = "query($id: ID!) { order(id: $id) { status paymentStatus cancellation { cause } } }";
    for order in &placed {
        let seen: Value = shop.query(query, &json!({ "id": order.order_id })).await.unwrap();
        let expected = json!({ "status": "CANCELLED", "paymentStatus": "NONE", "cancellation": { "cause": "PAYMENT_DEADLINE" } });
        assert_eq!(seen["order"], expected, "{}", order.order_id);
    }
    let report = running.check_invariants().await;
    assert_eq!((report.confirmed, report.cancelled), (1, ORDERS));
    running.finish();
}
