//! SIGTERM: a service finishes what it has in hand and ends with 0.

use std::sync::Arc;

use e2e::load::{self, Counters, Load};
use e2e::workload::Workload;

use crate::running::{Running, orders_flow};

const ORDERS: u64 = 600;
const ORDERS_PER_S: f64 = 40.0;
const ORDERS_BETWEEN_STOPS: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn each_service_drains_on_sigterm_while_orders_flow_and_ends_with_exit_code_0() {
    let mut running = Running::start();
    let workload = Workload::new("drain", 13, ORDERS);
    load::receive_stock(&running.shop, &workload).await.unwrap();
    let counters = Arc::<Counters>::default();
    let load = Load { rate: Some(ORDERS_PER_S), counters: counters.clone(), ..Load::default() };
    let shop = running.shop.clone();
    let placing = tokio::spawn(async move { load::run(&shop, &workload, &load).await });

    for service in ["command-api", "reactors", "projectors", "query-api", "payment-simulator"] {
        orders_flow(&counters, &placing, ORDERS_BETWEEN_STOPS).await;
        running.stop(service);
        running.start_again(service);
    }

    let placed = placing.await.unwrap().unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(placed.orders.len() as u64, ORDERS);
    let report = running.check_invariants().await;
    assert_eq!(report.orders, ORDERS);
    running.finish();
}
