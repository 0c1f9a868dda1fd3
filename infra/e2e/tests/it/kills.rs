//! SIGKILL, one process after the other, while orders flow.

use std::sync::Arc;

use e2e::load::{self, Counters, Load};
use e2e::workload::Workload;
use local_stack::Durability;
use serde_json::json;

use crate::running::{Running, orders_flow};

const ORDERS: u64 = 1_500;
const ORDERS_PER_S: f64 = 30.0;
/// Orders that are placed between one process's return and the next one's death.
const ORDERS_BETWEEN_KILLS: u64 = 120;

const VICTIMS: [&str; 6] = ["command-api", "reactors", "projectors", "query-api", "nats", "postgres"];

#[tokio::test(flavor = "multi_thread")]
async fn each_process_can_be_killed_while_orders_flow_and_no_order_is_lost_or_doubled() {
    // As in production: what was acknowledged is on disk.
    let mut running = Running::start_with(Durability::Disk);
    let workload = Workload::new("kills", 11, ORDERS);
    // Charges take their time, so that some are in flight whenever somebody dies.
    running.shop.set_gateway_faults(&json!({ "latency_ms": {"min": 50, "max": 400} })).await.unwrap();
    load::receive_stock(&running.shop, &workload).await.unwrap();
    let counters = Arc::<Counters>::default();
    let load = Load { rate: Some(ORDERS_PER_S), counters: counters.clone(), ..Load::default() };
    let shop = running.shop.clone();
    let placing = tokio::spawn(async move { load::run(&shop, &workload, &load).await });

    for victim in VICTIMS {
        orders_flow(&counters, &placing, ORDERS_BETWEEN_KILLS).await;
        running.kill(victim);
        running.start_again(victim);
    }

    let placed = placing.await.unwrap().unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(placed.orders.len() as u64, ORDERS);
    let report = running.check_invariants().await;
    assert_eq!(report.orders, ORDERS);
    assert!(report.confirmed > 0 && report.rejected > 0 && report.cancelled > 0, "{report:?}");
    running.finish();
}
