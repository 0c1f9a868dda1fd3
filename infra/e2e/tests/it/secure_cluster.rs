//! The whole flow on the log as it is in production: three servers that fsync, replicate over TLS, and know everybody by an nkey.

use e2e::load::{self, Load};
use e2e::workload::Workload;
use local_stack::nats::production::ProductionCluster;
use tokio::task::block_in_place;

use crate::running::Running;

const ORDERS: u64 = 200;
/// What each server may keep on disk: some times what the test writes.
const FILE_STORE: &str = "256MB";

#[tokio::test(flavor = "multi_thread")]
async fn orders_flow_on_three_servers_with_certificates_and_keys() {
    let folder = tempfile::tempdir().unwrap();
    let cluster =
        block_in_place(|| ProductionCluster::start(folder.path(), FILE_STORE)).unwrap_or_else(|error| panic!("{error:#}"));
    let running = Running::start_as(|options| {
        options.nats_url = Some(cluster.url().to_owned());
        options.nats_files = Some(cluster.files().clone());
        options.settings.push(("projectors", "EVENTS_REPLICAS", "3".to_owned()));
    });
    let workload = Workload::new("secure", 23, ORDERS);
    load::receive_stock(&running.shop, &workload).await.unwrap();
    let placed = load::run(&running.shop, &workload, &Load::default()).await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(placed.orders.len() as u64, ORDERS);
    let report = running.check_invariants().await;
    assert_eq!(report.orders, ORDERS);
    assert!(report.confirmed > 0 && report.rejected > 0 && report.cancelled > 0, "{report:?}");
}
